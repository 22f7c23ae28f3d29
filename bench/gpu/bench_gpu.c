/* gapless bench gpu: bytes of every rule's kernel beside the least possible, and on a
 * GPU how fast it is; --accept: everything that has to hold on new hardware. */
#include "bench/gpu/bench_gpu.h"

#include <gapless/gapless.h>

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS 60.0
#define SECONDS_MAX 3600.0

static void usage(FILE *to)
{
    (void)fprintf(
        to,
        "usage: gapless bench gpu [OPTION...]\n\n"
        "Bytes that each rule's kernel moves, beside the least possible (needs no "
        "GPU), "
        "and on a\n"
        "GPU how long it takes and how near that is to the speed of its memory. With "
        "--accept, all\n"
        "that has to hold on new hardware, in order: bits, sanitizer, bandwidth, "
        "gpudirect, soak,\n"
        "latency, runs, kill; see docs/hardware-acceptance.md.\n\n"
        "  --device cuda:N   which GPU (default: the first)\n"
        "  --bytes           only the table of bytes\n"
        "  --rule LIST       only these rules\n"
        "  --elements LIST   of a vector, at most 4 (default 11200000,25600000)\n"
        "  --seconds S       for all timings, about (default 60)\n"
        "  --json FILE       also write the timings as JSON\n"
        "  --accept          run the checks; writes DIR/gpu-acceptance.json\n"
        "  --only LIST       only these checks\n"
        "  --quick           small sizes: does it work at all?\n"
        "  --out DIR         (default .)\n"
        "  --rdma ADDR       the network card's address, for gpudirect, soak and kill "
        "(default: of\n"
        "                    the one RDMA-capable interface; kill then stays on shared "
        "memory)\n"
        "  --help\n\n"
        "Exit code: 0 all that ran passed, 1 not, or there is no GPU, 2 misuse.\n");
}

static int wrong(const char *option, const char *text, const char *what)
{
    (void)fprintf(stderr, "gapless bench gpu: --%s %s: %s\n", option, text, what);
    return -1;
}

/* ---- options ------------------------------------------------------------- */

static int parse_rules(const char *text, struct bg_options *ret)
{
    memset(ret->chosen, 0, sizeof ret->chosen);
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        char name[64];
        const struct rule *rule;

        (void)snprintf(name, sizeof name, "%.*s", (int)length, text);
        rule = rules_find(name);
        if (rule == NULL)
            return wrong("rule", name, "there is none of that name (gapless rules)");
        ret->chosen[rule->index] = true;
        text += length;
        text += *text == ',';
    }
    return 0;
}

static int parse_only(const char *text, struct bg_options *ret)
{
    memset(ret->only, 0, sizeof ret->only);
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        int name = 0;

        while (name < BG_CHECKS && (strlen(bg_names[name]) != length ||
                                    strncmp(bg_names[name], text, length) != 0))
            name++;
        if (name == BG_CHECKS)
            return wrong("only", text,
                         "of bits, sanitizer, bandwidth, gpudirect, soak, latency, "
                         "runs, kill");
        ret->only[name] = true;
        text += length;
        text += *text == ',';
    }
    return 0;
}

static int parse_elements(const char *text, struct bg_options *ret)
{
    ret->sizes = 0;
    do {
        char *end;
        unsigned long long size = strtoull(text, &end, 10);

        if (!isdigit((unsigned char)*text) || (*end != '\0' && *end != ',') ||
            size < 16 || size > 1ull << 31 || ret->sizes == BG_SIZES_MAX)
            return wrong("elements", text, "16 to 2147483648 each, at most 4 of them");
        ret->elements[ret->sizes++] = (size_t)size;
        text = *end == ',' ? end + 1 : NULL;
    } while (text != NULL);
    return 0;
}

static int parse_seconds(const char *text, struct bg_options *ret)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value > 0) || !(value <= SECONDS_MAX))
        return wrong("seconds", text, "a number above 0, at most 3600");
    ret->seconds = value;
    return 0;
}

static const struct option longs[] = {{"device", required_argument, NULL, 'd'},
                                      {"bytes", no_argument, NULL, 'b'},
                                      {"rule", required_argument, NULL, 'r'},
                                      {"rules", required_argument, NULL, 'r'},
                                      {"elements", required_argument, NULL, 'e'},
                                      {"seconds", required_argument, NULL, 's'},
                                      {"json", required_argument, NULL, 'j'},
                                      {"accept", no_argument, NULL, 'a'},
                                      {"only", required_argument, NULL, 'o'},
                                      {"quick", no_argument, NULL, 'q'},
                                      {"out", required_argument, NULL, 'O'},
                                      {"rdma", required_argument, NULL, 'R'},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

static int take(int option, struct bg_options *ret)
{
    switch (option) {
    case 'd':
        ret->device = optarg;
        return 0;
    case 'b':
        ret->bytes_only = true;
        return 0;
    case 'r':
        return parse_rules(optarg, ret);
    case 'e':
        return parse_elements(optarg, ret);
    case 's':
        return parse_seconds(optarg, ret);
    case 'j':
        ret->json = optarg;
        return 0;
    case 'a':
        ret->accept = true;
        return 0;
    case 'o':
        return parse_only(optarg, ret);
    case 'q':
        ret->quick = true;
        return 0;
    case 'O':
        ret->out = optarg;
        return 0;
    case 'R':
        ret->rdma = optarg;
        return 0;
    default:
        (void)fprintf(stderr, "gapless bench gpu --help lists the options\n");
        return -1;
    }
}

/* 0: go on; 1: help was asked for; -1: wrong, and it was said. */
static int parse(int argc, char **argv, struct bg_options *ret)
{
    bool only = false, elements = false;
    int c;

    *ret = (struct bg_options){.device = "cuda", .out = ".", .seconds = SECONDS};
    memset(ret->chosen, 1, (size_t)rules_count);
    memset(ret->only, 1, sizeof ret->only);
    optind = 1;
    while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
        if (c == 'h')
            return 1;
        only = only || c == 'o';
        elements = elements || c == 'e';
        if (take(c, ret) != 0)
            return -1;
    }
    if (optind < argc) {
        (void)fprintf(
            stderr, "gapless bench gpu: '%.60s' is not an option; --help lists them\n",
            argv[optind]);
        return -1;
    }
    if (!ret->accept && (only || ret->quick || ret->rdma != NULL))
        return wrong("accept", "is missing",
                     "--only, --quick and --rdma are for --accept");
    if (ret->accept && ret->json != NULL)
        return wrong("json", ret->json, "--accept writes DIR/gpu-acceptance.json");
    if (!elements && ret->quick)
        (void)parse_elements("4096", ret);
    else if (!elements)
        (void)parse_elements("11200000,25600000", ret);
    if (ret->quick && ret->seconds >= SECONDS)
        ret->seconds = 1.0;
    return 0;
}

/* ---- the GPU ------------------------------------------------------------- */

static bool is_fake(const char *name)
{
    for (; *name != '\0'; name++)
        if (strncasecmp(name, "fake", 4) == 0)
            return true;
    return false;
}

static int gpu_open(const struct bg_options *options, struct bg_gpu *ret,
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
    int failed;

    bench_machine(root);
    (void)json_object_set_new(root, "gpu", bg_facts_json(&run->gpu));
    failed = json_dump_file(root, run->options->json, JSON_INDENT(1)) != 0;
    json_decref(root);
    if (failed)
        (void)fprintf(stderr, "gapless bench gpu: cannot write %s: %s\n",
                      run->options->json, strerror(errno));
    return failed;
}

static int table(const struct bg_options *options, const struct bg_gpu *gpu)
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

int bench_gpu(int argc, char **argv, const struct bench_network *network)
{
    struct bg_options options;
    struct gapless_error error = {0};
    struct bg_gpu gpu = {0};
    int status = parse(argc, argv, &options);

    if (status != 0) {
        if (status > 0)
            usage(stdout);
        return status > 0 ? 0 : 2;
    }
    options.network = network;
    if (!options.accept)
        bg_print_bytes();
    if (options.bytes_only)
        return 0;
    (void)fflush(stdout);
    status = gpu_open(&options, &gpu, &error);
    if (status != GAPLESS_OK) {
        (void)fprintf(stderr, "gapless bench gpu: %s\n", error.text);
        return status == GAPLESS_INVALID ? 2 : 1;
    }
    return options.accept ? bg_accept(&options, &gpu) : table(&options, &gpu);
}

unsigned bench_rule_bytes(const char *rule)
{
    const struct rule *found = rules_find(rule);

    return found != NULL ? rules_bytes(found) : 0;
}
