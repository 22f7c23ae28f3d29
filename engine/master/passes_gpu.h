/* The master's memory and passes on GPUs. Control stays on the processor: who may push,
 * versions, lag, what to do next.
 *
 *   shm, or staged       slot.grad ──copy──> grad[w]     GPU 0: ranges 0..3
 *   GPUDirect            card ─────────────> grad[w]     theta all stat square own[w]
 *                                              │         GPU 1: ranges 4..7
 *                              finite, apply   v         theta all stat square own[w]
 *   shm, or staged       slot.sent <──copy── sent[w]
 *   GPUDirect            card <───────────── sent[w]
 *
 * Each GPU has a stretch of whole ranges, and of every vector only that. Passes are
 * asked for in the order in which the core decides them, and that is the order of the
 * GPU's one stream of work: the parameters are what the processor would have made of
 * the same gradients, to the bit.
 *
 * The core learns at once that a gradient is applied; what a worker, an observer or
 * the statistics would see of it waits until it is (gpu_drain), at the end of each
 * batch of events at the latest. Gradients of a batch that are for the same range, next
 * to each other, are applied in one pass. What a network card wrote was seen as
 * complete by this thread before it launches the kernel that reads it: the documented
 * order of GPUDirect; where the GPU asks for more, cards are flushed first.
 */
#ifndef GAPLESS_MASTER_GPU_H
#define GAPLESS_MASTER_GPU_H

#include "engine/device/device.h"
#include "engine/master/master.h"

/* Gradients checked ahead of their turn, and gradients applied and not yet reported:
 * the two halves of a GPU's places for results. */
#define GPU_LANDINGS 64u
#define GPU_ENTRIES 96u
#define GPU_PLACES_APPLY 128u
/* Ranges of one gradient that are copied ahead. */
#define GPU_AHEAD 8u
/* Whatever a GPU is asked for is done by then, or it is lost. */
#define GPU_BOUND_NS INT64_C(60000000000)
#define GPU_PROBE_BYTES 65536u

enum gpu_flush {
    GPU_FLUSH_NONE, /* the GPU orders what cards write */
    GPU_FLUSH_READ  /* a card reads back a byte */
};

/* A GPU and what is on it. Vectors start with element `from` of the whole. */
struct gpu_part {
    struct device *device;
    struct device_facts facts;
    uint32_t first, end; /* ranges */
    size_t from, to;     /* elements */
    float *theta, *all, *stat, *square, *published[2];
    uint16_t *decays;              /* RULE_ADAM */
    struct gpu_matrices *matrices; /* RULE_MATRIX */
    void *probe; /* for cards to prove themselves on, and to be flushed by */
    uint32_t next_landing, next_apply; /* places */
    bool pinned;                       /* its stretch of the host's theta */
    /* WORK, OUT have been asked for something since the last wait */
    bool busy, copying;
};

/* A worker's vectors, by part. */
struct gpu_slot {
    float *own[DEVICE_MAX], *sent[DEVICE_MAX], *grad[DEVICE_MAX];
    float *mean[DEVICE_MAX]; /* RULE_MATRIX with a sum: of matrices; else NULL */
    bool taken;
    bool pinned; /* the slot's region */
    bool whole;  /* its gradient comes in one piece: copy ahead */
};

/* A range of a gradient that is on its way, and will be checked. */
struct gpu_landing {
    uint32_t worker, range, place;
    uint64_t ticket;
};

/* A unit of a gradient that is applied, or about to be. */
struct gpu_entry {
    const struct layout_unit *unit;
    uint32_t worker, place;
    struct device_pass pass;
};

struct gpu_note {
    uint32_t worker, note;
};

struct master_gpu {
    const struct gpu_plugin *plugin;
    const struct device_ops *ops;
    uint32_t parts;
    struct gpu_part part[DEVICE_MAX];
    struct gpu_slot *slot;         /* workers_max */
    struct device_blocks **blocks; /* of each unit; NULL where the rule has none, and of
                                      what it has no part in */
    bool *open;                    /* by range: its version word says "being written" */

    bool direct; /* cards reach the vectors; else they are copied */
    enum gpu_flush flush;
    const char *how; /* the card got at them: "DMA-BUF" */
    struct tp_region probe;

    struct gpu_landing landing[GPU_LANDINGS];
    uint32_t landings;
    struct gpu_entry entry[GPU_ENTRIES];
    uint32_t entries, launched;
    struct gpu_note *note; /* that wait until all of this is done */
    uint32_t notes, notes_max;
    bool changed; /* theta, since it was last copied to the host */

    struct gapless_error error; /* status GAPLESS_OK: all is well */
    char text[512];
};

extern const struct pass_ops pass_ops_gpu;

/* ---- open_gpu.c: entries of pass_ops_gpu --------------------------------- */
int gpu_prepare(struct gapless_master *m, const struct gapless_master_config *config,
                struct gapless_error *error);
int gpu_slot_memory(struct gapless_master *m, uint32_t worker,
                    struct gapless_error *error);
void gpu_slot_release(struct gapless_master *m, uint32_t worker);
const char *gpu_describe(const struct gapless_master *m);
void gpu_detach(struct gapless_master *m);
void gpu_close(struct gapless_master *m);

/* ---- passes_gpu.c -------------------------------------------------------- */
/* Keeps the first failure. */
void gpu_failed(struct master_gpu *g, const struct gapless_error *reason);
/* Waits for a stream. */
void gpu_wait(struct master_gpu *g, const struct gpu_part *part,
              enum device_stream stream);

#endif
