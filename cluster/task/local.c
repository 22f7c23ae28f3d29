/* The inner optimizers, and a plan as text. */
#include "cluster/task/local.h"

#include "cluster/options/parse.h"
#include "cluster/workloads/tensor_list.h"
#include "engine/base/text_page.h"
#include "engine/run/schedule.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the text ------------------------------------------------------------ */

static const char *const inner_names[] = {[LOCAL_SGD] = "sgd", [LOCAL_ADAMW] = "adamw"};

/* To the last bit, and short where it is. */
static void add_real(struct text_page *page, const char *key, double value)
{
    char text[32];

    (void)snprintf(text, sizeof text, "%.15g", value);
    if (strtod(text, NULL) < value || strtod(text, NULL) > value)
        (void)snprintf(text, sizeof text, "%.17g", value);
    text_add(page, " %s=%s", key, text);
}

static void add_count(struct text_page *page, const char *key, uint64_t value)
{
    text_add(page, " %s=%llu", key, (unsigned long long)value);
}

bool local_write(const struct local_plan *plan, char ret[LOCAL_TEXT_MAX])
{
    const struct gapless_schedule *s = &plan->schedule;
    struct text_page page = text_page(ret, LOCAL_TEXT_MAX);

    text_add(&page, "steps=%u inner=%s", plan->steps, inner_names[plan->inner]);
    add_real(&page, "rate", s->rate);
    add_real(&page, "momentum", plan->momentum);
    add_real(&page, "beta2", plan->beta2);
    add_real(&page, "decay", plan->decay);
    add_count(&page, "total", plan->total);
    add_count(&page, "warmup", s->warmup);
    add_real(&page, "from", s->warmup_from);
    if (s->cosine)
        add_real(&page, "cosine", s->cosine_to);
    for (uint32_t i = 0; i < s->steps_count; i++) {
        add_count(&page, "at", s->steps[i].at);
        add_real(&page, "factor", s->steps[i].factor);
    }
    return page.used + 1 < page.bytes;
}

static bool read_real(const char *text, double low, double high, double *ret,
                      struct parse_error *reason)
{
    return parse_real(text, (struct real_bounds){.low = low, .high = high}, ret,
                      reason);
}

/* "factor" belongs to the "at" before it. */
static bool read_milestone(const char *key, const char *value,
                           struct gapless_schedule *s, struct parse_error *reason)
{
    if (strcmp(key, "at") == 0) {
        if (s->steps_count == GAPLESS_STEPS_MAX)
            return parse_refuse(reason, "has more than %d milestones",
                                GAPLESS_STEPS_MAX);
        return parse_count(value, 0, UINT64_MAX, &s->steps[s->steps_count++].at,
                           reason);
    }
    if (s->steps_count == 0)
        return parse_refuse(reason, "has a factor without a milestone");
    return read_real(value, 0, 1, &s->steps[s->steps_count - 1].factor, reason);
}

static bool read_inner(const char *value, enum local_inner *ret,
                       struct parse_error *reason)
{
    for (unsigned i = 0; i < sizeof inner_names / sizeof inner_names[0]; i++)
        if (strcmp(value, inner_names[i]) == 0) {
            *ret = (enum local_inner)i;
            return true;
        }
    return parse_refuse(reason, "knows no inner optimizer '%.20s'", value);
}

/* Words that are not known are passed over, as in the rest of a job text. */
static bool read_word(const char *key, const char *value, struct local_plan *plan,
                      struct parse_error *reason)
{
    struct gapless_schedule *s = &plan->schedule;
    uint64_t steps = 0;

    if (strcmp(key, "steps") == 0) {
        if (!parse_count(value, 1, UINT32_MAX, &steps, reason))
            return false;
        plan->steps = (uint32_t)steps;
        return true;
    }
    if (strcmp(key, "inner") == 0)
        return read_inner(value, &plan->inner, reason);
    if (strcmp(key, "rate") == 0)
        return read_real(value, 0, 1e6, &s->rate, reason);
    if (strcmp(key, "momentum") == 0)
        return read_real(value, 0, 1, &plan->momentum, reason);
    if (strcmp(key, "beta2") == 0)
        return read_real(value, 0, 1, &plan->beta2, reason);
    if (strcmp(key, "decay") == 0)
        return read_real(value, 0, 1e6, &plan->decay, reason);
    if (strcmp(key, "total") == 0)
        return parse_count(value, 0, UINT64_MAX, &plan->total, reason);
    if (strcmp(key, "warmup") == 0)
        return parse_count(value, 0, UINT64_MAX, &s->warmup, reason);
    if (strcmp(key, "from") == 0)
        return read_real(value, 0, 1, &s->warmup_from, reason);
    s->cosine |= strcmp(key, "cosine") == 0;
    if (strcmp(key, "cosine") == 0)
        return read_real(value, 0, 1, &s->cosine_to, reason);
    if (strcmp(key, "at") == 0 || strcmp(key, "factor") == 0)
        return read_milestone(key, value, s, reason);
    return true;
}

int local_read(const char *text, struct local_plan *ret, struct gapless_error *error)
{
    struct local_plan plan = {.steps = 0};
    struct parse_error reason = {""};
    char copy[LOCAL_TEXT_MAX], *rest = copy;

    if (strlen(text) >= sizeof copy)
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the master's job text: local is too long");
    memcpy(copy, text, strlen(text) + 1);
    while (rest != NULL && *rest != '\0') {
        char *word = strsep(&rest, " "), *value = strchr(word, '=');

        if (value == NULL)
            continue;
        *value++ = '\0';
        if (!read_word(word, value, &plan, &reason))
            return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                     "the master's job text: local %.20s %s", word,
                                     reason.text);
    }
    if (text[0] != '\0' && plan.steps == 0)
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the master's job text: local without steps");
    if (plan.steps > 0 && schedule_check(&plan.schedule, plan.total, error) != 0)
        return GAPLESS_PROTOCOL;
    *ret = plan;
    return GAPLESS_OK;
}

/* ---- one worker ---------------------------------------------------------- */

/* Elements in a row that decay alike. */
struct stretch {
    size_t end;
    bool decays, average;
};

struct local {
    struct local_plan plan;
    size_t count;
    float *x;
    float *first;          /* v, or m */
    float *square;         /* s; NULL: sgd has none */
    double faded1, faded2; /* b1^t, b2^t */
    uint32_t stretches;
    struct stretch stretch[];
};

static void start_anew(struct local *l)
{
    memset(l->first, 0, l->count * sizeof *l->first);
    if (l->square != NULL)
        memset(l->square, 0, l->count * sizeof *l->square);
    l->faded1 = l->faded2 = 1;
}

int local_new(const struct local_plan *plan, const struct gapless_model *model,
              struct local **ret, struct gapless_error *error)
{
    struct local *l = calloc(1, sizeof *l + model->tensors_count * sizeof *l->stretch);

    if (l != NULL) {
        l->plan = *plan;
        l->stretches = model->tensors_count;
        for (uint32_t i = 0; i < l->stretches; i++) {
            l->count += tensor_list_elements(&model->tensors[i]);
            l->stretch[i] = (struct stretch){.end = l->count,
                                             .decays = model->tensors[i].dims > 1 &&
                                                       !(model->tensors[i].decay < 0),
                                             .average = model->tensors[i].average > 0};
        }
        l->x = calloc(l->count, sizeof *l->x);
        l->first = calloc(l->count, sizeof *l->first);
        if (plan->inner == LOCAL_ADAMW)
            l->square = calloc(l->count, sizeof *l->square);
    }
    if (l == NULL || l->x == NULL || l->first == NULL ||
        (plan->inner == LOCAL_ADAMW && l->square == NULL)) {
        local_free(l);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the local steps of a worker");
    }
    start_anew(l);
    *ret = l;
    return GAPLESS_OK;
}

void local_free(struct local *l)
{
    if (l == NULL)
        return;
    free(l->x);
    free(l->first);
    free(l->square);
    free(l);
}

/* ---- the optimizers ------------------------------------------------------ */

static void sgd_stretch(double momentum, double rate, const float *restrict grad,
                        float *restrict x, float *restrict v, size_t count)
{
    float mu = (float)momentum, lr = (float)rate;

    for (size_t i = 0; i < count; i++) {
        v[i] = mu * v[i] + grad[i];
        x[i] -= lr * v[i];
    }
}

/* A running average: its gradient is the way that it went. */
static void average_stretch(const float *restrict grad, float *restrict x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] -= grad[i];
}

/* The scalars of a step are computed in double and rounded once. */
struct adamw {
    float keep1, add1, keep2, add2;
    float scale; /* lr/(1 - b1^t) */
    float root;  /* 1/sqrt(1 - b2^t) */
    float decay; /* lr*decay, or 0 */
};

static void adamw_stretch(const struct adamw *k, const float *restrict grad,
                          float *restrict x, float *restrict m, float *restrict s,
                          size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float d = grad[i], size;

        m[i] = k->keep1 * m[i] + k->add1 * d;
        s[i] = k->keep2 * s[i] + k->add2 * (d * d);
        size = sqrtf(s[i]) * k->root + (float)LOCAL_EPSILON;
        x[i] -= k->scale * m[i] / size + k->decay * x[i];
    }
}

/* What a step of AdamW has for all tensors alike. */
static struct adamw adamw_of(struct local *l, double rate)
{
    const struct local_plan *p = &l->plan;

    l->faded1 *= p->momentum;
    l->faded2 *= p->beta2;
    return (struct adamw){.keep1 = (float)p->momentum,
                          .add1 = (float)(1 - p->momentum),
                          .keep2 = (float)p->beta2,
                          .add2 = (float)(1 - p->beta2),
                          .scale = (float)(rate / (1 - l->faded1)),
                          .root = (float)(1 / sqrt(1 - l->faded2))};
}

static void inner_step(struct local *l, uint64_t batch, const float *grad)
{
    const struct local_plan *p = &l->plan;
    double rate = schedule_rate(&p->schedule, p->total, batch);
    struct adamw k = {0};
    size_t from = 0;

    if (p->inner == LOCAL_ADAMW)
        k = adamw_of(l, rate);
    for (uint32_t i = 0; i < l->stretches; from = l->stretch[i++].end) {
        size_t count = l->stretch[i].end - from;

        k.decay = l->stretch[i].decays ? (float)(rate * p->decay) : 0.0F;
        if (l->stretch[i].average)
            average_stretch(grad + from, l->x + from, count);
        else if (p->inner == LOCAL_ADAMW)
            adamw_stretch(&k, grad + from, l->x + from, l->first + from,
                          l->square + from, count);
        else
            sgd_stretch(p->momentum, rate, grad + from, l->x + from, l->first + from,
                        count);
    }
}

/* False: it is not finite. */
static bool difference(const struct local *l, const float *sent, float *ret)
{
    bool finite = true;

    for (size_t i = 0; i < l->count; i++) {
        ret[i] = sent[i] - l->x[i];
        finite &= fabsf(ret[i]) <= FLT_MAX;
    }
    return finite;
}

int local_exchange(struct local *l, uint64_t batch, uint32_t steps, const float *sent,
                   local_gradient gradient, void *context, float *ret_grad,
                   double *ret_loss, struct gapless_error *error)
{
    double sum = 0.0, loss = 0.0;
    int status = GAPLESS_OK;

    memcpy(l->x, sent, l->count * sizeof *l->x);
    for (uint32_t i = 0; i < steps && status == GAPLESS_OK; i++) {
        status = gradient(context, batch + i, l->x, ret_grad, &loss, error);
        if (status != GAPLESS_OK)
            break;
        sum += loss;
        inner_step(l, batch + i, ret_grad);
    }
    if (status != GAPLESS_OK)
        return status;
    if (!difference(l, sent, ret_grad))
        start_anew(l); /* the master will drop it */
    *ret_loss = sum / steps;
    return GAPLESS_OK;
}
