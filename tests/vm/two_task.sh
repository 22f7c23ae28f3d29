# shellcheck shell=bash
# What the scripts about two guests share: a master in a, workers in b. Sourced; $1 and $2 as for the tests.
source_dir=$1 build=$2
program=${GAPLESS_PROGRAM:-$build/gapless}
work=/tmp
task="--data synthetic:2000x32x4:1 --model mlp:64 --batch 32 --seed 1 --rule dana-ga --lr 0.01"
master_address=verbs:$(address a):7471

# Starts a master called $1 with options; 63 updates an epoch.
master() { # name, options...
    local name=$1
    shift
    # shellcheck disable=SC2086
    start a "$name" "$program" master $task --address "$master_address" "$@"
    sees a "$name" 20 listening
}
# Starts a worker whose every batch takes 20 ms longer, so that a fault finds it at work.
worker() { # name, options...
    local name=$1
    shift
    start b "$name" env GAPLESS_FAULT=slow:20 "$program" worker --master "$master_address" "$@"
}
# Ends a process with a status, prints what it wrote, and says whether the status is the wanted one.
ends() { # guest, name, seconds, wanted status
    local result
    join "$1" "$2" "$3"
    result=$?
    [ "$result" -eq "$4" ] && return 0
    echo "# $2 ended with $result, not $4"
    return 1
}
says() { # guest, name, regular expression: it has written such a line
    output "$1" "$2" | grep -Eq -- "$3" && return 0
    echo "# $2 does not say '$3'"
    return 1
}
# After a scenario: ends what is left of it, and shows what everybody wrote if a check of it failed.
failed_before=0
clean() { # names...
    local guest name
    for guest in a b; do
        for name in "$@"; do
            [ -n "${two_id[$guest/$name]-}" ] || continue
            if alive $guest "$name"; then
                send $guest "$name" KILL
                join $guest "$name" 5 >/dev/null
            fi
            [ $two_failed -eq $failed_before ] || output $guest "$name" | tail -n 15 | sed "s/^/    $guest $name: /"
            unset "two_id[$guest/$name]"
        done
    done
    failed_before=$two_failed
}
