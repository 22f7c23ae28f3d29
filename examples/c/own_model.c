/* A master and four workers that train a model of one's own, on data of one's own: rings.h
 * has both. More workers may join meanwhile: see worker.c.
 *
 *     cc own_model.c -o own_model $(pkg-config --cflags --libs gapless) -lm
 *     ./own_model [ADDRESS]
 */
#include <gapless/gapless.h>

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rings.h"

enum {
    WORKERS = 4,
    GRADIENTS = 20000
};

/* One worker: reads parameters, writes a gradient, until the master says that it is over. */
static int work(const char *address)
{
    struct gapless_worker_config config = {.address = address};
    struct gapless_error error = {0};
    struct gapless_worker *w = NULL;
    uint64_t batch;
    int status = gapless_worker_open(&config, &w, &error);

    while (status == GAPLESS_OK &&
           (status = gapless_worker_pull(w, &batch, &error)) == GAPLESS_OK) {
        const float *params = gapless_worker_params(w);
        double loss = rings_gradient(params, batch, gapless_worker_grad(w));

        status = gapless_worker_push(w, loss, &error);
        if (status == GAPLESS_NOT_FINITE) /* counted and dropped: go on */
            status = GAPLESS_OK;
    }
    gapless_worker_close(w);
    if (status != GAPLESS_STOPPED)
        fprintf(stderr, "worker: %s\n", error.text);
    return status == GAPLESS_STOPPED ? 0 : 1;
}

/* Serves until all gradients are in, and shows every now and then how good the model is. */
static int serve(const char *address)
{
    float initial[COUNT];
    struct gapless_tensor tensor = {.name = "network", .dims = 1, .dim = {COUNT}};
    struct gapless_master_config config = {
        .address = address,
        .model = {.tensors = &tensor, .tensors_count = 1},
        .initial = initial,
        .rule = "dana-ga",
        .schedule = {.rate = 0.02, .cosine = true, .cosine_to = 0.01},
        .gradients = GRADIENTS,
        .workers_expected = WORKERS,
    };
    struct gapless_error error = {0};
    struct gapless_master *master = NULL;
    struct gapless_stats stats;
    int status;

    for (int i = 0; i < COUNT; i++)
        initial[i] = rings_random((uint64_t)i);
    status = gapless_master_open(&config, &master, &error);
    while (status == GAPLESS_OK) {
        status = gapless_master_run(master, 250000000, &error); /* ns */
        gapless_master_stats(master, &stats);
        printf("%6llu gradients  loss %.3f  accuracy %.1f %%\n",
               (unsigned long long)stats.gradients, stats.loss,
               rings_accuracy(gapless_master_params(master)));
    }
    gapless_master_close(master);
    if (status != GAPLESS_STOPPED)
        fprintf(stderr, "master: %s\n", error.text);
    return status == GAPLESS_STOPPED ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *address = argc > 1 ? argv[1] : "shm:own-model";
    int failed;

    for (int i = 0; i < WORKERS; i++)
        if (fork() == 0)
            return work(address);
    failed = serve(address);
    for (int status; wait(&status) > 0;)
        failed |= status != 0;
    return failed;
}
