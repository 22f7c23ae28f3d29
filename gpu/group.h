/* Private to the groups of the plugin: NCCL once it is loaded. */
#ifndef GAPLESS_GPU_GROUP_H
#define GAPLESS_GPU_GROUP_H

#include "engine/device/device.h"
#include "gpu/nccl_api.h"

#include <stdbool.h>
#include <stdint.h>

/* NCCL's functions: CommAbort and so on. */
struct nccl {
#define NCCL_MEMBER(name, result, arguments) result(*name) arguments;
    NCCL_API_FUNCTIONS(NCCL_MEMBER)
#undef NCCL_MEMBER
};

/* Opens NCCL, once in a process; from any thread. The file is GAPLESS_NCCL of the
 * environment, or libnccl.so.2 or libnccl.so where the system looks. It is never
 * closed: it has threads of its own. GAPLESS_MISSING, GAPLESS_VERSION. */
int group_nccl(const struct nccl **ret, struct gapless_error *error);
int group_version(int *ret, struct gapless_error *error);
int group_id(unsigned char ret[GPU_GROUP_ID], struct gapless_error *error);
/* Ends a communicator at once, by ncclCommAbort. False: that did not come back within
 * the time, or could not be begun; what the communicator holds is then left to the end
 * of the process. Either way it is not to be used again. */
bool group_end_now(const struct nccl *nccl, nccl_comm comm, int64_t timeout_ns);

#endif
