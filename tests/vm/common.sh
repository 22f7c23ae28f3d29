# shellcheck shell=sh
# What the tests of the lab share: sourced by test_*.sh, which are called with the source's and the build's folder, and
# in the guest with a third argument.
source_dir=$1 build=$2 inside=${3-}
program=${GAPLESS_PROGRAM:-$build/gapless}
checks=0 failed=0

lab() {
    bash "$source_dir/tests/vm/lab.sh" "$@"
}
skip() {
    echo "SKIP: $*"
    exit 77
}
needs_lab() {
    command -v bash >/dev/null || skip "bash is not found"
    reason=$(lab setup 2>&1) || skip "$(printf '%s\n' "$reason" | sed -n 's/^lab: //p' | tail -n 1)"
}
needs_verbs() {
    ldd "$program" | grep -q libibverbs && return
    if grep -q '^GAPLESS_VERBS:STRING=OFF' "$build/CMakeCache.txt"; then
        skip "this build has its verbs switched off"
    fi
    skip "this build has no verbs: libibverbs-dev, librdmacm-dev or libsodium-dev was not installed"
}

# Waits in a guest until a server listens by rdma_cm. Where nobody listens siw's connect would take for ever.
listening() {
    for _ in $(seq 100); do
        rdma resource show cm_id | grep -q 'state LISTEN' && return
        sleep 0.1
    done
    echo "# nobody listens within 10 s"
    return 1
}

check() { # text, command...
    text=$1
    shift
    checks=$((checks + 1))
    if "$@"; then
        echo "ok $checks - $text"
    else
        echo "FAILED $checks - $text"
        failed=$((failed + 1))
    fi
}
finish() {
    echo "$((checks - failed)) of $checks checks passed"
    [ $failed -eq 0 ]
    exit
}

# A small task, the same for everybody; 63 updates an epoch.
task="--data synthetic:2000x32x4:1 --model mlp:64 --batch 32 --seed 1 --rule dana-ga --lr 0.01"
