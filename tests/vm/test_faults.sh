#!/bin/sh
# ctest: serial plain
# What breaks between a master in one guest and workers in another: two_faults.sh has the list.
set -u
# shellcheck source=common.sh
. "$1/tests/vm/common.sh"
needs_verbs
needs_lab
lab two --share "$build" --timeout 580 "$1/tests/vm/two_faults.sh" "$1" "$2"
