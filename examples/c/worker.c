/* One more worker for a master that runs already, here or on another machine: it brings
 * buffers of its own, as a framework would whose tensors they are.
 *
 *     cc worker.c -o worker $(pkg-config --cflags --libs gapless) -lm
 *     ./worker shm:own-model                     # beside ./own_model
 *     ./worker verbs:10.0.0.1:7471 run.token     # over RDMA, with the run's token
 */
#include <gapless/gapless.h>

#include <stdio.h>

#include "rings.h"

static float params[COUNT], grad[COUNT];

/* The run's token, which proves that we belong to it; 0 bytes: it could not be read. */
static size_t token_read(const char *path, char *ret, size_t max)
{
    FILE *file = fopen(path, "r");
    size_t bytes = file != NULL ? fread(ret, 1, max, file) : 0;

    if (file != NULL)
        fclose(file);
    while (bytes > 0 && (ret[bytes - 1] == '\n' || ret[bytes - 1] == '\r'))
        bytes--;
    return bytes;
}

int main(int argc, char **argv)
{
    struct gapless_tensor tensor = {.name = "network", .dims = 1, .dim = {COUNT}};
    struct gapless_worker_config config = {
        .address = argc > 1 ? argv[1] : "shm:own-model",
        .model = {.tensors = &tensor,
                  .tensors_count = 1}, /* refused if it is another */
        .params = params,
        .grad = grad,
    };
    struct gapless_error error = {0};
    struct gapless_worker *w = NULL;
    char token[4096];
    uint64_t batch, pushed = 0;
    double loss = 0.0;
    int status;

    if (argc > 2) {
        config.net.token = token;
        config.net.token_bytes = token_read(argv[2], token, sizeof token);
    }
    status = gapless_worker_open(&config, &w, &error);
    while (status == GAPLESS_OK &&
           (status = gapless_worker_pull(w, &batch, &error)) == GAPLESS_OK) {
        loss = rings_gradient(params, batch, grad);
        status = gapless_worker_push(w, loss, &error);
        if (status == GAPLESS_OK)
            pushed++;
        else if (status == GAPLESS_NOT_FINITE)
            status = GAPLESS_OK; /* counted and dropped: go on */
    }
    if (status != GAPLESS_STOPPED) {
        fprintf(stderr, "worker: %s\n", error.text);
        gapless_worker_close(w);
        return 1;
    }
    printf("worker %u: %llu gradients, the last with loss %.3f\n",
           gapless_worker_number(w), (unsigned long long)pushed, loss);
    gapless_worker_close(w);
    return 0;
}
