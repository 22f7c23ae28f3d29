#!/bin/sh
# examples/c are built as a user would, against an installed copy by pkg-config and by find_package, and with the sources
# by add_subdirectory, and each time run: a worker joins own_model, whose model gets better; simulate_own_gradient once.
. "$(dirname "$0")/install.sh"
command -v pkg-config >/dev/null || skip "pkg-config is not installed"

# Runs own_model, and beside it worker, from folder $1: the accuracy has to rise.
train() {
    "$1/own_model" "shm:examples-$$" >"$scratch/curve" 2>"$scratch/log" &
    "$1/worker" "shm:examples-$$" >"$scratch/joined" 2>"$scratch/joined.log" ||
        fail "worker: $(cat "$scratch/joined.log")"
    wait $! || fail "own_model: $(cat "$scratch/log")"
    grep -q '^worker [0-9]*: [0-9]* gradients' "$scratch/joined" || fail "worker says: $(cat "$scratch/joined")"
    first=$(sed -n '1s/.*accuracy \([0-9]*\).*/\1/p' "$scratch/curve")
    last=$(sed -n '$s/.*accuracy \([0-9]*\).*/\1/p' "$scratch/curve")
    [ "${last:-0}" -ge 90 ] && [ "$(wc -l <"$scratch/curve")" -ge 2 ] && [ "$last" -gt "${first:-100}" ] || {
        cat "$scratch/curve"
        fail "the model of $1 does not get better"
    }
    echo "$1: $first % to $last %"
}

mkdir "$scratch/pkg-config"
for example in own_model worker simulate_own_gradient; do
    # shellcheck disable=SC2046,SC2086
    PKG_CONFIG_PATH="$pkgconfig" run $compiler -O2 -Wall -Wextra -Werror "$source/examples/c/$example.c" \
        -o "$scratch/pkg-config/$example" $(PKG_CONFIG_PATH="$pkgconfig" pkg-config --cflags --libs gapless) -lm
done
LD_LIBRARY_PATH="$lib"
export LD_LIBRARY_PATH
train "$scratch/pkg-config"

# A simulation gives the same numbers each time, and look-ahead is worth something.
"$scratch/pkg-config/simulate_own_gradient" >"$scratch/simulated" 2>"$scratch/log" || fail "simulate: $(cat "$scratch/log")"
"$scratch/pkg-config/simulate_own_gradient" | cmp - "$scratch/simulated" || fail "simulate_own_gradient: other numbers the second time"
accuracy() { sed -n "s/^$1 .*accuracy \([0-9]*\).*/\1/p" "$scratch/simulated"; }
[ "$(accuracy dana-zero)" -ge 90 ] && [ "$(accuracy nag-asgd)" -le 75 ] || fail "simulated: $(cat "$scratch/simulated")"
unset LD_LIBRARY_PATH

run cmake -S "$source/examples/c" -B "$scratch/find_package" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Release
run cmake --build "$scratch/find_package"
train "$scratch/find_package"

mkdir "$scratch/subproject"
cp "$source/tests/consumer/subproject.cmake" "$scratch/subproject/CMakeLists.txt"
for type in "" Debug; do # none is not to become one; the other takes the least time to compile
    run cmake -S "$scratch/subproject" -B "$scratch/subproject/build" -DGAPLESS_SOURCE="$source" \
        -DCMAKE_C_COMPILER="$compiler" -DCMAKE_BUILD_TYPE="$type" -DGAPLESS_ISA=generic
done
run cmake --build "$scratch/subproject/build" --parallel 2 --target own_model worker simulate_own_gradient leak
train "$scratch/subproject/build/examples"

lines=$(wc -l <"$source/examples/c/own_model.c")
[ "$lines" -lt 100 ] || fail "own_model.c has $lines lines; it is to fit on two pages, 100"
