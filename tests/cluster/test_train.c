/* gapless train for real, on synthetic data: every rule, the files, Ctrl-C, faults,
 * death of the master, a full disk. */
#include "tests/cluster/run.h"

#include <gapless/gapless.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* The folder is in the arguments of every process, so that each can be found. */
#define IN_FOLDER " --out %s --address shm:%s/socket"
#define LONG_RUN "train --data synthetic --workers 3 --epochs 100000" IN_FOLDER

static int tear_down(void **state)
{
    (void)umount2(run_dir, MNT_DETACH); /* where a test mounted something and failed */
    return run_tear_down(state);
}

static bool exists(const char *name)
{
    char path[256];
    struct stat info;

    (void)snprintf(path, sizeof path, "%s/%s", run_dir, name);
    return stat(path, &info) == 0 && info.st_size > 0;
}

static bool file_has(const char *path, const char *text)
{
    FILE *file = fopen(path, "re");
    char line[1024];
    bool found = false;

    assert_non_null(file);
    while (!found && fgets(line, sizeof line, file) != NULL)
        found = strstr(line, text) != NULL;
    (void)fclose(file);
    return found;
}

static void check_summary(const json_t *result, const char *key)
{
    static const char *const keys[] = {"mean", "p50", "p99", "max"};
    const json_t *summary = json_object_get(result, key);

    assert_int_equal(json_object_size(summary), 4);
    for (size_t i = 0; i < 4; i++)
        if (run_number(summary, keys[i]) < 0.0)
            fail_msg("%s.%s is negative", key, keys[i]);
    assert_true(run_number(summary, "p50") <= run_number(summary, "p99"));
    assert_true(run_number(summary, "p99") <= run_number(summary, "max"));
}

/* Every line of metrics.jsonl is JSON, and gradients never go back; but for the last,
 * where the disk was full. Returns the last accuracy. */
static double check_lines(bool full)
{
    char path[256], line[4096];
    double before = 0.0, accuracy = -1.0;
    unsigned lines = 0;
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/metrics.jsonl", run_dir);
    file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        json_t *row = json_loads(line, 0, NULL);

        if (row == NULL && full && fgets(line, sizeof line, file) == NULL)
            break;
        assert_non_null(row);
        assert_true(run_number(row, "gradients") >= before);
        before = run_number(row, "gradients");
        if (json_is_number(json_object_get(row, "accuracy")))
            accuracy = run_number(row, "accuracy");
        json_decref(row);
        lines++;
    }
    (void)fclose(file);
    assert_true(lines >= 1);
    return accuracy;
}

static void check_metrics(void)
{
    (void)check_lines(false);
}

static void check_metrics_until_full(void)
{
    (void)check_lines(true);
}

/* result.json of a run that was not disturbed: `gradients` by `workers` workers. */
static void check_result(const char *rule, double gradients, double workers)
{
    json_t *result = run_json(run_dir, "result.json");
    const json_t *each = json_object_get(result, "per_worker");
    double sum = 0.0;

    assert_string_equal(json_string_value(json_object_get(result, "rule")), rule);
    assert_string_equal(json_string_value(json_object_get(result, "version")),
                        gapless_version());
    assert_true(run_number(result, "workers") == workers);
    assert_true(run_number(result, "gradients") == gradients);
    assert_true(run_number(result, "seed") == 1.0);
    assert_true(run_number(result, "workers_lost") == 0.0);
    assert_true(run_number(result, "dropped") == 0.0);
    assert_true(json_is_false(json_object_get(result, "stopped")));
    assert_true(run_number(result, "final_accuracy") > 0.2); /* of 10 classes */
    assert_true(run_number(result, "final_loss") < 2.3);
    assert_true(run_number(result, "seconds") > 0.0);
    assert_true(run_number(result, "updates_per_second") > 0.0);
    check_summary(result, "lag");
    if (strcmp(rule, "shared-lga-dot") != 0) /* its gap is known to the workers alone */
        check_summary(result, "gap_rms");
    for (size_t i = 0; i < json_array_size(each); i++)
        sum += run_number(json_array_get(each, i), "gradients");
    assert_true(sum == gradients);
    /* The last line of the metrics is of the end. */
    sum = check_lines(false) - run_number(result, "final_accuracy");
    assert_true(sum < 1e-6 && sum > -1e-6);
    json_decref(result);
}

static void test_every_rule(void **state)
{
    struct gapless_rule rule;
    char line[256];

    (void)state;
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        (void)snprintf(line, sizeof line,
                       "train --data synthetic --workers 2 --epochs 1 --lr 0.01 "
                       "--warmup 0 --steps none --quiet --rule %s --out %s",
                       rule.name, run_dir);
        run_whole(NULL, line, 0, "test accuracy");
        check_result(rule.name, 375.0, 2.0);
        check_metrics();
        assert_true(exists("model.safetensors"));
    }
    assert_true(exists("result.previous.json")); /* of the rule before the last */
    assert_false(exists("log"));
}

static void test_options_reach_the_engine(void **state)
{
    char line[400];
    size_t used;

    (void)state;
    (void)snprintf(line, sizeof line,
                   "train --data synthetic:1000x32x10:7 --model softmax --workers 4 "
                   "--batch 10 --epochs 2.5 --lr 0.1 --schedule cosine:0.01 --warmup "
                   "20updates --steps none --range-elements 1024 --gap-every 1 "
                   "--momentum 0 --clip-norm 5 --weight-decay 0.0001 --gap-ref "
                   "own_lookahead --rule dana-lga --kappa 20 --out %s/a/b",
                   run_dir);
    run_whole("GAPLESS_SEED=1", line, 0, "test accuracy");
    used = strlen(run_dir);
    memcpy(run_dir + used, "/a/b", 5);
    check_result("dana-lga", 250.0, 4.0);
    run_dir[used] = '\0';
}

/* Gradients are batches, an update an exchange of eight of them. */
static void test_local_steps(void **state)
{
    static const char *const more[] = {
        "--rule dn", "--rule ssgd --adapt-steps --inner adamw",
        "--rule dana-zero --lr 0.1 --inner sgd --inner-lr 0.1 --inner-momentum 0.5"};
    char line[400];

    (void)state;
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
        char rule[16] = "";
        json_t *result;
        double updates;

        (void)sscanf(more[i], "--rule %15s", rule);
        (void)snprintf(line, sizeof line,
                       "train --data synthetic --workers 2 --epochs 2 --quiet "
                       "--local-steps 8 --out %s %s",
                       run_dir, more[i]);
        run_whole(NULL, line, 0, "test accuracy");
        check_result(rule, 750.0, 2.0);
        result = run_json(run_dir, "result.json");
        updates = run_number(result, "updates");
        if (i == 1) /* of two workers */
            assert_true(updates >= 47.0 && updates < 750.0);
        else
            assert_true(updates == 94.0);
        assert_true(run_number(json_object_get(result, "local"), "steps") == 8.0);
        json_decref(result);
    }
}

/* Stops a long run by a signal and looks at what it leaves. */
static void stop_by(int number, int code)
{
    char line[256];
    struct run run;
    json_t *result;

    (void)snprintf(line, sizeof line, LONG_RUN, run_dir, run_dir);
    run = run_start(NULL, 0, line);
    run_expect(&run, " s  epoch ", 20.0);
    assert_int_equal(kill(run.pid, number), 0);
    assert_int_equal(run_wait(&run, 30.0), code);
    run_close(&run);
    run_none_left(run_dir);
    result = run_json(run_dir, "result.json");
    assert_true(json_is_true(json_object_get(result, "stopped")));
    assert_true(json_is_null(json_object_get(result, "failure")));
    assert_true(run_number(result, "gradients") > 0.0);
    assert_true(run_number(result, "gradients") <
                run_number(result, "gradients_total"));
    assert_true(run_number(result, "final_accuracy") > 0.1);
    assert_true(run_number(result, "workers_lost") == 0.0);
    json_decref(result);
    assert_true(exists("model.safetensors"));
    check_metrics();
}

static void test_interrupt(void **state)
{
    (void)state;
    stop_by(SIGINT, 128 + SIGINT);
    stop_by(SIGTERM, 128 + SIGTERM);
}

static void test_interrupt_twice(void **state)
{
    char line[256];
    struct run run;

    (void)state;
    (void)snprintf(line, sizeof line, LONG_RUN, run_dir, run_dir);
    run = run_start(NULL, 0, line);
    run_expect(&run, " s  epoch ", 20.0);
    assert_int_equal(kill(run.pid, SIGINT), 0);
    assert_int_equal(kill(run.pid, SIGTERM), 0);
    assert_int_equal(run_wait(&run, 10.0), 128 + SIGINT);
    run_close(&run);
}

/* Without a chance to tidy up: the children notice. */
static void test_launcher_killed(void **state)
{
    char line[256];
    struct run run;

    (void)state;
    (void)snprintf(line, sizeof line, LONG_RUN, run_dir, run_dir);
    run = run_start(NULL, 0, line);
    run_expect(&run, " s  epoch ", 20.0);
    assert_int_equal(kill(run.pid, SIGKILL), 0);
    assert_int_equal(run_wait(&run, 10.0), -SIGKILL);
    run_close(&run);
}

static void test_master_killed(void **state)
{
    char line[256], mark[80];
    struct run run;
    pid_t found[4];
    json_t *result;

    (void)state;
    (void)snprintf(mark, sizeof mark, "--out=%s", run_dir);
    (void)snprintf(line, sizeof line, LONG_RUN, run_dir, run_dir);
    run = run_start(NULL, 0, line);
    run_expect(&run, " s  epoch ", 20.0);
    assert_int_equal(run_processes(mark, found, 4), 1);
    assert_int_equal(kill(found[0], SIGKILL), 0);
    assert_int_equal(run_wait(&run, 20.0), 1);
    run_expect(&run, "master (process ", 1.0);
    run_expect(&run, "was killed by signal 9", 1.0);
    run_close(&run);
    result = run_json(run_dir, "result.json");
    assert_true(json_is_string(json_object_get(result, "failure")));
    assert_true(run_number(result, "gradients") > 0.0);
    json_decref(result);
    check_metrics();
}

static void test_worker_killed(void **state)
{
    char line[256], mark[80];
    struct run run;
    pid_t found[8];
    json_t *result;

    (void)state;
    (void)snprintf(line, sizeof line,
                   "train --data synthetic --workers 3 --epochs 16" IN_FOLDER, run_dir,
                   run_dir);
    (void)snprintf(mark, sizeof mark, "--master=shm:%s/", run_dir);
    run = run_start("GAPLESS_FAULT=slow:1", 0, line); /* some seconds anywhere */
    run_expect(&run, " s  epoch ", 20.0);
    assert_int_equal(run_processes(mark, found, 8), 3);
    assert_int_equal(kill(found[1], SIGKILL), 0);
    assert_int_equal(run_wait(&run, 120.0), 0);
    run_expect(&run, "was killed by signal 9 (Killed); the run goes on with 2", 1.0);
    run_close(&run);
    result = run_json(run_dir, "result.json");
    assert_true(run_number(result, "workers_lost") == 1.0);
    assert_true(run_number(result, "gradients") == 16.0 * 375.0);
    json_decref(result);
}

static void test_all_workers_gone(void **state)
{
    char line[256];
    json_t *result;

    (void)state;
    (void)snprintf(line, sizeof line,
                   "train --data synthetic --workers 2 --epochs 9 --out %s", run_dir);
    run_whole("GAPLESS_FAULT=exit:50", line, 1, "all workers are gone after 9");
    result = run_json(run_dir, "result.json");
    assert_true(run_number(result, "workers_lost") == 2.0);
    assert_true(run_number(result, "gradients") == 98.0);
    json_decref(result);
    assert_true(exists("model.safetensors"));
}

/* How many of a run's workers got as far as their seventh gradient, each of which had
 * exactly that one dropped; a worker's `gradients` are those that were not. In so short a
 * run a worker that is not given a core may not get there. */
static unsigned seventh_dropped(const json_t *result)
{
    const json_t *worker;
    size_t i;
    unsigned ret = 0;

    json_array_foreach(json_object_get(result, "per_worker"), i, worker)
    {
        const double gone = run_number(worker, "dropped");
        const bool reached = run_number(worker, "gradients") + gone >= 7.0;

        assert_true(gone == (reached ? 1.0 : 0.0));
        ret += reached;
    }
    return ret;
}

static void test_not_finite(void **state)
{
    char line[256];
    json_t *result;
    unsigned dropped;

    (void)state;
    (void)snprintf(line, sizeof line,
                   "train --data synthetic --workers 3 --epochs 1 --lr 0.01 --warmup 0 "
                   "--out %s",
                   run_dir);
    run_whole("GAPLESS_FAULT=nan:7", line, 0, " not finite or late, 0 cut short");
    result = run_json(run_dir, "result.json");
    dropped = seventh_dropped(result);
    assert_true(dropped >= 1); /* 375 gradients: one worker at least did 125 */
    assert_true(run_number(result, "dropped") == dropped);
    assert_true(run_number(result, "gradients") == 375.0);
    assert_true(run_number(result, "updates") == 375.0 - dropped);
    assert_true(run_number(result, "final_accuracy") > 0.5);
    assert_true(run_number(result, "final_loss") < 2.0);
    json_decref(result);
    assert_true(exists("log/worker-00.log")); /* it said so */
}

/* A worker has one name: in what train and the master say, by its log, in result.json. */
static void test_names(void **state)
{
    char line[256];
    struct run run;
    json_t *result;
    const json_t *worker;
    size_t i;

    (void)state;
    (void)snprintf(line, sizeof line,
                   "train --data synthetic --workers 5 --epochs 3 --lr 0.01 --warmup 0 "
                   "--out %s",
                   run_dir);
    run = run_start("GAPLESS_FAULT=exit:5@3", 0, line);
    assert_int_equal(run_wait(&run, 60.0), 0);
    run_expect(&run, "gapless train: worker-03 (process ", 1.0);
    run_close(&run);
    result = run_json(run_dir, "result.json");
    assert_int_equal(json_array_size(json_object_get(result, "per_worker")), 5);
    json_array_foreach(json_object_get(result, "per_worker"), i, worker)
    {
        char name[16];

        (void)snprintf(name, sizeof name, "worker-%02d", (int)i);
        assert_string_equal(json_string_value(json_object_get(worker, "name")), name);
        assert_true(run_number(worker, "worker") == (double)i);
        if (i == 3)
            assert_true(run_number(worker, "gradients") == 4.0);
    }
    json_decref(result);
    (void)snprintf(line, sizeof line, "%s/log/master.log", run_dir);
    assert_true(file_has(line, "worker-03 (pid "));
}

static void test_bad_start(void **state)
{
    char line[256];

    (void)state;
    (void)snprintf(line, sizeof line,
                   "train --data synthetic --workers 2 --epochs 9 --out %s", run_dir);
    run_whole(NULL, line, 0, "test accuracy");
    run_whole("GAPLESS_FAULT=oops", line, 1, "the run cannot begin: worker-0");
    assert_true(exists("result.json")); /* what the run before left is as it was */
    assert_true(exists("model.safetensors"));
    assert_false(exists("result.previous.json"));
}

/* In the middle of a run the disk is full: `fill` makes it so. What is there stays, and
 * it is said. */
static void fill_midway(void (*fill)(pid_t train, pid_t master), const char *text)
{
    char line[256], mark[80];
    struct run run;
    pid_t master[2];

    (void)snprintf(mark, sizeof mark, "--out=%s", run_dir);
    (void)snprintf(line, sizeof line, LONG_RUN, run_dir, run_dir);
    run = run_start(NULL, 0, line);
    run_expect(&run, " s  epoch ", 20.0);
    assert_int_equal(run_processes(mark, master, 2), 1);
    fill(run.pid, master[0]);
    run_sleep(1.5);
    assert_int_equal(kill(run.pid, SIGINT), 0);
    assert_int_equal(run_wait(&run, 30.0), 1);
    run_expect(&run, "gapless train: the master failed at the end: ", 1.0);
    run_expect(&run, text, 1.0);
    run_close(&run);
    assert_false(exists("model.safetensors"));
    check_metrics_until_full();
}

static void limit_files(pid_t train, pid_t master)
{
    const struct rlimit limit = {700, 700};

    (void)train; /* its output goes into a file here */
    assert_int_equal(prlimit(master, RLIMIT_FSIZE, &limit, NULL), 0);
}

static void test_files_limited(void **state)
{
    (void)state;
    fill_midway(limit_files, "File too large");
}

static void fill_disk(pid_t train, pid_t master)
{
    static const char zeros[4096];
    char path[64];
    FILE *file;

    (void)train;
    (void)master;
    (void)snprintf(path, sizeof path, "%s/filler", run_dir);
    file = fopen(path, "we");
    assert_non_null(file);
    (void)setvbuf(file, NULL, _IONBF, 0);
    while (fwrite(zeros, 1, sizeof zeros, file) == sizeof zeros)
        ;
    (void)fclose(file);
}

/* A real one, where it may be mounted. */
static void test_disk_full(void **state)
{
    char line[256];
    struct run run;

    (void)state;
    if (mount("none", run_dir, "tmpfs", 0, "size=64k") != 0) {
        print_message("SKIP: a small file system cannot be mounted here\n");
        skip();
    }
    (void)snprintf(line, sizeof line,
                   "train --data synthetic --workers 2 --epochs 1 --out %s", run_dir);
    run = run_start(NULL, 0, line);
    assert_int_equal(run_wait(&run, 30.0), 1);
    run_expect(&run, "make room or choose another --out", 1.0);
    run_close(&run);
    assert_int_equal(umount(run_dir), 0);
    assert_int_equal(mount("none", run_dir, "tmpfs", 0, "size=2m"), 0);
    fill_midway(fill_disk, "No space left on device");
    assert_int_equal(umount(run_dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_rule, run_set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_options_reach_the_engine, run_set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_local_steps, run_set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_interrupt, run_set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_interrupt_twice, run_set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_launcher_killed, run_set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_master_killed, run_set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_worker_killed, run_set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_all_workers_gone, run_set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_not_finite, run_set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names, run_set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_start, run_set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_files_limited, run_set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_disk_full, run_set_up, tear_down),
    };

    (void)run_program();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
