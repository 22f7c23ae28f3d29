# shellcheck shell=bash
# Trainings between two guests; sourced by lab.sh two.
# shellcheck source=two_task.sh
. "$1/tests/vm/two_task.sh"

# shellcheck disable=SC2086
check "one worker over shared memory" on a "$program" train $task --epochs 2 --workers 1 --out $work/shm --quiet
check "a master listens" master m1 --epochs 2 --workers 1 --workers-wait 1 --out $work/one --insecure
check "one worker in the other guest" on b "$program" worker --master "$master_address"
check "the master ends well" ends a m1 30 0
check "the same parameters to the bit" on a cmp $work/shm/model.safetensors $work/one/model.safetensors

for guest in a b; do
    on $guest sh -c "echo a-token-that-both-of-them-know >$work/token; chmod 600 $work/token"
done
check "a master listens, with a token" master m4 --epochs 3 --workers 4 --workers-wait 4 --token-file $work/token
for n in 1 2 3 4; do
    start b "w$n" "$program" worker --master "$master_address" --token-file $work/token
done
for n in 1 2 3 4; do
    check "worker $n ends well" ends b "w$n" 40 0
done
check "the master ends well" ends a m4 30 0
