#!/bin/sh
# A program may have functions of its own with any name that does not begin with gapless_: one that defines every other
# global name of the library's sources links to the static library, and the library calls its own.
. "$(dirname "$0")/install.sh"
command -v nm >/dev/null || skip "nm is not installed (Debian: binutils)"
[ -f "$build/libgapless_internal.a" ] || fail "there is no libgapless_internal.a: build gapless_internal"

nm -g --defined-only "$build/libgapless_internal.a" | awk 'NF == 3 && $3 !~ /^gapless_/ { print $3 }' |
    LC_ALL=C sort -u >"$scratch/names"
[ "$(wc -l <"$scratch/names")" -gt 100 ] || fail "only $(wc -l <"$scratch/names") names: has the library changed so much?"
for name in client_open record_add; do
    grep -qx $name "$scratch/names" || fail "$name is no function of the library any more: name another here"
done
{
    echo '#include <stdlib.h>'
    while read -r name; do
        echo "void $name(void);"
        echo "void $name(void) { abort(); }"
    done <"$scratch/names"
} >"$scratch/names.c"

PKG_CONFIG_PATH="$pkgconfig"
export PKG_CONFIG_PATH
command -v pkg-config >/dev/null || skip "pkg-config is not installed"
# shellcheck disable=SC2046,SC2086
run $compiler -fno-builtin "$source/tests/consumer/consumer.c" "$scratch/names.c" -o "$scratch/own" \
    $(pkg-config --static --cflags --libs gapless | sed 's/-lgapless/-l:libgapless.a/')
"$scratch/own" "$version" || fail "the library called a function of the program"
echo "$(wc -l <"$scratch/names") names are the program's"
