/* One velocity at the master, sent without look-ahead. (Polyak 1964) */
#ifndef GAPLESS_MOMENTA_HEAVY_BALL_H
#define GAPLESS_MOMENTA_HEAVY_BALL_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_heavy_ball "v = gamma*v + g; theta -= rate*v; send theta"
#define AHEAD_heavy_ball NOTHING_AHEAD
enum {
    heavy_ball_reads = SLOT_THETA | SLOT_ALL | SLOT_GRAD,
    heavy_ball_writes = SLOT_THETA | SLOT_ALL | SLOT_SENT,
    heavy_ball_flags = 0,
    heavy_ball_settings = SETTING_MOMENTUM,
    heavy_ball_ahead_reads = 0
};

/* What a worker is given. */
RULE_FN real look_ahead_heavy_ball(const struct element *e,
                                   const struct step_scalars *k)
{
    (void)k;
    return e->theta;
}

/* The part of it that is the worker's own. */
RULE_FN real ahead_heavy_ball(const struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
    return real_zero();
}

RULE_FN void momentum_heavy_ball(struct element *e, const struct step_scalars *k)
{
    e->all = k->momentum * e->all + e->grad;
    e->step = e->all;
    e->theta -= k->rate * e->step;
    e->sent = look_ahead_heavy_ball(e, k);
}

#endif
