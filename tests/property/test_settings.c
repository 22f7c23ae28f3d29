/* Which settings a rule reads, as its components say, is true: another value changes the
 * parameters of a run of a rule that reads it, and of no other not a bit. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/property/simulated.h"

#include <stdbool.h>

#define GRADIENTS 120u

struct change {
    const char *name;
    unsigned setting;
    void (*make)(struct gapless_master_config *c);
};

#define CHANGE(name, ...)                                                              \
    static void name(struct gapless_master_config *c)                                  \
    {                                                                                  \
        __VA_ARGS__;                                                                   \
    }
CHANGE(momentum, c->momentum = 0.7)
CHANGE(kappa, c->kappa = 1e-3)
CHANGE(lambda, c->lambda = 1.5)
CHANGE(horizon, c->horizon = 9)
CHANGE(elastic, c->elastic = 0.5)
CHANGE(period, c->elastic_period = 2)
CHANGE(beta2, c->beta2 = 0.5)
CHANGE(epsilon, c->epsilon = 0.1)
CHANGE(decay, c->decay = 0.7)
CHANGE(decay_all, c->decay_all = true)
CHANGE(rest_scale, c->rest_scale = 0.5)
CHANGE(gap_ref, c->gap_ref = GAPLESS_GAP_OWN_LOOKAHEAD)
CHANGE(scale_rate, c->ssgd_scale_rate = true)

static const struct change changes[] = {
    {"momentum", GAPLESS_SETS_MOMENTUM, momentum},
    {"kappa", GAPLESS_SETS_KAPPA, kappa},
    {"lambda", GAPLESS_SETS_LAMBDA, lambda},
    {"horizon", GAPLESS_SETS_HORIZON, horizon},
    {"elastic", GAPLESS_SETS_ELASTIC, elastic},
    {"period", GAPLESS_SETS_ELASTIC, period},
    {"beta2", GAPLESS_SETS_ADAM, beta2},
    {"epsilon", GAPLESS_SETS_ADAM, epsilon},
    {"decay", GAPLESS_SETS_ADAM, decay},
    {"decay_all", GAPLESS_SETS_ADAM, decay_all},
    {"rest_scale", GAPLESS_SETS_MATRIX, rest_scale},
    {"gap_ref", GAPLESS_SETS_GAP_REF, gap_ref},
    {"scale_rate", GAPLESS_SETS_SCALE_RATE, scale_rate},
};
#define CHANGES (sizeof changes / sizeof changes[0])

static void run(const char *rule, const struct change *change, struct sim_outcome *ret)
{
    struct gapless_simulation_config config = sim_config(rule, 4, GRADIENTS);

    if (change != NULL)
        change->make(&config.master);
    sim_run(&config, ret);
    if (ret->status != GAPLESS_STOPPED)
        fail_msg("%s: %s", rule, ret->error.text);
}

static void a_rule_reads_what_it_says(void **state)
{
    static struct sim_outcome as_is, changed;
    unsigned read = 0, all = 0;
    struct gapless_rule rule;

    (void)state;
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        run(rule.name, NULL, &as_is);
        for (unsigned c = 0; c < CHANGES; c++) {
            bool same;

            run(rule.name, &changes[c], &changed);
            same = memcmp(as_is.params, changed.params, sizeof as_is.params) == 0;
            if (same == ((rule.settings & changes[c].setting) != 0))
                fail_msg("rule %s %s %s", rule.name,
                         same ? "does not read" : "reads, and does not say so,",
                         changes[c].name);
            read |= same ? 0 : changes[c].setting;
            all |= changes[c].setting;
        }
        assert_int_equal(rule.settings & ~all, 0);
    }
    assert_int_equal(read, all); /* each is read by some rule */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rule_reads_what_it_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
