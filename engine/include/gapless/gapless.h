/* Gapless: asynchronous distributed training. The only header a user includes.
 *
 *   worker process                     master process
 *   +-------------------+  put           +-----------------------------------------+
 *   | backward -> grad -+----------------+-> slot[w].grad                          |
 *   |                   |                |     | one fused pass over memory:        |
 *   |                   |  "ready"       |     v gap, penalty, momentum, look-ahead |
 *   | forward <- params-+----------------+-- slot[w].sent  theta  own[w]  all      |
 *   +-------------------+  get           +-----------------------------------------+
 *
 * A master keeps the parameters. A worker computes a gradient at the parameters it was
 * given (`sent`), writes it into its slot (`grad`) and says so; the master applies it
 * in one pass, writes the worker's next parameters (a look-ahead, if the rule has one)
 * and says "ready". Over shared memory both buffers are mapped into the worker: push
 * and pull move nothing. Over a network they move range by range, out, through the
 * master and back at the same time. An observer reads the live parameters and the
 * statistics without slowing anybody.
 *
 * The gap is how far the parameters moved since the worker read them:
 *
 *   gap_rms = ||theta - sent|| / sqrt(count)
 *
 * The lag is how many updates were applied in between. Both are reported for every run.
 *
 * Vectors are of 32-bit floats, `count` of them: the model's tensors one after another,
 * in the order given, without padding in between. Times are nanoseconds, memory is
 * bytes, unless a name says otherwise. Functions return GAPLESS_OK or a negative enum
 * gapless_status; where there is a struct gapless_error *, it may be NULL and otherwise
 * tells a person what happened and what to do. Outputs come last and are untouched on
 * failure. No function prints, exits, or waits without a bound. An object belongs to
 * one thread at a time, and to the process that opened it: in a forked child close frees
 * what is local, the connections go on, and everything else is GAPLESS_INVALID.
 */
#ifndef GAPLESS_H
#define GAPLESS_H

#include <gapless/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Limits. A model or a run beyond one of these is refused with GAPLESS_CAPACITY or
 * GAPLESS_INVALID. */
#define GAPLESS_WORKERS_MAX 4096u /* a worker number has 12 bits of a 32-bit note */
/* A range number has 16 bits, a worker two unread notes a range. */
#define GAPLESS_RANGES_MAX 32000u
#define GAPLESS_TENSORS_MAX 65536u
#define GAPLESS_ELEMENTS_MAX (1ull << 36)
#define GAPLESS_STEPS_MAX 8  /* milestones of a schedule */
#define GAPLESS_NAME_MAX 64  /* bytes of a tensor's or worker's name, with its end */
#define GAPLESS_JOB_MAX 1024 /* bytes of the job text, with its end */
#define GAPLESS_BINS 48      /* of a worker's small histograms */

/* The version of the library, "0.1.0". */
const char *gapless_version(void);

/* ---- rules --------------------------------------------------------------- */

/* Settings of a run (struct gapless_master_config) that only some rules read. */
enum gapless_setting {
    GAPLESS_SETS_MOMENTUM = 1,
    GAPLESS_SETS_KAPPA = 2,        /* kappa, gate, block_elements */
    GAPLESS_SETS_LAMBDA = 4,       /* lambda */
    GAPLESS_SETS_HORIZON = 8,      /* horizon */
    GAPLESS_SETS_ELASTIC = 16,     /* elastic, elastic_period */
    GAPLESS_SETS_ADAM = 32,        /* beta2, epsilon, decay */
    GAPLESS_SETS_GAP_REF = 64,     /* gap_ref */
    GAPLESS_SETS_SCALE_RATE = 128, /* ssgd_scale_rate */
    GAPLESS_SETS_MATRIX = 256      /* rest_scale, matrix_threads */
};

/* A row of the rule table. */
struct gapless_rule {
    const char *name;        /* "dana-ga" */
    const char *formula;     /* one line */
    const char *source;      /* where it was published */
    unsigned vectors_shared; /* vectors at the master beside the parameters, whatever
                                the workers */
    /* vectors at the master for each worker, beside grad */
    unsigned vectors_per_worker;
    unsigned bytes_per_parameter; /* moved by one update: reads and writes */
    bool whole;       /* needs all of a gradient before any of it is applied */
    bool synchronous; /* one update for a gradient of each worker, for which all wait */
    bool elastic; /* a worker moves parameters of its own, and exchanges them with the
                         master's every elastic_period gradients */
    bool
        matrices; /* Muon's: works on whole matrices, and refuses a model without any */
    bool
        own_decay; /* AdamW's: weight decay is the master's `decay`; `weight_decay`, which
                           goes into the gradient, must be 0 */
    bool
        averages; /* its rate is for the mean of a gradient of each worker (ssgd, dn) */
    bool slim;    /* a worker keeps the momentum */
    unsigned settings; /* enum gapless_setting bits: what it reads */
};

/* Finds a rule by name. GAPLESS_MISSING when there is none; the error lists the
 * names. */
int gapless_rule_find(const char *name, struct gapless_rule *ret,
                      struct gapless_error *error);
/* The rule in row `index`; GAPLESS_MISSING past the end. */
int gapless_rule_at(unsigned index, struct gapless_rule *ret);

/* ---- model and schedule -------------------------------------------------- */

#define GAPLESS_NO_DECAY (-1.0)

/* One tensor: row-major, `dims` sizes. Rules that want a number per block take a tensor
 * as a block, and cut large ones into pieces of 16 Ki elements or more. */
struct gapless_tensor {
    const char *name;
    uint32_t dims; /* 1..4 */
    uint64_t dim[4];
    uint32_t flags; /* enum gapless_tensor_flag; this and what follows count at the
                       master alone */
    /* Of this tensor, in place of the run's. 0: as all. */
    double rate;    /* factor on the learning rate */
    double decay;   /* weight decay: of a rule with own_decay AdamW's `decay`, whatever
                       the dimensions; else `weight_decay`. GAPLESS_NO_DECAY: none */
    double average; /* it is a running average; see below */
};

/* A running average, such as BatchNorm's running_mean and running_var, moves by a batch:
 * new = (1 - average) * params + average * b. With `average` above 0 and at most 1 the
 * worker writes params - new in the place of its gradient, and the master does
 *
 *   theta -= grad + average * (theta - sent), that is theta = (1 - average) * theta + average * b
 *
 * however old `sent` was: the same as one worker that saw all batches in the order in which they
 * arrived. No rate, momentum, gate, decay, norm or clipping has a part in it, no gap is taken of
 * it, it is no matrix, and what is sent of it is theta. With local steps `average` is for a
 * batch, and an exchange of H batches has 1 - (1 - average)^H; a synchronous rule takes the
 * mean of the workers' new; a worker of an elastic rule has averages of its own, and
 * draws near to the master's as with its parameters. A rule that keeps no copy of what a worker
 * read (shared-lga-dot) refuses averages.
 *
 * The master cuts ranges where `rate`, `decay` or `average` changes: give tensors that have the
 * same one after another. Under a rule of matrices a matrix may not share 16
 * elements, from a multiple of 16 on, with a tensor that has others. */

/* For rules that work on matrices (Muon): a tensor of two dimensions or more is a matrix of
 * dim[0] rows and all the others' product of columns, if it has two of both at least. */
enum gapless_tensor_flag {
    /* ... but this one is not: an embedding, or the layer that gives a language model's
     * words */
    GAPLESS_TENSOR_NOT_MATRIX = 1
};

struct gapless_model {
    const struct gapless_tensor *tensors;
    uint32_t tensors_count;
};

/* The learning rate as a function of t, the number of gradients already consumed:
 *   t < warmup:  rate * (w + (1 - w) * t / warmup), w = warmup_from
 *   otherwise:   rate * product of the factors of the milestones passed * cosine factor
 * The cosine factor goes from 1 at the end of the warm-up to `cosine_to` at `total`. */
struct gapless_schedule {
    double rate;        /* the peak; must be positive and finite */
    uint64_t warmup;    /* gradients; 0: none */
    double warmup_from; /* share of the rate at t = 0; 0: 1 / workers_expected */
    uint32_t steps_count;
    struct {
        uint64_t at;   /* gradients consumed */
        double factor; /* multiplies the rate from there on */
    } steps[GAPLESS_STEPS_MAX];
    bool cosine;
    double cosine_to;
};

enum gapless_gap_ref {
    GAPLESS_GAP_SENT,         /* the gap is theta - sent, as in the papers */
    GAPLESS_GAP_OWN_LOOKAHEAD /* without the worker's own look-ahead: one worker is
                                 exactly sequential NAG */
};

/* What Loss-Gap-Aware rules make one factor of. */
enum gapless_gate {
    GAPLESS_GATE_AUTO, /* whole for the rules of Adam, tensor for those of SGD */
    GAPLESS_GATE_TENSOR,
    GAPLESS_GATE_WHOLE /* of the whole gradient: it waits for all ranges. Adam only */
};

/* ---- master -------------------------------------------------------------- */

/* A network transport's settings; all zero: the defaults. Shared memory takes no notice
 * of them. */
struct gapless_net {
    const void *token; /* a secret of 16 to 4096 bytes that master and clients must
                          share; NULL: none, then a master listens at loopback only */
    size_t token_bytes;
    bool insecure;        /* a master may listen beyond loopback without a token */
    const char *devices;  /* names of RDMA devices, "mlx5_0,mlx5_1"; NULL: chosen by
                             address and route. Ranges are striped over several */
    uint32_t channels;    /* queue pairs a peer; 0: 1, or one for each device */
    uint32_t retries;     /* 1 to 6, before a peer counts as lost; 0: 6 */
    uint32_t ack_timeout; /* of one try, 4.096 us << n, n from 8 to 20; 0: 14 (67 ms) */
};

struct gapless_master_config {
    const char *address; /* "shm:NAME", "shm:/path/of/socket", "verbs:HOST:PORT" */
    struct gapless_model model;
    const float *initial; /* count parameters, copied; NULL: zeros */
    const char *rule;     /* NULL: "dana-ga" */
    struct gapless_schedule schedule;
    uint64_t gradients;        /* length of the run; 0: until stopped */
    uint32_t workers_max;      /* capacity; 0: 64 */
    uint32_t workers_expected; /* for the warm-up; 0: workers_max */
    uint32_t workers_wait;  /* hold the first updates until this many have joined; 0: do
                               not */
    uint32_t observers_max; /* 0: 8 */
    double momentum;        /* 0: 0.9; negative: exactly 0 */
    /* Loss-Gap-Aware rules. kappa is in 1/nat; 0: with a gate of the whole gradient 30;
     * else as many tensors as the model has of two dimensions or more (at least 1) times
     * 5, for the Adam rules times 10. */
    enum gapless_gate gate;
    double kappa;
    double lambda;  /* delay compensation; 0: the rule's default */
    double horizon; /* lwp, la-adamw: updates ahead; 0: workers - 1; negative: exactly
                       0 */
    /* The Adam rules: `momentum` is beta1. beta2 of the mean of squares, below 1 (for
     * dana- and shared- of a round of all workers); 0: 0.95. */
    double beta2;
    double epsilon; /* added to the root of the squares; 0: 1e-8; at least 1e-30 */
    /* AdamW's weight decay, on tensors of two dimensions or more: an update also takes
     * rate * decay * params off; 0: 0.1; GAPLESS_NO_DECAY: none. weight_decay, which goes
     * into the gradient, must be 0 then. */
    double decay;
    bool decay_all; /* on tensors of one dimension, too, as torch.optim.AdamW does it */
    /* The Muon rules: their rate times this for all that is no matrix; 0: 1. */
    double rest_scale;
    /* ... and threads that work on matrices, each on one at a time: the caller's, and as
     * many more as are missing. The caller's looks for other work after each product; where
     * it may find some, it leaves matrices to the others, if there are any. The bits do not
     * depend on it; 0: 1. While such a master is open, OpenBLAS has one thread in this
     * process. */
    uint32_t matrix_threads;
    enum gapless_gap_ref gap_ref;
    bool ssgd_scale_rate; /* ssgd: rate times the number of active workers */
    double clip_norm;     /* workers scale gradients down to this norm; 0: do not */
    /* workers add weight_decay * params to the gradient; 0: none */
    double weight_decay;
    uint64_t range_elements; /* about this many a range; 0: 1 Mi */
    uint64_t block_elements; /* smallest piece of a large tensor, for rules with a
                                number per block; 0: 16 Ki */
    double elastic;          /* easgd: alpha, how far worker and master move towards
                                each other; 0: 0.9 / workers_expected */
    uint32_t elastic_period; /* easgd: gradients of a worker from one exchange to the
                                next; 0: 4 */
    /* Ringmaster: a gradient with at least this lag is dropped: it changes nothing, and its
     * worker gets new parameters; 0: none is. Neither for ssgd and ssgd-adamw nor for easgd
     * and eamsgd. */
    uint32_t drop_lag;
    /* The gap is measured at about one update in this many; 0: 8; 1: always. */
    uint32_t gap_every;
    /* A worker that holds a batch longer is dropped; 0: never. */
    int64_t worker_timeout_ns;
    int64_t spin_ns; /* polling before sleeping; 0: 50,000 */
    /* Local steps: a worker computes up to this many batches in a row, with an optimizer
     * of its own that begins at its parameters, and hands in where it began minus where it
     * ended, in place of a gradient: the rule is an outer optimizer (DiLoCo). `gradients`,
     * the schedule and the statistics count batches; an update is an exchange. 0: a
     * gradient of one batch. Not for rules whose workers keep a state of the rule's own
     * (easgd, eamsgd, dana-slim); Loss-Gap-Aware ones need a kappa; weight_decay must be
     * 0. */
    uint32_t local_steps;
    /* A slower worker gets fewer batches: local_steps times the time that the fastest one
     * takes for a batch over its own, rounded, at least 1. The master measures it, from a
     * worker's parameters to its gradient; a worker's first exchange has local_steps. */
    bool adapt_steps;
    /* Handed to every worker as it is: data, model, batch, seed; NULL: "". */
    const char *job;
    const char *record; /* a file that gets the order in which everything arrives, for
                           gapless_simulation_open to repeat; NULL: none */
    const char *record_note; /* text kept at its start, lines of key=value; NULL: "" */
    /* Where the parameters are and the passes run: "cpu", "cuda" (the first GPU),
     * "cuda:1", "cuda:0,2" or "cuda:all" (ranges are dealt to several), or "auto" (a
     * GPU if there is one, else the CPU). NULL: "cpu". The bits are the same. */
    const char *device;
    /* Over a network whose cards cannot reach GPU memory: copy through host memory. */
    bool allow_staging;
    /* Flush what a card wrote before a kernel reads it: 0: as the GPU asks for, 1:
     * always, -1: never. */
    int gpu_flush;
    struct gapless_net net;
    /* A state that gapless_master_save_state has written: the run goes on from there, with the
     * same model, rule and settings, or GAPLESS_INVALID names the first difference; capacity
     * and number of workers may be others. Workers that take the same numbers go on with their
     * momentum; the run begins when workers_wait of them are there (0: as many as there were),
     * or 30 s after the first; what nobody has come for then is taken out. `initial` is not
     * looked at. NULL: a new run. */
    const char *resume;
    /* With `resume`: how often the run was begun again, larger than at any start before, so that
     * no version that a reader sees goes back; 0: one more than when the state was saved. */
    uint64_t epoch;
    /* Saves the state while the run goes on, into this folder, which must be there, as
     * state-GRADIENTS.safetensors: every save_every_ns, or every save_every gradients, or
     * both; 0: not so. The last save_keep stay (0: 2). What save_metadata says goes into the
     * file, as in gapless_master_save_with. A thread writes; the file is of one instant between
     * two gradients, and workers do not wait for it. One that cannot be saved makes a line of
     * log, and the run goes on. GAPLESS_UNSUPPORTED: passes run on a GPU. NULL: never. */
    const char *save_folder;
    int64_t save_every_ns;
    uint64_t save_every;
    uint32_t save_keep;
    const char *const *save_metadata;
    /* Receives, in gapless_master_open and _run, a line a person may want to see: a peer
     * lost and why. NULL: no line is reported. */
    void (*log)(void *log_context, const char *line);
    void *log_context;
};

struct gapless_summary { /* of a histogram */
    uint64_t count;
    double mean, p50, p99, max;
};

struct gapless_worker_stats {
    uint32_t state;     /* 0 free, 1 joining, 2 active */
    uint32_t pid;       /* 0: unknown */
    uint64_t gradients; /* applied */
    uint64_t dropped;   /* not finite, or late (drop_lag) */
    double lag_sum;     /* over lag_count of its gradients: easgd has a lag where worker
                           and master exchange */
    uint64_t lag_count;
    double gap_sum; /* of gap_rms over gap_count of its gradients */
    uint64_t gap_count;
    double loss;                     /* as it last reported */
    uint64_t seen_ns;                /* of its last gradient, by the reader's clock
                                        (CLOCK_MONOTONIC) */
    uint32_t lag_bins[GAPLESS_BINS]; /* see gapless_lag_edge */
    uint32_t gap_bins[GAPLESS_BINS];
};

/* Lower edge of a bin of the small histograms; the bin ends where the next begins, the
 * last has no end. Lags: 0, 1, ... 7 have a bin each, then four an octave. Gaps: bin 0
 * holds all below its upper edge, 2^-20; then two an octave. */
double gapless_lag_edge(unsigned bin);
double gapless_gap_edge(unsigned bin);

enum gapless_run_state {
    GAPLESS_RUN_WAITING,
    GAPLESS_RUN_GOING,
    GAPLESS_RUN_ENDING,
    GAPLESS_RUN_DONE
};

/* Does the gate of a Loss-Gap-Aware rule say that kappa is far off? */
enum gapless_gate_warning {
    GAPLESS_GATE_USUAL, /* no, or not known yet */
    GAPLESS_GATE_HIGH, /* kappa is probably too small: hardly any gradient is held back */
    GAPLESS_GATE_LOW   /* too large: most of what workers compute is thrown away */
};

struct gapless_stats {
    uint32_t state; /* enum gapless_run_state */
    uint32_t workers_active;
    uint32_t workers_joined;  /* since the start */
    uint32_t workers_lost;    /* went away before the run ended */
    uint64_t gradients;       /* consumed: applied and dropped */
    uint64_t gradients_total; /* of the whole run; 0: no end is set */
    uint64_t updates;         /* of the parameters; fewer than gradients for ssgd */
    uint64_t dropped;         /* gradients that were not finite, or late (drop_lag):
                                 never applied */
    uint64_t partial; /* gradients of which only some ranges arrived before the worker
                         went away */
    double rate;      /* of the last update */
    double loss; /* running mean of what workers report, over about 100 gradients */
    /* The gate, the factor of Loss-Gap-Aware rules, as a mean over elements (1 for other
     * rules): over about the last max(1000, 10 * workers) gradients; and over all since the
     * warm-up, gate_count of them (0: there is none). */
    double gate, gate_mean;
    uint64_t gate_count;
    double kappa; /* of these rules, as used; 0 for others */
    /* enum gapless_gate_warning, found with at least 8 workers while the rate is above half
     * of its peak: once in a run, when `gate` was gate_warned. */
    uint32_t gate_warning;
    double gate_warned;
    double seconds;   /* since the first update */
    uint64_t pass_ns; /* time in passes over memory, in all */
    struct gapless_summary lag;
    struct gapless_summary gap_rms;
    bool record_failed; /* the record could not be written to its end */
    /* The run ended before its time since it diverged: parameters that are not finite were
     * found after this gradient, or it is the first of many in a row that were not finite
     * (16 of each worker and 100 at least, or a tenth of the run and 10 at least if that is
     * less); counted from 1. 0: it did not. gapless_divergence says so to a person. */
    uint64_t diverged_at;
};

struct gapless_master;

/* Does gapless_master_open take this configuration, as far as that can be known without
 * memory and a network? The address is not looked at. What a person should know of the
 * settings goes to config->log, as it does in gapless_master_open. */
int gapless_master_check(const struct gapless_master_config *config,
                         struct gapless_error *error);
/* Takes memory, listens. After this the master allocates nothing but the memory of a
 * slot: when a worker first takes it, and over shared memory when one takes it after a
 * worker that did not say goodbye, whose process may still write into what it had. */
int gapless_master_open(const struct gapless_master_config *config,
                        struct gapless_master **ret, struct gapless_error *error);
/* Serves for at most timeout_ns (negative: until the run is over); if matrices are in
 * work then (the Muon rules), until they are done. GAPLESS_OK: the time passed;
 * GAPLESS_STOPPED: the run is over, its parameters are final (it may have ended early:
 * diverged_at of the statistics); otherwise a failure. After the end, keep calling it for as long as observers shall be served. */
int gapless_master_run(struct gapless_master *master, int64_t timeout_ns,
                       struct gapless_error *error);
/* Ends the run: workers learn of it at their next pull. May be called from a signal
 * handler and any thread. */
void gapless_master_stop(struct gapless_master *master);
/* Statistics; of worker number `worker` in the second form (GAPLESS_MISSING past the
 * capacity). */
void gapless_master_stats(const struct gapless_master *master,
                          struct gapless_stats *ret);
int gapless_master_worker_stats(const struct gapless_master *master, uint32_t worker,
                                struct gapless_worker_stats *ret);
/* Loss-Gap-Aware rules: the mean gate of the first `count` tensors, as gate_mean; NaN of one
 * that had none yet. GAPLESS_MISSING: another rule; GAPLESS_INVALID: fewer tensors. */
int gapless_master_tensor_gates(const struct gapless_master *master, uint32_t count,
                                double *ret);
/* What to do about a gate that says that kappa is far off: a line for a person. False:
 * nothing. 256 bytes are enough. */
bool gapless_gate_advice(const struct gapless_stats *stats, char *ret, size_t bytes);
/* That a run diverged, where, at which rate and what to try: a line for a person. False: it
 * did not. 256 bytes are enough. */
bool gapless_divergence(const struct gapless_stats *stats, char *ret, size_t bytes);
/* The live parameters: count floats, owned by the master, valid until close. Only
 * between calls of run. */
const float *gapless_master_params(const struct gapless_master *master);
/* Observers now connected. */
uint32_t gapless_master_observers(const struct gapless_master *master);
/* Peers that were not let in since it was opened: another token, version, model or user,
 * no room, a greeting that made no sense or did not come. A line about them goes to
 * config->log, at most every 10 s. */
uint64_t gapless_master_refused(const struct gapless_master *master);
/* Writes the parameters as safetensors: to a temporary file, synced, renamed. */
int gapless_master_save(const struct gapless_master *master, const char *path,
                        struct gapless_error *error);
/* The same, with more about them in the file's metadata: key, value, ..., NULL, UTF-8. */
int gapless_master_save_with(const struct gapless_master *master, const char *path,
                             const char *const *metadata, struct gapless_error *error);
/* Writes all that the run needs to go on: parameters, momentum of every worker, statistics of
 * the rule, the schedule's position, batches under way. As safetensors, with a checksum a tensor,
 * to a temporary file, synced, renamed; `metadata` as above. Between calls of run.
 * GAPLESS_UNSUPPORTED: passes run on a GPU; GAPLESS_AGAIN: a run that was begun again still
 * waits for its workers. */
int gapless_master_save_state(const struct gapless_master *master, const char *path,
                              const char *const *metadata, struct gapless_error *error);
/* NULL is a no-op. */
void gapless_master_close(struct gapless_master *master);

/* ---- worker -------------------------------------------------------------- */

struct gapless_worker_config {
    const char *address;        /* the master's */
    struct gapless_model model; /* checked against the master's; tensors NULL: accept
                                   the master's count */
    const char *name;           /* for messages; NULL: "pid@host" */
    uint32_t wish; /* 1 + the number it would like to have; 0, or if that is taken: the
                      lowest that is free */
    int64_t connect_ns; /* bound on finding the master; 0: 10 s */
    int64_t wait_ns;    /* bound on each pull; 0: 60 s */
    int64_t spin_ns;    /* polling before sleeping; 0: 50,000 */
    /* push range by range, as over a network, even if memory is mapped */
    bool by_range;
    /* The master keeps a next batch for this worker, see gapless_worker_next. Not with
     * adapt_steps: there it has no effect. */
    bool ahead;
    /* The caller's own buffers, of one GPU or of the host (which is found out): `count`
     * floats each, both or none, and then the model has to be given. A pull fills params
     * and has filled it when it returns; a push takes grad, which must be complete by
     * then (synchronise the stream that writes it), and may change it. They must stay
     * until close; what they hold before the first pull is lost. NULL: the engine's
     * own, see gapless_worker_params and _grad. */
    float *params, *grad;
    /* Over a network whose cards cannot reach GPU memory: copy through host memory. */
    bool allow_staging;
    struct gapless_net net;
    /* The caller writes into its parameters (gapless_worker_params) as it computes: what it
     * writes is its own, and forgotten at the next pull. Without it they are read only, and
     * over shared memory a write ends the process (SIGSEGV). */
    bool scratch_params;
};

struct gapless_worker;

/* Joins: shakes hands, maps (or registers) the slot. GAPLESS_CAPACITY, GAPLESS_MODEL,
 * GAPLESS_VERSION say why not; GAPLESS_UNSUPPORTED: the network cannot reach the
 * caller's buffers, and allow_staging is not set. */
int gapless_worker_open(const struct gapless_worker_config *config,
                        struct gapless_worker **ret, struct gapless_error *error);
/* The parameters to compute at: count floats, owned by the worker, valid and unchanged
 * from a pull to the next push; or the caller's own params. Read only, but for
 * scratch_params. */
const float *gapless_worker_params(const struct gapless_worker *worker);
/* Where the gradient goes: count floats, owned by the worker, or the caller's own grad.
 * Write all of it, then push; no copy is made of the worker's. */
float *gapless_worker_grad(struct gapless_worker *worker);
/* Number of parameters, the worker's number, and the master's job text. */
uint64_t gapless_worker_count(const struct gapless_worker *worker);
uint32_t gapless_worker_number(const struct gapless_worker *worker);
const char *gapless_worker_job(const struct gapless_worker *worker);
/* Waits until the parameters are ready, at most wait_ns. Gives the number of the batch
 * to compute on: over all workers together, every number from 0 on is given exactly
 * once (given again if its worker died before it pushed). GAPLESS_STOPPED: the run is
 * over, close. GAPLESS_PEER_LOST: the master is gone. */
int gapless_worker_pull(struct gapless_worker *worker, uint64_t *ret_batch,
                        struct gapless_error *error);
/* Waits until a pull would not wait, at most timeout_ns (0: takes what is there):
 * GAPLESS_OK. GAPLESS_AGAIN: not yet, or what was pulled is not pushed yet. For a process
 * that looks at something else between slices of a wait, as at Ctrl-C. */
int gapless_worker_poll(struct gapless_worker *worker, int64_t timeout_ns,
                        struct gapless_error *error);
#define GAPLESS_NO_BATCH UINT64_MAX
/* The batch that the next pull will most probably give, so that it can be loaded while this one
 * is computed: known from a pull to its push, with config.ahead; else GAPLESS_NO_BATCH. No
 * promise: near the end of a run it may be given to a worker that has nothing to do, and a batch
 * of a worker that died goes first. What the pull says counts. */
uint64_t gapless_worker_next(const struct gapless_worker *worker);
/* How many batches the last pull was for, from *ret_batch on: 1 without local steps. */
uint32_t gapless_worker_steps(const struct gapless_worker *worker);
/* Hands in the gradient with the mean loss of its batch. Adds weight decay, takes the
 * norm, clips. A gradient that is not finite is reported to the master and dropped:
 * GAPLESS_NOT_FINITE; go on with pull. */
int gapless_worker_push(struct gapless_worker *worker, double loss,
                        struct gapless_error *error);
/* Elements [from, from + count) of the gradient are final, before others are: while the rest
 * is still computed, as backward goes from the last layer to the first, the master may work
 * on them. Each range of the master's (range_elements) goes to it once all of its elements
 * are handed in, but for the first one, which goes with the push. In any order, each element
 * at most once between a pull and its push; then push, as always, which brings what is left
 * and the loss. The bits are those of one push, unless others' gradients come in between.
 *
 * From here on these elements of grad belong to the master, and those of params may change:
 * they are the next ones. Code that still reads params takes a copy, or gives buffers of its own
 * (config.params), which change with the pull.
 *
 * What is not finite is dropped by range here, see gapless_worker_push, and a worker that leaves
 * before its push leaves a gradient that is applied in part; it counts as `partial`, and its batch
 * is not given again. A record has no more than when the first range came.
 *
 * GAPLESS_UNSUPPORTED: the rule needs the whole gradient, or clip_norm does, or buffers are on
 * a GPU; with a count of 0 that is all that is found out. GAPLESS_INVALID: without a pull,
 * outside, or handed in before. */
int gapless_worker_push_range(struct gapless_worker *worker, uint64_t from,
                              uint64_t count, struct gapless_error *error);
/* The gradients pushed from now on are applied at the schedule's rate times `factor`; 1 at
 * the start. It travels with the gradient, and a record has it. A synchronous rule takes
 * the mean of a round. GAPLESS_INVALID: no finite number of at least 0. */
int gapless_worker_set_rate(struct gapless_worker *worker, double factor);
/* Leaves. NULL is a no-op. */
void gapless_worker_close(struct gapless_worker *worker);

/* What the last round trip cost, in ns: for benchmarks. norm: the worker's own passes
 * over the gradient; check and pass: the master's. */
struct gapless_round_trip {
    uint64_t norm_ns, check_ns, pass_ns;
};
void gapless_worker_round_trip(const struct gapless_worker *worker,
                               struct gapless_round_trip *ret);

/* ---- simulation ---------------------------------------------------------- */

/* How long workers take over a batch (Ali et al., 2000: gamma distributions by
 * coefficient of variation V). */
enum gapless_clock {
    GAPLESS_CLOCK_HOMOGENEOUS,   /* all alike, V = 0.1 from batch to batch */
    GAPLESS_CLOCK_HETEROGENEOUS, /* V = 0.6 from worker to worker, 0.1 within one */
    GAPLESS_CLOCK_ROUND_ROBIN,   /* always batch_ns: in turn, lag N - 1 */
    GAPLESS_CLOCK_TIMES          /* as listed in `times` */
};

struct gapless_batch_time {
    uint32_t worker;
    uint64_t ns;
};

enum gapless_incident_kind {
    GAPLESS_JOIN,  /* one more worker */
    GAPLESS_LEAVE, /* `worker` says goodbye; its batch is computed by another */
    GAPLESS_KILL,  /* `worker` is gone without a word */
    GAPLESS_STALL  /* `worker` does nothing for `ns`: its present batch takes so much
                      longer */
};

struct gapless_incident {
    uint64_t at_ns;
    enum gapless_incident_kind kind;
    uint32_t worker;
    uint64_t ns;
};

struct gapless_simulation_config {
    struct gapless_master_config master; /* address is not used */
    uint32_t workers;                    /* at the start; at least 1 */
    uint32_t threads; /* that compute gradients, the caller's among them; 0: 1. The
                         result does not depend on it */
    uint64_t seed;    /* of the batch times */
    enum gapless_clock clock;
    uint64_t batch_ns;                      /* mean time of a batch; 0: 1 s */
    const struct gapless_batch_time *times; /* GAPLESS_CLOCK_TIMES: a worker's in this
                                               order, and again from the first */
    size_t times_count;
    uint64_t latency_ns; /* of the link, each way */
    double bandwidth;    /* bytes a second through the master's port, each way, shared
                            by all; 0: no limit */
    uint64_t pass_ns;    /* the master's time for an update */
    const struct gapless_incident *incidents; /* in order of time */
    size_t incidents_count;
    const char *replay; /* path of a record: repeats it; clock, seed, link and
                           incidents are not used; NULL: none */
    /* The gradient of batch number `batch` at params, into grad: count floats each;
     * returns the loss. Called by several threads at once, with `thread` below
       `threads`, between two calls of gapless_simulation_run, too; must depend on
       nothing but batch and params. */
    double (*gradient)(void *context, uint32_t thread, uint64_t batch,
                       const float *params, float *grad);
    /* The same with master.local_steps, in place of it: `steps` batches from `batch` on,
     * by the worker that joined as number `joined` (from 0; one that comes back is
     * another), and into grad params minus where it ended. It may keep a state for each
     * `joined`: its calls for one come one after another, in the order of its exchanges. */
    double (*local)(void *context, uint32_t thread, uint32_t joined, uint64_t batch,
                    uint32_t steps, const float *params, float *grad);
    void *context;
};

struct gapless_simulation_stats {
    uint64_t virtual_ns;   /* the clock now */
    double seconds;        /* real time spent in gapless_simulation_run */
    double gradient_s;     /* real time spent in gradients, over all threads */
    double master_s;       /* real time spent in the master */
    uint64_t master_bytes; /* vectors of the master now, each as long as the model:
                              parameters, velocities, statistics, what was sent */
    uint64_t table_bytes;  /* its tables: some kilobytes a worker */
    uint64_t worker_bytes; /* what the modelled workers hold themselves */
    uint64_t buffer_bytes; /* gradients under way, by thread */
};

struct gapless_simulation;

/* Many workers in one process and in virtual time, with the real master and the real
 * workers' code. The same configuration gives the same bits on every run. */
int gapless_simulation_open(const struct gapless_simulation_config *config,
                            struct gapless_simulation **ret,
                            struct gapless_error *error);
/* Goes on until `gradients` have been consumed in all, or to the end of the run (then
 * GAPLESS_STOPPED). GAPLESS_OK: there is more to come. Otherwise a failure. */
int gapless_simulation_run(struct gapless_simulation *simulation, uint64_t gradients,
                           struct gapless_error *error);
/* The master inside, for its statistics, parameters and gapless_master_save; times in
 * its statistics are virtual. Never run or close it. */
/* Writes a state, as gapless_master_save_state does, from which gapless_simulation_open goes on
 * (master.resume) to the bit as if it had not stopped, with the same configuration. What
 * `context` keeps from batch to batch is the caller's to keep. GAPLESS_UNSUPPORTED: a replay, or a
 * wire that takes time. */
int gapless_simulation_save(struct gapless_simulation *simulation, const char *path,
                            const char *const *metadata, struct gapless_error *error);
struct gapless_master *
gapless_simulation_master(const struct gapless_simulation *simulation);
void gapless_simulation_stats(const struct gapless_simulation *simulation,
                              struct gapless_simulation_stats *ret);
/* NULL is a no-op. */
void gapless_simulation_close(struct gapless_simulation *simulation);

/* The note at the start of a record, malloc'ed. */
int gapless_record_note(const char *path, char **ret, struct gapless_error *error);

/* ---- the network --------------------------------------------------------- */

/* What a transport has done so far; all zero over shared memory but wake-ups. */
struct gapless_traffic {
    uint64_t requests;    /* work requests posted */
    uint64_t doorbells;   /* calls that posted them */
    uint64_t completions; /* taken from completion queues */
    uint64_t wakeups;     /* sleeps that ended */
    uint64_t regions;     /* registrations of memory, now */
};
void gapless_master_traffic(const struct gapless_master *master,
                            struct gapless_traffic *ret);
void gapless_worker_traffic(const struct gapless_worker *worker,
                            struct gapless_traffic *ret);
/* One line on the path: device, port, GID and why it was chosen; "" over shared memory.
 * `bytes` of ret are enough if 256. */
void gapless_master_link(const struct gapless_master *master, char *ret, size_t bytes);
void gapless_worker_link(const struct gapless_worker *worker, char *ret, size_t bytes);
/* One line on where the parameters are and how the network reaches them; "cpu-avx512"
 * without a GPU. 512 bytes of ret are enough. */
void gapless_master_device(const struct gapless_master *master, char *ret,
                           size_t bytes);
/* The same of a worker's buffers. */
void gapless_worker_device(const struct gapless_worker *worker, char *ret,
                           size_t bytes);
/* The GPUs of this machine and what they can do: lines for a person. Returns their
 * number; GAPLESS_MISSING, and a line that says what is missing. */
int gapless_device_survey(char *ret, size_t bytes);
/* The RDMA devices of this machine, their ports, GIDs and limits: lines for a person.
 * Returns the number of devices, or GAPLESS_MISSING if this build has no verbs. */
int gapless_network_survey(char *ret, size_t bytes);

/* ---- observer ------------------------------------------------------------ */

struct gapless_observer_config {
    const char *address;
    int64_t connect_ns; /* 0: 10 s */
    struct gapless_net net;
};

struct gapless_observer;

int gapless_observer_open(const struct gapless_observer_config *config,
                          struct gapless_observer **ret, struct gapless_error *error);
uint64_t gapless_observer_count(const struct gapless_observer *observer);
const char *gapless_observer_job(const struct gapless_observer *observer);
/* Copies the live parameters, one-sided: every range is from one moment, never torn.
 * *ret_version: updates of the first range, and of a run that was begun again 2^40 more for each
 * time. Where a range changes faster than it can be
 * copied, the master is asked for a copy, which it makes at most 20 times a second.
 * GAPLESS_TORN when that did not help within timeout_ns either (0: 10 s).
 * GAPLESS_PEER_LOST when the master is gone. */
int gapless_observer_read(struct gapless_observer *observer, float *params,
                          int64_t timeout_ns, uint64_t *ret_version,
                          struct gapless_error *error);
/* What is left of a master that is gone, on the same machine: the parameters as it had them, and
 * the updates of the first range. torn: the ranges that it was writing, as text "2, 5", which
 * are part old, part new; "": none. GAPLESS_UNSUPPORTED: over a network, or it kept them on a
 * GPU. */
int gapless_observer_lost(struct gapless_observer *observer, float *params,
                          uint64_t *ret_updates, char *torn, size_t torn_bytes,
                          struct gapless_error *error);
/* Statistics of the run as the master keeps them. */
int gapless_observer_stats(struct gapless_observer *observer, struct gapless_stats *ret,
                           struct gapless_error *error);
int gapless_observer_worker_stats(struct gapless_observer *observer, uint32_t worker,
                                  struct gapless_worker_stats *ret);
/* As gapless_master_tensor_gates. */
int gapless_observer_tensor_gates(struct gapless_observer *observer, uint32_t count,
                                  double *ret);
void gapless_observer_close(struct gapless_observer *observer);

#ifdef __cplusplus
}
#endif
#endif
