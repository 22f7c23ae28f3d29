/* gapless evaluate: how good a saved model is, on the data it was trained with or on
 * others. */
#include "cluster/options/options.h"
#include "cluster/program/program_options.h"
#include "cluster/task/model_file.h"
#include "cluster/terminal/canvas.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SLICE 250u /* samples at a time */

struct evaluation {
    struct settings settings;
    struct model_file file;
    struct task task;
    float *theta;
    uint64_t samples;
    double accuracy, loss;
};

/* What was given, or else what the file says. */
static int choose(const struct evaluation *e, struct job *ret,
                  struct gapless_error *error)
{
    const struct settings *settings = &e->settings;
    const char *model = settings->model != NULL ? settings->model : e->file.model;
    const char *data = settings->data != NULL ? settings->data : e->file.data;

    if (model[0] == '\0' || data[0] == '\0')
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%.200s does not say which model it is, or on which "
                                 "data it was trained: give --model and --data",
                                 e->file.file.name);
    return job_set(data, settings->data_dir, model, 1, 1, ret, error);
}

/* Reads the parameters. The accuracy of numbers that are none would mean nothing. */
static int read_parameters(struct evaluation *e, struct gapless_error *error)
{
    size_t count = e->task.model.parameters;
    int status;

    e->theta = malloc(count * sizeof *e->theta);
    if (e->theta == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for %zu parameters", count);
    status = model_file_read(&e->file, &e->task.model, e->theta, error);
    for (size_t i = 0; status == GAPLESS_OK && i < count; i++)
        if (!isfinite(e->theta[i]))
            status =
                gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                  "%.200s: parameter %zu of %zu is not finite: the "
                                  "training that wrote it diverged",
                                  e->file.file.name, i + 1, count);
    return status;
}

/* The data, standardised as the model knows them. */
static int open_task(struct evaluation *e, struct gapless_error *error)
{
    const struct data_standard *as =
        e->file.standard.count > 0 ? &e->file.standard : NULL;
    struct job job;
    int status = choose(e, &job, error);

    if (status == GAPLESS_OK)
        status = task_open_as(&job, as, &e->task, error);
    if (status != GAPLESS_OK)
        return status;
    if (as != NULL && as->classes != e->task.data->classes)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the model has %u classes, %.100s has %u", as->classes,
                                 job.data, e->task.data->classes);
    return read_parameters(e, error);
}

/* Adds a part of the data to the sums. */
static int measure_part(struct evaluation *e, struct model_scratch *scratch,
                        enum data_part part, struct gapless_error *error)
{
    uint32_t count = data_count(e->task.data, part);
    double accuracy, loss;
    int status = model_evaluate(&e->task.model, scratch, e->theta, e->task.data, part,
                                &accuracy, &loss, error);

    e->samples += count;
    e->accuracy += accuracy * count;
    e->loss += loss * count;
    return status;
}

static int measure(struct evaluation *e, struct gapless_error *error)
{
    const char *part = e->settings.part;
    struct model_scratch *scratch;
    int status = model_scratch_new(&e->task.model, SLICE, MODEL_BLAS, &scratch, error);

    if (status != GAPLESS_OK)
        return status;
    if (strcmp(part, "test") != 0)
        status = measure_part(e, scratch, DATA_TRAIN, error);
    if (status == GAPLESS_OK && strcmp(part, "train") != 0)
        status = measure_part(e, scratch, DATA_TEST, error);
    model_scratch_free(scratch);
    e->accuracy /= (double)e->samples;
    e->loss /= (double)e->samples;
    return status;
}

static void print_json(const struct evaluation *e)
{
    json_t *root = json_pack("{s:s,s:s,s:s,s:s,s:I,s:f,s:f,s:s,s:s,s:s}", "file",
                             e->file.file.name, "model", e->task.model.spec, "data",
                             e->task.job.data, "part", e->settings.part, "samples",
                             (json_int_t)e->samples, "accuracy", e->accuracy, "loss",
                             e->loss, "rule", e->file.rule, "gradients",
                             e->file.gradients, "version", e->file.version);

    (void)json_dumpf(root, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    (void)printf("\n");
    json_decref(root);
}

static void print(const struct evaluation *e)
{
    const char *part = e->settings.part;

    if (e->settings.json) {
        print_json(e);
        return;
    }
    (void)printf("\n  %-18s %s %%   (loss %s)\n", "accuracy",
                 word_real(100.0 * e->accuracy, 2).text, word_real(e->loss, 4).text);
    (void)printf("  %-18s %s, %s of %s\n", "samples", word_count(e->samples).text,
                 strcmp(part, "all") == 0 ? "all" : part, e->task.job.data);
    (void)printf("  %-18s %s, %s parameters", "model", e->task.model.spec,
                 word_count(e->task.model.parameters).text);
    if (e->file.rule[0] != '\0')
        (void)printf("; %s, %s gradients, gapless %s", e->file.rule, e->file.gradients,
                     e->file.version);
    (void)printf("\n");
}

int cmd_evaluate(int argc, char **argv)
{
    static struct evaluation evaluation;
    struct gapless_error error = {0};
    int status, code;

    if (!program_options(FOR_EVALUATE, argc, argv, &evaluation.settings, &code))
        return code;
    if (evaluation.settings.operands != 1) {
        report_failure("evaluate",
                       "give the file of %s, as in 'gapless evaluate "
                       "runs/NAME/model.safetensors'",
                       evaluation.settings.operands == 0 ? "a model" : "one model");
        return EXIT_MISUSE;
    }
    status = model_file_open(evaluation.settings.operand[0], &evaluation.file, &error);
    if (status == GAPLESS_OK)
        status = open_task(&evaluation, &error);
    if (status == GAPLESS_OK)
        status = measure(&evaluation, &error);
    if (status == GAPLESS_OK)
        print(&evaluation);
    free(evaluation.theta);
    task_close(&evaluation.task);
    model_file_close(&evaluation.file);
    return status == GAPLESS_OK ? EXIT_DONE : report_error("evaluate", &error);
}
