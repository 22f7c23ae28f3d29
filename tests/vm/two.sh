# shellcheck shell=bash
# Two guests on one wire, and what a script about them can call; sourced by lab.sh. Every wait has an end.
#
#     on a COMMAND...          runs it in guest a, prints its output, returns its status (60 s at most: bound=N on ...)
#     start a NAME COMMAND...  starts it there and goes on
#     join a NAME [SECONDS]    waits for its end, prints its output, returns its status (121: it did not end in time)
#     sees a NAME SECONDS RE   waits until a line of its output matches the regular expression
#     output a NAME            prints its output so far
#     send a NAME KILL         sends a signal to it and its children
#     alive a NAME             has it not ended?
#     link a off|on            unplugs the guest's cable, plugs it in
#     netem a loss 1% | none   what the guest's network card does to what it sends (see tc-netem)
#     kill_guest a             as if the power went
#     boot_guest a             and came back
#     say TEXT
#     check TEXT COMMAND...    prints ok or FAILED with the text; if one failed, lab.sh ends with status 1
#
# Seconds to wait are those of an idle machine: four times as long is waited, which costs nothing where all goes well.
#
# A command starts with the folder and environment of lab.sh; `user=64 on a ...` makes it nobody's, who may lock 64 KiB.
# `address a` and `address6 a` print a guest's addresses, and $state/a is the folder of what is known about it.

declare -A two_id=() two_qmp_in=() two_qmp_out=() two_control=()
two_count=0 two_failed=0 two_checks=0
declare -A two_number=([a]=1 [b]=2)

address() { echo "10.9.0.${two_number[$1]}"; }
address6() { echo "fd09::${two_number[$1]}"; }
say() { printf '%s\n' "# $*"; }

check() { # text, command...
    local text=$1 begun=$SECONDS
    shift
    two_checks=$((two_checks + 1))
    if "$@"; then
        printf 'ok %d - %s (%d s)\n' "$two_checks" "$text" $((SECONDS - begun))
    else
        printf 'FAILED %d - %s (%d s)\n' "$two_checks" "$text" $((SECONDS - begun))
        two_failed=$((two_failed + 1))
    fi
}

two_up() { [ -e "$state/$1/up" ]; }

# Boots a guest without waiting; the wires are sockets in the state's folder.
two_boot() { # name, the other
    local at=$state/$1
    mkdir -p "$at"
    rm -f "$at/up" "$state/$1.wire"
    lab_boot "$1" "${two_number[$1]}" "dgram,id=wire,local.type=unix,local.path=${state//,/,,}/$1.wire,\
remote.type=unix,remote.path=${state//,/,,}/$2.wire" || return 1
    exec {two_control[$1]}<>"$at/control.in" {two_qmp_in[$1]}<>"$at/qmp.in" {two_qmp_out[$1]}<>"$at/qmp.out"
    two_qmp "$1" '{"execute":"qmp_capabilities"}'
}
two_wait_up() { # name
    if ! lab_await $((4 * 60)) two_up_or_dead "$1" || ! two_up "$1"; then
        two_dead "$1"
        return 1
    fi
}
two_up_or_dead() { two_up "$1" || ! lab_lives "$1"; }
two_dead() {
    local ended=0
    if ! lab_lives "$1" && [ -n "${guest_pid[$1]-}" ]; then
        wait "${guest_pid[$1]}"
        ended=$?
        unset "guest_pid[$1]"
    fi
    lab_dead "$1" "$ended"
}

# Sends a command to the machine (not to its kernel) and reads lines until its answer.
two_qmp() { # name, command
    local line
    lab_lives "$1" && printf '%s\n' "$2" >&"${two_qmp_in[$1]}" || return 1
    while read -r -t 5 -u "${two_qmp_out[$1]}" line; do
        case $line in
        '{"return"'*) return 0 ;;
        '{"error"'*) echo "lab: guest $1: $2: $line" >&2 && return 1 ;;
        esac
    done
    echo "lab: guest $1: no answer to $2" >&2
    return 1
}

two_ended() { [ -e "$state/$1" ] || ! lab_lives "${1%%/*}"; }
# Waits for a command's end and prints what it wrote.
two_join() { # guest, id, seconds, name
    local at=$state/$1
    lab_await $((4 * $3)) two_ended "$1/status-$2"
    cat "$at/output-$2" 2>/dev/null
    if [ -e "$at/status-$2" ]; then
        return "$(cat "$at/status-$2")"
    elif lab_lives "$1"; then
        echo "lab: guest $1: '$4' did not end in $3 s" >&2
        return 121
    fi
    [ -z "${guest_pid[$1]-}" ] || two_dead "$1"
    return 120
}
two_begin() { # guest, command...: sets two_last
    local guest=$1
    shift
    two_count=$((two_count + 1))
    two_last=$two_count
    lab_lives "$guest" || return 1
    lab_command "$state/$guest/command-$two_last" "$@"
    echo "$two_last" >&"${two_control[$guest]}"
}

on() { # guest, command...
    local guest=$1
    shift
    two_begin "$guest" "$@"
    two_join "$guest" "$two_last" "${bound:-60}" "$*"
}
start() { # guest, name, command...
    local guest=$1 name=$2
    shift 2
    two_begin "$guest" "$@"
    two_id[$guest/$name]=$two_last
}
join() { # guest, name, seconds
    two_join "$1" "${two_id[$1/$2]}" "${3:-60}" "$2"
}
output() { # guest, name
    cat "$state/$1/output-${two_id[$1/$2]}" 2>/dev/null
}
alive() { # guest, name
    [ -n "${two_id[$1/$2]-}" ] && lab_lives "$1" && [ ! -e "$state/$1/status-${two_id[$1/$2]}" ]
}
two_seen() { grep -Eq -- "$2" "$1" 2>/dev/null || [ -e "${1/output-/status-}" ]; }
sees() { # guest, name, seconds, regular expression
    local file=$state/$1/output-${two_id[$1/$2]}
    lab_await $((4 * $3)) two_seen "$file" "$4"
    grep -Eq -- "$4" "$file" 2>/dev/null && return 0
    echo "lab: guest $1: '$2' has not written '$4' within $3 s; its last lines:" >&2
    tail -n 10 "$file" 2>/dev/null | sed 's/^/    /' >&2
    return 1
}
send() { # guest, name, signal
    local pid
    pid=$(cat "$state/$1/pid-${two_id[$1/$2]}" 2>/dev/null) || return 1
    on "$1" kill -s "$3" -- "-$pid"
}
link() { # guest, off or on
    local up=true
    [ "$2" = on ] || up=false
    two_qmp "$1" "{\"execute\":\"set_link\",\"arguments\":{\"name\":\"card\",\"up\":$up}}"
}
netem() { # guest, what...
    local guest=$1
    shift
    if [ "$*" = none ]; then
        on "$guest" tc qdisc del dev eth0 root
    else
        on "$guest" tc qdisc replace dev eth0 root netem limit 100000 "$@"
    fi
}
kill_guest() { # guest
    lab_kill "$1"
    rm -f "$state/$1.wire"
}
boot_guest() { # guest
    local other=a
    [ "$1" != a ] || other=b
    two_boot "$1" "$other" && two_wait_up "$1"
}

two_gone() { ! lab_lives "$1"; }
two_run() { # script, arguments...
    local guest script=$1 result
    shift
    two_boot a b && two_boot b a && two_wait_up a && two_wait_up b || exit 120
    # shellcheck disable=SC1090
    . "$script"
    result=$?
    for guest in a b; do
        lab_lives "$guest" && echo end >&"${two_control[$guest]}"
    done
    for guest in a b; do
        lab_await 15 two_gone "$guest"
        [ -z "$console" ] || sed "s/^/$guest: /" "$state/$guest/console" >&2
    done
    if [ $two_checks -gt 0 ]; then
        echo "$((two_checks - two_failed)) of $two_checks checks passed"
        [ $two_failed -eq 0 ]
        exit
    fi
    exit $result
}
