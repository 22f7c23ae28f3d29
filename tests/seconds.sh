#!/bin/sh
# seconds.sh RESULTS...: writes tests/seconds.txt from the JUnit files that ctest left (build/ctest.xml,
# build-ci/*/ctest.xml): how long each test takes, the longest of all files, so that CMake can have the longest started
# first. Numbers of a busy machine do as well: only their order counts.
set -u
[ $# -gt 0 ] || { sed -n '2,4s/^# //p' "$0" && exit 2; }
to=$(dirname "$0")/seconds.txt
new=$(mktemp "$to.XXXXXX") || exit 1
trap 'rm -f "$new"' EXIT
{
    echo "# How long each test took, in seconds: the longest first. Written by tests/seconds.sh."
    awk '
    /<testcase / && / status="(run|fail)"/ {
        name = seconds = $0
        sub(/.* name="/, "", name); sub(/".*/, "", name)
        sub(/.* time="/, "", seconds); sub(/".*/, "", seconds)
        if (!(name in most) || seconds + 0 > most[name]) most[name] = seconds + 0
    }
    END { for (name in most) printf "%s %.1f\n", name, most[name] }' "$@" | sort -k2,2gr -k1,1
} >"$new"
[ "$(wc -l <"$new")" -gt 1 ] || { echo "seconds.sh: no results in $*" >&2 && exit 1; }
mv "$new" "$to" && chmod 644 "$to"
