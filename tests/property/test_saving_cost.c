/* Saving does not stop a run: updates go on while a state is written. With GAPLESS_SAVING="25000000 8 60" (parameters,
 * workers, seconds) it measures what saving costs, and prints updates a second while it saves and while it does not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/base/clock.h"
#include "engine/run/state.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAMPLES 100000u
#define WORKERS_MAX 16u

static unsigned long long elements = 1000000, workers = 2;
static double seconds = 3, every = 0.3;
static char folder[] = "/tmp/gapless-cost-XXXXXX", address[64];

struct sample {
    uint64_t at_ns, updates;
};
struct span {
    uint64_t from_ns, to_ns;
};

struct course {
    struct gapless_master *master;
    struct sample sample[SAMPLES];
    struct span saving[1000];
    uint32_t samples, savings;
    uint64_t went_on; /* gradients between an instant and the end of its writing */
};

static void on_line(void *context, const char *line)
{
    struct course *course = context;
    struct gapless_stats stats;
    unsigned long long gradients, mib;
    double took;

    if (sscanf(line, "saved the state after %llu gradients, %llu MiB in %lf s",
               &gradients, &mib, &took) != 3)
        return;
    gapless_master_stats(course->master, &stats);
    course->went_on += stats.gradients - gradients;
    if (course->savings < 1000)
        course->saving[course->savings++] =
            (struct span){clock_ns() - (uint64_t)(took * 1e9), clock_ns()};
}

/* A worker whose gradients cost nothing: what is measured is the master. */
static pid_t start(void)
{
    struct gapless_worker_config config = {.address = address,
                                           .connect_ns = 60000000000ll};
    struct gapless_worker *w = NULL;
    uint64_t batch;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    if (gapless_worker_open(&config, &w, NULL) != GAPLESS_OK)
        _exit(1);
    while (gapless_worker_pull(w, &batch, NULL) == GAPLESS_OK) {
        gapless_worker_grad(w)[batch % elements] = 0.001f;
        if (gapless_worker_push(w, 1, NULL) != GAPLESS_OK)
            break;
    }
    gapless_worker_close(w);
    _exit(0);
}

static bool is_saving(const struct course *course, uint64_t at_ns)
{
    for (uint32_t i = 0; i < course->savings; i++)
        if (at_ns >= course->saving[i].from_ns && at_ns <= course->saving[i].to_ns)
            return true;
    return false;
}

/* Updates a second between samples that both are, or are not, while it saves. */
static double rate(const struct course *course, bool saving)
{
    uint64_t updates = 0, ns = 0;

    for (uint32_t i = 1; i < course->samples; i++) {
        const struct sample *a = &course->sample[i - 1], *b = &course->sample[i];

        if (is_saving(course, a->at_ns) != saving ||
            is_saving(course, b->at_ns) != saving)
            continue;
        updates += b->updates - a->updates;
        ns += b->at_ns - a->at_ns;
    }
    return ns > 0 ? (double)updates / (1e-9 * (double)ns) : 0;
}

static void test_goes_on(void **state)
{
    static struct course course;
    struct gapless_tensor tensor = {.name = "w", .dims = 1, .dim = {elements}};
    struct gapless_master_config config = {.address = address,
                                           .model = {&tensor, 1},
                                           .rule = "dana-ga",
                                           .schedule = {.rate = 1e-6},
                                           .workers_max = (uint32_t)workers,
                                           .workers_wait = (uint32_t)workers,
                                           .save_folder = folder,
                                           .save_every_ns = (int64_t)(every * 1e9),
                                           .save_keep = 1,
                                           .log = on_line,
                                           .log_context = &course};
    struct gapless_error error = {0};
    struct gapless_stats stats;
    pid_t pid[WORKERS_MAX];
    uint64_t end;

    (void)state;
    for (unsigned i = 0; i < workers; i++) /* before there are threads */
        pid[i] = start();
    if (gapless_master_open(&config, &course.master, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    end = clock_ns() + (uint64_t)(seconds * 1e9);
    while (clock_ns() < end || course.savings == 0) {
        assert_int_equal(gapless_master_run(course.master, 20000000, &error),
                         GAPLESS_OK);
        gapless_master_stats(course.master, &stats);
        if (stats.updates > 0 && course.samples < SAMPLES)
            course.sample[course.samples++] =
                (struct sample){clock_ns(), stats.updates};
    }
    for (unsigned i = 0; i < workers; i++) {
        (void)kill(pid[i], SIGKILL);
        (void)waitpid(pid[i], NULL, 0);
    }
    gapless_master_close(course.master);
    print_message("%llu parameters, %llu workers: %u states, %.1f s of %.0f; updates a "
                  "second: %.2f "
                  "while it saves, %.2f while not\n",
                  elements, workers, course.savings,
                  1e-9 * (double)(course.saving[0].to_ns - course.saving[0].from_ns),
                  seconds, rate(&course, true), rate(&course, false));
    assert_true(course.went_on > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_goes_on)};
    const char *given = getenv("GAPLESS_SAVING");
    char command[128];
    int failed;

    if (given != NULL &&
        (sscanf(given, "%llu %llu %lf", &elements, &workers, &seconds) != 3 ||
         workers > WORKERS_MAX || elements == 0))
        return 2;
    if (given != NULL)
        every = seconds / 6;
    if (mkdtemp(folder) == NULL)
        return 1;
    (void)snprintf(address, sizeof address, "shm:cost-%ld", (long)getpid());
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) != 0 || failed;
}
