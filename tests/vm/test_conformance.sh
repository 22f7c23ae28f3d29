#!/bin/sh
# ctest: lock=lab
# What every transport has to do, asked of verbs over the two devices; what no peer may do; many connections. In sanitizer
# builds over rxe only. One boot.
set -u
# shellcheck source=common.sh
. "$1/tests/vm/common.sh"
needs_verbs

# Every result of it is shown, and there has to be one about verbs.
conforms() { # test, address
    {
        GAPLESS_TEST_VERBS=$2 timeout 300 "$build/tests/test_conformance_$1"
        echo $? >/tmp/status
    } 2>&1 | tee /tmp/results
    [ "$(cat /tmp/status)" = 0 ] && grep -q 'OK.*verbs' /tmp/results
}

if [ "$inside" = inside ]; then
    shift 3
    for address in "$@"; do
        for test in "$source_dir"/tests/conformance/test_*.c; do
            test=$(basename "$test" .c)
            test=${test#test_}
            echo "# test_conformance_$test over $address"
            check "test_conformance_$test over $address" conforms "$test" "$address"
        done
        check "what is not granted is refused, over $address" "$build/tests/lab_raw" "$address"
        case $address in
        10.1.*) many=200 ;;
        *) many=24 ;; # siw ends at 65 queue pairs
        esac
        check "$many connections over $address" "$build/tests/lab_many" "$address" $many
    done
    finish
fi

needs_lab
device=both addresses="10.1.1.1 10.2.1.1" limit=560
if grep -q '^GAPLESS_SANITIZE:STRING=.' "$build/CMakeCache.txt"; then
    device=rxe addresses=10.1.1.1 limit=1150
fi
# shellcheck disable=SC2086
lab run --device $device --share "$build" --timeout $limit -- sh "$0" "$1" "$2" inside $addresses
