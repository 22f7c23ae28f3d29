#!/bin/bash
# loaded.sh BUILD [SPINNERS [TIMES]] [-- ARGUMENT-OF-CTEST...]: the tests of a build beside other busy work. SPINNERS
# processes do nothing but keep the cores busy (two for each core by default), and every test runs TIMES times (once by
# default) or until it fails. Its exit code is ctest's. For example the tests of faults, three times beside 20 others:
#
#     bash tests/loaded.sh build 20 3 -- -L fault
set -u
usage() {
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit 2
}
[ $# -gt 0 ] && [ -e "$1/CTestTestfile.cmake" ] || usage
build=$1 spinners=$((2 * $(nproc))) times=1
shift
[[ ${1-} =~ ^[0-9]+$ ]] && spinners=$1 && shift
[[ ${1-} =~ ^[1-9][0-9]*$ ]] && times=$1 && shift
[ $# -eq 0 ] || { [ "$1" = -- ] && shift; } || usage

spinning=()
for _ in $(seq "$spinners"); do
    # It ends when this script does, however that ends, and at the latest after two hours.
    setpriv --pdeathsig KILL timeout 7200 setpriv --pdeathsig KILL bash -c 'while :; do :; done' &
    spinning+=($!)
done
trap 'kill "${spinning[@]}" 2>/dev/null' EXIT
ctest --test-dir "$build" --output-on-failure --no-tests=error --parallel "$(nproc)" --repeat "until-fail:$times" "$@"
