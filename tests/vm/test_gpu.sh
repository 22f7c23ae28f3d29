#!/bin/sh
# ctest: lock=lab plain
# A master on a (fake) GPU over verbs in one guest, with the very parameters that shared memory and the processor give.
# Staged: its memory cannot be reached from outside, so gradients are copied. Direct: the card has it registered by its
# address, as with nvidia-peermem, writes gradients into it and reads look-aheads from it.
set -u
# shellcheck source=common.sh
. "$1/tests/vm/common.sh"
needs_verbs
plugin=${GAPLESS_CUDA_FAKE:-$build/tests/libgapless_cuda_fake.so}
[ -e "$plugin" ] || skip "this build has no fake GPU: a C++ compiler was not found"

# A master on the GPU and one worker; its folder, how the worker's card reaches memory, the environment, more options.
together() { # folder, environment, options...
    folder=$1 environment=$2
    shift 2
    # shellcheck disable=SC2086
    env $environment timeout 250 "$program" master $task --epochs 1 --address verbs:10.1.1.1:7471 --workers 1 \
        --workers-wait 1 --insecure --device cuda --out "$folder" "$@" >"$folder.log" 2>&1 &
    master=$!
    timeout 250 "$program" worker --master verbs:10.1.1.1:7471 --insecure --quiet || { echo "# the worker ended with $?"; }
    wait $master && return
    cat "$folder.log"
    return 1
}

# Without leave to copy there is no run.
refuses() {
    timeout 250 "$program" master $task --epochs 1 --address verbs:10.1.1.1:7472 --insecure --device cuda >refused 2>&1
    [ $? -eq 1 ] && grep -q -e '--allow-staging' refused && return
    cat refused
    return 1
}

if [ "$inside" = inside ]; then
    export GAPLESS_CUDA_PLUGIN="$plugin"
    work=$(mktemp -d /tmp/gpu.XXXXXX) && cd "$work" || exit 1
    # shellcheck disable=SC2086
    check "one worker, shared memory, the processor" timeout 250 "$program" train $task --epochs 1 --workers 1 --out shm --quiet
    check "a card that cannot reach the GPU is no way" refuses
    check "staged" together staged "A=1" --allow-staging
    check "staged: it says so" grep -q "copied through host memory" staged.log
    check "staged: the same parameters to the bit" cmp shm/model.safetensors staged/model.safetensors
    check "direct" together direct "FAKE_CUDA_OPEN=1 FAKE_CUDA_DMABUF=0"
    check "direct: it says so" grep -q "cards write and read its memory by nvidia-peermem" direct.log
    check "direct: the same parameters to the bit" cmp shm/model.safetensors direct/model.safetensors
    check "direct, in ranges" together ranges "FAKE_CUDA_OPEN=1 FAKE_CUDA_DMABUF=0" --range-elements 1024
    check "direct, in ranges: the same parameters to the bit" cmp shm/model.safetensors ranges/model.safetensors
    finish
fi

needs_lab
lab run --device rxe --share "$build" --timeout 560 -- sh "$0" "$1" "$2" inside
