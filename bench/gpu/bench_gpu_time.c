/* Time of what a GPU does: wall time over many launches back to back, with one ticket
 * at the end of each batch of them. */
#include "bench/gpu/bench_gpu.h"

#include "engine/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 5
#define BATCH_S 0.03 /* launches that are waited for together */
#define BATCH_MAX 4096
#define BLOCK 20011 /* elements; odd, so most blocks are ragged */
#define FILL_BYTES (4u << 20)

bool bg_same(double a, double b)
{
    uint64_t x, y;

    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return x == y;
}

/* This many launches; seconds of all of them, or a failure. */
static int batch(const struct bg_gpu *gpu, struct device *device, bg_launch *launch,
                 void *context, int count, double *ret, struct gapless_error *error)
{
    const struct device_ops *ops = gpu->ops;
    double began = clock_seconds();
    int status;

    for (int i = 0; i < count; i++)
        launch(context, device);
    status = ops->wait(device, ops->mark(device, DEVICE_WORK), BG_WAIT_NS, error);
    *ret = clock_seconds() - began;
    return status;
}

int bg_time(const struct bg_gpu *gpu, struct device *device, bg_launch *launch,
            void *context, double seconds, double *ret, struct gapless_error *error)
{
    double round[ROUNDS], once = 0;
    double together = seconds / ROUNDS < BATCH_S ? seconds / ROUNDS : BATCH_S;
    int status = batch(gpu, device, launch, context, 1, &once, error), count;

    if (status == GAPLESS_OK) /* the first one loads the kernel */
        status = batch(gpu, device, launch, context, 1, &once, error);
    count = once * BATCH_MAX <= together ? BATCH_MAX : (int)(together / once) + 1;
    for (int r = 0; status == GAPLESS_OK && r < ROUNDS; r++) {
        double spent = 0, one = 0;
        long launches = 0;

        while (status == GAPLESS_OK && (launches == 0 || spent < seconds / ROUNDS)) {
            status = batch(gpu, device, launch, context, count, &one, error);
            spent += one;
            launches += count;
        }
        round[r] = spent / (double)launches;
    }
    if (status == GAPLESS_OK)
        *ret = bench_median(round, ROUNDS);
    return status;
}

/* ---- the vectors of a pass ----------------------------------------------- */

uint32_t bg_blocks_of(size_t n)
{
    return (uint32_t)(n / BLOCK) + 1;
}

/* Takes a vector and fills it with numbers around 0.01, a chunk at a time. */
static int vector(struct bg_vectors *v, const float *chunk, size_t chunk_elements,
                  float **ret, struct gapless_error *error)
{
    const struct device_ops *ops = v->gpu->ops;
    void *memory = NULL;
    int status = ops->take(v->device, v->n * sizeof(float), &memory, error);

    if (status != GAPLESS_OK)
        return status;
    *ret = memory;
    for (size_t at = 0; at < v->n; at += chunk_elements) {
        size_t count = v->n - at < chunk_elements ? v->n - at : chunk_elements;

        ops->copy_in(v->device, *ret + at, chunk, count * sizeof(float));
    }
    return GAPLESS_OK;
}

static int take_vectors(struct bg_vectors *v, const float *chunk, size_t elements,
                        struct gapless_error *error)
{
    unsigned used = v->rule->reads | v->rule->writes | v->rule->measure_reads;
    int status = vector(v, chunk, elements, &v->theta, error);

    if (status == GAPLESS_OK && (used & SLOT_ALL))
        status = vector(v, chunk, elements, &v->all, error);
    if (status == GAPLESS_OK && (used & SLOT_STAT))
        status = vector(v, chunk, elements, &v->stat, error);
    if (status == GAPLESS_OK && (used & SLOT_SQUARE))
        status = vector(v, chunk, elements, &v->square, error);
    for (uint32_t i = 0; status == GAPLESS_OK && i < v->queue; i++) {
        status = vector(v, chunk, elements, &v->grad[i], error);
        if (status == GAPLESS_OK)
            status = vector(v, chunk, elements, &v->sent[i], error);
        if (status == GAPLESS_OK && (used & SLOT_OWN))
            status = vector(v, chunk, elements, &v->own[i], error);
    }
    return status;
}

static int take_blocks(struct bg_vectors *v, struct gapless_error *error)
{
    struct blocks blocks = {0};

    if (!(v->rule->flags & RULE_BLOCK))
        return GAPLESS_OK;
    v->ends = calloc(bg_blocks_of(v->n), sizeof *v->ends);
    if (v->ends == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for blocks");
    for (size_t end = 0; end < v->n;) {
        end = v->n - end < 2 * BLOCK ? v->n : end + BLOCK;
        v->ends[blocks.count++] = (uint32_t)end;
    }
    blocks.ends = v->ends;
    return v->gpu->ops->blocks_new(v->device, &blocks, &v->blocks, error);
}

int bg_vectors_open(const struct bg_gpu *gpu, struct device *device,
                    const struct rule *rule, size_t n, uint32_t queue,
                    struct bg_vectors *ret, struct gapless_error *error)
{
    size_t elements = FILL_BYTES / sizeof(float);
    float *chunk;
    int status;

    memset(ret, 0, sizeof *ret);
    ret->gpu = gpu;
    ret->device = device;
    ret->rule = rule;
    ret->n = n;
    ret->queue = queue;
    bench_scalars(rule, &ret->scalars);
    chunk = malloc(elements * sizeof *chunk);
    if (chunk == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a chunk");
    for (size_t i = 0; i < elements; i++)
        chunk[i] = 0.01f + 1e-5f * (float)(i % 97);
    status = take_vectors(ret, chunk, elements, error);
    if (status == GAPLESS_OK)
        status = take_blocks(ret, error);
    if (status == GAPLESS_OK) /* nothing on WORK may come before the fill */
        status = gpu->ops->wait(device, gpu->ops->mark(device, DEVICE_IN), BG_WAIT_NS,
                                error);
    free(chunk);
    return status;
}

void bg_vectors_close(struct bg_vectors *v)
{
    const struct device_ops *ops = v->gpu->ops;
    float *shared[] = {v->theta, v->all, v->stat, v->square};

    (void)ops->wait(v->device, ops->mark(v->device, DEVICE_WORK), BG_WAIT_NS, NULL);
    ops->blocks_free(v->device, v->blocks);
    free(v->ends);
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        if (shared[i] != NULL)
            ops->give(v->device, shared[i]);
    for (uint32_t i = 0; i < v->queue; i++) {
        float *own[] = {v->grad[i], v->sent[i], v->own[i]};

        for (size_t k = 0; k < 3; k++)
            if (own[k] != NULL)
                ops->give(v->device, own[k]);
    }
}

/* ---- launches ------------------------------------------------------------ */

static void apply(const struct bg_vectors *v, struct device *device, uint32_t count)
{
    struct device_pass pass[DEVICE_QUEUE];

    for (uint32_t i = 0; i < count; i++)
        pass[i] = (struct device_pass){.at = {.theta = v->theta,
                                              .own = v->own[i],
                                              .all = v->all,
                                              .stat = v->stat,
                                              .sent = v->sent[i],
                                              .grad = v->grad[i],
                                              .square = v->square},
                                       .scalars = v->scalars};
    if (v->rule->flags & RULE_GLOBAL)
        v->gpu->ops->measure(device, v->rule, &pass[0].at, &v->scalars, v->n,
                             DEVICE_QUEUE);
    v->gpu->ops->apply(device, v->rule, pass, count, v->blocks, v->n, 0);
}

void bg_launch_one(void *context, struct device *device)
{
    apply(context, device, 1);
}

void bg_launch_queue(void *context, struct device *device)
{
    const struct bg_vectors *v = context;

    apply(v, device, v->queue);
}

void bg_launch_finite(void *context, struct device *device)
{
    const struct bg_vectors *v = context;

    v->gpu->ops->finite(device, v->grad[0], v->n, 0);
}

void bg_launch_copy(void *context, struct device *device)
{
    const struct bg_vectors *v = context;

    v->gpu->ops->copy(device, v->grad[0], v->theta, v->n * sizeof(float));
}
