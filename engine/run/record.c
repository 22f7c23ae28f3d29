/* Records: writing and reading. */
#include "engine/run/record.h"
#include "engine/base/array.h"
#include "engine/base/text_file.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_LINE "gapless-record 1\n"
#define LINE_BYTES 1024
#define FILE_MAX (16ull << 30)
#define NOTE_MAX 65536u
#define BUFFER_BYTES (1u << 20) /* so that a line seldom costs a call of the system */

struct record_writer {
    FILE *file;
    char *buffer;
    bool failed;
};

struct word_of {
    const char *word;
    bool worker, batch; /* what stands behind the time */
};

static const struct word_of words[] = {
    [RECORD_HELLO] = {"hello", true, false},
    [RECORD_GRADIENT] = {"gradient", true, true},
    [RECORD_BAD] = {"bad", true, true},
    [RECORD_LEFT] = {"left", true, false},
    [RECORD_LOST] = {"lost", true, false},
    [RECORD_TICK] = {"tick", false, false},
    [RECORD_STOP] = {"stop", false, false},
};
#define WORDS (sizeof words / sizeof words[0])

/* ---- writing ------------------------------------------------------------- */

static void write_note(FILE *file, const char *note)
{
    while (*note != '\0') {
        size_t length = strcspn(note, "\n");

        if (length > 0)
            (void)fprintf(file, "note %.*s\n", (int)length, note);
        note += length + (note[length] == '\n' ? 1 : 0);
    }
}

int record_create(const char *path, const struct record_facts *facts, const char *note,
                  struct record_writer **ret, struct gapless_error *error)
{
    struct record_writer *w;

    if (note != NULL && strlen(note) > NOTE_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the note of a record has at most %u bytes", NOTE_MAX);
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a record");
    w->buffer = malloc(BUFFER_BYTES);
    w->file = fopen(path, "we");
    if (w->file == NULL || w->buffer == NULL) {
        int os = errno;

        record_finish(w);
        return gapless_error_set(error, GAPLESS_IO, os,
                                 "cannot write the record %.200s", path);
    }
    (void)setvbuf(w->file, w->buffer, _IOFBF, BUFFER_BYTES);
    (void)fprintf(
        w->file,
        FIRST_LINE "# version %s\n"
                   "model %" PRIu64 " parameters %u tensors hash %016" PRIx64 "\n"
                   "run %" PRIu64 " gradients %u workers %u wait %u ranges\n",
        gapless_version(), facts->count, facts->tensors, facts->hash, facts->gradients,
        facts->workers_max, facts->workers_wait, facts->ranges);
    if (facts->own != 0)
        (void)fprintf(w->file, "own %016" PRIx64 "\n", facts->own);
    write_note(w->file, note == NULL ? "" : note);
    (void)fprintf(w->file, "begin\n");
    if (fflush(w->file) != 0) {
        int os = errno;

        record_finish(w);
        return gapless_error_set(error, GAPLESS_IO, os,
                                 "cannot write the record %.200s", path);
    }
    *ret = w;
    return GAPLESS_OK;
}

static uint64_t bits_of(double x)
{
    uint64_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

void record_add(struct record_writer *w, const struct record_event *e)
{
    const struct word_of *word = &words[e->kind];
    int done;

    if (w->failed)
        return;
    if (word->batch && (e->factor < 1 || e->factor > 1))
        done = fprintf(
            w->file, "%s %" PRIu64 " %u %" PRIu64 " %" PRIu64 " %016" PRIx64 "\n",
            word->word, e->at_ns, e->worker, e->batch, e->version, bits_of(e->factor));
    else if (word->batch)
        done = fprintf(w->file, "%s %" PRIu64 " %u %" PRIu64 " %" PRIu64 "\n",
                       word->word, e->at_ns, e->worker, e->batch, e->version);
    else if (word->worker)
        done = fprintf(w->file, "%s %" PRIu64 " %u%s\n", word->word, e->at_ns,
                       e->worker, e->ahead ? " ahead" : "");
    else
        done = fprintf(w->file, "%s %" PRIu64 "\n", word->word, e->at_ns);
    w->failed = done < 0;
}

bool record_good(const struct record_writer *w)
{
    return w == NULL || (!w->failed && fflush(w->file) == 0);
}

void record_finish(struct record_writer *w)
{
    if (w == NULL)
        return;
    if (w->file != NULL)
        (void)fclose(w->file);
    free(w->buffer);
    free(w);
}

/* ---- reading ------------------------------------------------------------- */

struct reading {
    struct text_file file;
    struct record *record;
    const char *line;
    int status; /* of the file, when there is no more line */
    size_t room, note_bytes;
    struct gapless_error *error;
};

static int wrong(const struct reading *r, const char *what)
{
    return gapless_error_set(r->error, GAPLESS_CORRUPT, 0,
                             "%.200s:%" PRIu64 ": %s: '%.60s'; is it a record that "
                             "gapless train --record wrote?",
                             r->record->path, r->file.line, what, r->line);
}

/* The next whole line, without its end. False: there is none, and r->status says why. */
static bool next_line(struct reading *r)
{
    char *line;

    r->status = text_file_line(&r->file, &line, r->error);
    if (r->status != GAPLESS_OK)
        return false;
    r->line = line;
    if (!r->file.ended)
        r->status =
            GAPLESS_STOPPED; /* cut short: the master was killed while it wrote */
    return r->file.ended;
}

/* What a loop over lines ends with. */
static int ended(const struct reading *r)
{
    return r->status == GAPLESS_STOPPED ? GAPLESS_OK : r->status;
}

/* A number at *at, which moves behind it and one blank. */
static bool number_at(const char **at, int base, uint64_t *ret)
{
    char *end;

    if (**at < '0' || (**at > '9' && base == 10))
        return false;
    errno = 0;
    *ret = strtoull(*at, &end, base);
    if (errno != 0 || end == *at || (*end != ' ' && *end != '\0'))
        return false;
    *at = *end == ' ' ? end + 1 : end;
    return true;
}

static bool number32_at(const char **at, uint32_t *ret)
{
    uint64_t number;

    if (!number_at(at, 10, &number) || number > UINT32_MAX)
        return false;
    *ret = (uint32_t)number;
    return true;
}

/* `word` and a blank at *at, or its end. */
static bool word_at(const char **at, const char *word)
{
    size_t length = strlen(word);

    if (strncmp(*at, word, length) != 0 ||
        ((*at)[length] != ' ' && (*at)[length] != '\0'))
        return false;
    *at += length + ((*at)[length] == ' ' ? 1 : 0);
    return true;
}

static int read_note(struct reading *r, const char *text)
{
    size_t length = strlen(text);
    char *note = realloc(r->record->note, r->note_bytes + length + 2);

    if (note == NULL)
        return gapless_error_set(r->error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a record");
    r->record->note = note;
    if (r->note_bytes + length > NOTE_MAX + LINE_BYTES)
        return wrong(r, "the note is too long");
    memcpy(note + r->note_bytes, text, length);
    note[r->note_bytes + length] = '\n';
    note[r->note_bytes + length + 1] = '\0';
    r->note_bytes += length + 1;
    return GAPLESS_OK;
}

static int read_head(struct reading *r)
{
    struct record_facts *f = &r->record->facts;
    bool model = false, run = false;
    int status;

    if (!next_line(r) && ended(r) != GAPLESS_OK)
        return r->status;
    if (r->status != GAPLESS_OK || strcmp(r->line, "gapless-record 1") != 0)
        return wrong(r, "this is not the first line of a record");
    while (next_line(r)) {
        const char *at = r->line;

        if (word_at(&at, "begin"))
            return model && run ? GAPLESS_OK : wrong(r, "the head is not complete");
        if (r->line[0] == '#')
            continue;
        if (word_at(&at, "note")) {
            status = read_note(r, at);
            if (status != GAPLESS_OK)
                return status;
        } else if (word_at(&at, "model")) {
            model = number_at(&at, 10, &f->count) && word_at(&at, "parameters") &&
                    number32_at(&at, &f->tensors) && word_at(&at, "tensors") &&
                    word_at(&at, "hash") && number_at(&at, 16, &f->hash);
            if (!model)
                return wrong(r, "cannot be understood");
        } else if (word_at(&at, "run")) {
            run = number_at(&at, 10, &f->gradients) && word_at(&at, "gradients") &&
                  number32_at(&at, &f->workers_max) && word_at(&at, "workers") &&
                  number32_at(&at, &f->workers_wait) && word_at(&at, "wait") &&
                  number32_at(&at, &f->ranges) && word_at(&at, "ranges");
            if (!run)
                return wrong(r, "cannot be understood");
        } else if (!word_at(&at, "own") || !number_at(&at, 16, &f->own) ||
                   *at != '\0') {
            return wrong(r, "cannot be understood");
        }
    }
    return ended(r) == GAPLESS_OK ? wrong(r, "the record ends within its head")
                                  : r->status;
}

/* Behind the version: the end, or the bits of a factor that can be one. */
static bool factor_at(const char **at, double *ret)
{
    uint64_t bits;

    if (**at == '\0')
        return true;
    if (!number_at(at, 16, &bits))
        return false;
    memcpy(ret, &bits, sizeof bits);
    return isfinite(*ret) && *ret >= 0;
}

/* Behind a hello: the end, or a word. */
static bool ahead_at(const char **at, bool *ret)
{
    *ret = word_at(at, "ahead");
    return *ret || **at == '\0';
}

/* One line behind `begin`. */
static bool read_event(const struct reading *r, struct record_event *ret)
{
    *ret = (struct record_event){.line = r->file.line, .factor = 1};
    for (size_t k = 0; k < WORDS; k++) {
        const char *at = r->line;

        if (!word_at(&at, words[k].word))
            continue;
        ret->kind = (enum record_kind)k;
        return number_at(&at, 10, &ret->at_ns) &&
               (!words[k].worker || number32_at(&at, &ret->worker)) &&
               (!words[k].batch ||
                (number_at(&at, 10, &ret->batch) && number_at(&at, 10, &ret->version) &&
                 factor_at(&at, &ret->factor))) &&
               (k != RECORD_HELLO || ahead_at(&at, &ret->ahead)) && *at == '\0';
    }
    return false;
}

static int add_event(struct reading *r, const struct record_event *event)
{
    struct record *record = r->record;
    struct record_event *events =
        array_room(record->events, &r->room, record->count + 1, sizeof *events);

    if (events == NULL)
        return gapless_error_set(r->error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for %zu lines of a record",
                                 record->count + 1);
    record->events = events;
    record->events[record->count++] = *event;
    return GAPLESS_OK;
}

static int read_events(struct reading *r)
{
    struct record_event event;
    uint64_t before = 0;
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && next_line(r)) {
        if (r->line[0] == '#')
            continue;
        if (!read_event(r, &event))
            return wrong(r, "cannot be understood");
        if (event.worker >= r->record->facts.workers_max)
            return wrong(r, "there is no such worker");
        if (event.at_ns < before)
            return wrong(r, "time goes back");
        before = event.at_ns;
        status = add_event(r, &event);
    }
    return status == GAPLESS_OK ? ended(r) : status;
}

int record_read(const char *path, struct record **ret, struct gapless_error *error)
{
    struct reading r = {.error = error, .line = ""};
    int status;

    r.record = calloc(1, sizeof *r.record);
    if (r.record == NULL) {
        (void)gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a record");
        return GAPLESS_NO_MEMORY;
    }
    (void)snprintf(r.record->path, sizeof r.record->path, "%s", path);
    status = text_file_open(&r.file, path, "the record", FILE_MAX, LINE_BYTES, error);
    if (status == GAPLESS_OK)
        status = read_head(&r);
    if (status == GAPLESS_OK)
        status = read_events(&r);
    text_file_close(&r.file);
    if (status != GAPLESS_OK) {
        record_free(r.record);
        return status;
    }
    *ret = r.record;
    return GAPLESS_OK;
}

void record_free(struct record *record)
{
    if (record == NULL)
        return;
    free(record->note);
    free(record->events);
    free(record);
}

int gapless_record_note(const char *path, char **ret, struct gapless_error *error)
{
    struct record *record;
    char *note;
    int status = record_read(path, &record, error);

    if (status != GAPLESS_OK)
        return status;
    note = record->note;
    record->note = NULL;
    record_free(record);
    if (note == NULL)
        note = calloc(1, 1);
    if (note == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a record");
    *ret = note;
    return GAPLESS_OK;
}
