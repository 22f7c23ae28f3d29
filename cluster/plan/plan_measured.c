/* What was measured: the figures of bench/results, and files of gapless bench. */
#include "cluster/plan/plan.h"
#include "engine/base/text_file.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX (16u << 20)

/* bench/results/rules.json: ns an element at 50,890, 1 Mi and 25.6 Mi elements, one
 * thread. A test holds this table against the file. */
#define CPU_WHERE "bench/results/rules.json, 2026-11-22, one thread of an AMD EPYC"
static const uint64_t cpu_elements[] = {50890, 1048576, 26843545};
static const struct {
    const char *name;
    double ns[3];
} cpu_rules[] = {
    {"asgd", {0.1104, 0.1327, 0.3997}},
    {"nag-asgd", {0.1421, 0.2080, 0.5260}},
    {"hb-asgd", {0.1418, 0.2213, 0.5250}},
    {"multi-asgd", {0.1450, 0.2546, 0.5374}},
    {"lwp", {0.1420, 0.2281, 0.6393}},
    {"sa", {0.1417, 0.2349, 0.5303}},
    {"ga", {0.3010, 0.3740, 0.6999}},
    {"ga-global", {0.2100, 0.3050, 0.8007}},
    {"dc-asgd", {0.1419, 0.2170, 0.5554}},
    {"dc-asgd-a", {0.2841, 0.3387, 0.7243}},
    {"dana-zero", {0.2027, 0.3513, 0.7281}},
    {"dana-slim", {0.1104, 0.1300, 0.3936}},
    {"dana-sa", {0.2029, 0.3554, 0.7168}},
    {"dana-dc", {0.2048, 0.3779, 0.7147}},
    {"dana-dc-a", {0.2947, 0.4826, 0.9072}},
    {"dana-ga", {0.3097, 0.5202, 0.9441}},
    {"dana-ga-global", {0.2684, 0.4887, 0.9567}},
    {"dana-lga", {0.3414, 0.5752, 0.9043}},
    {"dana-shared", {0.1421, 0.2739, 0.6059}},
    {"shared-lga", {0.2830, 0.4381, 0.7568}},
    {"sa-plain", {0.1102, 0.1444, 0.4201}},
    {"ga-plain", {0.2916, 0.3088, 0.5507}},
    {"dc-plain", {0.1070, 0.1430, 0.4081}},
};

/* bench/results/update-shm.json: `check` p50 by size, and the `rest` of a round trip,
 * both notes and the bookkeeping, at 4 KiB. */
#define UPDATE_WHERE "bench/results/update-shm.json, 2026-11-22"
static const uint64_t check_elements[] = {1024, 16384, 262144, 16777216};
static const double check_ns[] = {0.0977, 0.0660, 0.0635, 0.1349};
#define NOTE_SHM_S 1.2e-6

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

void plan_measured_builtin(struct plan_measured *ret)
{
    memset(ret, 0, sizeof *ret);
    for (size_t i = 0; i < sizeof cpu_rules / sizeof cpu_rules[0]; i++)
        for (size_t s = 0; s < 3; s++)
            add(&ret->cpu, cpu_rules[i].name, cpu_elements[s],
                1e-9 * cpu_rules[i].ns[s]);
    for (size_t s = 0; s < sizeof check_ns / sizeof check_ns[0]; s++)
        add(&ret->cpu, "", check_elements[s], 1e-9 * check_ns[s]);
    ret->note_shm_s = NOTE_SHM_S;
    (void)snprintf(ret->cpu.where, sizeof ret->cpu.where, CPU_WHERE);
    (void)snprintf(ret->note_where, sizeof ret->note_where, UPDATE_WHERE);
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

int plan_measured_read(const char *path, struct plan_measured *ret,
                       struct gapless_error *error)
{
    json_error_t reason;
    json_t *root;
    const char *kind;
    char *text;
    size_t bytes;
    int status = text_file_all(path, "the figures", FILE_MAX, &text, &bytes, error);

    if (status != GAPLESS_OK)
        return status;
    root = json_loadb(text, bytes, 0, &reason);
    free(text);
    if (root == NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%.200s:%d: cannot be read as JSON: %.120s", path,
                                 reason.line, reason.text);
    kind = text_of(root, "benchmark");
    if (strcmp(kind, "rules") == 0)
        read_rules(root, path, ret);
    else if (strcmp(kind, "update") == 0)
        read_update(root, path, ret);
    else if (strcmp(kind, "gpu-acceptance") == 0)
        status = read_gpu(root, path, ret, error);
    else
        status = gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "%.200s is no result that a plan can use: wanted are those of gapless "
            "bench "
            "rules --json, gapless bench update --json, or the gpu-acceptance.json of "
            "gapless bench gpu --accept",
            path);
    json_decref(root);
    return status;
}
