# shellcheck shell=bash
# Guests: how one is started, watched and ended; sourced by lab.sh. Each has a folder of the state for what passes between
# it and the host: config, command-ID, output-ID, status-ID, console, and pipes.

declare -A guest_pid=() guest_reader=()
state='' state_lock='' lab_accel=''

# A folder of our own in the place for temporary files. Folders of scripts that were killed go: nobody holds their lock.
lab_state() {
    local place=${TMPDIR:-/tmp} old
    for old in "$place"/gapless-lab.*; do
        if [ -O "$old/lock" ] && flock -n "$old/lock" true; then
            rm -rf "$old"
        fi
    done
    state=$(mktemp -d "$place/gapless-lab.XXXXXX") || return 1
    exec {state_lock}>"$state/lock" && flock -n "$state_lock" && mkdir "$state/a"
}

lab_clean() {
    local name
    for name in "${!guest_pid[@]}"; do
        lab_kill "$name"
    done
    [ -z "$state" ] || rm -rf "$state"
}

# The watcher is killed, and the guest with it, as it asked for that signal on its parent's death.
lab_kill() {
    [ -n "${guest_pid[$1]-}" ] || return 0
    kill -KILL "${guest_pid[$1]}" 2>/dev/null
    wait "${guest_pid[$1]}" 2>/dev/null
    unset "guest_pid[$1]"
    if [ -n "${guest_reader[$1]-}" ]; then
        wait "${guest_reader[$1]}"
        unset "guest_reader[$1]"
    fi
}

# Writes a script that runs a command as it would run here: in a folder, with an environment.
lab_command() { # file, command...
    local file=$1 name setting
    shift
    {
        for name in $(compgen -e); do
            case $name in
            GAPLESS_LAB*) ;;
            GAPLESS_* | ASAN_OPTIONS | UBSAN_OPTIONS | LSAN_OPTIONS | TSAN_OPTIONS | OPENBLAS_NUM_THREADS)
                printf 'export %s=%q\n' "$name" "${!name}"
                ;;
            esac
        done
        for setting in "${settings[@]}"; do
            printf 'export %s=%q\n' "${setting%%=*}" "${setting#*=}"
        done
        printf 'cd %q || exit 125\n' "$dir"
        if [ -n "$user" ]; then
            printf 'ulimit -l %q || exit 125\nexport HOME=/tmp\n' "$user"
            printf 'exec setpriv --reuid=65534 --regid=65534 --clear-groups --'
        else
            printf 'exec'
        fi
        printf ' %q' "$@"
        printf '\n'
    } >"$file"
}

# Processors that virtualise have one of these modules; /dev/kvm alone says nothing about how fast a guest would be.
lab_choose() {
    [ -z "$lab_accel" ] || return 0
    lab_accel=${GAPLESS_LAB_ACCEL:-tcg}
    if [ -z "${GAPLESS_LAB_ACCEL-}" ] && [ -w /dev/kvm ] &&
        { [ -d /sys/module/kvm_intel ] || [ -d /sys/module/kvm_amd ]; }; then
        lab_accel=kvm-or-tcg
    fi
}

# Boots a guest. The second argument is empty for one that runs command-main and ends, else the number it has on the
# wire between two, and the third what its network card is connected to.
lab_boot() { # name, number, netdev
    local at=$state/$1 n
    lab_choose
    mkdir -p "$at"
    printf 'lab_%s=%q\n' source "$source_dir" shares "$(seq -s ' ' -f 'share%g' 0 $((${#shares[@]} - 1)))" name "$1" \
        address "$2" device "$lab_device" mtu "$lab_mtu" >"$at/config"
    for ((n = 0; n < ${#shares[@]}; n++)); do
        printf '%s' "${shares[n]}" >"$at/share$n"
    done
    if [ "$lab_accel" = kvm-or-tcg ]; then
        lab_start "$1" kvm "$2" "${3-}"
        lab_await 8 lab_spoke_or_dead "$1"
        if lab_spoke "$1"; then
            lab_accel=kvm
            return 0
        fi
        lab_kill "$1"
        lab_accel=tcg
    fi
    lab_start "$1" "$lab_accel" "$2" "${3-}"
}
lab_spoke() { [ -s "$state/$1/console" ]; }
lab_lives() { [ -n "${guest_pid[$1]-}" ] && kill -0 "${guest_pid[$1]}" 2>/dev/null; }
lab_spoke_or_dead() { lab_spoke "$1" || ! lab_lives "$1"; }

# Waits until a command succeeds, at most so many seconds.
lab_await() { # seconds, command...
    local end=$((SECONDS + $1 + 1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

# The emulated processor's clock runs too fast when its calibration was disturbed, so there another clock is used.
lab_start() { # name, accelerator, number, netdev
    local at=$state/$1 n clock='' cpu=host path
    [ "$2" = kvm ] || clock="tsc=unstable clocksource=acpi_pm no_timer_check" cpu=max
    local q=(qemu-system-x86_64 -name "$1" -machine "q35,accel=$2" -cpu "$cpu" -smp "$lab_cpus" -m "$lab_memory"
        -nodefaults -no-user-config -display none -no-reboot
        -kernel "$lab_kernel" -initrd "$lab_initrd"
        -append "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic reboot=t mitigations=off $clock ${GAPLESS_LAB_APPEND-}"
        -chardev "file,id=console,path=${at//,/,,}/console" -serial chardev:console
        -virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
        -virtfs "local,path=${at//,/,,},mount_tag=lab,security_model=none,multidevs=remap"
        -device virtio-serial-pci)
    for ((n = 0; n < ${#shares[@]}; n++)); do
        path=${shares[n]//,/,,}
        q+=(-virtfs "local,path=$path,mount_tag=share$n,security_model=none,multidevs=remap")
    done
    rm -f "$at"/console "$at"/*.in "$at"/*.out "$at/nothing"
    if [ -z "$3" ]; then
        # The output goes through a reader: qemu sets what it is given to non-blocking, for everybody who has it.
        mkfifo "$at/output.out" "$at/nothing"
        q+=(-chardev stdio,id=output,signal=off -device virtserialport,chardev=output,name=lab.output)
        cat <"$at/output.out" &
        guest_reader[$1]=$!
    else
        mkfifo "$at"/{control,qmp}.{in,out}
        ln -sf /dev/null "$at/output.out"
        ln -sf /dev/null "$at/nothing"
        q+=(-netdev "$4" -device "virtio-net-pci,netdev=wire,id=card,mac=52:54:00:09:00:0$3,romfile="
            -chardev "pipe,id=control,path=${at//,/,,}/control" -device virtserialport,chardev=control,name=lab.control
            -chardev "pipe,id=qmp,path=${at//,/,,}/qmp" -mon chardev=qmp,mode=control)
    fi
    setpriv --pdeathsig KILL timeout --foreground -k 1 -s KILL "$limit" setpriv --pdeathsig KILL "${q[@]}" \
        <>"$at/nothing" >"$at/output.out" 2>"$at/qemu" &
    guest_pid[$1]=$!
}

# Waits for the end of a guest that runs one command; its status, or what went wrong.
lab_wait() { # name
    local at=$state/$1 ended status
    wait "${guest_pid[$1]}" 2>/dev/null
    ended=$?
    unset "guest_pid[$1]"
    wait "${guest_reader[$1]}"
    unset "guest_reader[$1]"
    status=$(cat "$at/status-main" 2>/dev/null)
    if [ -n "$status" ]; then
        return "$status"
    fi
    lab_dead "$1" "$ended"
}

# Says how a guest ended that should not have ended.
lab_dead() { # name, exit status of the watcher
    local at=$state/$1 result=120 what="ended without a word"
    [ "$2" != 124 ] && [ "$2" != 137 ] || { result=121 && what="was ended after $limit s"; }
    {
        echo "lab: guest $1 $what; the end of its console:"
        tail -n 40 "$at/console" 2>/dev/null | tr -d '\r' | sed 's/^/    /'
        sed 's/^/    qemu: /' "$at/qemu"
    } >&2
    return $result
}
