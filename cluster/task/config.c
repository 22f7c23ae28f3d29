/* Settings to the engine's terms. */
#include "cluster/task/config.h"

#include "cluster/program/program.h"
#include "engine/base/array.h"
#include "engine/base/machine.h"
#include "engine/base/text_page.h"
#include "engine/run/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MATRIX_THREADS_MAX 256u /* of the engine */

const char *const config_names[] = {
    "data",           "model",       "batch",           "seed",
    "rule",           "lr",          "momentum",        "warmup",
    "steps",          "schedule",    "kappa",           "gate",
    "beta2",          "epsilon",     "decay",           "decay-all",
    "lambda",         "horizon",     "gap-ref",         "clip-norm",
    "weight-decay",   "drop-lag",    "ssgd-scale-rate", "epochs",
    "workers",        "workers-max", "range-elements",  "gap-every",
    "block-elements", "elastic",     "period",          "local-steps",
    "adapt-steps",    "inner",       "inner-lr",        "inner-momentum",
    "inner-beta2",    "inner-decay", "rest-scale",      NULL,
};

static void set_schedule(const struct settings *settings, double epoch, uint64_t total,
                         struct gapless_schedule *ret)
{
    ret->rate = settings->lr;
    ret->warmup = span_gradients(settings->warmup, total, epoch);
    ret->steps_count = settings->steps.count;
    for (uint32_t i = 0; i < settings->steps.count; i++) {
        ret->steps[i].at = span_gradients(settings->steps.step[i].at, total, epoch);
        ret->steps[i].factor = settings->steps.step[i].factor;
    }
    ret->cosine = settings->cosine;
    ret->cosine_to = settings->cosine_to;
}

/* Options that only some rules read. */
static const struct {
    const char *name;
    unsigned setting;
} read_by[] = {
    {"momentum", GAPLESS_SETS_MOMENTUM}, {"kappa", GAPLESS_SETS_KAPPA},
    {"gate", GAPLESS_SETS_KAPPA},        {"block-elements", GAPLESS_SETS_KAPPA},
    {"beta2", GAPLESS_SETS_ADAM},        {"epsilon", GAPLESS_SETS_ADAM},
    {"decay", GAPLESS_SETS_ADAM},        {"decay-all", GAPLESS_SETS_ADAM},
    {"rest-scale", GAPLESS_SETS_MATRIX}, {"matrix-threads", GAPLESS_SETS_MATRIX},
    {"lambda", GAPLESS_SETS_LAMBDA},     {"horizon", GAPLESS_SETS_HORIZON},
    {"elastic", GAPLESS_SETS_ELASTIC},   {"period", GAPLESS_SETS_ELASTIC},
    {"gap-ref", GAPLESS_SETS_GAP_REF},   {"ssgd-scale-rate", GAPLESS_SETS_SCALE_RATE},
};

/* The rules that read a setting, or all but those that do not, whichever are fewer. */
static void readers_of(unsigned setting, char *ret, size_t max)
{
    struct text_page page = text_page(ret, max);
    struct gapless_rule rule;
    unsigned reading = 0, all = 0, listed = 0;

    for (; gapless_rule_at(all, &rule) == GAPLESS_OK; all++)
        reading += (rule.settings & setting) != 0;
    text_add(&page, 2 * reading > all ? "all rules but " : "");
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        if (((rule.settings & setting) != 0) == (2 * reading <= all))
            text_add(&page, "%s%s", listed++ > 0 ? ", " : "", rule.name);
}

void config_report_unused(const char *command, const struct settings *settings)
{
    struct gapless_rule rule;
    char readers[400];

    if (gapless_rule_find(settings->rule, &rule, NULL) != GAPLESS_OK)
        return;
    for (size_t i = 0; i < sizeof read_by / sizeof read_by[0]; i++) {
        if (options_source(settings, read_by[i].name) < OPTION_ENVIRONMENT ||
            (rule.settings & read_by[i].setting) != 0)
            continue;
        readers_of(read_by[i].setting, readers, sizeof readers);
        report_failure(command, "--%s has no effect under rule %s; it has under %s",
                       read_by[i].name, rule.name, readers);
    }
}

static void say(void *command, const char *line)
{
    report_failure(command, "%s", line);
}

int config_check(const char *command, const struct settings *settings,
                 const struct task *task, uint64_t total, struct gapless_error *error)
{
    struct gapless_schedule inner = {0}; /* of the workers' own steps */
    struct gapless_master_config config;
    int status = GAPLESS_OK;

    set_schedule(settings, (double)task_epoch(task), total, &inner);
    inner.rate = settings->inner_lr;
    if (settings->local_steps > 0)
        status = schedule_check(&inner, total, error);
    if (status != GAPLESS_OK)
        return status;
    config_set(settings, task, total, NULL, NULL, NULL, &config);
    config.log = say;
    config.log_context = (void *)(uintptr_t)command;
    return gapless_master_check(&config, error);
}

/* ---- local steps --------------------------------------------------------- */

static int check_no_local(const struct settings *settings, struct gapless_error *error)
{
    static const char *const names[] = {"inner", "inner-lr", "inner-momentum",
                                        "inner-beta2", "inner-decay"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (options_source(settings, names[i]) > OPTION_DEFAULT)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "--%s is of local steps, and there are none: give "
                                     "--local-steps H, or leave it out",
                                     names[i]);
    if (settings->adapt_steps)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--adapt-steps needs the most steps that a worker "
                                 "takes: give --local-steps H, or leave it out");
    return GAPLESS_OK;
}

static int check_local_rule(const struct settings *settings,
                            struct gapless_error *error)
{
    struct gapless_rule rule;
    int status = gapless_rule_find(settings->rule, &rule, error);

    if (status != GAPLESS_OK)
        return status;
    if (rule.elastic || rule.slim)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--local-steps is not for rule %s, whose workers keep "
                                 "%s of their own: take "
                                 "%s, or another rule",
                                 rule.name,
                                 rule.elastic ? "parameters" : "the momentum",
                                 rule.elastic ? "--period" : "dana-zero");
    if ((rule.settings & GAPLESS_SETS_KAPPA) != 0 && !(settings->kappa > 0.0))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "--local-steps with rule %s needs --kappa: what a worker hands in is no "
            "gradient, so the gap is not in nats, for which the default was made. Give "
            "one, or take a rule without a gap in loss, such as dn or dana-zero",
            rule.name);
    return GAPLESS_OK;
}

/* Options that mean a gradient, which is not what is handed in. */
static int check_local_others(const struct settings *settings,
                              struct gapless_error *error)
{
    bool sgd = settings->inner != NULL && strcmp(settings->inner, "sgd") == 0;

    if (settings->weight_decay > 0.0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--weight-decay %g is not for --local-steps: what is "
                                 "handed in is a difference, to which none is added. "
                                 "Take --inner adamw with --inner-decay",
                                 settings->weight_decay);
    if (settings->clip_norm > 0.0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--clip-norm %g is not for --local-steps: what is "
                                 "handed in is a difference, not a gradient. Leave it "
                                 "out; a smaller --inner-lr does what it is for",
                                 settings->clip_norm);
    for (unsigned i = 0; sgd && i < 2; i++) {
        const char *name = i == 0 ? "inner-beta2" : "inner-decay";

        if (options_source(settings, name) > OPTION_DEFAULT)
            return gapless_error_set(
                error, GAPLESS_INVALID, 0,
                "--%s is AdamW's, and --inner is sgd: leave one of "
                "them out",
                name);
    }
    if (settings->group != NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--local-steps is not for --group %s: the GPUs of a "
                                 "group compute one gradient together. Leave one of "
                                 "them out",
                                 settings->group);
    return GAPLESS_OK;
}

int config_check_local(const struct settings *settings, struct gapless_error *error)
{
    int status;

    if (settings->local_steps == 0)
        return check_no_local(settings, error);
    status = check_local_rule(settings, error);
    return status == GAPLESS_OK ? check_local_others(settings, error) : status;
}

int config_check_local_length(const struct settings *settings, uint64_t total,
                              struct gapless_error *error)
{
    uint64_t round = (uint64_t)settings->local_steps * settings->workers;

    if (round <= total)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "--local-steps %u of %u workers are %llu batches for one "
                             "exchange each, and the run has %llu: take fewer steps, "
                             "fewer workers, or more --epochs",
                             settings->local_steps, settings->workers,
                             (unsigned long long)round, (unsigned long long)total);
}

void config_local(const struct settings *settings, const struct task *task,
                  uint64_t total, struct local_plan *ret)
{
    *ret = (struct local_plan){.steps = settings->local_steps, .total = total};
    if (settings->local_steps == 0)
        return;
    ret->inner = strcmp(settings->inner, "sgd") == 0 ? LOCAL_SGD : LOCAL_ADAMW;
    ret->momentum = settings->inner_momentum;
    ret->beta2 = settings->inner_beta2;
    ret->decay = settings->inner_decay;
    set_schedule(settings, (double)task_epoch(task), total, &ret->schedule);
    ret->schedule.rate = settings->inner_lr;
    if (ret->schedule.warmup > 0) /* as a master's */
        ret->schedule.warmup_from = 1.0 / settings->workers;
}

/* ---- decay, gate --------------------------------------------------------- */

int config_check_decay(const struct settings *settings, struct gapless_error *error)
{
    struct gapless_rule rule;
    int status = gapless_rule_find(settings->rule, &rule, error);

    if (status != GAPLESS_OK || !rule.own_decay || !(settings->weight_decay > 0.0))
        return status;
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "--weight-decay %g is not for rule %s, which has a weight "
                             "decay of its own: set --decay",
                             settings->weight_decay, rule.name);
}

static int gpu_flush(const char *when)
{
    if (when == NULL || strcmp(when, "auto") == 0)
        return 0;
    return strcmp(when, "always") == 0 ? 1 : -1;
}

static enum gapless_gate gate_of(const char *name)
{
    if (name == NULL)
        return GAPLESS_GATE_AUTO;
    return strcmp(name, "whole") == 0 ? GAPLESS_GATE_WHOLE : GAPLESS_GATE_TENSOR;
}

/* The cores that are left: of one process that simulates its own threads, of a network all
 * but the master's, else those that the workers on this machine do not use. */
static uint32_t matrix_threads(const struct settings *settings)
{
    uint32_t cores = machine_processors();
    uint32_t busy = settings->workers;

    if (settings->matrix_threads > 0)
        return settings->matrix_threads;
    if (settings->threads > 0)
        busy = settings->threads - 1;
    else if (settings->transport != NULL && strcmp(settings->transport, "verbs") == 0)
        busy = 0;
    return cores > busy ? u32_least(cores - busy, MATRIX_THREADS_MAX) : 1;
}

/* Where 0 asks for a default, exactly 0 is negative. */
void config_set(const struct settings *settings, const struct task *task,
                uint64_t total, const float *initial, const char *job, const char *note,
                struct gapless_master_config *ret)
{
    *ret = (struct gapless_master_config){
        .address = settings->address,
        .model = task->shape,
        .initial = initial,
        .rule = settings->rule,
        .gradients = total,
        .workers_max = settings->workers_max,
        .workers_expected = settings->workers,
        .workers_wait = settings->workers_wait,
        .observers_max = settings->observers_max,
        .momentum = settings->momentum > 0.0 ? settings->momentum : -1.0,
        .gate = gate_of(settings->gate),
        .kappa = settings->kappa,
        .beta2 = settings->beta2,
        .epsilon = settings->epsilon,
        .decay = settings->decay > 0.0 ? settings->decay : GAPLESS_NO_DECAY,
        .decay_all = settings->decay_all,
        .rest_scale = settings->rest_scale,
        .matrix_threads = matrix_threads(settings),
        .lambda = settings->lambda,
        .horizon = settings->horizon_set && !(settings->horizon > 0.0)
                       ? -1.0
                       : settings->horizon,
        .gap_ref = strcmp(settings->gap_ref, "sent") == 0 ? GAPLESS_GAP_SENT
                                                          : GAPLESS_GAP_OWN_LOOKAHEAD,
        .ssgd_scale_rate = settings->ssgd_scale_rate,
        .clip_norm = settings->clip_norm,
        .weight_decay = settings->weight_decay,
        .range_elements = settings->range_elements,
        .block_elements = settings->block_elements,
        .elastic = settings->elastic,
        .elastic_period = settings->period,
        .local_steps = settings->local_steps,
        .adapt_steps = settings->adapt_steps,
        .gap_every = settings->gap_every,
        .drop_lag = settings->drop_lag,
        .worker_timeout_ns = (int64_t)(settings->worker_timeout * 1e9),
        .job = job,
        .record = settings->record,
        .record_note = note,
        .device = settings->device,
        .allow_staging = settings->allow_staging,
        .gpu_flush = gpu_flush(settings->gpu_flush),
    };
    if (settings->local_steps > 0) /* the schedule is the inner rate's */
        ret->schedule.rate = settings->lr;
    else
        set_schedule(settings, (double)task_epoch(task), total, &ret->schedule);
}

char *config_note(const struct settings *settings)
{
    char *ret = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&ret, &bytes);
    bool good;

    if (out == NULL)
        return NULL;
    for (const char *const *name = config_names; *name != NULL; name++) {
        const char *text = options_text(settings, *name);

        if (strcmp(*name, "workers-max") == 0) /* its default depends on others */
            (void)fprintf(out, "%s=%u\n", *name, settings->workers_max);
        else if (strcmp(*name, "ssgd-scale-rate") == 0)
            (void)fprintf(out, "%s=%d\n", *name, settings->ssgd_scale_rate);
        else if (strcmp(*name, "decay-all") == 0)
            (void)fprintf(out, "%s=%d\n", *name, settings->decay_all);
        else if (text != NULL)
            (void)fprintf(out, "%s=%s\n", *name, text);
    }
    good = ferror(out) == 0;
    if (fclose(out) == 0 && good)
        return ret;
    free(ret);
    return NULL;
}

void config_report_warmup(const char *command, const struct settings *settings)
{
    if (settings->quiet || !options_warmup_shortened(settings))
        return;
    (void)printf(
        "gapless %s: the warm-up is a tenth of the run, %.3g epoch%s; --warmup "
        "SPAN chooses another\n",
        command, settings->warmup.amount * settings->epochs,
        settings->warmup.amount * settings->epochs > 1.0 ? "s" : "");
    (void)fflush(stdout);
}

int config_memory(const struct settings *settings, const struct task *task,
                  struct gapless_error *error)
{
    struct gapless_rule rule;
    double vectors, workers = settings->workers;
    int status = gapless_rule_find(settings->rule, &rule, error);

    if (status != GAPLESS_OK || settings->force ||
        (settings->device != NULL && strcmp(settings->device, "cpu") != 0))
        return status;
    /* A slot: the parameters that were sent, and the gradient. */
    vectors = 1.0 + rule.vectors_shared + workers * (rule.vectors_per_worker + 2.0);
    return machine_memory_check(
        (uint64_t)(vectors * (double)sizeof(float) * (double)task->model.parameters),
        "this run", error);
}
