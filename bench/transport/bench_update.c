/* gapless bench update: what one round trip costs beside the arithmetic.
 *
 *   worker (other core)                    master
 *   t0  push: norm over the gradient
 *       note -----------------------------> check: is the gradient finite?
 *                                           pass: the rule, in one pass over memory
 *   t1  pulled <--------------------------- note
 *   t2  all parameters read once: where the master has left them, in a cache or in
 *       memory, is felt here and not before t1
 *
 * rest = (t1 - t0) - norm - check - pass: the protocol, both notes, the bookkeeping of
 * the master. Both sides poll, as they do under load; --sleep lets them sleep at once
 * instead, as they do when idle.
 */
#include "bench/bench.h"

#include "engine/base/clock.h"

#include <gapless/gapless.h>

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define REPS_MAX 5000
#define WARM_UP 20
#define BOUND_S 60.0
#define SLICE_NS 100000000ll /* of serving, between two looks at the clock */

enum {
    TRIP,
    NORM,
    CHECK,
    PASS,
    REST,
    READ,
    COLUMNS
};

static const char *const column_names[] = {"round trip", "norm", "check",
                                           "pass",       "rest", "first read"};

/* Shared with the worker process. */
struct samples {
    int count;
    int failed;
    char error[480];
    double us[COLUMNS][REPS_MAX];
};

struct quantiles {
    double p50, p99, max;
};

static double now_us(void)
{
    return 1e6 * clock_seconds();
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    (void)sched_setaffinity(0, sizeof set, &set);
}

static struct quantiles quantiles(double *values, int count)
{
    bench_sort(values, (size_t)count);
    return (struct quantiles){values[count / 2], values[(count * 99) / 100],
                              values[count - 1]};
}

/* Reads a number of every cache line of the parameters, which brings all of them; microseconds. */
static double read_all(const struct gapless_worker *worker)
{
    const volatile float *params = gapless_worker_params(worker);
    uint64_t i, count = gapless_worker_count(worker);
    double began = now_us();

    for (i = 0; i < count; i += 16)
        (void)params[i];
    return now_us() - began;
}

static void work(const char *address, int reps, bool sleeping, struct samples *ret)
{
    struct gapless_worker_config config = {.address = address,
                                           .spin_ns = sleeping ? 1 : 1000000000};
    struct gapless_error error = {0};
    struct gapless_worker *worker = NULL;
    struct gapless_round_trip round_trip;
    uint64_t batch, i;
    double began = 0;
    int status, n = -WARM_UP;

    pin(1);
    status = gapless_worker_open(&config, &worker, &error);
    if (status == GAPLESS_OK)
        for (i = 0; i < gapless_worker_count(worker); i++)
            gapless_worker_grad(worker)[i] = 1e-6f * (float)(i % 97);
    for (; status == GAPLESS_OK; n++) {
        status = gapless_worker_pull(worker, &batch, &error);
        if (status == GAPLESS_OK && n > 0 && n <= reps) {
            gapless_worker_round_trip(worker, &round_trip);
            ret->us[TRIP][n - 1] = now_us() - began;
            ret->us[NORM][n - 1] = 1e-3 * (double)round_trip.norm_ns;
            ret->us[CHECK][n - 1] = 1e-3 * (double)round_trip.check_ns;
            ret->us[PASS][n - 1] = 1e-3 * (double)round_trip.pass_ns;
            ret->us[REST][n - 1] = ret->us[TRIP][n - 1] - ret->us[NORM][n - 1] -
                                   ret->us[CHECK][n - 1] - ret->us[PASS][n - 1];
            ret->us[READ][n - 1] = read_all(worker);
            ret->count = n;
        }
        began = now_us();
        if (status == GAPLESS_OK)
            status = gapless_worker_push(worker, 0, &error);
    }
    gapless_worker_close(worker);
    ret->failed = status != GAPLESS_STOPPED;
    (void)snprintf(ret->error, sizeof ret->error, "%s", error.text);
}

static const char *size_text(uint64_t bytes, char *text, size_t room)
{
    if (bytes >= (1u << 20))
        (void)snprintf(text, room, "%.4g MiB", (double)bytes / (1 << 20));
    else
        (void)snprintf(text, room, "%.4g KiB", (double)bytes / 1024);
    return text;
}

/* How the worker's process ended, where it should not have. */
static int ended_early(int how, struct gapless_error *error)
{
    if (WIFSIGNALED(how))
        return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                 "the worker's process was killed by signal %d (%s)",
                                 WTERMSIG(how), strsignal(WTERMSIG(how)));
    return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                             "the worker's process ended early, with code %d",
                             WEXITSTATUS(how));
}

/* Serves the worker until it has ended, or the time is up. GAPLESS_STOPPED: all round
 * trips were made. */
static int serve(struct gapless_master *master, pid_t child, double bound_s,
                 struct gapless_error *error)
{
    double began = now_us();
    int status = GAPLESS_OK, how = 0;

    pin(0);
    while (status == GAPLESS_OK && now_us() - began < 1e6 * bound_s) {
        status = gapless_master_run(master, SLICE_NS, error);
        if (waitpid(child, &how, WNOHANG) == child)
            return status == GAPLESS_OK ? ended_early(how, error) : status;
    }
    if (status == GAPLESS_OK)
        (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    return status == GAPLESS_OK ? GAPLESS_TIMEOUT : status;
}

/* Runs the worker in a process of its own. */
static int run_pair(const struct bench_update_config *o, struct gapless_master *master,
                    const char *address, int reps, struct samples *samples,
                    struct gapless_error *error)
{
    double bound_s = o->bound_s > 0.0 ? o->bound_s : BOUND_S;
    pid_t child;
    int status;

    (void)fflush(NULL);
    child = fork();
    if (child < 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                 "cannot start the worker's process");
    if (child == 0) {
        work(address, reps, o->sleep, samples);
        _exit(0);
    }
    status = serve(master, child, bound_s, error);
    if (status == GAPLESS_TIMEOUT)
        return gapless_error_set(error, status, 0,
                                 "%d of %d round trips were made within %g s: ask for "
                                 "fewer (--reps) or smaller vectors (--sizes)",
                                 samples->count, reps, bound_s);
    if (status != GAPLESS_STOPPED)
        return status;
    if (samples->failed && samples->error[0] != '\0')
        return gapless_error_set(error, GAPLESS_PEER_LOST, 0, "the worker: %.400s",
                                 samples->error);
    return samples->failed || samples->count == 0
               ? gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                   "the worker made no round trip")
               : GAPLESS_OK;
}

/* One size. 0, or -1 after saying why. */
static int measure(const struct bench_update_config *o, uint64_t bytes, int reps,
                   struct samples *samples)
{
    struct gapless_tensor tensor = {
        .name = "w", .dims = 1, .dim = {bytes / sizeof(float)}};
    char address[64], size[32];
    struct gapless_master_config config = {
        .address = address,
        .model = {&tensor, 1},
        .rule = o->rule,
        .schedule = {.rate = 1e-6},
        .gradients = (uint64_t)(reps + WARM_UP + 1),
        .workers_max = 1,
        .spin_ns = o->sleep ? 1 : 1000000000,
    };
    struct gapless_error error = {0};
    struct gapless_master *master = NULL;
    int status;

    (void)snprintf(address, sizeof address, "%s:bench-%ld", o->transport,
                   (long)getpid());
    samples->count = samples->failed = 0;
    samples->error[0] = '\0';
    status = gapless_master_open(&config, &master, &error);
    if (status == GAPLESS_OK)
        status = run_pair(o, master, address, reps, samples, &error);
    gapless_master_close(master);
    if (status == GAPLESS_OK)
        return 0;
    (void)fprintf(stderr, "gapless bench update: %s: %s\n",
                  size_text(bytes, size, sizeof size),
                  error.text[0] != '\0' ? error.text : gapless_strerror(status));
    return -1;
}

static void report(uint64_t bytes, struct samples *samples, json_t *rows)
{
    json_t *row = json_object();
    char text[32];
    int c;

    (void)printf("%-10s", size_text(bytes, text, sizeof text));
    (void)json_object_set_new(row, "bytes", json_integer((json_int_t)bytes));
    (void)json_object_set_new(row, "trips", json_integer(samples->count));
    for (c = 0; c < COLUMNS; c++) {
        struct quantiles q = quantiles(samples->us[c], samples->count);
        json_t *value = json_pack("{s:f,s:f,s:f}", "p50_us", q.p50, "p99_us", q.p99,
                                  "max_us", q.max);

        if (c == TRIP || c == REST)
            (void)printf("  %9.2f %9.2f %9.2f", q.p50, q.p99, q.max);
        else
            (void)printf("  %9.2f", q.p50);
        (void)json_object_set_new(row, column_names[c], value);
    }
    (void)printf("\n");
    (void)fflush(stdout);
    (void)json_array_append_new(rows, row);
}

static int write_json(const struct bench_update_config *o, json_t *rows)
{
    json_t *root =
        json_pack("{s:s,s:s,s:s,s:b,s:O}", "benchmark", "update", "transport",
                  o->transport, "rule", o->rule, "sleep", o->sleep, "sizes", rows);

    bench_machine(root);
    return bench_write_json("bench update", o->json, root) ? 0 : 1;
}

int bench_update(const struct bench_update_config *o)
{
    struct samples *samples;
    json_t *rows;
    int code = 0;

    samples = mmap(NULL, sizeof *samples, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (samples == MAP_FAILED) {
        (void)fprintf(stderr, "gapless bench update: no memory\n");
        return 1;
    }
    rows = json_array();
    (void)printf("%s, rule %s, both sides %s; microseconds\n"
                 "%-10s  %-29s  %9s  %9s  %9s  %-29s  %s\n"
                 "%-10s  %9s %9s %9s  %9s  %9s  %9s  %9s %9s %9s  %10s\n",
                 o->transport, o->rule, o->sleep ? "sleep" : "spin", "", "round trip",
                 "norm", "check", "pass", "rest", "first read", "parameters", "p50",
                 "p99", "max", "p50", "p50", "p50", "p50", "p99", "max", "p50");
    for (uint32_t i = 0; code == 0 && i < o->sizes.count; i++) {
        uint64_t bytes = o->sizes.at[i];
        int reps = o->reps > 0 ? (int)o->reps : bytes > (8u << 20) ? 40 : 2000;

        code = measure(o, bytes, reps, samples) == 0 ? 0 : 1;
        if (code == 0)
            report(bytes, samples, rows);
    }
    if (code == 0 && o->json != NULL)
        code = write_json(o, rows);
    json_decref(rows);
    (void)munmap(samples, sizeof *samples);
    return code;
}
