#!/bin/sh
# What cmake/page.cmake makes of the page's template and of Chart.js, with and without Chart.js: the C file compiles, and
# gives the bytes of the files back. Run as: test_page_assets.sh SOURCE BUILD  ctest: plain
set -eu
source=$1
folder=$(mktemp -d "${TMPDIR:-/tmp}/gapless-page.XXXXXX")
trap 'rm -rf "$folder"' EXIT

fail() {
    echo "$*"
    exit 1
}

cat >"$folder/print.c" <<'C'
#include "cluster/report/page.h"

int main(int argc, char **argv)
{
    const char *const text[] = {page_assets.html, page_assets.css, page_assets.js,
                                page_assets.chart_js};

    (void)argv;
    if (text[argc - 1] == NULL)
        return 3;
    (void)fputs(text[argc - 1], stdout);
    return 0;
}
C
# A stand-in for Chart.js: quotes, backslashes, a semicolon, brackets and letters beyond ASCII.
printf '/*! licence */ "a\\n" [x;y] \303\251 %%s $<1> ${z}\n' >"$folder/chart.min.js"

check() { # FILE ARGUMENT...: what the program prints is that file
    file=$1
    shift
    "$folder/print" "$@" >"$folder/printed" && cmp "$file" "$folder/printed" || fail "$file came back changed"
}
for chart in "$folder/chart.min.js" ""; do
    cmake -DPAGE="$source/cluster/report" -DCHARTJS="$chart" -DOUT="$folder/page.c" -P "$source/cmake/page.cmake"
    ${CC:-cc} -std=c17 -D_GNU_SOURCE -I"$source" -I"$source/engine/include" -Wall -Wextra -Wpedantic -Werror -o "$folder/print" \
        "$folder/page.c" "$folder/print.c"
    check "$source/cluster/report/page.html"
    check "$source/cluster/report/page.css" x
    check "$source/cluster/report/page.js" x x
    if [ -n "$chart" ]; then
        check "$chart" x x x
    else
        status=0
        "$folder/print" x x x || status=$?
        [ "$status" = 3 ] || fail "there is a Chart.js, although none was given"
    fi
done

# The configuration refuses a path that leads nowhere.
cat >"$folder/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.25)
project(page LANGUAGES NONE)
include($source/cmake/page.cmake)
message(STATUS "chart.js: [\${GAPLESS_CHARTJS_FILE}]")
CMAKE
configured() {
    rm -rf "$folder/build"
    cmake -S "$folder" -B "$folder/build" "$@" >"$folder/log" 2>&1
}
configured -DGAPLESS_CHARTJS=OFF && grep -q 'chart.js: \[\]' "$folder/log" || fail "OFF: $(cat "$folder/log")"
configured -DGAPLESS_CHARTJS="$folder/chart.min.js" && grep -qF "chart.js: [$folder/chart.min.js]" "$folder/log" ||
    fail "a path: $(cat "$folder/log")"
if configured -DGAPLESS_CHARTJS=/nowhere/chart.min.js; then
    fail "a path that leads nowhere was accepted"
fi
grep -q 'GAPLESS_CHARTJS=/nowhere/chart.min.js: there is no such file' "$folder/log" || fail "refused without its reason"
echo "the page's files come back as they were, with and without Chart.js"
