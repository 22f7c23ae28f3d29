#!/bin/sh
# Whole runs of the program whose workers compute on (fake) GPUs: they learn, and what they learn is near to what the
# processor learns; of several GPUs each worker takes one. Then what is missing: said exactly, before anything is
# started, exit 1; `auto` takes the processor and says so. The master stays on the processor here.
set -u
. "$1/tests/gpu/says.sh"
build=${2:-$GAPLESS_BUILD_DIR}
GAPLESS_CUBLAS=${GAPLESS_CUBLAS:-$build/tests/libgapless_fake_cublas.so}
export GAPLESS_CUBLAS
if [ ! -f "${GAPLESS_CUDA_PLUGIN:-}" ]; then
    echo "SKIP: there is no fake plugin (it needs a C++ compiler)"
    exit 77
fi
task="--data synthetic:2000x20x4 --model mlp:16 --batch 16 --epochs 3 --lr 0.05 --device cpu"

number() { # of result.json's first line with this name
    sed -n "s/.*\"$2\": *\([0-9.eE+-]*\).*/\1/p" "$1/result.json" | head -n 1
}

# shellcheck disable=SC2086
{
    says "one worker, on the processor" 0 "test accuracy" "$program" train $task --workers 1 --out cpu
    says "one worker, on a GPU" 0 "workers compute on cuda:0" "$program" train $task --workers 1 --worker-device cuda \
        --out gpu
    cp output first
    # One worker is deterministic: rounding is all that is different.
    if awk -v a="$(number cpu final_accuracy)" -v b="$(number gpu final_accuracy)" \
        'BEGIN { d = a - b; exit !(a > 0.7 && b > 0.7 && d < 0.02 && d > -0.02) }'; then
        echo "ok   both learn the same"
    else
        cp first output
        fail "accuracy on the processor $(number cpu final_accuracy), on the GPU $(number gpu final_accuracy)" output
    fi
    says "three workers, two GPUs" 0 "workers compute on cuda:0, cuda:1, in turn" env FAKE_CUDA_GPUS=2 "$program" train \
        $task --workers 3 --worker-device cuda:all --rule dana-slim --clip-norm 5 --out two
    if awk -v b="$(number two final_accuracy)" 'BEGIN { exit !(b > 0.7) }'; then
        echo "ok   three learn"
    else
        fail "accuracy $(number two final_accuracy)" output
    fi
    says "a gradient that is not finite" 0 "1 not finite" env GAPLESS_FAULT=nan:7@0 "$program" train $task --workers 1 \
        --worker-device cuda --out nan

    says "auto takes a GPU" 0 "workers compute on cuda:0" "$program" train $task --epochs 0.1 --workers 1 \
        --worker-device auto --out auto
    says "auto without a GPU" 0 "workers: no GPU is used: .*GPU" env FAKE_CUDA_GPUS=0 "$program" train $task \
        --epochs 0.1 --workers 1 --worker-device auto --out auto
    says "auto and a convolution" 0 "no GPU is used: model cnn:2" "$program" train --data synthetic:200x64x4 --model cnn:2 \
        --epochs 1 --workers 1 --worker-device auto --out auto
    says "auto without cuBLAS" 0 "no GPU is used: .*cuBLAS\|no GPU is used: .*CUBLAS" env GAPLESS_CUBLAS=/nothing.so \
        "$program" train $task --epochs 0.1 --workers 1 --worker-device auto --out auto

    says "no GPU" 1 "no GPU\|sees no GPU" env FAKE_CUDA_GPUS=0 "$program" train $task --worker-device cuda --out no
    says "no driver" 1 "driver" env FAKE_CUDA_DRIVER=none "$program" train $task --worker-device cuda --out no
    says "no plugin" 1 "nothing.so" env GAPLESS_CUDA_PLUGIN=/nothing.so "$program" train $task --worker-device cuda --out no
    says "no cuBLAS" 1 "GAPLESS_CUBLAS" env GAPLESS_CUBLAS=/nothing.so "$program" train $task --worker-device cuda --out no
    says "another library" 1 "cublasCreate_v2" env GAPLESS_CUBLAS="$GAPLESS_CUDA_PLUGIN" "$program" train $task \
        --worker-device cuda --out no
    says "a convolution" 1 "let the CPU do it" "$program" train --data synthetic:200x64x4 --model cnn:2 \
        --worker-device cuda --out no
    says "a GPU that is not there" 1 "no GPU 7" "$program" train $task --worker-device cuda:7 --out no
    says "no device" 2 "write cpu, cuda" "$program" train $task --worker-device gpu --out no
    says "local steps" 2 "on the CPU only" "$program" train $task --local-steps 4 --worker-device cuda --out no
    if [ -e no ]; then
        fail "something was started" output
    fi
    says "a worker alone" 1 "no GPU 7" "$program" worker --master shm:nobody-is-here --device cuda:7 \
        --data synthetic:200x20x4 --model mlp:4 --batch 8 --seed 1 --connect-timeout 1
    "$program" master $task --workers 1 --local-steps 4 --address "shm:local-$$" --quiet >master 2>&1 &
    master=$!
    says "a worker alone, asked for local steps" 2 "start this worker with --device cpu" "$program" worker \
        --master "shm:local-$$" --device cuda
    says "one that may choose" 0 "375 gradients" "$program" worker --master "shm:local-$$" --device auto
    wait $master || fail "the master ended with $?" master
    says "a worker alone, without its master" 1 "nobody-is-here" "$program" worker --master shm:nobody-is-here \
        --device cuda --data synthetic:200x20x4 --model mlp:4 --batch 8 --seed 1 --connect-timeout 0.2
}
exit $failed
