/* Master, workers and observers started one by one, as by people who start processes
 * themselves. */
#include "tests/cluster/run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* `command` with the address of this test's master behind it, and more options. */
static struct run start(const char *environment, const char *command, const char *more)
{
    char line[400];

    (void)snprintf(line, sizeof line, "%s shm:%s/socket%s%s", command, run_dir,
                   more[0] != '\0' ? " " : "", more);
    return run_start(environment, 0, line);
}

static struct run start_master(const char *more)
{
    struct run master = start(NULL, "master --data synthetic --address", more);

    run_expect(&master, "listening at", 10.0);
    return master;
}

static void end(struct run *run, int number, int code)
{
    if (number != 0)
        assert_int_equal(kill(run->pid, number), 0);
    assert_int_equal(run_wait(run, 30.0), code);
}

static void expect_end(struct run *run, int code, const char *text)
{
    end(run, 0, code);
    run_expect(run, text, 1.0);
    run_close(run);
}

static json_t *observe_once(const char *more)
{
    struct run run = start(NULL, "observe --once --json --master", more);
    char *text;
    json_t *row;

    end(&run, 0, 0);
    text = run_output(&run);
    row = json_loads(text, 0, NULL);
    assert_non_null(row);
    free(text);
    run_close(&run);
    return row;
}

static void wait_for_workers(double many)
{
    struct pace_bound bound = pace_begin(20000000000);
    double seen;

    do {
        json_t *row = observe_once("");

        seen = run_number(row, "workers");
        json_decref(row);
        if (seen != many && pace_over(&bound))
            fail_msg("%g workers, not %g", seen, many);
    } while (seen != many);
}

static void test_joining_late(void **state)
{
    struct run master = start_master("--workers 2 --epochs 100000");
    struct run first, second;
    json_t *row;

    (void)state;
    wait_for_workers(0.0);
    first = start(NULL, "worker --master", "");
    wait_for_workers(1.0);
    second = start(NULL, "worker --number 5 --master", "");
    wait_for_workers(2.0);
    run_expect(&first, "as worker-00", 10.0);
    run_expect(&second, "as worker-05", 10.0);
    row = observe_once("--accuracy");
    assert_true(run_number(row, "accuracy") > 0.05);
    assert_true(run_number(row, "gradients") > 0.0);
    json_decref(row);
    end(&first, SIGINT, 0); /* leaves politely */
    run_expect(&first, "gradients", 1.0);
    run_close(&first);
    wait_for_workers(1.0);
    end(&master, SIGTERM, 0);
    run_expect(&master, "nothing of this run is kept", 1.0);
    run_expect(&master, "test accuracy", 1.0);
    run_expect(&master, "the parameters are not kept", 1.0);
    run_close(&master);
    end(&second, 0, 0);
    run_close(&second);
}

/* What a run leaves is what train would have left: a whole one of `gradients` by as many
 * workers. */
static void check_files(double gradients, double workers, bool stopped)
{
    json_t *result = run_json(run_dir, "result.json"), *row = NULL;
    char path[128], line[4096], words[160];
    const json_t *each = json_object_get(result, "per_worker");
    double sum = 0.0;
    FILE *file;

    assert_string_equal(json_string_value(json_object_get(result, "mode")), "train");
    assert_true(json_is_boolean(json_object_get(result, "stopped")));
    assert_true(json_is_true(json_object_get(result, "stopped")) == stopped);
    assert_true(json_is_null(json_object_get(result, "failure")));
    assert_true(run_number(result, "workers") == workers);
    assert_true(json_array_size(each) == (size_t)workers);
    for (size_t i = 0; i < json_array_size(each); i++)
        sum += run_number(json_array_get(each, i), "gradients");
    assert_true(sum == run_number(result, "gradients"));
    assert_true(stopped || sum == gradients);
    assert_true(run_number(result, "final_accuracy") > 0.2); /* of 10 classes */
    assert_true(run_number(result, "parameters_rms") > 0.0);
    assert_true(json_array_size(json_object_get(result, "command")) > 4);
    (void)snprintf(path, sizeof path, "%s/metrics.jsonl", run_dir);
    file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        json_decref(row);
        row = json_loads(line, 0, NULL);
        assert_non_null(row);
    }
    (void)fclose(file);
    assert_non_null(row); /* the last line is of the end */
    assert_true(run_number(row, "gradients") == sum);
    assert_true(run_number(row, "accuracy") == run_number(result, "final_accuracy"));
    json_decref(row);
    json_decref(result);
    (void)snprintf(words, sizeof words, "report %s --out %s/page", run_dir, run_dir);
    run_whole(NULL, words, 0, "report.html");
}

static void wait_for_updates(double many)
{
    struct pace_bound bound = pace_begin(60000000000);
    double updates;

    do {
        json_t *row = observe_once("");

        updates = run_number(row, "updates");
        json_decref(row);
    } while (updates < many && !pace_over(&bound));
    assert_true(updates >= many);
}

static void test_stopped(void **state)
{
    char more[128];
    struct run master, first, second;

    (void)state;
    (void)snprintf(more, sizeof more, "--quiet --epochs 100000 --out %s", run_dir);
    master = start(NULL, "master --data synthetic --address", more);
    first = start(NULL, "worker --connect-timeout 20 --master", "");
    second = start(NULL, "worker --connect-timeout 20 --master", "");
    wait_for_workers(2.0);
    wait_for_updates(1000.0);
    end(&master, SIGTERM, 0);
    run_expect(&master, "result.json, metrics.jsonl, model.safetensors are in", 1.0);
    run_close(&master);
    end(&first, 0, 0);
    end(&second, 0, 0);
    run_close(&first);
    run_close(&second);
    check_files(0.0, 2.0, true);
}

/* Without an update an earlier run's files stay. */
static void test_no_update(void **state)
{
    char more[128], path[128];
    struct run master;
    FILE *file;

    (void)state;
    (void)snprintf(path, sizeof path, "%s/result.json", run_dir);
    file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs("{\"before\":1}\n", file) > 0);
    (void)fclose(file);
    (void)snprintf(more, sizeof more, "--out %s", run_dir);
    master = start_master(more);
    end(&master, SIGTERM, 0);
    run_expect(&master, "there were no updates: nothing is written", 1.0);
    run_close(&master);
    json_decref(run_json(run_dir, "result.json"));
    file = fopen(path, "re");
    assert_non_null(file);
    assert_non_null(fgets(more, sizeof more, file));
    (void)fclose(file);
    assert_string_equal(more, "{\"before\":1}\n");
}

static void test_whole_run(void **state)
{
    char more[128];
    struct run master, worker, observer;
    struct stat info;
    char *text;

    (void)state;
    (void)snprintf(more, sizeof more, "--workers 1 --epochs 20 --out %s", run_dir);
    master = start_master(more);
    observer = start(NULL, "observe --interval 0.2 --accuracy --master", "");
    worker = start(NULL, "worker --master", "--data synthetic --batch 32");
    end(&worker, 0, 0);
    end(&observer, 0, 0);
    run_expect(&observer, "accuracy ", 1.0);
    run_expect(&observer, "gradients 7,500 of 7,500", 1.0);
    run_expect(&observer, "epoch 20.00/20  updates", 1.0);
    run_expect(&observer, ":", 1.0); /* the clock */
    run_expect(&observer, "  done", 1.0);
    end(&master, 0, 0);
    run_expect(&master, "7,500 updates", 1.0);
    check_files(7500.0, 1.0, false);
    (void)snprintf(more, sizeof more, "%s/model.safetensors", run_dir);
    assert_int_equal(stat(more, &info), 0);
    assert_true(info.st_size > 4810 * 4);
    text = run_output(&worker);
    assert_non_null(strstr(text, "7,500 gradients, 0 of them"));
    free(text);
    run_close(&worker);
    run_close(&observer);
    run_close(&master);
}

/* What an observer saves has the same shape as what the master writes. */
static void test_save(void **state)
{
    struct run master = start_master("--workers 1 --epochs 100000"), run;
    char more[128];
    unsigned char head[8];
    struct stat info;
    uint64_t bytes = 0;
    char *header;
    json_t *tensors;
    FILE *file;

    (void)state;
    (void)snprintf(more, sizeof more, "--once --save %s/live.safetensors", run_dir);
    run = start(NULL, "observe --master", more);
    expect_end(&run, 0, "loss --"); /* no gradient was applied yet */
    (void)snprintf(more, sizeof more, "%s/live.safetensors", run_dir);
    assert_int_equal(stat(more, &info), 0);
    file = fopen(more, "re");
    assert_non_null(file);
    assert_int_equal(fread(head, 1, 8, file), 8);
    for (unsigned i = 0; i < 8; i++)
        bytes |= (uint64_t)head[i] << (8 * i);
    assert_int_equal(info.st_size, 8 + (long)bytes + 4810 * 4);
    header = calloc(1, bytes + 1);
    assert_non_null(header);
    assert_int_equal(fread(header, 1, bytes, file), bytes);
    (void)fclose(file);
    tensors = json_loads(header, 0, NULL);
    assert_int_equal(json_object_size(tensors), 5); /* and the metadata */
    assert_string_equal(json_string_value(json_object_get(
                            json_object_get(tensors, "__metadata__"), "model")),
                        "mlp:64");
    assert_non_null(json_object_get(tensors, "layer1.weight"));
    json_decref(tensors);
    free(header);
    end(&master, SIGINT, 0);
    run_close(&master);
}

static void test_refusals(void **state)
{
    struct run master = start_master("--workers 1 --workers-max 1 --epochs 100000"),
               run;
    struct run worker = start(NULL, "worker --master", "");

    (void)state;
    run_expect(&worker, "joined", 10.0);
    run = start(NULL, "worker --master", "--connect-timeout 1");
    expect_end(&run, 1, "gapless worker: ");
    run = start(NULL, "worker --master", "--batch 31");
    expect_end(&run, 2, "--batch is not what the master");
    run = start("GAPLESS_MODEL=mlp:65", "worker --master", "");
    expect_end(&run, 2, "--model is not what the master");
    /* All is said, so nobody is asked: the model is refused when it shakes hands. */
    run = start(NULL, "worker --master",
                "--data synthetic --model mlp:65 --batch 32 --seed 1");
    expect_end(&run, 1, "gapless worker: ");
    end(&master, SIGTERM, 0);
    run_close(&master);
    end(&worker, 0, 0);
    run_close(&worker);
}

/* A signal ends what still looks for a master, however long it may look. */
static void test_looking(void **state)
{
    struct run worker = start(NULL, "worker --connect-timeout 300 --master", "");
    struct run observer = start(NULL, "observe --connect-timeout 300 --master", "");

    (void)state;
    run_sleep(0.5);
    end(&worker, SIGINT, -SIGINT);
    end(&observer, SIGTERM, -SIGTERM);
    run_close(&worker);
    run_close(&observer);
}

/* A second master at the same address; and then the first one dies. */
static void test_master_gone(void **state)
{
    struct run master = start_master("--workers 1 --epochs 100000"), run;
    struct run worker = start(NULL, "worker --master", "");
    struct run observer = start(NULL, "observe --interval 60 --master", "");

    (void)state;
    run_expect(&worker, "joined", 10.0);
    run_expect(&observer, "updates", 10.0);
    run = start(NULL, "master --data synthetic --address", "");
    expect_end(&run, 1, "gapless master: ");
    end(&master, SIGKILL, -SIGKILL);
    run_close(&master);
    expect_end(&worker, 1, "gapless worker: ");
    expect_end(&observer, 1, "gapless observe: ");
    /* The address is free again. */
    master = start_master("--workers 1 --epochs 0.1");
    worker = start(NULL, "worker --master", "");
    end(&worker, 0, 0);
    end(&master, 0, 0);
    run_close(&worker);
    run_close(&master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_joining_late, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_whole_run, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_stopped, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_no_update, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_save, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_looking, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_master_gone, run_set_up, run_tear_down),
    };

    (void)run_program();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
