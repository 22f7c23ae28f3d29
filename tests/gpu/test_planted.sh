#!/bin/sh
# A test of the tests: bugs planted in kernels are found by those builds of the emulator that should find them, and
# the kernels without a bug pass in all. Run as: test_planted.sh SOURCE BUILD
#
# ctest: plain
set -u
source=${1:?the source folder}
build=${2:?the build folder}
cxx=${CXX:-g++}
if ! command -v "$cxx" >/dev/null 2>&1; then
    echo "SKIP: a C++ compiler is not installed"
    exit 77
fi
work=$(mktemp -d "$build/tests/planted.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
shim=$source/tests/gpu/shim
failed=0

# build NAME FLAGS: TSan follows what the scheduler says, not how it does it, so that is never compiled with it.
build() {
    name=$1
    flags=$2
    common="-std=c++17 -O1 -g -I$shim -I$source -ffp-contract=off"
    part=$flags
    [ "$name" = tsan ] && part=
    # shellcheck disable=SC2086
    for file in sched sched_launch; do
        "$cxx" $common $part -c "$shim/$file.cpp" -o "$work/$name-$file.o" || return 1
    done
    # shellcheck disable=SC2086
    "$cxx" $common $flags -Wno-unknown-pragmas -x c++ -c "$source/tests/gpu/planted/planted.cu" -o "$work/$name-planted.o" &&
        "$cxx" $flags "$work/$name"-*.o -o "$work/$name" -lpthread
}

# run NAME BUG SEED: the status of it; ASan must not look for leaks of a program that ended by a report.
run() {
    (
        [ "$3" = 0 ] || export CUEMU_SEED="$3" CUEMU_PREEMPT=10
        ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=halt_on_error=1:report_thread_leaks=0 \
            "$work/$1" "$2" >"$work/said" 2>&1
    )
}

# finds NAME BUG [SEED]: it must find the bug. passes: it must find nothing.
finds() {
    if run "$1" "$2" "${3:-0}"; then
        echo "bug $2 was not found by $1${3:+, seed $3}"
        failed=1
    fi
}
passes() {
    if ! run "$1" "$2" "$3"; then
        echo "$1, seed $3, found a bug where there is none (kernel $2):"
        head -n 20 "$work/said"
        failed=1
    fi
}
says() { # the last report has this
    if ! grep -q "$1" "$work/said"; then
        echo "the report does not say \"$1\":"
        head -n 20 "$work/said"
        failed=1
    fi
}

ulimit -c 0
if ! echo 'int main() { return 0; }' >"$work/try.cpp" ||
    ! "$cxx" -fsanitize=thread "$work/try.cpp" -o "$work/try" 2>/dev/null || ! "$work/try" ||
    ! "$cxx" -fsanitize=address,undefined "$work/try.cpp" -o "$work/try" 2>/dev/null || ! "$work/try"; then
    echo "SKIP: $cxx has no sanitizers here"
    exit 77
fi
build plain "" || exit 1
build asan "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer" || exit 1
build tsan "-fsanitize=thread" || exit 1

for name in plain asan tsan; do
    for seed in 0 1 7; do
        passes "$name" 0 "$seed"
    done
    finds "$name" 2
    finds "$name" 4
    finds "$name" 5
    says "planted.cu"
    finds "$name" 7 3
    finds "$name" 8
    finds "$name" 10
    says "planted.cu"
done
finds plain 2 3

# Out of bounds: with the line of the kernel.
finds asan 1
says "heap-buffer-overflow"
says "planted.cu"
finds asan 4
says "planted.cu"

# Order of memory: TSan alone can see it.
for bug in 3 6 9; do
    finds tsan $bug
    says "data race"
    says "planted.cu"
done
passes plain 3 0
passes plain 6 0
finds tsan 2
says "data race"
finds tsan 7
says "data race"

[ $failed = 0 ] && echo "the planted bugs are found, and nothing where there is none"
exit $failed
