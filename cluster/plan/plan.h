/* Plan: what a master can do for this many workers, by arithmetic; and which of the terms
 * of that arithmetic were measured.
 *
 *   worker's port  master's port    memory of the master           master's port
 *   ─────── gradient in ───────> check, pass (range by range) ─── parameters out ──>
 *   4P / wire      4P / wire        P * (check + pass)             4P / wire
 *                                   + ranges * range
 *
 * A range is in one of the three stages at a time, and ranges follow each other, so an
 * update alone takes the three stages of one range and, for every other range, the
 * longest of them. Links are full duplex: in and out do not disturb each other. In a
 * crowd, each resource does one thing at a time, and the slowest of them is what the
 * master can do; N workers ask for N / (batch + update alone). What comes of it is the
 * smaller of the two (the bounds of a closed queueing network; Denning and Buzen 1978):
 * it is a bound, met within a few per cent where batches take alike.
 */
#ifndef CLUSTER_PLAN_H
#define CLUSTER_PLAN_H

#include "cluster/options/options.h"

#include <gapless/gapless.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- the arithmetic ------------------------------------------------------ */

/* Gradients of a worker that have room at the master: one; it is used up before the
 * worker is asked to go on. */
#define PLAN_LANDINGS 1u
/* Memory is taken in pieces of this many bytes (device.h, take). */
#define PLAN_PIECE 65536u
#define PLAN_SHARDS_MAX 4096u

struct plan_input {
    uint64_t parameters;
    struct gapless_rule rule;
    uint32_t workers;
    double batch_s; /* of a worker: forward, backward, its own passes */
    uint32_t
        period; /* batches from one exchange to the next; 1 but for elastic rules and
                   local steps */
    uint64_t range_elements; /* parameters that travel and are applied together */
    double memory;           /* bytes a master has; 0: unknown */
    uint32_t shards; /* masters, each with a part of the ranges; 0: as many as needed */
};

struct plan_speeds {
    double wire; /* bytes a second that a port carries each way; infinite: mapped */
    double latency_s; /* of the link, one way */
    double range_s;   /* the master's time for a range beside the passes */
    double check_s;   /* a parameter: is the gradient finite? */
    double pass_s;    /* a parameter: the rule */
};

enum plan_bound {
    PLAN_BY_WORKERS, /* the master waits for gradients */
    PLAN_BY_WIRE,    /* its port is full, in and out alike */
    PLAN_BY_PASS     /* its memory, or the thread that starts the passes */
};

struct plan_result {
    uint32_t ranges;
    /* one update, of all ranges, with no other worker there */
    double wire_s; /* one way */
    double check_s, pass_s, ranges_s;
    double passes_s; /* check and pass */
    double alone_s;  /* with ranges overlapping */
    double apart_s;  /* without: the sum of its parts */
    /* all workers, on `shards` masters */
    uint32_t shards;             /* masters that were reckoned with: as asked, or 1 */
    double wire_rate, pass_rate; /* updates a second that a resource can do */
    double can_rate;             /* the smaller */
    double demand;               /* what the workers ask for, if nothing waits */
    double rate;                 /* what comes of it */
    enum plan_bound bound;
    double saturates_at;        /* workers from which on the master is the bound */
    double trip_s;              /* of a worker: from push to pulled */
    double busy;                /* share of the time that a worker computes */
    double lag;                 /* mean, in updates: workers - 1, whatever the speeds */
    double link_bytes;          /* over the master's port in an update, both ways */
    uint32_t shards_for_speed;  /* masters that do all that is asked for; 0: no number
                                   does, a range cannot be cut */
    uint32_t shards_for_memory; /* masters that the vectors fit into; 0: none */
    /* memory of a master, bytes */
    double shared;  /* parameters, and vectors that there are once */
    double vectors; /* of all workers */
    double landing; /* gradients of all workers */
    double total;
};

void plan_compute(const struct plan_input *input, const struct plan_speeds *speeds,
                  struct plan_result *ret);
/* "the wire", "the passes", "the workers" */
const char *plan_bound_name(enum plan_bound bound);

/* ---- its terms ----------------------------------------------------------- */

enum plan_source {
    PLAN_MEASURED,
    PLAN_ASSUMED,
    PLAN_GIVEN /* by the user */
};

enum plan_term_name {
    TERM_WIRE_SHARE, /* of the link's rate, that gradients get */
    TERM_LATENCY,    /* s */
    TERM_NOTE,       /* s a range: to see that it came, to say that it is ready */
    TERM_LAUNCH,     /* s a range: GPU only */
    TERM_SEEN,       /* s a range, from the end of a pass until the CPU knows */
    TERM_CHECK,      /* s a parameter */
    TERM_PASS,       /* s a parameter */
    TERMS
};

struct plan_term {
    double value;
    enum plan_source source;
    char where[160]; /* "bench/results/rules.json, 2026-11-22, ...", or why so much */
};

struct plan_terms {
    struct plan_term term[TERMS];
};

/* What was measured: of this project, or read from the files of gapless bench. A value
 * of 0 was not measured. */
#define PLAN_RULES_MAX 64
#define PLAN_SIZES_MAX 8
struct plan_speed_row {
    char name[32];
    uint32_t sizes;
    uint64_t elements[PLAN_SIZES_MAX]; /* ascending */
    double seconds[PLAN_SIZES_MAX];    /* a parameter */
};
struct plan_speed_table {
    uint32_t rows;
    struct plan_speed_row row[PLAN_RULES_MAX]; /* "" is the check */
    char where[128];
};
struct plan_measured {
    struct plan_speed_table cpu, gpu;
    double note_shm_s;
    char note_where[128];
    double launch_s, seen_s; /* of a GPU */
    double link;             /* bytes a second into GPU memory, each way */
    char gpu_where[128];
};

/* The figures of bench/results, which are put into the program (cmake/figures.cmake). */
extern const char *const plan_rules_json, *const plan_update_json;
void plan_measured_builtin(struct plan_measured *ret);
/* Adds what a file holds: `gapless bench rules --json-file`, `... update --json-file`,
 * or the gpu-acceptance.json of `gapless bench gpu --accept`. GAPLESS_INVALID: it is
 * none of them, or was written with a fake GPU. */
int plan_measured_read(const char *path, struct plan_measured *ret,
                       struct gapless_error *error);
/* Seconds a parameter of a row, at the next larger size that was measured, or the
 * largest; 0: not measured. *ret_elements: that size. */
double plan_measured_find(const struct plan_speed_table *table, const char *name,
                          uint64_t elements, uint64_t *ret_elements);

struct plan_gpu {
    const char *name;  /* "h100" */
    const char *title; /* "H100 SXM 80 GB" */
    double bandwidth;  /* bytes a second, of its data sheet */
    double memory;     /* bytes */
};
/* The GPU in row `index`; NULL past the end. */
const struct plan_gpu *plan_gpu_at(unsigned index);

struct plan_machine {
    bool gpu;             /* the master's memory is a GPU's */
    double bandwidth;     /* bytes a second: of the GPU's data sheet; of the CPU: 0 is
                             what was measured */
    bool bandwidth_given; /* by the user */
    char title[48];
    double link;     /* bytes a second each way, as it is sold; 0: shared memory */
    bool link_whole; /* `link` is what gradients get, nothing comes off */
};

void plan_terms(const struct plan_machine *machine,
                const struct plan_measured *measured, const struct gapless_rule *rule,
                uint64_t parameters, struct plan_terms *ret);
void plan_speeds(const struct plan_machine *machine, const struct plan_terms *terms,
                 struct plan_speeds *ret);

/* ---- the command --------------------------------------------------------- */

struct plan_options {
    uint64_t parameters;     /* 0: the standard table */
    struct plan_input input; /* rule, workers, batch, range, shards; the rest is set by
                                what is planned for */
    bool rule_all;
    double link; /* bytes a second; 0: shared memory */
    bool has_gpu;
    struct plan_machine gpu, cpu;
    double gpu_memory; /* 0: unknown */
    struct plan_measured measured;
    bool json;
};

/* A planned case: one rule, one number of parameters, one link, one kind of master. */
struct plan_case {
    struct plan_input input;
    struct plan_terms terms;
    struct plan_speeds speeds;
    struct plan_result result;
};
void plan_case_of(const struct plan_options *options, const struct gapless_rule *rule,
                  uint64_t parameters, double link, bool gpu, struct plan_case *ret);

/* plan_show.c: 100 columns. */
void plan_show_one(const struct plan_options *options);
void plan_show_rules(const struct plan_options *options);
void plan_show_table(const struct plan_options *options);
/* The same, as JSON. False: no memory, or it cannot be written. */
bool plan_json(const struct plan_options *options);

/* The standard table: five models, three links. */
#define PLAN_MODELS 5
#define PLAN_LINKS 3
extern const struct plan_model {
    uint64_t parameters;
    const char *text;
} plan_models[PLAN_MODELS];
extern const struct plan_link {
    double bytes;
    const char *text;
} plan_links[PLAN_LINKS];

#endif
