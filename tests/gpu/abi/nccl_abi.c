/* Compiled where there is an nccl.h: are our declarations those of NCCL? */
#include "gpu/nccl_api.h"

#include <nccl.h>
#include <stddef.h>

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #theirs)

SAME(NCCL_SUCCESS, ncclSuccess);
SAME(NCCL_CUDA_ERROR, ncclUnhandledCudaError);
SAME(NCCL_SYSTEM_ERROR, ncclSystemError);
SAME(NCCL_INTERNAL_ERROR, ncclInternalError);
SAME(NCCL_INVALID_ARGUMENT, ncclInvalidArgument);
SAME(NCCL_INVALID_USAGE, ncclInvalidUsage);
SAME(NCCL_REMOTE_ERROR, ncclRemoteError);
SAME(NCCL_IN_PROGRESS, ncclInProgress);
SAME(NCCL_FLOAT32, ncclFloat32);
SAME(NCCL_SUM, ncclSum);
SAME(NCCL_API_ID_BYTES, NCCL_UNIQUE_ID_BYTES);
SAME(sizeof(struct nccl_id), sizeof(ncclUniqueId));
SAME(NCCL_API_UNSET, NCCL_CONFIG_UNDEF_INT);
SAME(NCCL_API_OLDEST, NCCL_VERSION(2, 18, 0));
SAME(sizeof(enum nccl_result), sizeof(ncclResult_t));
SAME(sizeof(int), sizeof(ncclResult_t));
SAME(sizeof(int), sizeof(ncclDataType_t));
SAME(sizeof(int), sizeof(ncclRedOp_t));

#define PLACE(ours, theirs)                                                            \
    SAME(offsetof(struct nccl_config, ours), offsetof(ncclConfig_t, theirs))
PLACE(size, size);
PLACE(magic, magic);
PLACE(version, version);
PLACE(blocking, blocking);
PLACE(cga_cluster_size, cgaClusterSize);
PLACE(min_ctas, minCTAs);
PLACE(max_ctas, maxCTAs);
PLACE(net_name, netName);
PLACE(split_share, splitShare);
_Static_assert(sizeof(struct nccl_config) <= sizeof(ncclConfig_t), "a prefix");
#if NCCL_VERSION_CODE >= 22500
PLACE(spare, trafficClass);
#endif

/* The magic number is only in the initialiser. */
_Static_assert(__builtin_types_compatible_p(unsigned,
                                            __typeof__(((ncclConfig_t *)0)->magic)),
               "magic");
int nccl_abi_differs(void);
int nccl_abi_differs(void)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;

    return config.magic != NCCL_API_MAGIC;
}

/* The functions: a call by NCCL's declaration with arguments of our types. Enums and
 * int are passed alike; pointers to our structs are NCCL's in all but name. */
int nccl_abi_calls(nccl_comm comm, struct nccl_config *config, struct nccl_id id,
                   void *x, cudaStream_t stream);
int nccl_abi_calls(nccl_comm comm, struct nccl_config *config, struct nccl_id id,
                   void *x, cudaStream_t stream)
{
    union {
        struct nccl_id ours;
        ncclUniqueId theirs;
    } both = {id};
    ncclResult_t state;
    int ret = 0, version;

    ret |= (int)ncclGetVersion(&version);
    ret |= (int)ncclGetUniqueId(&both.theirs);
    ret |= (int)ncclCommInitRankConfig(&comm, 2, both.theirs, 0, (void *)config);
    ret |= (int)ncclCommGetAsyncError(comm, &state);
    ret |= (int)ncclAllReduce(x, x, (size_t)1, (ncclDataType_t)NCCL_FLOAT32,
                              (ncclRedOp_t)NCCL_SUM, comm, stream);
    ret |= (int)ncclBroadcast(x, x, (size_t)1, (ncclDataType_t)NCCL_FLOAT32, 0, comm,
                              stream);
    ret |= (int)ncclCommFinalize(comm);
    ret |= (int)ncclCommDestroy(comm);
    ret |= (int)ncclCommAbort(comm);
    ret |= ncclGetErrorString((ncclResult_t)ret)[0];
    ret |= ncclGetLastError(comm)[0];
    return ret;
}
