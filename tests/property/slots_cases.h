/* A rule sees every slot that its halves read, in every pass, and no component looks at a
 * slot that its header does not name. Loops over the table of rules and needs no formula:
 * what is right is the components' own functions, on elements with all slots
 * loaded. Built twice: test_slots.c (float, every instruction set) and
 * test_slots_double.c. (The kernels of a GPU are held against the CPU's passes in
 * tests/gpu.) */
#ifndef GAPLESS_TESTS_SLOTS_CASES_H
#define GAPLESS_TESTS_SLOTS_CASES_H

#include "tests/property/drive.h"

#include "engine/rules/compute_rules.h"
#include "engine/compute/compute_sweep.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

enum {
    SLOTS = 9,
    EVERY_SLOT = (1 << SLOTS) - 1,
    ELEMENTS = 5008,
    WORKERS = 3,
    VARIANTS = 4
};

static const char *const slot_names[SLOTS] = {
    "theta", "own", "all", "stat", "sent", "grad", "square", "mean", "turned"};

/* Ends inside chunks of 16, on their edges, an empty block. */
static const uint32_t ends[] = {1, 2, 17, 40, 40, 64, 1031, 2049, ELEMENTS - 5};
enum {
    BLOCKS = sizeof ends / sizeof *ends
};

typedef real measure_fn(const struct element *e);
typedef scalar gate_fn(double sum, const struct step_scalars *k);

/* A row of the table, with the functions of its components. */
static const struct row {
    unsigned correction_reads, correction_writes, momentum_reads, momentum_writes;
    unsigned ahead_reads, send_reads;
    bool own_gap;
    element_fn *ahead, *correct, *move, *after, *send;
    measure_fn *measure; /* RULE_BLOCK */
    gate_fn *gate;
} rows[] = {
#define RULE(symbol, text, c, m, extra, paper)                                         \
    {.correction_reads = c##_reads,                                                    \
     .correction_writes = c##_writes,                                                  \
     .momentum_reads = m##_reads,                                                      \
     .momentum_writes = m##_writes,                                                    \
     .ahead_reads = m##_ahead_reads,                                                   \
     .send_reads = m##_reads & ~(SLOT_GRAD | SLOT_SENT),                               \
     .own_gap = rule_##symbol##_own_gap,                                               \
     .ahead = ahead_of_##symbol,                                                       \
     .correct = correct_##c,                                                           \
     .move = momentum_##m,                                                             \
     .after = after_##c,                                                               \
     .send = send_##symbol,                                                            \
     IF_BLOCK_GAP(c, .measure = measure_##c, .gate = gate_##c)},
#include "engine/rules/rules.def"
#undef RULE
};

/* ---- what a component looks at, and what it changes ---- */

static real *slot_of(struct element *e, int slot)
{
    real *const at[SLOTS] = {&e->theta, &e->own,    &e->all,  &e->stat,  &e->sent,
                             &e->grad,  &e->square, &e->mean, &e->turned};
    return at[slot];
}

static real any_real(void)
{
    number x[WIDTH];
    real ret;

    for (int i = 0; i < WIDTH; i++)
        x[i] = (number)(0.1 + drive_draw());
    memcpy(&ret, x, sizeof ret);
    return ret;
}

static struct element any_element(void)
{
    struct element ret;

    for (int s = 0; s < SLOTS; s++)
        *slot_of(&ret, s) = any_real();
    ret.ahead = any_real();
    ret.gate = any_real();
    ret.step = any_real();
    ret.raw = any_real();
    ret.decay = any_real();
    return ret;
}

/* Both references of the gap; the first update of a lone worker, and a late one. */
static void scalars_of(const struct rule *rule, int variant, double kappa,
                       struct step_scalars *ret)
{
    struct settings settings = {
        .momentum = 0.9, .rate_max = 0.1, .kappa = kappa, .elastic = 0.3, .decay = 0.1};
    struct step_context context = {.rate = 0.05, .lag = 7, .active = 8, .samples = 30};
    const struct step_history history = {0.04, 30, 0.8, 0.3, 0.5, 0.4, 2, 3};

    settings.gap_ref = variant & 1 ? GAP_REF_OWN_LOOKAHEAD : GAP_REF_SENT;
    context.global_gap = 0.3;
    context.global_stat = 0.2;
    context.history = history;
    context.own_updates = 4;
    if (variant & 2) {
        context.history = (struct step_history){0};
        context.own_updates = 0;
        context.lag = context.samples = 0;
        context.active = 1;
    }
    settings_default(&settings);
    rules_step_scalars(rule, &settings, &context, ret);
}

static bool same(const real *a, const real *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* Slot `slot` is not among those that `component` says it reads: nothing may depend on it. */
static void blind_to(const char *component, const char *function, element_fn *f,
                     int slot, unsigned writes, const struct step_scalars *k)
{
    struct element a = any_element(), b = a, before;

    *slot_of(&b, slot) = any_real();
    before = b;
    f(&a, k);
    f(&b, k);
    for (int s = 0; s < SLOTS; s++)
        if ((s != slot || writes & 1u << s) && !same(slot_of(&a, s), slot_of(&b, s)))
            fail_msg("%s_%s reads %s, and %s_reads does not name it", function,
                     component, slot_names[slot], component);
    if (!same(&a.step, &b.step) || !same(&a.ahead, &b.ahead))
        fail_msg("%s_%s reads %s, and its header does not name it", function, component,
                 slot_names[slot]);
    if (!(writes & 1u << slot) && !same(slot_of(&b, slot), slot_of(&before, slot)))
        fail_msg("%s_%s writes %s, and %s_writes does not name it", function, component,
                 slot_names[slot], component);
}

/* Changes of slots that it reads, but does not say it writes. */
static void writes_only(const char *component, const char *function, element_fn *f,
                        unsigned writes, const struct step_scalars *k)
{
    struct element e = any_element(), before = e;

    f(&e, k);
    for (int s = 0; s < SLOTS; s++)
        if (!(writes & 1u << s) && !same(slot_of(&e, s), slot_of(&before, s)))
            fail_msg("%s_%s writes %s, and %s_writes does not name it", function,
                     component, slot_names[s], component);
}

static void component_is_as_declared(const char *component, const char *function,
                                     element_fn *f, unsigned reads, unsigned writes,
                                     const struct step_scalars *k)
{
    for (int s = 0; s < SLOTS; s++)
        if (!(reads & 1u << s))
            blind_to(component, function, f, s, writes, k);
    writes_only(component, function, f, writes, k);
}

static void measure_is_as_declared(const struct rule *rule, measure_fn *measure)
{
    for (int s = 0; s < SLOTS; s++) {
        struct element a = any_element(), b = a;
        real x, y;

        *slot_of(&b, s) = any_real();
        x = measure(&a);
        y = measure(&b);
        if (!(rule->measure_reads & 1u << s) && !same(&x, &y))
            fail_msg("measure_%s reads %s, which is not loaded for it",
                     rule->correction, slot_names[s]);
    }
}

static void components_are_as_their_headers_say(void **state)
{
    (void)state;
    for (int i = 0; i < rules_count; i++)
        for (int variant = 0; variant < VARIANTS; variant++) {
            const struct row *row = &rows[i];
            unsigned loaded = row->correction_reads | SLOT_THETA | SLOT_GRAD;
            struct step_scalars k;

            scalars_of(&rules[i], variant, 0.0, &k);
            component_is_as_declared(rules[i].correction, "correct", row->correct,
                                     loaded, row->correction_writes | SLOT_GRAD, &k);
            component_is_as_declared(rules[i].correction, "after", row->after, loaded,
                                     row->correction_writes, &k);
            component_is_as_declared(rules[i].momentum, "momentum", row->move,
                                     row->momentum_reads, row->momentum_writes, &k);
            component_is_as_declared(rules[i].momentum, "look_ahead", row->send,
                                     row->send_reads, SLOT_SENT, &k);
            component_is_as_declared(rules[i].momentum, "ahead", row->ahead,
                                     row->ahead_reads, 0, &k);
            if (row->measure)
                measure_is_as_declared(&rules[i], row->measure);
        }
}

/* Both passes over a matrix. */
static void matrix_passes_are_as_their_headers_say(void **state)
{
    static const struct {
        const char *momentum;
        element_fn *gather, *turn, *send, *ahead;
        unsigned gather_reads, gather_writes, turn_reads, turn_writes;
    } passes[] = {
        {"muon", gather_muon, turn_muon, send_matrix_muon, ahead_matrix_muon,
         muon_gather_reads, muon_gather_writes, muon_turn_reads, muon_turn_writes},
        {"muon_dana", gather_muon_dana, turn_muon_dana, send_matrix_muon_dana,
         ahead_matrix_muon_dana, muon_dana_gather_reads, muon_dana_gather_writes,
         muon_dana_turn_reads, muon_dana_turn_writes}};

    const struct rule rule = {.flags = RULE_ADAM | RULE_HISTORY | RULE_MATRIX};

    (void)state;
    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++)
        for (int variant = 0; variant < VARIANTS; variant++) {
            const char *name = passes[i].momentum;
            struct step_scalars k;

            scalars_of(&rule, variant, 0.0, &k);
            k.spread = 2;
            component_is_as_declared(name, "gather", passes[i].gather,
                                     passes[i].gather_reads, passes[i].gather_writes,
                                     &k);
            component_is_as_declared(name, "turn", passes[i].turn, passes[i].turn_reads,
                                     passes[i].turn_writes, &k);
            component_is_as_declared(name, "send_matrix", passes[i].send,
                                     SLOT_THETA | (passes[i].turn_reads & SLOT_ALL),
                                     SLOT_SENT, &k);
            component_is_as_declared(name, "ahead_matrix", passes[i].ahead,
                                     passes[i].turn_reads & SLOT_OWN, 0, &k);
        }
}

/* ---- the passes, against elements with all slots ---- */

struct state {
    _Alignas(64) number array[SLOTS][ELEMENTS];
    _Alignas(64) number grad[WORKERS][ELEMENTS];
    _Alignas(64) number sent[WORKERS][ELEMENTS];
    uint16_t decays[ELEMENTS / 16];
};

static struct arrays arrays_of(struct state *s)
{
    return (struct arrays){.theta = s->array[0],
                           .own = s->array[1],
                           .all = s->array[2],
                           .stat = s->array[3],
                           .sent = s->array[4],
                           .grad = s->array[5],
                           .square = s->array[6],
                           .mean = s->array[7],
                           .turned = s->array[8],
                           .decays = s->decays};
}

static void fill(struct state *s)
{
    drive_random = 11;
    memset(s, 0, sizeof *s);
    for (size_t j = 0; j + 5 < ELEMENTS; j++) {
        for (int a = 0; a < SLOTS; a++)
            s->array[a][j] = (number)(0.01 + drive_draw());
        for (int w = 0; w < WORKERS; w++) {
            s->grad[w][j] = (number)(drive_draw() - 0.5);
            s->sent[w][j] = (number)drive_draw();
        }
        if (drive_decays(j))
            s->decays[j / 16] |= (uint16_t)(1u << j % 16);
    }
}

/* The update, vector by vector; every gate is 1. */
static void update_elements(const struct row *row, const struct arrays *at,
                            const struct step_scalars *k)
{
    _Alignas(64) number decay[WIDTH];

    for (size_t i = 0; i < ELEMENTS; i += WIDTH) {
        struct element e = element_load(at, i, EVERY_SLOT);

        if (row->own_gap && k->gap_ref)
            row->ahead(&e, k);
        e.gate = real_zero() + 1;
        for (size_t j = 0; j < WIDTH; j++)
            decay[j] = drive_decays(i + j) ? k->decay : 0;
        e.decay = lanes_load(decay);
        row->correct(&e, k);
        row->move(&e, k);
        row->after(&e, k);
        element_store(at, i, row->correction_writes | row->momentum_writes, &e);
    }
}

static void same_state(const struct state *a, const struct state *b, const char *rule,
                       const char *pass, const char *isa)
{
    for (int s = 0; s < SLOTS; s++)
        if (memcmp(a->array[s], b->array[s], sizeof a->array[s]))
            fail_msg("%s, %s on %s: %s is not what its components make of all slots",
                     rule, pass, isa, slot_names[s]);
    assert_memory_equal(a->sent, b->sent, sizeof a->sent);
}

static const struct compute *under_test;

/* With kappa so small that every gate is 1, whatever is measured. */
static void an_update_sees_every_slot(void **state)
{
    static struct state passes, elements;
    struct blocks blocks = {.ends = ends, .count = BLOCKS};

    (void)state;
    for (int i = 0; i < rules_count; i++)
        for (int variant = 0; variant < 2 * VARIANTS; variant++) {
            struct arrays at = arrays_of(&passes), there = arrays_of(&elements);
            struct step_scalars k;
            struct sums sums;

            fill(&passes);
            fill(&elements);
            scalars_of(&rules[i], variant % VARIANTS, 1e-300, &k);
            under_test->apply(&rules[i], &at, &k, &blocks, ELEMENTS,
                              variant / VARIANTS ? WANT_GAP : 0, &sums);
            update_elements(&rows[i], &there, &k);
            same_state(&passes, &elements, rules[i].name, "apply", under_test->name);
        }
}

static void a_look_ahead_sees_every_slot(void **state)
{
    static struct state passes, elements;

    (void)state;
    for (int i = 0; i < rules_count; i++) {
        struct arrays at = arrays_of(&passes), there = arrays_of(&elements);
        struct step_scalars k;

        fill(&passes);
        fill(&elements);
        scalars_of(&rules[i], 0, 0.0, &k);
        under_test->look_ahead(&rules[i], &at, &k, ELEMENTS);
        for (size_t j = 0; j < ELEMENTS; j += WIDTH) {
            struct element e = element_load(&there, j, EVERY_SLOT);
            rows[i].send(&e, &k);
            element_store(&there, j, SLOT_SENT, &e);
        }
        same_state(&passes, &elements, rules[i].name, "look_ahead", under_test->name);
    }
}

static void a_round_sees_every_slot(void **state)
{
    static struct state passes, elements;
    const number *grad[WORKERS];
    number *sent[WORKERS];

    (void)state;
    for (int i = 0; i < rules_count; i++) {
        struct arrays at = arrays_of(&passes), there = arrays_of(&elements);
        struct step_scalars k;
        struct sums sums;

        if (!(rules[i].flags & RULE_ROUND))
            continue;
        fill(&passes);
        fill(&elements);
        for (int w = 0; w < WORKERS; w++) {
            grad[w] = passes.grad[w];
            sent[w] = passes.sent[w];
        }
        scalars_of(&rules[i], 0, 0.0, &k);
        under_test->round(&rules[i], &at, &k, grad, sent, WORKERS, ELEMENTS, 0, &sums);
        for (size_t j = 0; j < ELEMENTS; j++) {
            number sum = elements.grad[0][j];
            for (int w = 1; w < WORKERS; w++)
                sum += elements.grad[w][j];
            elements.array[5][j] = (number)(1.0 / WORKERS) * sum;
        }
        update_elements(&rows[i], &there, &k);
        for (int w = 0; w < WORKERS; w++)
            memcpy(elements.sent[w], elements.array[4], sizeof elements.sent[w]);
        memcpy(elements.array[4], passes.array[4],
               sizeof elements.array[4]); /* not used */
        memcpy(elements.array[5], passes.array[5], sizeof elements.array[5]);
        same_state(&passes, &elements, rules[i].name, "round", under_test->name);
    }
}

/* The sum of the elements' gates, each from the sum over its block with all slots
 * loaded. */
static double gates_of(const struct row *row, const struct arrays *at,
                       const struct blocks *blocks, const struct step_scalars *k)
{
    static _Alignas(64) number product[ELEMENTS];
    double ret = 0.0;

    for (size_t i = 0; i < ELEMENTS; i += WIDTH) {
        struct element e = element_load(at, i, EVERY_SLOT);
        row->ahead(&e, k);
        lanes_store(product + i, row->measure(&e));
    }
    for (uint32_t b = 0, j = 0; b < blocks->count; b++) {
        double sum = blocks->dots ? -blocks->dots[b] : 0.0;
        uint32_t from = j;
        for (; j < blocks->ends[b]; j++)
            sum += (double)product[j];
        ret += (double)row->gate(sum, k) * (j - from);
    }
    return ret;
}

static void a_gate_sees_every_slot(void **state)
{
    static struct state passes;
    double dots[BLOCKS];

    (void)state;
    for (int i = 0; i < rules_count; i++) {
        struct arrays at = arrays_of(&passes);
        struct blocks blocks = {.ends = ends, .count = BLOCKS};
        struct step_scalars k;
        struct sums sums;
        double gates;

        if (!rows[i].measure)
            continue;
        fill(&passes);
        for (size_t j = 0; j < ELEMENTS; j++) /* so that gates are between 0 and 1 */
            passes.array[5][j] *= (number)-1;
        for (int b = 0; b < BLOCKS; b++)
            dots[b] = 0.25 * (b + 1);
        blocks.dots = rules[i].flags & RULE_PUBLISHED ? dots : NULL;
        scalars_of(&rules[i], 0, 1e-3, &k);
        gates = gates_of(&rows[i], &at, &blocks, &k);
        under_test->apply(&rules[i], &at, &k, &blocks, ELEMENTS, 0, &sums);
        if (!(fabs(sums.gate_sum - gates) < 1e-4 * ELEMENTS / BLOCKS))
            fail_msg("%s: the gates' sum is %.9g, not %.9g", rules[i].name,
                     sums.gate_sum, gates);
    }
}

static int slots_cases(const struct compute *compute)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(components_are_as_their_headers_say),
        cmocka_unit_test(matrix_passes_are_as_their_headers_say),
        cmocka_unit_test(an_update_sees_every_slot),
        cmocka_unit_test(a_look_ahead_sees_every_slot),
        cmocka_unit_test(a_round_sees_every_slot),
        cmocka_unit_test(a_gate_sees_every_slot),
    };
    under_test = compute;
    return cmocka_run_group_tests_name(compute->name, tests, NULL, NULL);
}

#endif
