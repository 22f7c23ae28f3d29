/* A master over the simulated network and whoever a test wants to connect to it. One
 * thread drives everything: whenever a client waits, the pump below is called. */
#ifndef GAPLESS_TESTS_FAR_H
#define GAPLESS_TESTS_FAR_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/master/master.h"
#include "engine/worker/observer.h"
#include "engine/worker/worker.h"
#include "tests/pace.h"
#include "transport/sim/sim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT 4099u
#define RANGES 4u
#define LONGEST 20 /* log lines kept */

static const struct gapless_tensor tensors[] = {
    {.name = "w", .dims = 2, .dim = {2048, 2}}, {.name = "b", .dims = 1, .dim = {3}}};

static struct bed {
    struct gapless_master *m;
    void (*also)(void); /* what else happens while somebody waits */
    uint64_t random;
    char log[LONGEST][640];
    int lines;
} bed;

static inline uint64_t draw(uint64_t below)
{
    bed.random = bed.random * 6364136223846793005ull + 1442695040888963407ull;
    return (bed.random >> 33) % below;
}

static inline void keep(void *context, const char *line)
{
    struct bed *b = context;

    if (b->lines < LONGEST)
        (void)snprintf(b->log[b->lines++], sizeof b->log[0], "%s", line);
}

static inline void pump(void *user)
{
    (void)user;
    if (bed.also != NULL)
        bed.also();
    else
        (void)gapless_master_run(bed.m, 0, NULL);
}

static char address[64]; /* of this test: one that fails leaves the others alone */

static inline struct gapless_master_config settings(const char *rule)
{
    static int count;

    (void)snprintf(address, sizeof address, "simnet:fault-%d", count++);
    return (struct gapless_master_config){.address = address,
                                          .model = {tensors, 2},
                                          .rule = rule,
                                          .schedule = {.rate = 0.01},
                                          .workers_max = 3,
                                          .range_elements = 1024,
                                          .block_elements = 1024,
                                          .gap_every = 1,
                                          .job = "a job",
                                          .log = keep,
                                          .log_context = &bed};
}

static inline void open_bed(const struct gapless_master_config *config)
{
    static const struct sim_link link = {
        .latency_ns = 1000, .bytes_per_ns = 2, .pass_bytes_per_ns = 5};
    struct gapless_error error = {0};

    bed = (struct bed){.random = 3};
    if (gapless_master_open(config, &bed.m, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    assert_int_equal(bed.m->layout.ranges_count, RANGES);
    sim_link_set(sim_world_of(bed.m->tp), &link);
    sim_pump_set(sim_world_of(bed.m->tp), pump, NULL);
}

static inline void close_bed(void)
{
    gapless_master_close(bed.m);
}

static inline int try_worker(struct gapless_worker **ret, struct gapless_error *error)
{
    const struct gapless_worker_config config = {.address = address,
                                                 .wait_ns = 2000000000};

    *error = (struct gapless_error){0};
    return gapless_worker_open(&config, ret, error);
}

static inline struct gapless_worker *worker(void)
{
    struct gapless_worker *w = NULL;
    struct gapless_error error;

    if (try_worker(&w, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return w;
}

static inline struct gapless_observer *observer(void)
{
    const struct gapless_observer_config config = {.address = address};
    struct gapless_observer *o = NULL;
    struct gapless_error error = {0};

    if (gapless_observer_open(&config, &o, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return o;
}

/* One update with every gradient the same. */
static inline void update(struct gapless_worker *w, float value)
{
    struct gapless_error error = {0};
    uint64_t batch;

    if (gapless_worker_pull(w, &batch, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    for (uint32_t i = 0; i < COUNT; i++)
        gapless_worker_grad(w)[i] = value;
    if (gapless_worker_push(w, 0.5, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
}

static inline bool logged(const char *a, const char *b)
{
    for (int i = 0; i < bed.lines; i++)
        if (strstr(bed.log[i], a) != NULL && strstr(bed.log[i], b) != NULL)
            return true;
    return false;
}

#endif
