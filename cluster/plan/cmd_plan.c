/* gapless plan: what a master can do for this many workers, by arithmetic, and which of
 * its terms were measured. */
#include "cluster/plan/plan.h"
#include "cluster/program/program_options.h"
#include "cluster/workloads/model.h"

#include <stdio.h>
#include <string.h>

#define PERIOD 4 /* of a run where --period is not given */

const struct plan_model plan_models[PLAN_MODELS] = {{270000, "0.27 M"},
                                                    {11200000, "11.2 M"},
                                                    {25600000, "25.6 M"},
                                                    {124000000, "124 M"},
                                                    {1000000000, "1 B"}};
const struct plan_link plan_links[PLAN_LINKS] = {
    {12.5e9, "100 Gb/s"}, {25e9, "200 Gb/s"}, {50e9, "400 Gb/s"}};

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

/* The built-in data sets' shapes, so that none has to be on this machine. */
static bool count_model(const struct settings *settings, struct plan_options *ret)
{
    static const struct {
        const char *name;
        uint32_t features;
    } sets[] = {{"fashion-mnist", 784}, {"mnist", 784}, {"cifar-10", 3072}};
    const char *data = settings->data != NULL ? settings->data : "fashion-mnist";
    struct gapless_error error = {0};
    struct model model;

    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        if (strcmp(sets[i].name, data) == 0) {
            if (model_parse(settings->model, sets[i].features, 10, &model, &error) !=
                GAPLESS_OK) {
                report_failure("plan", "--model: %s", error.text);
                return false;
            }
            ret->parameters = model.parameters;
            return true;
        }
    report_failure(
        "plan",
        "--data must be one of: fashion-mnist, mnist, cifar-10; not '%.40s'; for "
        "others give --parameters",
        data);
    return false;
}

/* --parameters, or --model with its --data: what is typed counts before what the
 * environment has. */
static bool set_parameters(const struct settings *settings, struct plan_options *ret)
{
    enum option_source number = options_source(settings, "parameters");
    enum option_source model = options_source(settings, "model");

    if (model > number)
        return count_model(settings, ret);
    ret->parameters = settings->parameters;
    if (model != OPTION_UNSET && model == number) {
        report_failure("plan", "give --parameters or --model, not both");
        return false;
    }
    if (options_source(settings, "data") == OPTION_FLAG) {
        report_failure("plan", "--data is for --model");
        return false;
    }
    return true;
}

static bool set_link(const struct settings *settings, struct plan_options *ret)
{
    ret->link = settings->link;
    if (ret->link < 0) {
        if (ret->measured.link <= 0) {
            report_failure(
                "plan", "--link measured needs a --measured gpu-acceptance.json whose "
                        "GPUDirect check ran over RDMA");
            return false;
        }
        ret->link = ret->measured.link;
        ret->gpu.link_whole = ret->cpu.link_whole = true;
    }
    if (ret->link > 0)
        return true;
    if (options_source(settings, "gpu") > OPTION_DEFAULT && ret->has_gpu) {
        report_failure("plan", "--link shm is for a master on the CPU: add --gpu none");
        return false;
    }
    ret->has_gpu = false;
    return true;
}

static bool set_rule(const char *name, struct plan_options *ret)
{
    ret->rule_all = strcmp(name, "all") == 0;
    if (!ret->rule_all)
        (void)gapless_rule_find(name, &ret->input.rule,
                                NULL); /* the option is checked */
    if (ret->rule_all || !ret->input.rule.synchronous)
        return true;
    report_failure(
        "plan",
        "%s waits for all workers at every update: there is no rate to plan; "
        "gapless simulate --rule %s computes its time",
        name, name);
    return false;
}

static bool plan_options_of(const struct settings *settings, struct plan_options *ret)
{
    struct gapless_error error = {0};

    memset(ret, 0, sizeof *ret);
    ret->input = (struct plan_input){
        .workers = settings->workers,
        .batch_s = settings->batch_time,
        .range_elements = settings->range_elements,
        .shards = settings->shards,
        .period = settings->local_steps > 0 ? settings->local_steps : 1};
    ret->json = settings->json;
    ret->gpu.gpu = true;
    (void)snprintf(ret->cpu.title, sizeof ret->cpu.title, "CPU");
    ret->cpu.bandwidth = 1e9 * settings->cpu_bandwidth;
    ret->cpu.bandwidth_given = settings->cpu_bandwidth > 0;
    plan_measured_builtin(&ret->measured);
    for (uint32_t i = 0; i < settings->measured.count; i++)
        if (plan_measured_read(settings->measured.at[i], &ret->measured, &error) !=
            GAPLESS_OK) {
            report_failure("plan", "--measured: %s", error.text);
            return false;
        }
    if (!set_rule(settings->rule, ret) || !set_gpu(settings->gpu, ret) ||
        !set_link(settings, ret) || !set_parameters(settings, ret))
        return false;
    if (settings->gpu_memory > 0)
        ret->gpu_memory = settings->gpu_memory;
    if (ret->rule_all && ret->parameters == 0 && !ret->json) {
        report_failure("plan", "--rule all needs --parameters or --model (or --json)");
        return false;
    }
    return true;
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
    /* a worker exchanges after this number of its own steps (--period, --local-steps) */
    if (rule->elastic)
        ret->input.period = PERIOD;
    plan_terms(&machine, &options->measured, rule, parameters, &ret->terms);
    plan_speeds(&machine, &ret->terms, &ret->speeds);
    plan_compute(&ret->input, &ret->speeds, &ret->result);
}

int cmd_plan(int argc, char **argv)
{
    static struct plan_options options; /* tables of speeds: too large for a stack */
    struct settings settings;
    int code;

    if (!program_options(FOR_PLAN, argc, argv, &settings, &code))
        return code;
    if (!plan_options_of(&settings, &options))
        return EXIT_MISUSE;
    if (options.json) {
        if (!plan_json(&options)) {
            report_failure("plan", "no memory");
            return EXIT_FAILED;
        }
    } else if (options.rule_all) {
        plan_show_rules(&options);
    } else if (options.parameters > 0) {
        plan_show_one(&options);
    } else {
        plan_show_table(&options);
    }
    return EXIT_DONE;
}
