/* Fake NCCL: a library of the few functions that gpu/group*.c use, in which the ranks
 * are threads of one process, and every failure can be had. GAPLESS_NCCL names it.
 *
 *   rank 0  AllReduce ── on its stream: "has everybody come?" no, no, ... yes: the sum
 *   rank 1       AllReduce ─────────────────────────────────┘
 *
 * - A rank is there when its stream gets to the call, not when it makes it; streams are
 *   those of the fake CUDA, which do nothing until somebody asks.
 * - Sums are added in the order of ranks, so their bits are known.
 * - A rank that aborts says nothing to the others: they wait for ever. That is the
 * worst that NCCL does.
 * - Misuse (another count than the other ranks', a communicator that is not ready, one
 *   used after its end, a blocking one) is printed and ends the process.
 *
 * What shall go wrong is a text, in FAKE_NCCL of the environment or by fake_nccl_plan,
 * with commas between its parts:
 *
 *   version=N      that GetVersion gives; 22809
 *   progress=N     each call leaves the communicator "in progress" for N looks; 0
 *   late=N         each collective is done N looks after the last rank came; 0
 *   CALL@R#K:HOW   the K-th CALL (from 1; since the plan) of rank R, as in
 *                  AllReduce@2#3:async. HOW:
 *     error        gives ncclUnhandledCudaError
 *     system       gives ncclSystemError
 *     never        succeeds, but its rank does not come
 *     async        as never, and some looks later every rank is told ncclRemoteError
 *     usage        gives ncclInvalidUsage
 *     stuck        never comes back (only CommAbort)
 *   CALL is CommInitRankConfig, AllReduce, Broadcast, CommFinalize, CommAbort,
 *   GetUniqueId (its rank is 0) or CommGetAsyncError (only error, system, usage).
 */
#ifndef FAKE_NCCL_H
#define FAKE_NCCL_H

#ifdef __cplusplus
extern "C" {
#endif

/* Replaces the plan; counts begin anew. NULL: nothing goes wrong. */
void fake_nccl_plan(const char *plan);
/* Communicators that were neither destroyed nor aborted. */
unsigned fake_nccl_open(void);
/* Communicators that were aborted since the plan. */
unsigned fake_nccl_aborted(void);

#ifdef __cplusplus
}
#endif

#endif
