/* A run's folder has one owner: runs that begin at once get a folder each, a second run in
 * the folder of one that lasts is refused, and all files of a run name the same run. */
#include "tests/cluster/run.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOY "--model quadratic:8 --workers 2 --epochs 1 --quiet"
#define AT_ONCE 4u
#define ID 16

/* The first run_id of a file, whatever its format. */
static void id_of(const char *folder, const char *name, char ret[ID + 1])
{
    static char text[1 << 16];
    char path[600], *at;
    size_t bytes;
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "rb");
    assert_non_null(file);
    bytes = fread(text, 1, sizeof text - 1, file);
    text[bytes] = '\0';
    (void)fclose(file);
    for (size_t i = 0; i < bytes; i++) /* a header's length has zeros in it */
        text[i] = text[i] != '\0' ? text[i] : ' ';
    at = strstr(text, "\"run_id\"");
    if (at == NULL)
        fail_msg("%s has no run_id", path);
    at = strchr(at + 8, '"');
    assert_non_null(at);
    assert_int_equal(strspn(at + 1, "0123456789abcdef"), ID);
    (void)snprintf(ret, ID + 1, "%.*s", ID, at + 1);
}

static void assert_one_id(const char *folder, const char *const *names)
{
    char first[ID + 1], other[ID + 1];

    id_of(folder, names[0], first);
    for (size_t i = 1; names[i] != NULL; i++) {
        id_of(folder, names[i], other);
        assert_string_equal(first, other);
    }
}

static const char *const simulated[] = {"result.json", "run.json", "metrics.jsonl",
                                        NULL};
static const char *const trained[] = {"result.json", "metrics.jsonl", NULL};

static unsigned folders(void)
{
    DIR *runs = opendir("runs");
    const struct dirent *entry;
    unsigned count = 0;
    char path[300];

    assert_non_null(runs);
    while ((entry = readdir(runs)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "runs/%s", entry->d_name);
        assert_one_id(path, simulated);
        (void)strncat(path, "/.lock", sizeof path - strlen(path) - 1);
        assert_int_equal(access(path, F_OK), -1);
        count++;
    }
    (void)closedir(runs);
    return count;
}

static void test_a_folder_each(void **state)
{
    struct run run[AT_ONCE];

    (void)state;
    for (unsigned i = 0; i < AT_ONCE; i++)
        run[i] = run_start(NULL, 0, "simulate " TOY);
    for (unsigned i = 0; i < AT_ONCE; i++) {
        assert_int_equal(run_wait(&run[i], 30.0), 0);
        run_close(&run[i]);
    }
    assert_int_equal(folders(), AT_ONCE);
}

/* A simulation's files are the same for the same settings, its id, too. */
static void test_the_id_of_a_simulation(void **state)
{
    char a[ID + 1], b[ID + 1], c[ID + 1];

    (void)state;
    run_whole(NULL, "simulate " TOY " --out a", 0, "");
    run_whole(NULL, "simulate " TOY " --out b --threads 1", 0, "");
    run_whole(NULL, "simulate " TOY " --out c --seed 2", 0, "");
    id_of("a", "result.json", a);
    id_of("b", "result.json", b);
    id_of("c", "result.json", c);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
}

/* Every command that writes into a folder. */
static void test_one_owner(void **state)
{
    static const char *const others[] = {
        "simulate " TOY " --out held/a", "train --data synthetic --quiet --out held/a",
        "master --data synthetic --out held/a", "run -n 1 --out held/a /bin/true"};
    struct run run = run_start(
        NULL, 0,
        "train --data synthetic --workers 1 --epochs 1000 --quiet --out held/a");
    double end = run_now() + 30.0;

    (void)state;
    while (access("held/a/metrics.jsonl", F_OK) != 0 && run_now() < end)
        run_sleep(0.02);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        run_whole(NULL, others[i], 1, "another run is at work in held/a");
    (void)kill(run.pid, SIGINT);
    assert_int_equal(run_wait(&run, 30.0), 130);
    run_close(&run);
    assert_one_id("held/a", trained);
    run_whole(NULL, "simulate " TOY " --out held/a", 0, ""); /* it is free again */
}

/* The processes of a run that was killed are ending: until then the folder is theirs. */
static void test_a_run_that_was_killed(void **state)
{
    struct run run = run_start(
        NULL, 0, "train --data synthetic --workers 1 --epochs 1000 --quiet --out held");
    double end = run_now() + 30.0;

    (void)state;
    while (access("held/metrics.jsonl", F_OK) != 0 && run_now() < end)
        run_sleep(0.02);
    (void)kill(run.pid, SIGKILL);
    assert_int_equal(run_wait(&run, 30.0), -SIGKILL);
    run_close(&run);
    run_whole(NULL, "simulate " TOY " --out held", 0, "");
    assert_one_id("held", simulated);
}

static int enter(void **state)
{
    return run_set_up(state) == 0 ? chdir(run_dir) : -1;
}

static int leave(void **state)
{
    return chdir("/") == 0 ? run_tear_down(state) : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_folder_each, enter, leave),
        cmocka_unit_test_setup_teardown(test_the_id_of_a_simulation, enter, leave),
        cmocka_unit_test_setup_teardown(test_one_owner, enter, leave),
        cmocka_unit_test_setup_teardown(test_a_run_that_was_killed, enter, leave),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
