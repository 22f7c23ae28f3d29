/* A small problem for tests of the simulator: a noisy bowl of 99 parameters, and ways
 * to run it. */
#ifndef GAPLESS_TESTS_SIMULATED_H
#define GAPLESS_TESTS_SIMULATED_H

#include <gapless/gapless.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIM_COUNT 99u
#define SIM_BATCH_NS 1000000ull

static const struct gapless_tensor sim_tensors[] = {
    {.name = "w", .dims = 2, .dim = {9, 10}}, {.name = "b", .dims = 1, .dim = {9}}};

static inline uint64_t sim_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

/* Of 0.5 |params - 1|^2, with noise of the batch's own. */
static inline double sim_gradient(void *context, uint32_t thread, uint64_t batch,
                                  const float *params, float *grad)
{
    uint64_t random = batch * 2654435761u + 12345;
    double loss = 0;

    (void)context, (void)thread;
    for (uint32_t i = 0; i < SIM_COUNT; i++) {
        float noise = 0.3f * ((float)(sim_random(&random) % 2001) / 1000.0f - 1.0f);
        float off = params[i] - 1.0f;

        grad[i] = off + noise;
        loss += 0.5 * (double)(off * off);
    }
    return loss / SIM_COUNT;
}

static inline struct gapless_simulation_config
sim_config(const char *rule, uint32_t workers, uint64_t gradients)
{
    return (struct gapless_simulation_config){
        .master = {.model = {sim_tensors, 2},
                   .rule = rule,
                   .schedule = {.rate = 0.02,
                                .warmup = 20,
                                .steps_count = 1,
                                .steps = {{gradients / 2, 0.5}}},
                   .gradients = gradients,
                   .gap_every = 1},
        .workers = workers,
        .threads = 1,
        .seed = 7,
        .clock = GAPLESS_CLOCK_HOMOGENEOUS,
        .batch_ns = SIM_BATCH_NS,
        .gradient = sim_gradient,
    };
}

/* What a run leaves behind. */
struct sim_outcome {
    int status;
    struct gapless_error error;
    float params[SIM_COUNT];
    struct gapless_stats stats;
    struct gapless_simulation_stats costs;
};

static inline void sim_run(const struct gapless_simulation_config *config,
                           struct sim_outcome *ret)
{
    struct gapless_simulation *s = NULL;

    memset(ret, 0, sizeof *ret);
    ret->status = gapless_simulation_open(config, &s, &ret->error);
    if (ret->status != GAPLESS_OK)
        return;
    ret->status = gapless_simulation_run(s, 0, &ret->error);
    memcpy(ret->params, gapless_master_params(gapless_simulation_master(s)),
           sizeof ret->params);
    gapless_master_stats(gapless_simulation_master(s), &ret->stats);
    gapless_simulation_stats(s, &ret->costs);
    gapless_simulation_close(s);
}

#endif
