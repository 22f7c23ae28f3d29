/* One value of an option, read by the kind of its row. */
#include "cluster/options/options_table.h"

#include <stdio.h>
#include <string.h>

#define SET_MAX 64 /* bits of a set */

const char *options_value_at(const void *context, unsigned index)
{
    const struct option_row *row = context;
    struct gapless_rule rule;

    if (row->kind == KIND_RULE || row->kind == KIND_RULES) {
        unsigned rules = 0;

        if (gapless_rule_at(index, &rule) == GAPLESS_OK)
            return rule.name;
        while (gapless_rule_at(rules, &rule) == GAPLESS_OK)
            rules++;
        index -= rules;
    }
    for (unsigned i = 0; row->choices != NULL && row->choices[i] != NULL; i++)
        if (i == index)
            return row->choices[i];
    return NULL;
}

/* "must be one of: a, b; not 'c'"; or of rules, of which there are too many to list. */
static bool refuse(const struct option_row *row, const char *text,
                   struct parse_error *reason)
{
    struct text_page page = text_page(reason->text, sizeof reason->text);
    const char *near = parse_nearest(text, options_value_at, row), *value;

    if (row->kind == KIND_RULE || row->kind == KIND_RULES) {
        text_add(&page, "knows no rule '%.40s'", text);
    } else {
        for (unsigned i = 0; (value = options_value_at(row, i)) != NULL; i++)
            text_add(&page, "%s%s", i == 0 ? "must be one of: " : ", ", value);
        text_add(&page, "; not '%.40s'", text);
    }
    if (near != NULL)
        text_add(&page, "; did you mean '%s'?", near);
    return false;
}

static const char *word_at(const void *context, unsigned index)
{
    const char *const *words = context;

    return words[index];
}

/* Of a value that may be a word, and was refused as what else it may be: adds the word that
 * was probably meant. `words` ends with NULL. */
static bool refuse_word(const char *text, const char *const *words,
                        struct parse_error *reason)
{
    const char *near = parse_nearest(text, word_at, words);
    size_t said = strlen(reason->text);

    if (near != NULL)
        (void)snprintf(reason->text + said, sizeof reason->text - said,
                       "; did you mean '%s'?", near);
    return false;
}

/* The number of a value, and in *ret what it is called in the table. */
static bool find(const struct option_row *row, const char *text, unsigned *ret_index,
                 const char **ret, struct parse_error *reason)
{
    const char *value;

    for (unsigned i = 0; (value = options_value_at(row, i)) != NULL; i++)
        if (strcmp(value, text) == 0) {
            *ret_index = i;
            *ret = value;
            return true;
        }
    return refuse(row, text, reason);
}

static bool word_set(const struct option_row *row, const char *text, const char **ret,
                     struct parse_error *reason)
{
    unsigned index;

    return find(row, text, &index, ret, reason);
}

/* The words between commas, one after the other; a copy of the list is in `room`. */
#define LIST_MAX 1024
static bool list_begin(const char *text, char room[LIST_MAX],
                       struct parse_error *reason)
{
    if (strlen(text) >= LIST_MAX)
        return parse_refuse(reason, "is too long a list");
    memcpy(room, text, strlen(text) + 1);
    return true;
}

static bool set_set(const struct option_row *row, const char *text, uint64_t *ret,
                    struct parse_error *reason)
{
    char room[LIST_MAX], *rest = room;
    const char *name;
    uint64_t found = 0;
    unsigned index = 0;

    if (!list_begin(text, room, reason))
        return false;
    if (strcmp(text, "all") == 0) {
        for (; options_value_at(row, index) != NULL && index < SET_MAX; index++)
            found |= 1ull << index;
        rest = NULL;
    }
    while (rest != NULL) {
        if (!find(row, strsep(&rest, ","), &index, &name, reason))
            return false;
        if (index >= SET_MAX)
            return parse_refuse(reason,
                                "has no place for %s: at most %d are distinguished",
                                name, SET_MAX);
        found |= 1ull << index;
    }
    *ret = found;
    return true;
}

/* A bound of sizes, as sizes are written: 4G. */
static void size_word(double bytes, char *ret, size_t max)
{
    static const char units[] = " KMG";
    unsigned unit = 0;

    for (; unit < 3 && bytes >= 1024.0; unit++)
        bytes /= 1024.0;
    (void)snprintf(ret, max, "%g%.*s", bytes, unit > 0 ? 1 : 0, &units[unit]);
}

/* 4K is 4096 bytes; 4Ki too. */
static bool size_read(char *text, const struct option_row *row, uint64_t *ret,
                      struct parse_error *reason)
{
    bool letter = text[0] != '\0' && strchr("KMGT", text[strlen(text) - 1]) != NULL;
    char binary[64], low[32], high[32];
    uint64_t bytes;

    (void)snprintf(binary, sizeof binary, "%.40s%s", text, letter ? "i" : "");
    if (!parse_count(binary, 0, UINT64_MAX, &bytes, reason))
        return parse_refuse(
            reason, "must be a whole number of bytes, as 64K, not '%.60s'", text);
    if ((double)bytes >= row->bounds.low && (double)bytes <= row->bounds.high) {
        *ret = bytes;
        return true;
    }
    size_word(row->bounds.low, low, sizeof low);
    size_word(row->bounds.high, high, sizeof high);
    return parse_refuse(reason, "takes %s to %s bytes; '%.60s' is too %s", low, high,
                        text, (double)bytes < row->bounds.low ? "few" : "many");
}

static bool counts_set(const struct option_row *row, const char *text,
                       struct counts *ret, struct parse_error *reason)
{
    char room[LIST_MAX], *rest = room;
    struct counts found = {0};

    if (!list_begin(text, room, reason))
        return false;
    while (rest != NULL) {
        char *word = strsep(&rest, ",");

        if (found.count == COUNTS_MAX)
            return parse_refuse(reason, "takes at most %d values", COUNTS_MAX);
        if (row->kind == KIND_SIZES
                ? !size_read(word, row, &found.at[found.count], reason)
                : !parse_count(word, (uint64_t)row->bounds.low,
                               (uint64_t)row->bounds.high, &found.at[found.count],
                               reason))
            return false;
        found.count++;
    }
    *ret = found;
    return true;
}

static bool file_add(const char *text, struct files *ret, struct parse_error *reason)
{
    if (ret->count == FILES_MAX)
        return parse_refuse(reason, "takes at most %d files", FILES_MAX);
    ret->at[ret->count++] = text;
    return true;
}

static bool flag_set(const char *text, bool *ret, struct parse_error *reason)
{
    static const char *const yes[] = {"1", "yes", "true", "on"};
    static const char *const no[] = {"0", "no", "false", "off"};

    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++)
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *ret = strcasecmp(text, yes[i]) == 0;
            return true;
        }
    return parse_refuse(reason, "must be 1 or 0, not '%.60s'", text);
}

static bool schedule_set(const char *text, struct settings *ret,
                         struct parse_error *reason)
{
    static const struct real_bounds share = {0.0, 1.0, false, false};
    static const char *const words[] = {"constant", "cosine", NULL};
    double to = 0.0;

    if (strcmp(text, "constant") == 0) {
        ret->cosine = false;
        ret->cosine_to = 0.0;
        return true;
    }
    if (strncmp(text, "cosine", 6) != 0 || (text[6] != '\0' && text[6] != ':')) {
        (void)parse_refuse(
            reason, "must be one of: constant, cosine, cosine:TO; not '%.60s'", text);
        return refuse_word(text, words, reason);
    }
    if (text[6] == ':' && !parse_real(text + 7, share, &to, reason))
        return false;
    ret->cosine = true;
    ret->cosine_to = to;
    return true;
}

/* One without a transport has to wait for --transport: see options_network. */
static bool address_set(const char *text, const char **ret, struct parse_error *reason)
{
    if (text[0] == '\0' || address_transport(text) != NULL) {
        if (!address_check(text, reason))
            return false;
    }
    *ret = text;
    return true;
}

static bool count_set(const struct option_row *row, const char *text, void *at,
                      struct parse_error *reason)
{
    uint64_t count;

    if (!parse_count(text, (uint64_t)row->bounds.low, (uint64_t)row->bounds.high,
                     &count, reason))
        return false;
    if (row->kind == KIND_COUNT64)
        *(uint64_t *)at = count;
    else if (row->kind == KIND_COUNT32)
        *(uint32_t *)at = (uint32_t)count;
    else
        *(int *)at = (int)count;
    return true;
}

static bool text_set(const char *text, const char **ret, struct parse_error *reason)
{
    if (text[0] == '\0')
        return parse_refuse(reason, "must not be empty");
    *ret = text;
    return true;
}

static bool link_set(const char *text, double *ret, struct parse_error *reason)
{
    static const char *const words[] = {"measured", NULL};

    if (strcmp(text, words[0]) != 0)
        return parse_link(text, ret, reason) || refuse_word(text, words, reason);
    *ret = -1;
    return true;
}

static bool real_set(const struct option_row *row, const char *text, double *ret,
                     struct parse_error *reason)
{
    struct parse_error number;

    if (row->choices == NULL)
        return parse_real(text, row->bounds, ret, reason);
    if (strcmp(text, row->choices[0]) == 0) {
        *ret = 0.0;
        return true;
    }
    if (parse_real(text, row->bounds, ret, &number))
        return true;
    (void)parse_refuse(reason, "%s; or give %s", number.text, row->choices[0]);
    return refuse_word(text, row->choices, reason);
}

bool options_value_set(const struct option_row *row, const char *text,
                       struct settings *ret, struct parse_error *reason)
{
    void *at = (char *)ret + row->offset;

    switch (row->kind) {
    case KIND_FLAG:
        return flag_set(text, at, reason);
    case KIND_TEXT:
        return text_set(text, at, reason);
    case KIND_COUNT32:
    case KIND_COUNT64:
    case KIND_INT:
        return count_set(row, text, at, reason);
    case KIND_REAL:
        return real_set(row, text, at, reason);
    case KIND_SPAN:
        return parse_span(text, at, reason);
    case KIND_STEPS:
        return parse_milestones(text, at, reason);
    case KIND_SCHEDULE:
        return schedule_set(text, ret, reason);
    case KIND_RULE:
    case KIND_CHOICE:
        return word_set(row, text, at, reason);
    case KIND_RULES:
    case KIND_CHOICES:
        return set_set(row, text, at, reason);
    case KIND_ADDRESS:
        return address_set(text, at, reason);
    case KIND_COUNTS:
    case KIND_SIZES:
        return counts_set(row, text, at, reason);
    case KIND_FILES:
        return file_add(text, at, reason);
    case KIND_PARAMETERS:
        return parse_parameters(text, at, reason);
    case KIND_LINK:
        return link_set(text, at, reason);
    case KIND_BYTES:
        return parse_bytes(text, at, reason);
    case KIND_TIME:
        return parse_time(text, row->bounds, at, reason);
    }
    return false;
}
