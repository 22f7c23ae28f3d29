/* gapless simulate for real, on synthetic data and test functions: the same bytes every
 * time, the files, events, what can be typed wrongly, Ctrl-C. */
#include "tests/cluster/run.h"

#include "cluster/workloads/data.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN                                                                            \
    "simulate --data synthetic:1200x16x4 --model mlp:8 --workers 5 --epochs 3 "        \
    "--warmup 1epoch"

/* `line` with --out FOLDER/name behind it. */
static void simulate(const char *environment, const char *line, const char *name,
                     int code, const char *text)
{
    char all[500];

    (void)snprintf(all, sizeof all, "%s --out %s/%s", line, run_dir, name);
    run_whole(environment, all, code, text);
}

static json_t *result_of(const char *name)
{
    char file[64];

    (void)snprintf(file, sizeof file, "%s/result.json", name);
    return run_json(run_dir, file);
}

static char *contents(const char *name, const char *file, size_t *ret)
{
    char path[128], *bytes = malloc(1 << 20);
    FILE *in;

    (void)snprintf(path, sizeof path, "%s/%s/%s", run_dir, name, file);
    in = fopen(path, "re");
    if (in == NULL)
        fail_msg("%s is not there", path);
    assert_non_null(bytes);
    *ret = fread(bytes, 1, 1 << 20, in);
    assert_true(*ret > 0 && *ret < 1 << 20);
    (void)fclose(in);
    return bytes;
}

static bool equal(const char *a, const char *b, const char *file)
{
    size_t a_bytes, b_bytes;
    char *left = contents(a, file, &a_bytes), *right = contents(b, file, &b_bytes);
    bool ret = a_bytes == b_bytes && memcmp(left, right, a_bytes) == 0;

    free(left);
    free(right);
    return ret;
}

static void check_equal(const char *a, const char *b)
{
    static const char *const files[] = {"result.json", "metrics.jsonl",
                                        "model.safetensors"};

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (!equal(a, b, files[i]))
            fail_msg("%s of %s and of %s differ", files[i], a, b);
}

/* ---- the same bytes ------------------------------------------------------ */

static void test_same_bytes(void **state)
{
    (void)state;
    simulate(NULL, RUN " --threads 1", "a", 0, "test accuracy");
    simulate(NULL, RUN " --threads 1 --quiet", "b", 0, "test accuracy");
    simulate(NULL, RUN " --threads 3", "deeper/c", 0, "deeper/c/: result.json");
    simulate("GAPLESS_NO_COLOR=1", RUN " --threads 16", "d", 0, "test accuracy");
    check_equal("a", "b");
    check_equal("a", "deeper/c");
    check_equal("a", "d");
    simulate(NULL, RUN " --seed 2", "e", 0, "test accuracy");
    assert_false(equal("a", "e", "metrics.jsonl"));
    assert_false(equal("a", "e", "model.safetensors"));
}

static void test_same_bytes_everywhere(void **state)
{
    static const char *const more[] = {
        "--rule ssgd --clock heterogeneous",
        "--rule dana-slim --clock heterogeneous --gradients reference",
        "--rule ga-global --latency 1e-3 --bandwidth 0.001 --pass-time 1e-4",
        "--rule dana-lga --block-elements 16 --batch 3",
        "--rule dana-zero --evaluate-every 2updates", /* measured beside gradients */
        "--rule sa --events 0.5s\tkill\t3;1s\tleave\t2;1.2s\tjoin\t3 --clip-norm 1",
        "--rule sa --events 2s\tstall\t0\tfor\t1s --clock round-robin --weight-decay 1",
    };
    char line[400];

    (void)state;
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
        (void)snprintf(line, sizeof line, RUN " --threads 1 %s", more[i]);
        simulate(NULL, line, "one", 0, "test accuracy");
        (void)snprintf(line, sizeof line, RUN " --threads 4 %s", more[i]);
        simulate(NULL, line, "four", 0, "test accuracy");
        check_equal("one", "four");
    }
}

/* ---- the gate ------------------------------------------------------------ */

#define SMALL "--data synthetic:1200x16x4 --model mlp:8 --workers 8 --epochs 50 "
#define GATED "simulate " SMALL "--warmup 0.1 --steps none"

/* The mean of the whole is that of the tensors, weighted by their elements. */
static void test_mean_gate(void **state)
{
    static const double elements[] = {16 * 8, 8, 8 * 4, 4};
    json_t *result, *gate, *rows, *row;
    double sum = 0.0;
    size_t i;

    (void)state;
    simulate(NULL, GATED " --rule dana-lga --kappa 30 --lr 0.05", "a", 0,
             " (layer1.weight 0.");
    result = result_of("a");
    gate = json_object_get(result, "gate");
    rows = json_object_get(gate, "tensors");
    assert_int_equal(json_array_size(rows), 4);
    json_array_foreach(rows, i, row) sum += elements[i] * run_number(row, "mean");
    assert_true(fabs(sum / 172.0 - run_number(gate, "mean")) < 1e-6);
    assert_true(run_number(gate, "mean") < 0.99);
    assert_true(fabs(run_number(gate, "kappa") - 30.0) < 1e-9);
    assert_true(fabs(run_number(gate, "gradients") - 1710.0) < 1e-9); /* of 1,900 */
    json_decref(result);
    simulate(NULL, GATED " --rule dana-ga", "b", 0, "gap (rms)");
    result = result_of("b");
    assert_true(json_is_null(json_object_get(result, "gate")));
    json_decref(result);
}

/* `text` is said once; NULL: nothing of kappa. */
static void warned(const char *line, const char *text)
{
    char all[500], *output, *at;
    struct run run;

    (void)snprintf(all, sizeof all, "simulate %s --warmup 0.1 --steps none --out %s/w",
                   line, run_dir);
    run = run_start(NULL, 0, all);
    assert_int_equal(run_wait(&run, 60.0), 0);
    output = run_output(&run);
    at = strstr(output, "is probably too");
    if ((at == NULL) != (text == NULL) ||
        (text != NULL && strstr(output, text) == NULL) ||
        (at != NULL && strstr(at + 1, "is probably too") != NULL))
        fail_msg("%s: %s", line, output);
    free(output);
    run_close(&run);
}

static void test_gates_tell_of_kappa(void **state)
{
    json_t *result;

    (void)state;
    warned(SMALL "--rule dana-lga-adamw --kappa 1e-6",
           "kappa 1e-06 is probably too small; try --kappa 3e-06");
    result = result_of("w");
    assert_true(
        json_is_string(json_object_get(json_object_get(result, "gate"), "warning")));
    json_decref(result);
    warned("--model quadratic --workers 32 --epochs 4 --rule dana-lga --kappa 1e8 --lr "
           "1e-4",
           "kappa 1e+08 is probably too large; try --kappa 3.3e+07");
    warned(SMALL "--rule dana-lga --kappa 1e-6", NULL); /* says nothing */
    warned(SMALL "--rule dana-lga-adamw --kappa 1e-6 --workers 7", NULL);
    warned(SMALL "--rule dana-lga-adamw --kappa 1e-6 --epochs 20",
           NULL); /* too short */
    warned(SMALL "--rule dana-lga-adamw --kappa 1e-6 --schedule cosine --epochs 30",
           NULL);
}

/* ---- what is in the files ------------------------------------------------ */

static bool has_number(const json_t *row, const char *key)
{
    return json_is_number(json_object_get(row, key));
}

struct lines {
    unsigned count, measured, with_lag;
    double least_norm, last_accuracy;
};

/* Every line is JSON, and neither time nor gradients go back. */
static struct lines check_lines(const char *name)
{
    size_t bytes;
    char *text = contents(name, "metrics.jsonl", &bytes), *rest = text;
    struct lines ret = {.least_norm = (double)INFINITY};
    double gradients = -1.0, elapsed = -1.0;

    text[bytes - 1] = '\0'; /* the end of the last line */
    while (rest != NULL) {
        json_t *row = json_loads(strsep(&rest, "\n"), 0, NULL);

        assert_non_null(row);
        assert_true(run_number(row, "gradients") >= gradients);
        assert_true(run_number(row, "elapsed") >= elapsed);
        gradients = run_number(row, "gradients");
        elapsed = run_number(row, "elapsed");
        assert_true(ret.count > 0 || (gradients == 0.0 && elapsed == 0.0));
        if (has_number(row, "accuracy")) {
            ret.measured++;
            ret.last_accuracy = run_number(row, "accuracy");
        }
        if (has_number(row, "grad_norm_sq"))
            ret.least_norm = fmin(ret.least_norm, run_number(row, "grad_norm_sq"));
        ret.with_lag += has_number(row, "lag_mean");
        ret.count++;
        json_decref(row);
    }
    free(text);
    return ret;
}

static double sum_of(const json_t *array)
{
    double sum = 0.0;
    const json_t *value;
    size_t i;

    json_array_foreach(array, i, value) sum += json_number_value(value);
    return sum;
}

static void check_histograms(const json_t *result, double gradients, size_t workers)
{
    const json_t *all = json_object_get(result, "histograms");
    const json_t *each = json_object_get(all, "workers"), *row;
    double sum = 0.0;
    size_t i;

    assert_int_equal(json_array_size(json_object_get(all, "lag_edges")), 48);
    assert_int_equal(json_array_size(json_object_get(all, "gap_edges")), 48);
    assert_int_equal(json_array_size(json_object_get(all, "gap")), 48);
    assert_int_equal(json_array_size(json_object_get(all, "lag")), 48);
    assert_true(sum_of(json_object_get(all, "lag")) == gradients);
    assert_int_equal(json_array_size(each), workers);
    json_array_foreach(each, i, row)
    {
        assert_true(run_number(row, "worker") == (double)i);
        assert_int_equal(json_array_size(json_object_get(row, "gap")), 48);
        sum += sum_of(json_object_get(row, "lag"));
    }
    assert_true(sum == gradients);
}

static void test_files(void **state)
{
    static const char *const costs[] = {
        "real_seconds",     "gradient_seconds",     "master_seconds",
        "evaluate_seconds", "master_us_per_update", "peak_rss_bytes",
        "threads"};
    struct lines lines;
    json_t *result, *run;

    (void)state;
    simulate(NULL, RUN " --threads 2 --rule dana-ga", "a", 0, "virtual s");
    result = result_of("a");
    lines = check_lines("a");
    assert_true(lines.count >= 51 && lines.measured == 4);
    assert_true(lines.with_lag == lines.count - 1);
    assert_true(fabs(lines.last_accuracy - run_number(result, "final_accuracy")) <
                1e-8);
    assert_true(run_number(result, "final_accuracy") > 0.4); /* of 4 classes */
    assert_string_equal(json_string_value(json_object_get(result, "mode")), "simulate");
    assert_string_equal(json_string_value(json_object_get(result, "clock")),
                        "homogeneous");
    assert_true(run_number(result, "gradients") == 114.0);
    assert_true(run_number(result, "batch_time") == 0.032);
    assert_true(run_number(result, "virtual_seconds") >= run_number(result, "seconds"));
    assert_true(run_number(json_object_get(result, "bytes"), "master") > 0.0);
    assert_true(json_is_null(json_object_get(result, "events")));
    assert_true(json_is_null(json_object_get(result, "elastic")));
    assert_true(json_is_null(json_object_get(result, "grad_norm_sq_min")));
    assert_null(json_object_get(result, "command"));
    check_histograms(result, 114.0, 5);
    json_decref(result);
    run = run_json(run_dir, "a/run.json");
    for (size_t i = 0; i < sizeof costs / sizeof costs[0]; i++)
        assert_true(run_number(run, costs[i]) > 0.0);
    assert_int_equal(json_array_size(json_object_get(run, "command")), 18);
    assert_int_equal(strlen(json_string_value(json_object_get(run, "started"))), 20);
    json_decref(run);
}

static bool exists(const char *name)
{
    char path[128];
    struct stat info;

    (void)snprintf(path, sizeof path, "%s/%s", run_dir, name);
    return stat(path, &info) == 0 && info.st_size > 0;
}

/* A warm-up that nobody asked for is shortened, aloud; one that was asked for is not. */
static void test_warmup(void **state)
{
    static const char *const lines[] = {
        "simulate --data synthetic:400x8x2 --model softmax --epochs 1",
        "simulate --data synthetic:400x8x2 --model softmax --epochs 1 --warmup 1epoch"};
    static const char *const says[] = {
        "gapless simulate: the warm-up is a tenth of the run, 0.1 epoch",
        "gapless simulate: dana-ga"};
    static const double amount[] = {0.1, 1.0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        const char *name = i == 0 ? "a" : "b";
        json_t *result, *warmup;

        simulate(NULL, lines[i], name, 0, says[i]);
        result = result_of(name);
        warmup = json_object_get(json_object_get(result, "schedule"), "warmup");
        assert_true(fabs(run_number(warmup, "amount") - amount[i]) < 1e-12);
        json_decref(result);
    }
}

static void test_set_aside(void **state)
{
    static const char *const files[] = {
        "a/result.previous.json", "a/metrics.previous.jsonl",
        "a/model.previous.safetensors", "a/run.previous.json"};

    (void)state;
    simulate(NULL, RUN, "a", 0, "test accuracy");
    simulate(NULL, RUN, "b", 0, "test accuracy");
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        assert_false(exists(files[i]));
    simulate(NULL, RUN " --seed 3", "a", 0, "test accuracy");
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (!exists(files[i]))
            fail_msg("%s is not there", files[i]);
    assert_true(exists("a/result.json"));
}

static void test_measured_only_at_the_end(void **state)
{
    struct lines lines;

    (void)state;
    simulate(NULL, RUN " --evaluate-every 0", "a", 0, "test accuracy");
    lines = check_lines("a");
    assert_true(lines.count >= 51 && lines.measured == 1);
    simulate(NULL, RUN " --evaluate-every 0.5epochs", "b", 0, "test accuracy");
    assert_true(equal("a", "b", "model.safetensors")); /* looking changes nothing */
    assert_int_equal(check_lines("b").measured, 7);
    simulate(NULL, RUN " --epochs 0.01 --evaluate-every 2epochs", "c", 0, "0 lost");
    lines = check_lines("c"); /* a run of one gradient */
    assert_true(lines.count == 2 && lines.measured == 2);
}

static void test_function(void **state)
{
    struct lines lines;
    json_t *result;

    (void)state;
    simulate(NULL,
             "simulate --model quadratic:16:0 --epochs 1 --lr 0.1 --rule asgd "
             "--workers 1 --schedule constant --steps none --warmup 0",
             "a", 0, "squared gradient");
    lines = check_lines("a");
    result = result_of("a");
    assert_true(lines.count >= 51 && lines.measured == 0);
    assert_true(run_number(result, "gradients") == 1000.0);
    assert_true(run_number(result, "parameters") == 16.0);
    assert_true(json_is_null(json_object_get(result, "data")));
    assert_true(json_is_null(json_object_get(result, "final_accuracy")));
    /* Exact gradients of a bowl: it goes down until it is there. */
    assert_true(run_number(result, "grad_norm_sq_min") < 1e-6);
    assert_true(fabs(run_number(result, "grad_norm_sq_min") - lines.least_norm) <
                1e-6 * lines.least_norm);
    json_decref(result);
    simulate(NULL, "simulate --model valley --epochs 1 --threads 3", "b", 0, "least");
    simulate(NULL, "simulate --model valley --epochs 1 --threads 1", "c", 0, "least");
    check_equal("b", "c");
}

/* ---- events, clocks, inherited data -------------------------------------- */

static void test_events(void **state)
{
    json_t *result;

    (void)state;
    simulate(NULL,
             RUN " --events 0.1s\tkill\t3;0.2s\tleave\t2;0.3s\tjoin\t2;0.4s\tstall\t0\t"
                 "for\t10s",
             "a", 0, "1 lost");
    result = result_of("a");
    assert_true(run_number(result, "gradients") == 114.0);
    assert_true(run_number(result, "workers_lost") == 1.0);
    assert_non_null(
        strstr(json_string_value(json_object_get(result, "events")), "kill\t3"));
    json_decref(result);
    (void)check_lines("a");
}

static void test_clock_file(void **state)
{
    char path[128], line[300];
    json_t *result;
    const json_t *each;
    FILE *file;

    (void)state;
    (void)snprintf(path, sizeof path, "%s/times", run_dir);
    file = fopen(path, "we");
    assert_non_null(file);
    (void)fprintf(file, "# one is nine times as fast\n0 0.9\n1 0.1\n1 0.1\n");
    assert_int_equal(fclose(file), 0);
    (void)snprintf(line, sizeof line, RUN " --workers 2 --clock %s", path);
    simulate(NULL, line, "a", 0, "test accuracy");
    result = result_of("a");
    each = json_object_get(result, "per_worker");
    assert_true(run_number(json_array_get(each, 1), "gradients") >
                8.0 * run_number(json_array_get(each, 0), "gradients"));
    assert_true(run_number(json_array_get(each, 0), "lag_mean") > 5.0);
    json_decref(result);
    (void)snprintf(line, sizeof line, RUN " --workers 3 --clock %s", path);
    simulate(NULL, line, "b", 1, "times:4: the file ends without");
    assert_false(exists("b"));
}

static void test_inherited_data(void **state)
{
    struct data *data;
    char line[200];
    int fd;

    (void)state;
    assert_int_equal(data_load("synthetic:1200x16x4", NULL, &data, NULL), GAPLESS_OK);
    assert_int_equal(data_share(data, &fd, NULL), GAPLESS_OK);
    (void)snprintf(line, sizeof line, RUN " --data-fd %d", fd);
    simulate(NULL, line, "a", 0, "test accuracy");
    (void)close(fd);
    data_free(data);
    simulate(NULL, RUN, "b", 0, "test accuracy");
    check_equal("a", "b");
    simulate(NULL, RUN " --data-fd 99", "c", 1, "gapless simulate:");
}

/* ---- what goes wrong ----------------------------------------------------- */

static const struct {
    const char *environment, *line;
    int code;
    const char *text;
} mistakes[] = {
    {NULL, "simulate --clok x", 2, "did you mean --clock?"},
    {NULL, "simulate --clock homogenous", 2, "did you mean 'homogeneous'?"},
    {NULL, "simulate --clock /nowhere/times", 1, "/nowhere/times"},
    {NULL, "simulate --clock /dev/null", 2, "no regular file"},
    {NULL, "simulate --events 1s", 2, "event 1, '1s'"},
    {NULL, "simulate --events 1s\tkill\t8", 2, "no worker 8"},
    {"GAPLESS_EVENTS=x", "simulate", 2, "event 1, 'x'"},
    {NULL, "simulate --gradients gpu", 2, "blas, reference"},
    {NULL, "simulate --threads 1025", 2, "at most 1024"},
    {NULL, "simulate --batch-time 0", 2, "at least 1e-09 s"},
    {NULL, "simulate --bandwidth -1", 2, "at least 0"},
    {NULL, "simulate --evaluate-every often", 2, "wants a span"},
    {NULL, "simulate --workers 9 --workers-max 8", 2, "more than the capacity"},
    {NULL, "simulate --elastic 2", 2, "must be at most 1"},
    {NULL, "simulate --address shm:x", 2, "no option '--address"},
    {NULL, "simulate extra", 2, "'extra' is not an option"},
    {NULL, "simulate --data nothing", 2, "synthetic"},
    {NULL, "simulate --data mnist --data-dir /nowhere", 1, "simulate --data synthetic"},
    {NULL, "simulate --data synthetic --model resnet", 2, "mlp:WIDTH"},
    {NULL, "simulate --data synthetic --out /dev/null", 1, "/dev/null"},
    {NULL, "simulate --data synthetic --out /proc/nowhere", 1, "/proc/nowhere"},
    {NULL, "simulate --model quadratic:0", 2, "quadratic:0"},
    {NULL, "simulate --model quadratic:3:x", 2, "quadratic:3:x"},
    {NULL, "train --model quadratic", 2, "only gapless simulate has"},
    {NULL, "master --model valley:3", 2, "only gapless simulate has"},
    {NULL, "simulate --replay /nowhere/record", 1, "/nowhere/record"},
};

static void test_mistakes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++)
        run_whole(mistakes[i].environment, mistakes[i].line, mistakes[i].code,
                  mistakes[i].text);
    run_whole(NULL, "simulate --help", 0, "usage: gapless simulate");
}

static void stop_by(int number)
{
    char line[300];
    struct run run;
    json_t *result;

    (void)snprintf(line, sizeof line,
                   "simulate --data synthetic --epochs 100000 --out %s/a", run_dir);
    run = run_start(NULL, 0, line);
    run_expect(&run, "virtual time", 60.0); /* the first line of progress */
    assert_int_equal(kill(run.pid, number), 0);
    assert_int_equal(run_wait(&run, 60.0), 128 + number);
    run_expect(&run, "stopped after", 1.0);
    run_expect(&run, "test accuracy", 1.0);
    run_close(&run);
    result = result_of("a");
    assert_true(json_is_true(json_object_get(result, "stopped")));
    assert_true(run_number(result, "gradients") > 0.0);
    assert_true(run_number(result, "final_accuracy") > 0.2);
    json_decref(result);
    (void)check_lines("a");
    assert_true(exists("a/model.safetensors"));
}

static void test_stop(void **state)
{
    (void)state;
    stop_by(SIGINT);
    stop_by(SIGTERM);
}

/* A file that cannot grow: the run goes on, says so, and leaves no half of a result. */
static void test_full(void **state)
{
    char line[300];
    struct run run;

    (void)state;
    (void)snprintf(line, sizeof line, "simulate --model valley --out %s/a", run_dir);
    run = run_start(NULL, 6000, line); /* a dozen lines, and no whole result */
    assert_int_equal(run_wait(&run, 60.0), 1);
    run_expect(&run, "metrics.jsonl", 1.0);
    run_close(&run);
    assert_false(exists("a/result.json"));
}

/* All workers gone: nothing more can happen. */
static void test_nobody_left(void **state)
{
    json_t *result;

    (void)state;
    simulate(NULL, RUN " --workers 2 --events 0.5s\tkill\t0;0.6s\tkill\t1", "a", 1,
             "gapless simulate:");
    result = result_of("a");
    assert_true(json_is_string(json_object_get(result, "failure")));
    assert_true(run_number(result, "gradients") > 0.0);
    json_decref(result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_same_bytes, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_same_bytes_everywhere, run_set_up,
                                        run_tear_down),
        cmocka_unit_test_setup_teardown(test_mean_gate, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_gates_tell_of_kappa, run_set_up,
                                        run_tear_down),
        cmocka_unit_test_setup_teardown(test_files, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_warmup, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_set_aside, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_measured_only_at_the_end, run_set_up,
                                        run_tear_down),
        cmocka_unit_test_setup_teardown(test_function, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_events, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_clock_file, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_inherited_data, run_set_up, run_tear_down),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test_setup_teardown(test_stop, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_full, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_left, run_set_up, run_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
