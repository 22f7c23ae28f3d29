/* gapless plan from the command line; and its arithmetic against the simulator, which
 * runs the real master under a computed clock. */
#include "cluster/plan/plan.h"
#include "tests/cluster/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *output_of(const char *line)
{
    struct run run = run_start(NULL, 0, line);
    char *ret;

    assert_int_equal(run_wait(&run, 60.0), 0);
    ret = run_output(&run);
    run_close(&run);
    return ret;
}

/* Bytes of a line in UTF-8 are columns here: the plan has no others. */
static void fits(const char *text, size_t columns)
{
    while (*text != '\0') {
        size_t line = strcspn(text, "\n");

        if (line > columns)
            fail_msg("%zu columns: %.*s", line, (int)line, text);
        text += line;
        text += *text == '\n';
    }
}

static void test_shown(void **state)
{
    static const char *const lines[] = {
        "plan",
        "plan --parameters 25.6M --workers 64 --link 400Gb --batch-time 120ms",
        "plan --parameters 1B --rule all --gpu a100 --workers 4096",
        "plan --parameters 68,719,476,736 --workers 4096 --link 1MB/s --batch-time 1us",
        "plan --parameters 1 --workers 1 --link 10000GB --gpu none --batch-time 1000s",
        "plan --model mlp:64 --link shm --rule easgd",
        "plan --parameters 11.2M --gpu 1000 --cpu-bandwidth 200 --shards 3",
        "plan --help",
    };

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char *text = output_of(lines[i]);

        fits(text, 100);
        if (strstr(lines[i], "--help") == NULL) {
            assert_non_null(strstr(text, "was not measured on anything"));
            assert_null(strstr(text, "nan"));
            assert_null(strstr(text, "inf"));
        }
        if (i < 3 || i == 6) /* plans for a GPU */
            assert_non_null(strstr(text, "No GPU has been measured"));
        free(text);
    }
    run_whole(NULL, "help plan", 0, "--batch-time");
    run_whole(NULL, "plan --parameters 25.6M --link shm --workers 8", 0,
              "bench/results/rules.json, 2026-11-22");
}

static json_t *json_of(const char *line)
{
    char *text = output_of(line);
    json_error_t error;
    json_t *ret = json_loads(text, 0, &error);

    if (ret == NULL)
        fail_msg("%s in '%s'", error.text, text);
    free(text);
    return ret;
}

/* All but those whose workers move by themselves. */
static unsigned rules_planned(void)
{
    struct gapless_rule rule;
    unsigned ret = 0;

    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        ret += rule.elastic ? 0 : 1;
    return ret;
}

static void test_json(void **state)
{
    json_t *root = json_of("plan --parameters 25.6M --workers 64 --json");
    const json_t *cases = json_object_get(root, "cases"), *gpu, *cpu, *term;
    const char *key;

    (void)state;
    assert_int_equal(json_array_size(cases), 2);
    gpu = json_array_get(cases, 0);
    cpu = json_array_get(cases, 1);
    assert_true(run_number(gpu, "wire_s") == run_number(cpu, "wire_s"));
    assert_true(fabs(run_number(gpu, "wire_s") - 102.4e6 / 47.5e9) < 1e-9);
    assert_true(run_number(gpu, "updates_per_s") > run_number(cpu, "updates_per_s"));
    json_object_foreach(json_object_get((json_t *)(uintptr_t)gpu, "terms"), key, term)
    {
        assert_string_equal(json_string_value(json_object_get(term, "source")),
                            "assumed");
        assert_non_null(json_string_value(json_object_get(term, "where")));
    }
    term = json_object_get(json_object_get(cpu, "terms"), "pass_s_per_parameter");
    assert_string_equal(json_string_value(json_object_get(term, "source")), "measured");
    json_decref(root);

    root = json_of("plan --json");
    assert_int_equal(json_array_size(json_object_get(root, "cases")), 5 * 3 * 2);
    json_decref(root);
    root = json_of("plan --json --rule all --parameters 1M --gpu none");
    assert_int_equal(json_array_size(json_object_get(root, "cases")), rules_planned());
    json_decref(root);
}

static void test_wrong(void **state)
{
    static const struct {
        const char *line, *text;
    } wrong[] = {
        {"--parameters 0", "must be 1 to"},
        {"--parameters 25.6", "whole number"},
        {"--parameters 1M --model mlp:64", "not both"},
        {"--model mlp:x", "--model"},
        {"--model mlp:64 --data nothing", "give --parameters"},
        {"--workers 0", "at least 1"},
        {"--link 400", "unit"},
        {"--link measured", "gpu-acceptance.json"},
        {"--batch-time 120x", "knows the units us, ms, s and m"},
        {"--rule dana-gaa", "did you mean 'dana-ga'"},
        {"--rule ssgd", "waits for all"},
        {"--rule all", "needs --parameters"},
        {"--gpu h1000", "did you mean 'h100'"},
        {"--link shm --gpu h100", "--gpu none"},
        {"--gpu-memory 80", "80GB"},
        {"--cpu-bandwidth x", "finite number"},
        {"--shards 5000", "at most 4096"},
        {"--range-elements 0", "at least 1"},
        {"--measured /nonexistent", "cannot read the figures /nonexistent"},
        {"--nonsense", "--help"},
        {"more", "is not an option"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char line[128];

        (void)snprintf(line, sizeof line, "plan %s", wrong[i].line);
        run_whole(NULL, line, 2, wrong[i].text);
    }
}

/* Updates a second of the simulator, over the second half of what it tells: all. */
static double simulated(const char *folder, uint32_t workers, double gbit, double pass)
{
    char line[400];
    json_t *root;
    double ret;

    (void)snprintf(line, sizeof line,
                   "simulate --model quadratic:4096 --workers %u --epochs 3 "
                   "--batch-time 0.01 --bandwidth %g --pass-time %g --latency 0.0001 "
                   "--warmup 0 --evaluate-every 0 --quiet --out %s/run",
                   workers, gbit, pass, folder);
    free(output_of(line));
    (void)snprintf(line, sizeof line, "%s/run", folder);
    root = run_json(line, "result.json");
    ret = run_number(root, "updates_per_second");
    json_decref(root);
    return ret;
}

/* The bound is never passed, and is met within a few per cent away from the knee. The
 * simulator starts with all workers at once, and ends when the last gradient is in. */
static void test_simulator_agrees(void **state)
{
    static const struct {
        double gbit, pass, least;
        uint32_t workers;
        enum plan_bound bound;
    } rows[] = {
        {0.2, 0.0005, 0.94, 3, PLAN_BY_WORKERS},
        {0.2, 0.0005, 0.97, 30, PLAN_BY_WIRE},
        {0.2, 0.002, 0.97, 30, PLAN_BY_PASS},
        {0.2, 0.0005, 0.85, 18, PLAN_BY_WORKERS}, /* the knee is at 18.3 */
        {2.0, 0.0005, 0.97, 60, PLAN_BY_PASS},
    };
    char folder[32];

    (void)state;
    run_folder(folder, sizeof folder);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct plan_input in = {.parameters = 4096,
                                .workers = rows[i].workers,
                                .batch_s = 0.01,
                                .period = 1,
                                .range_elements = 4096};
        const struct plan_speeds speeds = {.wire = rows[i].gbit * 1e9 / 8,
                                           .latency_s = 1e-4,
                                           .pass_s = rows[i].pass / 4096};
        struct plan_result r;
        double rate = simulated(folder, rows[i].workers, rows[i].gbit, rows[i].pass);

        assert_int_equal(gapless_rule_find("dana-ga", &in.rule, NULL), GAPLESS_OK);
        plan_compute(&in, &speeds, &r);
        assert_int_equal(r.bound, rows[i].bound);
        if (rate > 1.02 * r.rate || rate < rows[i].least * r.rate)
            fail_msg("%u workers: %.1f planned, %.1f simulated", rows[i].workers,
                     r.rate, rate);
    }
    run_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shown),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_simulator_agrees),
    };

    (void)run_program();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
