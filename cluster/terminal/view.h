/* How a run looks while it goes: on a terminal one picture, drawn over again a few
 * times a second; in a log a line every few seconds.
 *
 *     gapless  dana-ga · 8 workers · fashion-mnist · mlp:64
 *
 *     ██████████████████▌·····················   46 %   epoch 2.31 of 5   0:21 left
 *
 *     test accuracy   86.42 %  ▁▂▄▅▆▇▇█         training loss  0.3512  █▆▅▄▃▂▁▁
 *     ...
 *      worker  share of the updates                    updates    lag        gap
 *           0  ███████████████████▌                        541   7.01   1.21e-04
 */
#ifndef CLUSTER_VIEW_H
#define CLUSTER_VIEW_H

#include "cluster/terminal/canvas.h"
#include "cluster/terminal/outlet.h"
#include "cluster/terminal/terminal.h"
#include <gapless/gapless.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define HISTORY_MAX 128

/* A quantity over the whole run, in at most HISTORY_MAX points: when they are used up
 * every other one is dropped. */
struct history {
    double value[HISTORY_MAX];
    unsigned count, stride, skip;
};
void history_add(struct history *history, double value);

/* What is shown. */
struct view_facts {
    const char *rule, *data, *model; /* data NULL: not known */
    uint32_t workers;
    uint64_t parameters;
    double epochs, epoch_gradients; /* 0: not known */
    bool unmeasured;                /* there are no data to measure the accuracy on */
    double elapsed;                 /* s since the start of the program */
    struct gapless_stats stats;
    double updates_per_second; /* lately */
    double accuracy;           /* NaN: not measured yet */
    struct history accuracies, losses;
    const struct gapless_worker_stats *worker; /* by number */
    uint32_t worker_count;
    bool stopping;
};

struct settings;

/* What is known before a run starts; the rest of the facts is empty. `workers` has
 * `worker_count` entries and is read whenever something is shown. */
struct view_facts view_facts_of(const struct settings *settings, uint64_t parameters,
                                double epoch_gradients,
                                const struct gapless_worker_stats *workers,
                                uint32_t worker_count);

/* How many workers there are or were. */
uint32_t view_workers_known(const struct view_facts *facts);

struct view {
    struct terminal terminal;
    bool quiet;
    bool drawn;             /* a picture is on the screen... */
    unsigned drawn_lines;   /* ...of this many lines, the cursor below it */
    unsigned width, height; /* ...on a terminal of this size */
    double line_due;        /* elapsed time of the next line in a log */
    double line_every;      /* s between two of them */
    int line_fd;            /* where they go: stdout, unless the caller sets another */
    struct canvas canvas;
    char frame[OUTLET_BYTES]; /* the canvas, and what moves the cursor before it */
    struct outlet out, err;   /* lines of a log, and what is said beside it */
};

void view_open(struct view *view, bool quiet, bool no_color);
/* Draws the picture or, if it is time, prints a line. Never waits for the terminal, or who
 * reads the log: where the last picture was not taken yet, this one is left out. */
void view_show(struct view *view, const struct view_facts *facts);
/* The last picture of a run, over one that was drawn: waits a little, so that it is seen. */
void view_last(struct view *view, const struct view_facts *facts);
/* Prints a line that stays, above the picture; to stderr in a log. Does not wait either. */
void view_note(struct view *view, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Before the process is stopped (Ctrl-Z), and at the end: leaves the picture where it
 * is and shows the cursor. */
void view_leave(struct view *view);

/* The picture for a terminal of this size, into `canvas`: for the view itself and for
 * tests. */
void view_paint(struct canvas *canvas, const struct view_facts *facts, unsigned width,
                unsigned height, bool utf8, bool color);
/* Until the end, from the rate of the whole run so far: calmer than the latest rate. NaN:
 * not known. */
double view_seconds_left(const struct view_facts *facts);
/* The training loss; NaN: no gradient was applied yet. */
double view_loss(const struct gapless_stats *stats);
/* The line for a log, without its end. */
void view_line(const struct view_facts *facts, char *ret, size_t max);

#endif
