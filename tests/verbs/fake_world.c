/* The fake network as a whole: its lock, its faults, what fails on purpose, what is
 * alive, the thread that does posted work, and the names of things. */
#include "tests/verbs/fake_own.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Faults that are printed; one often leads to many. */
#define FAULTS_TOLD 8

struct fake_world fake_world;
struct fake_rules fake_rules;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static pthread_t worker;
static bool working;
static bool made;
static unsigned faults;
static unsigned faults_ever; /* but for the forgiven */
static char fault_text[200];
static long fail_at = -1;
static bool fail_on;
static long fallible;
static const char *failed = "";

/* ---- faults and failures ------------------------------------------------- */

void fake_fault(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    (void)vsnprintf(fault_text, sizeof fault_text, format, list);
    va_end(list);
    if (faults < FAULTS_TOLD)
        (void)fprintf(stderr, "fake: %s\n", fault_text);
    faults++;
    faults_ever++;
}

unsigned fake_faults(void)
{
    unsigned count;

    fake_lock();
    count = faults;
    fake_unlock();
    return count;
}

const char *fake_fault_text(void)
{
    return fault_text;
}

void fake_forgive(void)
{
    fake_lock();
    faults_ever -= faults;
    faults = 0;
    fault_text[0] = '\0';
    fake_unlock();
}

bool fake_fails(const char *what)
{
    long number = fallible++;

    if (fail_at < 0 || number < fail_at || (number > fail_at && !fail_on))
        return false;
    if (failed[0] == '\0')
        failed = what;
    return true;
}

void fake_fail_at(long n, bool forever)
{
    fake_lock();
    fail_at = n;
    fail_on = forever;
    fallible = 0;
    failed = "";
    fake_unlock();
}

long fake_fallible(void)
{
    long count;

    fake_lock();
    count = fallible;
    fake_unlock();
    return count;
}

const char *fake_failed(void)
{
    const char *what;

    fake_lock();
    what = failed;
    fake_unlock();
    return what;
}

/* ---- beginning and end --------------------------------------------------- */

static unsigned sum(const struct fake_live *it)
{
    return it->lists + it->contexts + it->domains + it->regions + it->windows +
           it->channels + it->queues + it->pairs + it->cm_channels + it->ids +
           it->unacknowledged;
}

unsigned fake_live(struct fake_live *ret)
{
    struct fake_live now;

    fake_lock();
    now = fake_world.live;
    fake_unlock();
    if (ret != NULL)
        *ret = now;
    return sum(&now);
}

/* With the lock. */
static void want_nothing_alive(void)
{
    const struct fake_live *it = &fake_world.live;

    if (sum(it) != 0)
        fake_fault("alive at the end: %u lists, %u contexts, %u domains, %u regions, "
                   "%u windows, %u channels, %u queues, %u pairs, %u cm channels, "
                   "%u ids, %u events",
                   it->lists, it->contexts, it->domains, it->regions, it->windows,
                   it->channels, it->queues, it->pairs, it->cm_channels, it->ids,
                   it->unacknowledged);
}

static void at_exit(void)
{
    fake_pace(FAKE_AT_POST);
    (void)fake_end();
    if (faults_ever > 0) {
        (void)fprintf(stderr, "fake: %u faults in this program\n", faults_ever);
        (void)fflush(NULL);
        _exit(1);
    }
    fake_lock();
    fake_cards_clear();
    fake_devices_clear();
    fake_unlock();
}

/* With the lock. */
static void make(void)
{
    static bool registered;

    if (!registered && atexit(at_exit) != 0)
        fake_fault("atexit failed");
    registered = true;
    made = true;
    fake_devices_make();
    fake_world.next_key = 1;
    fake_world.next_pair = 17;
    fake_world.next_port = 40000;
}

void fake_lock(void)
{
    (void)pthread_mutex_lock(&lock);
    if (!made)
        make();
}

void fake_unlock(void)
{
    (void)pthread_mutex_unlock(&lock);
}

void fake_begin(void)
{
    fake_pace(FAKE_AT_POST);
    fake_fail_at(-1, false);
    fake_lock();
    want_nothing_alive();
    fake_connections_clear();
    fake_cards_clear();
    fake_devices_clear();
    memset(&fake_world, 0, sizeof fake_world);
    memset(&fake_rules, 0, sizeof fake_rules);
    faults = 0;
    make();
    fake_unlock();
}

unsigned fake_end(void)
{
    unsigned count;

    fake_lock();
    want_nothing_alive();
    memset(&fake_world.live, 0, sizeof fake_world.live);
    count = faults;
    fake_unlock();
    return count;
}

void fake_count(struct fake_counters *ret)
{
    fake_lock();
    *ret = fake_world.counters;
    fake_unlock();
}

/* ---- doing posted work --------------------------------------------------- */

int fake_pump(int most)
{
    int done = 0;

    fake_lock();
    for (struct fake_qp *qp = fake_world.pairs; qp != NULL && done < most;
         qp = qp->next)
        done += fake_run(qp, most - done);
    fake_unlock();
    return done;
}

int fake_pump_one(struct ibv_qp *pair, int most)
{
    int done;

    fake_lock();
    done = fake_run((struct fake_qp *)pair, most);
    fake_unlock();
    return done;
}

/* One request of each pair at a time, so that pairs get into each other's way. */
static void *work_on(void *unused)
{
    (void)unused;
    fake_lock();
    while (working) {
        int done = 0;

        for (struct fake_qp *qp = fake_world.pairs; qp != NULL; qp = qp->next)
            done += fake_run(qp, 1);
        if (done == 0)
            (void)pthread_cond_wait(&work, &lock);
        else {
            fake_unlock();
            (void)usleep(1);
            fake_lock();
        }
    }
    fake_unlock();
    return NULL;
}

void fake_wake(void)
{
    if (working)
        (void)pthread_cond_signal(&work);
}

void fake_pace(enum fake_pace pace)
{
    bool stop;
    bool start;

    fake_lock();
    fake_world.pace = pace;
    stop = working && pace != FAKE_BY_THREAD;
    start = !working && pace == FAKE_BY_THREAD;
    working = pace == FAKE_BY_THREAD;
    (void)pthread_cond_signal(&work);
    if (start && pthread_create(&worker, NULL, work_on, NULL) != 0) {
        working = false;
        fake_fault("no thread");
    }
    fake_unlock();
    if (stop)
        (void)pthread_join(worker, NULL);
    if (pace == FAKE_AT_POST)
        (void)fake_pump(INT32_MAX);
}

/* ---- eventfds that count ------------------------------------------------- */

int fake_fd_new(void)
{
    return eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
}

void fake_fd_add(int fd)
{
    uint64_t one = 1;

    if (write(fd, &one, sizeof one) != (ssize_t)sizeof one)
        fake_fault("an event could not be told");
}

void fake_fd_take(int fd)
{
    struct pollfd look = {.fd = fd, .events = POLLIN};
    uint64_t one;

    if (poll(&look, 1, 0) == 1 && read(fd, &one, sizeof one) != (ssize_t)sizeof one)
        fake_fault("an event could not be taken back");
}

/* ---- names --------------------------------------------------------------- */

const char *ibv_wc_status_str(enum ibv_wc_status status)
{
    static const char *const names[] = {
        "success",
        "local length error",
        "local QP operation error",
        "local EE context operation error",
        "local protection error",
        "Work Request Flushed Error",
        "memory management operation error",
        "bad response error",
        "local access error",
        "remote invalid request error",
        "remote access error",
        "remote operation error",
        "transport retry counter exceeded",
        "RNR retry counter exceeded",
    };

    return (size_t)status < sizeof names / sizeof names[0] ? names[status] : "unknown";
}

const char *ibv_event_type_str(enum ibv_event_type event)
{
    static const char *const names[] = {
        "CQ error",
        "local work queue catastrophic error",
        "invalid request local work queue error",
        "local access violation work queue error",
        "communication established",
        "send queue drained",
        "path migrated",
        "path migration request error",
        "local catastrophic error",
        "port active",
        "port error",
    };

    return (size_t)event < sizeof names / sizeof names[0] ? names[event] : "unknown";
}

const char *ibv_node_type_str(enum ibv_node_type node_type)
{
    return node_type == IBV_NODE_RNIC ? "iWARP NIC" : "InfiniBand channel adapter";
}

const char *ibv_port_state_str(enum ibv_port_state port_state)
{
    return port_state == IBV_PORT_ACTIVE ? "active" : "down";
}

const char *rdma_event_str(enum rdma_cm_event_type event)
{
    static const char *const names[] = {
        "RDMA_CM_EVENT_ADDR_RESOLVED",   "RDMA_CM_EVENT_ADDR_ERROR",
        "RDMA_CM_EVENT_ROUTE_RESOLVED",  "RDMA_CM_EVENT_ROUTE_ERROR",
        "RDMA_CM_EVENT_CONNECT_REQUEST", "RDMA_CM_EVENT_CONNECT_RESPONSE",
        "RDMA_CM_EVENT_CONNECT_ERROR",   "RDMA_CM_EVENT_UNREACHABLE",
        "RDMA_CM_EVENT_REJECTED",        "RDMA_CM_EVENT_ESTABLISHED",
        "RDMA_CM_EVENT_DISCONNECTED",    "RDMA_CM_EVENT_DEVICE_REMOVAL",
        "RDMA_CM_EVENT_MULTICAST_JOIN",  "RDMA_CM_EVENT_MULTICAST_ERROR",
        "RDMA_CM_EVENT_ADDR_CHANGE",     "RDMA_CM_EVENT_TIMEWAIT_EXIT",
    };

    return (size_t)event < sizeof names / sizeof names[0] ? names[event]
                                                          : "UNKNOWN EVENT";
}
