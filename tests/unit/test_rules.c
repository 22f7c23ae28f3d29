/* The table of rules: names, arrays, traffic; and the scalars of one update. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <gapless/gapless.h>

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#include <math.h>
#include <string.h>

#define same(x, y) same_number((double)(x), (double)(y))

static void same_number(double x, double y)
{
    if (!(fabs(x - y) <= 1e-7 * fabs(y)))
        fail_msg("%.12g is not %.12g", x, y);
}

static void names_are_found_and_unique(void **state)
{
    (void)state;
    assert_true(rules_count > 0);
    for (int i = 0; i < rules_count; i++) {
        assert_int_equal(rules[i].index, i);
        assert_ptr_equal(rules_find(rules[i].name), &rules[i]);
        assert_true(strlen(rules[i].formula) > 10 && strlen(rules[i].source) > 5);
    }
    assert_null(rules_find("dana"));
    assert_null(rules_find(""));
    assert_null(rules_find(NULL));
}

/* What the compiler does not refuse (engine/rules/compute_rules.h): state that is only
 * read, or only written, is none. */
static void every_rule_reads_and_writes_what_it_must(void **state)
{
    (void)state;
    for (int i = 0; i < rules_count; i++) {
        const struct rule *r = &rules[i];
        unsigned state_slots = SLOT_OWN | SLOT_ALL | SLOT_STAT | SLOT_SQUARE;
        assert_int_equal(r->reads & state_slots, r->writes & state_slots);
        assert_int_equal(r->measure_reads != 0,
                         (r->flags & (RULE_BLOCK | RULE_GLOBAL)) != 0);
    }
    assert_int_equal(rules_find("ssgd")->flags, RULE_ROUND);
    assert_int_equal(rules_find("dana-slim")->flags, RULE_WORKER_SLIM);
    assert_int_equal(rules_find("shared-lga-dot")->flags, RULE_BLOCK | RULE_PUBLISHED);
    assert_int_equal(rules_find("easgd")->flags, RULE_WORKER_ELASTIC);
    assert_int_equal(rules_find("eamsgd")->flags,
                     RULE_WORKER_ELASTIC | RULE_WORKER_NESTEROV);
    assert_int_equal(rules_find("dana-lga")->flags, RULE_BLOCK | RULE_SUM);
    assert_int_equal(rules_find("ga-global")->flags, RULE_GLOBAL);
    assert_int_equal(rules_find("dana-lga-adamw")->flags, RULE_BLOCK | RULE_SUM |
                                                              RULE_ADAM | RULE_HISTORY |
                                                              RULE_ROUND_SQUARE);
    assert_int_equal(rules_find("dana-lga-muon")->flags,
                     rules_find("dana-lga-adamw")->flags | RULE_MATRIX);
    assert_int_equal(rules_find("muon")->flags, RULE_ADAM | RULE_HISTORY | RULE_MATRIX);
    assert_int_equal(rules_find("ssgd-adamw")->flags,
                     RULE_ROUND | RULE_ADAM | RULE_HISTORY);
}

/* What users see of a rule follows from its row. */
static void kinds_follow_from_the_flags(void **state)
{
    struct gapless_rule rule;

    (void)state;
    for (int i = 0; i < rules_count; i++) {
        assert_int_equal(gapless_rule_at((unsigned)i, &rule), GAPLESS_OK);
        assert_true(rule.whole == ((rules[i].flags & RULE_GLOBAL) != 0));
        assert_true(rule.synchronous == ((rules[i].flags & RULE_ROUND) != 0));
        assert_true(rule.elastic == ((rules[i].flags & RULE_WORKER_ELASTIC) != 0));
        assert_true(rule.matrices == ((rules[i].flags & RULE_MATRIX) != 0));
        assert_true(rule.own_decay == ((rules[i].flags & RULE_ADAM) != 0));
        assert_true(
            rule.averages ==
            (rule.synchronous || strcmp(rules[i].momentum, "delayed_nesterov") == 0));
        assert_true(rule.slim == (strcmp(rules[i].momentum, "slim") == 0));
    }
}

/* Every element of a real is the scalar, -0 too. */
static void a_scalar_becomes_a_real(void **state)
{
    static const scalar values[] = {0, (scalar)-0.0, (scalar)1.5, (scalar)-1e-38};
    scalar got[sizeof(real) / sizeof(scalar)];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        real x = real_of(values[i]);

        memcpy(got, &x, sizeof got);
        for (unsigned j = 0; j < sizeof got / sizeof got[0]; j++)
            assert_memory_equal(&got[j], &values[i], sizeof got[j]);
    }
}

/* Reads and writes of one pass, each array counted once (four bytes an element). */
static void traffic_is_that_of_one_pass(void **state)
{
    static const struct {
        const char *name;
        unsigned vectors;
    } rows[] = {{"asgd", 4},
                {"sa-plain", 4},
                {"dana-slim", 4},
                {"dc-plain", 5},
                {"nag-asgd", 6},
                {"sa", 6},
                {"lwp", 6},
                {"multi-asgd", 6},
                {"dc-asgd", 7},
                {"ga-plain", 7},
                {"dc-asgd-a", 9},
                {"ga", 9},
                {"dana-zero", 8},
                {"dana-dc", 9},
                {"dana-ga", 11},
                {"dana-dc-a", 11},
                {"easgd", 4},
                {"eamsgd", 4},
                {"dana-lga", 9},
                {"shared-lga", 7},
                {"shared-lga-dot", 6},
                {"dana-shared", 6},
                {"adamw", 8},
                {"la-adamw", 8},
                {"ssgd-adamw", 8},
                {"lga-adamw", 9},
                {"dana-adamw", 10},
                {"dana-lga-adamw", 11},
                {"shared-lga-adamw", 9},
                {"muon", 8},
                {"muon-lga", 9},
                {"dana-lga-muon", 13}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(rules_bytes(rules_find(rows[i].name)), 4 * rows[i].vectors);
}

static void zero_means_the_default(void **state)
{
    struct settings s = {.lambda = 0.5, .horizon = -1.0};
    (void)state;
    settings_default(&s);
    same(s.rho, 0.999);
    same(s.lambda, 0.5);
    same(s.lambda_zero, 2.0);
    same(s.mean_square, 0.95);
    same(s.kappa, 10.0);
    same(s.beta2, 0.95);
    same(s.epsilon, 1e-8);
    same(s.mu, 0.95);
    same(s.rest_scale, 1.0);
    same(s.horizon, -1.0);
    assert_true(s.momentum >= 0.0 && s.momentum <= 0.0); /* taken as it is */
    assert_int_equal(s.gap_ref, GAP_REF_SENT);
}

static void scalars_are_the_scalars_of_the_formulas(void **state)
{
    struct settings s = {.momentum = 0.9, .rate_max = 0.2, .elastic = 0.3};
    struct step_context m = {.rate = 0.1, .lag = 5, .active = 4, .samples = 3};
    struct step_scalars k;
    (void)state;
    settings_default(&s);
    m.global_gap = 0.3;
    m.global_stat = 0.01;
    rules_step_scalars(rules_find("dana-ga"), &s, &m, &k);
    same(k.rate, 0.1f);
    same(k.momentum, 0.9f);
    same(k.rate_momentum, 0.09f);
    same(k.rate_horizon, 0.3f); /* T = N - 1 */
    same(k.share, 0.225f);
    same(k.keep, 0.975f);
    same(k.rate_share, 0.0225f);
    same(k.elastic, 0.3f);
    same(k.freshness, 0.2f);
    same(k.rate_max, 0.2f);
    same(k.bias, (float)(1.0 / (1.0 - 0.999 * 0.999 * 0.999)));
    same(k.rho, 0.999f);
    same(k.rho_rest, 0.001f);
    same(k.mean_square_rest, 0.05f);
    same(k.penalty,
         (float)(1.0 /
                 (1.0 + 0.3 / (0.2 * (sqrt(0.01 / (1.0 - pow(0.999, 3))) + 1e-8)))));
    assert_true(k.penalised && k.lagging && !k.alone && !k.gap_ref);
}

static void edges_of_the_scalars(void **state)
{
    struct settings s = {.momentum = 0.9, .rate_max = 0.2, .horizon = 7.0};
    struct step_context m = {.rate = 0.1, .lag = 0, .active = 1};
    struct step_scalars k;
    (void)state;
    settings_default(&s);
    s.gap_ref = GAP_REF_OWN_LOOKAHEAD;
    rules_step_scalars(rules_find("lwp"), &s, &m, &k);
    same(k.freshness, 1.0);
    same(k.penalty, 1.0);
    same(k.rate_horizon, 0.7f);
    assert_true(!k.penalised && !k.lagging && k.alone && k.gap_ref);
    /* one worker: the shared velocity is the worker's, to the bit */
    assert_memory_equal(&k.share, &k.momentum, sizeof k.share);
    assert_memory_equal(&k.keep, &k.momentum, sizeof k.keep);
    assert_memory_equal(&k.rate_share, &k.rate_momentum, sizeof k.rate_share);

    s.horizon = -1.0;
    s.rate_max =
        0.0; /* no step to measure by: Gap-Aware stays out, and divides by nothing */
    m.samples = 1000000000000ull;
    rules_step_scalars(rules_find("ga"), &s, &m, &k);
    assert_true(!k.penalised && k.rate_horizon >= 0 && k.rate_horizon <= 0);
    same(k.bias, 1.0);
    m.active = 0; /* nobody yet: as one */
    rules_step_scalars(rules_find("dana-shared"), &s, &m, &k);
    same(k.share, 0.9f);
}

static void near(double x, double y)
{
    assert_true(fabs(x - y) < 1e-7); /* rounded to float */
}

/* By Newton from above: never below the root, and as near as doubles are. */
static void roots_are_roots(void **state)
{
    static const double betas[] = {0.5, 0.9, 0.95, 0.999, 1e-6};
    (void)state;
    for (size_t i = 0; i < sizeof betas / sizeof *betas; i++)
        for (uint32_t n = 1; n <= 4096; n = n * 3 / 2 + 1)
            assert_true(fabs(rules_root(betas[i], n) - pow(betas[i], 1.0 / n)) < 1e-15);
    same(rules_root(0.95, 1), 0.95);
    same(rules_root(0.0, 7), 0.0);
}

/* Means that are corrected for their beginning as they go: of the first value it is that
 * value; and after many the weights are those of the mean itself. */
static void adam_scalars_are_those_of_the_formulas(void **state)
{
    struct settings s = {.momentum = 0.9, .decay = 0.1};
    struct step_context m = {.rate = 0.1, .lag = 3, .active = 4};
    const struct rule *rule = rules_find("dana-lga-adamw");
    double root = pow(0.95, 0.25), seen = 0.0, faded = 1.0;
    struct step_scalars k;

    (void)state;
    settings_default(&s);
    rules_step_scalars(rule, &s, &m, &k);
    same(k.square_keep, 0.0);
    same(k.round_add, 1.0);
    same(k.own_keep, 0.0);
    same(k.share_add, 1.0);
    same(k.last_momentum, 0.0);
    same(k.decay, 0.1f);
    same(k.epsilon, 1e-8f);
    same(k.rate_round, (float)(0.1 * 0.9 * 4));
    same(k.rate_reach, (float)(0.1 * (0.9 + 0.81 + 0.729))); /* T = N - 1 */
    for (int i = 0; i < 5; i++) {
        m.history = rules_step_done(&s, &m);
        m.own_updates++;
        seen = root * seen + (1.0 - root);
        faded *= pow(0.9, 0.25);
    }
    assert_int_equal(m.history.updates, 5);
    rules_step_scalars(rule, &s, &m, &k);
    same(k.last_momentum, 0.09f);
    near((double)k.round_keep, root * seen / (root * seen + 1.0 - root));
    near((double)k.own_keep, 0.9 * (1 - pow(0.9, 5)) / (1 - pow(0.9, 6)));
    near((double)k.one_keep, (double)k.own_keep);
    near((double)k.share_keep, 0.9 * (1 - faded) / (1 - 0.9 * faded));
    m.own_updates = RULES_UPDATES_JOINED;
    for (int i = 0; i < 3000; i++)
        m.history = rules_step_done(&s, &m);
    rules_step_scalars(rule, &s, &m, &k);
    same(k.own_keep, 0.9f);
    same(k.one_keep, 0.9f);
    same(k.square_keep, 0.95f);
    near((double)k.mean_keep, (3 + 0.9) / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found_and_unique),
        cmocka_unit_test(every_rule_reads_and_writes_what_it_must),
        cmocka_unit_test(kinds_follow_from_the_flags),
        cmocka_unit_test(a_scalar_becomes_a_real),
        cmocka_unit_test(traffic_is_that_of_one_pass),
        cmocka_unit_test(zero_means_the_default),
        cmocka_unit_test(scalars_are_the_scalars_of_the_formulas),
        cmocka_unit_test(edges_of_the_scalars),
        cmocka_unit_test(roots_are_roots),
        cmocka_unit_test(adam_scalars_are_those_of_the_formulas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
