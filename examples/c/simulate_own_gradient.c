/* A model of one's own (rings.h) with 64 simulated workers, under three rules: what would
 * asynchrony do to it? The simulator has the real master and a computed clock: every run
 * gives the same numbers to the bit.
 *
 *     cc simulate_own_gradient.c -o simulate_own_gradient \
 *         $(pkg-config --cflags --libs gapless) -lm
 *     ./simulate_own_gradient
 */
#include <gapless/gapless.h>

#include <stdio.h>

#include "rings.h"

enum {
    WORKERS = 64,
    GRADIENTS = 12000
};

/* What the simulator calls for each batch, from any of its threads. */
static double gradient(void *context, uint32_t thread, uint64_t batch,
                       const float *params, float *grad)
{
    (void)context;
    (void)thread;
    return rings_gradient(params, batch, grad);
}

static int simulate(const char *rule, const float *initial)
{
    struct gapless_tensor tensor = {.name = "network", .dims = 1, .dim = {COUNT}};
    struct gapless_simulation_config config = {
        .master = {.model = {.tensors = &tensor, .tensors_count = 1},
                   .initial = initial,
                   .rule = rule,
                   .schedule = {.rate = 0.05, .cosine = true, .cosine_to = 0.01},
                   .gradients = GRADIENTS},
        .workers = WORKERS,
        .threads = 2,
        .seed = 1,
        .clock = GAPLESS_CLOCK_HETEROGENEOUS, /* some are slower than others */
        .batch_ns = 10000000,                 /* 10 ms on average, in virtual time */
        .gradient = gradient,
    };
    struct gapless_error error = {0};
    struct gapless_simulation *simulation = NULL;
    struct gapless_simulation_stats time;
    struct gapless_stats stats;
    int status = gapless_simulation_open(&config, &simulation, &error);

    if (status == GAPLESS_OK)
        status = gapless_simulation_run(simulation, GRADIENTS, &error);
    if (status == GAPLESS_STOPPED) { /* the end of the run */
        const struct gapless_master *master = gapless_simulation_master(simulation);

        gapless_master_stats(master, &stats);
        gapless_simulation_stats(simulation, &time);
        printf("%-10s  %4.1f virtual s  mean lag %4.1f  accuracy %.1f %%\n", rule,
               (double)time.virtual_ns / 1e9, stats.lag.mean,
               rings_accuracy(gapless_master_params(master)));
    } else {
        fprintf(stderr, "%s: %s\n", rule, error.text);
    }
    gapless_simulation_close(simulation);
    return status == GAPLESS_STOPPED ? 0 : 1;
}

int main(void)
{
    const char *rules[] = {"nag-asgd", "dana-zero", "dana-ga"};
    float initial[COUNT];
    int failed = 0;

    for (int i = 0; i < COUNT; i++)
        initial[i] = rings_random((uint64_t)i);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        failed |= simulate(rules[i], initial);
    return failed;
}
