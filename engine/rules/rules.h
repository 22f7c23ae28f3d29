/* The table of update rules: each is a correction of the gradient and a momentum
 * (rules.def has the rows). */
#ifndef GAPLESS_RULES_H
#define GAPLESS_RULES_H

#include <stdbool.h>
#include <stdint.h>

/* Arrays that a rule may touch, as bits of rule.reads and rule.writes. */
enum slot {
    SLOT_THETA = 1,
    SLOT_OWN = 2,
    SLOT_ALL = 4,
    SLOT_STAT = 8,
    SLOT_SENT = 16,
    SLOT_GRAD = 32,
    SLOT_SQUARE = 64,
    SLOT_MEAN = 128,  /* RULE_MATRIX, of matrices only */
    SLOT_TURNED = 256 /* ... for the time of one update */
};

enum rule_flag {
    RULE_SUM = 1,   /* `all` is the sum of the owns: forget subtracts, resum applies */
    RULE_BLOCK = 2, /* one number per block: measure, gate and update while the block is
                       in cache */
    RULE_GLOBAL = 4, /* one number for the whole vector before anything is applied */
    RULE_ROUND = 8,  /* synchronous: one update for a gradient of every worker */
    RULE_WORKER_SLIM = 16,     /* the worker keeps the momentum (DANA-Slim) */
    RULE_WORKER_ELASTIC = 32,  /* the worker moves parameters of its own (EASGD) */
    RULE_WORKER_NESTEROV = 64, /* with momentum (EAMSGD) */
    RULE_PUBLISHED =
        128, /* what is sent is one vector for all; the worker tells of each
                             block <grad, what it read> */
    RULE_ADAM =
        256, /* RULE_HISTORY, weight decay is the master's, `all` is re-summed every 100
                rounds and when a worker leaves, and who joins starts from the mean of the
                others */
    RULE_HISTORY = 512, /* scalars depend on the updates before (struct step_history) */
    RULE_MATRIX =
        1024, /* RULE_ADAM, and matrices are moved as such: they are neither cut
                           by ranges nor into blocks (engine/compute/matrices.h) */
    RULE_ROUND_SQUARE =
        4096 /* the mean of squares keeps beta2 in a round of all workers */
};

/* Settings of a run that a rule reads; enum gapless_setting is the same for users. */
enum rule_setting {
    SETTING_MOMENTUM = 1,
    SETTING_KAPPA = 2,  /* and the gate, and the size of blocks */
    SETTING_LAMBDA = 4, /* delay compensation */
    SETTING_HORIZON = 8,
    SETTING_ELASTIC = 16, /* and the period */
    SETTING_ADAM = 32,    /* beta2, epsilon, decay */
    SETTING_MATRIX = 256, /* rest_scale, matrix_threads */
    /* by what the pair is, not by a component */
    SETTING_GAP_REF = 64,
    SETTING_SCALE_RATE = 128
};

struct rule {
    const char *name;       /* "dana-ga" */
    const char *formula;    /* one line for people */
    const char *source;     /* paper */
    const char *correction; /* "gap_aware", as its header is called */
    const char *momentum;   /* "dana" */
    unsigned reads, writes; /* enum slot bits of the update itself, measure excluded */
    unsigned measure_reads; /* enum slot bits read again by measure (RULE_BLOCK,
                               RULE_GLOBAL), or 0 */
    /* RULE_MATRIX: of a matrix, over both of its passes; what is above is of the rest */
    unsigned matrix_reads, matrix_writes;
    unsigned flags;    /* enum rule_flag bits */
    unsigned settings; /* enum rule_setting bits */
    int index;         /* row, 0.. */
};

enum gap_ref {
    GAP_REF_SENT,
    GAP_REF_OWN_LOOKAHEAD
};

/* What does not change in a run. Zero means the default (set by settings_default). */
struct settings {
    double momentum;    /* gamma; taken as it is */
    double rate_max;    /* eta_max, the peak of the schedule */
    double rho;         /* 0.999, of the running mean of squared steps */
    double lambda;      /* 0.04, DC-ASGD */
    double lambda_zero; /* 2, DC-ASGD-a */
    double mean_square; /* 0.95, DC-ASGD-a */
    double kappa;       /* 10 per nat, Loss-Gap-Aware */
    double beta2;       /* 0.95, Adam */
    double epsilon;     /* 1e-8, Adam */
    double decay;       /* lambda of AdamW; taken as it is */
    double horizon;     /* T of lwp and la-adamw, in updates (of la-adamw rounded down);
                           0: workers - 1; negative: exactly 0 */
    double elastic;     /* alpha of EASGD; taken as it is */
    double mu;          /* 0.95, Muon */
    double rest_scale;  /* 1, Muon: of the rate, for all that is no matrix */
    enum gap_ref gap_ref;
};

/* RULE_HISTORY: what the updates of a range so far mean for the next one. Zeroed before
 * the first; rules_step_done takes it one update further. A running mean with weight b for
 * what was is corrected for its beginning as it goes: w is the weight of all that it has
 * seen, w' = b*w + (1 - b), and then x = (b*w/w')*x + ((1 - b)/w')*new is their mean. So
 * it stays right while b changes with the number of workers. */
struct step_history {
    double rate;       /* of the last update; a look-ahead without an update has it */
    uint64_t updates;  /* so far */
    double square;     /* w of the squares, by beta2 for each update */
    double round;      /* ... by beta2^(1/N) */
    double mean;       /* w of `all` of adam_shared */
    double share;      /* adam_shared: 1 - beta1^(rounds so far) */
    uint32_t waiting;  /* delayed_nesterov: gradients in the buffer */
    uint32_t together; /* ... and how many go into the momentum together */
};

/* A worker's updates, where it began with a mean of the others (it joined later). */
#define RULES_UPDATES_JOINED UINT64_MAX

/* What differs from update to update; the master fills it, rules_step_scalars turns it into
 * scalars. */
struct step_context {
    double rate;        /* eta, of this update */
    double scale;       /* of these elements' rate, now and before; 0: 1 */
    double decay;       /* RULE_ADAM: of these elements, in place of the settings'; 0:
                           the settings', negative: none */
    uint64_t lag;       /* tau: updates since the worker's look-ahead was made */
    uint32_t active;    /* N: workers now active, at least 1 */
    uint64_t samples;   /* n: updates that went into stat so far */
    double global_gap;  /* RULE_GLOBAL: sqrt(mean(delta^2)) */
    bool whole;         /* RULE_BLOCK: one gate for all blocks ... */
    double whole_gap;   /* ... of this q, the sum over the whole vector */
    double global_stat; /* RULE_GLOBAL: s, running mean of mean(step^2) */
    struct step_history history; /* RULE_HISTORY: before this update */
    uint64_t
        own_updates; /* RULE_HISTORY: of this worker in the range, before this update;
                             or RULES_UPDATES_JOINED */
};

struct step_scalars; /* element.h */

extern const struct rule rules[];
extern const int rules_count;

/* NULL when there is none of that name. */
const struct rule *rules_find(const char *name);
/* Puts the default where a field is 0. `momentum`, `rate_max`, `horizon`, `decay` and
 * `elastic` are taken as they are. */
void settings_default(struct settings *settings);
/* The scalars of one update, computed in double, then rounded once. */
void rules_step_scalars(const struct rule *rule, const struct settings *settings,
                        const struct step_context *context, struct step_scalars *ret);
/* RULE_HISTORY: the history after an update with this context. */
struct step_history rules_step_done(const struct settings *settings,
                                    const struct step_context *context);
/* beta^(1/n): a mean that keeps this much at each of n updates keeps beta at all of them
 * together. By Newton's method from above, which ends; the same bits on every machine. */
double rules_root(double beta, uint32_t n);
/* Arrays that a rule touches at all: of RULE_MATRIX rules, what is kept of a matrix. */
unsigned rules_slots(const struct rule *rule);
/* Bytes moved to and from memory per parameter and gradient: 4 * (reads + writes), with
 * the reads of the separate measure of a RULE_GLOBAL rule, and with what only the
 * measure of a RULE_BLOCK rule reads; the rest of a block is then found in a cache. Of
 * RULE_MATRIX rules per element of a matrix, without the products. */
unsigned rules_bytes(const struct rule *rule);

#endif
