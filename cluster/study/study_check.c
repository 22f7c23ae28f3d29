/* What the trials need, checked before anything runs: data sets, loaded once and handed
 * to all children, and models that fit them. Also guesses how long a trial will take. */
#include "cluster/study/study.h"

#include "cluster/simulate/simulate.h"
#include "cluster/task/config.h"
#include "cluster/task/task.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Rough costs on one processor; only their proportions matter. */
#define FLOP_S 5e-11        /* of dense layers */
#define WORKLOAD_USES 100.0 /* of a parameter by a sample, as in convolutions */
#define PARAMETER_S 1e-8    /* one update of one parameter, all vectors */
#define GRADIENT_S 1.5e-5   /* what each gradient costs beside */
#define WORKERS_SLOW 300.0  /* this many workers' vectors double an update's time */

struct study_model {
    const char *data, *model, *batch, *workload; /* texts of the plan */
    int data_index;                              /* -1: none */
    double epoch_gradients;
    double gradient_s, update_s;
};

/* Multiplications of a sample's forward pass. */
static double products(const struct model *model)
{
    double sum = 0.0;

    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const struct model_tensor *tensor = &model->tensors[i];
        uint32_t stage = i / 2; /* a weight and a bias each */
        double uses = 1.0;

        if (tensor->rank == 4 && stage < model->convs)
            uses = (double)model->images[stage].height * model->images[stage].width;
        sum += (double)tensor->count * uses;
    }
    return sum;
}

static void measure(const struct task *task, struct study_model *ret)
{
    double flops = 6.0 * (double)task->job.batch;

    if (task->workload != NULL)
        flops *= (double)task->model.parameters * WORKLOAD_USES;
    else if (!task->has_toy)
        flops *= products(&task->model);
    ret->epoch_gradients = (double)task_epoch(task);
    ret->gradient_s = GRADIENT_S + flops * FLOP_S;
    ret->update_s = (double)task->model.parameters * PARAMETER_S;
}

static int find_data(const struct check *check, const char *name)
{
    for (size_t i = 0; i < check->datas; i++)
        if (strcmp(check->data[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* Loads a set and keeps it for the children; one that is there already is found. */
static int load_data(struct check *check, const struct job *job, const char *name,
                     int *ret_index, struct gapless_error *error)
{
    const char *folder = job->data_dir[0] != '\0' ? job->data_dir : NULL;
    struct data *data;
    struct task task;
    int status;

    *ret_index = find_data(check, name);
    if (*ret_index >= 0)
        return GAPLESS_OK;
    if (check->datas == CHECK_DATA_MAX)
        return gapless_error_set(error, GAPLESS_CAPACITY, 0,
                                 "a study has at most %d data sets: make it several",
                                 CHECK_DATA_MAX);
    status = data_load(job->data, folder, &data, error);
    if (status == GAPLESS_INVALID && task_open(job, -1, &task, error) == GAPLESS_OK)
        task_close(&task); /* cannot be; it was for the text, which knows more */
    if (status != GAPLESS_OK)
        return status;
    status = data_share(data, &check->data[check->datas].fd, error);
    data_free(data);
    if (status != GAPLESS_OK)
        return status;
    check->data[check->datas].name = name;
    *ret_index = (int)check->datas++;
    return GAPLESS_OK;
}

/* Opens what a trial needs, as its own process will; if that fails, ret_blamed is the
 * option to blame. */
static int open_model(struct check *check, const struct settings *settings,
                      const char *data_dir, struct study_model *ret,
                      const char **ret_blamed, struct gapless_error *error)
{
    struct task task;
    struct job job;
    int index = -1;
    int status = job_set(settings->data, data_dir, settings->model, settings->batch,
                         settings->seed, &job, error);

    *ret_blamed = "data";
    if (status == GAPLESS_OK && ret->workload == NULL && !toy_is(job.model))
        status = load_data(check, &job, ret->data, &index, error);
    if (status != GAPLESS_OK)
        return status;
    *ret_blamed = ret->workload != NULL ? "workload" : "model";
    if (ret->workload != NULL)
        status = task_open_workload(ret->workload, &job, &task, error);
    else if (toy_is(job.model))
        status = task_open_toy(&job, &task, error);
    else
        status = task_open(&job, check->data[index].fd, &task, error);
    if (status != GAPLESS_OK)
        return status;
    ret->data_index = index;
    measure(&task, ret);
    task_close(&task);
    return GAPLESS_OK;
}

static bool same(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Says where in the file stands what is wrong, and how to get a data set. */
static int blame(const struct plan *plan, const struct trial *trial, const char *option,
                 struct gapless_error *error, int status)
{
    struct gapless_error reason = *error;
    const char *data = plan_value(plan, trial, "data");
    unsigned line = plan_line(plan, trial, option);

    if (status == GAPLESS_MISSING && strstr(reason.text, "fetch-data") == NULL &&
        data != NULL && (strcmp(data, "mnist") == 0 || strcmp(data, "cifar-10") == 0))
        return gapless_error_set(error, status, 0,
                                 "%.330s; cluster/workloads/fetch-data %s gets it, "
                                 "where it is installed gapless-fetch-data %s",
                                 reason.text, data, data);
    if (status == GAPLESS_INVALID && line > 0)
        return gapless_error_set(error, status, 0, "%.100s:%u: %.350s",
                                 plan->study->path, line, reason.text);
    return status;
}

static int find_model(struct plan *plan, struct check *check, struct trial *trial,
                      const char *data_dir, struct gapless_error *error)
{
    struct study_model model = {
        .data = plan_value(plan, trial, "data"),
        .model = plan_value(plan, trial, "model"),
        .batch = plan_value(plan, trial, "batch"),
        .workload = plan_value(plan, trial, "workload"),
        .data_index = -1,
    };
    struct settings settings;
    struct study_model *more;
    const char *blamed;
    int status;

    for (size_t i = check->models; i-- > 0;)
        if (same(check->model[i].data, model.data) &&
            same(check->model[i].model, model.model) &&
            same(check->model[i].batch, model.batch) &&
            same(check->model[i].workload, model.workload)) {
            trial->model = (int)i;
            return GAPLESS_OK;
        }
    if (!plan_settings(plan, trial, &settings))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the options of %s are not valid", trial->name);
    status = open_model(check, &settings, data_dir, &model, &blamed, error);
    if (status != GAPLESS_OK)
        return blame(plan, trial, blamed, error, status);
    more = realloc(check->model, (check->models + 1) * sizeof *more);
    if (more == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    check->model = more;
    more[check->models] = model;
    trial->model = (int)check->models++;
    return GAPLESS_OK;
}

/* Clock and events, which are more than one value can tell, as the trial's process will
 * read them; not again where they are those of the trial before. */
static int check_lists(const struct plan *plan, const struct trial *trial,
                       const struct trial *before, struct gapless_error *error)
{
    struct gapless_incident *incidents = NULL;
    struct gapless_batch_time *times = NULL;
    enum gapless_clock clock;
    struct settings settings;
    uint32_t joins;
    size_t length;
    int status = GAPLESS_OK;

    if (before != NULL &&
        same(plan_value(plan, trial, "clock"), plan_value(plan, before, "clock")) &&
        same(plan_value(plan, trial, "events"), plan_value(plan, before, "events")) &&
        same(plan_value(plan, trial, "workers"), plan_value(plan, before, "workers")))
        return GAPLESS_OK;
    if (!plan_settings(plan, trial, &settings))
        return GAPLESS_OK;
    status = simulate_clock(settings.clock, settings.workers, &clock, &times, &length,
                            error);
    free(times);
    if (status != GAPLESS_OK)
        return blame(plan, trial, "clock", error, status);
    if (settings.events != NULL)
        status = simulate_events(settings.events, settings.workers, &incidents, &length,
                                 &joins, error);
    free(incidents);
    return status == GAPLESS_OK ? status : blame(plan, trial, "events", error, status);
}

static int check_decay(const struct plan *plan, const struct trial *trial,
                       struct gapless_error *error)
{
    struct settings settings;
    int status;

    if (!plan_settings(plan, trial, &settings))
        return GAPLESS_OK; /* said by find_model */
    status = config_check_decay(&settings, error);
    return status == GAPLESS_OK ? status
                                : blame(plan, trial, "weight-decay", error, status);
}

static int check_local(const struct plan *plan, const struct check *check,
                       const struct trial *trial, struct gapless_error *error)
{
    struct settings settings;
    const char *blamed =
        plan_line(plan, trial, "local-steps") > 0 ? "local-steps" : "rule";
    int status;

    if (check->model == NULL || !plan_settings(plan, trial, &settings))
        return GAPLESS_OK; /* said by find_model */
    status = config_check_local(&settings, error);
    if (status == GAPLESS_OK)
        status = config_check_local_length(
            &settings,
            (uint64_t)(settings.epochs * check->model[trial->model].epoch_gradients +
                       0.5),
            error);
    return status == GAPLESS_OK ? status : blame(plan, trial, blamed, error, status);
}

static double work_of(const struct plan *plan, const struct check *check,
                      const struct trial *trial)
{
    const struct study_model *model;
    struct settings settings;

    if (check->model == NULL || !plan_settings(plan, trial, &settings))
        return 0.0;
    model = &check->model[trial->model];
    return settings.epochs * model->epoch_gradients *
           (model->gradient_s +
            model->update_s * (1.0 + (double)settings.workers / WORKERS_SLOW));
}

int check_open(struct plan *plan, const char *data_dir, struct check *ret,
               struct gapless_error *error)
{
    struct check check = {0};
    const struct trial *before = NULL;
    int status = GAPLESS_OK;

    for (size_t i = 0; i < plan->trials && status == GAPLESS_OK; i++) {
        struct trial *trial = &plan->trial[i];

        if (trial->state == TRIAL_DONE)
            continue;
        status = find_model(plan, &check, trial, data_dir, error);
        if (status == GAPLESS_OK)
            status = check_lists(plan, trial, before, error);
        if (status == GAPLESS_OK)
            status = check_decay(plan, trial, error);
        if (status == GAPLESS_OK)
            status = check_local(plan, &check, trial, error);
        if (status == GAPLESS_OK)
            trial->work = work_of(plan, &check, trial);
        before = trial;
    }
    if (status != GAPLESS_OK) {
        check_close(&check);
        return status;
    }
    *ret = check;
    return GAPLESS_OK;
}

int check_data_fd(const struct check *check, const struct trial *trial)
{
    int index = trial->model >= 0 ? check->model[trial->model].data_index : -1;

    return index >= 0 ? check->data[index].fd : -1;
}

void check_close(struct check *check)
{
    for (size_t i = 0; i < check->datas; i++)
        (void)close(check->data[i].fd);
    free(check->model);
    memset(check, 0, sizeof *check);
}
