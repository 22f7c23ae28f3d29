/* A worker's passes over a gradient whose parts are treated differently.
 *
 *   parts     |------- decay 0.01 -------|---- decay 0 ----|-- averages --|
 *   segments  |---- whole chunks ----|...|..|-- whole ---|.|.|-- whole --|.|
 *
 * What shares its chunk of 16 elements with another part is worked on in copies that begin in the
 * first lane, as a GPU takes it: so the bits are the same on both.
 */
#include "engine/worker/worker.h"

#include "engine/run/layout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Elements of one part: whole chunks, or less than one. */
struct segment {
    const struct wire_part *part;
    size_t at, count;
};

/* ---- which parts --------------------------------------------------------- */

static bool part_makes_sense(const struct wire_part *part, uint64_t begin,
                             uint64_t count)
{
    return part->end > begin && part->end <= count && isfinite(part->rate) &&
           part->rate > 0 && isfinite(part->decay) && part->decay >= 0 &&
           part->average >= 0 && part->average <= 1;
}

int parts_open(struct gapless_worker *w, struct gapless_error *error)
{
    const struct shared_stats *b = w->client.shared_stats;
    uint64_t parts = b->parts, at = b->parts_at, begin = 0, i;

    if (parts == 0)
        return GAPLESS_OK;
    if (parts > GAPLESS_TENSORS_MAX || at % sizeof(double) != 0 || at > b->bytes ||
        (b->bytes - at) / sizeof *w->parts < parts)
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the parts of the master at %s make no sense",
                                 w->client.address);
    w->parts = calloc((size_t)parts, sizeof *w->parts);
    if (w->parts == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the list of %llu parts",
                                 (unsigned long long)parts);
    memcpy(w->parts, shared_stats_parts(b), (size_t)parts * sizeof *w->parts);
    w->parts_count = (uint32_t)parts;
    for (i = 0; i < parts; i++) {
        if (!part_makes_sense(&w->parts[i], begin, w->client.welcome.count))
            break;
        begin = w->parts[i].end;
    }
    if (i < parts || begin != w->client.welcome.count)
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "part %llu of the master at %s makes no sense",
                                 (unsigned long long)i, w->client.address);
    return GAPLESS_OK;
}

static bool any_decays(const struct gapless_worker *w)
{
    uint32_t i;

    for (i = 0; i < w->parts_count; i++)
        if (w->parts[i].decay > 0)
            return true;
    return false;
}

/* Has the pass something to do with the part? */
static bool takes(const struct part_pass *pass, const struct wire_part *part)
{
    return pass->kind == PART_LOCAL ||
           (pass->kind == PART_AVERAGE) == (part->average > 0);
}

/* The next segment behind `at`, of part *part or a later one; false: there is none. */
static bool next_segment(const struct gapless_worker *w, size_t at, uint32_t *part,
                         struct segment *ret)
{
    size_t end, whole;

    while (*part < w->parts_count && w->parts[*part].end <= at)
        (*part)++;
    if (*part == w->parts_count)
        return false;
    end = (size_t)w->parts[*part].end;
    whole = (at + LAYOUT_LANES - 1) / LAYOUT_LANES * LAYOUT_LANES;
    if (whole == at && end - at >= LAYOUT_LANES)
        whole = end / LAYOUT_LANES * LAYOUT_LANES;
    else if (whole == at || whole > end)
        whole = end;
    *ret = (struct segment){&w->parts[*part], at, whole - at};
    return true;
}

/* ---- on this processor --------------------------------------------------- */

/* The vectors of a pass; n is a multiple of 16, and what is behind the segment is 0. */
static void pass_over(const struct gapless_worker *w, struct part_pass *pass,
                      const struct wire_part *part, float *const at[4], size_t n)
{
    const struct compute *compute = w->compute;
    float *grad = at[0], *params = at[1], *velocity = at[2], *own = at[3];
    bool averages = part->average > 0;

    switch (pass->kind) {
    case PART_NORM:
    case PART_AVERAGE:
        pass->sum += compute->norm_sq(grad, n);
        break;
    case PART_SCALE:
        compute->scale(grad, (float)pass->factor, n);
        break;
    case PART_DECAY:
        pass->sum += part->decay > 0
                         ? compute->decay(grad, params, (float)part->decay, n)
                         : compute->norm_sq(grad, n);
        break;
    case PART_SLIM:
        compute->slim(grad, velocity, (float)pass->factor, n);
        break;
    case PART_LOCAL:
        if (!compute->local(own, grad, averages ? NULL : velocity,
                            averages ? 1 : (float)(pass->rate * part->rate),
                            (float)pass->factor, n))
            pass->bad = true;
        break;
    }
}

static void pass_over_copies(const struct gapless_worker *w, struct part_pass *pass,
                             const struct segment *s, float *const vector[4])
{
    _Alignas(64) float lanes[4][LAYOUT_LANES] = {{0}};
    float *copies[4];

    for (int i = 0; i < 4; i++) {
        copies[i] = vector[i] == NULL ? NULL : lanes[i];
        if (vector[i] != NULL)
            memcpy(lanes[i], vector[i], s->count * sizeof(float));
    }
    pass_over(w, pass, s->part, copies, LAYOUT_LANES);
    for (int i = 0; i < 4; i++)
        if (vector[i] != NULL && i != 1) /* the parameters are only read */
            memcpy(vector[i], lanes[i], s->count * sizeof(float));
}

int parts_pass(struct gapless_worker *w, struct part_pass *pass,
               struct gapless_error *error)
{
    size_t at = pass->from, end = pass->end > 0 ? pass->end : w->padded;
    struct segment s;
    uint32_t part = 0;

    for (; at < end && next_segment(w, at, &part, &s); at = s.at + s.count) {
        float *const vector[4] = {w->grad + at, (float *)(uintptr_t)w->params + at,
                                  w->velocity == NULL ? NULL : w->velocity + at,
                                  w->own == NULL ? NULL : w->own + at};

        if (!takes(pass, s.part))
            continue;
        if (s.count % LAYOUT_LANES == 0)
            pass_over(w, pass, s.part, vector, s.count);
        else
            pass_over_copies(w, pass, &s, vector);
    }
    (void)error;
    return GAPLESS_OK;
}

/* ---- on a GPU ------------------------------------------------------------ */

static int segment_direct(struct gapless_worker *w, struct part_pass *pass,
                          const struct segment *s, struct gapless_error *error)
{
    struct worker_buffers *b = &w->buffers;
    float *grad = b->grad + s->at;
    int status;

    if (pass->kind == PART_SCALE)
        b->ops->scale(b->device, grad, (float)pass->factor, s->count);
    if (pass->kind == PART_SLIM)
        b->ops->slim(b->device, grad, b->velocity + s->at, (float)pass->factor,
                     s->count);
    if (pass->kind == PART_SCALE || pass->kind == PART_SLIM)
        return GAPLESS_OK;
    if (pass->kind == PART_DECAY && s->part->decay > 0)
        b->ops->decay(b->device, grad, b->params + s->at, (float)s->part->decay,
                      s->count, 0);
    else
        b->ops->norm_sq(b->device, grad, s->count, 0);
    status = buffers_wait(b, DEVICE_WORK, error);
    if (status == GAPLESS_OK)
        pass->sum += b->ops->result(b->device, 0)->value;
    return status;
}

int parts_pass_direct(struct gapless_worker *w, struct part_pass *pass,
                      struct gapless_error *error)
{
    int status = GAPLESS_OK;
    struct segment s;
    uint32_t part = 0;
    size_t at = 0;

    for (; status == GAPLESS_OK && next_segment(w, at, &part, &s); at = s.at + s.count)
        if (takes(pass, s.part))
            status = segment_direct(w, pass, &s, error);
    return status;
}

/* ---- a gradient ---------------------------------------------------------- */

int parts_prepare(struct gapless_worker *w, parts_fn *pass, double *ret_norm,
                  struct gapless_error *error)
{
    const struct wire_welcome *welcome = &w->client.welcome;
    struct part_pass norm = {.kind = PART_NORM}, averages = {.kind = PART_AVERAGE};
    struct part_pass scale = {.kind = PART_SCALE}, decay = {.kind = PART_DECAY};
    struct part_pass slim = {.kind = PART_SLIM, .factor = welcome->momentum};
    int status = pass(w, &norm, error);

    if (status == GAPLESS_OK)
        status = pass(w, &averages, error);
    if (status != GAPLESS_OK)
        return status;
    *ret_norm = sqrt(norm.sum);
    if (!isfinite(*ret_norm) || !isfinite(averages.sum))
        return GAPLESS_NOT_FINITE;
    if (welcome->clip_norm > 0 && *ret_norm > welcome->clip_norm) {
        scale.factor = welcome->clip_norm / *ret_norm;
        status = pass(w, &scale, error);
        *ret_norm = welcome->clip_norm;
    }
    if (status == GAPLESS_OK && any_decays(w)) {
        status = pass(w, &decay, error);
        *ret_norm = sqrt(decay.sum);
    }
    if (status != GAPLESS_OK)
        return status;
    if (!isfinite(*ret_norm))
        return GAPLESS_NOT_FINITE;
    return welcome->slim != 0 ? pass(w, &slim, error) : GAPLESS_OK;
}
