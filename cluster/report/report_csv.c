/* CSV, as RFC 4180 has it: rows read strictly enough to be sure of them, and
 * written. */
#include "cluster/report/report_data.h"

#include <stdint.h>
#include <string.h>

#define FIELD_MAX ((size_t)1 << 20)

/* ---- reading ------------------------------------------------------------- */

/* One field from `at` on, into the arena; returns where it ended. */
static const char *field_read(struct report_arena *arena, const char *at,
                              const char **ret)
{
    size_t bytes = 0, i = 0;
    const char *end;
    char *copy;

    if (*at != '"') {
        bytes = strcspn(at, ",\r\n");
        copy = arena_take(arena, bytes + 1);
        if (copy != NULL)
            memcpy(copy, at, bytes);
        *ret = copy != NULL ? copy : "";
        return at + bytes;
    }
    for (end = at + 1; *end != '\0' && (*end != '"' || end[1] == '"'); end++)
        end += *end == '"' ? 1 : 0;
    copy = arena_take(arena, (size_t)(end - at) + 1);
    for (at++; copy != NULL && at < end; at++) {
        copy[i++] = *at;
        at += *at == '"' ? 1 : 0;
    }
    *ret = copy != NULL ? copy : "";
    end += *end == '"' ? 1 : 0;
    return end + strcspn(end, ",\r\n"); /* what follows a closing quote is no field */
}

size_t report_csv_row(struct report_arena *arena, const char **at, const char ***ret)
{
    const char **field = NULL, *c = *at;
    size_t count = 0;

    while (*c == '\r' || *c == '\n')
        c++;
    while (*c != '\0') {
        const char **grown = arena_grow(arena, field, count, sizeof *field);

        if (grown == NULL)
            return 0;
        field = grown;
        c = field_read(arena, c, &field[count]);
        count++;
        if (*c != ',')
            break;
        c++;
        if (*c == '\0' || *c == '\r' || *c == '\n') { /* the last one is empty */
            grown = arena_grow(arena, field, count, sizeof *field);
            if (grown == NULL)
                return 0;
            field = grown;
            field[count++] = "";
            break;
        }
    }
    *at = c;
    *ret = field;
    return count;
}

/* ---- writing ------------------------------------------------------------- */

static void write_field(struct html *out, const char *text)
{
    if (strpbrk(text, ",\"\r\n") == NULL) {
        html_raw(out, text);
        return;
    }
    html_raw(out, "\"");
    for (; *text != '\0'; text++) {
        html_bytes(out, text, 1);
        if (*text == '"')
            html_bytes(out, text, 1);
    }
    html_raw(out, "\"");
}

struct names {
    const char **name;
    size_t count;
};

static void names_add(struct report_arena *arena, struct names *names, const char *name)
{
    const char **grown;

    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->name[i], name) == 0)
            return;
    grown = arena_grow(arena, names->name, names->count, sizeof *grown);
    if (grown == NULL)
        return;
    names->name = grown;
    names->name[names->count++] = name;
}

/* The first this many columns of all sets, then the options, then the results: several
 * studies need not have the same options. */
static void names_all(const struct report *report, struct report_arena *arena,
                      struct names *ret)
{
    for (size_t i = 0; i < report->sets; i++)
        for (size_t c = 0; c < report->set[i].results; c++)
            names_add(arena, ret, report->set[i].column[c]);
    for (size_t i = 0; i < report->sets; i++)
        for (size_t c = report->set[i].results; c < report->set[i].columns; c++)
            names_add(arena, ret, report->set[i].column[c]);
}

static void write_set(const struct report *report, const struct report_set *set,
                      const struct names *names, struct html *out)
{
    for (size_t i = 0; i < set->runs; i++)
        for (size_t c = 0; c < names->count; c++) {
            if (c == 0 && report->sets > 1 && set->study) {
                struct html cell = {0};

                html_raw(&cell, set->name);
                html_raw(&cell, "/");
                html_raw(&cell, report_field(set, &set->run[i], names->name[c]));
                write_field(out, cell.failed ? "" : cell.bytes);
                html_free(&cell);
            } else if (report->sets == 1) {
                const char *field = set->run[i].field[c];

                write_field(out, field != NULL ? field : "");
            } else {
                write_field(out, report_field(set, &set->run[i], names->name[c]));
            }
            html_raw(out, c + 1 < names->count ? "," : "\n");
        }
}

void report_csv(const struct report *report, struct html *out)
{
    struct report_arena arena = {0};
    struct names names = {0};

    if (report->sets == 1) { /* the columns as they are, also where one comes twice */
        names.name = report->set[0].column;
        names.count = report->set[0].columns;
    } else {
        names_all(report, &arena, &names);
    }
    for (size_t c = 0; c < names.count; c++) {
        write_field(out, names.name[c]);
        html_raw(out, c + 1 < names.count ? "," : "\n");
    }
    for (size_t i = 0; i < report->sets; i++)
        write_set(report, &report->set[i], &names, out);
    if (arena.failed)
        out->failed = true;
    arena_free(&arena);
}
