#!/bin/sh
# ctest: lock=lab plain
# The checks of gapless bench gpu --accept that need a network card, in one guest: a soft card and the memory of a (fake)
# GPU, which it reaches by its address as with nvidia-peermem; and where it cannot reach it, that this is told.
set -u
# shellcheck source=common.sh
. "$1/tests/vm/common.sh"
needs_verbs
plugin=${GAPLESS_CUDA_FAKE:-$build/tests/libgapless_cuda_fake.so}
[ -e "$plugin" ] || skip "this build has no fake GPU: a C++ compiler was not found"

accept() { # environment, options...
    environment=$1
    shift
    # shellcheck disable=SC2086
    env $environment timeout 250 "$program" bench gpu --accept --quick --only gpudirect,soak --out made "$@" >output 2>&1
    code=$?
    sed 's/^/# /' output
    return $code
}

if [ "$inside" = inside ]; then
    export GAPLESS_CUDA_PLUGIN="$plugin"
    work=$(mktemp -d /tmp/accept.XXXXXX) && cd "$work" || exit 1
    check "a card that reaches the GPU" accept "FAKE_CUDA_OPEN=1 FAKE_CUDA_DMABUF=0"
    check "its memory was registered by address" grep -q "gpudirect *passed .* by nvidia-peermem, proven" output
    check "no kernel saw old bytes" grep -q "soak *passed .* 0 stale without a flush, 0 with one" output
    check "nothing was measured" grep -q '"fake": true' made/gpu-acceptance.json
    check "a card that does not reach it" accept "A=1" --rdma 10.1.1.1
    check "is not a failure" grep -q "0 passed, 0 failed, 2 not run" output
    check "what to do is told" grep -q "modprobe" output
    finish
fi

needs_lab
lab run --device rxe --share "$build" --timeout 560 -- sh "$0" "$1" "$2" inside
