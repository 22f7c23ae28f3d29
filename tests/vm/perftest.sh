#!/bin/bash
# perftest.sh SOURCE BUILD [rxe|siw] [ROUNDS]: verbs as perftest measures them beside ours, in one guest, in turn, so
# that both see the same machine. Medians, and ours as a ratio; of an emulated machine, so only the ratio means anything.
set -u
source_dir=$1 build=$2 device=${3:-rxe} rounds=${4:-5}
program=${GAPLESS_PROGRAM:-$build/gapless}

if [ "${5-}" != inside ]; then
    exec bash "$source_dir/tests/vm/lab.sh" run --device "$device" --share "$build" --timeout 590 -- \
        bash "$0" "$source_dir" "$build" "$device" "$rounds" inside
fi

case $device in
rxe) ip=10.1.1.1 path=(-d rxe0 -x 1) ;;
siw) ip=10.2.1.1 path=(-d siw0 -R) ;; # iWARP connects by rdma_cm only
esac
cd /tmp || exit 1

# What is measured: our name for it, perftest's program, bytes, how often; each takes a second or two.
cases=(
    "write ib_write_bw 65536 2000"
    "write ib_write_bw 1048576 150"
    "write ib_write_bw 8388608 20"
    "read ib_read_bw 65536 1500"
    "read ib_read_bw 1048576 120"
    "read ib_read_bw 8388608 16"
    "write-lat ib_write_lat 8 5000"
    "read-lat ib_read_lat 4096 5000"
)

# Prints MB/s (10^6) or microseconds, the typical one; nothing if it failed.
theirs() { # program, bytes, times
    local server line
    timeout 60 "$1" "${path[@]}" -F -s "$2" -n "$3" >server 2>&1 &
    server=$!
    for _ in $(seq 100); do # until it listens, at a socket or by rdma_cm
        { rdma resource show cm_id && ss -Hltn; } | grep -q LISTEN && break
        sleep 0.1
    done
    timeout 60 "$1" "${path[@]}" -F -s "$2" -n "$3" "$ip" >client 2>&1
    wait $server
    line=$(grep -E "^ *$2 +[0-9]+ " client | tail -n 1)
    case $1 in
    *_bw) awk '{ printf "%.1f\n", $4 * 1.048576 }' <<<"$line" ;;
    *_lat) awk '{ print $5 }' <<<"$line" ;;
    esac
}

ours() { # our name for it, bytes
    timeout 60 "$program" bench transport --transport verbs --listen "$ip:7480" --insecure --ops "$1" --sizes "$2" \
        --seconds 1 --json >result 2>>failures
    case $1 in
    *-lat) awk -F '[:,]' '$1 ~ /"p50_us"/ { printf "%.1f\n", $2 }' result ;;
    *) awk -F '[:,]' '$1 ~ /"gb_per_s"/ { printf "%.1f\n", $2 * 1000 }' result ;;
    esac
}

median() { # file of numbers
    sort -n "$1" | awk '{ v[NR] = $1 } END { if (NR) printf "%.1f\n", (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2; else print "-" }'
}

for round in $(seq "$rounds"); do
    for row in "${cases[@]}"; do
        read -r name tool bytes times <<<"$row"
        theirs "$tool" "$bytes" "$times" >>"theirs-$name-$bytes"
        ours "$name" "$bytes" >>"ours-$name-$bytes"
    done
    echo "# round $round of $rounds"
done
[ ! -s failures ] || sort failures | uniq -c

printf '%-10s %10s %12s %12s %8s\n' "$device" bytes perftest gapless ratio
for row in "${cases[@]}"; do
    read -r name tool bytes times <<<"$row"
    unit=MB/s
    [ "$tool" = "${tool%_lat}" ] || unit=us
    a=$(median "theirs-$name-$bytes") b=$(median "ours-$name-$bytes")
    ratio=$(awk -v a="$a" -v b="$b" 'BEGIN { if (a + 0 && b + 0) printf "%.2f", b / a; else print "-" }')
    printf '%-10s %10s %12s %12s %8s\n' "$name" "$bytes" "$a $unit" "$b $unit" "$ratio"
done
