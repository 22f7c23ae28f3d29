#!/bin/sh
# The program takes better kernels of OpenBLAS than those of a Pentium 4: with a library before it that reports
# "Prescott" as an OpenBLAS does that does not know the processor. Run as: test_blas_core.sh SOURCE BUILD
# ctest: plain
set -u
program=${GAPLESS_PROGRAM:-$2/gapless}
case $(grep -m1 '^flags' /proc/cpuinfo 2>/dev/null) in
*" avx2 "*) ;;
*) echo "SKIP: this processor has no AVX2, for which there would be better kernels" && exit 77 ;;
esac
work=$(mktemp -d /tmp/gapless-test-XXXXXX) || exit 1
trap 'rm -rf "$work"' EXIT
unset OPENBLAS_CORETYPE GAPLESS_BLAS_CORE_BEFORE

# Reports Prescott until another core was asked for, or (FAKE_DEAF) even then; (FAKE_WRONG) its other kernels add 1.
cat >"$work/fake.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
char *openblas_get_corename(void)
{
    char *core = getenv("OPENBLAS_CORETYPE");
    return core != NULL && getenv("FAKE_DEAF") == NULL ? core : "Prescott";
}
typedef void gemm(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b,
                 int ldb, float beta, float *c, int ldc)
{
    ((gemm *)dlsym(RTLD_NEXT, "cblas_sgemm"))(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    if (getenv("FAKE_WRONG") != NULL && openblas_get_corename()[0] == 'H')
        c[m * n - 1] += 1.0F;
}
C
${CC:-cc} -shared -fPIC -o "$work/fake.so" "$work/fake.c" -ldl || exit 1

bad=0
fail() { echo "FAILED: $*" && bad=1; }
# says TEXT COUNT FILE: TEXT is on COUNT lines of the file
says() { [ "$(grep -c -- "$1" "$3")" = "$2" ] || { fail "'$1' is not there $2 times:" && cat "$3"; }; }
short="--data synthetic:200x8x2 --model softmax --workers 2 --epochs 2 --warmup 0 --steps none"

# A run says so once, for all its processes, and every one has the variable.
LD_PRELOAD=$work/fake.so "$program" train $short --out "$work/run" >"$work/train" 2>&1 || fail "train ended with $?"
says "gapless train: OpenBLAS took its Prescott kernels, .*OPENBLAS_CORETYPE=Haswell" 1 "$work/train"
says "OpenBLAS" 1 "$work/train"
[ -e "$work/run/log" ] && fail "a process of the run said something" && cat "$work/run/log"/*
# So does each that is started by itself; its name and arguments stay.
LD_PRELOAD=$work/fake.so "$program" simulate $short --quiet --out "$work/sim a" >"$work/sim" 2>&1 || fail "simulate: $?"
says "gapless simulate: OpenBLAS took its Prescott kernels" 1 "$work/sim"
[ -s "$work/sim a/result.json" ] || fail "simulate lost its arguments"
LD_PRELOAD=$work/fake.so "$program" simulate --nonsense >"$work/misuse" 2>&1
[ $? = 2 ] || fail "the exit code of a misuse"
LD_PRELOAD=$work/fake.so setarch -R "$program" simulate $short --out "$work/set" >"$work/setarch" 2>&1 ||
    fail "under setarch: $?"
says "OpenBLAS took its Prescott kernels" 1 "$work/setarch"
# Commands that multiply nothing are left alone.
LD_PRELOAD=$work/fake.so "$program" version >"$work/version" 2>&1 || fail "version: $?"
says "OpenBLAS" 0 "$work/version"

# The user's variable is left alone, and the doctor says what it costs.
OPENBLAS_CORETYPE=Prescott LD_PRELOAD=$work/fake.so "$program" simulate $short --out "$work/user" >"$work/user.out" 2>&1 ||
    fail "with the user's variable: $?"
says "OpenBLAS" 0 "$work/user.out"
OPENBLAS_CORETYPE=Prescott LD_PRELOAD=$work/fake.so "$program" doctor >"$work/doctor" 2>&1
says "BLAS core .*Prescott: slow on this processor" 1 "$work/doctor"
says "OPENBLAS_CORETYPE=Prescott was set before" 1 "$work/doctor"
says "unset OPENBLAS_CORETYPE" 1 "$work/doctor"
LD_PRELOAD=$work/fake.so "$program" doctor >"$work/doctor" 2>&1
says "ok  BLAS core .*Haswell" 1 "$work/doctor"
says "OpenBLAS took its Prescott kernels" 1 "$work/doctor"
says "unset" 0 "$work/doctor"
says "products .*agree with plain C" 1 "$work/doctor"

# Wrong products: back to what there was. A library that takes no notice: said, no more.
FAKE_WRONG=1 LD_PRELOAD=$work/fake.so "$program" simulate $short --out "$work/wrong" >"$work/wrong.out" 2>&1 ||
    fail "with wrong kernels: $?"
says "Haswell kernels compute wrong products here: it stays with Prescott" 1 "$work/wrong.out"
FAKE_DEAF=1 LD_PRELOAD=$work/fake.so "$program" simulate $short --out "$work/deaf" >"$work/deaf.out" 2>&1 ||
    fail "with a deaf library: $?"
says "stays with its Prescott kernels, which are slow, although OPENBLAS_CORETYPE=Haswell is set" 1 "$work/deaf.out"
# The same bits from run to run.
LD_PRELOAD=$work/fake.so "$program" simulate $short --quiet --out "$work/again" >/dev/null 2>&1
cmp "$work/again/model.safetensors" "$work/sim a/model.safetensors" || fail "two runs differ"
cmp "$work/again/metrics.jsonl" "$work/sim a/metrics.jsonl" || fail "two runs differ"
# Without the fake, where OpenBLAS knows the processor, nothing is said.
"$program" simulate $short --out "$work/plain" >"$work/plain.out" 2>&1 || fail "without the fake: $?"
grep -h OpenBLAS "$work/plain.out" && echo "(this machine's OpenBLAS does not know its processor)"
exit $bad
