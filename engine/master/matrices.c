/* RULE_MATRIX: which stretches a range has, also for a GPU; and its passes on this
 * processor, stretch by stretch (a matrix, or another tensor), by as many threads as the run
 * has for it. Nothing that comes of it depends on how many. */
#include "engine/master/master.h"

#include "engine/base/array.h"
#include "engine/base/team.h"

#include <stdlib.h>

/* A stretch of a gradient that is asked for. */
struct matrix_job {
    uint32_t range;
    const struct stretch *stretch;
    struct arrays at;
    unsigned want;
    struct sums sums;
};

struct master_matrices {
    struct stretch *stretch; /* one for each block of the layout */
    struct team *team;
    struct matrix_scratch **scratch; /* of each thread */
    struct matrix_job *job;          /* of the present gradient; one for each block */
    float *gate;                     /* of each job */
    uint32_t jobs;
    struct step_scalars *scalars; /* by range */
};

/* ---- open and close ------------------------------------------------------ */

static struct stretch stretch_of(const struct layout *l, uint32_t range, uint32_t block,
                                 bool decay_all)
{
    const struct gapless_tensor *tensor = &l->tensors[l->block_tensor[block]];
    uint64_t rows = 0, cols = 0;

    (void)layout_is_matrix(tensor, &rows, &cols);
    return (struct stretch){
        .from = block == l->block_first[range] ? 0 : l->block_ends[block - 1],
        .to = l->block_ends[block],
        .rows = (uint32_t)rows,
        .cols = (uint32_t)cols,
        .pieces = l->block_pieces[block],
        .decays = layout_tensor_decays(tensor, decay_all)};
}

/* The most elements, and the largest of the smaller sides. */
void matrices_largest(const struct gapless_master *m, uint32_t first, uint32_t end,
                      size_t *ret_elements, size_t *ret_side)
{
    uint32_t b;

    *ret_elements = *ret_side = 0;
    for (b = m->layout.block_first[first]; b < m->layout.block_first[end]; b++) {
        const struct stretch *s = &m->matrices->stretch[b];

        *ret_elements = size_most(*ret_elements, (size_t)s->rows * s->cols);
        *ret_side = size_most(*ret_side, u32_least(s->rows, s->cols));
    }
}

const struct stretch *matrices_stretches(const struct gapless_master *m, uint32_t range,
                                         uint32_t *ret_count)
{
    uint32_t first = m->layout.block_first[range];

    *ret_count = m->layout.block_first[range + 1] - first;
    return &m->matrices->stretch[first];
}

static int no_memory(const struct gapless_master *m, size_t elements, size_t side,
                     uint32_t threads, struct gapless_error *error)
{
    return gapless_error_set(
        error, GAPLESS_NO_MEMORY, 0,
        "no memory for the products of rule %s: %zu MiB for each of %u threads; have "
        "fewer "
        "of them (matrix_threads, --matrix-threads)",
        m->rule->name, (elements + side * side) * 2 * sizeof(float) >> 20, threads);
}

int matrices_check(const struct gapless_master *m, struct gapless_error *error)
{
    uint64_t rows, cols;
    uint32_t i;

    if (!(m->rule->flags & RULE_MATRIX))
        return GAPLESS_OK;
    for (i = 0; i < m->layout.tensors_count; i++)
        if (layout_is_matrix(&m->layout.tensors[i], &rows, &cols))
            return GAPLESS_OK;
    return gapless_error_set(
        error, GAPLESS_INVALID, 0,
        "rule %s works on matrices, and the model has none: no tensor that is not "
        "marked "
        "has two dimensions or more and at least 2 rows and 2 columns; take %s",
        m->rule->name,
        m->rule->flags & RULE_SUM     ? "dana-lga-adamw"
        : m->rule->flags & RULE_BLOCK ? "lga-adamw"
                                      : "adamw");
}

static void list_stretches(struct gapless_master *m, bool decay_all)
{
    uint32_t r, b;

    for (r = 0; r < m->layout.ranges_count; r++)
        for (b = m->layout.block_first[r]; b < m->layout.block_first[r + 1]; b++)
            m->matrices->stretch[b] = stretch_of(&m->layout, r, b, decay_all);
}

int matrices_list(struct gapless_master *m, const struct gapless_master_config *config,
                  struct gapless_error *error)
{
    if (!(m->rule->flags & RULE_MATRIX))
        return GAPLESS_OK;
    m->matrices = calloc(1, sizeof *m->matrices);
    if (m->matrices != NULL)
        m->matrices->stretch =
            calloc(m->layout.blocks_count, sizeof *m->matrices->stretch);
    if (m->matrices == NULL || m->matrices->stretch == NULL)
        return no_memory(m, 0, 0, 1, error);
    list_stretches(m, config->decay_all);
    return GAPLESS_OK;
}

int matrices_open(struct gapless_master *m, const struct gapless_master_config *config,
                  struct gapless_error *error)
{
    uint32_t threads = config->matrix_threads > 0 ? config->matrix_threads : 1, i;
    struct master_matrices *x = m->matrices;
    size_t elements, side;

    if (x == NULL || m->passes != &pass_ops_cpu)
        return GAPLESS_OK;
    x->job = calloc(m->layout.blocks_count, sizeof *x->job);
    x->gate = calloc(m->layout.blocks_count, sizeof *x->gate);
    x->scalars = calloc(m->layout.ranges_count, sizeof *x->scalars);
    x->team = team_new(threads);
    x->scratch = calloc(threads, sizeof(struct matrix_scratch *));
    if (x->job == NULL || x->gate == NULL || x->scalars == NULL || x->team == NULL ||
        x->scratch == NULL)
        return no_memory(m, 0, 0, threads, error);
    matrices_largest(m, 0, m->layout.ranges_count, &elements, &side);
    for (i = 0; i < threads; i++) {
        x->scratch[i] = matrix_scratch_new(elements, side);
        if (x->scratch[i] == NULL)
            return no_memory(m, elements, side, threads, error);
    }
    return GAPLESS_OK;
}

void matrices_close(struct gapless_master *m)
{
    struct master_matrices *x = m->matrices;
    uint32_t i;

    if (x == NULL)
        return;
    for (i = 0; x->scratch != NULL && x->team != NULL && i < team_threads(x->team); i++)
        matrix_scratch_free(x->scratch[i]);
    team_free(x->team);
    free((void *)x->scratch);
    free(x->stretch);
    free(x->job);
    free(x->gate);
    free(x->scalars);
    free(x);
    m->matrices = NULL;
}

/* ---- passes -------------------------------------------------------------- */

void matrices_ask(struct gapless_master *m, uint32_t range, const struct arrays *at,
                  const struct step_scalars *scalars, unsigned want)
{
    struct master_matrices *x = m->matrices;
    uint32_t b;

    x->scalars[range] = *scalars;
    for (b = m->layout.block_first[range]; b < m->layout.block_first[range + 1]; b++)
        x->job[x->jobs++] = (struct matrix_job){
            .range = range, .stretch = &x->stretch[b], .at = *at, .want = want};
}

static void apply_stretch(void *context, uint32_t index, uint32_t thread)
{
    struct gapless_master *m = context;
    struct master_matrices *x = m->matrices;
    struct matrix_job *job = &x->job[index];

    stretch_apply(m->compute, m->rule, &job->at, &x->scalars[job->range], job->stretch,
                  job->want, x->scratch[thread], &job->sums);
}

void matrices_apply(struct gapless_master *m, uint32_t worker,
                    void (*done)(struct gapless_master *m, uint32_t worker,
                                 uint32_t range, const struct sums *sums,
                                 const float *gates))
{
    struct master_matrices *x = m->matrices;
    struct sums sums = {0};
    uint32_t first = 0, i; /* first: of a range */

    team_run(x->team, x->jobs, apply_stretch, m);
    for (i = 0; i < x->jobs; i++) {
        const struct matrix_job *job = &x->job[i];

        sums.gap_sq += job->sums.gap_sq;
        sums.gate_sum += job->sums.gate_sum;
        x->gate[i] = (float)(job->sums.gate_sum /
                             (double)(job->stretch->to - job->stretch->from));
        if (i + 1 < x->jobs && x->job[i + 1].range == job->range)
            continue;
        done(m, worker, job->range, &sums, &x->gate[first]);
        first = i + 1;
        sums = (struct sums){0};
    }
    x->jobs = 0;
}

double matrices_measure(struct gapless_master *m, uint32_t range,
                        const struct arrays *at, const struct step_scalars *scalars)
{
    double sum = 0;
    uint32_t b;

    for (b = m->layout.block_first[range]; b < m->layout.block_first[range + 1]; b++)
        sum +=
            stretch_measure(m->compute, m->rule, at, scalars, &m->matrices->stretch[b]);
    return sum;
}

void matrices_look_ahead(struct gapless_master *m, uint32_t range,
                         const struct arrays *at, const struct step_scalars *scalars)
{
    uint32_t b;

    for (b = m->layout.block_first[range]; b < m->layout.block_first[range + 1]; b++)
        stretch_look_ahead(m->compute, m->rule, at, scalars, &m->matrices->stretch[b]);
}
