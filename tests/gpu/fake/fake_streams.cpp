/* Fake CUDA: streams and events. What is asked of a stream waits in a queue until
 * somebody asks for an event behind it, or for the whole stream, or until the seed
 * wants it; it is then done in the asking thread, and of other streams no more than it
 * waits for.
 *
 * The kernel language (cuda_runtime.h, cuemu::run) executes the kernels.
 */
#include "tests/gpu/fake/fake_inside.h"

#include "tests/gpu/shim/cuda_runtime.h"

#include <cstring>
#include <sched.h>
#include <ctime>

/* After so long a wait of CUDA that has no bound of its own ends the process. */
#define WAIT_SECONDS 60

namespace fake
{
static std::recursive_mutex lock; /* of the lists and the seed */
/* Not freed at the end of the process, when other parts may still be at work. */
static auto &all_streams = *new std::vector<CUstream_st *>;
static auto &all_events = *new std::vector<CUevent_st *>;
static uint64_t seed_now;
static uint64_t random_state;
/* Kernels of two GPUs do not run at once: the kernel language has one set of shared
 * memory. */
static std::mutex one_kernel;

static unsigned dice(unsigned sides)
{
    std::lock_guard<std::recursive_mutex> hold(lock);

    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 33) % sides;
}

void seed(uint64_t value)
{
    std::lock_guard<std::recursive_mutex> hold(lock);

    seed_now = value;
    random_state = value * 0x9e3779b97f4a7c15u + 88172645463325252u;
}

static bool seeded()
{
    std::lock_guard<std::recursive_mutex> hold(lock);

    return seed_now != 0;
}

/* Does the first operation of a stream. False: it cannot be done yet. */
static bool step(CUstream_st *stream);

/* Works a stream off until it has done so many operations. */
static bool reach(CUstream_st *stream, uint64_t done)
{
    while (stream->done < done)
        if (gpu_of(stream->number).lost || !step(stream))
            return false;
    return true;
}

static bool step(CUstream_st *stream)
{
    operation &first = stream->waiting.front();

    if (first.awaited != nullptr && !reach(first.awaited, first.turn))
        return false;
    if (first.body) {
        bool done;

        memory_open(stream->number);
        done = first.body();
        memory_close(stream->number);
        if (!done)
            return false;
    }
    stream->waiting.pop_front();
    stream->done++;
    return true;
}

/* A few steps of some stream, where the seed wants them: a GPU that hurries. */
static void hurry(int number)
{
    struct gpu &gpu = gpu_of(number);

    if (!seeded() || gpu.streams.empty() || gpu.lost)
        return;
    for (unsigned steps = dice(4); steps > 0; steps--) {
        CUstream_st *stream = gpu.streams[dice((unsigned)gpu.streams.size())];

        if (!stream->waiting.empty())
            (void)step(stream);
    }
}

/* Waits as CUDA's own calls wait: until it is done, or the GPU lost. */
static cudaError_t wait(CUstream_st *stream, uint64_t done)
{
    struct timespec start, now;

    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        struct gpu &gpu = gpu_of(stream->number);

        {
            std::lock_guard<std::recursive_mutex> hold(gpu.lock);
            if (gpu.lost)
                return cudaErrorIllegalAddress;
            if (reach(stream, done))
                return cudaSuccess;
        }
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - start.tv_sec > WAIT_SECONDS)
            misuse("a wait for a stream did not end in %d s", WAIT_SECONDS);
        (void)sched_yield();
    }
}

cudaError_t drain(int number)
{
    std::vector<CUstream_st *> streams;
    cudaError_t code = cudaSuccess;

    {
        std::lock_guard<std::recursive_mutex> hold(gpu_of(number).lock);
        streams = gpu_of(number).streams;
    }
    for (CUstream_st *stream : streams)
        if (wait(stream, stream->asked) != cudaSuccess)
            code = cudaErrorIllegalAddress;
    return code;
}

unsigned streams_left()
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    unsigned left = 0;

    for (const CUstream_st *stream : all_streams)
        left += !stream->gone;
    for (const CUevent_st *event : all_events)
        left += !event->gone;
    return left;
}

unsigned streams_waiting()
{
    unsigned sum = 0;

    for (int number = 0; number < FAKE_GPUS_MAX; number++) {
        std::lock_guard<std::recursive_mutex> hold(gpu_of(number).lock);

        for (const CUstream_st *stream : gpu_of(number).streams)
            sum += (unsigned)stream->waiting.size();
    }
    return sum;
}

void streams_reset()
{
    std::lock_guard<std::recursive_mutex> hold(lock);

    for (CUstream_st *stream : all_streams)
        delete stream;
    for (CUevent_st *event : all_events)
        delete event;
    all_streams.clear();
    all_events.clear();
}

/* A stream that may be used now, by this thread. */
static void check(const CUstream_st *stream, const char *call)
{
    if (stream == nullptr)
        misuse("%s: the default stream; it is not ordered with the others", call);
    if (stream->gone)
        misuse("%s: a stream that was destroyed", call);
    if (stream->number != current())
        misuse("%s: a stream of GPU %d, while GPU %d is current", call, stream->number,
               current());
}

static void check(const CUevent_st *event, const char *call)
{
    if (event == nullptr || event->gone)
        misuse("%s: an event that is not there", call);
    if (event->number != current())
        misuse("%s: an event of GPU %d, while GPU %d is current", call, event->number,
               current());
}

static void ask(CUstream_st *stream, operation what)
{
    std::lock_guard<std::recursive_mutex> hold(gpu_of(stream->number).lock);

    stream->waiting.push_back(std::move(what));
    stream->asked++;
    hurry(stream->number);
}

/* Something of all the bytes that changes with them. */
static uint64_t digest(const char *at, size_t bytes)
{
    size_t stride = bytes > 65536 ? 64 : 8;
    uint64_t sum = bytes;

    for (size_t i = 0; i + 8 <= bytes; i += stride) {
        uint64_t word;

        memcpy(&word, at + i, 8);
        sum = (sum ^ word) * 0x100000001b3u;
    }
    return sum;
}

static cudaError_t copy(void *to, const void *from, size_t bytes, bool to_device,
                        bool from_device, CUstream_st *stream)
{
    int number = stream->number;
    operation what;

    if ((to_device && window(to, bytes, number) == nullptr) ||
        (from_device && window(from, bytes, number) == nullptr))
        misuse("a copy of %zu bytes, %p to %p, that is not within memory of GPU %d",
               bytes, from, to, number);
    if ((!to_device && owner(to) >= 0) || (!from_device && owner(from) >= 0))
        misuse("a copy %p to %p: memory of a GPU, called the host's", from, to);
    if (!to_device)
        memset(to, 0xa5, bytes); /* not there yet */
    uint64_t before = from_device ? 0 : digest((const char *)from, bytes);
    what.body = [=] {
        const char *source =
            from_device ? window(from, bytes, number) : (const char *)from;
        char *target = to_device ? window(to, bytes, number) : (char *)to;

        if (!from_device && digest(source, bytes) != before)
            misuse("host memory at %p changed while a copy of it was waiting", from);
        memmove(target, source, bytes);
        return true;
    };
    ask(stream, std::move(what));
    return cudaSuccess;
}

} // namespace fake

cudaError_t fake_stream_work(cudaStream_t stream, const char *call,
                             std::function<bool()> body)
{
    cudaError_t code = fake::begin(call, fake::current());
    fake::operation what;

    fake::check(stream, call);
    if (code != cudaSuccess)
        return code;
    what.body = std::move(body);
    fake::ask(stream, std::move(what));
    return cudaSuccess;
}

cudaError_t fake_stream_launch(cudaStream_t stream, dim3 grid, dim3 block,
                               std::function<void()> body)
{
    return fake_stream_work(stream, "launch", [=] {
        std::lock_guard<std::mutex> hold(fake::one_kernel);

        cuemu::run(grid, block, body);
        return true;
    });
}

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags)
{
    int number = fake::current();
    cudaError_t code = fake::begin("cudaStreamCreateWithFlags", number);

    if (code != cudaSuccess)
        return code;
    if ((flags & cudaStreamNonBlocking) == 0)
        fake::misuse("a stream that waits for the default stream");
    *stream = new CUstream_st{number, false, {}, 0, 0};
    {
        std::lock_guard<std::recursive_mutex> hold(fake::lock);
        fake::all_streams.push_back(*stream);
    }
    std::lock_guard<std::recursive_mutex> hold(fake::gpu_of(number).lock);
    fake::gpu_of(number).streams.push_back(*stream);
    return cudaSuccess;
}

/* Works off first what was asked for; the real one does that later. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    cudaError_t code = fake::begin("cudaStreamDestroy", fake::current());

    fake::check(stream, "cudaStreamDestroy");
    struct fake::gpu &gpu = fake::gpu_of(stream->number);
    (void)fake::wait(stream, stream->asked);
    std::lock_guard<std::recursive_mutex> hold(gpu.lock);
    for (size_t i = 0; i < gpu.streams.size(); i++)
        if (gpu.streams[i] == stream) {
            gpu.streams.erase(gpu.streams.begin() + (long)i);
            break;
        }
    stream->waiting.clear();
    stream->done = stream->asked;
    stream->gone = true;
    return code;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    cudaError_t code = fake::begin("cudaStreamQuery", fake::current());

    fake::check(stream, "cudaStreamQuery");
    if (code != cudaSuccess)
        return code;
    std::lock_guard<std::recursive_mutex> hold(fake::gpu_of(stream->number).lock);
    return fake::reach(stream, stream->asked) ? cudaSuccess
                                              : fake::fail(cudaErrorNotReady);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    cudaError_t code = fake::begin("cudaStreamSynchronize", fake::current());

    fake::check(stream, "cudaStreamSynchronize");
    return code != cudaSuccess ? code : fake::fail(fake::wait(stream, stream->asked));
}

cudaError_t cudaDeviceSynchronize(void)
{
    cudaError_t code = fake::begin("cudaDeviceSynchronize", fake::current());

    return code != cudaSuccess ? code : fake::fail(fake::drain(fake::current()));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags)
{
    cudaError_t code = fake::begin("cudaEventCreateWithFlags", fake::current());

    (void)flags;
    if (code != cudaSuccess)
        return code;
    *event = new CUevent_st{fake::current(), false, nullptr, 0, 0};
    std::lock_guard<std::recursive_mutex> hold(fake::lock);
    fake::all_events.push_back(*event);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    cudaError_t code = fake::begin("cudaEventDestroy", fake::current());

    fake::check(event, "cudaEventDestroy");
    event->gone = true;
    return code;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    cudaError_t code = fake::begin("cudaEventRecord", fake::current());

    fake::check(event, "cudaEventRecord");
    fake::check(stream, "cudaEventRecord");
    if (code != cudaSuccess)
        return code;
    std::lock_guard<std::recursive_mutex> hold(fake::gpu_of(stream->number).lock);
    event->stream = stream;
    event->turn = stream->asked + 1;
    event->peer_wait = fake::seeded() ? fake::dice(4) : 2;
    fake::ask(stream, {});
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    cudaError_t code = fake::begin("cudaEventQuery", fake::current());

    fake::check(event, "cudaEventQuery");
    if (code != cudaSuccess || event->stream == nullptr)
        return code;
    std::lock_guard<std::recursive_mutex> hold(fake::gpu_of(event->number).lock);
    fake::hurry(event->number);
    if (event->stream->done >= event->turn)
        return cudaSuccess;
    if (event->peer_wait > 0) {
        event->peer_wait--;
        return fake::fail(cudaErrorNotReady);
    }
    if (fake::reach(event->stream, event->turn))
        return cudaSuccess;
    return fake::fail(fake::gpu_of(event->number).lost ? cudaErrorIllegalAddress
                                                       : cudaErrorNotReady);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    cudaError_t code = fake::begin("cudaEventSynchronize", fake::current());

    fake::check(event, "cudaEventSynchronize");
    if (code != cudaSuccess || event->stream == nullptr)
        return code;
    return fake::fail(fake::wait(event->stream, event->turn));
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event,
                                unsigned int flags)
{
    cudaError_t code = fake::begin("cudaStreamWaitEvent", fake::current());
    fake::operation what;

    (void)flags;
    fake::check(stream, "cudaStreamWaitEvent");
    fake::check(event, "cudaStreamWaitEvent");
    if (code != cudaSuccess || event->stream == nullptr)
        return code;
    what.awaited = event->stream;
    what.turn = event->turn;
    fake::ask(stream, std::move(what));
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                            enum cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t code = fake::begin("cudaMemcpyAsync", fake::current());
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device =
        kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;

    fake::check(stream, "cudaMemcpyAsync");
    if (code != cudaSuccess || bytes == 0)
        return code;
    if (!to_device && !from_device)
        fake::misuse("cudaMemcpyAsync: say which way, kind is %d", (int)kind);
    return fake::copy(to, from, bytes, to_device, from_device, stream);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    cudaError_t code = fake::begin("cudaMemsetAsync", fake::current());
    fake::operation what;
    int number = fake::current();

    fake::check(stream, "cudaMemsetAsync");
    if (code != cudaSuccess || bytes == 0)
        return code;
    if (fake::window(to, bytes, number) == nullptr)
        fake::misuse("cudaMemsetAsync(%p, %zu): not within memory of GPU %d", to, bytes,
                     number);
    what.body = [=] {
        memset(fake::window(to, bytes, number), value, bytes);
        return true;
    };
    fake::ask(stream, std::move(what));
    return cudaSuccess;
}
}
