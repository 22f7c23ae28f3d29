#!/bin/sh
# ctest: lock=lab plain
# The lab itself: what runs in a guest comes back as it is, both devices carry data, whatever goes wrong is told, and
# nothing is left running.
set -u
# shellcheck source=common.sh
. "$1/tests/vm/common.sh"

devices() {
    check "rxe0 and siw0 are there" sh -c 'ibv_devices | grep -q rxe0 && ibv_devices | grep -q siw0'
    for address in 10.1.1.1 10.2.1.1 fd01::1 fd02::1; do
        timeout 100 rping -s -a $address -C 5 >/dev/null 2>&1 &
        server=$!
        check "a server listens at $address" listening
        check "rping over $address" sh -c "timeout 100 rping -c -a $address -C 5 >/dev/null 2>&1"
        # Now and then rping's server over siw does not hear of the end of a connection; it has carried what it should.
        kill $server 2>/dev/null
        wait $server 2>/dev/null
    done
    check "it runs as root" test "$(id -u)" = 0
    check "in the folder it was started in" test -e "$3"
    check "with the environment it was given" test "${GAPLESS_TRIAL-} $HERE" = "1 a b"
    check "what it writes stays" touch "$3.too"
    # shellcheck disable=SC3045
    check "it may lock all memory" test "$(ulimit -l)" = unlimited
    [ $failed -eq 0 ] || exit 1
    exit 7
}
[ "$inside" != inside ] || devices "$1" "$2" "$4"

needs_lab
work=$(mktemp -d "${TMPDIR:-/tmp}/gapless-boot.XXXXXX") || exit 1
killed=
trap 'rm -rf "$work"; [ -z "$killed" ] || kill -KILL $killed 2>/dev/null' EXIT
cd "$work" || exit 1

begun=$(date +%s)
touch mark
GAPLESS_TRIAL=1 lab run --env "HERE=a b" -- sh "$0" "$1" "$2" inside mark
check "the exit status comes back" test $? = 7
check "so does what was written" test -e mark.too
echo "# one boot: $(($(date +%s) - begun)) s"

lab run --device none -- sh -c 'echo c >/proc/sysrq-trigger; sleep 60' >out 2>&1
check "a panic has a status of its own" test $? = 120
check "and is shown" grep -q 'sysrq' out

lab run --device none --timeout 3 -- sleep 60 >out 2>&1
check "so has a guest that goes on and on" test $? = 121
check "and that is told" grep -q 'was ended after 3 s' out

check "an unknown option is misuse" sh -c "bash '$1/tests/vm/lab.sh' run --nonsense true 2>/dev/null; test \$? = 125"

# Of a script that is killed nothing remains: not its guest, and its folder goes with the next one.
mkdir temporary
TMPDIR=$work/temporary bash "$1/tests/vm/lab.sh" run --device none -- sleep 60 &
script=$!
killed=$script
qemu=
for _ in $(seq 100); do
    watcher=$(pgrep -P $script timeout) && qemu=$(pgrep -P "$watcher") && break
    sleep 0.1
done
check "a guest was running" test -n "$qemu"
killed="$script $qemu"
kill -KILL $script
wait $script 2>/dev/null
for _ in $(seq 50); do
    [ -e "/proc/$qemu" ] || break
    sleep 0.1
done
check "it died with its script" test ! -e "/proc/$qemu"
killed=
said=$(TMPDIR=$work/temporary lab run --device none --user 64 -- bash -c 'echo "$(id -un) $(ulimit -l)"' 2>&1)
check "a command can be a user's who may lock little" test "$said" = "nobody 64"
check "nothing is left of either" rmdir temporary
finish
