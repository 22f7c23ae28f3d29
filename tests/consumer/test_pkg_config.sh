#!/bin/sh
# An installed, moved tree serves pkg-config: shared and static, C17 and C11.
. "$(dirname "$0")/install.sh"
command -v pkg-config >/dev/null || skip "pkg-config is not installed"
export PKG_CONFIG_PATH="$pkgconfig"

[ "$(pkg-config --modversion gapless)" = "$version" ] || fail "gapless.pc has another version"
# shellcheck disable=SC2046
for standard in c17 c11; do
    run $compiler -std=$standard -Wall -Wextra -Wpedantic -Werror "$source/tests/consumer/consumer.c" \
        -o "$scratch/shared" $(pkg-config --cflags --libs gapless)
done
LD_LIBRARY_PATH="$lib" "$scratch/shared" "$version" || fail "the shared consumer does not work"
# shellcheck disable=SC2046
run $compiler "$source/tests/consumer/consumer.c" -o "$scratch/static" \
    $(pkg-config --static --cflags --libs gapless | sed 's/-lgapless/-l:libgapless.a/')
"$scratch/static" "$version" || fail "the static consumer does not work"
