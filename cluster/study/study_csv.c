/* study.csv: a row a run, in the order of the grids (RFC 4180). */
#include "cluster/study/study.h"

#include "cluster/task/results.h"

#include <stdlib.h>

static void put_head(FILE *out, const struct plan *plan)
{
    (void)fputs("cell,grid", out);
    for (size_t i = 0; i < plan->columns; i++) {
        (void)fputc(',', out);
        csv_text(out, plan->column[i]);
    }
    for (size_t i = 0; i < RUN_NUMBERS; i++)
        (void)fprintf(out, ",%s", run_number_names[i]);
    (void)fputs(",status\n", out);
}

static enum run_status status_of(const struct trial *trial)
{
    if (trial->state == TRIAL_DONE)
        return trial->result.status;
    return trial->state == TRIAL_FAILED ? RUN_FAILED : RUN_MISSING;
}

static void put_row(FILE *out, const struct plan *plan, const struct trial *trial)
{
    csv_text(out, trial->name);
    (void)fputc(',', out);
    csv_text(out, plan->study->grid[trial->grid].name);
    for (size_t i = 0; i < plan->columns; i++) {
        (void)fputc(',', out);
        csv_text(out, trial->value[i]);
    }
    for (size_t i = 0; i < RUN_NUMBERS; i++) {
        (void)fputc(',', out);
        if (trial->state == TRIAL_DONE)
            csv_number(out, trial->result.number[i]);
    }
    (void)fprintf(out, ",%s\n", run_status_name(status_of(trial)));
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
