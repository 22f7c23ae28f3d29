# For the tests of this folder that run the program: sourced, it leaves the test in a new folder, $work, which goes with
# it, with the program's name in $program. A test ends with `exit $failed`. A command may take $limit seconds.
program=$GAPLESS_PROGRAM
work=$(mktemp -d "${TMPDIR:-/tmp}/gapless-gpu.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0 limit=250

# What failed, and the file that shows why.
fail() { # what, file
    echo "FAIL $1"
    sed 's/^/     /' "$2"
    failed=1
}

check() { # what, command...
    what=$1
    shift
    if "$@" >output 2>&1; then
        echo "ok   $what"
    else
        fail "$what" output
    fi
}

# A command that ends with a code and says something.
says() { # what, code, text, command...
    what=$1 code=$2 text=$3
    shift 3
    timeout $limit "$@" >output 2>&1
    got=$?
    if [ $got -eq "$code" ] && grep -q -e "$text" output; then
        echo "ok   $what"
    else
        fail "$what: exit code $got, not $code, or no '$text' in:" output
    fi
}

has() { # what, pattern, file
    if grep -q -e "$2" "$3"; then
        echo "ok   $1"
    else
        fail "$1: no '$2' in:" "$3"
    fi
}
