/* Device: a GPU as the engine sees it, and the tables of functions that the plugin
 * libgapless_cuda.so fills. The engine never links CUDA: it opens the plugin at run
 * time (device_plugin), and everything a CUDA function returns stays behind this file.
 *
 *   host memory          device IN            device WORK           device OUT
 *   slot[w].grad ──copy_in──> landing ──┐
 *                                       └─> finite, apply ──┐
 *   slot[w].sent <───────────────────────── sent[w] <───────┴──copy_out
 *
 * A device has three streams. What is asked for on one of them is done in the order
 * asked; between streams there is order only through tickets: mark() gives a ticket for
 * all that was asked for so far, after() lets another stream go on only then, done()
 * looks, wait() waits with a bound. No function that asks for work waits for it.
 *
 * A failure on the way (a lost card, an illegal address) is kept, and everything from
 * then on is skipped: done() and wait() say so, and failure() has the text.
 *
 * Arrays of a pass are device pointers, of any length and alignment; where all of them
 * start on 16 bytes, four elements are moved at a time. The bits are those of the CPU:
 * the rules are the same source, and sums are added in the same order
 * (compute_lanes.h).
 *
 * A device belongs to one thread at a time.
 */
#ifndef GAPLESS_DEVICE_H
#define GAPLESS_DEVICE_H

#include "engine/compute/compute.h"
#include "engine/compute/matrices.h"
#include "engine/rules/element.h"
#include <gapless/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICE_ABI 5u
/* GPUs of one master, or of one group of workers. */
#define DEVICE_MAX 16u
/* Places for what passes give back. */
#define DEVICE_RESULTS 256u
/* Gradients that one pass may apply, one after another. */
#define DEVICE_QUEUE 8u

struct device;        /* an opened GPU */
struct device_blocks; /* the blocks of a range, on the GPU */

enum device_stream {
    DEVICE_IN,   /* host to device */
    DEVICE_WORK, /* passes */
    DEVICE_OUT,  /* device to host */
    DEVICE_STREAMS
};

/* Does a write of the network card need a flush before a kernel may read it?
 * (CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING) */
enum device_ordering {
    DEVICE_ORDERS_NONE = 0,
    DEVICE_ORDERS_OWNER = 100,
    DEVICE_ORDERS_ALL = 200
};

struct device_facts {
    uint32_t number;       /* as CUDA counts */
    char name[64];         /* "NVIDIA H100 80GB HBM3" */
    char bus[16];          /* PCI address, "0000:18:00.0" */
    uint32_t major, minor; /* compute capability, 9.0 */
    uint32_t processors;   /* multiprocessors */
    uint64_t memory_bytes, free_bytes, l2_bytes;
    uint64_t bandwidth;  /* peak of its memory, bytes a second; 0: unknown */
    bool rdma;           /* GPUDirect RDMA is supported at all */
    bool dmabuf;         /* memory can be exported as DMA-BUF */
    int ordering;        /* enum device_ordering */
    bool can_flush;      /* flush() orders the card's writes from the CPU */
    int driver, runtime; /* CUDA versions, 13000 */
};

/* What kind of memory a pointer is. */
enum device_kind {
    DEVICE_HOST, /* or unknown to CUDA */
    DEVICE_MEMORY,
    DEVICE_MANAGED
};

/* One gradient to apply. */
struct device_pass {
    struct arrays at;
    struct step_scalars scalars;
    const double *dots; /* RULE_PUBLISHED: host memory, read during the call; or NULL */
    unsigned want;      /* WANT_GAP */
};

/* What passes give back; of the fields those are written that the call has. */
struct device_result {
    struct sums sums;
    double value;    /* measure, norm_sq, decay */
    uint32_t finite; /* finite, local: 1 or 0 */
    uint32_t spare;
};

struct device_ops {
    /* ---- which there are ---- */
    /* GAPLESS_MISSING: no driver, or no GPU; the text says which and what to do. */
    int (*count)(uint32_t *ret, struct gapless_error *error);
    int (*facts)(uint32_t number, struct device_facts *ret,
                 struct gapless_error *error);
    /* Passes will be over at most elements_max elements in blocks_max blocks. */
    int (*open)(uint32_t number, size_t elements_max, uint32_t blocks_max,
                struct device **ret, struct gapless_error *error);
    /* Waits for what was asked for, frees all memory taken, unpins. NULL is a no-op. */
    void (*close)(struct device *device);
    /* The first failure, if there was one: its status (and text); else GAPLESS_OK. */
    int (*failure)(const struct device *device, struct gapless_error *error);

    /* ---- memory ---- */
    /* Of the GPU, aligned to 64 KiB, zero. GAPLESS_NO_MEMORY says how much is free. */
    int (*take)(struct device *device, size_t bytes, void **ret,
                struct gapless_error *error);
    void (*give)(struct device *device, void *memory);
    /* Host memory that is copied from and to often: page-locked. */
    int (*pin)(struct device *device, void *host, size_t bytes,
               struct gapless_error *error);
    void (*unpin)(struct device *device, void *host);
    /* Memory of this GPU, taken here or by other code, as a DMA-BUF for a network
     * card: a descriptor that the caller closes, and where in it the memory starts.
     * GAPLESS_UNSUPPORTED. */
    int (*share)(struct device *device, void *memory, size_t bytes, int *ret_fd,
                 uint64_t *ret_offset, struct gapless_error *error);
    /* Whose memory is it? *ret_number: of which GPU, for DEVICE_MEMORY. */
    enum device_kind (*kind)(const void *pointer, uint32_t *ret_number);
    /* Orders what network cards have written before what is asked for next. */
    int (*flush)(struct device *device);

    /* ---- copies, and order ---- */
    void (*copy_in)(struct device *device, void *to, const void *from_host,
                    size_t bytes);
    void (*copy_out)(struct device *device, void *to_host, const void *from,
                     size_t bytes);
    void (*copy)(struct device *device, void *to, const void *from, size_t bytes);
    void (*zero)(struct device *device, void *to, size_t bytes); /* on WORK, as copy */
    uint64_t (*mark)(struct device *device, enum device_stream stream);
    void (*after)(struct device *device, enum device_stream stream, uint64_t ticket);
    /* 1: done; 0: not yet; negative: it never will, see failure(). */
    int (*done)(struct device *device, uint64_t ticket);
    /* Polls; GAPLESS_TIMEOUT after timeout_ns. */
    int (*wait)(struct device *device, uint64_t ticket, int64_t timeout_ns,
                struct gapless_error *error);
    /* What was given back in a place; valid when a ticket marked on WORK after the
     * pass is done, until the place is used again. */
    const struct device_result *(*result)(const struct device *device, uint32_t place);

    /* Likewise of an apply whose gates were measured (`lagging`): the gate of each block.
     * NULL: the device was opened for more blocks than are given back one by one. */
    const float *(*gates)(const struct device *device, uint32_t place);

    /* ---- passes, on WORK; `place` is below DEVICE_RESULTS. See compute.h ---- */
    /* The blocks of a range, copied to the GPU. */
    int (*blocks_new)(struct device *device, const struct blocks *blocks,
                      struct device_blocks **ret, struct gapless_error *error);
    void (*blocks_free)(struct device *device, struct device_blocks *blocks);
    /* Applies `count` (1..DEVICE_QUEUE) gradients one after another: the same bits as
     * this many calls, with theta, all, stat and square moved once. Their theta, all, stat
     * and square are the same. Results in place .. place + count - 1. blocks: NULL but for RULE_BLOCK.
     */
    void (*apply)(struct device *device, const struct rule *rule,
                  const struct device_pass *pass, uint32_t count,
                  const struct device_blocks *blocks, size_t n, uint32_t place);
    void (*measure)(struct device *device, const struct rule *rule,
                    const struct arrays *at, const struct step_scalars *scalars,
                    size_t n, uint32_t place);
    void (*round)(struct device *device, const struct rule *rule,
                  const struct arrays *at, const struct step_scalars *scalars,
                  const float *const *grad, float *const *sent, uint32_t workers,
                  size_t n, unsigned want, uint32_t place);
    void (*look_ahead)(struct device *device, const struct rule *rule,
                       const struct arrays *at, const struct step_scalars *scalars,
                       size_t n);
    void (*forget)(struct device *device, const struct rule *rule,
                   const struct arrays *at, size_t n);
    void (*resum)(struct device *device, float *all, const float *const *own,
                  uint32_t workers, size_t n);
    void (*finite)(struct device *device, const float *x, size_t n, uint32_t place);
    void (*norm_sq)(struct device *device, const float *x, size_t n, uint32_t place);
    void (*scale)(struct device *device, float *x, float factor, size_t n);
    void (*decay)(struct device *device, float *grad, const float *params, float decay,
                  size_t n, uint32_t place);
    void (*slim)(struct device *device, float *grad, float *velocity, float momentum,
                 size_t n);
    void (*average)(struct device *device, float *theta, float *sent, const float *grad,
                    float share, float average, size_t n);
};

/* ---- models: softmax regression and multi-layer perceptrons, by cuBLAS --- */

struct gpu_model; /* buffers of one thread for one model */

struct gpu_model_ops {
    /* Loads cuBLAS: GAPLESS_MISSING, GAPLESS_VERSION say how. Needs no GPU. */
    int (*ready)(struct gapless_error *error);
    /* widths: layers + 1 of them, inputs first, classes last; parameters as in
     * cluster/workloads/model.h. Loads cuBLAS if need be. */
    int (*open)(struct device *device, const uint32_t *widths, uint32_t layers,
                uint32_t batch_max, struct gpu_model **ret,
                struct gapless_error *error);
    void (*close)(struct gpu_model *model); /* NULL is a no-op */
    /* theta, grad: of the GPU; x (batch x inputs), labels: of the host. Waits until
     * grad is complete. *ret_loss: mean cross-entropy in nats; NaN where a label is not
     * below classes, and grad is then as it was. */
    int (*gradient)(struct gpu_model *model, const float *theta, const float *x,
                    const uint8_t *labels, uint32_t batch, float *grad,
                    double *ret_loss, struct gapless_error *error);
};

/* ---- matrices: passes of RULE_MATRIX rules, with cuBLAS ---- */

struct gpu_matrices; /* scratch memory of one device for its matrices */

/* Passes over a range, stretch by stretch (engine/compute/matrices.h has what each does):
 * asked for on WORK, as those of struct device_ops, and with their places. The stretches
 * are all of the range, in order. Sums and gates have the CPU's bits but for gap_sq, whose
 * order is that of the range as one; what cuBLAS multiplies agrees to 1e-4 of its norm. */
struct gpu_matrix_ops {
    /* Loads cuBLAS: GAPLESS_MISSING, GAPLESS_VERSION say how. Needs no GPU. */
    int (*ready)(struct gapless_error *error);
    /* For matrices of at most this many elements, whose smaller number of rows or columns
     * is at most `side`; 0: there is none. Loads cuBLAS if need be. */
    int (*open)(struct device *device, size_t elements, size_t side,
                struct gpu_matrices **ret, struct gapless_error *error);
    void (*close)(struct gpu_matrices *matrices); /* NULL is a no-op */
    /* One gradient. The gate of each stretch is among gates(). */
    void (*apply)(struct gpu_matrices *matrices, const struct rule *rule,
                  const struct device_pass *pass, const struct stretch *stretches,
                  uint32_t count, size_t n, uint32_t place);
    /* `value`: what a gate of the whole vector is made of, of this range. */
    void (*measure)(struct gpu_matrices *matrices, const struct rule *rule,
                    const struct arrays *at, const struct step_scalars *scalars,
                    const struct stretch *stretches, uint32_t count, uint32_t place);
    void (*look_ahead)(struct gpu_matrices *matrices, const struct rule *rule,
                       const struct arrays *at, const struct step_scalars *scalars,
                       const struct stretch *stretches, uint32_t count);
};

/* ---- groups: several GPUs that act as one worker, by NCCL ---- */

#define GPU_GROUP_ID 128u
struct gpu_group; /* one rank of a group */

struct gpu_group_ops {
    /* Loads NCCL (2.18 or later): its version, 22809. GAPLESS_MISSING, or
     * GAPLESS_VERSION, says what to install. */
    int (*version)(int *ret, struct gapless_error *error);
    /* A name for a new group, for every rank's open. Needs no GPU. */
    int (*id)(unsigned char ret[GPU_GROUP_ID], struct gapless_error *error);
    /* Joins; every rank calls it, each from a thread or process of its own, and it
     * returns when all have, or after timeout_ns with GAPLESS_TIMEOUT. */
    int (*open)(struct device *device, const unsigned char id[GPU_GROUP_ID],
                uint32_t rank, uint32_t size, int64_t timeout_ns,
                struct gpu_group **ret, struct gapless_error *error);
    void (*close)(struct gpu_group *group); /* NULL is a no-op */
    /* x = the mean of every rank's x. All ranks call it with the same n; each waits
     * until its x is complete. A rank that failed, or does not come in time: the others
     * get GAPLESS_PEER_LOST or GAPLESS_TIMEOUT, and the communicator is aborted. */
    int (*mean)(struct gpu_group *group, float *x, size_t n, int64_t timeout_ns,
                struct gapless_error *error);
    /* x of rank `root` to all. */
    int (*broadcast)(struct gpu_group *group, float *x, size_t n, uint32_t root,
                     int64_t timeout_ns, struct gapless_error *error);
    /* From any thread: every call under way, and every later one, fails. */
    void (*abort)(struct gpu_group *group);
};

/* ---- the plugin ---- */

struct gpu_plugin {
    uint32_t abi;     /* DEVICE_ABI */
    uint32_t bytes;   /* sizeof(struct gpu_plugin) */
    char version[48]; /* of Gapless, and of the CUDA it was built with */
    const struct device_ops *device;
    const struct gpu_model_ops *model;
    const struct gpu_group_ops *group;
    const struct gpu_matrix_ops *matrices;
};

/* The plugin's one exported function. NULL: it has no tables of that number. */
#define DEVICE_PLUGIN_SYMBOL "gapless_gpu_plugin"
typedef const struct gpu_plugin *gpu_plugin_fn(uint32_t abi);

/* Opens the plugin, once in a process: GAPLESS_CUDA_PLUGIN in the environment, or
 * libgapless_cuda.so beside the program or library, in its ../lib, or where the system
 * looks. GAPLESS_MISSING, GAPLESS_VERSION: the text says what is missing and where it
 * was looked for. */
int device_plugin(const struct gpu_plugin **ret, struct gapless_error *error);

/* "cuda", "cuda:1", "cuda:0,2", "cuda:all": which GPUs. At most DEVICE_MAX.
 * GAPLESS_INVALID for what is no such text; GAPLESS_MISSING where one is not there. */
int device_choose(const struct gpu_plugin *plugin, const char *text, uint32_t *ret,
                  uint32_t *ret_count, struct gapless_error *error);

/* ---- what the system tells of GPUs and network cards (sysfs) ---- */

/* How what a card sends to a GPU travels. */
enum device_way {
    DEVICE_SAME_SWITCH,  /* below one PCIe switch, past the processor */
    DEVICE_SAME_ROOT,    /* through one PCIe root complex */
    DEVICE_SAME_NODE,    /* through two roots of one NUMA node */
    DEVICE_ACROSS_NODES, /* through two NUMA nodes */
    DEVICE_WAY_UNKNOWN   /* a card without PCIe (software), or a GPU not found */
};

struct device_near {
    char card[64]; /* "mlx5_0" */
    int node;      /* NUMA node of the card; -1: unknown */
    enum device_way way;
};

struct device_place {
    int node;      /* NUMA node of the GPU; -1: unknown */
    uint64_t bar1; /* bytes that cards can reach at a time; 0: unknown */
};

/* `root` is "" but in tests, where it is a folder that has sys and proc. bus: of
 * device_facts. */
void device_place_read(const char *root, const char *bus, struct device_place *ret);
/* The RDMA devices, the nearest first; how many (at most max are written). */
uint32_t device_near_read(const char *root, const char *bus, struct device_near *ret,
                          uint32_t max);
/* "within one PCIe switch", for people. */
const char *device_way_text(enum device_way way);
/* The version of nvidia-peermem, which registers GPU memory without DMA-BUF, and of
 * what kernel module it is; false: not loaded. */
bool device_peermem(const char *root, char *ret, size_t bytes);
/* Is the loaded kernel module of the NVIDIA driver the open one, which DMA-BUF needs?
 * 1: yes, 0: no, -1: unknown, none is loaded. */
int device_open_module(const char *root);
/* gapless_device_survey with another root, and plugin (NULL: why is in `lack`). */
int device_survey(const char *root, const struct gpu_plugin *plugin,
                  const struct gapless_error *lack, char *ret, size_t bytes);

#endif
