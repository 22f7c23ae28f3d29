/* Fake CUDA: what its files share. */
#ifndef FAKE_INSIDE_H
#define FAKE_INSIDE_H

#include "tests/gpu/fake/fake_cuda.h"

#include "tests/gpu/shim/cuda.h"
#include "tests/gpu/shim/runtime_api.h"

#include <atomic>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

#define FAKE_GPUS_MAX 16

namespace fake
{
/* What is asked of a stream. */
struct operation {
    std::function<bool()> body; /* empty: an event, or a wait for one */
    struct CUstream_st *awaited = nullptr;
    uint64_t turn = 0; /* of the awaited stream */
};

struct gpu {
    std::recursive_mutex lock; /* its streams, and whether its memory is open */
    std::vector<CUstream_st *> streams;
    std::atomic<bool> lost{false};
    unsigned open = 0; /* how deep: its memory may be touched while it is not 0 */
};

/* What the environment, or a test, wants. */
struct wishes {
    int gpus, driver, ordering, flush, rdma, dmabuf;
    size_t memory;
    bool misalign;
};

/* Reads the environment once. */
const struct wishes &wishes_now();
void misalign(bool yes);
struct gpu &gpu_of(int number);

/* Prints, and ends the process. */
[[noreturn]] void misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Each call of CUDA begins so. Not cudaSuccess: the failure to return. `number` is the
 * GPU that it is about, -1: none. */
cudaError_t begin(const char *call, int number);
/* Is it this call's turn to fail, by fail_at? Counts it. */
bool injected(const char *call);
/* Remembers a failure for cudaGetLastError; returns it. */
cudaError_t fail(cudaError_t code);
/* The GPU of this thread. */
int current();

/* ---- fake_memory.cpp ----------------------------------------------------- */
/* Is all of it memory of this GPU? Its other address, where the CPU may go. */
char *window(const void *memory, size_t bytes, int number);
/* Which GPU's memory is it? -1: none's. */
int owner(const void *memory);
/* Lets kernels touch the memory of a GPU, or not; its lock is held. */
void memory_open(int number);
void memory_close(int number);
unsigned memory_left();
void memory_reset();

/* ---- fake_streams.cpp ---------------------------------------------------- */
/* Works everything off that was asked of a GPU. */
cudaError_t drain(int number);
unsigned streams_left();
unsigned streams_waiting();
void streams_reset();
void seed(uint64_t value);
} // namespace fake

struct CUstream_st {
    int number;
    bool gone;
    std::deque<fake::operation> waiting;
    uint64_t asked, done; /* operations, ever */
};

struct CUevent_st {
    int number;
    bool gone;
    CUstream_st *stream; /* where it was recorded last; NULL: never */
    uint64_t turn;       /* reached when stream->done is that far */
    unsigned peer_wait;  /* so often it will say that it is not ready */
};

#endif
