/* Options after they were read: where one came from, whether two sets agree, and
 * handing them on to another process. */
#include "cluster/options/options_table.h"

#include <string.h>

enum option_source options_source(const struct settings *settings, const char *name)
{
    enum option_source found = OPTION_UNSET;

    for (unsigned i = 0; i < options_count; i++)
        if (strcmp(options_table[i].name, name) == 0 && settings->source[i] > found)
            found = settings->source[i];
    return found;
}

const char *options_text(const struct settings *settings, const char *name)
{
    const char *found = NULL;

    for (unsigned i = 0; i < options_count; i++)
        if (strcmp(options_table[i].name, name) == 0 && settings->text[i] != NULL)
            found = settings->text[i];
    return found;
}

static bool same_number(double a, double b)
{
    return !(a < b) && !(a > b);
}

static bool same_span(const struct span *a, const struct span *b)
{
    return a->unit == b->unit && same_number(a->amount, b->amount);
}

static bool same_steps(const struct milestones *a, const struct milestones *b)
{
    if (a->count != b->count)
        return false;
    for (uint32_t i = 0; i < a->count; i++)
        if (!same_span(&a->step[i].at, &b->step[i].at) ||
            !same_number(a->step[i].factor, b->step[i].factor))
            return false;
    return true;
}

static bool same_counts(const struct counts *a, const struct counts *b)
{
    return a->count == b->count && memcmp(a->at, b->at, a->count * sizeof *a->at) == 0;
}

static bool same_value(const struct option_row *row, const struct settings *a,
                       const struct settings *b)
{
    const void *left = (const char *)a + row->offset;
    const void *right = (const char *)b + row->offset;

    switch (row->kind) {
    case KIND_FLAG:
        return *(const bool *)left == *(const bool *)right;
    case KIND_COUNT32:
        return *(const uint32_t *)left == *(const uint32_t *)right;
    case KIND_COUNT64:
    case KIND_PARAMETERS:
    case KIND_RULES:
    case KIND_CHOICES:
        return *(const uint64_t *)left == *(const uint64_t *)right;
    case KIND_INT:
        return *(const int *)left == *(const int *)right;
    case KIND_REAL:
    case KIND_LINK:
    case KIND_BYTES:
    case KIND_TIME:
        return same_number(*(const double *)left, *(const double *)right);
    case KIND_SPAN:
        return same_span(left, right);
    case KIND_STEPS:
        return same_steps(left, right);
    case KIND_COUNTS:
    case KIND_SIZES:
        return same_counts(left, right);
    case KIND_FILES:
        break; /* two that are given never agree */
    case KIND_SCHEDULE:
        return a->cosine == b->cosine && same_number(a->cosine_to, b->cosine_to);
    case KIND_TEXT:
    case KIND_RULE:
    case KIND_CHOICE:
    case KIND_ADDRESS:
        return strcmp(*(const char *const *)left, *(const char *const *)right) == 0;
    }
    return false;
}

bool options_same(const struct settings *a, const struct settings *b, const char *name)
{
    for (unsigned i = 0; i < options_count; i++) {
        if (strcmp(options_table[i].name, name) != 0 ||
            (a->text[i] == NULL && b->text[i] == NULL))
            continue;
        if (a->text[i] == NULL || b->text[i] == NULL ||
            !same_value(&options_table[i], a, b))
            return false;
    }
    return true;
}

static size_t value_bytes(enum option_kind kind)
{
    switch (kind) {
    case KIND_FLAG:
        return sizeof(bool);
    case KIND_COUNT32:
        return sizeof(uint32_t);
    case KIND_COUNT64:
    case KIND_PARAMETERS:
    case KIND_RULES:
    case KIND_CHOICES:
        return sizeof(uint64_t);
    case KIND_INT:
        return sizeof(int);
    case KIND_REAL:
    case KIND_LINK:
    case KIND_BYTES:
    case KIND_TIME:
        return sizeof(double);
    case KIND_COUNTS:
    case KIND_SIZES:
        return sizeof(struct counts);
    case KIND_FILES:
        return sizeof(struct files);
    case KIND_SPAN:
        return sizeof(struct span);
    case KIND_STEPS:
        return sizeof(struct milestones);
    case KIND_TEXT:
    case KIND_RULE:
    case KIND_CHOICE:
    case KIND_ADDRESS:
        return sizeof(const char *);
    case KIND_SCHEDULE:
        break; /* two members */
    }
    return 0;
}

void options_take(struct settings *to, const struct settings *from, const char *name)
{
    for (unsigned i = 0; i < options_count; i++) {
        const struct option_row *row = &options_table[i];

        if (strcmp(row->name, name) != 0)
            continue;
        memcpy((char *)to + row->offset, (const char *)from + row->offset,
               value_bytes(row->kind));
        if (row->kind == KIND_SCHEDULE) {
            to->cosine = from->cosine;
            to->cosine_to = from->cosine_to;
        }
        to->text[i] = from->text[i];
        to->source[i] = from->source[i];
    }
}

static bool listed(const char *name, const char *const *list)
{
    for (; *list != NULL; list++)
        if (strcmp(name, *list) == 0)
            return true;
    return false;
}

bool options_emit(const struct settings *settings, enum option_command command,
                  const char *const *except, char **argv, size_t max, size_t *count)
{
    for (unsigned i = 0; i < options_count; i++) {
        const struct option_row *row = &options_table[i];
        int bytes;

        if ((row->commands & command) == 0 || settings->text[i] == NULL ||
            listed(row->name, except))
            continue;
        if (*count == max)
            return false;
        if (row->kind == KIND_FLAG &&
            !*(const bool *)((const char *)settings + row->offset))
            continue;
        bytes = row->kind == KIND_FLAG
                    ? asprintf(&argv[*count], "--%s", row->name)
                    : asprintf(&argv[*count], "--%s=%s", row->name, settings->text[i]);
        if (bytes < 0)
            return false;
        ++*count;
    }
    return true;
}
