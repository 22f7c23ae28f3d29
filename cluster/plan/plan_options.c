/* The options of gapless plan. */
#include "cluster/options/parse.h"
#include "cluster/program/program.h"
#include "cluster/workloads/model.h"
#include "cluster/plan/plan.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_GPU 0 /* h100 */

const struct plan_model plan_models[PLAN_MODELS] = {{270000, "0.27 M"},
                                                    {11200000, "11.2 M"},
                                                    {25600000, "25.6 M"},
                                                    {124000000, "124 M"},
                                                    {1000000000, "1 B"}};
const struct plan_link plan_links[PLAN_LINKS] = {
    {12.5e9, "100 Gb/s"}, {25e9, "200 Gb/s"}, {50e9, "400 Gb/s"}};

void plan_help(void)
{
    (void)printf(
        "usage: gapless plan [OPTION...]\n\n"
        "What a master can do for so many workers, by arithmetic: updates a second, "
        "where it\n"
        "saturates, memory, how many masters it would take. Each term says whether it "
        "was measured.\n"
        "Without --parameters: five models over three links.\n\n"
        "  --parameters N        of the model: 25.6M, 1B, 25,600,000\n"
        "  --model NAME          or a built-in one: softmax, mlp:64, cnn:16,32\n"
        "  --data NAME           that it is for: fashion-mnist, mnist or cifar-10 "
        "[fashion-mnist]\n"
        "  --workers N           [64]\n"
        "  --batch-time TIME     a worker's time for a batch, with its unit: 120ms "
        "[100ms]\n"
        "  --link RATE           of each port, each way: 400Gb (bits), 50GB/s (bytes); "
        "shm: one\n"
        "                        machine; measured: what --measured says of GPUDirect "
        "[400Gb]\n"
        "  --rule NAME           or all [dana-ga]\n"
        "  --gpu NAME            h100, h100-pcie, h200, b200, a100, a100-40gb, l40s, a "
        "number of\n"
        "                        GB/s, or none: only the CPU [h100]\n"
        "  --gpu-memory SIZE     80GB [what that GPU has]\n"
        "  --cpu-bandwidth GB/s  of the passes of a master on the CPU [as measured, "
        "one thread]\n"
        "  --range-elements N    parameters that travel and are applied together "
        "[1Mi]\n"
        "  --shards N            masters, each with a part of the ranges and a port of "
        "its own\n"
        "                        [1, and the number needed is told]\n"
        "  --measured FILE       take figures from a file of gapless bench rules "
        "--json, bench update\n"
        "                        --json or bench gpu --accept; may be given again\n"
        "  --json                print JSON\n"
        "  -h, --help            this text\n");
}

enum {
    OPT_PARAMETERS = 256,
    OPT_MODEL,
    OPT_DATA,
    OPT_WORKERS,
    OPT_BATCH,
    OPT_LINK,
    OPT_RULE,
    OPT_GPU,
    OPT_GPU_MEMORY,
    OPT_CPU,
    OPT_RANGE,
    OPT_SHARDS,
    OPT_MEASURED,
    OPT_JSON
};

static const struct option longs[] = {
    {"parameters", required_argument, NULL, OPT_PARAMETERS},
    {"model", required_argument, NULL, OPT_MODEL},
    {"data", required_argument, NULL, OPT_DATA},
    {"workers", required_argument, NULL, OPT_WORKERS},
    {"batch-time", required_argument, NULL, OPT_BATCH},
    {"link", required_argument, NULL, OPT_LINK},
    {"rule", required_argument, NULL, OPT_RULE},
    {"gpu", required_argument, NULL, OPT_GPU},
    {"gpu-memory", required_argument, NULL, OPT_GPU_MEMORY},
    {"cpu-bandwidth", required_argument, NULL, OPT_CPU},
    {"range-elements", required_argument, NULL, OPT_RANGE},
    {"shards", required_argument, NULL, OPT_SHARDS},
    {"measured", required_argument, NULL, OPT_MEASURED},
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0}};

/* What is settled when all has been read. */
struct words {
    const char *model, *data, *gpu;
    bool link_measured;
};

static bool wrong(const char *option, const struct parse_error *reason)
{
    report_failure("plan", "--%s %s", option, reason->text);
    return false;
}

static const char *rule_name_at(const void *context, unsigned index)
{
    struct gapless_rule rule;

    (void)context;
    return gapless_rule_at(index, &rule) == GAPLESS_OK ? rule.name : NULL;
}

static bool set_rule(const char *text, struct plan_options *ret)
{
    const char *near;

    ret->rule_all = strcmp(text, "all") == 0;
    if (ret->rule_all || gapless_rule_find(text, &ret->input.rule, NULL) == GAPLESS_OK)
        return true;
    near = parse_nearest(text, rule_name_at, NULL);
    report_failure("plan",
                   "--rule knows no rule '%.40s'%s%s%s; gapless rules lists them", text,
                   near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                   near != NULL ? "'?" : "");
    return false;
}

static const char *gpu_name_at(const void *context, unsigned index)
{
    (void)context;
    if (plan_gpu_at(index) != NULL)
        return plan_gpu_at(index)->name;
    return index > 0 && plan_gpu_at(index - 1) != NULL ? "none" : NULL;
}

static bool set_gpu(const char *text, struct plan_options *ret)
{
    static const struct real_bounds bounds = {1, 1e5, false, false};
    struct parse_error reason;
    const char *near;
    double gb;

    ret->has_gpu = strcmp(text, "none") != 0;
    if (!ret->has_gpu)
        return true;
    for (unsigned i = 0; plan_gpu_at(i) != NULL; i++) {
        const struct plan_gpu *gpu = plan_gpu_at(i);

        if (strcmp(gpu->name, text) != 0)
            continue;
        ret->gpu.bandwidth = gpu->bandwidth;
        ret->gpu_memory = gpu->memory;
        (void)snprintf(ret->gpu.title, sizeof ret->gpu.title, "%s", gpu->title);
        return true;
    }
    if (parse_real(text, bounds, &gb, &reason)) {
        ret->gpu.bandwidth = 1e9 * gb;
        ret->gpu.bandwidth_given = true;
        ret->gpu_memory = 0;
        (void)snprintf(ret->gpu.title, sizeof ret->gpu.title, "GPU of %.4g GB/s", gb);
        return true;
    }
    near = parse_nearest(text, gpu_name_at, NULL);
    report_failure(
        "plan",
        "--gpu knows h100, h100-pcie, h200, b200, a100, a100-40gb, l40s, a number of "
        "GB/s, or none; not '%.40s'%s%s%s",
        text, near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
        near != NULL ? "'?" : "");
    return false;
}

static bool set_cpu(const char *text, struct plan_options *ret)
{
    static const struct real_bounds bounds = {0.1, 1e5, false, false};
    struct parse_error reason;
    double gb;

    if (!parse_real(text, bounds, &gb, &reason))
        return wrong("cpu-bandwidth", &reason);
    ret->cpu.bandwidth = 1e9 * gb;
    ret->cpu.bandwidth_given = true;
    return true;
}

static bool set_count(const char *option, const char *text, uint64_t high,
                      uint64_t *ret)
{
    struct parse_error reason;

    return parse_count(text, 1, high, ret, &reason) || wrong(option, &reason);
}

static bool set_measured(const char *path, struct plan_options *ret)
{
    struct gapless_error error = {0};

    if (plan_measured_read(path, &ret->measured, &error) == GAPLESS_OK)
        return true;
    report_failure("plan", "--measured: %s", error.text);
    return false;
}

static bool set_parameters(const char *text, struct plan_options *ret)
{
    struct parse_error reason;

    (void)snprintf(ret->parameters_text, sizeof ret->parameters_text, "%s", text);
    return plan_parse_parameters(text, &ret->parameters, &reason) ||
           wrong("parameters", &reason);
}

static bool set_link(const char *text, struct plan_options *ret, struct words *words)
{
    struct parse_error reason;

    words->link_measured = strcmp(text, "measured") == 0;
    (void)snprintf(ret->link_text, sizeof ret->link_text, "%s", text);
    return words->link_measured || plan_parse_link(text, &ret->link, &reason) ||
           wrong("link", &reason);
}

static bool set_batch(const char *text, struct plan_options *ret)
{
    struct parse_error reason;

    return plan_parse_time(text, &ret->input.batch_s, &reason) ||
           wrong("batch-time", &reason);
}

static bool set_memory(const char *text, double *ret)
{
    struct parse_error reason;

    return plan_parse_bytes(text, ret, &reason) || wrong("gpu-memory", &reason);
}

/* One option. False: wrong, and it was said. */
static bool take(int option, double *memory, struct plan_options *ret,
                 struct words *words)
{
    uint64_t count = 0;

    switch (option) {
    case OPT_PARAMETERS:
        return set_parameters(optarg, ret);
    case OPT_MODEL:
        words->model = optarg;
        return true;
    case OPT_DATA:
        words->data = optarg;
        return true;
    case OPT_WORKERS:
        if (!set_count("workers", optarg, GAPLESS_WORKERS_MAX, &count))
            return false;
        ret->input.workers = (uint32_t)count;
        return true;
    case OPT_SHARDS:
        if (!set_count("shards", optarg, PLAN_SHARDS_MAX, &count))
            return false;
        ret->input.shards = (uint32_t)count;
        return true;
    case OPT_RANGE:
        return set_count("range-elements", optarg, GAPLESS_ELEMENTS_MAX,
                         &ret->input.range_elements);
    case OPT_BATCH:
        return set_batch(optarg, ret);
    case OPT_LINK:
        return set_link(optarg, ret, words);
    case OPT_RULE:
        return set_rule(optarg, ret);
    case OPT_GPU:
        words->gpu = optarg;
        return set_gpu(optarg, ret);
    case OPT_GPU_MEMORY:
        return set_memory(optarg, memory);
    case OPT_CPU:
        return set_cpu(optarg, ret);
    case OPT_MEASURED:
        return set_measured(optarg, ret);
    case OPT_JSON:
        ret->json = true;
        return true;
    default:
        report_failure("plan", "'gapless plan --help' lists the options");
        return false;
    }
}

/* The built-in data sets' shapes, so that none has to be on this machine. */
static bool count_model(const struct words *words, struct plan_options *ret)
{
    static const struct {
        const char *name;
        uint32_t features;
    } sets[] = {{"fashion-mnist", 784}, {"mnist", 784}, {"cifar-10", 3072}};
    const char *data = words->data != NULL ? words->data : "fashion-mnist";
    struct gapless_error error = {0};
    struct model model;

    if (ret->parameters > 0 || words->model == NULL) {
        if (words->model == NULL && words->data == NULL)
            return true;
        report_failure("plan", words->model != NULL
                                   ? "say --parameters or --model, not both"
                                   : "--data is for --model");
        return false;
    }
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        if (strcmp(sets[i].name, data) == 0) {
            if (model_parse(words->model, sets[i].features, 10, &model, &error) !=
                GAPLESS_OK) {
                report_failure("plan", "--model: %s", error.text);
                return false;
            }
            ret->parameters = model.parameters;
            (void)snprintf(ret->parameters_text, sizeof ret->parameters_text, "%.20s",
                           words->model);
            return true;
        }
    report_failure(
        "plan",
        "--data must be one of: fashion-mnist, mnist, cifar-10; not '%.40s'; for "
        "others say --parameters",
        data);
    return false;
}

static bool settle(const struct words *words, double memory, struct plan_options *ret)
{
    if (words->link_measured) {
        if (ret->measured.link <= 0) {
            report_failure(
                "plan", "--link measured needs a --measured gpu-acceptance.json whose "
                        "GPUDirect check ran over RDMA");
            return false;
        }
        ret->link = ret->measured.link;
        ret->gpu.link_whole = ret->cpu.link_whole = true;
    }
    if (!ret->rule_all && strcmp(ret->input.rule.name, "ssgd") == 0) {
        report_failure(
            "plan", "ssgd waits for all workers at every update: there is no rate to "
                    "plan; gapless simulate --rule ssgd computes its time");
        return false;
    }
    if (words->gpu != NULL && ret->has_gpu && ret->link <= 0) {
        report_failure("plan", "--link shm is for a master on the CPU: say --gpu none");
        return false;
    }
    if (ret->link <= 0)
        ret->has_gpu = false;
    if (memory > 0)
        ret->gpu_memory = memory;
    return count_model(words, ret);
}

enum plan_outcome plan_options_read(int argc, char **argv, struct plan_options *ret)
{
    struct words words = {0};
    double memory = 0;
    int option;

    memset(ret, 0, sizeof *ret);
    ret->input = (struct plan_input){
        .workers = 64, .batch_s = 0.1, .range_elements = 1u << 20, .period = 1};
    ret->gpu.gpu = true;
    plan_measured_builtin(&ret->measured);
    (void)snprintf(ret->cpu.title, sizeof ret->cpu.title, "CPU");
    if (!set_rule("dana-ga", ret) || !set_gpu(plan_gpu_at(DEFAULT_GPU)->name, ret) ||
        !set_link("400Gb", ret, &words))
        return PLAN_WRONG;
    optind = 1;
    while ((option = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
        if (option == 'h') {
            plan_help();
            return PLAN_HELPED;
        }
        if (!take(option, &memory, ret, &words))
            return PLAN_WRONG;
    }
    if (optind < argc) {
        report_failure("plan",
                       "'%.60s' is not an option; 'gapless plan --help' lists them",
                       argv[optind]);
        return PLAN_WRONG;
    }
    return settle(&words, memory, ret) ? PLAN_GO : PLAN_WRONG;
}

void plan_case_of(const struct plan_options *options, const struct gapless_rule *rule,
                  uint64_t parameters, double link, bool gpu, struct plan_case *ret)
{
    struct plan_machine machine = gpu ? options->gpu : options->cpu;

    machine.link = link;
    ret->input = options->input;
    ret->input.rule = *rule;
    ret->input.parameters = parameters;
    ret->input.memory = gpu ? options->gpu_memory : 0;
    ret->input.whole = strstr(rule->name, "-global") != NULL;
    /* easgd, eamsgd: a worker exchanges after so many of its own steps (--period) */
    ret->input.period = strncmp(rule->name, "ea", 2) == 0 ? 4 : 1;
    plan_terms(&machine, &options->measured, rule, parameters, &ret->terms);
    plan_speeds(&machine, &ret->terms, &ret->speeds);
    plan_compute(&ret->input, &ret->speeds, &ret->result);
}
