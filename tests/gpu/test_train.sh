#!/bin/sh
# Whole runs of the program with a master on (fake) GPUs: the parameters are those of a master on the processor, to the
# bit; a recorded run of several workers, with gradients that wait together, is replayed on the processor to the same
# bits. Then machines without a GPU: exactly what is missing, exit 1; `auto` takes the processor and says so.
set -u
. "$1/tests/gpu/says.sh"
task="--data synthetic:2000x20x4 --model mlp:16 --batch 16 --epochs 1 --lr 0.02 --quiet"

export FAKE_CUDA_GPUS=2
# shellcheck disable=SC2086
for rule in dana-ga shared-lga-dot; do
    check "$rule: one worker, on the processor" timeout 250 "$program" train $task --workers 1 --rule $rule --out cpu-$rule
    check "$rule: on a GPU" timeout 250 "$program" train $task --workers 1 --rule $rule --device cuda --out gpu-$rule
    check "$rule: the same parameters" cmp cpu-$rule/model.safetensors gpu-$rule/model.safetensors
done
# shellcheck disable=SC2086
for rule in dana-ga dana-lga nag-asgd; do
    check "$rule: four workers, two GPUs, recorded" timeout 250 "$program" train $task --workers 4 --rule $rule \
        --device cuda:0,1 --range-elements 1024 --record record-$rule --out live-$rule
    check "$rule: replayed on the processor" timeout 250 "$program" simulate --replay record-$rule --out again-$rule
    check "$rule: the same parameters" cmp live-$rule/model.safetensors again-$rule/model.safetensors
done

# shellcheck disable=SC2086
{
    says "no GPU" 1 "no GPU\|GPU" env FAKE_CUDA_GPUS=0 timeout 250 "$program" train $task --workers 1 --device cuda --out no
    says "no driver" 1 "driver" env FAKE_CUDA_DRIVER=none timeout 250 "$program" train $task --workers 1 --device cuda --out no
    says "no plugin" 1 "libgapless_cuda\|nothing.so" env GAPLESS_CUDA_PLUGIN="$work/nothing.so" timeout 250 "$program" train \
        $task --workers 1 --device cuda --out no
    check "nothing was started" test ! -e no
    says "auto without a driver" 0 "no GPU is used: .*driver" env FAKE_CUDA_DRIVER=none timeout 250 "$program" train $task \
        --workers 1 --device auto --out auto
    says "auto and no cuBLAS for the rule" 0 "no GPU is used: GAPLESS_CUBLAS" env GAPLESS_CUBLAS=/nothing.so timeout 250 \
        "$program" train $task --workers 1 --rule muon --device auto --out auto
    says "no cuBLAS for the rule" 1 "GAPLESS_CUBLAS names no library" env GAPLESS_CUBLAS=/nothing.so timeout 250 "$program" \
        train $task --workers 1 --rule muon --device cuda --out no
    check "nothing was started for want of cuBLAS" test ! -e no
    check "matrices on a GPU" env GAPLESS_CUBLAS="$GAPLESS_BUILD_DIR/tests/libgapless_fake_cublas.so" timeout 250 "$program" \
        train $task --workers 1 --rule dana-lga-muon --device cuda --out matrices
    says "a device that is none" 2 "write cpu, cuda" timeout 250 "$program" train $task --workers 1 --device gpu --out no
    says "a GPU that is not there" 1 "7" timeout 250 "$program" train $task --workers 1 --device cuda:7 --out no
}
exit $failed
