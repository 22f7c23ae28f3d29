#!/bin/sh
# The style check finds what it is there for: each fault is planted in a small tree, which is clean without it.
set -u
tidy=$(cd "$(dirname "$0")" && pwd)/test_tidy.sh
tree=$(mktemp -d "${TMPDIR:-/tmp}/gapless-tree.XXXXXX") || exit 1
trap 'rm -rf "$tree"' EXIT
result=0

clean_tree() {
    rm -rf "$tree/engine" "$tree/transport" "$tree/gpu" "$tree/bench" "$tree/cluster" "$tree/tests" "$tree/.ci"
    mkdir -p "$tree/engine/include/gapless" "$tree/engine/rules/momenta" "$tree/engine/compute" "$tree/engine/master" \
        "$tree/transport/shm" "$tree/gpu" "$tree/bench/rules" "$tree/cluster/workloads" "$tree/cluster/options" \
        "$tree/cluster/plan" "$tree/cluster/drawer" "$tree/tests/unit" "$tree/tests/tidy" "$tree/.ci"
    cp "$(dirname "$tidy")/rooms.txt" "$(dirname "$tidy")/words.txt" "$tree/tests/tidy"
    for file in README.md CHANGELOG.md CONTRIBUTING.md LICENSE SECURITY.md; do
        echo text >"$tree/$file"
    done
    for header in engine/include/gapless/gapless engine/compute/compute engine/master/master transport/transport \
        transport/ring transport/shm/shm cluster/workloads/data cluster/options/options; do
        printf '/* A header. */\n#ifndef H\n#define H\n#endif\n' >"$tree/$header.h"
    done
    # What must not be taken for a fault.
    cat >"$tree/engine/master/good.c" <<'END'
/* printf( in a comment, strcpy( too:
 * exit(1) // atoi(x)
 */
#include <gapless/gapless.h>
#include "engine/compute/compute.h"
#include "transport/transport.h"
#include <stdio.h>

int good(char *out)
{
    char quote = '"';
    int my_exit(int), reprintf(int);
    return snprintf(out, 3, "exit(\"1\") %c strcat(", quote) + my_exit(1) + reprintf(2);
}
END
    {
        echo 'int longest(void)'
        echo '{'
        yes '    ;' | head -n 68
        echo '}'
    } >"$tree/bench/limit.c"
    yes ';' | head -n 1000 >"$tree/tests/unit/limit.c"
    printf '#include <stdatomic.h>\n_Atomic int x;\n' >>"$tree/transport/ring.h"
    printf '#include "engine/master/master.h"\n_Atomic int x;\n' >"$tree/tests/unit/any.c"
    printf '#include "cluster/workloads/data.h"\n#include <gapless/gapless.h>\n' >"$tree/cluster/cmd.c"
}

# finds FILE LINE TEXT WHAT: with TEXT appended to FILE the check fails there and says WHAT.
finds() {
    clean_tree
    printf '%b\n' "$3" >>"$tree/$1"
    if output=$(sh "$tidy" "$tree"); then
        echo "not found in $1: $4"
        result=1
    elif ! printf '%s\n' "$output" | grep -q "^$1:$2: .*$4"; then
        printf 'wrong or no place, expected %s:%s: ...%s, got\n%s\n' "$1" "$2" "$4" "$output"
        result=1
    elif [ "$(printf '%s\n' "$output" | grep -c ':')" -ne 1 ]; then
        printf 'more than what was planted in %s:\n%s\n' "$1" "$output"
        result=1
    fi
}

clean_tree
sh "$tidy" "$tree" || result=1

finds engine/master/a.c 1 '#include "cluster/options/options.h"' 'engine/master must not include cluster/options/options.h'
finds engine/rules/momenta/a.c 1 '#include "engine/master/master.h"' 'engine/rules must not include engine/master/master.h'
finds engine/compute/a.c 1 '#include "../rules/rules.h"' 'not in this tree'
finds engine/master/a.c 1 '#include "master.h"' 'write the path from the root'
finds cluster/a.c 1 '#include "engine/include/gapless/gapless.h"' 'a public header is'
finds transport/shm/a.c 1 '#include "engine/compute/compute.h"' 'transport/shm must not include engine/compute/compute.h'
finds transport/a.c 1 '#include "transport/shm/shm.h"' 'transport must not include transport/shm/shm.h'
finds bench/rules/a.c 1 '#include "engine/master/master.h"' 'bench/rules must not include engine/master/master.h'
finds bench/a.c 1 '#include "cluster/options/options.h"' 'bench must not include cluster'
finds cluster/plan/a.c 1 '#include "engine/compute/compute.h"' 'cluster/plan must not include engine/compute/compute.h'
finds cluster/drawer/a.c 1 'int a;' 'has no line in tests/tidy/rooms.txt'
finds tests/tidy/rooms.txt "$(($(wc -l <"$(dirname "$tidy")/rooms.txt") + 1))" 'late: later' 'later has no line above'
finds engine/a.c 1 '/* ---- a ruler of one line that is longer than eighty columns ------------------ */' 'a ruler is one line'
finds engine/a.c 2 '/* A ruler\n * ------------------ */' 'fell over two lines'
finds engine/a.c 1 '/* What the cr''ew does. */' 'a word that a stranger would not know'
finds README.md 2 'Who''ever reads this.' 'a word that a stranger would not know'
finds gpu/a.cu 1 '#include "transport/ring.h"' 'gpu must not include transport/ring.h'
finds gpu/a.cuh 4 '// A.\n#ifndef A\n#define A\n#include "transport/ring.h"\n#endif' 'gpu must not include transport/ring.h'
finds gpu/a.cuh 1 '// A.\nint a;' 'include guard'
finds gpu/a.cu 1 '#include <vector>' 'no C++ library here'
finds bench/a.c 1 'clock_gettime(CLOCK_MONOTONIC, &t);' 'engine/base/clock.h has the time'
finds engine/a.c 1 'int a = m->gpu != NULL;' 'GPUs are behind struct pass_ops'
finds gpu/a.cu 1 'int a = atoi(b);' 'banned'
finds gpu/a.cu 1 'printf("x");' 'never prints'
finds gpu/a.cu 2 "int f(void)\n{\n$(yes '    ;\n' | head -n 69 | tr -d '\n')}" '71 lines'
finds tests/unit/a.cpp 2 "int f(void)\n{\n$(yes '    ;\n' | head -n 69 | tr -d '\n')}" '71 lines'
finds tests/unit/a.cpp 1 'int a; ' 'blanks'
finds engine/a.c 1 '#include "nowhere.h"' 'not in this tree'
finds engine/a.c 1 '#include <zlib.h>' 'nothing but libc'
finds engine/a.c 1 '#include <stdatomic.h>' 'atomics'
finds engine/a.c 1 '_Atomic int a;' 'atomics'
finds cluster/a.c 2 '\nint a = __atomic_load_n(&b, 5);' 'atomics'
finds tests/unit/limit.c 1001 ';' '1001 lines'
finds cluster/a.c 2 "int f(void)\n{\n$(yes '    ;\n' | head -n 69 | tr -d '\n')}" '71 lines'
for call in strcpy strcat sprintf gets atoi rand; do
    finds tests/unit/b.c 1 "int a = $call(b);" 'banned'
done
for call in printf exit abort perror; do
    finds transport/b.c 3 "/* 1 */\n/*\n2 */ $call(b);" 'never prints'
done
finds engine/b.c 1 'fprintf(stderr, "x");' 'never prints'
finds engine/b.c 1 'int a; ' 'blanks'
finds README.md 2 'text ' 'blanks'
finds engine/b.c 1 '\tint a;' 'tab'
finds engine/b.c 1 '/* TO''DO */' 'unfinished'
finds .ci/run 1 '# FIX''ME: later' 'unfinished'
finds engine/b.h 1 '#ifndef B\n#define B\n#endif' 'starts with a comment'
finds engine/b.h 1 '/* B. */\nint b;' 'include guard'
finds engine/b.h 1 '/* B. */\n#ifndef B\n#define C\n#endif' 'include guard'

[ $result -eq 0 ] && echo "every planted fault was found"
exit $result
