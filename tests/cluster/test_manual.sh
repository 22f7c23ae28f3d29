#!/bin/sh
# The man pages that the program writes: one a command, each with every option that --help lists, none that it does not; and
# what groff and mandoc say of them. Installed, man finds them.
build=$2
program=${GAPLESS_PROGRAM:-$build/gapless}
work=$(mktemp -d "${TMPDIR:-/tmp}/gapless-manual.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
failed=0
wrong() {
    echo "FAILED: $*"
    failed=1
}

command -v groff >/dev/null || { echo "groff not installed: pages cannot be read" && exit 77; }
mkdir "$work/man1"
"$program" help --man "$work/man1" || exit 1
"$program" help --man "$work/none" >"$work/said" 2>&1 && wrong "a folder that is not there was taken"
grep -q "$work/none" "$work/said" || wrong "the folder that is not there is not named"

commands=$("$program" help | sed -n 's/^  \([a-z]*\)  .*/\1/p')
benches=$("$program" help bench | sed -n 's/^  bench \([a-z]*\)  .*/bench \1/p' | tr ' ' -)
[ "$(echo "$benches" | wc -w)" = 4 ] || wrong "help bench lists: $benches"
for command in $commands $benches; do
    page=$work/man1/gapless-$command.1
    [ -s "$page" ] || { wrong "no page of $command" && continue; }
    # shellcheck disable=SC2046
    "$program" help $(echo "$command" | tr - ' ') | sed -n 's/^  \(-.,\|   \) \(--[a-z0-9-]*\).*/\2/p' | sort >"$work/help"
    sed -n 's/^\(\\fB\\-.\\fR, \)*\\fB\\-\\-\([a-z0-9\\-]*\)\\fR.*/--\2/p' "$page" | tr -d '\\' | sort >"$work/page"
    cmp -s "$work/help" "$work/page" || wrong "$command: help and page differ: $(diff "$work/help" "$work/page" | tr '\n' ' ')"
    grep -q "gapless..$(echo "$command" | sed 's/-/../g') " "$work/man1/gapless.1" || wrong "gapless.1 does not name $command"
done
for page in "$work"/man1/*.1; do
    groff -ww -man -Tutf8 -z "$page" >"$work/said" 2>&1
    [ ! -s "$work/said" ] || wrong "groff: $(cat "$work/said")"
    # A page has no date, so that the same source gives the same bytes.
    if command -v mandoc >/dev/null; then
        mandoc -T lint "$page" | grep -v -e 'missing date' -e 'longer than 80 bytes' >"$work/said"
        [ ! -s "$work/said" ] || wrong "mandoc: $(cat "$work/said")"
    fi
done
grep -q GAPLESS_DATA_DIR "$work/man1/gapless-train.1" || wrong "train does not name its environment"

if [ -d "$build/written" ]; then # what is installed is what the program writes
    DESTDIR=$work/root cmake --install "$build" --component runtime >"$work/said" 2>&1 || wrong "install: $(tail -3 "$work/said")"
    for name in gapless.1 gapless-bench-rules.1 gapless-train.1; do
        found=$(find "$work/root" -path "*/man/man1/$name")
        [ -n "$found" ] && cmp -s "$found" "$work/man1/$name" || wrong "$name is not installed as it is written"
    done
    [ -n "$(find "$work/root" -path '*/bash-completion/completions/gapless')" ] || wrong "no completion of bash is installed"
    [ -n "$(find "$work/root" -path '*/zsh/site-functions/_gapless')" ] || wrong "no completion of zsh is installed"
fi
[ "$failed" = 0 ] && echo "ok: $(ls "$work/man1" | wc -l) pages"
exit "$failed"
