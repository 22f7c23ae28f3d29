#!/bin/sh
# Pairs of components that cannot be a rule are refused by the compiler, with a message that names the pair: where the
# passes are compiled for the CPU, in double, and for a GPU (as C++, and by nvcc where the build has it). A planted table
# of rules stands in for the tree's. Run as: test_refused.sh SOURCE BUILD
#
# ctest: timeout=120 plain
set -u
source=${1:?the source folder}
build=${2:?the build folder}
work=$(mktemp -d "$build/tests/refused.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
failed=0

cached() { # a variable of CMake's
    sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"
}
nvcc=$(cached CMAKE_CUDA_COMPILER)
[ -n "$nvcc" ] || nvcc=$(cached GAPLESS_NVCC)
if [ ! -x "$nvcc" ]; then
    echo "not compiled by nvcc, which this build does not have"
    nvcc=
    [ "${CI:-}" != true ] || [ "$(cached GAPLESS_CUDA)" = OFF ] || failed=1
fi
cxx=${CXX:-$(cached CMAKE_CXX_COMPILER)}
includes="-I$work -I$source -I$source/engine/include -I$build/generated"

mkdir -p "$work/engine/rules/momenta" || exit 1
cp "$source/tests/recipe/every_slot.h" "$source/tests/recipe/mean_square.h" "$work/engine/rules/momenta/"
{
    cat "$build/generated/engine/rules/components.h"
    echo '#include "engine/rules/momenta/every_slot.h"'
    echo '#include "engine/rules/momenta/mean_square.h"'
    echo '#define IF_MATRIX_every_slot(...)'
    echo '#define IF_MATRIX_mean_square(...)'
} >"$work/engine/rules/components.h"

# compile HOW: the source that has the loops, with the planted table; what was said goes to $work/said.
compile() {
    # shellcheck disable=SC2086
    case $1 in
    cpu) "${CC:-cc}" -std=c17 -D_GNU_SOURCE $includes -fsyntax-only "$source/engine/compute/compute_cpu_isa.c" ;;
    double)
        "${CC:-cc}" -std=c17 -D_GNU_SOURCE -DGAPLESS_REAL_DOUBLE $includes -fsyntax-only \
            "$source/engine/compute/compute_cpu_isa.c"
        ;;
    shim)
        "$cxx" -std=c++17 -DGAPLESS_CUDA_SHIM=1 -I"$source/tests/gpu/shim" $includes -fsyntax-only -w -x c++ \
            "$source/gpu/compute_cuda_rules.cu"
        ;;
    nvcc) "$nvcc" -std=c++17 $includes -ptx -o "$work/out.ptx" "$source/gpu/compute_cuda_rules.cu" ;;
    esac >"$work/said" 2>&1
}
# plant ROW; then passes, or refused MESSAGE
plant() {
    echo "$1" >"$work/engine/rules/rules.def"
}
each() {
    echo cpu double ${cxx:+shim} ${nvcc:+nvcc}
}
passes() {
    for how in $(each); do
        compile "$how" && continue
        echo "FAILED: a pair that is a rule does not compile ($how):"
        head -n 20 "$work/said"
        failed=1
    done
}
refused() {
    for how in $(each); do
        if compile "$how"; then
            echo "FAILED: compiles ($how), and should not: $1"
            failed=1
        elif ! grep -qF "$1" "$work/said"; then
            echo "FAILED: refused ($how), but not with \"$1\":"
            head -n 20 "$work/said"
            failed=1
        fi
    done
}

plant 'RULE(planted, "planted", none, every_slot, 0, "planted")'
passes
plant 'RULE(planted, "planted", gap_aware, every_slot, 0, "planted")'
refused 'rule planted: the correction gap_aware and the momentum every_slot both write stat'
plant 'RULE(planted, "planted", delay_comp_adaptive, mean_square, 0, "planted")'
refused 'rule planted: the correction delay_comp_adaptive and the momentum mean_square both write stat'
plant 'RULE(planted, "planted", none, every_slot, RULE_ROUND, "planted")'
refused 'rule planted: a round (RULE_ROUND) is of gradients as they come'
exit $failed
