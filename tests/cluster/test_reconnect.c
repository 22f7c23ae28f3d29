/* A worker whose master is lost: it looks for it again if it may, ends if it may not,
 * and says which. Over shared memory; that the master is killed is the same over any
 * transport. */
#include "tests/cluster/run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct run start(const char *environment, const char *command, const char *more)
{
    char line[400];

    (void)snprintf(line, sizeof line, "%s shm:%s/socket%s%s", command, run_dir,
                   more[0] != '\0' ? " " : "", more);
    return run_start(environment, 0, line);
}

static struct run start_master(const char *more)
{
    struct run master =
        start(NULL, "master --data synthetic --workers 1 --address", more);

    run_expect(&master, "listening at", 10.0);
    return master;
}

static void finish(struct run *run, int code, const char *text)
{
    assert_int_equal(run_wait(run, 30.0), code);
    run_expect(run, text, 1.0);
    run_close(run);
}

static void kill_master(struct run *master)
{
    assert_int_equal(kill(master->pid, SIGKILL), 0);
    assert_int_equal(run_wait(master, 10.0), -SIGKILL);
    run_close(master);
}

/* Killed and started again: the worker goes on with the new one, to its end. */
static void test_comes_back(void **state)
{
    struct run master = start_master("--epochs 100000");
    struct run worker = start(NULL, "worker --master", "--reconnect 100");

    (void)state;
    run_expect(&worker, "joined", 10.0);
    kill_master(&master);
    run_expect(&worker, "looking for it again for 100 s", 10.0);
    master = start_master("--epochs 2");
    finish(&worker, 0, "; the master was lost and found again 1 time");
    finish(&master, 0, "750 updates");
}

static void test_gives_up(void **state)
{
    struct run master = start_master("--epochs 100000");
    struct run worker = start(NULL, "worker --master", "--reconnect 0.6");

    (void)state;
    run_expect(&worker, "joined", 10.0);
    kill_master(&master);
    finish(&worker, 3, "did not come back within 0.6 s");
}

/* As it was before there was --reconnect. */
static void test_does_not_look(void **state)
{
    struct run master = start_master("--epochs 100000");
    struct run worker = start(NULL, "worker --master", "");
    char *text;

    (void)state;
    run_expect(&worker, "joined", 10.0);
    kill_master(&master);
    assert_int_equal(run_wait(&worker, 20.0), 1);
    text = run_output(&worker);
    assert_null(strstr(text, "looking for it"));
    assert_non_null(strstr(text, "is gone"));
    free(text);
    run_close(&worker);
}

/* A refusal stays what it is: there is another job at that address now. */
static void test_another_job(void **state)
{
    struct run master = start_master("--epochs 100000");
    struct run worker = start(NULL, "worker --master", "--reconnect 100");

    (void)state;
    run_expect(&worker, "joined", 10.0);
    kill_master(&master);
    master = start_master("--epochs 100000 --batch 16");
    finish(&worker, 1, "its batch is not what this worker has");
    assert_int_equal(kill(master.pid, SIGTERM), 0);
    finish(&master, 0, "updates");
    /* And another model. */
    master = start_master("--epochs 100000");
    worker = start(NULL, "worker --master", "--reconnect 100");
    run_expect(&worker, "joined", 10.0);
    kill_master(&master);
    master = start_master("--epochs 100000 --model mlp:32");
    finish(&worker, 1, "gapless worker: ");
    assert_int_equal(kill(master.pid, SIGTERM), 0);
    finish(&master, 0, "updates");
}

/* Asked to leave while it looks, it leaves at once and in order. */
static void test_leaves(void **state)
{
    struct run master = start_master("--epochs 100000");
    struct run worker = start(NULL, "worker --master", "--reconnect 600");
    uint64_t began;

    (void)state;
    run_expect(&worker, "joined", 10.0);
    kill_master(&master);
    run_expect(&worker, "looking for it again", 10.0);
    began = pace_clock_ns();
    assert_int_equal(kill(worker.pid, SIGTERM), 0);
    finish(&worker, 0, "gradients");
    assert_true(pace_within(pace_clock_ns() - began, 0, 15000000000));
}

/* In a whole run the end of the master is what is told, not that workers lost it. */
static void test_launched(void **state)
{
    char line[300], mark[80];
    struct run run;
    pid_t master[2];
    char *text;

    (void)state;
    (void)snprintf(mark, sizeof mark, "--out=%s", run_dir);
    (void)snprintf(line, sizeof line,
                   "train --data synthetic --workers 2 --epochs 100000 --out %s "
                   "--address shm:%s/socket",
                   run_dir, run_dir);
    run = run_start("GAPLESS_RECONNECT=0.1", 0, line);
    run_expect(&run, " s  epoch ", 20.0);
    assert_int_equal(run_processes(mark, master, 2), 1);
    assert_int_equal(kill(master[0], SIGKILL), 0);
    assert_int_equal(run_wait(&run, 30.0), 1);
    text = run_output(&run);
    if (strstr(text, "the run ended early: master") == NULL ||
        strstr(text, "ended with code 3") != NULL)
        fail_msg("%s", text);
    free(text);
    run_close(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_comes_back, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_gives_up, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_does_not_look, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_another_job, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_leaves, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_launched, run_set_up, run_tear_down),
    };

    (void)run_program();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
