/* study.csv: a row a run, in the order of the grids (RFC 4180). */
#include "cluster/study/study.h"

#include "cluster/task/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const number_names[CELL_NUMBERS] = {
    [CELL_FINAL_ACCURACY] = "final_accuracy",
    [CELL_FINAL_LOSS] = "final_loss",
    [CELL_TRAINING_LOSS] = "training_loss",
    [CELL_LAG_MEAN] = "lag_mean",
    [CELL_LAG_P99] = "lag_p99",
    [CELL_GAP_MEAN] = "gap_mean",
    [CELL_GAP_P99] = "gap_p99",
    [CELL_UPDATES] = "updates",
    [CELL_GRADIENTS] = "gradients",
    [CELL_VIRTUAL_SECONDS] = "virtual_seconds",
    [CELL_TIME_TO_TARGET] = "time_to_target",
    [CELL_GRAD_NORM_SQ_MIN] = "grad_norm_sq_min",
    [CELL_MASTER_BYTES] = "master_bytes",
    [CELL_WORKER_BYTES] = "worker_bytes",
    [CELL_REAL_SECONDS] = "real_seconds",
    [CELL_MASTER_US_PER_UPDATE] = "master_us_per_update",
};

static const char *const state_names[] = {
    [CELL_MISSING] = "missing",
    [CELL_RUNNING] = "missing",
    [CELL_DONE] = "done",
    [CELL_FAILED] = "failed",
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
    for (size_t i = 0; i < CELL_NUMBERS; i++)
        (void)fprintf(out, ",%s", number_names[i]);
    (void)fputs(",status\n", out);
}

static void put_row(FILE *out, const struct plan *plan, const struct cell *cell)
{
    put(out, cell->name);
    (void)fputc(',', out);
    put(out, plan->study->grid[cell->grid].name);
    for (size_t i = 0; i < plan->columns; i++) {
        (void)fputc(',', out);
        put(out, cell->value[i]);
    }
    for (size_t i = 0; i < CELL_NUMBERS; i++) {
        (void)fputc(',', out);
        if (cell->state == CELL_DONE && isfinite(cell->number[i]))
            put_number(out, cell->number[i]);
    }
    (void)fprintf(out, ",%s\n", state_names[cell->state]);
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
        for (size_t i = 0; i < plan->cells; i++)
            put_row(out, plan, &plan->cell[i]);
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
