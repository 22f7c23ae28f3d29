/* A record: the order in which everything arrived at a master, as text.
 *
 *     gapless-record 1
 *     # version 0.1.0
 *     model 50890 parameters 4 tensors hash 0123456789abcdef
 *     run 9375 gradients 16 workers 8 wait 1 ranges
 *     own 0123456789abcdef          tensors have rates, decays or averages of their own: a
 *                                   digest of them
 *     note rule=dana-ga             lines of config.record_note
 *     begin
 *     hello 1200000 0               time (ns since open), worker
 *     hello 1200000 0 ahead         the same, for which a next batch is kept
 *     gradient 1900000 0 17 12      time, worker, batch, version it read (also one
 *                                   that its worker keeps: easgd)
 *     gradient 1900000 0 17 12 3fe0000000000000
 *                                   the same, at the rate times a factor that is not 1
 *                                   (gapless_worker_set_rate): the bits of a double
 *     bad 1900000 0 17 12           the same, not finite
 *     left 2000000 0                said goodbye
 *     lost 2000000 0                gone without a word
 *     tick 2000000                  time made the run begin, or end
 *     stop 2000000                  a person asked it to end
 *
 * Given the same model, data, settings and arithmetic, these lines decide every bit of
 * the parameters. A record of a master that was killed ends early; a last line without
 * its end is left out.
 */
#ifndef GAPLESS_RECORD_H
#define GAPLESS_RECORD_H

#include <gapless/gapless.h>

#include <stdio.h>

enum record_kind {
    RECORD_HELLO,
    RECORD_GRADIENT,
    RECORD_BAD,
    RECORD_LEFT,
    RECORD_LOST,
    RECORD_TICK,
    RECORD_STOP
};

struct record_event {
    uint64_t at_ns;
    enum record_kind kind;
    uint32_t worker;
    uint64_t batch, version;
    double factor; /* of a gradient's rate; 1: the line does not say */
    bool ahead;    /* of a hello */
    uint64_t line; /* of the file, for messages */
};

/* The facts of a run that decide how it goes, beside its settings. */
struct record_facts {
    uint64_t count, hash, gradients;
    uint64_t own; /* layout_own_hash */
    uint32_t tensors, workers_max, workers_wait, ranges;
};

/* ---- writing ------------------------------------------------------------- */

struct record_writer;

int record_create(const char *path, const struct record_facts *facts, const char *note,
                  struct record_writer **ret, struct gapless_error *error);
/* Adds a line. Never fails: the first failure is kept for record_close. */
void record_add(struct record_writer *writer, const struct record_event *event);
/* False: some line could not be written. NULL: true. */
bool record_good(const struct record_writer *writer);
void record_finish(struct record_writer *writer);

/* ---- reading ------------------------------------------------------------- */

struct record {
    char path[256];
    struct record_facts facts;
    char *note;
    struct record_event *events;
    size_t count;
};

/* GAPLESS_IO, or GAPLESS_CORRUPT with the line and what is wrong in it. */
int record_read(const char *path, struct record **ret, struct gapless_error *error);
void record_free(struct record *record); /* NULL: nothing */

#endif
