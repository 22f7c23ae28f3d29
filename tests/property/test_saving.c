/* A state that is saved while workers work is of one instant: the record of the run, replayed
 * up to as many gradients, gives the same bits. A master that goes on from it counts every
 * gradient, with another number of workers, and shows no older version. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/run/state.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT ((1u << 19) + 5u)
#define WORKERS 3u

static const struct gapless_tensor tensors[] = {
    {.name = "w", .dims = 2, .dim = {1024, 512}}, {.name = "b", .dims = 1, .dim = {5}}};
static char folder[] = "/tmp/gapless-saving-XXXXXX";
static char address[64], record[64];
static float theta[COUNT], again[COUNT];

static double gradient(void *context, uint32_t thread, uint64_t batch,
                       const float *params, float *grad)
{
    uint32_t random = (uint32_t)batch * 2654435761u + 1;

    (void)context, (void)thread;
    for (uint32_t i = 0; i < COUNT; i++) {
        random = random * 1664525u + 1013904223u;
        grad[i] = params[i] - 1.0f + 1e-3f * (float)(random >> 24);
    }
    return 1;
}

static struct gapless_master_config config_of(const char *rule, uint64_t gradients)
{
    static int runs;

    (void)snprintf(address, sizeof address, "shm:saving-%ld-%d", (long)getpid(),
                   runs++);
    return (struct gapless_master_config){.address = address,
                                          .model = {tensors, 2},
                                          .rule = rule,
                                          .schedule = {.rate = 0.01},
                                          .gradients = gradients,
                                          .workers_max = 4,
                                          .range_elements = 1u << 16,
                                          .kappa = 1e-6,
                                          .save_folder = folder};
}

/* A process that works until the run is over, or its master is gone. */
static pid_t start(uint32_t number)
{
    struct gapless_worker_config config = {
        .address = address, .wish = number + 1, .connect_ns = 20000000000ll};
    struct gapless_worker *w = NULL;
    uint64_t batch;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    if (gapless_worker_open(&config, &w, NULL) != GAPLESS_OK)
        _exit(2);
    while (gapless_worker_pull(w, &batch, NULL) == GAPLESS_OK) {
        (void)gradient(NULL, 0, batch, gapless_worker_params(w),
                       gapless_worker_grad(w));
        if (gapless_worker_push(w, 1, NULL) != GAPLESS_OK)
            break;
    }
    gapless_worker_close(w);
    _exit(0);
}

static void count_saved(void *context, const char *line)
{
    if (strncmp(line, "saved the state", 15) == 0)
        (*(int *)context)++;
    else if (strstr(line, "not saved") != NULL)
        fail_msg("%s", line);
}

/* Until it is over; the number of states that were saved. */
static int run_all(const struct gapless_master_config *given, uint32_t workers)
{
    struct gapless_master_config config = *given;
    struct gapless_error error = {0};
    struct gapless_master *m = NULL;
    int saved = 0, status;
    pid_t pid[WORKERS];

    config.log = count_saved;
    config.log_context = &saved;
    for (uint32_t i = 0; i < workers; i++) /* before there are threads */
        pid[i] = start(i);
    status = gapless_master_open(&config, &m, &error);
    if (status != GAPLESS_OK)
        fail_msg("%s", error.text);
    while ((status = gapless_master_run(m, 20000000, &error)) == GAPLESS_OK)
        continue;
    if (status != GAPLESS_STOPPED)
        fail_msg("%s", error.text);
    for (uint32_t i = 0; i < workers; i++)
        while (waitpid(pid[i], NULL, WNOHANG) == 0)
            (void)gapless_master_run(m, 1000000, NULL);
    memcpy(theta, gapless_master_params(m), sizeof theta);
    gapless_master_close(m);
    return saved;
}

/* The vectors of two states are the same. */
static void compare(const char *live, const char *replayed, const char *rule)
{
    struct state_file *a = NULL, *b = NULL;
    uint32_t compared = 0;

    assert_int_equal(state_open(live, &a, NULL), GAPLESS_OK);
    assert_int_equal(state_open(replayed, &b, NULL), GAPLESS_OK);
    for (uint32_t i = 0; i < state_tensors(a); i++) {
        const struct state_tensor *t = state_tensor(a, i);

        for (uint32_t k = 0; t->type == STATE_F32 && k < state_tensors(b); k++) {
            const struct state_tensor *u = state_tensor(b, k);

            if (strcmp(t->name, u->name) != 0)
                continue;
            assert_int_equal(t->bytes, u->bytes);
            if (memcmp(t->data, u->data, (size_t)t->bytes) != 0)
                fail_msg("%s: %s: %s is of another moment", rule, live, t->name);
            compared++;
        }
    }
    assert_true(compared >= 3);
    state_close(a);
    state_close(b);
}

/* Each state in the folder, in order, against the replay. */
static int replay(const struct gapless_master_config *live)
{
    struct gapless_simulation_config config = {
        .master = *live, .replay = record, .threads = 1, .gradient = gradient};
    struct gapless_simulation *s = NULL;
    struct gapless_error error = {0};
    char path[256], other[256];
    int found = 0;

    config.master.record = NULL;
    (void)snprintf(other, sizeof other, "%s/other", folder);
    if (gapless_simulation_open(&config, &s, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    for (uint64_t at = 1; at < live->gradients; at++) {
        assert_int_equal(state_folder_path(folder, at, path, sizeof path, NULL), 0);
        if (access(path, R_OK) != 0)
            continue;
        found++;
        {
            struct state_file *f = NULL;
            int status;

            assert_int_equal(state_open(path, &f, &error), GAPLESS_OK);
            status = gapless_simulation_run(s, state_number(f, "gradients"), &error);

            if (status != GAPLESS_OK && status != GAPLESS_STOPPED)
                fail_msg("%s", error.text);
            state_close(f);
        }
        assert_int_equal(gapless_master_save_state(gapless_simulation_master(s), other,
                                                   NULL, &error),
                         GAPLESS_OK);
        compare(path, other, live->rule);
        assert_int_equal(unlink(path), 0);
    }
    gapless_simulation_close(s);
    return found;
}

static void test_one_instant(void **state)
{
    static const char *const rules[] = {"dana-ga", "shared-lga", "dana-lga-adamw",
                                        "ssgd"};

    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        struct gapless_master_config config = config_of(rules[i], 90);
        int saved, replayed;

        config.save_every = 9;
        config.save_keep = 100;
        config.record = record;
        saved = run_all(&config, WORKERS); /* the last one may end with the master */
        replayed = replay(&config);
        assert_true(replayed >= 1 && replayed >= saved);
    }
}

/* Stopped after some gradients, as if it had been killed, and begun again. */
static void stop_at(const struct gapless_master_config *config, uint64_t gradients,
                    const char *path)
{
    struct gapless_master *m = NULL;
    struct gapless_stats stats;
    pid_t pid[WORKERS];

    for (uint32_t i = 0; i < WORKERS; i++)
        pid[i] = start(i);
    assert_int_equal(gapless_master_open(config, &m, NULL), GAPLESS_OK);
    do {
        assert_int_equal(gapless_master_run(m, 1000000, NULL), GAPLESS_OK);
        gapless_master_stats(m, &stats);
    } while (stats.gradients < gradients || stats.workers_active < WORKERS);
    assert_int_equal(gapless_master_save_state(m, path, NULL, NULL), GAPLESS_OK);
    for (uint32_t i = 0; i < WORKERS; i++) {
        (void)kill(pid[i], SIGKILL);
        (void)waitpid(pid[i], NULL, 0);
    }
    gapless_master_close(m);
}

static const float *vector_of(const struct state_file *f, const char *name)
{
    const struct state_tensor *t = state_find_any(f, name);

    return t == NULL ? NULL : t->data;
}

/* `all` is what is left of the workers that are there, and everything is counted. */
static void check_end(const char *path, uint64_t gradients, uint32_t workers,
                      const char *rule)
{
    struct state_file *f = NULL;
    struct gapless_error error = {0};
    char name[24];
    const float *all;

    if (state_open(path, &f, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    assert_int_equal(state_number(f, "gradients"), gradients);
    assert_int_equal(state_number(f, "epoch"), 1);
    assert_int_equal(state_number(f, "workers"), workers);
    all = vector_of(f, "all");
    for (uint32_t i = 0; strcmp(rule, "dana-ga") == 0 && i < COUNT; i += 97) {
        double sum = 0;

        for (uint32_t w = 0; w < WORKERS; w++) {
            (void)snprintf(name, sizeof name, "own/%u", w);
            sum += vector_of(f, name) != NULL ? (double)vector_of(f, name)[i] : 0;
        }
        if (fabs(sum - (double)all[i]) > 1e-4 * (1 + fabs(sum)))
            fail_msg("%s: element %u: all is %g, the owns are %g", rule, i,
                     (double)all[i], sum);
    }
    state_close(f);
}

/* Reads until the master is gone: how often, the last version; `back`: it went back. */
struct reader {
    pthread_t thread;
    uint64_t reads, version;
    bool back;
};

static void *read_versions(void *argument)
{
    struct reader *r = argument;
    struct gapless_observer *o = NULL;
    uint64_t version = 0;
    int status;

    if (gapless_observer_open(
            &(struct gapless_observer_config){.address = address,
                                              .connect_ns = 20000000000ll},
            &o, NULL) != GAPLESS_OK)
        return NULL;
    while ((status = gapless_observer_read(o, again, 100000000, &version, NULL)) ==
               GAPLESS_OK ||
           status == GAPLESS_TORN) {
        r->back = r->back || (status == GAPLESS_OK && version < r->version);
        r->version = version;
        r->reads += status == GAPLESS_OK ? 1 : 0;
    }
    gapless_observer_close(o);
    return NULL;
}

static void goes_on(const char *rule, uint32_t workers, uint32_t capacity)
{
    struct gapless_master_config config = config_of(rule, 120);
    struct gapless_master *m = NULL;
    struct gapless_error error = {0};
    struct reader reader = {0};
    char path[256];
    pid_t pid[WORKERS];
    int status;

    (void)snprintf(path, sizeof path, "%s/a", folder);
    config.save_folder = NULL;
    stop_at(&config, 40, path);
    config = config_of(rule, 120);
    config.save_folder = NULL;
    config.workers_max = capacity;
    config.workers_wait = workers;
    config.resume = path;
    for (uint32_t i = 0; i < workers; i++)
        pid[i] = start(i);
    if (gapless_master_open(&config, &m, &error) != GAPLESS_OK)
        fail_msg("%s: %s", rule, error.text);
    assert_int_equal(gapless_master_save_state(m, path, NULL, NULL), GAPLESS_AGAIN);
    assert_int_equal(pthread_create(&reader.thread, NULL, read_versions, &reader), 0);
    while ((status = gapless_master_run(m, 2000000, &error)) == GAPLESS_OK)
        continue;
    if (status != GAPLESS_STOPPED)
        fail_msg("%s: %s", rule, error.text);
    if (gapless_master_save_state(m, path, NULL, &error) != GAPLESS_OK)
        fail_msg("%s: %s", rule, error.text);
    for (uint32_t i = 0; i < workers; i++)
        while (waitpid(pid[i], NULL, WNOHANG) == 0)
            (void)gapless_master_run(m, 1000000, NULL);
    for (int i = 0; i < 50; i++) /* the reader sees the end */
        (void)gapless_master_run(m, 1000000, NULL);
    gapless_master_close(m);
    assert_int_equal(pthread_join(reader.thread, NULL), 0);
    assert_true(reader.reads > 0 && !reader.back);
    assert_true(reader.version >= (1ull << 40) + 30);
    check_end(path, 120, workers, rule);
    (void)unlink(path);
}

static void test_goes_on(void **state)
{
    (void)state;
    goes_on("dana-ga", 3, 4);
    goes_on("dana-ga", 2, 4);
    goes_on("dana-ga", 1, 1); /* fewer slots than there were workers */
    goes_on("dana-lga-adamw", 2, 4);
    goes_on("shared-lga", 2, 4);
    goes_on("ssgd", 2, 4);
}

/* The limit for files stands for a full disk: the run goes on, and says so. */
static void count_failures(void *context, const char *line)
{
    if (strstr(line, "not saved") != NULL)
        (*(int *)context)++;
}

static void test_not_saved(void **state)
{
    struct gapless_master_config config = config_of("asgd", 60);
    struct gapless_master *m = NULL;
    int failures = 0, status;
    pid_t pid;

    (void)state;
    config.save_folder = "/nowhere/at/all";
    config.save_every = 5;
    config.log = count_failures;
    config.log_context = &failures;
    pid = start(0);
    assert_int_equal(gapless_master_open(&config, &m, NULL), GAPLESS_OK);
    do
        status = gapless_master_run(m, 10000000, NULL);
    while (status == GAPLESS_OK);
    assert_int_equal(status, GAPLESS_STOPPED);
    while (waitpid(pid, NULL, WNOHANG) == 0)
        (void)gapless_master_run(m, 1000000, NULL);
    gapless_master_close(m);
    assert_true(failures > 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_instant),
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_not_saved),
    };
    char command[128];
    int failed;

    if (mkdtemp(folder) == NULL)
        return 1;
    (void)snprintf(record, sizeof record, "%s/record", folder);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) != 0 || failed;
}
