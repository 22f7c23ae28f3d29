/* What is used of NCCL, in declarations of our own: the library is opened at run time,
 * and a machine that builds Gapless need not have it.
 *
 * Names, values and layouts are those of NCCL 2.18 and all later versions 2.x (NVIDIA,
 * "NCCL API", docs.nvidia.com/deeplearning/nccl); tests/gpu/test_group_abi.sh compares
 * them with an nccl.h where there is one.
 */
#ifndef GAPLESS_GPU_NCCL_API_H
#define GAPLESS_GPU_NCCL_API_H

#include <cuda_runtime_api.h>
#include <limits.h>
#include <stddef.h>

#define NCCL_API_OLDEST 21800 /* major * 10000 + minor * 100 + patch */
#define NCCL_API_ID_BYTES 128

/* ncclResult_t */
enum nccl_result {
    NCCL_SUCCESS = 0,
    NCCL_CUDA_ERROR = 1,
    NCCL_SYSTEM_ERROR = 2,
    NCCL_INTERNAL_ERROR = 3,
    NCCL_INVALID_ARGUMENT = 4,
    NCCL_INVALID_USAGE = 5,
    NCCL_REMOTE_ERROR = 6,
    NCCL_IN_PROGRESS = 7
};

/* ncclDataType_t and ncclRedOp_t: the two values that are used. */
enum {
    NCCL_FLOAT32 = 7,
    NCCL_SUM = 0
};

typedef struct ncclComm *nccl_comm;

/* ncclUniqueId; it is handed over by value. */
struct nccl_id {
    char bytes[NCCL_API_ID_BYTES];
};

/* ncclConfig_t as version 2.18 has it. Later versions have more members behind these;
 * they read `size` bytes and give what is younger than `version` its default. `spare`
 * is where a later version has an integer, and has its "not set". */
struct nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking, cga_cluster_size, min_ctas, max_ctas;
    const char *net_name;
    int split_share, spare;
};
#define NCCL_API_MAGIC 0xcafebeefu
#define NCCL_API_UNSET INT_MIN

/* The functions, by the name that dlsym looks for: FUNCTION(name, result,
 * (arguments)). */
#define NCCL_API_FUNCTIONS(FUNCTION)                                                   \
    FUNCTION(GetVersion, int, (int *ret))                                              \
    FUNCTION(GetUniqueId, int, (struct nccl_id * ret))                                 \
    FUNCTION(CommInitRankConfig, int,                                                  \
             (nccl_comm * ret, int size, struct nccl_id id, int rank,                  \
              struct nccl_config *config))                                             \
    FUNCTION(CommGetAsyncError, int, (nccl_comm comm, int *ret))                       \
    FUNCTION(CommFinalize, int, (nccl_comm comm))                                      \
    FUNCTION(CommDestroy, int, (nccl_comm comm))                                       \
    FUNCTION(CommAbort, int, (nccl_comm comm))                                         \
    FUNCTION(AllReduce, int,                                                           \
             (const void *from, void *to, size_t count, int type, int op,              \
              nccl_comm comm, cudaStream_t stream))                                    \
    FUNCTION(Broadcast, int,                                                           \
             (const void *from, void *to, size_t count, int type, int root,            \
              nccl_comm comm, cudaStream_t stream))                                    \
    FUNCTION(GetErrorString, const char *, (int result))                               \
    FUNCTION(GetLastError, const char *, (nccl_comm comm))

#endif
