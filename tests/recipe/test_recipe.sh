#!/bin/sh
# CONTRIBUTING's recipe "Add a rule", followed step by step in a copy of the tree, for a correction, for a momentum that
# reads every slot and for one of a synchronous rule: a header and a row each, and nothing else. The copy is built, for
# the CPU, in double and for a GPU (as C++, and by nvcc where the build has it), the tests that loop over the table of
# rules are run, and the library must offer the new rows (tests/recipe/test_table.py holds the program against that). The steps are read from the text, so that text and test
# cannot part: a step that this test does not know is a failure. Run as: test_recipe.sh SOURCE BUILD
#
# ctest: timeout=900 plain
set -u
source=${1:?the source folder}
build=${2:?the build folder}
here=$source/tests/recipe
work=$(mktemp -d "$build/tests/recipe.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
copy=$work/tree
failed=0

fail() {
    echo "FAILED: $*"
    exit 1
}
wrong() {
    echo "FAILED: $*"
    failed=1
}
cached() { # a variable of CMake's
    sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"
}
rows() { # the rows of the new rules
    cat <<'ROWS'
RULE(recipe_damped,  "recipe-damped",  damped,           dana,        0,          "tests/recipe")
RULE(recipe_slots,   "recipe-slots",   none,             every_slot,  0,          "tests/recipe")
RULE(recipe_pair,    "recipe-pair",    damped,           every_slot,  0,          "tests/recipe")
RULE(recipe_blocks,  "recipe-blocks",  loss_gap,         every_slot,  0,          "tests/recipe")
RULE(recipe_vector,  "recipe-vector",  gap_aware_global, every_slot,  0,          "tests/recipe")
RULE(recipe_round,   "recipe-round",   none,             mean_square, RULE_ROUND, "tests/recipe")
ROWS
}
# insert FILE BEFORE TEXT: puts text in front of the one line that starts with BEFORE.
insert() {
    [ "$(grep -c "^$2" "$1")" = 1 ] || fail "there is not one line '$2' in $1"
    awk -v before="$2" -v text="$3" 'index($0, before) == 1 { print text } { print }' "$1" >"$work/inserted" &&
        mv "$work/inserted" "$1"
}
# append_row FILE TABLE ROW: puts a row at the end of a table in C.
append_row() {
    awk -v table="$2" -v row="    $3," '
        index($0, table) { inside = 1 } inside && /^};/ { print row; inside = 0; done = 1 } { print } END { exit !done }' \
        "$1" >"$work/appended" || fail "there is no table $2 in $1"
    mv "$work/appended" "$1"
}
paths_of() { # the files and folders that a step names
    # shellcheck disable=SC2016
    printf '%s\n' "$1" | grep -o '`[a-zA-Z_./-]*`' | tr -d '`' | grep /
}

# ---- a copy ----
mkdir "$copy" || exit 1
for part in CMakeLists.txt CMakePresets.json cmake quickstart engine transport gpu bench cluster tests examples contrib docs \
    README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE; do
    [ ! -e "$source/$part" ] || cp -R "$source/$part" "$copy/" || exit 1
done

# ---- the steps, as CONTRIBUTING numbers them ----
awk '/^## / { inside = $0 == "## Add a rule" } inside' "$source/CONTRIBUTING.md" |
    awk '/^[0-9]+\. / { if (step != "") print step; step = $0; next }
         /^   / && step != "" { sub(/^ +/, " "); step = step $0; next }
         { if (step != "") print step; step = "" } END { if (step != "") print step }' >"$work/steps"
[ -s "$work/steps" ] || fail "CONTRIBUTING.md has no numbered steps under '## Add a rule'"

add_headers() {
    for place in $(paths_of "$1"); do
        case $place in
        */corrections/) cp "$here/damped.h" "$copy/$place" || fail "there is no $place" ;;
        */momenta/) cp "$here/every_slot.h" "$here/mean_square.h" "$copy/$place" || fail "there is no $place" ;;
        esac
    done
}
# Of the other rows those are left out that the tests below do not name: they take most of the time to build, and are
# built and tested elsewhere.
add_rows() {
    table=$copy/$(paths_of "$1" | grep '\.def$') || fail "step 2 names no table"
    grep -v '^RULE(' "$table" >"$work/table"
    grep -E '^RULE\((asgd|nag_asgd|multi_asgd|ssgd|dana_zero|ga_plain),' "$table" >>"$work/table"
    rows >>"$work/table"
    mv "$work/table" "$table"
}
add_reference() {
    reference=$copy/$(paths_of "$1" | grep '/oracle\.h$') || fail "step 3 names no reference"
    insert "$reference" "static const struct oracle_momentum oracle_momenta" '#include "tests/recipe/reference.h"'
    append_row "$reference" "oracle_corrections[]" '{"damped", recipe_damped, NULL}'
    append_row "$reference" "oracle_momenta[]" \
        '{"every_slot", recipe_every_slot, recipe_every_slot_given, recipe_every_slot_ahead, NULL}'
    append_row "$reference" "oracle_momenta[]" \
        '{"mean_square", recipe_mean_square, recipe_mean_square_given, recipe_mean_square_ahead, NULL}'
}

# ---- build and test ----
# Quick to compile, not quick to run; a build type of its own, so that the passes over memory are optimised as ever
# (cmake/isa.cmake), for one instruction set.
jobs=$(nproc 2>/dev/null || echo 2)
tests="property_slots property_slots_double property_oracle property_oracle_double"
kernels="gpu_kernels gpu_kernels_more"
build_copy() {
    cxx=$(cached CMAKE_CXX_COMPILER)
    launcher=$(cached CMAKE_C_COMPILER_LAUNCHER)
    cmake -S "$copy" -B "$work/build" -G "$(cached CMAKE_GENERATOR)" -DCMAKE_C_COMPILER="$(cached CMAKE_C_COMPILER)" \
        ${cxx:+"-DCMAKE_CXX_COMPILER=$cxx"} ${launcher:+"-DCMAKE_C_COMPILER_LAUNCHER=$launcher"} \
        ${launcher:+"-DCMAKE_CXX_COMPILER_LAUNCHER=$launcher"} -DCMAKE_BUILD_TYPE=Recipe -DCMAKE_C_FLAGS_RECIPE=-O0 \
        -DCMAKE_CXX_FLAGS_RECIPE=-O1 -DGAPLESS_WERROR=ON -DGAPLESS_TESTS=ON -DGAPLESS_VERBS=OFF -DGAPLESS_CUDA=OFF \
        -DGAPLESS_ISA=generic \
        >"$work/log" 2>&1 || { cat "$work/log"; fail "the copy cannot be configured"; }
    [ -n "$cxx" ] || kernels=
    targets=
    for test in $tests $kernels; do
        targets="$targets test_$test"
    done
    # shellcheck disable=SC2086
    cmake --build "$work/build" --parallel "$jobs" --target $targets >"$work/log" 2>&1 ||
        { tail -n 60 "$work/log"; fail "the copy with the new rules does not build"; }
}
run_tests() {
    for test in $tests $kernels; do
        "$work/build/tests/test_$test" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; wrong "test_$test, with the new rules"; }
    done
}
offers_rules() {
    # shellcheck disable=SC2046
    "$(cached CMAKE_C_COMPILER)" -I"$copy/engine/include" "$here/shown.c" "$work/build/libgapless_internal.a" \
        -lm -lpthread -ldl -lrt -o "$work/shown" >"$work/log" 2>&1 && "$work/shown" >"$work/names" ||
        { cat "$work/log"; wrong "the library with the new rules cannot be asked for them"; }
    for name in $(rows | sed 's/^[^"]*"\([^"]*\)".*/\1/'); do
        grep -q "^$name (tests/recipe)" "$work/names" || wrong "the library does not offer $name"
    done
    # What kind a rule is follows from its row, whatever it is called: gapless plan goes by that.
    for kind in "round (tests/recipe) synchronous:" "vector (tests/recipe) whole:" "pair (tests/recipe):"; do
        grep -q "^recipe-$kind" "$work/names" || wrong "recipe-${kind%% *} is not of the kind of its row"
    done
}
# As nvcc compiles them, with the flags of the build (cmake/cuda.cmake), for the oldest GPU that it knows.
nvcc_compiles() {
    nvcc=$(cached CMAKE_CUDA_COMPILER)
    [ -n "$nvcc" ] || nvcc=$(cached GAPLESS_NVCC)
    if [ ! -x "$nvcc" ]; then
        echo "not compiled by nvcc, which this build does not have"
        [ "${CI:-}" != true ] || [ "$(cached GAPLESS_CUDA)" = OFF ] || wrong "nvcc must be installed where tests run for all"
        return
    fi
    architecture=$("$nvcc" --list-gpu-arch | head -n 1 | sed 's/compute_/sm_/')
    arithmetic=$(sed -n 's/^set(GAPLESS_CUDA_ARITHMETIC \(.*\))$/\1/p' "$source/cmake/cuda.cmake")
    for file in compute_cuda compute_cuda_gap compute_cuda_blocks compute_cuda_rules; do
        # shellcheck disable=SC2086
        "$nvcc" -std=c++17 -O1 $arithmetic -arch="$architecture" -cubin -I"$copy" -I"$copy/engine/include" \
            -I"$work/build/generated" -o "$work/$file.cubin" "$copy/gpu/$file.cu" >"$work/log" 2>&1 ||
            { cat "$work/log"; wrong "nvcc does not compile $file.cu with the new rules"; }
    done
    for kernel in compute_cuda:apply_recipe_slots_sent compute_cuda:apply_recipe_pair_own \
        compute_cuda_gap:apply_recipe_pair_own_gap compute_cuda_blocks:block_recipe_blocks \
        compute_cuda_rules:send_recipe_slots compute_cuda_rules:measure_recipe_vector_own \
        compute_cuda_rules:round_recipe_round_sent; do
        grep -q "gapless_${kernel#*:}" "$work/${kernel%%:*}.cubin" || wrong "nvcc made no kernel gapless_${kernel#*:}"
    done
}

while read -r step; do
    case $step in
    *engine/rules/corrections/*engine/rules/momenta/*) add_headers "$step" ;;
    *engine/rules/rules.def*) add_rows "$step" ;;
    *tests/property/oracle.h*) add_reference "$step" ;;
    *"quickstart test"*)
        build_copy
        run_tests
        offers_rules
        nvcc_compiles
        ;;
    *CHANGELOG.md*) # for people; that the table of rules is complete is checked where it is
        # shellcheck disable=SC2016
        for file in $(printf '%s\n' "$step" | grep -o '`[a-zA-Z_./-]*\.md`' | tr -d '`'); do
            [ -s "$source/$file" ] || wrong "CONTRIBUTING.md names $file, which is not there"
        done
        ;;
    *) fail "CONTRIBUTING.md has a step that this test does not follow: $step" ;;
    esac
    followed="${followed-}${step%%.*} "
done <"$work/steps"
[ "${followed-}" = "1 2 3 4 5 " ] || wrong "the steps followed are ${followed-none}, not 1 2 3 4 5"
exit $failed
