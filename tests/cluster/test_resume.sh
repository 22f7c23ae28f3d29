#!/bin/sh
# A run that is asked to end, or whose master is killed, goes on from its last state.
# shellcheck disable=SC2086
set -eu
build=$2
gapless=$build/gapless
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "FAIL: $1"
    shift
    for file in "$@"; do
        echo "--- $file"
        cat "$file"
    done
    exit 1
}

# Waits until a state is there: FOLDER.
wait_for_state() {
    tries=0
    while [ -z "$(find "$1/state" -name '*.safetensors' 2>/dev/null)" ]; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "no state in $1"
        sleep 0.05
    done
}

# The master of a run: the first process that it has started. Without a process more, which takes longer than a run.
master_of() {
    for stat in /proc/[0-9]*/stat; do
        if read -r pid _ _ parent _ <"$stat" && [ "$parent" = "$1" ]; then
            echo "$pid"
        fi
    done 2>/dev/null | sort -n | head -n 1
}

number() {
    sed -n "s/^ *\"$2\": \([0-9]*\),*$/\1/p" "$1" | head -n 1
}

common="train --data synthetic --workers 2 --epochs 100 --save-every 400updates --no-color"

# The master is killed: the run goes on, and says what was lost.
"$gapless" $common --out killed >killed.log 2>&1 &
run=$!
wait_for_state killed
kill -9 "$(master_of $run)"
wait $run || fail "the run did not survive its master" killed.log
grep -q "it is started again from the state after" killed.log || fail "nothing is said" killed.log
[ "$(number killed/result.json restarts)" = 1 ] || fail "restarts" killed/result.json
[ "$(number killed/result.json gradients)" = "$(number killed/result.json gradients_total)" ] ||
    fail "gradients" killed/result.json
[ -s killed/model.lost.safetensors ] || fail "the last parameters are not kept" killed.log
"$gapless" evaluate killed/model.lost.safetensors >evaluated.log || fail "they cannot be read" evaluated.log

# ... but not where that is not wanted.
"$gapless" $common --restarts 0 --out dead >dead.log 2>&1 &
run=$!
wait_for_state dead
kill -9 "$(master_of $run)"
code=0
wait $run || code=$?
[ $code = 1 ] || fail "exit code $code" dead.log
[ -s dead/model.lost.safetensors ] || fail "the last parameters are not kept" dead.log

# What the workers do, on SIGUSR1; saved and ended by SIGUSR2.
"$gapless" $common --out asked >asked.log 2>&1 &
run=$!
wait_for_state asked
sleep 0.2
kill -USR1 $run
sleep 0.2
kill -USR2 $run
code=0
wait $run || code=$?
[ $code = 140 ] || fail "exit code $code" asked.log
grep -q "worker-01 (pid [0-9]*): working" asked.log || fail "no line of a worker" asked.log
had=$(number asked/result.json gradients)
total=$(number asked/result.json gradients_total)
[ "$had" -lt "$total" ] || fail "it was over before" asked.log
[ -e "asked/state/state-$(printf %016d "$had").safetensors" ] || fail "the last state is of another moment"

# Other settings are refused, and named, before anything is written.
code=0
"$gapless" train --resume asked --momentum 0.5 --out other >other.log 2>&1 || code=$?
[ $code = 2 ] || fail "exit code $code" other.log
grep -q "momentum=0.9.*momentum=0.5" other.log || fail "the difference is not named" other.log
[ ! -e other ] || fail "a folder is left"

# A state that was cut is passed over, and named.
truncate -s 3000 "asked/state/state-$(printf %016d "$had").safetensors"
"$gapless" train --resume asked --workers 3 >again.log 2>&1 || fail "it does not go on" again.log
grep -q "is damaged" again.log || fail "the damage is not named" again.log
[ "$(number asked/result.json gradients)" = "$total" ] || fail "gradients" asked/result.json
[ "$(number asked/result.json workers)" = 3 ] || fail "workers" asked/result.json
[ "$(cat asked/state/epoch)" = 1 ] || fail "the start is not numbered"

# From parameters alone.
"$gapless" train --data synthetic --epochs 1 --init asked/model.safetensors --out init -q >init.log 2>&1 ||
    fail "--init" init.log
code=0
"$gapless" train --data synthetic --epochs 1 --model mlp:8 --init asked/model.safetensors --out init -q >init.log 2>&1 ||
    code=$?
[ $code != 0 ] || fail "--init of another model" init.log

# A simulation goes on with the bits of one that was not stopped.
simulation="simulate --data synthetic --workers 8 --rule dana-lga --clock heterogeneous --epochs 3 -q"
"$gapless" $simulation --out whole >whole.log 2>&1 || fail "simulate" whole.log
"$gapless" $simulation --out cut --save-every 300updates >cut.log 2>&1 || fail "simulate --save-every" cut.log
cmp whole/model.safetensors cut/model.safetensors || fail "saving changes the run"
find cut/state -name '*.safetensors' | sort | tail -n 1 | xargs rm
"$gapless" simulate --resume cut --out rest -q >rest.log 2>&1 || fail "simulate --resume" rest.log
cmp whole/model.safetensors rest/model.safetensors || fail "other bits after --resume"
code=0
"$gapless" simulate --resume cut --seed 3 --out other -q >other.log 2>&1 || code=$?
[ $code = 2 ] || fail "exit code $code" other.log
grep -q "another seed" other.log || fail "the difference is not named" other.log
