/* gapless bench transport, over shared memory: every figure is there and makes sense,
 * what is typed wrongly is told, and no process is left. The figures themselves are
 * nobody's promise here. */
#include "tests/cluster/run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct run start(const char *more)
{
    char line[300];

    (void)snprintf(line, sizeof line, "bench transport %s", more);
    return run_start(NULL, 0, line);
}

static json_t *object_of(struct run *run)
{
    char *text;
    json_error_t error;
    json_t *ret;

    assert_int_equal(run_wait(run, 60.0), 0);
    text = run_output(run);
    ret = json_loads(text, 0, &error); /* nothing but the object was printed */
    if (ret == NULL)
        fail_msg("%s in '%s'", error.text, text);
    free(text);
    run_close(run);
    return ret;
}

static void check_rate(const json_t *figure, double bytes)
{
    assert_true(run_number(figure, "bytes") == bytes);
    assert_true(run_number(figure, "gb_per_s") > 0.0);
    assert_true(run_number(figure, "gb_per_s_best") >= run_number(figure, "gb_per_s"));
    assert_true(run_number(figure, "ceiling_gb_per_s") > 0.0);
    assert_true(run_number(figure, "share_of_ceiling") > 0.0);
    assert_true(json_is_null(json_object_get(figure, "p50_us")));
}

static void check_times(const json_t *figure)
{
    assert_true(run_number(figure, "p50_us") > 0.0);
    assert_true(run_number(figure, "p50_us") <= run_number(figure, "p99_us"));
    assert_true(run_number(figure, "p99_us") <= run_number(figure, "p999_us"));
    assert_true(run_number(figure, "mean_us") > 0.0);
}

static void test_everything(void **state)
{
    static const char *const ops[] = {"write",     "write",     "read",     "read",
                                      "write-lat", "write-lat", "read-lat", "read-lat",
                                      "update",    "update"};
    char more[200];
    struct run run;
    json_t *root, *figures;

    (void)state;
    (void)snprintf(more, sizeof more,
                   "--json --seconds 0.05 --sizes 64,1K --sleep --listen %s/socket",
                   run_dir);
    run = start(more);
    root = object_of(&run);
    assert_string_equal(json_string_value(json_object_get(root, "transport")), "shm");
    assert_true(json_is_true(json_object_get(root, "sleep")));
    figures = json_object_get(root, "figures");
    assert_int_equal(json_array_size(figures), 10);
    for (size_t i = 0; i < 10; i++) {
        const json_t *figure = json_array_get(figures, i);

        assert_string_equal(json_string_value(json_object_get(figure, "op")), ops[i]);
        assert_true(run_number(figure, "ops") >= 1.0);
        if (i < 4)
            check_rate(figure, i % 2 == 0 ? 64.0 : 1024.0);
        else
            check_times(figure);
        assert_true(json_is_object(json_object_get(figure, "client_per_op")));
    }
    assert_true(run_number(json_array_get(figures, 8), "ranges") == 16.0);
    assert_true(run_number(json_array_get(figures, 9), "ranges") == 1.0);
    json_decref(root);
}

static void test_one_figure(void **state)
{
    char more[200];
    struct run run;
    json_t *root, *figures;

    (void)state;
    (void)snprintf(more, sizeof more,
                   "--json --seconds 0.05 --ops read --sizes 64K --listen %s/socket",
                   run_dir);
    run = start(more);
    root = object_of(&run);
    figures = json_object_get(root, "figures");
    assert_int_equal(json_array_size(figures), 1);
    check_rate(json_array_get(figures, 0), 65536.0);
    json_decref(root);
}

/* Rules that work on matrices: how fast the products are, beside the same ones alone. */
static void test_matrices(void **state)
{
    char line[300], path[200];
    json_t *root, *rows;
    json_error_t error;
    struct run run;

    (void)state;
    (void)snprintf(path, sizeof path, "%s/matrices.json", run_dir);
    (void)snprintf(line, sizeof line,
                   "bench rules --rules muon --seconds 0.1 --json-file %s", path);
    run = run_start(NULL, 0, line);
    assert_int_equal(run_wait(&run, 60.0), 0);
    run_close(&run);
    root = json_load_file(path, 0, &error);
    assert_non_null(root);
    rows = json_object_get(root, "matrices");
    assert_true(json_array_size(rows) >= 1);
    assert_true(run_number(json_array_get(rows, 0), "rows") == 64.0);
    assert_true(run_number(json_array_get(rows, 0), "operations") == 66846720.0);
    assert_true(run_number(json_array_get(rows, 0), "products_s") > 0.0);
    assert_true(run_number(json_array_get(rows, 0), "gemm_s") > 0.0);
    json_decref(root);
}

/* As on two machines; and the server ends with its client. */
static void test_apart(void **state)
{
    char more[200];
    struct run server, client;

    (void)state;
    (void)snprintf(more, sizeof more, "--only-server --sleep --listen %s/socket",
                   run_dir);
    server = start(more);
    run_expect(&server, "serving at", 10.0);
    (void)snprintf(more, sizeof more,
                   "--sleep --seconds 0.05 --ops write-lat,update --server %s/socket",
                   run_dir);
    client = start(more);
    assert_int_equal(run_wait(&client, 60.0), 0);
    run_expect(&client, "write-lat", 1.0);
    run_expect(&client, "in 16 ranges", 1.0);
    assert_int_equal(run_wait(&server, 20.0), 0);
    run_close(&client);
    run_close(&server);
}

/* Killed in the midst of it, the client leaves no server behind. */
static void test_killed(void **state)
{
    char more[200];
    struct run run;

    (void)state;
    (void)snprintf(
        more, sizeof more,
        "--seconds 60 --ops read,write --sizes 64K --sleep --listen %s/socket",
        run_dir);
    run = start(more);
    run_expect(&run, "both sides sleep", 20.0);
    assert_int_equal(kill(run.pid, SIGKILL), 0);
    assert_int_equal(run_wait(&run, 10.0), -SIGKILL);
    run_close(&run);
}

static void test_wrong(void **state)
{
    static const struct {
        const char *line, *text;
    } wrong[] = {
        {"--transport tcp", "one of: shm, verbs"},
        {"--ops write,fly", "write-lat"},
        {"--ops write,", "write-lat"},
        {"--sizes 0", "takes 1 to 1G bytes"},
        {"--sizes 8,", "whole number"},
        {"--sizes -1", "whole number"},
        {"--sizes 2048M", "2048M' is too many"},
        {"--sizes 1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", "at most 16"},
        {"--seconds 0", "at least 0.01"},
        {"--seconds nan", "finite number"},
        {"--channels 0", "at least 1"},
        {"--server x --listen y", "say one of them"},
        {"--server x --only-server", "say one of them"},
        {"--listen verbs:x:1", "'verbs:x:1'"},
        {"--token-file /dev/null", "no regular file"},
        {"--nonsense", "--help"},
        {"more", "is not an option"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char line[128];

        (void)snprintf(line, sizeof line, "bench transport %s", wrong[i].line);
        run_whole(NULL, line, 2, wrong[i].text);
    }
    run_whole(NULL, "bench transport --help", 0, "--only-server");
    run_whole(NULL, "bench", 2, "transport");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_everything, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_one_figure, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_matrices, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_apart, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_killed, run_set_up, run_tear_down),
        cmocka_unit_test(test_wrong),
    };

    (void)run_program();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
