/* Private to `gapless bench gpu`: what its files share.
 *
 *   bench_gpu.c          opening the GPU, the table
 *   bench_gpu_bytes.c    bytes a parameter of each rule, beside the least possible
 *   bench_gpu_time.c     time of passes and copies
 *   bench_gpu_accept.c   the checks in order, the report
 *   bench_gpu_bits.c     the bits of the CPU                     bits
 *   bench_gpu_pass.c     share of the memory's speed, latencies  bandwidth, latency
 *   bench_gpu_rdma.c     network cards and GPU memory            gpudirect, soak
 *   bench_gpu_runs.c     this program as a whole                 sanitizer, runs, kill
 *   bench_gpu_tool.c     starting programs, every wait bounded
 *
 * Everything goes through the plugin's table (engine/device/device.h): no CUDA here.
 */
#ifndef GAPLESS_BENCH_GPU_H
#define GAPLESS_BENCH_GPU_H

#include "bench/bench.h"

#include "engine/base/clock.h"
#include "engine/compute/compute.h"
#include "engine/device/device.h"
#include "engine/rules/element.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BG_RULES_MAX 64
#define BG_TEXT_MAX 400
/* Bound of every wait for the GPU; tools that follow each instruction are slow. */
#define BG_WAIT_NS 120000000000

enum bg_name {
    BG_BITS,
    BG_SANITIZER,
    BG_BANDWIDTH,
    BG_GPUDIRECT,
    BG_SOAK,
    BG_LATENCY,
    BG_RUNS,
    BG_KILL,
    BG_CHECKS
};

struct bg_gpu {
    const struct gpu_plugin *plugin;
    const struct device_ops *ops;
    struct device_facts facts;
    bool fake; /* a stand-in for tests: its figures are no measurement */
};

enum bg_verdict {
    BG_NOT_RUN,
    BG_PASSED,
    BG_FAILED
};

/* One check: what came of it, and its figures. */
struct bg_check {
    enum bg_name name;
    enum bg_verdict verdict;
    char text[BG_TEXT_MAX];
    json_t *figures; /* an object */
    double seconds;
};

struct bg_run {
    const struct bench_gpu_config *options;
    struct bg_gpu gpu;
    json_t *plan;     /* what gapless plan --measured takes */
    char folder[256]; /* for files of the checks; removed at the end */
    char self[512];   /* this program */
    bool lost;        /* the GPU fails every call from some check on */
};

/* Sets the verdict with a text; returns it. */
enum bg_verdict bg_says(struct bg_check *check, enum bg_verdict verdict,
                        const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- bench_gpu_bytes.c --------------------------------------------------- */
/* Reads and writes of a parameter that the algorithm needs, if the state and the
 * messages pass through memory once. */
struct bg_floor {
    const char *rule;
    unsigned reads, writes;
    const char *row; /* what it is made of */
};
/* NULL: there is none for this rule. */
const struct bg_floor *bg_floor_of(const char *rule);
/* Bytes that a RULE_BLOCK rule reads again while the block is in L2; 0 for the others.
 * Those to and from memory: rules_bytes(). */
unsigned bg_again_bytes(const struct rule *rule);
void bg_print_bytes(void);

/* ---- bench_gpu_time.c ---------------------------------------------------- */
double clock_seconds(void);       /* s */
bool bg_same(double a, double b); /* to the bit */
/* Something that is launched on a device: no waiting. */
typedef void bg_launch(void *context, struct device *device);
/* Seconds of one launch among many, back to back, `rounds` times at least `seconds` /
 * rounds; the median of the rounds. */
int bg_time(const struct bg_gpu *gpu, struct device *device, bg_launch *launch,
            void *context, double seconds, double *ret, struct gapless_error *error);

/* Vectors of a pass on a GPU, all filled; `queue` workers' own, sent and grad. */
struct bg_vectors {
    const struct bg_gpu *gpu;
    struct device *device;
    const struct rule *rule;
    size_t n;
    uint32_t queue;
    float *theta, *all, *stat, *square;
    float *own[DEVICE_QUEUE], *sent[DEVICE_QUEUE], *grad[DEVICE_QUEUE];
    struct device_blocks *blocks;
    uint32_t *ends;
    struct step_scalars scalars;
};
/* Only the vectors that the rule uses are taken. bg_vectors_close gives them back, also
 * where open failed half-way; the device stays the caller's. */
int bg_vectors_open(const struct bg_gpu *gpu, struct device *device,
                    const struct rule *rule, size_t n, uint32_t queue,
                    struct bg_vectors *ret, struct gapless_error *error);
void bg_vectors_close(struct bg_vectors *v);
/* bg_launch functions with a struct bg_vectors: one gradient, `queue` gradients, the
 * check that a gradient is finite, a copy from theta to grad[0]. */
bg_launch bg_launch_one, bg_launch_queue, bg_launch_finite, bg_launch_copy;
uint32_t bg_blocks_of(size_t n); /* how many bg_vectors makes */

/* ---- bench_gpu_pass.c ---------------------------------------------------- */
/* The table of rules: printed, and as JSON. `plan` (NULL: none) gets the figures that
 * gapless plan takes. Rules that a failure kept from being measured are counted. */
int bg_rules(const struct bg_run *run, json_t *rows, json_t *plan, bool print,
             int *ret_missing, struct gapless_error *error);

/* ---- the checks ---------------------------------------------------------- */
void bg_bits(struct bg_run *run, struct bg_check *ret);
void bg_sanitizer(struct bg_run *run, struct bg_check *ret);
void bg_bandwidth(struct bg_run *run, struct bg_check *ret);
void bg_gpudirect(struct bg_run *run, struct bg_check *ret);
void bg_soak(struct bg_run *run, struct bg_check *ret);
void bg_latency(struct bg_run *run, struct bg_check *ret);
void bg_runs(struct bg_run *run, struct bg_check *ret);
void bg_kill(struct bg_run *run, struct bg_check *ret);

/* ---- bench_gpu_accept.c -------------------------------------------------- */
extern const char *const bg_names[BG_CHECKS];
/* All checks asked for; an exit code. */
int bg_accept(const struct bench_gpu_config *options, const struct bg_gpu *gpu);
json_t *bg_facts_json(const struct bg_gpu *gpu);

/* ---- bench_gpu_tool.c ---------------------------------------------------- */
struct bg_tool {
    pid_t pid;       /* 0: ended */
    char output[64]; /* a file */
    int code;        /* exit code, or minus the signal */
};
/* Starts a program; words and NAME=VALUE (or NULL) end with NULL. GAPLESS_SYSTEM. */
int bg_start(const char *const *words, const char *const *environment,
             struct bg_tool *ret, struct gapless_error *error);
/* Has it ended? Waits at most so long (0: only looks). */
bool bg_wait(struct bg_tool *tool, double seconds);
/* Kills it if it runs, removes its output. */
void bg_end(struct bg_tool *tool);
/* The object that it printed, behind what it had to say first, which is in the same file;
 * NULL: none. */
json_t *bg_object(const struct bg_tool *tool);
/* Its last lines, at most `bytes`, on one line; "" if there are none. */
void bg_tail(const struct bg_tool *tool, char *ret, size_t bytes);
/* Where a program is: PATH, then the usual places of CUDA. False: nowhere. */
bool bg_find(const char *name, char *ret, size_t bytes);

#endif
