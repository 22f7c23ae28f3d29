/* Numbers with units, as people write them: 25.6M parameters, a link of 400Gb/s,
 * 80GB. */
#include "cluster/options/parse.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 40

struct unit {
    const char *name;
    double factor;
};

/* Takes the commas out of a number: they stand before three digits each, before any
 * point. 0: they do not. */
static size_t without_commas(const char *text, char *ret, size_t max)
{
    size_t at = 0, since = 0;
    bool comma = false, point = false;

    for (; isdigit((unsigned char)*text) || *text == ',' || *text == '.'; text++) {
        if (at + 1 == max || (*text == ',' && (point || at == 0)) ||
            (*text == '.' && point))
            return 0;
        if ((*text == ',' || *text == '.') && comma && since != 3)
            return 0;
        if (*text == ',' && !comma && since > 3)
            return 0;
        point = point || *text == '.';
        comma = comma || *text == ',';
        since = *text == ',' || *text == '.' ? 0 : since + 1;
        if (*text != ',')
            ret[at++] = *text;
    }
    ret[at] = '\0';
    return comma && !point && since != 3 ? 0 : at;
}

/* A positive number and the unit behind it. False: it is none, or there is no such
 * unit. */
static bool number(const char *text, const struct unit *units, double *ret)
{
    char digits[NUMBER_MAX], *end;
    size_t span = strspn(text, "0123456789.,");

    if (!isdigit((unsigned char)text[0]) ||
        without_commas(text, digits, sizeof digits) == 0)
        return false;
    for (; units->name != NULL; units++)
        if (strcmp(units->name, text + span) == 0) {
            double value = strtod(digits, &end);

            if (*end != '\0' || !isfinite(value))
                return false;
            *ret = value * units->factor;
            return true;
        }
    return false;
}

bool parse_parameters(const char *text, uint64_t *ret, struct parse_error *reason)
{
    static const struct unit units[] = {{"", 1},    {"k", 1e3}, {"K", 1e3}, {"M", 1e6},
                                        {"m", 1e6}, {"B", 1e9}, {"G", 1e9}, {NULL, 0}};
    double value = 0, whole;

    if (!number(text, units, &value))
        return parse_refuse(
            reason, "wants a number such as 25.6M, 1B or 25,600,000, not '%.40s'",
            text);
    whole = floor(value + 0.5);
    if (fabs(value - whole) > 1e-6)
        return parse_refuse(reason, "must be a whole number of parameters, not '%.40s'",
                            text);
    if (whole < 1 || whole > (double)GAPLESS_ELEMENTS_MAX)
        return parse_refuse(reason, "must be 1 to %llu parameters, not '%.40s'",
                            (unsigned long long)GAPLESS_ELEMENTS_MAX, text);
    *ret = (uint64_t)whole;
    return true;
}

bool parse_link(const char *text, double *ret, struct parse_error *reason)
{
    static const struct unit units[] = {
        {"Gb", 1e9 / 8},    {"Gb/s", 1e9 / 8}, {"Gbit", 1e9 / 8}, {"Gbit/s", 1e9 / 8},
        {"Gbps", 1e9 / 8},  {"Mb", 1e6 / 8},   {"Mb/s", 1e6 / 8}, {"Tb", 1e12 / 8},
        {"Tb/s", 1e12 / 8}, {"GB", 1e9},       {"GB/s", 1e9},     {"MB", 1e6},
        {"MB/s", 1e6},      {NULL, 0}};
    double value = 0;

    if (strcmp(text, "shm") == 0) {
        *ret = 0;
        return true;
    }
    if (!number(text, units, &value))
        return parse_refuse(
            reason,
            "wants a rate each way with its unit, such as 400Gb (bits) or "
            "50GB/s (bytes), or shm for one machine; not '%.40s'",
            text);
    if (value < 1e6 || value > 1e13)
        return parse_refuse(reason, "must be 1 MB/s to 10 TB/s, not '%.40s'", text);
    *ret = value;
    return true;
}

bool parse_bytes(const char *text, double *ret, struct parse_error *reason)
{
    static const struct unit units[] = {{"MB", 1e6},           {"GB", 1e9},
                                        {"TB", 1e12},          {"MiB", 1048576.0},
                                        {"GiB", 1073741824.0}, {NULL, 0}};
    double value = 0;

    if (!number(text, units, &value) || value < 1e6 || value > 1e15)
        return parse_refuse(reason, "wants a size such as 80GB or 512MB, not '%.40s'",
                            text);
    *ret = value;
    return true;
}
