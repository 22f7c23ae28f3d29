#!/bin/sh
# Whatever nvcc is found, a build configures: GAPLESS_CUDA=AUTO takes the GPUs that it knows, and does without a compiler
# that does not work; ON refuses that. The compilers here are scripts.
set -u
source=${1:?"usage: $0 SOURCE BUILD"}
build=${2:?"usage: $0 SOURCE BUILD"}
scratch=$build/tests/test_cuda_toolkits
fail() {
    printf 'FAILED: %s\n' "$1"
    [ ! -f "$scratch/log" ] || cat "$scratch/log"
    exit 1
}
rm -rf "$scratch"
mkdir -p "$scratch"

# Knows what CUDA 12.4 knows; cannot compile, so that only what it is asked for matters.
cat >"$scratch/nvcc" <<END
#!/bin/sh
if [ "\$1" = --list-gpu-arch ]; then
    [ -f "$scratch/mute" ] && exit 1
    printf 'compute_%s\n' 50 60 75 80 86 89 90
    exit 0
fi
echo 'nvcc fatal   : no GPU code today' >&2
exit 1
END
chmod +x "$scratch/nvcc"

configure() { # arguments for CMake...
    rm -rf "$scratch/build"
    env -u CUDA_HOME -u CUDA_PATH CUDACXX="$scratch/nvcc" cmake -S "$source" -B "$scratch/build" \
        -DCMAKE_C_COMPILER="${CC:-cc}" -DGAPLESS_TESTS=OFF "$@" >"$scratch/log" 2>&1
}

configure || fail "a compiler that fails stops the configuration"
grep -q 'cuda  *no: .*nvcc does not work here' "$scratch/log" || fail "the summary does not say why there is no CUDA"
asked=$(sed -n 's/^CMAKE_CUDA_ARCHITECTURES[:A-Z]*=//p' "$scratch/build/CMakeFiles/gapless_cuda_try/build/CMakeCache.txt")
[ "$asked" = '75-real;80-real;90' ] || fail "nvcc knows 75, 80 and 90 of ours, and was asked for '$asked'"
configure -DGAPLESS_CUDA=ON && fail "GAPLESS_CUDA=ON does without CUDA"
grep -q 'GAPLESS_CUDA=ON:' "$scratch/log" || fail "GAPLESS_CUDA=ON does not say what is wrong"

touch "$scratch/mute"
configure || fail "a compiler that does not say what it knows stops the configuration"
grep -q 'cuda  *no: .*--list-gpu-arch' "$scratch/log" || fail "the summary does not say that nvcc knows no GPU"
