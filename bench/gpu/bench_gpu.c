/* gapless bench gpu: bytes of every rule's kernel beside the least possible, and on a
 * GPU how fast it is; --accept: everything that has to hold on new hardware. */
#include "bench/gpu/bench_gpu.h"

#include <gapless/gapless.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the GPU ------------------------------------------------------------- */

static bool is_fake(const char *name)
{
    for (; *name != '\0'; name++)
        if (strncasecmp(name, "fake", 4) == 0)
            return true;
    return false;
}

static int gpu_open(const struct bench_gpu_config *options, struct bg_gpu *ret,
                    struct gapless_error *error)
{
    uint32_t numbers[DEVICE_MAX], count = 0;
    int status = device_plugin(&ret->plugin, error);

    if (status == GAPLESS_OK)
        status = device_choose(ret->plugin, options->device, numbers, &count, error);
    if (status == GAPLESS_OK && count != 1)
        status = gapless_error_set(error, GAPLESS_INVALID, 0,
                                   "--device %.60s: one GPU at a time, as in cuda:1",
                                   options->device);
    if (status != GAPLESS_OK)
        return status;
    ret->ops = ret->plugin->device;
    status = ret->ops->facts(numbers[0], &ret->facts, error);
    ret->fake = status == GAPLESS_OK && is_fake(ret->facts.name);
    return status;
}

static int write_json(const struct bg_run *run, json_t *rows)
{
    json_t *root = json_pack(
        "{s:s,s:b,s:s,s:O}", "benchmark", "gpu", "fake", run->gpu.fake, "statistic",
        "median of five rounds of launches back to back", "results", rows);

    bench_machine(root);
    (void)json_object_set_new(root, "gpu", bg_facts_json(&run->gpu));
    return bench_write_json("bench gpu", run->options->json, root) ? 0 : 1;
}

static int table(const struct bench_gpu_config *options, const struct bg_gpu *gpu)
{
    struct bg_run run = {.options = options, .gpu = *gpu};
    struct gapless_error error = {0};
    json_t *rows = json_array();
    int missing = 0, status;

    (void)printf("\nGPU %u: %s (%s)%s\n", gpu->facts.number, gpu->facts.name,
                 gpu->facts.bus, gpu->fake ? "; fake device: not a measurement" : "");
    status = bg_rules(&run, rows, NULL, true, &missing, &error);
    (void)printf(
        "\nof copy     bytes a second, beside those of a copy inside of the "
        "GPU\n"
        "8 together  a gradient of eight that one pass applies, against alone\n"
        "ssgd's pass is that of nag-asgd\n");
    if (status != GAPLESS_OK)
        (void)fprintf(stderr, "gapless bench gpu: %s\n", error.text);
    if (status == GAPLESS_OK && options->json != NULL && write_json(&run, rows) != 0)
        status = GAPLESS_SYSTEM;
    json_decref(rows);
    return status == GAPLESS_OK ? 0 : 1;
}

int bench_gpu(const struct bench_gpu_config *options)
{
    struct gapless_error error = {0};
    struct bg_gpu gpu = {0};
    int status;

    if (!options->accept)
        bg_print_bytes();
    if (options->bytes_only)
        return 0;
    (void)fflush(stdout);
    status = gpu_open(options, &gpu, &error);
    if (status != GAPLESS_OK) {
        (void)fprintf(stderr, "gapless bench gpu: %s\n", error.text);
        return status == GAPLESS_INVALID ? 2 : 1;
    }
    return options->accept ? bg_accept(options, &gpu) : table(options, &gpu);
}

unsigned bench_rule_bytes(const char *rule)
{
    const struct rule *found = rules_find(rule);

    return found != NULL ? rules_bytes(found) : 0;
}
