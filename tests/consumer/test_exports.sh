#!/bin/sh
# Both libraries show exactly the functions of gapless.h and status.h; the shared one under a versioned soname, and it needs
# nothing but libc, libm and threads, and what RDMA and products of matrices take if it was built with them. The installed
# tree has what it should have.
. "$(dirname "$0")/install.sh"
for tool in nm readelf; do
    command -v $tool >/dev/null || skip "$tool is not installed (Debian: binutils)"
done
so=$lib/libgapless.so.$version
[ -f "$so" ] || fail "libgapless.so.$version is not installed"

# Declarations only: preprocessed, so that comments and macros are gone.
for header in gapless status; do
    # shellcheck disable=SC2086
    $compiler -E -P -I"$prefix/include" "$prefix/include/gapless/$header.h" || fail "$header.h does not stand alone"
done | grep -o 'gapless_[a-z0-9_]*(' | tr -d '(' | LC_ALL=C sort -u >"$scratch/declared"
nm -D --defined-only "$so" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort -u >"$scratch/exported"
if ! diff "$scratch/declared" "$scratch/exported" >"$scratch/difference"; then
    cat "$scratch/difference"
    fail "'<': declared but not exported, add it to engine/gapless.map; '>': exported but not declared"
fi
nm -g --defined-only "$lib/libgapless.a" | awk 'NF == 3 { print $3 }' | LC_ALL=C sort >"$scratch/global"
if ! diff "$scratch/declared" "$scratch/global" >"$scratch/difference"; then
    cat "$scratch/difference"
    fail "libgapless.a: '<': declared but not defined; '>': a global name that no header declares"
fi

soname=$(readelf -d "$so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
[ "$soname" = "libgapless.so.${version%.*}" ] || fail "the soname is '$soname'"
[ -e "$lib/$soname" ] && [ -e "$lib/libgapless.so" ] || fail "a link to the shared library is missing"
needed=$(readelf -d "$so" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
    grep -v -E '^(libc|libm|libpthread|ld-linux[a-z0-9-]*|libibverbs|librdmacm|libsodium|libopenblas)\.so\.[0-9]+$')
[ -z "$needed" ] || fail "the library needs more than libc, libm, threads, RDMA and OpenBLAS: $needed"

for file in include/gapless/gapless.h include/gapless/status.h bin/gapless share/doc/gapless/LICENSE; do
    [ -f "$prefix/$file" ] || fail "$file is not installed"
done
[ "$(find "$prefix/include" -type f | wc -l)" -eq 2 ] || fail "more headers are installed than the public ones"
# Nothing installed may name the folders it was built in.
if grep -rlF -e "$source/" -e "$build/" "$prefix" --include='*.cmake' --include='*.pc' --include='*.h' |
    grep .; then
    fail "the files above name the build folder"
fi
echo "$(wc -l <"$scratch/declared") functions, $soname"
