# Sourced by the packaging tests: SOURCE and BUILD from the arguments, a scratch folder, an installed copy that was
# moved after installing (what a package manager does), and a way to fail.
set -u
source=${1:?"usage: $0 SOURCE BUILD"}
build=${2:?"usage: $0 SOURCE BUILD"}
scratch=$build/tests/$(basename "$0" .sh)
compiler=${CC:-cc}
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$build/CMakeCache.txt")

fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}
skip() {
    printf 'SKIP: %s\n' "$*"
    exit 77
}
run() { # shows a command that fails, with what it said
    "$@" >"$scratch/log" 2>&1 && return 0
    printf 'FAILED: %s\n' "$*"
    cat "$scratch/log"
    exit 1
}

rm -rf "$scratch"
mkdir -p "$scratch"
run cmake --install "$build" --prefix "$scratch/first"
mv "$scratch/first" "$scratch/prefix"
prefix=$scratch/prefix
pkgconfig=$(dirname "$(find "$prefix" -name gapless.pc)")
lib=$(dirname "$pkgconfig")
