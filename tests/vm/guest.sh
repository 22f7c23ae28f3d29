# shellcheck shell=bash
# Runs in a guest, as root, in the host's root: brings up the devices, then runs one command (lab.sh run) or whatever the
# host asks for (lab.sh two). Everything it is told and tells is in /run/lab, a folder of the host.
. /run/lab/config
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
cd / || exit
hostname "$lab_name"
ulimit -l unlimited
ulimit -c 0

# /dev has no names for the ports to the host: the kernel knows them.
port() {
    local file
    for file in /sys/class/virtio-ports/*/name; do
        [ "$(cat "$file")" = "$1" ] && file=${file%/name} && echo "/dev/${file##*/}" && return
    done
}

# A device of its own for each kind, with an IPv4 and an IPv6 address; between two guests, the network card.
device() { # kind, network device, IPv4 address, IPv6 address
    ip link set "$2" mtu "$lab_mtu" up
    ip address add "$3/24" dev "$2"
    ip address add "$4/64" dev "$2" nodad
    [ "$1" = none ] || rdma link add "${1}0" type "$1" netdev "$2" || echo "lab: no device ${1}0"
}
devices() {
    ip link set lo up
    if [ -n "$lab_address" ]; then
        device "$lab_device" eth0 "10.9.0.$lab_address" "fd09::$lab_address"
        return
    fi
    local kind number=0
    for kind in rxe siw; do
        number=$((number + 1))
        case $lab_device in
        both | "$kind")
            ip link add "dummy-$kind" type dummy
            device "$kind" "dummy-$kind" "10.$number.1.1" "fd0$number::1"
            ;;
        esac
    done
}

# Runs the command of the file in a session of its own, with all signals as usual (a shell's background has some
# ignored), and writes how it ended.
perform() { # id, where its output goes
    env --default-signal setsid --wait bash "/run/lab/command-$1" >"$2" 2>&1 </dev/null &
    local child=$!
    echo "$child" >"/run/lab/pid-$1"
    wait "$child"
    echo $? >"/run/lab/status-$1.new"
    mv "/run/lab/status-$1.new" "/run/lab/status-$1"
}

devices >/dev/console 2>&1
if [ -z "$lab_address" ]; then
    perform main "$(port lab.output)"
else
    echo up >/run/lab/up
    while read -r id; do
        [ "$id" = end ] && break
        perform "$id" "/run/lab/output-$id" &
    done <"$(port lab.control)"
fi
