#!/bin/sh
# An installed, moved tree serves a CMake project: shared and static.
. "$(dirname "$0")/install.sh"

run cmake -S "$source/tests/consumer" -B "$scratch/build" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Release
run cmake --build "$scratch/build"
for kind in shared static; do
    "$scratch/build/consumer_$kind" "$version" || fail "the $kind consumer does not work"
done
ldd "$scratch/build/consumer_shared" | grep -q "$lib/libgapless.so" || fail "consumer_shared uses another library"
ldd "$scratch/build/consumer_static" | grep -q libgapless && fail "consumer_static uses the shared library"
if cmake -S "$source/tests/consumer" -B "$scratch/elsewhere" -DCMAKE_C_COMPILER="$compiler" \
    -Dgapless_DIR=/nonexistent >/dev/null 2>&1; then
    fail "a Gapless was found that this test did not install"
fi
"$prefix/bin/gapless" --version | grep -q "$version" || fail "the installed program does not say its version"
