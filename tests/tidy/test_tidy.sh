#!/bin/sh
# Style that a program can check: prints file:line: for each fault. Run as: test_tidy.sh [ROOT]
#   who includes whom (rooms.txt); files of at most 1,000 lines, functions of at most 70; banned calls; words (words.txt); atomics only in
#   transport/ring.h; include guards and opening comments; no trailing blanks, tabs or unfinished business
set -u
cd "${1:-$(dirname "$0")/../..}" || exit 1

faults=$(mktemp "${TMPDIR:-/tmp}/gapless-tidy.XXXXXX") || exit 1
trap 'rm -f "$faults"' EXIT
code=$(find engine transport gpu bench cluster tests \
    \( -name '*.c' -o -name '*.h' -o -name '*.def' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \) \
    -type f 2>/dev/null | LC_ALL=C sort)
text=$({
    find . -maxdepth 1 -type f
    find .ci cmake contrib docs engine transport gpu bench cluster examples tests python -type f
} 2>/dev/null | sed 's|^\./||' |
    grep -E '\.([ch]|def|cuh?|cpp|cmake|in|map|json|txt|md|sh|py)$|^quickstart$|^\.ci/run$' | LC_ALL=C sort)
if [ -z "$code" ]; then
    echo "there is no source in $PWD"
    exit 1
fi

# ---- every text file ----
# shellcheck disable=SC2086
awk '
function fault(what) { print FILENAME ":" FNR ": " what }
/[ \t]$/ { fault("blanks at the end of the line") }
/\r/ { fault("a carriage return") }
/\t/ && FILENAME ~ /\.([ch]|def|cuh?|cpp|cmake|sh|py)$/ { fault("a tab") }
/(^|[^A-Za-z_])(TO[D]O|FIX[M]E|XX[X])([^A-Za-z_]|$)/ { fault("unfinished: do it or say it plainly") }
' $text >>"$faults"

# ---- words that a stranger would not know ----
grep -ine "$(grep -v '^#' tests/tidy/words.txt | grep . | sed 's/.*/\\b&\\b/' | paste -sd '|' | sed 's/|/\\|/g')" $(echo "$text" |
    grep -vE '^(tests|CHANGELOG|bench/results)') /dev/null 2>/dev/null |
    sed -E 's/^([^:]*:[0-9]+):.*/\1: a word that a stranger would not know, see tests\/tidy\/words.txt/' >>"$faults"

# ---- sources: every line as it is, then without comments and the contents of strings ----
# shellcheck disable=SC2086
awk '
function fault(what) { print FILENAME ":" FNR ": " what }

# Removes comments and the contents of strings and characters; a comment may go on over lines.
function bare(line,    out, c, i, n, quote) {
    out = ""
    n = length(line)
    for (i = 1; i <= n; i++) {
        c = substr(line, i, 1)
        if (in_comment) {
            if (substr(line, i, 2) == "*/") { in_comment = 0; i++; out = out " " }
        } else if (quote != "") {
            if (c == "\\") i++
            else if (c == quote) { quote = ""; out = out c }
        } else if (substr(line, i, 2) == "/*") { in_comment = 1; i++ }
        else if (substr(line, i, 2) == "//") break
        else {
            if (c == "\"" || c == "\047") quote = c
            out = out c
        }
    }
    return out
}
function folder(path) { return path ~ /\// ? substr(path, 1, match(path, /\/[^\/]*$/) - 1) : "." }
function normal(path,    before) {
    gsub(/\/\.\//, "/", path)
    do { before = path; sub(/[^\/.][^\/]*\/\.\.\//, "", path) } while (path != before)
    return path
}
function exists(path) { return path in known }

# The folder of the table that a file belongs to.
function room(path) {
    sub(/\/[^\/]*$/, "", path)
    return path in part_of ? part_of[path] : path
}
# May a file of room `from` include a file of room `to`? See rooms.txt.
function allowed(path,    to) {
    if (top == "tests" || path ~ /^engine\/include\//) return 1
    to = room(path)
    return to == from || (from, to) in may
}
function read_rooms(table,    line, part, n, i) {
    while ((getline line <table) > 0) {
        number++
        if (line ~ /^(#|[ ]*$)/) continue
        n = split(line, part, /[: ]+/)
        if (part[2] == "=") { part_of[part[1]] = part[3]; continue }
        floor[part[1]] = number
        for (i = 2; i <= n; i++) {
            if (part[i] == "") continue
            if (!(part[i] in floor)) print table ":" number ": " part[i] " has no line above: includes would run up the floors"
            may[part[1], part[i]] = 1
        }
    }
}
function check_include(line,    name, path) {
    if (line !~ /^[ ]*#[ ]*include[ ]*"/) {
        if (line ~ /^[ ]*#[ ]*include[ ]*<(cblas|zlib|jansson)\.h>/ && top ~ /^(engine|transport|gpu)$/ && \
            FILENAME !~ /^(\.\/)?engine\/compute\/products\.c$/) # which does without, too
            fault("the library needs nothing but libc: move this to cluster")
        if (line ~ /^[ ]*#[ ]*include[ ]*<(stdatomic\.h|atomic)>/ && FILENAME != "transport/ring.h" && top != "tests")
            fault("atomics live in transport/ring.h only")
        if (line ~ /^[ ]*#[ ]*include[ ]*<[a-z_]+>/ && top != "tests")
            fault("no C++ library here: CUDA sources are written as C")
        return
    }
    name = line
    sub(/^[^"]*"/, "", name)
    sub(/".*/, "", name)
    path = normal(name)
    if (!exists(path)) {
        if (exists(normal(folder(FILENAME) "/" name))) fault("\"" name "\": write the path from the root of the tree")
        else if (top != "tests") fault("\"" name "\" is not in this tree: is it <" name ">?")
    } else if (path ~ /^engine\/include\//) fault("a public header is <gapless/NAME.h>")
    else if (!allowed(path)) fault(from " must not include " path)
}

function finish() {
    if (file != "" && lines > 1000) print file ":1001: a file of " lines " lines; 1000 are allowed"
    if (file ~ /\.(h|cuh)$/ && !guarded) print file ":1: no include guard (#ifndef NAME, then #define NAME)"
}
BEGIN {
    for (i = 1; i < ARGC; i++) known[ARGV[i]] = 1
    known["engine/rules/components.h"] = 1 # made by cmake/rules.cmake
    known["engine/rules/matrix_momenta.def"] = 1
    read_rooms("tests/tidy/rooms.txt")
}
FNR == 1 {
    finish()
    file = FILENAME
    top = file
    sub(/\/.*/, "", top)
    from = room(file)
    if (top != "tests" && !(from in floor) && file !~ /^engine\/include\//) fault(from " has no line in tests/tidy/rooms.txt")
    in_comment = in_function = guarded = 0
    guard = ""
    library = top ~ /^(engine|transport|gpu)$/
    if (file ~ /\.(h|cuh)$/ && $0 !~ /^\/[\/*]/) fault("a header starts with a comment that says what it is for")
}
/^\/\* ---- / && ($0 !~ /-- \*\/$|-----$/ || length($0) > 80) { fault("a ruler is one line of at most 80 columns") }
/^ \* ----------/ { fault("a ruler that fell over two lines") }
{ lines = FNR; check_include($0); line = bare($0) }
line ~ /^#[ ]*ifndef / && guard == "" { split(line, word); guard = word[2]; next }
line ~ /^#[ ]*define / && guard != "" && !guarded { split(line, word); if (word[2] == guard) guarded = 1 }

file !~ /\.def$/ && line ~ /^\{[ ]*$/ { in_function = FNR }
line ~ /^\}/ && in_function {
    if (FNR - in_function + 1 > 70)
        print file ":" in_function ": a function of " FNR - in_function + 1 " lines; 70 are allowed"
    in_function = 0
}

line ~ /(^|[^A-Za-z0-9_])(strcpy|strcat|stpcpy|sprintf|vsprintf|gets|atoi|atol|atoll|atof|rand|srand|random|strtok|alloca|tmpnam|mktemp)[ ]*\(/ {
    fault("a banned call: it has no bound, no error or hidden state")
}
library && line ~ /(^|[^A-Za-z0-9_])(printf|vprintf|puts|putchar|perror|exit|_exit|_Exit|quick_exit|abort|syslog|err|errx|warn|warnx)[ ]*\(/ {
    fault("the library never prints or exits: return a status")
}
library && line ~ /(^|[^A-Za-z0-9_])(stdout|stderr)([^A-Za-z0-9_]|$)/ { fault("the library never prints: return a status") }
top != "tests" && file != "transport/ring.h" &&
line ~ /(^|[^A-Za-z0-9_])(_Atomic|__atomic_[a-z_]+|__sync_[a-z_]+|atomic_[a-z_]+)([^A-Za-z0-9_]|$)/ {
    fault("atomics live in transport/ring.h only")
}
top != "tests" && file != "engine/base/clock.h" && line ~ /clock_gettime\(CLOCK_MONOTONIC/ {
    fault("engine/base/clock.h has the time")
}
file ~ /^engine\// && file !~ /^engine\/master\/(passes|open)_gpu\.c$/ && line ~ /->gpu([^A-Za-z0-9_]|$)/ {
    fault("GPUs are behind struct pass_ops: ask m->passes")
}
END { finish() }
' $code >>"$faults"

for file in README.md CHANGELOG.md CONTRIBUTING.md LICENSE SECURITY.md; do
    [ -s "$file" ] || echo "$file:1: is missing" >>"$faults"
done

if [ -s "$faults" ]; then
    cat "$faults"
    echo "$(wc -l <"$faults") faults in $PWD"
    exit 1
fi
echo "$(echo "$code" | wc -l) source files are tidy"
