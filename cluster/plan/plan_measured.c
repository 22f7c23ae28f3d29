/* What was measured: the figures of bench/results, and files of gapless bench. */
#include "cluster/plan/plan.h"
#include "engine/base/text_file.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX (16u << 20)

static struct plan_speed_row *row_of(struct plan_speed_table *table, const char *name,
                                     bool make)
{
    for (uint32_t i = 0; i < table->rows; i++)
        if (strcmp(table->row[i].name, name) == 0)
            return &table->row[i];
    if (!make || table->rows == PLAN_RULES_MAX)
        return NULL;
    table->row[table->rows] = (struct plan_speed_row){0};
    (void)snprintf(table->row[table->rows].name, sizeof table->row[0].name, "%s", name);
    return &table->row[table->rows++];
}

/* Puts a figure in its place, sizes ascending; the same size again replaces it. */
static void add(struct plan_speed_table *table, const char *name, uint64_t elements,
                double seconds)
{
    struct plan_speed_row *row = row_of(table, name, true);
    uint32_t at = 0;

    if (row == NULL || elements == 0 || !(seconds > 0) || !isfinite(seconds))
        return;
    while (at < row->sizes && row->elements[at] < elements)
        at++;
    if (at == row->sizes || row->elements[at] != elements) {
        if (row->sizes == PLAN_SIZES_MAX)
            return;
        for (uint32_t i = row->sizes++; i > at; i--) {
            row->elements[i] = row->elements[i - 1];
            row->seconds[i] = row->seconds[i - 1];
        }
    }
    row->elements[at] = elements;
    row->seconds[at] = seconds;
}

double plan_measured_find(const struct plan_speed_table *table, const char *name,
                          uint64_t elements, uint64_t *ret_elements)
{
    for (uint32_t i = 0; i < table->rows; i++) {
        const struct plan_speed_row *row = &table->row[i];
        uint32_t at = 0;

        if (strcmp(row->name, name) != 0 || row->sizes == 0)
            continue;
        while (at + 1 < row->sizes && row->elements[at] < elements)
            at++;
        *ret_elements = row->elements[at];
        return row->seconds[at];
    }
    return 0;
}

/* ---- files --------------------------------------------------------------- */

static const char *text_of(const json_t *root, const char *key)
{
    const char *text = json_string_value(json_object_get(root, key));

    return text != NULL ? text : "?";
}

static double number_of(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* A whole number of elements: 0 for what is none. */
static uint64_t elements_of(const json_t *object, const char *key)
{
    double value = number_of(object, key);

    return value >= 1 && value <= (double)GAPLESS_ELEMENTS_MAX ? (uint64_t)value : 0;
}

static void where_of(const json_t *root, const char *path, const char *device,
                     char *ret, size_t bytes)
{
    (void)snprintf(ret, bytes, "%.50s, %.10s, %.50s", path, text_of(root, "date"),
                   device);
}

static void read_rules(const json_t *root, const char *path, struct plan_measured *ret)
{
    size_t i;
    const json_t *row;
    struct plan_speed_row check = {0};
    const struct plan_speed_row *old = row_of(&ret->cpu, "", false);

    if (old != NULL) /* the check is of another file */
        check = *old;
    ret->cpu.rows = 0;
    if (check.sizes > 0)
        ret->cpu.row[ret->cpu.rows++] = check;
    json_array_foreach(json_object_get(root, "results"), i, row)
    {
        add(&ret->cpu, text_of(row, "rule"), elements_of(row, "elements"),
            1e-9 * number_of(row, "ns_per_element"));
    }
    where_of(root, path, text_of(root, "cpu"), ret->cpu.where, sizeof ret->cpu.where);
}

static void read_update(const json_t *root, const char *path, struct plan_measured *ret)
{
    size_t i;
    const json_t *row;
    struct plan_speed_row *check = row_of(&ret->cpu, "", true);

    if (check != NULL)
        check->sizes = 0;
    json_array_foreach(json_object_get(root, "sizes"), i, row)
    {
        uint64_t elements = elements_of(row, "bytes") / 4;
        double rest = number_of(json_object_get(row, "rest"), "p50_us");

        if (elements == 0)
            continue;
        add(&ret->cpu, "", elements,
            1e-6 * number_of(json_object_get(row, "check"), "p50_us") /
                (double)elements);
        if (i == 0 && rest > 0)
            ret->note_shm_s = 1e-6 * rest;
    }
    where_of(root, path, text_of(root, "cpu"), ret->note_where, sizeof ret->note_where);
}

static int read_gpu(const json_t *root, const char *path, struct plan_measured *ret,
                    struct gapless_error *error)
{
    const json_t *plan = json_object_get(root, "plan"), *row;
    size_t i;

    if (!json_is_false(json_object_get(root, "fake")))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "%.200s was written with a fake GPU, or does not say: "
            "its figures are no measurement; run gapless bench gpu "
            "--accept on a GPU",
            path);
    ret->gpu.rows = 0;
    json_array_foreach(json_object_get(plan, "passes"), i, row)
    {
        add(&ret->gpu, text_of(row, "rule"), elements_of(row, "elements"),
            number_of(row, "seconds_per_element"));
    }
    json_array_foreach(json_object_get(plan, "checks"), i, row)
    {
        add(&ret->gpu, "", elements_of(row, "elements"),
            number_of(row, "seconds_per_element"));
    }
    ret->launch_s = number_of(plan, "launch_s");
    ret->seen_s = number_of(plan, "seen_s");
    ret->link = number_of(plan, "link_bytes_per_s");
    where_of(root, path, text_of(json_object_get(root, "gpu"), "name"), ret->gpu_where,
             sizeof ret->gpu_where);
    (void)snprintf(ret->gpu.where, sizeof ret->gpu.where, "%s", ret->gpu_where);
    return GAPLESS_OK;
}

/* What a file of gapless bench says, by its own name. */
static int read_figures(const json_t *root, const char *path, struct plan_measured *ret,
                        struct gapless_error *error)
{
    const char *kind = text_of(root, "benchmark");

    if (strcmp(kind, "gpu-acceptance") == 0)
        return read_gpu(root, path, ret, error);
    if (strcmp(kind, "rules") == 0)
        read_rules(root, path, ret);
    else if (strcmp(kind, "update") == 0)
        read_update(root, path, ret);
    else
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "%.200s is no result that a plan can use: wanted are those of gapless "
            "bench rules --json-file, gapless bench update --json-file, or the "
            "gpu-acceptance.json of gapless bench gpu --accept",
            path);
    return GAPLESS_OK;
}

static int read_text(const char *text, size_t bytes, const char *path,
                     struct plan_measured *ret, struct gapless_error *error)
{
    json_error_t reason;
    json_t *root = json_loadb(text, bytes, 0, &reason);
    int status;

    if (root == NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%.200s:%d: cannot be read as JSON: %.120s", path,
                                 reason.line, reason.text);
    status = read_figures(root, path, ret, error);
    json_decref(root);
    return status;
}

int plan_measured_read(const char *path, struct plan_measured *ret,
                       struct gapless_error *error)
{
    char *text;
    size_t bytes;
    int status = text_file_all(path, "the figures", FILE_MAX, &text, &bytes, error);

    if (status != GAPLESS_OK)
        return status;
    status = read_text(text, bytes, path, ret, error);
    free(text);
    return status;
}

void plan_measured_builtin(struct plan_measured *ret)
{
    memset(ret, 0, sizeof *ret);
    (void)read_text(plan_rules_json, strlen(plan_rules_json),
                    "bench/results/rules.json", ret, NULL);
    (void)read_text(plan_update_json, strlen(plan_update_json),
                    "bench/results/update-shm.json", ret, NULL);
}
