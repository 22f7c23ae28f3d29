/* Reads a study's INI file. The library takes lines apart; lines are counted here,
 * where they are handed to it, because its handlers do not get them. */
#include "cluster/study/study.h"
#include "engine/base/text_file.h"

#include <ctype.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\r\n"
#define LINE_MAX_BYTES (64u << 10) /* the library takes far less, and says so */

enum section {
    SECTION_NONE,
    SECTION_STUDY,
    SECTION_RUN,
    SECTION_GRID
};

struct reading {
    struct text_file file;
    struct study *study;
    struct gapless_error *error;
    int status;
    unsigned line, failed_line;
    bool indented; /* the line begins with a blank */
    bool seen[SECTION_GRID + 1];
    enum section section;
    size_t last; /* option of the section that an indented line goes on with, plus 1 */
};

__attribute__((format(printf, 3, 4))) static bool
refuse(struct reading *reading, unsigned line, const char *format, ...)
{
    char what[400];
    va_list list;

    if (reading->status != GAPLESS_OK)
        return false;
    va_start(list, format);
    (void)vsnprintf(what, sizeof what, format, list);
    va_end(list);
    reading->failed_line = line;
    reading->status =
        gapless_error_set(reading->error, GAPLESS_INVALID, 0, "%.100s:%u: %s",
                          reading->study->path, line, what);
    return false;
}

static bool no_memory(struct reading *reading)
{
    reading->failed_line = reading->line;
    reading->status =
        gapless_error_set(reading->error, GAPLESS_NO_MEMORY, 0,
                          "no memory to read %.100s", reading->study->path);
    return false;
}

/* One more place in a list; false: no memory. */
static bool grow(void *list, size_t count, size_t size)
{
    void *old, *more;

    memcpy(&old, list, sizeof old);
    more = realloc(old, (count + 1) * size);
    if (more == NULL)
        return false;
    memset((char *)more + count * size, 0, size);
    memcpy(list, &more, sizeof more);
    return true;
}

/* ---- sections ------------------------------------------------------------ */

static bool plain_name(const char *text, size_t bytes)
{
    if (bytes == 0 || bytes >= STUDY_NAME_MAX || !isalnum((unsigned char)text[0]))
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (!isalnum((unsigned char)text[i]) && strchr("._-", text[i]) == NULL)
            return false;
    return true;
}

static bool grid_begin(struct reading *reading, const char *name, size_t bytes)
{
    struct study *study = reading->study;
    struct study_grid *grid;

    if (bytes == 0) {
        name = "grid";
        bytes = 4;
    } else if (!plain_name(name, bytes) || bytes > 40) {
        return refuse(
            reading, reading->line,
            "a grid's name takes letters, digits, '.', '_' and '-', at most 40 "
            "of them; it begins the names of folders");
    }
    for (size_t i = 0; i < study->grids; i++)
        if (strlen(study->grid[i].name) == bytes &&
            memcmp(study->grid[i].name, name, bytes) == 0)
            return refuse(reading, reading->line,
                          "there is a grid of this name in line %u: write [grid NAME] "
                          "with another",
                          study->grid[i].line);
    if (!grow(&study->grid, study->grids, sizeof *study->grid))
        return no_memory(reading);
    grid = &study->grid[study->grids++];
    (void)snprintf(grid->name, sizeof grid->name, "%.*s", (int)bytes, name);
    grid->line = reading->line;
    reading->section = SECTION_GRID;
    return true;
}

/* `text` is what stands between the brackets. */
static bool section_begin(struct reading *reading, const char *text, size_t bytes)
{
    static const char *const names[] = {
        [SECTION_STUDY] = "study", [SECTION_RUN] = "run", [SECTION_GRID] = "grid"};

    reading->last = 0;
    while (bytes > 0 && isspace((unsigned char)text[bytes - 1]))
        bytes--;
    while (bytes > 0 && isspace((unsigned char)*text))
        text++, bytes--;
    if (bytes > 4 && strncmp(text, "grid", 4) == 0 && isspace((unsigned char)text[4])) {
        size_t skip = 4 + strspn(text + 4, BLANKS);

        return grid_begin(reading, text + skip, bytes - skip);
    }
    for (enum section i = SECTION_STUDY; i <= SECTION_GRID; i++) {
        if (strlen(names[i]) != bytes || strncmp(text, names[i], bytes) != 0)
            continue;
        if (i == SECTION_GRID)
            return grid_begin(reading, "", 0);
        if (reading->seen[i])
            return refuse(reading, reading->line, "there is a section [%s] already",
                          names[i]);
        reading->seen[i] = true;
        reading->section = i;
        return true;
    }
    return refuse(
        reading, reading->line,
        "there is no section [%.*s]; there are [study], [run] and [grid NAME]",
        (int)(bytes < 60 ? bytes : 60), text);
}

/* ---- lines --------------------------------------------------------------- */

/* Notes a section: the library tells of one only when there is a key in it. */
static bool line_look(struct reading *reading, const char *line)
{
    const char *text = line, *end;

    reading->indented = *text == ' ' || *text == '\t';
    text += strspn(text, BLANKS);
    if (*text != '[' || (reading->indented && reading->last != 0))
        return true;
    end = strchr(text, ']');
    if (end == NULL)
        return refuse(reading, reading->line, "the section's name ends with ']'");
    return section_begin(reading, text + 1, (size_t)(end - text) - 1);
}

/* For the library: the next line into a buffer of `size` bytes; NULL: no more. */
static char *next_line(char *ret, int size, void *context)
{
    struct reading *reading = context;
    char *line;
    int status;

    if (reading->status != GAPLESS_OK)
        return NULL;
    status = text_file_line(&reading->file, &line, reading->error);
    if (status == GAPLESS_STOPPED)
        return NULL;
    reading->line = (unsigned)reading->file.line;
    if (status != GAPLESS_OK) {
        reading->failed_line = reading->line;
        reading->status = status;
        return NULL;
    }
    if (snprintf(ret, (size_t)size, "%s\n", line) >= size) {
        (void)refuse(reading, reading->line,
                     "the line is longer than %d bytes: go on in the next one, "
                     "which then begins with a blank",
                     size - 2);
        return NULL;
    }
    return line_look(reading, ret) ? ret : NULL;
}

/* ---- keys and values ----------------------------------------------------- */

static struct study_options *options_of(struct reading *reading)
{
    struct study *study = reading->study;

    switch (reading->section) {
    case SECTION_STUDY:
        return &study->head;
    case SECTION_RUN:
        return &study->run;
    case SECTION_GRID:
        return &study->grid[study->grids - 1].options;
    case SECTION_NONE:
        break;
    }
    return NULL;
}

static bool value_add(struct reading *reading, struct study_option *option,
                      const char *text, size_t bytes)
{
    char *copy = strndup(text, bytes);

    if (copy == NULL)
        return no_memory(reading);
    if (!grow(&option->value, option->count, sizeof *option->value)) {
        free(copy);
        return no_memory(reading);
    }
    option->value[option->count++] = (struct study_value){copy, reading->line};
    return true;
}

/* Words, and texts in quotes. */
static bool values_split(struct reading *reading, struct study_option *option,
                         const char *text)
{
    while (*(text += strspn(text, BLANKS)) != '\0') {
        bool quoted = *text == '"';
        size_t bytes = strcspn(text += quoted, quoted ? "\"" : BLANKS);

        if (quoted && (text[bytes] != '"' ||
                       (text[bytes + 1] != '\0' && !strchr(BLANKS, text[bytes + 1]))))
            return refuse(reading, reading->line,
                          "a value that begins with a quotation mark ends with one");
        if (!value_add(reading, option, text, bytes))
            return false;
        text += bytes + quoted;
    }
    return true;
}

/* One text, over all its lines. */
static bool value_extend(struct reading *reading, struct study_option *option,
                         const char *text)
{
    size_t bytes = strlen(text), old;
    char *more;

    if (bytes == 0)
        return true;
    if (option->count == 0) {
        bool quoted = bytes >= 2 && text[0] == '"' && text[bytes - 1] == '"';

        return value_add(reading, option, quoted ? text + 1 : text,
                         quoted ? bytes - 2 : bytes);
    }
    old = strlen(option->value[0].text);
    more = realloc(option->value[0].text, old + bytes + 2);
    if (more == NULL)
        return no_memory(reading);
    more[old] = ' ';
    memcpy(more + old + 1, text, bytes + 1);
    option->value[0].text = more;
    return true;
}

/* NAME = VALUE behind blanks is rather a key than the rest of a list. */
static bool looks_like_key(const char *text)
{
    size_t bytes = strspn(text, "abcdefghijklmnopqrstuvwxyz-");

    return bytes > 0 && text[bytes + strspn(text + bytes, BLANKS)] == '=';
}

static bool option_go_on(struct reading *reading, struct study_option *option,
                         char *text)
{
    for (char *at = strchr(text, ';'); at != NULL; at = strchr(at + 1, ';'))
        if (at > text && isspace((unsigned char)at[-1])) {
            *at = '\0'; /* a comment, as the library finds it in other lines */
            break;
        }
    for (size_t bytes = strlen(text);
         bytes > 0 && isspace((unsigned char)text[bytes - 1]); bytes--)
        text[bytes - 1] = '\0';
    if (reading->section != SECTION_STUDY && looks_like_key(text))
        return refuse(reading, reading->line,
                      "a line that begins with a blank goes on with the value of '%s'; "
                      "if it is not meant to, take the blank away",
                      option->name);
    return reading->section == SECTION_GRID ? values_split(reading, option, text)
                                            : value_extend(reading, option, text);
}

static bool option_begin(struct reading *reading, const char *name, const char *text)
{
    struct study_options *options = options_of(reading);
    struct study_option *option;

    if (options == NULL)
        return refuse(reading, reading->line,
                      "'%.60s' stands in no section; write [study], [run] or [grid] "
                      "above it",
                      name);
    for (size_t i = 0; i < options->count; i++)
        if (strcmp(options->option[i].name, name) == 0)
            return refuse(reading, reading->line,
                          "'%.60s' stands in line %u already; values of a grid go "
                          "behind one another",
                          name, options->option[i].line);
    if (!grow(&options->option, options->count, sizeof *options->option))
        return no_memory(reading);
    option = &options->option[options->count];
    option->line = reading->line;
    option->name = strdup(name);
    if (option->name == NULL)
        return no_memory(reading);
    reading->last = ++options->count;
    return reading->section == SECTION_GRID ? values_split(reading, option, text)
                                            : value_extend(reading, option, text);
}

/* For the library: a key and its value, or a further line of the value. */
static int handle(void *context, const char *section, const char *name,
                  const char *value)
{
    struct reading *reading = context;
    char *copy;
    bool ok;

    (void)section;
    if (reading->status != GAPLESS_OK)
        return 0;
    if (!reading->indented || reading->last == 0)
        return option_begin(reading, name, value != NULL ? value : "");
    copy = strdup(value != NULL ? value : "");
    if (copy == NULL)
        return no_memory(reading);
    ok = option_go_on(reading, &options_of(reading)->option[reading->last - 1], copy);
    free(copy);
    return ok;
}

/* ---- public -------------------------------------------------------------- */

static void options_free(struct study_options *options)
{
    for (size_t i = 0; i < options->count; i++) {
        for (size_t j = 0; j < options->option[i].count; j++)
            free(options->option[i].value[j].text);
        free(options->option[i].value);
        free(options->option[i].name);
    }
    free(options->option);
}

void study_close(struct study *study)
{
    options_free(&study->head);
    options_free(&study->run);
    for (size_t i = 0; i < study->grids; i++)
        options_free(&study->grid[i].options);
    free(study->grid);
    free(study->left_out);
    memset(study, 0, sizeof *study);
}

/* Where no grid is written there is one run. */
static bool some_grid(struct reading *reading)
{
    return reading->study->grids > 0 || grid_begin(reading, "run", 3);
}

/* Of an open file, which it closes. */
static int read_lines(struct reading *reading, struct study *ret)
{
    struct study *study = reading->study;
    int wrong = ini_parse_stream(next_line, reading, handle, reading);

    text_file_close(&reading->file);
    if (wrong > 0 &&
        (reading->status == GAPLESS_OK || (unsigned)wrong < reading->failed_line)) {
        reading->status = GAPLESS_OK;
        (void)refuse(reading, (unsigned)wrong,
                     "this is neither NAME = VALUE, nor a [section], nor a comment "
                     "(; or #)");
    }
    if (wrong == -2)
        (void)no_memory(reading);
    if (reading->status == GAPLESS_OK && some_grid(reading))
        reading->status = study_resolve(study, reading->error);
    if (reading->status != GAPLESS_OK) {
        study_close(study);
        return reading->status;
    }
    *ret = *study;
    return GAPLESS_OK;
}

int study_read_stream(FILE *stream, const char *path, struct study *ret,
                      struct gapless_error *error)
{
    struct study study = {.target = STUDY_TARGET, .about = ""};
    struct reading reading = {.study = &study, .error = error};
    int status = text_file_stream(&reading.file, stream, path, LINE_MAX_BYTES, error);

    (void)snprintf(study.path, sizeof study.path, "%s", path);
    return status == GAPLESS_OK ? read_lines(&reading, ret) : status;
}

int study_read(const char *path, struct study *ret, struct gapless_error *error)
{
    struct study study = {.target = STUDY_TARGET, .about = ""};
    struct reading reading = {.study = &study, .error = error};
    int status = text_file_open(&reading.file, path, "the study", STUDY_FILE_MAX,
                                LINE_MAX_BYTES, error);

    (void)snprintf(study.path, sizeof study.path, "%s", path);
    return status == GAPLESS_OK ? read_lines(&reading, ret) : status;
}
