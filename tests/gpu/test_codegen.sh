#!/bin/sh
# What nvcc makes of the kernels is what they were written for: no spills, no local memory, few enough registers, memory
# moved 128 bits at a time and no more often than a rule says, arithmetic that is rounded as on the CPU. No GPU is
# needed: the build's cubins and PTX are read (gapless_gpu_scan), for every architecture that it was made for.
# ctest: plain nvcc
set -u
source=$1 build=$2
scan=$build/tests/gapless_gpu_scan
made=$build/gpu/nvcc
work=$(mktemp -d "${TMPDIR:-/tmp}/gapless-codegen.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
result=0

wrong() {
    echo "FAILED: $*"
    result=1
}
cached() { # a variable of CMake's
    sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"
}
if [ ! -x "$scan" ]; then
    echo "SKIP: nvcc is not installed, or does not work (see the end of configuring)"
    exit 77
fi
nvcc=$(cached CMAKE_CUDA_COMPILER)
[ -n "$nvcc" ] || nvcc=$(cached GAPLESS_NVCC)

# ---- the scanner sees what is there ----
# What the build made of the sources that are there now; and its architectures, by that.
all=$(for file in "$source"/gpu/*.cu; do
    name=$(basename "$file" .cu)
    find "$made" -name "$name.*cubin" -o -name "$name.*ptx"
done | sort -V)
kernels=$(printf '%s\n' "$all" | grep '/compute_cuda.*cubin$')
# shellcheck disable=SC2086
architectures=$("$scan" show $kernels | awk '$1 ~ /^[0-9]+$/ { print $1 }' | sort -nu | tr '\n' ' ')
[ -n "$architectures" ] || wrong "there are no kernels in $made"
flags="-std=c++17 -O3 -cubin --keep -Xptxas=-v"
exact="--fmad=false --prec-div=true --prec-sqrt=true --ftz=false"
for architecture in $architectures; do
    mkdir "$work/$architecture" || exit 1
    # shellcheck disable=SC2086
    if ! "$nvcc" $flags $exact -arch=sm_"$architecture" --keep-dir="$work/$architecture" \
        -o "$work/$architecture/out.cubin" "$source/tests/gpu/scan/calibrate.cu" >"$work/log" 2>&1; then
        cat "$work/log"
        wrong "nvcc does not compile calibrate.cu for sm_$architecture"
        continue
    fi
    "$scan" calibrate "$work/$architecture/out.cubin" "$work/$architecture/calibrate.ptx" "$work/log" ||
        wrong "the scanner does not know the code of sm_$architecture"
done

# Planted: what the plugin must not be compiled with.
"$nvcc" -std=c++17 -O3 --fmad=true --prec-div=false --prec-sqrt=false --ftz=true -ptx -o "$work/careless.ptx" \
    "$source/tests/gpu/scan/calibrate.cu" >"$work/log" 2>&1 || cat "$work/log"
"$scan" careless "$work/careless.ptx" || wrong "the scanner does not see careless arithmetic"
"$scan" check "$work/careless.ptx" "$work"/*/out.cubin >"$work/log" && wrong "kernels of other sources pass as rules"
for file in "$work"/*/out.cubin; do
    dd if="$file" of="$work/short.cubin" bs=1000 count=5 2>/dev/null
    "$scan" show "$work/short.cubin" >"$work/log" 2>&1 && wrong "half a cubin passes as one"
    break
done

# ---- the plugin's kernels ----
for file in "$source"/gpu/*.cu; do
    name=$(basename "$file" .cu)
    for architecture in $architectures; do
        found=$(find "$made" -name "$name.*cubin" -newer "$file" | grep -c "\(_$architecture\|$name\)\.cubin$")
        [ "$found" = 1 ] || wrong "no code of $name.cu for sm_$architecture, or older than its source"
    done
done
# shellcheck disable=SC2086
"$scan" check $all || wrong "nvcc's output is not what the rules say"
# shellcheck disable=SC2086
[ $result -ne 0 ] || "$scan" table $all
exit $result
