#!/bin/sh
# gpu/nccl_api.h has declarations of its own: do they agree with NCCL's header, where there is one? So do the names of
# the functions with those that its library has.
source=$1
for root in "$CUDA_HOME" "$CUDA_PATH" /usr/local/cuda /usr; do
    if [ -n "$root" ] && [ -f "$root/include/nccl.h" ]; then
        break
    fi
    root=
done
if [ -z "$root" ]; then
    echo "SKIP: nccl.h is not installed"
    exit 77
fi
object=$(mktemp "${TMPDIR:-/tmp}/gapless-abi.XXXXXX") || exit 1
trap 'rm -f "$object"' EXIT
"${CC:-cc}" -std=c17 -Wall -Wextra -Werror -I"$source" -I"$source/engine/include" -isystem "$root/include" -c "$source/tests/gpu/abi/nccl_abi.c" \
    -o "$object" || exit 1
echo "the declarations agree with $root/include/nccl.h"

library=
for folder in "$root/lib64" "$root/lib" "$root/lib/x86_64-linux-gnu"; do
    if [ -f "$folder/libnccl.so.2" ]; then
        library=$folder/libnccl.so.2
        break
    fi
done
if [ -z "$library" ] || ! command -v nm >/dev/null; then
    exit 0
fi
names=$(sed -n 's/.*FUNCTION(\([A-Z][A-Za-z]*\),.*/nccl\1/p' "$source/gpu/nccl_api.h")
if [ "$(echo "$names" | wc -l)" -lt 11 ]; then
    echo "the functions of gpu/nccl_api.h were not found: $names"
    exit 1
fi
for name in $names; do
    if ! nm -D "$library" | grep -q " [TW] $name\$"; then
        echo "$library has no $name"
        exit 1
    fi
done
echo "$library has all of them"
