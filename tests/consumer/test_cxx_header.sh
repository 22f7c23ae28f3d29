#!/bin/sh
# The installed header compiles as C++ and its functions link from there.
. "$(dirname "$0")/install.sh"
cxx=${CXX:-c++}
command -v "$cxx" >/dev/null || skip "no C++ compiler is installed (Debian: g++)"

for standard in c++11 c++17; do
    run "$cxx" -std=$standard -Wall -Wextra -Wpedantic -Werror -I"$prefix/include" \
        "$source/tests/consumer/header.cc" -o "$scratch/cxx" -L"$lib" -lgapless
done
LD_LIBRARY_PATH="$lib" "$scratch/cxx" || fail "the C++ consumer does not work"
