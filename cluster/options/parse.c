/* Strict numbers, spans of a run, and the nearest name. */
#include "cluster/options/parse.h"

#include "engine/base/array.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_NEAR_MAX 40 /* longer names are not compared: such are not typing errors */

bool parse_refuse(struct parse_error *reason, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    (void)vsnprintf(reason->text, sizeof reason->text, format, list);
    va_end(list);
    return false;
}

static bool unit_factor(const char *text, uint64_t *ret)
{
    static const struct {
        const char *name;
        uint64_t factor;
    } units[] = {
        {"", 1},
        {"k", 1000},
        {"M", 1000000},
        {"G", 1000000000},
        {"T", 1000000000000},
        {"Ki", 1ull << 10},
        {"Mi", 1ull << 20},
        {"Gi", 1ull << 30},
        {"Ti", 1ull << 40},
    };

    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(text, units[i].name) == 0) {
            *ret = units[i].factor;
            return true;
        }
    return false;
}

bool parse_count(const char *text, uint64_t low, uint64_t high, uint64_t *ret,
                 struct parse_error *reason)
{
    char *end;
    uint64_t value, factor;

    if (!isdigit((unsigned char)text[0]))
        return parse_refuse(reason, "must be a whole number, not '%.60s'", text);
    errno = 0;
    value = strtoull(text, &end, 10);
    if (!unit_factor(end, &factor))
        return parse_refuse(reason, "must be a whole number, not '%.60s'", text);
    if (errno == ERANGE || value > UINT64_MAX / factor || value * factor > high)
        return parse_refuse(reason, "must be at most %llu, not '%.60s'",
                            (unsigned long long)high, text);
    if (value * factor < low)
        return parse_refuse(reason, "must be at least %llu, not '%.60s'",
                            (unsigned long long)low, text);
    *ret = value * factor;
    return true;
}

/* strtod of a finite decimal; hexadecimal, "inf" and "nan" are not numbers here. */
static bool real_prefix(const char *text, double *ret, char **ret_end)
{
    const char *digits = text + (text[0] == '-' || text[0] == '+');

    if (!isdigit((unsigned char)digits[0]) && digits[0] != '.')
        return false;
    if (digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X'))
        return false;
    *ret = strtod(text, ret_end);
    return *ret_end != text && isfinite(*ret);
}

/* Says where a value is out of bounds; `unit` stands behind them: " s". */
static bool within(double value, struct real_bounds bounds, const char *unit,
                   const char *text, struct parse_error *reason)
{
    if (value < bounds.low || (bounds.above && value <= bounds.low))
        return parse_refuse(reason, "must be %s %g%s, not '%.60s'",
                            bounds.above ? "above" : "at least", bounds.low, unit,
                            text);
    if (value > bounds.high || (bounds.below && value >= bounds.high))
        return parse_refuse(reason, "must be %s %g%s, not '%.60s'",
                            bounds.below ? "below" : "at most", bounds.high, unit,
                            text);
    return true;
}

bool parse_real(const char *text, struct real_bounds bounds, double *ret,
                struct parse_error *reason)
{
    char *end;
    double value;

    if (!real_prefix(text, &value, &end) || *end != '\0')
        return parse_refuse(reason, "must be a finite number, not '%.60s'", text);
    if (!within(value, bounds, "", text, reason))
        return false;
    *ret = value;
    return true;
}

bool parse_time(const char *text, struct real_bounds bounds, double *ret,
                struct parse_error *reason)
{
    static const struct {
        const char *name;
        double scale;
    } units[] = {{"", 1.0},    {"s", 1.0},  {"ms", 1e-3},
                 {"us", 1e-6}, {"m", 60.0}, {"min", 60.0}};
    char *end;
    double value;

    if (!real_prefix(text, &value, &end))
        return parse_refuse(
            reason, "wants a time such as 120ms, 40s or 1.5m, not '%.40s'", text);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(end, units[i].name) != 0)
            continue;
        value *= units[i].scale;
        if (!within(value, bounds, " s", text, reason))
            return false;
        *ret = value;
        return true;
    }
    return parse_refuse(reason, "knows the units us, ms, s and m, not '%.40s'", end);
}

bool parse_span(const char *text, struct span *ret, struct parse_error *reason)
{
    static const struct {
        const char *name;
        enum span_unit unit;
        double scale;
    } units[] = {
        {"", SPAN_FRACTION, 1.0},      {"%", SPAN_FRACTION, 0.01},
        {"epoch", SPAN_EPOCHS, 1.0},   {"epochs", SPAN_EPOCHS, 1.0},
        {"update", SPAN_UPDATES, 1.0}, {"updates", SPAN_UPDATES, 1.0},
    };
    char *end;
    double value;

    if (!real_prefix(text, &value, &end) || value < 0.0)
        return parse_refuse(
            reason, "wants a span such as 1epoch, 500updates or 0.1, not '%.60s'",
            text);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(end, units[i].name) != 0)
            continue;
        value *= units[i].scale;
        if (units[i].unit == SPAN_FRACTION && value > 1.0)
            return parse_refuse(
                reason,
                "wants a fraction of the run of at most 1, not '%.60s'; for "
                "others write %.20sepochs or %.20supdates",
                text, text, text);
        if (value > 1e15)
            return parse_refuse(reason, "is too long a span: '%.60s'", text);
        *ret = (struct span){units[i].unit, value};
        return true;
    }
    return parse_refuse(reason, "knows the units epochs and updates, not '%.60s'", end);
}

static bool milestone(char *text, struct milestones *ret, struct parse_error *reason)
{
    static const struct real_bounds positive = {0.0, 1e6, true, false};
    char *colon = strchr(text, ':');

    if (colon == NULL)
        return parse_refuse(reason, "wants AT:FACTOR, such as 0.6:0.1, not '%.60s'",
                            text);
    if (ret->count == GAPLESS_STEPS_MAX)
        return parse_refuse(reason, "takes at most %d steps", GAPLESS_STEPS_MAX);
    *colon = '\0';
    if (!parse_span(text, &ret->step[ret->count].at, reason))
        return false;
    if (!parse_real(colon + 1, positive, &ret->step[ret->count].factor, reason))
        return false;
    ret->count++;
    return true;
}

bool parse_milestones(const char *text, struct milestones *ret,
                      struct parse_error *reason)
{
    struct milestones found = {0};
    char copy[512];
    char *rest = copy;

    if (strlen(text) >= sizeof copy)
        return parse_refuse(reason, "is too long");
    if (text[0] != '\0' && strcmp(text, "none") != 0) {
        memcpy(copy, text, strlen(text) + 1);
        while (rest != NULL)
            if (!milestone(strsep(&rest, ","), &found, reason))
                return false;
    }
    *ret = found;
    return true;
}

uint64_t span_gradients(struct span span, uint64_t total, double epoch)
{
    double count = span.amount;

    if (span.unit == SPAN_FRACTION)
        count *= (double)total;
    else if (span.unit == SPAN_EPOCHS)
        count *= epoch;
    return (uint64_t)(count + 0.5);
}

static int lower(char c)
{
    return tolower((unsigned char)c);
}

/* Edits that turn one text into the other (Levenshtein), where case is none. */
static size_t distance(const char *a, const char *b)
{
    size_t row[NAME_NEAR_MAX + 1];
    size_t a_count = strlen(a), b_count = strlen(b);

    if (a_count > NAME_NEAR_MAX || b_count > NAME_NEAR_MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= b_count; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_count; i++) {
        size_t corner = row[0];

        row[0] = i;
        for (size_t j = 1; j <= b_count; j++) {
            size_t above = row[j];
            size_t change = corner + (lower(a[i - 1]) != lower(b[j - 1]));

            row[j] = size_least(size_least(above, row[j - 1]) + 1, change);
            corner = above;
        }
    }
    return row[b_count];
}

const char *parse_nearest(const char *text, const char *(*at)(const void *, unsigned),
                          const void *context)
{
    const char *best = NULL, *name;
    size_t bound = 1 + strlen(text) / 3; /* a third of it may be wrong */

    for (unsigned i = 0; (name = at(context, i)) != NULL; i++) {
        size_t edits = distance(text, name);

        if (edits <= bound) {
            best = name;
            bound = edits == 0 ? 0 : edits - 1; /* the first of equals stays */
            if (edits == 0)
                break;
        }
    }
    return best;
}
