/* What tensors have of their own, rate, decay and average, as far as it is not a matter of a
 * pass: what cannot be, and what workers are to know. */
#include "engine/master/master.h"

#include <float.h>

int own_check(const struct gapless_master *m, const struct gapless_master_config *c,
              struct gapless_error *error)
{
    bool in_gradient = !(m->rule->flags & RULE_ADAM);
    uint32_t i;

    if (m->layout.moved == 0)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "every tensor of the model is a running average: there "
            "is nothing to train");
    for (i = 0; i < m->layout.tensors_count; i++) {
        const struct gapless_tensor *t = &m->layout.tensors[i];
        double rate = layout_rate(t) * schedule_peak(&c->schedule);

        if (t->average > 0 && master_publishes(m))
            return gapless_error_set(
                error, GAPLESS_INVALID, 0,
                "rule %s keeps no copy of what a worker read, so that tensor '%s' "
                "cannot "
                "be a running average: take shared-lga, which keeps one",
                m->rule->name, t->name);
        if (t->decay > 0 && in_gradient && c->local_steps > 0)
            return gapless_error_set(
                error, GAPLESS_INVALID, 0,
                "with local steps a worker hands in a difference, to which no weight "
                "decay is added: leave that of tensor '%s' at 0, not %g, and decay in "
                "the local steps",
                t->name, t->decay);
        if (!(rate <= (double)FLT_MAX) || (float)rate <= 0)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "tensor '%s' has a rate of %g, which is 0 or "
                                     "too large as a 32-bit float",
                                     t->name, rate);
    }
    return GAPLESS_OK;
}

/* A tensor as a worker takes it. */
static struct wire_part part_of(const struct gapless_master *m,
                                const struct gapless_tensor *tensor)
{
    struct wire_part ret = {.rate = 1, .average = tensor->average};

    if (tensor->average > 0)
        return ret;
    if (m->rule->flags & RULE_WORKER_ELASTIC)
        ret.rate = layout_rate(tensor);
    if (!(m->rule->flags & RULE_ADAM))
        ret.decay = tensor->decay > 0   ? tensor->decay
                    : tensor->decay < 0 ? 0
                                        : m->weight_decay;
    return ret;
}

static bool same(double x, double y)
{
    return x <= y && x >= y;
}

static bool alike(const struct wire_part *a, const struct wire_part *b)
{
    return same(a->rate, b->rate) && same(a->decay, b->decay) &&
           same(a->average, b->average);
}

uint32_t own_parts(const struct gapless_master *m, struct wire_part *ret)
{
    const struct gapless_tensor plain = {0};
    struct wire_part all = part_of(m, &plain), part = all;
    uint32_t count = 0, i;
    uint64_t end = 0;
    bool any = false;

    for (i = 0; i < m->layout.tensors_count; i++) {
        struct wire_part next = part_of(m, &m->layout.tensors[i]);

        any = any || !alike(&next, &all);
        if (i > 0 && !alike(&next, &part)) {
            part.end = end;
            if (ret != NULL)
                ret[count] = part;
            count++;
        }
        part = next;
        end += layout_elements(&m->layout.tensors[i]);
    }
    part.end = end;
    if (ret != NULL)
        ret[count] = part;
    return any ? count + 1 : 0;
}
