/* A device's streams: copies, and order between them by tickets. */
#include "gpu/device_inside.h"

#include "engine/base/clock.h"

#include <sched.h>
#include <time.h>

/* While a wait is young it spins, then lets others run, then sleeps between looks. */
#define SPIN_NS 50000
#define YIELD_NS 2000000
#define SLEEP_NS 50000

int64_t device_now_ns(void)
{
    return (int64_t)clock_ns();
}

/* Every copy names its direction: what a pointer is need then not be looked up. */
static void copy_on(struct device *device, enum device_stream stream, void *to,
                    const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    if (bytes != 0 && device_enter(device))
        (void)device_check(
            device,
            cudaMemcpyAsync(to, from, bytes, kind, device->streams[stream].stream),
            "cudaMemcpyAsync");
}

void device_copy_in(struct device *device, void *to, const void *from, size_t bytes)
{
    copy_on(device, DEVICE_IN, to, from, bytes, cudaMemcpyHostToDevice);
}

void device_copy_out(struct device *device, void *to, const void *from, size_t bytes)
{
    copy_on(device, DEVICE_OUT, to, from, bytes, cudaMemcpyDeviceToHost);
}

void device_copy(struct device *device, void *to, const void *from, size_t bytes)
{
    copy_on(device, DEVICE_WORK, to, from, bytes, cudaMemcpyDeviceToDevice);
}

void device_zero(struct device *device, void *to, size_t bytes)
{
    if (bytes != 0 && device_enter(device))
        (void)device_check(
            device, cudaMemsetAsync(to, 0, bytes, device->streams[DEVICE_WORK].stream),
            "cudaMemsetAsync");
}

/* ---- tickets ------------------------------------------------------------- */

static uint64_t ticket_of(enum device_stream stream, uint64_t turn)
{
    return turn << 2 | (uint64_t)stream;
}

/* The stream of a ticket, and its turn there. NULL: no such mark was ever made, or the
 * ticket is 0, which is nothing to wait for. */
static struct stream_state *ticket_find(struct device *device, uint64_t ticket,
                                        uint64_t *ret_turn)
{
    uint64_t turn = ticket >> 2;
    struct stream_state *state;

    if ((ticket & 3) >= DEVICE_STREAMS)
        return NULL;
    state = &device->streams[ticket & 3];
    if (turn == 0 || turn > state->marked)
        return NULL;
    *ret_turn = turn;
    return state;
}

uint64_t device_mark(struct device *device, enum device_stream stream)
{
    struct stream_state *state = &device->streams[stream];
    uint64_t turn = state->marked + 1;

    if (!device_enter(device) ||
        !device_check(device,
                      cudaEventRecord(state->events[turn % EVENTS], state->stream),
                      "cudaEventRecord"))
        return 0;
    state->marked = turn;
    return ticket_of(stream, turn);
}

/* An event that serves a later mark by now is on its stream behind the one that is
 * meant, and before anything asked for from here on: no circle can arise. */
void device_after(struct device *device, enum device_stream stream, uint64_t ticket)
{
    uint64_t turn;
    const struct stream_state *state = ticket_find(device, ticket, &turn);

    if (state == NULL || turn <= state->reached || state == &device->streams[stream])
        return;
    if (device_enter(device))
        (void)device_check(device,
                           cudaStreamWaitEvent(device->streams[stream].stream,
                                               state->events[turn % EVENTS], 0),
                           "cudaStreamWaitEvent");
}

int device_done(struct device *device, uint64_t ticket)
{
    uint64_t turn;
    struct stream_state *state = ticket_find(device, ticket, &turn);
    cudaError_t code;

    if (device->failure.status != GAPLESS_OK)
        return device->failure.status;
    if (state == NULL)
        return ticket == 0 ? 1 : GAPLESS_INVALID;
    if (turn <= state->reached)
        return 1;
    if (!device_enter(device))
        return device->failure.status;
    code = cudaEventQuery(state->events[turn % EVENTS]);
    if (code == cudaErrorNotReady) {
        (void)cudaGetLastError(); /* else a launch would take it for its own */
        return 0;
    }
    if (!device_check(device, code, "cudaEventQuery"))
        return device->failure.status;
    /* The event may be of a later mark: at least this one is reached. */
    state->reached = turn;
    return 1;
}

static void pause_after(int64_t waited_ns)
{
    struct timespec nap = {0, SLEEP_NS};

    if (waited_ns > YIELD_NS)
        (void)nanosleep(&nap, NULL);
    else if (waited_ns > SPIN_NS)
        (void)sched_yield();
}

int device_wait(struct device *device, uint64_t ticket, int64_t timeout_ns,
                struct gapless_error *error)
{
    int64_t start = device_now_ns(), waited = 0;

    for (;;) {
        int done = device_done(device, ticket);

        if (done == GAPLESS_INVALID)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "GPU %u: there is no ticket %llu", device->number,
                                     (unsigned long long)ticket);
        if (done < 0)
            return device_failure(device, error);
        if (done != 0)
            return GAPLESS_OK;
        if (waited >= timeout_ns)
            break;
        pause_after(waited);
        waited = device_now_ns() - start;
    }
    return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                             "GPU %u: not done after %.3f s: it is busy with other "
                             "programs, or hangs; see nvidia-smi",
                             device->number, (double)timeout_ns * 1e-9);
}

int device_drain(struct device *device, enum device_stream stream,
                 struct gapless_error *error)
{
    return device_wait(device, device_mark(device, stream), SETTLE_NS, error);
}
