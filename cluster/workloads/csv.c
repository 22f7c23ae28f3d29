/* Tables of numbers with a column of labels: csv:FILE[:label=COLUMN].
 *
 *     sepal,petal,species        the first line names the columns
 *     5.1,1.4,setosa             then a sample a line: numbers, and one label
 *     6.3,"4.7",versicolor       which is a whole number or a name
 *
 * FILE is one file, of which every fifth row is for testing, or a folder with train.csv
 * and test.csv. Values are separated by commas, or by semicolons or tabs where the first
 * line has those and no comma. What is no number, is missing, or is one value too many
 * is refused with the line and the column: a table that is read wrongly trains, too.
 *
 * The file is read twice, to count and check, then to fill: it may be larger than
 * memory would hold twice.
 */
#include "cluster/workloads/data_image.h"

#include "engine/base/text_file.h"

#include <float.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum {
    LINE_MAX_BYTES = 4 << 20, /* 64 for each of the most columns */
    COLUMNS_MAX = 65536,
    TEST_EVERY = 5,
    CLASS_NAME_MAX = 64,
    LISTED_BYTES = 200 /* of a list of names in a message */
};
#define FILE_BYTES_MAX (UINT64_C(1) << 38)

/* A table being read. */
struct csv {
    char path[2][PATH_MAX]; /* [1] is "" where one file has both parts */
    char label_name[128];   /* of the column; "": not given */
    struct text_file file;
    char separator;
    uint32_t columns, label; /* the label's among them */
    char *heading;           /* the first line, cut up */
    char **title;            /* columns pointers into it */
    char **value;            /* of the present line */
    char class_name[DATA_CLASSES_MAX][CLASS_NAME_MAX];
    uint32_t classes;
    const struct data_standard *as; /* whose classes they are; NULL: found here */
    bool two;                       /* files */
    uint64_t rows[2];               /* of each part */
    struct data_image *image;       /* NULL: only counted and checked */
};

static int refuse(const struct csv *csv, struct gapless_error *error,
                  const char *format, ...) __attribute__((format(printf, 3, 4)));

/* "table.csv:17: ..." */
static int refuse(const struct csv *csv, struct gapless_error *error,
                  const char *format, ...)
{
    char what[360];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(what, sizeof what, format, list);
    va_end(list);
    return gapless_error_set(error, GAPLESS_CORRUPT, 0, "%s:%" PRIu64 ": %s",
                             data_path_tail(csv->file.path), csv->file.line, what);
}

/* ---- values of a line ---------------------------------------------------- */

/* Takes blanks away at both ends. */
static char *trimmed(char *text)
{
    char *end;

    text += strspn(text, " \t");
    end = text + strlen(text);
    while (end > text && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *end = '\0';
    return text;
}

/* What is behind an opening quote, up to the closing one; "" is one quote. NULL: it is
 * not closed. */
static char *cut_quoted(char *text, char **ret_rest)
{
    char *start = text, *to = text;

    for (; *text != '\0'; *to++ = *text++) {
        if (*text == '"' && *++text != '"') {
            *ret_rest = text;
            *to = '\0';
            return start;
        }
    }
    return NULL;
}

/* Cuts a line into its values, in place. Returns how many there are, of which the first
 * `max` are in ret; 0: a quote is not closed, or something follows it. */
static uint32_t cut_line(char *line, char separator, char **ret, uint32_t max)
{
    const char *blanks = separator == '\t' ? " " : " \t";
    uint32_t count = 0;

    for (char *rest = line; rest != NULL; count++) {
        char *value = rest + strspn(rest, blanks), *end;

        if (*value == '"') {
            value = cut_quoted(value + 1, &end);
            if (value == NULL)
                return 0;
            end += strspn(end, blanks);
            if (*end != separator && *end != '\0')
                return 0;
        } else {
            end = value + strcspn(value, (const char[]){separator, '\0'});
        }
        rest = *end != '\0' ? end + 1 : NULL;
        *end = '\0';
        if (count < max)
            ret[count] = trimmed(value);
    }
    return count;
}

static bool is_missing(const char *text)
{
    static const char *const words[] = {"", "na", "n/a", "nan", "null", "none", "?"};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcasecmp(text, words[i]) == 0)
            return true;
    return false;
}

/* Decimal and finite, for a float. */
static bool read_number(const char *text, float *ret)
{
    char *end;
    double value;

    if (text[0] == '\0' || text[strspn(text, "+-.0123456789eE")] != '\0')
        return false; /* strtod also knows nan, inf and hexadecimal */
    value = strtod(text, &end);
    if (*end != '\0' || !(fabs(value) <= (double)FLT_MAX))
        return false;
    *ret = (float)value;
    return true;
}

static int no_number(const struct csv *csv, uint32_t column,
                     struct gapless_error *error)
{
    const char *text = csv->value[column], *title = csv->title[column];

    if (is_missing(text))
        return refuse(csv, error,
                      "column %.60s has no value ('%.20s'): fill it in, or leave out "
                      "such rows",
                      title, text);
    if (csv->separator == ';' && strchr(text, ',') != NULL)
        return refuse(csv, error,
                      "column %.60s: '%.40s' is no number: write a decimal point",
                      title, text);
    return refuse(csv, error,
                  "column %.60s: '%.40s' is no finite number; turn names into numbers, "
                  "or leave the column out",
                  title, text);
}

/* ---- labels -------------------------------------------------------------- */

/* A label as it is kept: whole numbers without a point, names as they are. False: it is
 * a number with a fraction. */
static bool label_text(const char *text, char ret[CLASS_NAME_MAX])
{
    float value;

    if (!read_number(text, &value)) {
        (void)snprintf(ret, CLASS_NAME_MAX, "%.*s", CLASS_NAME_MAX - 1, text);
        return true;
    }
    (void)snprintf(ret, CLASS_NAME_MAX, "%.0f", (double)value);
    return fabsf(value) < 1e6F && !(fabsf(value - roundf(value)) > 0.0F);
}

static bool find_class(const struct csv *csv, const char *name, uint32_t *ret)
{
    for (uint32_t i = 0; i < csv->classes; i++)
        if (strcmp(csv->class_name[i], name) == 0) {
            *ret = i;
            return true;
        }
    return false;
}

/* "a, b, c, ..." */
static const char *list_names(const char *const *names, uint32_t count,
                              char ret[LISTED_BYTES])
{
    size_t used = 0;

    ret[0] = '\0';
    for (uint32_t i = 0; i < count; i++) {
        if (used + strlen(names[i]) + 8 > LISTED_BYTES) {
            (void)snprintf(ret + used, LISTED_BYTES - used, ", ...");
            break;
        }
        used += (size_t)snprintf(ret + used, LISTED_BYTES - used, "%s%s",
                                 i > 0 ? ", " : "", names[i]);
    }
    return ret;
}

static int unknown_class(const struct csv *csv, const char *name,
                         struct gapless_error *error)
{
    const char *names[DATA_CLASSES_MAX];
    char list[LISTED_BYTES];

    for (uint32_t i = 0; i < csv->classes; i++)
        names[i] = csv->class_name[i];
    return refuse(csv, error, "the label '%.40s' is none of %s: %s", name,
                  csv->as != NULL ? "the model's classes" : "the training rows'",
                  list_names(names, csv->classes, list));
}

/* The class of the present line; a new one is added where that is allowed. */
static int read_label(struct csv *csv, bool add, uint32_t *ret,
                      struct gapless_error *error)
{
    const char *text = csv->value[csv->label], *title = csv->title[csv->label];
    char name[CLASS_NAME_MAX];

    if (is_missing(text))
        return refuse(csv, error, "there is no label ('%.20s' in column %.60s)", text,
                      title);
    if (strlen(text) >= sizeof name)
        return refuse(csv, error, "the label '%.20s...' has more than %d bytes", text,
                      CLASS_NAME_MAX - 1);
    if (!label_text(text, name))
        return refuse(csv, error,
                      "the label %.40s in column %.60s is no class: a label is a whole "
                      "number or a name",
                      text, title);
    if (find_class(csv, name, ret))
        return GAPLESS_OK;
    if (!add)
        return unknown_class(csv, name, error);
    if (csv->classes == DATA_CLASSES_MAX)
        return refuse(
            csv, error,
            "column %.60s has more than %d different labels: is it the column "
            "of the labels?",
            title, DATA_CLASSES_MAX);
    *ret = csv->classes;
    memcpy(csv->class_name[csv->classes++], name, sizeof name);
    return GAPLESS_OK;
}

/* Numbers by their size, before names by their bytes. */
static int compare_classes(const void *a, const void *b)
{
    float x = 0.0F, y = 0.0F;
    bool left = read_number(a, &x), right = read_number(b, &y);

    if (left && right)
        return (x > y) - (x < y);
    if (left != right)
        return left ? -1 : 1;
    return strcmp(a, b);
}

/* ---- rows ---------------------------------------------------------------- */

/* The present line, of a part: counted and checked, or put into the image. */
static int take_row(struct csv *csv, enum data_part part, struct gapless_error *error)
{
    struct data_image *image = csv->image;
    uint64_t row = csv->rows[part]++;
    uint32_t features = csv->columns - 1, at = 0, label = 0;
    bool add = csv->as == NULL && image == NULL && (part == DATA_TRAIN || !csv->two);
    int status = read_label(csv, add, &label, error);

    if (status != GAPLESS_OK)
        return status;
    if (image != NULL && row >= (part == DATA_TRAIN ? image->shape.train_count
                                                    : image->shape.test_count))
        return refuse(csv, error, "the file has grown while it was read");
    for (uint32_t i = 0; i < csv->columns; i++) {
        float value = 0.0F;

        if (i == csv->label)
            continue;
        if (!read_number(csv->value[i], &value))
            return no_number(csv, i, error);
        if (image != NULL)
            (part == DATA_TRAIN ? image->train_numbers
                                : image->test_numbers)[row * features + at++] = value;
    }
    if (image != NULL)
        (part == DATA_TRAIN ? image->train_y : image->test_y)[row] = (uint8_t)label;
    return GAPLESS_OK;
}

static int refuse_quote(const struct csv *csv, struct gapless_error *error)
{
    return refuse(csv, error,
                  "a quote is not closed on this line, or something follows it; a "
                  "value may not go over several lines");
}

static int take_line(struct csv *csv, char *line, enum data_part part,
                     struct gapless_error *error)
{
    uint32_t values = cut_line(line, csv->separator, csv->value, csv->columns);

    if (values == 0)
        return refuse_quote(csv, error);
    if (values != csv->columns)
        return refuse(csv, error, "%u values, where the first line names %u columns",
                      values, csv->columns);
    return take_row(csv, part, error);
}

/* ---- the first line ------------------------------------------------------ */

static char separator_of(const char *line)
{
    if (strchr(line, ',') != NULL)
        return ',';
    if (strchr(line, ';') != NULL)
        return ';';
    return strchr(line, '\t') != NULL ? '\t' : ',';
}

static bool all_numbers(char *const *values, uint32_t count)
{
    float value;

    for (uint32_t i = 0; i < count; i++)
        if (!read_number(values[i], &value))
            return false;
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Each column has a name of its own: a model is used by the names. */
static int check_names(const struct csv *csv, struct gapless_error *error)
{
    char **sorted = calloc(csv->columns, sizeof *sorted);
    const char *twice = NULL;

    if (sorted == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a table");
    memcpy(sorted, csv->title, csv->columns * sizeof *sorted);
    qsort(sorted, csv->columns, sizeof *sorted, compare_names);
    for (uint32_t i = 1; i < csv->columns && twice == NULL; i++)
        if (strcmp(sorted[i - 1], sorted[i]) == 0)
            twice = sorted[i];
    free(sorted);
    if (twice == NULL)
        return GAPLESS_OK;
    return refuse(
        csv, error,
        "more than one column is called '%.60s': give each a name of its own, "
        "or leave one out",
        twice);
}

/* The column of the labels: as named, or "label". */
static int find_label(struct csv *csv, struct gapless_error *error)
{
    const char *wanted = csv->label_name[0] != '\0' ? csv->label_name : "label";
    char list[LISTED_BYTES];

    for (uint32_t i = 0; i < csv->columns; i++)
        if (strcmp(csv->title[i], wanted) == 0) {
            csv->label = i;
            return GAPLESS_OK;
        }
    (void)list_names((const char *const *)csv->title, csv->columns, list);
    if (csv->label_name[0] != '\0')
        return refuse(csv, error, "no column is called %.60s; there are %s", wanted,
                      list);
    return refuse(csv, error,
                  "no column is called label: name the one that has the labels, --data "
                  "csv:FILE:label=COLUMN; there are %s",
                  list);
}

/* Keeps the first line, cut up. */
static int keep_heading(struct csv *csv, char separator, uint32_t columns,
                        char *heading, char **titles, struct gapless_error *error)
{
    int status;

    csv->separator = separator;
    csv->columns = columns;
    csv->heading = heading;
    csv->title = titles;
    csv->value = calloc((size_t)columns + 1, sizeof *csv->value);
    if (csv->value == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a table");
    if (columns == 0)
        return refuse_quote(csv, error);
    if (columns < 2 || columns > COLUMNS_MAX)
        return refuse(csv, error,
                      "%u column%s: a table has a column of labels and 1 to %d "
                      "others, separated by commas, semicolons or tabs",
                      columns, columns == 1 ? "" : "s", COLUMNS_MAX - 1);
    if (all_numbers(titles, columns))
        return refuse(csv, error,
                      "the first line has numbers, where the names of the columns "
                      "should be: put a line before it, such as x1,x2,label");
    status = check_names(csv, error);
    return status == GAPLESS_OK ? find_label(csv, error) : status;
}

/* Keeps the names of the columns; of a second file they must be the same. */
static int take_heading(struct csv *csv, const char *line, struct gapless_error *error)
{
    char separator = separator_of(line), **titles;
    char *heading = strdup(line), *counted = strdup(line);
    uint32_t columns = counted != NULL ? cut_line(counted, separator, NULL, 0) : 0;
    bool same;

    free(counted);
    titles = calloc((size_t)columns + 1, sizeof *titles);
    if (heading == NULL || titles == NULL) {
        free(titles);
        free(heading);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a table");
    }
    (void)cut_line(heading, separator, titles, columns);
    if (csv->title == NULL)
        return keep_heading(csv, separator, columns, heading, titles, error);
    same = columns == csv->columns && separator == csv->separator;
    for (uint32_t i = 0; same && i < columns; i++)
        same = strcmp(titles[i], csv->title[i]) == 0;
    free(titles);
    free(heading);
    return same ? GAPLESS_OK
                : refuse(csv, error, "other columns than %s has",
                         data_path_tail(csv->path[0]));
}

/* ---- files --------------------------------------------------------------- */

/* One file from its beginning to its end. */
static int read_file(struct csv *csv, int which, struct gapless_error *error)
{
    char *line;
    uint64_t rows = 0;
    int status = text_file_open(&csv->file, csv->path[which], "the table",
                                FILE_BYTES_MAX, LINE_MAX_BYTES, error);

    if (status != GAPLESS_OK)
        return status;
    status = text_file_line(&csv->file, &line, error);
    if (status == GAPLESS_STOPPED)
        status = refuse(csv, error, "the file is empty");
    if (status == GAPLESS_OK)
        status = take_heading(csv, line, error);
    while (status == GAPLESS_OK &&
           (status = text_file_line(&csv->file, &line, error)) == GAPLESS_OK) {
        enum data_part part = csv->two ? (which == 0 ? DATA_TRAIN : DATA_TEST)
                              : rows % TEST_EVERY == TEST_EVERY - 1 ? DATA_TEST
                                                                    : DATA_TRAIN;

        if (line[strspn(line, " \t")] == '\0')
            continue; /* editors leave blank lines */
        status = take_line(csv, line, part, error);
        rows++;
    }
    text_file_close(&csv->file);
    return status == GAPLESS_STOPPED ? GAPLESS_OK : status;
}

static int read_files(struct csv *csv, struct gapless_error *error)
{
    int status;

    csv->rows[DATA_TRAIN] = csv->rows[DATA_TEST] = 0;
    status = read_file(csv, 0, error);
    return status == GAPLESS_OK && csv->two ? read_file(csv, 1, error) : status;
}

/* The file, or the two of a folder. */
static int find_files(struct csv *csv, const char *path, struct gapless_error *error)
{
    struct stat info;
    int used = snprintf(csv->path[0], PATH_MAX, "%s", path), more = 0;

    csv->two = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    if (csv->two) {
        used = snprintf(csv->path[0], PATH_MAX, "%s/train.csv", path);
        more = snprintf(csv->path[1], PATH_MAX, "%s/test.csv", path);
    }
    if (used >= PATH_MAX || more >= PATH_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "the path is too long");
    return GAPLESS_OK;
}

/* The classes that a model has: numbers where they have no names. */
static void take_classes(struct csv *csv, const struct data_standard *as)
{
    const char *names = as->class_names;

    csv->classes = as->classes;
    for (uint32_t i = 0; i < as->classes; i++) {
        size_t bytes = strcspn(names, "\n");

        if (names[0] == '\0')
            (void)snprintf(csv->class_name[i], CLASS_NAME_MAX, "%u", i);
        else
            (void)snprintf(csv->class_name[i], CLASS_NAME_MAX, "%.*s", (int)bytes,
                           names);
        names += bytes + (names[bytes] == '\n');
    }
}

/* The names of classes and columns as the image keeps them. */
static char *words_of(const struct csv *csv, size_t *ret_bytes)
{
    char *ret = NULL;
    FILE *out = open_memstream(&ret, ret_bytes);
    bool good;
    uint32_t listed = 0;

    if (out == NULL)
        return NULL;
    for (uint32_t i = 0; i < csv->classes; i++)
        (void)fprintf(out, "%s%s", i > 0 ? "\n" : "", csv->class_name[i]);
    (void)fputc('\0', out);
    for (uint32_t i = 0; i < csv->columns; i++)
        if (i != csv->label)
            (void)fprintf(out, "%s%s", listed++ > 0 ? "\n" : "", csv->title[i]);
    (void)fputc('\0', out);
    good = ferror(out) == 0;
    if (fclose(out) == 0 && good)
        return ret;
    free(ret);
    return NULL;
}

/* What the first reading has found. */
static int check_survey(struct csv *csv, struct gapless_error *error)
{
    const char *path = data_path_tail(csv->path[0]);

    if (csv->rows[DATA_TRAIN] == 0 || csv->rows[DATA_TEST] == 0)
        return gapless_error_set(
            error, GAPLESS_CORRUPT, 0,
            "%s: %llu rows for training and %llu for testing: %s", path,
            (unsigned long long)csv->rows[DATA_TRAIN],
            (unsigned long long)csv->rows[DATA_TEST],
            csv->two ? "both files need some"
                     : "every fifth row is for testing, so there must be five");
    if (csv->classes < 2)
        return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                 "%s: every label in column %.60s is '%.40s': there is "
                                 "nothing to tell apart",
                                 path, csv->title[csv->label], csv->class_name[0]);
    if (csv->rows[DATA_TRAIN] > UINT32_MAX || csv->rows[DATA_TEST] > UINT32_MAX)
        return gapless_error_set(error, GAPLESS_CORRUPT, 0, "%s has too many rows",
                                 path);
    return GAPLESS_OK;
}

/* The columns that the model was trained on. */
static int check_columns(const struct csv *csv, const char *columns,
                         struct gapless_error *error)
{
    const char *wanted = csv->as->column_names;

    if (wanted[0] == '\0' || strcmp(wanted, columns) == 0)
        return GAPLESS_OK;
    return gapless_error_set(
        error, GAPLESS_INVALID, 0,
        "%s has other columns, or in another order, than the model "
        "was trained on: %.150s",
        data_path_tail(csv->path[0]), wanted);
}

/* The second reading. */
static int fill(struct csv *csv, const struct data_from *from, struct data **ret,
                struct gapless_error *error)
{
    struct data_image image;
    struct data_shape shape = {.train_count = (uint32_t)csv->rows[DATA_TRAIN],
                               .test_count = (uint32_t)csv->rows[DATA_TEST],
                               .features = csv->columns - 1,
                               .classes = csv->classes,
                               .numbers = 1};
    size_t bytes = 0;
    char *words = words_of(csv, &bytes);
    int status;

    if (words == NULL || bytes > UINT32_MAX) {
        free(words);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a table");
    }
    shape.words_bytes = (uint32_t)bytes;
    status = csv->as != NULL ? check_columns(csv, words + strlen(words) + 1, error)
                             : GAPLESS_OK;
    if (status == GAPLESS_OK)
        status = data_image_new(from, &shape, &image, error);
    if (status != GAPLESS_OK) {
        free(words);
        return status;
    }
    memcpy(image.words, words, bytes);
    free(words);
    csv->image = &image;
    status = read_files(csv, error);
    if (status == GAPLESS_OK && (csv->rows[DATA_TRAIN] != shape.train_count ||
                                 csv->rows[DATA_TEST] != shape.test_count))
        status = gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                   "%s has changed while it was read",
                                   data_path_tail(csv->path[0]));
    if (status == GAPLESS_OK)
        return data_image_finish(&image, ret, error);
    data_image_drop(&image);
    return status;
}

int data_read_csv(const struct data_from *from, struct data **ret,
                  struct gapless_error *error)
{
    const char *label = data_label_of(from->name);
    struct csv *csv = calloc(1, sizeof *csv);
    int status;

    if (csv == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a table");
    csv->as = from->as;
    (void)snprintf(csv->label_name, sizeof csv->label_name, "%s",
                   label != NULL ? label : "");
    if (from->as != NULL)
        take_classes(csv, from->as);
    status = find_files(csv, from->dir, error);
    if (status == GAPLESS_OK)
        status = read_files(csv, error);
    if (status == GAPLESS_OK)
        status = check_survey(csv, error);
    if (status == GAPLESS_OK && from->as == NULL)
        qsort(csv->class_name, csv->classes, sizeof csv->class_name[0],
              compare_classes);
    if (status == GAPLESS_OK)
        status = fill(csv, from, ret, error);
    free(csv->value);
    free(csv->title);
    free(csv->heading);
    free(csv);
    return status;
}
