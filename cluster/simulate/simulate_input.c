/* What a simulation is given in lists and files: events, and batch times. */
#include "cluster/simulate/simulate.h"

#include "cluster/options/parse.h"
#include "engine/base/array.h"
#include "engine/base/text_file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\r\n"
#define WORDS_MAX 6
#define EVENTS_MAX 1000000u /* a mistake long before it is a wish */
#define EVENTS_EXAMPLE "\"40s kill 3; 60s join 2; 70s stall 5 for 10s\""
#define CLOCKS "homogeneous, heterogeneous, round-robin"
#define LINE_MAX_BYTES 256
#define FILE_MAX (64u << 20)

/* ---- events -------------------------------------------------------------- */

static const struct real_bounds event_times = {0, 1e9, false, false}; /* s */

struct list {
    struct gapless_incident *incident;
    size_t count, room;
    uint32_t joins;
};

struct item { /* one event's text */
    unsigned number;
    char text[81], copy[256];
    char *word[WORDS_MAX + 1];
    unsigned words;
};

__attribute__((format(printf, 3, 4))) static int
wrong_event(const struct item *item, struct gapless_error *error, const char *format,
            ...)
{
    char what[240];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(what, sizeof what, format, list);
    va_end(list);
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "--events: event %u, '%.60s', %s; such as " EVENTS_EXAMPLE,
                             item->number, item->text, what);
}

/* Keeps the order of time; behind those of the same time. */
static int insert(struct list *list, const struct gapless_incident *incident,
                  struct gapless_error *error)
{
    size_t at = list->count;

    if (list->count == list->room) {
        size_t room = list->room == 0 ? 16 : 2 * list->room;
        struct gapless_incident *more =
            room > EVENTS_MAX ? NULL : realloc(list->incident, room * sizeof *more);

        if (more == NULL)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "--events: %zu events are too many", room);
        list->incident = more;
        list->room = room;
    }
    while (at > 0 && list->incident[at - 1].at_ns > incident->at_ns)
        at--;
    memmove(&list->incident[at + 1], &list->incident[at],
            (list->count - at) * sizeof *incident);
    list->incident[at] = *incident;
    list->count++;
    return GAPLESS_OK;
}

static uint64_t nanoseconds(double seconds)
{
    return (uint64_t)(seconds * 1e9 + 0.5);
}

/* "kill 3", "leave 2": which worker; checked against those there are when all events
 * are known. */
static int worker_word(const struct item *item, struct gapless_incident *ret,
                       struct gapless_error *error)
{
    struct parse_error reason;
    uint64_t worker;

    if (item->words < 3)
        return wrong_event(item, error, "does not say which worker");
    if (!parse_count(item->word[2], 0, GAPLESS_WORKERS_MAX - 1, &worker, &reason))
        return wrong_event(item, error, "wants a worker's number: it %s", reason.text);
    ret->worker = (uint32_t)worker;
    return GAPLESS_OK;
}

static int add_joins(const struct item *item, struct list *list,
                     struct gapless_incident *incident, struct gapless_error *error)
{
    struct parse_error reason;
    uint64_t joins = 1;
    int status = GAPLESS_OK;

    incident->kind = GAPLESS_JOIN;
    if (item->words > 2 &&
        !parse_count(item->word[2], 1, GAPLESS_WORKERS_MAX, &joins, &reason))
        return wrong_event(item, error, "wants how many join: it %s", reason.text);
    for (uint64_t i = 0; status == GAPLESS_OK && i < joins; i++)
        status = insert(list, incident, error);
    list->joins += (uint32_t)joins;
    return status;
}

static int stall_words(const struct item *item, struct gapless_incident *ret,
                       struct gapless_error *error)
{
    struct parse_error reason;
    double seconds;
    int status = worker_word(item, ret, error);

    if (status != GAPLESS_OK)
        return status;
    ret->kind = GAPLESS_STALL;
    if (item->words < 5 || strcmp(item->word[3], "for") != 0)
        return wrong_event(item, error, "does not say for how long: 'stall %s for 10s'",
                           item->word[2]);
    if (!parse_time(item->word[4], event_times, &seconds, &reason))
        return wrong_event(item, error, "%s", reason.text);
    ret->ns = nanoseconds(seconds);
    return GAPLESS_OK;
}

static const char *verb_at(const void *context, unsigned index)
{
    static const char *const verbs[] = {"kill", "leave", "join", "stall"};

    (void)context;
    return index < sizeof verbs / sizeof verbs[0] ? verbs[index] : NULL;
}

static int unknown_verb(const struct item *item, struct gapless_error *error)
{
    const char *near = parse_nearest(item->word[1], verb_at, NULL);

    return wrong_event(item, error, "has no 'kill', 'leave', 'join' or 'stall'%s%s%s",
                       near != NULL ? " (did you mean '" : "", near != NULL ? near : "",
                       near != NULL ? "'?)" : "");
}

/* TIME join [N], TIME leave W, TIME kill W, TIME stall W for TIME. */
static int read_event(const struct item *item, struct list *list,
                      struct gapless_error *error)
{
    struct gapless_incident incident = {.at_ns = 0};
    unsigned words_max = 3;
    struct parse_error reason;
    double seconds;
    int status;

    if (!parse_time(item->word[0], event_times, &seconds, &reason))
        return wrong_event(item, error, "%s", reason.text);
    incident.at_ns = nanoseconds(seconds);
    if (item->words < 2)
        return wrong_event(item, error, "does not say what happens");
    if (strcmp(item->word[1], "stall") == 0)
        words_max = 5;
    if (item->words > words_max)
        return wrong_event(item, error,
                           "has too much in it: '%.40s' (events are "
                           "separated by ';')",
                           item->word[words_max]);
    if (strcmp(item->word[1], "join") == 0)
        return add_joins(item, list, &incident, error);
    if (strcmp(item->word[1], "stall") == 0) {
        status = stall_words(item, &incident, error);
    } else if (strcmp(item->word[1], "kill") == 0 ||
               strcmp(item->word[1], "leave") == 0) {
        incident.kind =
            strcmp(item->word[1], "kill") == 0 ? GAPLESS_KILL : GAPLESS_LEAVE;
        status = worker_word(item, &incident, error);
    } else {
        return unknown_verb(item, error);
    }
    return status == GAPLESS_OK ? insert(list, &incident, error) : status;
}

/* Takes `bytes` of text apart. False: there is nothing in it. */
static bool split(const char *text, size_t bytes, struct item *ret)
{
    char *rest = ret->copy;
    size_t kept = bytes < sizeof ret->copy - 1 ? bytes : sizeof ret->copy - 1;

    while (kept > 0 && strchr(BLANKS, *text) != NULL) {
        text++;
        kept--;
    }
    memcpy(ret->copy, text, kept);
    ret->copy[kept] = '\0';
    (void)snprintf(ret->text, sizeof ret->text, "%.80s", ret->copy);
    ret->words = 0;
    while (rest != NULL && ret->words < WORDS_MAX) {
        char *word = strsep(&rest, BLANKS);

        if (word[0] != '\0')
            ret->word[ret->words++] = word;
    }
    return ret->words > 0;
}

/* An event about a worker that there can never be. */
static int check_workers(const struct list *list, uint32_t workers,
                         struct gapless_error *error)
{
    uint64_t all = (uint64_t)workers + list->joins;

    for (size_t i = 0; i < list->count; i++)
        if (list->incident[i].kind != GAPLESS_JOIN && list->incident[i].worker >= all)
            return gapless_error_set(
                error, GAPLESS_INVALID, 0,
                "--events: there is no worker %u: %u start%s%s, with numbers 0 to %llu",
                list->incident[i].worker, workers, workers == 1 ? "s" : "",
                list->joins > 0 ? " and others join" : "", (unsigned long long)all - 1);
    return GAPLESS_OK;
}

int simulate_events(const char *text, uint32_t workers, struct gapless_incident **ret,
                    size_t *ret_count, uint32_t *ret_joins, struct gapless_error *error)
{
    struct list list = {NULL, 0, 0, 0};
    struct item item = {.number = 1};
    int status = GAPLESS_OK;

    for (;; text++) {
        size_t bytes = strcspn(text, ";");

        if (split(text, bytes, &item)) {
            status = bytes >= sizeof item.copy
                         ? wrong_event(&item, error, "is too long")
                         : read_event(&item, &list, error);
            item.number++;
        }
        text += bytes;
        if (status != GAPLESS_OK || *text == '\0')
            break;
    }
    if (status == GAPLESS_OK && item.number == 1)
        status =
            gapless_error_set(error, GAPLESS_INVALID, 0,
                              "--events has no event in it; such as " EVENTS_EXAMPLE);
    if (status == GAPLESS_OK)
        status = check_workers(&list, workers, error);
    if (status != GAPLESS_OK) {
        free(list.incident);
        return status;
    }
    *ret = list.incident;
    *ret_count = list.count;
    *ret_joins = list.joins;
    return GAPLESS_OK;
}

/* ---- batch times --------------------------------------------------------- */

struct table {
    const char *path;
    unsigned line;
    struct gapless_batch_time *time;
    size_t count, room;
};

static int add_time(struct table *table, uint64_t worker, double seconds,
                    struct gapless_error *error)
{
    struct gapless_batch_time *more =
        array_room(table->time, &table->room, table->count + 1, sizeof *more);

    if (more == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the batch times of %.150s",
                                 table->path);
    table->time = more;
    table->time[table->count++] =
        (struct gapless_batch_time){(uint32_t)worker, nanoseconds(seconds)};
    return GAPLESS_OK;
}

/* One line, without its end and its comment. */
static int read_time(struct table *table, char *line, struct gapless_error *error)
{
    static const struct real_bounds seconds_bounds = {1e-9, 1e6, false, false};
    struct item item;
    struct parse_error reason;
    uint64_t worker;
    double seconds;

    if (!split(line, strlen(line), &item))
        return GAPLESS_OK;
    if (item.words != 2)
        return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                 "%.150s:%u: a line is a worker's number and seconds, "
                                 "such as '3 0.05', not '%.60s'",
                                 table->path, table->line, item.text);
    if (!parse_count(item.word[0], 0, GAPLESS_WORKERS_MAX - 1, &worker, &reason))
        return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                 "%.150s:%u: a worker's number %s", table->path,
                                 table->line, reason.text);
    if (!parse_real(item.word[1], seconds_bounds, &seconds, &reason))
        return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                 "%.150s:%u: the seconds of a batch: it %s",
                                 table->path, table->line, reason.text);
    return add_time(table, worker, seconds, error);
}

static int read_times(struct text_file *file, struct table *table,
                      struct gapless_error *error)
{
    char *line;
    int status;

    while ((status = text_file_line(file, &line, error)) == GAPLESS_OK) {
        table->line = (unsigned)file->line;
        line[strcspn(line, "#")] = '\0';
        status = read_time(table, line, error);
        if (status != GAPLESS_OK)
            return status;
    }
    return status == GAPLESS_STOPPED ? GAPLESS_OK : status;
}

static int check_times(const struct table *table, uint32_t workers,
                       struct gapless_error *error)
{
    bool *has;
    int status = GAPLESS_OK;

    if (table->count == 0)
        return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                 "%.150s: there is no batch time in it; a line is a "
                                 "worker's number and seconds, such as '3 0.05'",
                                 table->path);
    has = calloc(GAPLESS_WORKERS_MAX, sizeof *has);
    if (has == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    for (size_t i = 0; i < table->count; i++)
        has[table->time[i].worker] = true;
    for (uint32_t w = 0; status == GAPLESS_OK && w < workers; w++)
        if (!has[w])
            status = gapless_error_set(
                error, GAPLESS_CORRUPT, 0,
                "%.150s:%u: the file ends without a batch time of worker %u: each of "
                "the %u workers, from 0 on, needs at least one",
                table->path, table->line, w, workers);
    free(has);
    return status;
}

static const char *clock_at(const void *context, unsigned index)
{
    static const char *const names[] = {"homogeneous", "heterogeneous", "round-robin"};

    (void)context;
    return index < sizeof names / sizeof names[0] ? names[index] : NULL;
}

/* A name that is no file: a clock, mistyped? */
static int no_clock(const char *text, struct gapless_error *error)
{
    const char *near = parse_nearest(text, clock_at, NULL);

    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "--clock must be one of: " CLOCKS
                             ", or a file; '%.60s' is neither%s%s%s",
                             text, near != NULL ? "; did you mean '" : "",
                             near != NULL ? near : "", near != NULL ? "'?" : "");
}

int simulate_clock(const char *text, uint32_t workers, enum gapless_clock *ret,
                   struct gapless_batch_time **ret_times, size_t *ret_count,
                   struct gapless_error *error)
{
    static const enum gapless_clock clocks[] = {GAPLESS_CLOCK_HOMOGENEOUS,
                                                GAPLESS_CLOCK_HETEROGENEOUS,
                                                GAPLESS_CLOCK_ROUND_ROBIN};
    struct table table = {.path = text};
    const char *name;
    struct text_file file;
    int status;

    for (unsigned i = 0; (name = clock_at(NULL, i)) != NULL; i++)
        if (strcmp(text, name) == 0) {
            *ret = clocks[i];
            return GAPLESS_OK;
        }
    status = text_file_open(&file, text, "the batch times of --clock", FILE_MAX,
                            LINE_MAX_BYTES, error);
    if (status == GAPLESS_MISSING && strchr(text, '/') == NULL)
        return no_clock(text, error);
    if (status == GAPLESS_OK)
        status = read_times(&file, &table, error);
    text_file_close(&file);
    if (status == GAPLESS_OK)
        status = check_times(&table, workers, error);
    if (status != GAPLESS_OK) {
        free(table.time);
        return status;
    }
    *ret = GAPLESS_CLOCK_TIMES;
    *ret_times = table.time;
    *ret_count = table.count;
    return GAPLESS_OK;
}
