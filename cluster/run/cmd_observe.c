/* gapless observe: statistics, accuracy and parameters of a run that another process
 * started. */
#include "cluster/task/evaluate.h"
#include "cluster/task/job.h"
#include "cluster/task/network.h"
#include "cluster/options/options.h"
#include "cluster/program/program.h"
#include "cluster/task/results.h"
#include "cluster/task/task.h"
#include "cluster/terminal/view.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define READ_NS 1000000000ll

struct observing {
    struct settings settings;
    struct gapless_observer *observer;
    struct job job;
    bool task_open;
    struct task task;
    struct evaluator evaluator;
    struct gapless_stats stats;
    double start;
};

static volatile sig_atomic_t leave;

static void on_signal(int number)
{
    leave = 1;
    (void)signal(number, SIG_DFL);
}

/* The data set is only needed to measure accuracy, and for the names of the tensors. */
static int open_task(struct observing *observing, struct gapless_error *error)
{
    const struct settings *settings = &observing->settings;
    struct job *job = &observing->job;
    int status = job_read(gapless_observer_job(observing->observer), job, error);

    if (!settings->accuracy && settings->save == NULL)
        return GAPLESS_OK;
    if (status == GAPLESS_OK && settings->data_dir != NULL)
        status = job_set(job->data, settings->data_dir, job->model, job->batch,
                         job->seed, job, error);
    if (status == GAPLESS_OK)
        status = task_open(job, -1, &observing->task, error);
    if (status != GAPLESS_OK)
        return status;
    observing->task_open = true;
    if (observing->task.model.parameters != gapless_observer_count(observing->observer))
        return gapless_error_set(
            error, GAPLESS_MODEL, 0,
            "the master has %llu parameters, its job text speaks of "
            "%zu",
            (unsigned long long)gapless_observer_count(observing->observer),
            observing->task.model.parameters);
    return evaluator_open(&observing->task, &observing->evaluator, error);
}

static int measure(struct observing *observing, struct gapless_error *error)
{
    struct evaluator *evaluator = &observing->evaluator;
    uint64_t version;
    int status;

    if (!observing->settings.accuracy || observing->stats.updates == 0)
        return GAPLESS_OK;
    status = gapless_observer_read(observing->observer, evaluator->theta, READ_NS,
                                   &version, error);
    if (status == GAPLESS_TORN)
        return GAPLESS_OK; /* it moves too fast just now: the next line may do better */
    if (status != GAPLESS_OK)
        return status;
    evaluator_start(evaluator);
    while (!evaluator_work(evaluator, 1.0))
        ;
    return GAPLESS_OK;
}

static void print(const struct observing *observing)
{
    const struct gapless_stats *stats = &observing->stats;
    double rate = stats->seconds > 0.0 ? (double)stats->updates / stats->seconds : 0.0;
    bool measured = observing->settings.accuracy;
    struct metrics_sample sample = {
        .elapsed = now_seconds() - observing->start,
        .updates_per_second = rate,
        .epoch = observing->task_open
                     ? (double)stats->gradients /
                           (double)sampler_batches_per_epoch(&observing->task.sampler)
                     : (double)NAN,
        .accuracy = measured ? observing->evaluator.accuracy : (double)NAN,
        .test_loss = measured ? observing->evaluator.mean_loss : (double)NAN,
        .stats = stats,
    };

    if (observing->settings.json) {
        char *text = results_sample(&sample);

        (void)printf("%s\n", text != NULL ? text : "{}");
        free(text);
    } else {
        (void)printf(
            "updates %s (%.0f/s)  gradients %s of %s  loss %s  rate %s  lag %s  "
            "gap %s  dropped %s  workers %u, %u lost",
            word_count(stats->updates).text, rate, word_count(stats->gradients).text,
            stats->gradients_total > 0 ? word_count(stats->gradients_total).text
                                       : "no end",
            word_real(stats->loss, 4).text, word_small(stats->rate).text,
            word_real(stats->lag.count > 0 ? stats->lag.mean : (double)NAN, 2).text,
            word_small(stats->gap_rms.count > 0 ? stats->gap_rms.mean : (double)NAN)
                .text,
            word_count(stats->dropped).text, stats->workers_active,
            stats->workers_lost);
        if (measured)
            (void)printf("  accuracy %s %%",
                         word_real(100.0 * sample.accuracy, 2).text);
        (void)printf("\n");
    }
    (void)fflush(stdout);
}

/* In pieces, so that the end of the run, or of the master, is noticed soon. */
static int pause_for(struct observing *observing, double seconds,
                     struct gapless_error *error)
{
    double end = now_seconds() + seconds, left;
    uint32_t state = observing->stats.state;
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && (left = end - now_seconds()) > 0.0 && !leave &&
           observing->stats.state == state) {
        struct timespec wait = {0, left < 0.1 ? (long)(left * 1e9) : 100000000};

        (void)nanosleep(&wait, NULL);
        status = gapless_observer_stats(observing->observer, &observing->stats, error);
    }
    return status;
}

static int watch(struct observing *observing, struct gapless_error *error)
{
    int status = gapless_observer_stats(observing->observer, &observing->stats, error);

    while (status == GAPLESS_OK) {
        status = measure(observing, error);
        if (status != GAPLESS_OK)
            break;
        print(observing);
        if (ferror(stdout))
            return gapless_error_set(error, GAPLESS_IO, 0, "cannot write to stdout");
        if (observing->settings.once || leave ||
            observing->stats.state == GAPLESS_RUN_DONE)
            break;
        status = pause_for(observing, observing->settings.interval, error);
    }
    return status;
}

/* The header of a safetensors file: where each tensor is. */
static char *header_text(const struct model *model)
{
    json_t *header = json_object();
    char *text;

    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const struct model_tensor *tensor = &model->tensors[i];
        json_t *shape = json_array();

        for (uint32_t j = 0; j < tensor->rank; j++)
            (void)json_array_append_new(shape, json_integer(tensor->dims[j]));
        (void)json_object_set_new(
            header, tensor->name,
            json_pack("{s:s,s:o,s:[I,I]}", "dtype", "F32", "shape", shape,
                      "data_offsets", (json_int_t)(tensor->offset * sizeof(float)),
                      (json_int_t)((tensor->offset + tensor->count) * sizeof(float))));
    }
    text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    return text;
}

static int save(struct observing *observing, struct gapless_error *error)
{
    const struct model *model = &observing->task.model;
    size_t data = model->parameters * sizeof(float), used, padded;
    char *text, *bytes;
    uint64_t version;
    int status = gapless_observer_read(observing->observer, observing->evaluator.theta,
                                       5 * READ_NS, &version, error);

    if (status != GAPLESS_OK)
        return status;
    text = header_text(model);
    used = text != NULL ? strlen(text) : 0;
    padded = (used + 7) / 8 * 8; /* the tensors begin at a multiple of 8 */
    bytes = text != NULL ? malloc(8 + padded + data) : NULL;
    if (bytes == NULL) {
        free(text);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory to save");
    }
    memset(bytes + 8, ' ', padded);
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (char)(unsigned char)(padded >> (8 * i));
    memcpy(bytes + 8, text, used);
    memcpy(bytes + 8 + padded, observing->evaluator.theta, data);
    status = results_file(observing->settings.save, bytes, 8 + padded + data, error);
    free(bytes);
    free(text);
    return status;
}

int cmd_observe(int argc, char **argv)
{
    static struct observing observing;
    static struct network network;
    struct gapless_observer_config config = {0};
    struct sigaction action = {.sa_handler = on_signal};
    struct gapless_error error = {0};
    int status;

    switch (options_read(FOR_OBSERVE, argc, argv, &observing.settings)) {
    case OPTIONS_HELPED:
        return EXIT_DONE;
    case OPTIONS_WRONG:
        return EXIT_MISUSE;
    case OPTIONS_GO:
        break;
    }
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    observing.start = now_seconds();
    config.address = observing.settings.address;
    config.connect_ns = (int64_t)(observing.settings.connect_timeout * 1e9);
    status = network_open(&observing.settings, &network, &error);
    config.net = network.net;
    if (status == GAPLESS_OK)
        status = gapless_observer_open(&config, &observing.observer, &error);
    network_close(&network);
    if (status == GAPLESS_OK)
        status = open_task(&observing, &error);
    if (status == GAPLESS_OK)
        status = watch(&observing, &error);
    if (status == GAPLESS_OK && observing.settings.save != NULL)
        status = save(&observing, &error);
    evaluator_close(&observing.evaluator);
    task_close(&observing.task);
    gapless_observer_close(observing.observer);
    return status == GAPLESS_OK ? EXIT_DONE : report_error("observe", &error);
}
