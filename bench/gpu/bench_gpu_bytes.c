/* Bytes a parameter: what the kernel of each rule moves, beside the least that its
 * algorithm needs. Nothing here needs a GPU: both follow from tables. */
#include "bench/gpu/bench_gpu.h"

#include <stdio.h>
#include <string.h>

/* One message: the gradient in, an update, the reply out to the same worker; reads and
 * writes of vectors as long as the model. g is read and `out` written; where a rule
 * keeps what it sent, out is that vector, written once. Every other vector of the state
 * is read and written. */
static const struct bg_floor floors[] = {
    {"asgd", 2, 2, "theta; g, out"},
    {"sa-plain", 2, 2, "as asgd: the lag is a number"},
    {"dana-slim", 2, 2, "as asgd: the worker keeps the velocity"},
    {"easgd", 2, 2, "as asgd"},
    {"eamsgd", 2, 2, "as easgd: the worker keeps the velocity"},
    {"dc-plain", 3, 2, "theta, sent; g"},
    {"nag-asgd", 3, 3, "theta, v; g, out"},
    {"hb-asgd", 3, 3, "as nag-asgd"},
    {"lwp", 3, 3, "as nag-asgd"},
    {"sa", 3, 3, "as nag-asgd"},
    {"ssgd", 3, 3, "as nag-asgd, with one worker in a round"},
    {"multi-asgd", 3, 3, "theta, own; g, out"},
    {"dc-asgd", 4, 3, "theta, v, sent; g"},
    {"dc-asgd-a", 5, 4, "theta, v, s, sent; g"},
    {"ga-plain", 4, 3, "theta, s, sent; g"},
    {"ga", 5, 4, "theta, v, s, sent; g"},
    {"ga-global", 5, 3, "theta, v; g, out; theta and sent once more, before"},
    {"dana-zero", 4, 4, "theta, all, own; g, out"},
    {"dana-sa", 4, 4, "as dana-zero"},
    {"dana-dc", 5, 4, "theta, all, own, sent; g"},
    {"dana-dc-a", 6, 5, "theta, all, own, s, sent; g"},
    {"dana-ga", 6, 5, "theta, all, own, s, sent; g"},
    {"dana-ga-global", 6, 4, "as dana-zero; theta and sent once more, before"},
    {"dana-lga", 5, 4, "theta, all, own, sent; g: the gate is measured from sent"},
    {"dana-shared", 3, 3, "theta, all; g, out"},
    {"shared-lga", 4, 3, "theta, all, sent; g: the gate is measured from sent"},
    {"shared-lga-dot", 3, 3, "theta, all; g, out: the worker tells <g, sent>"},
    {"dn", 4, 4, "theta, v, b; g, out"},
    {"adamw", 4, 4, "theta, m, v; g, out"},
    {"la-adamw", 4, 4, "as adamw"},
    {"ssgd-adamw", 4, 4, "as adamw, with one worker in a round"},
    {"lga-adamw", 5, 4, "theta, m, v, sent; g: the gate is measured from sent"},
    {"dana-adamw", 5, 5, "theta, all, own, v; g, out"},
    {"dana-lga-adamw", 6, 5, "theta, all, own, v, sent; g"},
    {"shared-lga-adamw", 5, 4, "as lga-adamw"},
    {"muon", 4, 4, "a matrix: theta, m, NS(m); g, out; NS(m) is written, too"},
    {"muon-lga", 5, 4, "as muon; sent: the gate is measured from it"},
    {"dana-lga-muon", 7, 6, "a matrix: theta, all, own, m, sent, NS(m); g"},
};

const struct bg_floor *bg_floor_of(const char *rule)
{
    for (size_t i = 0; i < sizeof floors / sizeof floors[0]; i++)
        if (strcmp(floors[i].rule, rule) == 0)
            return &floors[i];
    return NULL;
}

static unsigned vectors(unsigned slots)
{
    return (unsigned)__builtin_popcount(slots);
}

unsigned bg_again_bytes(const struct rule *rule)
{
    return rule->flags & RULE_BLOCK ? 4 * vectors(rule->reads & rule->measure_reads)
                                    : 0;
}

void bg_print_bytes(void)
{
    int above = 0;

    (void)printf("bytes a parameter and gradient\n\n%-16s %6s %6s %6s %7s  %s\n",
                 "rule", "least", "kernel", "ratio", "from L2", "vectors");
    for (int i = 0; i < rules_count; i++) {
        const struct rule *rule = &rules[i];
        const struct bg_floor *floor = bg_floor_of(rule->name);
        unsigned kernel = rules_bytes(rule), least;

        if (floor == NULL) {
            (void)printf("%-16s %6s %6u %6s %7u  not derived\n", rule->name, "-",
                         kernel, "-", bg_again_bytes(rule));
            continue;
        }
        least = 4 * (floor->reads + floor->writes);
        above += kernel > least;
        (void)printf("%-16s %6u %6u %6.2f %7u  %s\n", rule->name, least, kernel,
                     (double)kernel / least, bg_again_bytes(rule), floor->row);
    }
    (void)printf(
        "\nleast    each vector of the state and each message once to or from "
        "memory\n"
        "kernel   by the table that the kernels are made from; %s\n"
        "from L2  read again by a rule with a number per block, while the block "
        "is in L2\n"
        "The check that a gradient is finite reads 4 more, the gap where it is "
        "measured 4 more\nunless `sent` is read anyway.\n",
        above == 0 ? "no rule is above the least" : "see the ratio");
}
