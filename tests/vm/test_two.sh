#!/bin/sh
# ctest: serial plain
# A master in one guest and workers in another, over either device.
set -u
# shellcheck source=common.sh
. "$1/tests/vm/common.sh"
needs_verbs
needs_lab
result=0
for device in rxe siw; do
    echo "# over $device"
    lab two --device $device --share "$build" --timeout 280 "$1/tests/vm/two_train.sh" "$1" "$2" || result=$?
done
exit $result
