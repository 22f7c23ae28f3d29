#!/bin/sh
# The completion of bash, called as bash calls it: commands, options of a command, values of an option in each spelling, files,
# folders. That of zsh is parsed, and asked where zsh is installed.
build=$2
program=${GAPLESS_PROGRAM:-$build/gapless}
command -v bash >/dev/null || { echo "bash not installed" && exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/gapless-completion.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
"$program" completion bash >"$work/bash" && "$program" completion zsh >"$work/_gapless" || exit 1
"$program" completion fish >"$work/said" 2>&1
[ $? = 2 ] && grep -q "bash, or gapless completion zsh" "$work/said" || { cat "$work/said" && exit 1; }
"$program" rules --json >"$work/rules.json"
mkdir "$work/here" "$work/here/a folder" && touch "$work/here/a file"

cat >"$work/test" <<'END'
set -u
source "$1"
cd "$2" || exit 1
failed=0
complete -p gapless | grep -q -- '-F _gapless gapless' || { echo "FAILED: nothing completes gapless" && failed=1; }
# is WANTED WORD...: what completes the last word, one a line, sorted.
is() {
    local wanted=$1 got
    shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _gapless
    got=$(printf '%s\n' "${COMPREPLY[@]-}" | sort | tr '\n' ' ')
    [ "$got" = "$wanted " ] || { echo "FAILED: $* gives '$got', not '$wanted '" && failed=1; }
}
# has WANTED WORD...: WANTED is among them.
has() {
    local wanted=$1
    shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _gapless
    printf '%s\n' "${COMPREPLY[@]-}" | grep -qxF -- "$wanted" || { echo "FAILED: $* does not give $wanted" && failed=1; }
}
is "train" gapless tr
has doctor gapless ''
is "gpu rules transport update" gapless bench ''
is "--workers --workers-max" gapless train --workers
has --rule gapless train ''
has --reps gapless bench update --
is "--rounds --rules" gapless bench rules --r
is "dana-ga dana-ga-global" gapless train --rule dana-ga
is "dana-ga dana-ga-global" gapless train -r dana-ga
is "dana-ga dana-ga-global" gapless train --rule = dana-ga
has asgd gapless train --rule =
has all gapless plan --rule a
is "always auto" gapless master --gpu-flush a
is "shm verbs" gapless worker --transport ''
is "shm" gapless bench update --transport ''
is "h100 h100-pcie h200" gapless plan --gpu h
is "fashion-mnist" gapless train --quiet --data f
is "" gapless train --lr ''
has --workers gapless train --quiet --wor
is "a folder" gapless train --out a
is "a file a folder" gapless plan --measured a
is "a file a folder" gapless report a
is "a file a folder" gapless evaluate a
has study gapless help s
is "asgd,dana-ga asgd,dana-ga-global" gapless bench rules --rules asgd,dana-ga
is "read,write read,write-lat" gapless bench transport --ops read,w
is "bash zsh" gapless completion ''
is "" gapless train --no-such-option=
exit $failed
END
bash --norc "$work/test" "$work/bash" "$work/here" || exit 1

# Every command, option and rule is in both.
status=0
for word in $("$program" help | sed -n 's/^  \([a-z]*\)  .*/\1/p') $(sed -n 's/.*"name": "\(.*\)".*/\1/p' "$work/rules.json") \
    $(for command in train master worker observe simulate study report plan doctor 'bench gpu' 'bench transport'; do
        # shellcheck disable=SC2086
        "$program" help $command | sed -n 's/^  \(-.,\|   \) \(--[a-z-]*\).*/\2/p'
    done | sort -u); do
    for file in bash _gapless; do
        grep -q -e "$word" "$work/$file" || { echo "FAILED: $file lacks $word" && status=1; }
    done
done
if command -v zsh >/dev/null; then
    zsh -n "$work/_gapless" || status=1
    # One shell is asked everything: to start it and its completion takes seconds. What it prints when it is ready is not
    # what it is given to print, which comes back as an echo before.
    cat >"$work/ask" <<'END'
zmodload zsh/zpty
read_until() { # text: reads what the shell shows up to it
    text=
    repeat 1000; do zpty -r -t shell line && text+=$line && [[ $text == *$1* ]] && return 0; sleep 0.05; done
    return 1
}
zpty shell zsh -f -i
zpty -w shell "PROMPT=; fpath=($1 \$fpath); autoload -U compinit; compinit -u -D; bindkey '^I' complete-word; zstyle ':completion:*' list-prompt ''; LISTMAX=1000; print is''-ready"
read_until is-ready || { print -r -- "FAILED: zsh does not start: $text"; exit 1 }
shift
for question; do
    zpty -w -n shell "${question%|*}"$'\t'
    read_until "${question#*|}" || { print -r -- "FAILED: zsh does not make ${question#*|} of ${question%|*}: $text"; exit 1 }
    zpty -w -n shell $'\C-u'
done
END
    zsh -f "$work/ask" "$work" 'gapless train --gpu-flush al|always' 'gapless bench rules --rules asgd,dana-zer|dana-zero' \
        'gapless pl|plan' || status=1
elif [ "$status" = 0 ]; then
    echo "zsh not installed: only the completion of bash was tested"
    exit 77
fi
[ "$status" = 0 ] && echo ok
exit "$status"
