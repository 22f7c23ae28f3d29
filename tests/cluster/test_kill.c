/* kill -9 of a worker at 20 seeded instants of a real run: eight workers, a new one for
 * each that was killed. The run goes on, every gradient of it is consumed once, the
 * others finish, nothing is left behind. */
#include "tests/cluster/run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS 8u
#define KILLS 20u
#define SEED 20u
#define EPOCHS 160u
#define GRADIENTS (EPOCHS * 375u)

static char folder[32];
static uint64_t random_state = SEED;

static uint32_t random_below(uint32_t bound)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % bound;
}

static struct run start_worker(void)
{
    char line[128];

    /* A millisecond a gradient: on any machine the run is longer than the kills. */
    (void)snprintf(line, sizeof line, "worker --master shm:%s/socket", folder);
    return run_start("GAPLESS_FAULT=slow:1", 0, line);
}

static uint64_t gradients_now(void)
{
    char line[160];
    struct run run;
    json_t *row;
    char *text;
    uint64_t ret;

    (void)snprintf(line, sizeof line, "observe --once --json --master shm:%s/socket",
                   folder);
    run = run_start(NULL, 0, line);
    assert_int_equal(run_wait(&run, 20.0), 0);
    text = run_output(&run);
    row = json_loads(text, 0, NULL);
    assert_non_null(row);
    ret = (uint64_t)run_number(row, "gradients");
    json_decref(row);
    free(text);
    run_close(&run);
    return ret;
}

/* Kills a worker, by chance, after 5 to 65 ms, and starts another in its place. Returns
 * whether it had joined; it may be one that has just been started. */
static unsigned kill_one(struct run *workers)
{
    uint32_t which = random_below(WORKERS);
    char *output;
    bool joined;

    run_sleep(0.005 + 1e-6 * (double)random_below(60000));
    assert_int_equal(kill(workers[which].pid, SIGKILL), 0);
    assert_int_equal(run_wait(&workers[which], 5.0), -SIGKILL);
    output = run_output(&workers[which]);
    joined = strstr(output, "joined") != NULL;
    free(output);
    run_close(&workers[which]);
    workers[which] = start_worker();
    return joined;
}

/* Each that had joined was noticed; one may have joined and not yet said so. */
static void check_lost(const struct run *master, unsigned joined)
{
    char *output = run_output(master);
    const char *at = strstr(output, "gradients dropped, ");
    unsigned lost = 0;

    assert_non_null(at);
    assert_int_equal(sscanf(at, "gradients dropped, %u workers lost", &lost), 1);
    if (lost < joined || lost > KILLS)
        fail_msg("%u lost, %u joined", lost, joined);
    free(output);
}

static void test_twenty_kills(void **state)
{
    struct run master, workers[WORKERS];
    char line[256], text[64];
    unsigned joined = 0;
    uint64_t before;

    (void)state;
    run_folder(folder, sizeof folder);
    (void)snprintf(
        line, sizeof line,
        "master --data synthetic --model mlp:128 --workers %u --workers-wait "
        "%u --workers-max %u --observers-max 32 --epochs %u --address "
        "shm:%s/socket --out %s",
        WORKERS, WORKERS, WORKERS + 4, EPOCHS, folder, folder);
    master = run_start(NULL, 0, line);
    run_expect(&master, "listening at", 10.0);
    for (unsigned i = 0; i < WORKERS; i++)
        workers[i] = start_worker();
    while (gradients_now() == 0)
        run_sleep(0.02);
    for (unsigned i = 0; i < KILLS; i++)
        joined += kill_one(workers);
    before = gradients_now();
    if (before >= GRADIENTS)
        fail_msg("the run was over before the last kill: it has to be longer");
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(run_wait(&workers[i], 60.0), 0);
        run_close(&workers[i]);
    }
    assert_int_equal(run_wait(&master, 20.0), 0);
    check_lost(&master, joined);
    /* The batches of the dead went to others: all were applied. */
    (void)snprintf(text, sizeof text, "gapless master: %u,000 updates",
                   GRADIENTS / 1000);
    run_expect(&master, text, 1.0);
    run_close(&master);
    run_none_left(folder);
    run_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twenty_kills),
    };

    (void)run_program();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
