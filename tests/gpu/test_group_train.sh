#!/bin/sh
# Groups of (fake) GPUs through the program: synchronous SGD without a master, and workers that are groups. They learn
# what the processor learns from the same batches; whatever fails, everybody ends, and it is said who failed and why.
set -u
. "$1/tests/gpu/says.sh"
if ! command -v python3 >/dev/null; then
    echo "SKIP: python3 is not installed"
    exit 77
fi
export FAKE_CUDA_GPUS=4
export GAPLESS_NCCL=$GAPLESS_BUILD_DIR/tests/libgapless_fake_nccl.so
export GAPLESS_CUBLAS=$GAPLESS_BUILD_DIR/tests/libgapless_fake_cublas.so
export GAPLESS_GROUP_TIMEOUT=20
# Under the thread sanitizer a kernel takes a thousand times as long: a run of few gradients there.
short=no samples=1024
if grep -q '^GAPLESS_SANITIZE:[A-Z]*=.*thread' "$GAPLESS_BUILD_DIR/CMakeCache.txt" 2>/dev/null; then
    short=yes samples=64
fi
task="--data synthetic:${samples}x20x4 --model mlp:16 --epochs 2 --lr 0.02 --warmup 0 --steps none --quiet"

# Are the parameters of two runs the same but for rounding, and did they move?
near() { # folder, folder
    python3 - "$1/model.safetensors" "$2/model.safetensors" <<'PY'
import json, struct, sys

def read(path):
    data = open(path, 'rb').read()
    size = struct.unpack('<Q', data[:8])[0]
    head = json.loads(data[8:8 + size])
    values = {}
    for name, about in head.items():
        if name != '__metadata__':
            start, end = about['data_offsets']
            values[name] = struct.unpack('<%df' % ((end - start) // 4), data[8 + size + start:8 + size + end])
    return values, head['__metadata__']

(a, about_a), (b, about_b) = read(sys.argv[1]), read(sys.argv[2])
assert a.keys() == b.keys(), (a.keys(), b.keys())
worst = max(abs(x - y) for name in a for x, y in zip(a[name], b[name]))
size = max(abs(x) for name in a for x in a[name])
print('largest difference %g of %g' % (worst, size), about_a, about_b)
sys.exit(worst > 1e-3 or not size > 0.1)
PY
}

field() { # folder, python expression of result r
    python3 -c "import json, sys; r = json.load(open('$1/result.json')); sys.exit(not ($2))"
}

# shellcheck disable=SC2086
synchronous() {
    check "ssgd on 4 GPUs, no master" timeout 250 "$program" train $task --batch 16 --rule ssgd --group nccl --out s4
    [ $short = yes ] ||
        check "it learns" field s4 "r['final_accuracy'] > 0.6 and r['failure'] is None and r['workers'] == 4"
    check "its counts" field s4 "r['gradients'] == $samples / 8 == 4 * r['updates'] and r['lag']['mean'] == 0"
    check "ssgd with 4 workers and a master" timeout 250 "$program" train $task --batch 16 --rule ssgd --workers 4 --out s4m
    check "the same parameters" near s4 s4m
    check "one worker, the batch of all" timeout 250 "$program" train $task --batch 64 --rule nag-asgd --workers 1 --out s1
    check "the same parameters" near s4 s1
    [ $short = no ] || return 0
    check "ssgd on one GPU" timeout 250 "$program" train $task --batch 64 --rule ssgd --group nccl --device cuda:2 --out g1
    check "the same parameters" near g1 s1
    more="--clip-norm 0.5 --weight-decay 0.01 --warmup 0.2 --ssgd-scale-rate"
    check "with clipping, decay, warm-up" timeout 250 "$program" train $task $more --batch 16 --rule ssgd --group nccl \
        --out d4
    check "and with a master" timeout 250 "$program" train $task $more --batch 16 --rule ssgd --workers 4 --out d4m
    check "the same parameters" near d4 d4m
}

# shellcheck disable=SC2086
workers() {
    check "a worker of 4 GPUs" timeout 250 "$program" train $task --batch 64 --rule nag-asgd --group nccl --out w4
    check "the same parameters as one of the processor" near w4 s1
    [ $short = no ] || return 0
    check "batches that cannot be cut evenly" timeout 250 "$program" train $task --batch 50 --rule nag-asgd \
        --group nccl --worker-device cuda:0,1,3 --out w3
    check "on the processor" timeout 250 "$program" train $task --batch 50 --rule nag-asgd --workers 1 --out w1
    check "the same parameters" near w3 w1
    check "two workers of 2 GPUs each" timeout 250 "$program" train $task --batch 32 --rule dana-ga --group nccl \
        --workers 2 --out w22
    check "they learn, both" field w22 \
        "r['final_accuracy'] > 0.6 and len([w for w in r['per_worker'] if w['gradients'] > 0]) == 2"
}

# shellcheck disable=SC2086
failures() {
    says "an error at one rank" 1 "rank 2 of 4: .*unhandled cuda error" env FAKE_NCCL=AllReduce@2#2:error \
        timeout 250 "$program" train $task --batch 16 --rule ssgd --group nccl --out f1
    check "what was learnt is written" field f1 "'rank 2 of 4' in r['failure'] and r['updates'] == 1"
    [ $short = no ] || return 0
    says "an error that comes up later" 1 "rank . of 4: another rank failed" env FAKE_NCCL=AllReduce@1#3:async \
        timeout 250 "$program" train $task --batch 16 --rule ssgd --group nccl --out f2
    says "a rank that does not come" 1 "another rank did not come" env FAKE_NCCL=AllReduce@3#2:never \
        GAPLESS_GROUP_TIMEOUT=1 timeout 250 "$program" train $task --batch 16 --rule ssgd --group nccl --out f3
    says "one that cannot join" 1 "rank 1 of 4: .*joining" env FAKE_NCCL=CommInitRankConfig@1#1:system \
        GAPLESS_GROUP_TIMEOUT=1 timeout 250 "$program" train $task --batch 16 --rule ssgd --group nccl --out f4
    check "nothing is left of it" test ! -e f4

    says "an abort that does not end" 1 "rank 0 of 4: .*unhandled cuda error.*does not let go of its GPU" \
        env GAPLESS_GROUP_TIMEOUT=2 FAKE_NCCL=AllReduce@0#2:error,CommAbort@0#1:stuck \
        timeout 250 "$program" train $task --rule ssgd --group nccl --out f5

    says "no GPU" 1 "GPU" env FAKE_CUDA_GPUS=0 timeout 250 "$program" train $task --rule ssgd --group nccl --out no
    says "no driver" 1 "driver" env FAKE_CUDA_DRIVER=none timeout 250 "$program" train $task --rule ssgd --group nccl --out no
    says "no such GPU" 1 "7" timeout 250 "$program" train $task --rule ssgd --group nccl --device cuda:7 --out no
    says "no NCCL" 1 "GAPLESS_NCCL" env GAPLESS_NCCL="$work/none.so" timeout 250 "$program" train $task --rule ssgd \
        --group nccl --out no
    says "an old NCCL" 1 "2.18 or later" env FAKE_NCCL=version=21703 timeout 250 "$program" train $task --rule ssgd \
        --group nccl --out no
    says "not NCCL" 1 "has no ncclGetVersion" env GAPLESS_NCCL="$GAPLESS_CUBLAS" timeout 250 "$program" train $task \
        --rule ssgd --group nccl --out no
    says "the processor" 2 "cuda:all" timeout 250 "$program" train $task --rule ssgd --group nccl --device cpu --out no
    says "a master's option" 2 "has no master" timeout 250 "$program" train $task --rule ssgd --group nccl --record r --out no
    says "5 groups of 4 GPUs" 2 "4 GPUs cannot be dealt" timeout 250 "$program" train $task --group nccl --workers 5 --out no
    says "a model that has none" 1 "softmax and mlp" timeout 250 "$program" train --data synthetic:200x64x4 --model cnn:4 \
        --quiet --rule ssgd --group nccl --out no
    says "a strange timeout" 2 "GAPLESS_GROUP_TIMEOUT" env GAPLESS_GROUP_TIMEOUT=soon timeout 250 "$program" train $task \
        --rule ssgd --group nccl --out no
    check "nothing is left of it" test ! -e no
}

gradients() { # applied by the master of this folder
    "$program" observe --once --json --master "shm:$work/socket" | sed -n 's/.*"gradients": *\([0-9]*\).*/\1/p'
}

# Within a minute the master applies two more.
goes_on() {
    enough=$(($(gradients) + 2))
    for _ in $(seq 600); do
        [ "$(gradients)" -ge $enough ] && return
        sleep 0.1
    done
    return 1
}

# A group beside a worker of the processor, in a run that would last for hours: it fails, leaves, and the run goes on.
# shellcheck disable=SC2086
left_behind() {
    "$program" master $task --epochs 100000 --batch 64 --rule dana-ga --workers-wait 2 --address "shm:$work/socket" \
        --out m >master 2>&1 &
    master=$!
    GAPLESS_FAULT=slow:10 timeout 280 "$program" worker --master "shm:$work/socket" --quiet >cpu 2>&1 &
    cpu=$!
    says "a group that fails" 1 "rank 3 of 4: .*unhandled cuda error" env FAKE_NCCL=AllReduce@3#2:error \
        timeout 250 "$program" worker --master "shm:$work/socket" --group nccl
    cp output group
    check "it was a group" grep -q "a group of 4 GPUs (0, 1, 2, 3: .*NCCL 2.28.9" group
    check "the other worker goes on" goes_on
    kill -TERM $master
    check "the master ends when it is told to" wait $master
    check "so does the other worker" wait $cpu
    check "what was learnt is written" test -s m/model.safetensors
}

# shellcheck disable=SC2086
interrupted() {
    "$program" train $task --epochs 100000 --rule ssgd --group nccl --out i >output 2>&1 &
    run=$!
    for _ in $(seq 600); do
        [ -s i/metrics.jsonl ] && break
        sleep 0.1
    done
    kill -INT $run
    wait $run
    code=$?
    check "Ctrl-C: code $code" test $code -eq 130
    check "and its files" field i "r['stopped'] and r['failure'] is None and r['updates'] > 0"
    check "with a model" test -s i/model.safetensors
}

synchronous
workers
failures
left_behind
interrupted
exit $failed
