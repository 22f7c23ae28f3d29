/* study.csv: a row a run, in the order of the grids (RFC 4180). */
#include "cluster/study/study.h"

#include "cluster/task/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const number_names[TRIAL_NUMBERS] = {
    [TRIAL_FINAL_ACCURACY] = "final_accuracy",
    [TRIAL_FINAL_LOSS] = "final_loss",
    [TRIAL_TRAINING_LOSS] = "training_loss",
    [TRIAL_LAG_MEAN] = "lag_mean",
    [TRIAL_LAG_P99] = "lag_p99",
    [TRIAL_GAP_MEAN] = "gap_mean",
    [TRIAL_GAP_P99] = "gap_p99",
    [TRIAL_UPDATES] = "updates",
    [TRIAL_GRADIENTS] = "gradients",
    [TRIAL_VIRTUAL_SECONDS] = "virtual_seconds",
    [TRIAL_TIME_TO_TARGET] = "time_to_target",
    [TRIAL_GRAD_NORM_SQ_MIN] = "grad_norm_sq_min",
    [TRIAL_MASTER_BYTES] = "master_bytes",
    [TRIAL_WORKER_BYTES] = "worker_bytes",
    [TRIAL_REAL_SECONDS] = "real_seconds",
    [TRIAL_MASTER_US_PER_UPDATE] = "master_us_per_update",
};

static const char *const state_names[] = {
    [TRIAL_MISSING] = "missing",
    [TRIAL_RUNNING] = "missing",
    [TRIAL_DONE] = "done",
    [TRIAL_FAILED] = "failed",
};

/* Nine digits; whole numbers, such as bytes, in full. */
static void put_number(FILE *out, double number)
{
    bool whole = fabs(number) < 9e15 && !(floor(number) < number);

    (void)fprintf(out, whole ? "%.0f" : "%.9g", number);
}

/* In quotes where it has to be; empty for NULL. */
static void put(FILE *out, const char *text)
{
    if (text == NULL || strpbrk(text, ",\"\r\n") == NULL) {
        (void)fputs(text != NULL ? text : "", out);
        return;
    }
    (void)fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"')
            (void)fputc('"', out);
        (void)fputc(*text, out);
    }
    (void)fputc('"', out);
}

static void put_head(FILE *out, const struct plan *plan)
{
    (void)fputs("cell,grid", out);
    for (size_t i = 0; i < plan->columns; i++) {
        (void)fputc(',', out);
        put(out, plan->column[i]);
    }
    for (size_t i = 0; i < TRIAL_NUMBERS; i++)
        (void)fprintf(out, ",%s", number_names[i]);
    (void)fputs(",status\n", out);
}

static void put_row(FILE *out, const struct plan *plan, const struct trial *trial)
{
    put(out, trial->name);
    (void)fputc(',', out);
    put(out, plan->study->grid[trial->grid].name);
    for (size_t i = 0; i < plan->columns; i++) {
        (void)fputc(',', out);
        put(out, trial->value[i]);
    }
    for (size_t i = 0; i < TRIAL_NUMBERS; i++) {
        (void)fputc(',', out);
        if (trial->state == TRIAL_DONE && isfinite(trial->number[i]))
            put_number(out, trial->number[i]);
    }
    (void)fprintf(out, ",%s\n", state_names[trial->state]);
}

int study_csv(const struct plan *plan, const char *folder, struct gapless_error *error)
{
    char path[RESULTS_PATH_MAX];
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    bool whole;
    int status = results_path(folder, "study.csv", path, error);

    if (out != NULL) {
        put_head(out, plan);
        for (size_t i = 0; i < plan->trials; i++)
            put_row(out, plan, &plan->trial[i]);
    }
    whole = out != NULL && ferror(out) == 0;
    if (out != NULL && fclose(out) != 0)
        whole = false;
    if (status == GAPLESS_OK && !whole)
        status =
            gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for study.csv");
    if (status == GAPLESS_OK)
        status = results_file(path, text, bytes, error);
    free(text);
    return status;
}
