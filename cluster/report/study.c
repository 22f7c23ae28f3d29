/* Reading a study's folder: study.ini says what it is about, study.csv holds a row a
 * run, cells/NAME the files of each run. */
#include "cluster/report/data.h"
#include "engine/base/text_file.h"

#include <ini.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INI_BYTES_MAX ((size_t)1 << 20)
#define CSV_BYTES_MAX ((size_t)256 << 20)
#define CELLS_MAX 100000u
#define COLUMNS_MAX 200u

/* ---- study.ini ----------------------------------------------------------- */

struct ini {
    struct report *report;
    struct set *set;
    struct text_file file;
    struct gapless_error error;
};

/* For the library; of a line that it has no room for the beginning. */
static char *next_line(char *ret, int room, void *from)
{
    struct ini *ini = from;
    char *line;

    if (text_file_line(&ini->file, &line, &ini->error) != GAPLESS_OK)
        return NULL;
    (void)snprintf(ret, (size_t)room, "%s", line);
    return ret;
}

static void target_read(struct ini *ini, const char *value)
{
    double target = text_number(value);

    if (!(target > 0 && target <= 1))
        report_complain(ini->report, "%s/study.ini: target = %s is not a share",
                        ini->set->folder, value);
    else if (!(ini->report->target > 0))
        ini->set->target = target;
}

static int on_value(void *context, const char *section, const char *name,
                    const char *value)
{
    struct ini *ini = context;
    struct arena *arena = &ini->report->arena;
    struct set *set = ini->set;
    const struct {
        const char *name, **at;
    } texts[] = {
        {"title", &set->title}, {"about", &set->about}, {"chart", &set->chart}};

    if (strcmp(section, "study") != 0 || value[0] == '\0')
        return 1;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(name, texts[i].name) == 0) /* twice: the next line of a paragraph */
            *texts[i].at = *texts[i].at == NULL
                               ? arena_copy(arena, value)
                               : arena_format(arena, "%s %s", *texts[i].at, value);
    if (strcmp(name, "name") == 0)
        set->name = arena_copy(arena, value);
    else if (strcmp(name, "target") == 0)
        target_read(ini, value);
    return 1;
}

static void ini_read(struct report *report, struct set *set)
{
    const char *path = arena_format(&report->arena, "%s/study.ini", set->folder);
    struct ini ini = {.report = report, .set = set};
    char *bytes = NULL;
    size_t size = 0;
    int line = 0, status = text_file_all(path, "the study", INI_BYTES_MAX, &bytes,
                                         &size, &ini.error);

    if (status == GAPLESS_OK)
        set->ini = arena_copy(&report->arena, bytes);
    free(bytes);
    if (status == GAPLESS_OK)
        status = text_file_open(&ini.file, path, "the study", INI_BYTES_MAX,
                                INI_BYTES_MAX, &ini.error);
    if (status == GAPLESS_OK) {
        line = ini_parse_stream(next_line, &ini, on_value, &ini);
        text_file_close(&ini.file);
    }
    if (line != 0)
        report_complain(report, "%s, near line %d: neither a section nor NAME = VALUE",
                        path, line);
    else if (ini.error.text[0] != '\0')
        report_complain(report, "%s", ini.error.text);
}

/* ---- study.csv ----------------------------------------------------------- */

static bool header_read(struct report *report, struct set *set, const char **at)
{
    const char **name;
    size_t count = csv_row(&report->arena, at, &name);

    if (count == 0 || count > COLUMNS_MAX || strcmp(name[0], "cell") != 0)
        return false;
    set->column = name;
    set->columns = count;
    set->options = count > 1 && strcmp(name[1], "grid") == 0 ? 2 : 1;
    set->results = set_column(set, run_number_names[0]);
    return set->results != SIZE_MAX && set->results >= set->options &&
           set_column(set, "status") != SIZE_MAX;
}

/* A name, not a path that leads elsewhere. */
static bool plain_name(const char *name)
{
    return name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static struct run *run_add(struct report *report, struct set *set, const char *cell)
{
    struct run *grown =
        arena_grow(&report->arena, set->run, set->runs, sizeof *set->run);

    if (grown == NULL)
        return NULL;
    set->run = grown;
    grown += set->runs;
    grown->folder = arena_format(&report->arena, "%s/cells/%s", set->folder, cell);
    grown->field = arena_take(&report->arena, set->columns * sizeof *grown->field);
    if (grown->field == NULL)
        return NULL;
    set->runs++;
    return grown;
}

static void rows_read(struct report *report, struct set *set, const char *path,
                      const char *at)
{
    const char **field;
    size_t count;

    for (unsigned row = 2; (count = csv_row(&report->arena, &at, &field)) > 0; row++) {
        struct run *run;

        if (count != set->columns || !plain_name(field[0])) {
            report_complain(
                report,
                "%s, row %u: %zu fields where the header has %zu, or a cell "
                "that is no name",
                path, row, count, set->columns);
            continue;
        }
        if (set->runs == CELLS_MAX)
            return;
        run = run_add(report, set, field[0]);
        for (size_t c = 0; run != NULL && c < count; c++)
            run->field[c] = field[c][0] != '\0' ? field[c] : NULL;
        if (run != NULL)
            run_read(report, set, run, false);
    }
}

/* False: there is none, or it is not one. */
static bool csv_read(struct report *report, struct set *set)
{
    const char *path = arena_format(&report->arena, "%s/study.csv", set->folder), *at;
    struct gapless_error error = {0};
    char *bytes = NULL;
    size_t size = 0;
    int status = text_file_all(path, "the table", CSV_BYTES_MAX, &bytes, &size, &error);

    if (status == GAPLESS_MISSING)
        return false;
    if (status != GAPLESS_OK) {
        report_complain(report, "%s", error.text);
        return false;
    }
    at = bytes;
    if (header_read(report, set, &at))
        rows_read(report, set, path, at);
    else
        report_complain(report,
                        "%s: its first row does not name the columns of a study", path);
    free(bytes);
    return set->runs > 0;
}

/* ---- the cells, where there is no study.csv ------------------------------ */

static void cells_read(struct report *report, struct set *set)
{
    const char **name;
    size_t count = folder_names(
        &report->arena, arena_format(&report->arena, "%s/cells", set->folder), &name);

    run_columns(report, set);
    for (size_t i = 0; i < count && i < CELLS_MAX && set->columns > 0; i++) {
        struct run *run = run_add(report, set, name[i]);

        if (run == NULL)
            return;
        run_read(report, set, run, true);
        run->field[0] = name[i];
    }
    run_columns_tidy(report, set);
}

void study_folder_read(struct report *report, struct set *set)
{
    set->study = true;
    set->target = report->target > 0 ? report->target : REPORT_TARGET;
    ini_read(report, set);
    if (!csv_read(report, set))
        cells_read(report, set);
}
