#!/bin/sh
# ctest: lock=lab plain
# Trainings over verbs in one guest, over both devices: by train, by a master and workers, with and without a token, over
# IPv6; and with one worker the very parameters that shared memory gives.
set -u
# shellcheck source=common.sh
. "$1/tests/vm/common.sh"
needs_verbs

# Starts a master and workers, and gives the master's status if all workers ended well.
together() { # address, number of workers, folder, network options...
    address=$1 number=$2 folder=$3
    shift 3
    # shellcheck disable=SC2086
    timeout 250 "$program" master $task --epochs 2 --address "$address" --workers "$number" --workers-wait "$number" \
        --out "$folder" "$@" &
    master=$!
    workers=
    for _ in $(seq "$number"); do
        timeout 250 "$program" worker --master "$address" "$@" &
        workers="$workers $!"
    done
    good=0
    for worker in $workers; do
        wait "$worker" || { echo "# a worker ended with $?" && good=1; }
    done
    wait $master || { echo "# the master ended with $?" && good=1; }
    return $good
}

# Asks again and again, and in the end says why.
in_vain() {
    timeout 250 "$program" worker --master verbs:10.1.1.1:7999 --insecure --connect-timeout 4 >vain 2>&1
    [ $? -eq 1 ] && grep -q 'no master at.*no process listens' vain && return 0
    cat vain
    return 1
}

if [ "$inside" = inside ]; then
    work=$(mktemp -d /tmp/train.XXXXXX) && cd "$work" || exit 1
    head -c 32 /dev/urandom | base64 >token
    chmod 600 token
    # shellcheck disable=SC2086
    check "one worker over shared memory" timeout 250 "$program" train $task --epochs 2 --workers 1 --out shm --quiet
    for path in rxe:10.1.1.1 siw:10.2.1.1 rxe:[fd01::1]; do
        device=${path%%:*} ip=${path#*:}
        check "$path: one worker" together "verbs:$ip:7471" 1 "one-$path" --insecure
        check "$path: the same parameters to the bit" cmp shm/model.safetensors "one-$path/model.safetensors"
        case $ip in
        10.1.*)
            check "$path: one worker, two channels" together "verbs:$ip:7473" 1 "channels-$path" --insecure --channels 2
            check "$path: the same parameters again" cmp shm/model.safetensors "channels-$path/model.safetensors"
            ;;
        esac
        case $ip in
        10.*)
            check "$path: four workers, a token" together "verbs:$ip:7472" 4 "four-$path" --token-file token
            # shellcheck disable=SC2086
            check "$path: train starts master and workers" timeout 250 "$program" train $task --epochs 2 --workers 4 \
                --transport verbs --listen "$ip" --rdma-device "${device}0" --out "train-$path" --quiet
            check "$path: its result" test -s "train-$path/result.json"
            ;;
        esac
    done
    check "two devices at once" together "verbs:10.1.1.1:7474,10.2.1.1:7474" 1 both --insecure --rdma-device rxe0,siw0
    check "two devices: the same parameters to the bit" cmp shm/model.safetensors both/model.safetensors
    check "a worker that finds nobody says so" in_vain
    finish
fi

needs_lab
lab run --share "$build" --timeout 560 -- sh "$0" "$1" "$2" inside
