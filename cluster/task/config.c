/* Settings to the engine's terms. */
#include "cluster/task/config.h"

#include "engine/run/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const config_names[] = {
    "data",        "model",
    "batch",       "seed",
    "rule",        "lr",
    "momentum",    "warmup",
    "steps",       "schedule",
    "kappa",       "gate",
    "beta2",       "epsilon",
    "decay",       "lambda",
    "horizon",     "gap-ref",
    "clip-norm",   "weight-decay",
    "drop-lag",    "ssgd-scale-rate",
    "epochs",      "workers",
    "workers-max", "range-elements",
    "gap-every",   "block-elements",
    "elastic",     "period",
    NULL,
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

int config_check_schedule(const struct settings *settings, const struct task *task,
                          uint64_t total, struct gapless_error *error)
{
    struct gapless_schedule schedule = {0};

    set_schedule(settings, (double)task_epoch(task), total, &schedule);
    return schedule_check(&schedule, total, error);
}

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
