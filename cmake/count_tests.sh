#!/bin/sh
# count_tests.sh FILE: the results in a JUnit file of ctest, each skipped test with its reason, and as the last line
# "N passed, N failed, N skipped".
set -u
[ -r "${1-}" ] || {
    echo "count_tests: no results in '${1-}': ctest did not get as far as writing them" >&2
    exit 1
}
awk '
/<testcase / {
    name = status = $0
    sub(/.* name="/, "", name); sub(/".*/, "", name)
    sub(/.* status="/, "", status); sub(/".*/, "", status)
    counted = 1
    skipped = reason = ""
    run = (status == "run")
    failed = (status == "fail")
}
/<skipped message="SKIP_/ { skipped = 1 }
/<system-out>/ && counted { sub(/.*<system-out>/, ""); out = 1 }
out && reason == "" && tolower($0) ~ /skip/ { reason = $0; sub(/<\/system-out>.*/, "", reason) }
/<\/system-out>/ { out = 0 }
/<\/testcase>/ {
    if (skipped) { skips++; print "skipped: " name ": " (reason == "" ? "no reason given" : reason) }
    else if (run) passes++
    else { fails++; print "failed: " name }
    counted = 0
}
END { printf "%d passed, %d failed, %d skipped\n", passes, fails, skips }
' "$1"
