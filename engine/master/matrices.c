/* RULE_MATRIX: which stretches a range has, also for a GPU; and its passes on this
 * processor, stretch by stretch (a matrix, or another tensor), by as many threads as the run
 * has for it. Nothing that comes of it depends on how many.
 *
 *   matrices_ask ... matrices_begin ──> jobs, one a stretch ──> helpers, each a whole job
 *        of each range    │                    │
 *                         │ no matrix          └──> the loop, step by step (matrices_go_on)
 *                         v                                       │ the last job of a gradient
 *                       done                                      v
 *                                                            pass_applied
 *
 * So the loop never waits for products. It works on them itself where there is no helper, and
 * where every range is under way, so that nothing else could be applied: for as long as
 * SLICE_COST takes, and at most one product more. */
#include "engine/master/waiting.h"

#include "engine/base/array.h"
#include "engine/base/clock.h"
#include "engine/base/team.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#define NO_JOB UINT32_MAX
/* Operations between two looks at the transport: 0.1 ms. */
#define SLICE_COST 1e7
/* The loop looks so often for what helpers have done, without work of its own. */
#define HELPERS_NS 100000

/* A stretch of a gradient that is asked for. */
struct matrix_job {
    uint32_t range;
    uint32_t group; /* of its gradient */
    bool wrote;     /* theta and sent, or has begun to */
    uint64_t took_ns;
    struct stretch_walk walk;
};

/* What is applied together: a range of a gradient, or all of them. */
struct matrix_group {
    struct pass_work work;
    uint32_t left; /* jobs */
};

struct master_matrices {
    struct stretch *stretch; /* one for each block of the layout, as what follows */
    struct matrix_job *job;
    float *gate;
    uint32_t *asked; /* of the present gradient, until matrices_begin */
    uint32_t asked_count;
    struct team *team;
    struct matrix_scratch **scratch; /* of each thread */
    uint32_t mine;                   /* the loop's own job, begun; NO_JOB: none */
    bool at_once;                    /* all is done before matrices_begin returns */

    bool *under_way; /* by range, as what follows */
    struct matrix_group *group;
    uint32_t ranges_under_way;
    pthread_mutex_t lock; /* of `writing` */
    bool *writing;        /* its version is odd */
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
        (void)pthread_mutex_init(&m->matrices->lock, NULL);
    if (m->matrices != NULL)
        m->matrices->stretch =
            calloc(m->layout.blocks_count, sizeof *m->matrices->stretch);
    if (m->matrices == NULL || m->matrices->stretch == NULL)
        return no_memory(m, 0, 0, 1, error);
    list_stretches(m, config->decay_all);
    return GAPLESS_OK;
}

/* ---- jobs ---------------------------------------------------------------- */

/* The first that writes a range says so to observers: products may take long, and until then
 * the range is whole. */
static void write_begins(struct gapless_master *m, struct matrix_job *job)
{
    struct master_matrices *x = m->matrices;

    if (job->wrote)
        return;
    job->wrote = true;
    (void)pthread_mutex_lock(&x->lock);
    if (!x->writing[job->range])
        seq_write_begin(&shared_stats_versions(m->shared_stats)[job->range]);
    x->writing[job->range] = true;
    (void)pthread_mutex_unlock(&x->lock);
}

/* One step; true: it was the last one. */
static bool job_step(struct gapless_master *m, struct matrix_job *job,
                     struct matrix_scratch *scratch)
{
    if (stretch_walk_writes(&job->walk))
        write_begins(m, job);
    return stretch_walk_step(&job->walk, scratch);
}

static void do_job(void *context, uint32_t block, uint32_t thread)
{
    struct gapless_master *m = context;
    struct matrix_job *job = &m->matrices->job[block];
    uint64_t began = clock_ns();

    while (!job_step(m, job, m->matrices->scratch[thread]))
        continue;
    job->took_ns += clock_ns() - began;
}

/* What a range gave, in the order of its blocks. Its versions count it. */
static void range_done(struct gapless_master *m, uint32_t worker, uint32_t range)
{
    struct master_matrices *x = m->matrices;
    uint32_t first = m->layout.block_first[range], b;
    struct sums sums = {0};

    for (b = first; b < m->layout.block_first[range + 1]; b++) {
        const struct matrix_job *job = &x->job[b];
        const struct stretch *stretch = &x->stretch[b];

        sums.gap_sq += job->walk.sums.gap_sq;
        sums.gate_sum += job->walk.sums.gate_sum;
        x->gate[b] =
            (float)(job->walk.sums.gate_sum / (double)(stretch->to - stretch->from));
    }
    x->writing[range] = false;
    seq_write_end(&shared_stats_versions(m->shared_stats)[range]);
    pass_counted(m, worker, unit_first_of(m, range), &sums, &x->gate[first]);
}

static void set_under_way(struct gapless_master *m, const struct pass_work *work,
                          bool under_way)
{
    struct master_matrices *x = m->matrices;
    uint32_t first = work->range == CORE_ALL ? 0 : work->range, r;
    uint32_t end = work->range == CORE_ALL ? m->layout.ranges_count : first + 1;

    for (r = first; r < end; r++)
        x->under_way[r] = under_way;
    if (under_way)
        x->ranges_under_way += end - first;
    else
        x->ranges_under_way -= end - first;
}

static void group_done(struct gapless_master *m, const struct pass_work *work)
{
    uint32_t first = work->range == CORE_ALL ? 0 : work->range, r;

    for (r = first; r < first + work->ranges; r++)
        if (pass_of_matrices(m, unit_first_of(m, r)))
            range_done(m, work->worker, r);
}

/* True: it was the last of its gradient. */
static bool job_done(struct gapless_master *m, uint32_t block)
{
    struct master_matrices *x = m->matrices;
    struct matrix_group *group = &x->group[x->job[block].group];

    group->work.took_ns += x->job[block].took_ns;
    if (--group->left > 0)
        return false;
    group_done(m, &group->work);
    return true;
}

/* Like job_done, of what is not done at once. */
static void job_reaped(struct gapless_master *m, uint32_t block)
{
    struct master_matrices *x = m->matrices;
    struct pass_work work;

    if (!job_done(m, block))
        return;
    work = x->group[x->job[block].group].work;
    set_under_way(m, &work, false);
    waiting_freed(m, &work);
    pass_applied(m, &work);
}

/* ---- open and close ------------------------------------------------------ */

static bool take_memory(const struct gapless_master *m, uint32_t threads)
{
    struct master_matrices *x = m->matrices;
    size_t blocks = m->layout.blocks_count, ranges = m->layout.ranges_count;

    x->job = calloc(blocks, sizeof *x->job);
    x->gate = calloc(blocks, sizeof *x->gate);
    x->asked = calloc(blocks, sizeof *x->asked);
    x->under_way = calloc(ranges, sizeof *x->under_way);
    x->writing = calloc(ranges, sizeof *x->writing);
    x->group = calloc(ranges, sizeof *x->group);
    x->scratch = calloc(threads, sizeof(struct matrix_scratch *));
    return x->job != NULL && x->gate != NULL && x->asked != NULL &&
           x->under_way != NULL && x->writing != NULL && x->group != NULL &&
           x->scratch != NULL;
}

int matrices_open(struct gapless_master *m, const struct gapless_master_config *config,
                  struct gapless_error *error)
{
    uint32_t threads = config->matrix_threads > 0 ? config->matrix_threads : 1, i;
    struct master_matrices *x = m->matrices;
    size_t elements, side;

    if (x == NULL || m->passes != &pass_ops_cpu)
        return GAPLESS_OK;
    x->mine = NO_JOB;
    /* Where a simulation drives the master, time is no matter of threads. */
    x->at_once = m->external_buffers;
    x->team = team_new(threads, m->layout.blocks_count, do_job, m);
    if (x->team == NULL || !take_memory(m, threads))
        return no_memory(m, 0, 0, threads, error);
    matrices_largest(m, 0, m->layout.ranges_count, &elements, &side);
    for (i = 0; i < threads; i++) {
        x->scratch[i] = matrix_scratch_new(elements, side);
        if (x->scratch[i] == NULL)
            return no_memory(m, elements, side, threads, error);
    }
    return GAPLESS_OK;
}

void matrices_rest(struct gapless_master *m)
{
    if (m->matrices != NULL && m->matrices->team != NULL)
        team_drop(m->matrices->team);
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
    (void)pthread_mutex_destroy(&x->lock);
    free((void *)x->scratch);
    free(x->stretch);
    free(x->job);
    free(x->gate);
    free(x->asked);
    free(x->under_way);
    free(x->writing);
    free(x->group);
    free(x);
    m->matrices = NULL;
}

/* ---- passes -------------------------------------------------------------- */

bool matrices_under_way(const struct gapless_master *m, uint32_t range)
{
    const struct master_matrices *x = m->matrices;

    if (x == NULL || x->under_way == NULL)
        return false;
    return range == CORE_ALL ? x->ranges_under_way > 0 : x->under_way[range];
}

bool matrices_in(const struct gapless_master *m, uint32_t range)
{
    uint32_t b;

    if (!pass_of_matrices(m, unit_first_of(m, range)))
        return false;
    for (b = m->layout.block_first[range]; b < m->layout.block_first[range + 1]; b++)
        if (m->matrices->stretch[b].rows > 0)
            return true;
    return false;
}

void matrices_ask(struct gapless_master *m, uint32_t range, const struct arrays *at,
                  const struct step_scalars *scalars, unsigned want)
{
    struct master_matrices *x = m->matrices;
    uint32_t b;

    for (b = m->layout.block_first[range]; b < m->layout.block_first[range + 1]; b++) {
        x->job[b] = (struct matrix_job){.range = range};
        stretch_walk_begin(&x->job[b].walk, m->compute, m->rule, at, scalars,
                           &x->stretch[b], want);
        x->asked[x->asked_count++] = b;
    }
}

/* All of the gradient, by all threads, now. */
static void do_all(struct gapless_master *m)
{
    struct master_matrices *x = m->matrices;
    uint32_t left = x->asked_count, i, block;

    for (i = 0; i < x->asked_count; i++)
        team_put(x->team, x->asked[i]);
    while (left > 0) {
        if (team_take(x->team, &block))
            do_job(m, block, 0);
        else if (!team_done(x->team, true, &block))
            break;
        (void)job_done(m, block);
        left--;
    }
    assert(left == 0);
}

bool matrices_begin(struct gapless_master *m, const struct pass_work *work)
{
    struct master_matrices *x = m->matrices;
    uint32_t place = work->range == CORE_ALL ? 0 : work->range, i;
    bool any = false;

    if (x == NULL || x->asked_count == 0)
        return false;
    x->group[place] = (struct matrix_group){.work = *work, .left = x->asked_count};
    for (i = 0; i < x->asked_count; i++) {
        x->job[x->asked[i]].group = place;
        any |= x->stretch[x->asked[i]].rows > 0;
    }
    if (any && !x->at_once) {
        set_under_way(m, work, true);
        for (i = 0; i < x->asked_count; i++)
            team_put(x->team, x->asked[i]);
    } else if (any) {
        do_all(m);
    } else {
        for (i = 0; i < x->asked_count; i++) {
            do_job(m, x->asked[i], 0);
            (void)job_done(m, x->asked[i]);
        }
    }
    x->asked_count = 0;
    return any && !x->at_once;
}

/* Is it the loop's own work? */
static bool own_work(const struct gapless_master *m)
{
    const struct master_matrices *x = m->matrices;

    return x->mine != NO_JOB || team_threads(x->team) == 1 ||
           x->ranges_under_way == m->layout.ranges_count;
}

/* A slice of it; false: there was none. */
static bool work_on(struct gapless_master *m)
{
    struct master_matrices *x = m->matrices;
    double cost = 0;

    while (cost < SLICE_COST) {
        struct matrix_job *job;
        uint64_t began = clock_ns();
        bool last;

        if (x->mine == NO_JOB && !team_take(x->team, &x->mine))
            break;
        job = &x->job[x->mine];
        cost += stretch_walk_cost(&job->walk);
        last = job_step(m, job, x->scratch[0]);
        job->took_ns += clock_ns() - began;
        if (last) {
            uint32_t block = x->mine;

            x->mine = NO_JOB;
            job_reaped(m, block);
            return true; /* what follows from it comes first */
        }
    }
    return cost > 0;
}

int64_t matrices_go_on(struct gapless_master *m)
{
    struct master_matrices *x = m->matrices;
    uint32_t block;
    bool worked;

    if (!matrices_under_way(m, CORE_ALL))
        return INT64_MAX;
    worked = own_work(m) && work_on(m);
    master_drain(m);
    while (team_done(x->team, false, &block)) {
        job_reaped(m, block);
        master_drain(m);
    }
    if (!matrices_under_way(m, CORE_ALL))
        return INT64_MAX;
    return worked ? 0 : HELPERS_NS;
}

void matrices_excuse(struct gapless_master *m, uint64_t now_ns)
{
    const struct master_matrices *x = m->matrices;
    uint32_t r;

    for (r = 0; r < m->layout.ranges_count; r++)
        if (x->group[r].left > 0)
            core_excuse(m->core, x->group[r].work.worker, now_ns);
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
