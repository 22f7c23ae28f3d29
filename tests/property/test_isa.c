/* Every instruction set of this machine has the same bits: all rules, both references
 * of the gap, with and without telemetry, ragged blocks, and all the passes beside
 * them; and so has every way to go over memory. Then what must hold bit by bit on each of them: telemetry changes nothing,
 * padding stays 0, a penalty never enlarges a gradient. */
#include "tests/property/drive.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

enum {
    SLOTS = 7,
    N_MAX = 5008,
    WORKERS = 3
};

static const size_t lengths[] = {16, 32, 1024, 1040, 2064, N_MAX};

/* Ends inside chunks, on their edges, single elements, an empty block. */
static const uint32_t ends_all[] = {1,   2,   3,    16,   17,   40,   40,  64,
                                    700, 701, 1023, 1031, 2000, 2049, 5003};

struct state {
    _Alignas(64) number array[SLOTS][N_MAX];
    _Alignas(64) number extra[WORKERS][N_MAX];
    struct sums sums;
    double returned;
    double dots[32];
    uint16_t decays[N_MAX / 16];
};

static struct arrays arrays_of(struct state *s)
{
    struct arrays ret = {.theta = s->array[0],
                         .own = s->array[1],
                         .all = s->array[2],
                         .stat = s->array[3],
                         .sent = s->array[4],
                         .grad = s->array[5],
                         .square = s->array[6],
                         .decays = s->decays};
    return ret;
}

/* Numbers of many sizes; `stat` and `square` are means of squares; the last elements are
 * padding; weight decay is for all of a chunk, for none, or for some. */
static void fill(struct state *s, size_t n, uint64_t seed)
{
    memset(s, 0, sizeof *s);
    drive_random = seed;
    for (int a = 0; a < SLOTS + WORKERS; a++)
        for (size_t j = 0; j + 5 < n; j++) {
            double x = (drive_draw() - 0.5) * exp2(drive_draw() * 12.0 - 8.0);
            if (a < SLOTS)
                s->array[a][j] = (number)(a == 3 || a == 6 ? x * x : x);
            else
                s->extra[a - SLOTS][j] = (number)x;
        }
    for (size_t c = 0; c < n / 16; c++)
        s->decays[c] = (uint16_t)(c % 3 == 0   ? 0xffff
                                  : c % 3 == 1 ? 0
                                               : drive_draw() * 0x10000);
}

static struct blocks blocks_of(uint32_t *ends, size_t n)
{
    struct blocks ret = {.ends = ends};
    for (size_t i = 0; i < sizeof ends_all / sizeof *ends_all; i++)
        if (ends_all[i] < n - 5)
            ends[ret.count++] = ends_all[i];
    ends[ret.count++] = (uint32_t)n - 5;
    return ret;
}

static void scalars_of(const struct rule *rule, int variant, struct step_scalars *ret)
{
    struct settings settings = {
        .momentum = 0.9, .rate_max = 0.1, .kappa = 0.02, .elastic = 0.3, .decay = 0.1};
    struct step_context context = {.rate = 0.05, .lag = 7, .active = 8, .samples = 30};
    context.history = (struct step_history){0.04, 30, 0.8, 0.3, 0.5, 0.4, 2, 3};
    context.own_updates = 4;
    settings.gap_ref = variant & 1 ? GAP_REF_OWN_LOOKAHEAD : GAP_REF_SENT;
    context.global_gap = 0.3;
    context.global_stat = 0.2;
    if (variant & 2) { /* the first update of a lone worker */
        context.lag = context.samples = context.own_updates = 0;
        context.history = (struct step_history){0};
        context.active = 1;
    }
    settings_default(&settings);
    rules_step_scalars(rule, &settings, &context, ret);
}

static void apply(const struct compute *c, const struct rule *rule, int variant,
                  size_t n, unsigned want, struct state *s)
{
    uint32_t ends[32];
    struct blocks blocks = blocks_of(ends, n);
    struct arrays at = arrays_of(s);
    struct step_scalars scalars;
    scalars_of(rule, variant, &scalars);
    s->returned = c->measure(rule, &at, &scalars, n);
    c->dots(at.grad, at.sent, &blocks, n, s->dots);
    blocks.dots = s->dots;
    c->apply(rule, &at, &scalars, &blocks, n, want, &s->sums);
}

static void same_state(const struct state *a, const struct state *b, const char *what,
                       const char *isa, size_t n)
{
    if (memcmp(a, b, sizeof *a))
        fail_msg("%s on %s, %zu elements: other bits", what, isa, n);
}

static void every_rule_has_the_same_bits(void **state)
{
    const struct compute *const *all = compute_cpu_all();
    static struct state first, other;
    (void)state;
    for (int i = 0; i < rules_count; i++)
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
            for (int variant = 0; variant < 8; variant++) {
                unsigned want = variant & 4 ? WANT_GAP : 0;
                fill(&first, lengths[l], 17 + (uint64_t)variant);
                apply(all[0], &rules[i], variant & 3, lengths[l], want, &first);
                for (int c = 1; all[c]; c++) {
                    fill(&other, lengths[l], 17 + (uint64_t)variant);
                    apply(all[c], &rules[i], variant & 3, lengths[l], want, &other);
                    same_state(&first, &other, rules[i].name, all[c]->name, lengths[l]);
                }
            }
}

/* How a pass goes over memory: with every way, and with all of them at once. */
static void ways_change_no_bit(void **state)
{
    static const unsigned ways[] = {WAY_WOVEN, WAY_ASK, WAY_PAST,
                                    WAY_WOVEN | WAY_ASK | WAY_PAST};
    const struct compute *const *all = compute_cpu_all();
    static struct state plain, other;
    (void)state;
    for (int c = 0; all[c]; c++)
        for (int i = 0; i < rules_count; i++)
            for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
                for (int variant = 0; variant < 8; variant++) {
                    unsigned want = variant & 4 ? WANT_GAP : 0;
                    fill(&plain, lengths[l], 29 + (uint64_t)variant);
                    apply(all[c], &rules[i], variant & 3, lengths[l], want, &plain);
                    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
                        fill(&other, lengths[l], 29 + (uint64_t)variant);
                        apply(all[c], &rules[i], variant & 3, lengths[l],
                              want | ways[w], &other);
                        same_state(&plain, &other, rules[i].name, all[c]->name,
                                   lengths[l]);
                    }
                }
}

static bool measures_finite(const struct compute *c, const struct rule *rule, size_t n,
                            struct state *s)
{
    struct arrays at = arrays_of(s);
    struct step_scalars scalars;
    scalars_of(rule, 0, &scalars);
    return isfinite(c->measure(rule, &at, &scalars, n)) != 0;
}

/* What the gate of a whole gradient is made of is finite only if every element is, also
 * where nothing has moved: the master relies on it. */
static void a_measure_shows_what_is_not_finite(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    const struct compute *const *all = compute_cpu_all();
    static struct state s;
    (void)state;
    for (int c = 0; all[c]; c++)
        for (int i = 0; i < rules_count; i++)
            for (int moved = 0; moved < 2; moved++) {
                const size_t n = 1040;
                if (!(rules[i].flags & RULE_BLOCK) || !(rules[i].flags & RULE_ADAM))
                    continue;
                fill(&s, n, 7);
                for (int a = 0; a < 5 && !moved; a++)
                    memset(s.array[a], 0, sizeof s.array[a]);
                assert_true(measures_finite(all[c], &rules[i], n, &s));
                for (size_t j = 0; j < 3 * (n - 5); j++) {
                    number *g = &s.array[5][j / 3], good = *g;
                    *g = (number)bad[j % 3];
                    assert_false(measures_finite(all[c], &rules[i], n, &s));
                    *g = good;
                }
            }
}

/* Everything that is not apply, one after another on the same numbers. */
static void others(const struct compute *c, const struct rule *rule, size_t n,
                   struct state *s)
{
    struct arrays at = arrays_of(s);
    const number *grad[WORKERS] = {s->array[5], s->extra[0], s->extra[1]};
    number *sent[WORKERS] = {s->array[4], s->extra[2], s->array[3]};
    struct step_scalars scalars;
    scalars_of(rule, 0, &scalars);
    c->look_ahead(rule, &at, &scalars, n);
    if (rule->flags & RULE_ROUND)
        c->round(rule, &at, &scalars, grad, sent, WORKERS, n, WANT_GAP, &s->sums);
    s->returned += c->decay(s->array[5], s->array[0], (number)0.01, n);
    s->returned += c->norm_sq(s->extra[0], n);
    c->scale(s->extra[0], (number)0.7, n);
    c->slim(s->extra[1], s->extra[2], (number)0.9, n);
    s->returned += c->local(s->extra[0], s->extra[1], NULL, (number)0.1, 0, n);
    s->returned +=
        c->local(s->extra[0], s->extra[1], s->extra[2], (number)0.1, (number)0.9, n);
    c->approach(s->extra[0], s->extra[2], (number)0.3, n);
    s->returned += c->finite(s->extra[1], n);
    c->forget(rule, &at, n);
    c->resum(s->array[2], grad, WORKERS, n);
}

static void the_other_passes_have_the_same_bits(void **state)
{
    const struct compute *const *all = compute_cpu_all();
    static struct state first, other;
    (void)state;
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (int i = 0; i < rules_count; i++) {
            if (rules[i].flags & (RULE_GLOBAL | RULE_BLOCK) ||
                rules[i].reads & SLOT_STAT)
                continue; /* a round is of gradients as they come */
            fill(&first, lengths[l], 5);
            others(all[0], &rules[i], lengths[l], &first);
            for (int c = 1; all[c]; c++) {
                fill(&other, lengths[l], 5);
                others(all[c], &rules[i], lengths[l], &other);
                same_state(&first, &other, "another pass", all[c]->name, lengths[l]);
            }
        }
}

static void telemetry_changes_nothing(void **state)
{
    const struct compute *const *all = compute_cpu_all();
    static struct state with, without, before;
    (void)state;
    for (int c = 0; all[c]; c++)
        for (int i = 0; i < rules_count; i++) {
            double gap_sq = 0.0;
            fill(&before, N_MAX, 3);
            with = without = before;
            apply(all[c], &rules[i], 0, N_MAX, WANT_GAP, &with);
            apply(all[c], &rules[i], 0, N_MAX, 0, &without);
            for (size_t j = 0; j < N_MAX; j++) {
                double moved = (double)before.array[0][j] - (double)before.array[4][j];
                gap_sq += moved * moved;
            }
            assert_true(fabs(with.sums.gap_sq / gap_sq - 1.0) <
                        4e-6); /* 64 half-ulps */
            assert_true(without.sums.gap_sq >= 0.0 && without.sums.gap_sq <= 0.0);
            without.sums.gap_sq = with.sums.gap_sq;
            same_state(&with, &without, rules[i].name, "with telemetry", N_MAX);
            for (int a = 0; a < SLOTS; a++)
                for (size_t j = N_MAX - 5; j < N_MAX; j++)
                    assert_int_equal(fpclassify(with.array[a][j]), FP_ZERO);
        }
}

/* E12: Gap-Aware shrinks an element and keeps its sign; with rate 1 and theta 0 the
 * corrected gradient can be read off theta. */
static void gap_aware_only_shrinks(void **state)
{
    static struct state s;
    const struct rule *rule = rules_find("ga-plain");
    struct settings settings = {.rate_max = 0.1};
    struct step_context context = {.rate = 1.0, .lag = 3, .active = 4, .samples = 50};
    struct step_scalars scalars;
    (void)state;
    settings_default(&settings);
    rules_step_scalars(rule, &settings, &context, &scalars);
    fill(&s, N_MAX, 11);
    memset(s.array[0], 0, sizeof s.array[0]);
    struct arrays at = arrays_of(&s);
    compute_cpu()->apply(rule, &at, &scalars, NULL, N_MAX, 0, &s.sums);
    for (size_t j = 0; j < N_MAX - 5; j++) {
        double before = (double)s.array[5][j], after = -(double)s.array[0][j];
        assert_true(fabs(after) <= fabs(before) && after * before > 0.0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_has_the_same_bits),
        cmocka_unit_test(ways_change_no_bit),
        cmocka_unit_test(a_measure_shows_what_is_not_finite),
        cmocka_unit_test(the_other_passes_have_the_same_bits),
        cmocka_unit_test(telemetry_changes_nothing),
        cmocka_unit_test(gap_aware_only_shrinks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
