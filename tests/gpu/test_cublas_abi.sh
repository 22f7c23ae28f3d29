#!/bin/sh
# gpu/cublas_api.h has declarations of its own: do they agree with cuBLAS's header, where there is one? So do the names
# of the functions with those that its library has.
source=$1
for root in "$CUDA_HOME" "$CUDA_PATH" /usr/local/cuda /usr; do
    if [ -n "$root" ] && [ -f "$root/include/cublas_v2.h" ]; then
        break
    fi
    root=
done
if [ -z "$root" ]; then
    echo "SKIP: cublas_v2.h is not installed"
    exit 77
fi
object=$(mktemp "${TMPDIR:-/tmp}/gapless-abi.XXXXXX") || exit 1
trap 'rm -f "$object"' EXIT
"${CC:-cc}" -std=c17 -Wall -Wextra -Werror -I"$source" -I"$source/engine/include" -isystem "$root/include" -c "$source/tests/gpu/abi/cublas_abi.c" \
    -o "$object" || exit 1
echo "the declarations agree with $root/include/cublas_v2.h"

names=$(sed -n 's/.*FUNCTION(\([A-Z][A-Za-z0-9_]*\),.*/cublas\1/p' "$source/gpu/cublas_api.h")
if [ "$(echo "$names" | wc -l)" -lt 7 ]; then
    echo "the functions of gpu/cublas_api.h were not found: $names"
    exit 1
fi
command -v nm >/dev/null || exit 0
for folder in "$root/lib64" "$root/lib" "$root/lib/x86_64-linux-gnu"; do
    library=$folder/libcublas.so.13
    [ -f "$library" ] || library=$folder/libcublas.so.12
    [ -f "$library" ] || continue
    for name in $names; do
        if ! nm -D "$library" | grep -q " [TW] $name\(@.*\)\{0,1\}\$"; then
            echo "$library has no $name"
            exit 1
        fi
    done
    echo "$library has all of them"
    break
done
