/* The parts of the report: escaping, comparing, CSV, points out of runs, the page with
 * and without Chart.js, and what it says where there is nothing to report. */
#include "cluster/report/charts.h"
#include "cluster/report/page.h"
#include "cluster/report/tables.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- texts --------------------------------------------------------------- */

static void check_text(const char *text, const char *expected, const char *utf8)
{
    struct arena arena = {0};
    char *bytes = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&bytes, &size);

    assert_non_null(out);
    html_text(out, text);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(bytes, expected);
    assert_string_equal(text_utf8(&arena, text), utf8);
    assert_false(arena.failed);
    arena_free(&arena);
    free(bytes);
}

static void test_escaping(void **state)
{
    (void)state;
    check_text("", "", "");
    check_text("a<b>&\"'", "a&lt;b&gt;&amp;&quot;&#39;", "a<b>&\"'");
    check_text("\x01\x7f", "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd");
    check_text("\xc2\x85", "\xef\xbf\xbd", "\xef\xbf\xbd");
    check_text("x\ny\tz", "x\ny\tz", "x\ny\tz");
    check_text("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80",
               "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80",
               "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    check_text("\xc3", "\xef\xbf\xbd", "\xef\xbf\xbd"); /* cut off */
    check_text("\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd");
    check_text("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
               "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* half a character */
    check_text("\xff", "\xef\xbf\xbd", "\xef\xbf\xbd");
}

static void test_compare(void **state)
{
    (void)state;
    assert_true(text_compare("8", "16") < 0);
    assert_true(text_compare("0.01", "1e-3") > 0);
    assert_true(text_compare("run-9", "run-10") < 0);
    assert_true(text_compare("a", "b") < 0);
    assert_true(text_compare("a", "a1") < 0);
    assert_int_equal(text_compare("x-1", "x-1"), 0);
    assert_true(isnan(text_number("")) && isnan(text_number("nan")) &&
                isnan(text_number("inf")) && isnan(text_number("1x")) &&
                isnan(text_number("1e999")) && isnan(text_number(" 1")));
    assert_true(fabs(text_number("-1.5e3") + 1500) < 1e-9);
}

static void test_csv(void **state)
{
    struct arena arena = {0};
    const char *at = "a,\"b,\"\"c\"\"\n\",\r\n\n,\n\"open", **field;
    char *bytes = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&bytes, &size);

    (void)state;
    assert_int_equal(csv_row(&arena, &at, &field), 3);
    assert_string_equal(field[0], "a");
    assert_string_equal(field[1], "b,\"c\"\n");
    assert_string_equal(field[2], "");
    assert_int_equal(csv_row(&arena, &at, &field), 2);
    assert_string_equal(field[0], "");
    assert_int_equal(csv_row(&arena, &at, &field), 1);
    assert_string_equal(field[0], "open");
    assert_int_equal(csv_row(&arena, &at, &field), 0);
    arena_free(&arena);

    csv_text(out, "a,\"b\"\n");
    csv_text(out, NULL);
    for (size_t i = 0; i < 4; i++) {
        (void)fputc(' ', out);
        csv_number(out, (const double[]){12345678901.0, 0.1, (double)NAN, 1e-20}[i]);
    }
    assert_int_equal(fclose(out), 0);
    assert_string_equal(bytes, "\"a,\"\"b\"\"\n\" 12345678901 0.1  1e-20");
    free(bytes);
}

static void test_arena(void **state)
{
    struct arena arena = {0};
    uint64_t *numbers = NULL;

    (void)state;
    for (uint64_t i = 0; i < 5000; i++) {
        numbers = arena_grow(&arena, numbers, i, sizeof *numbers);
        assert_non_null(numbers);
        assert_true(numbers[i] == 0);
        numbers[i] = i;
    }
    for (uint64_t i = 0; i < 5000; i++)
        assert_true(numbers[i] == i);
    assert_string_equal(arena_format(&arena, "%d-%s", 7, "x"), "7-x");
    assert_false(arena.failed);
    assert_null(arena_take(&arena, SIZE_MAX / 2));
    assert_true(arena.failed);
    assert_string_equal(arena_copy(&arena, "still"), "still");
    arena_free(&arena);
}

/* ---- points -------------------------------------------------------------- */

struct expected {
    double value[4];
    size_t count;
    const char *seed[4];
    enum run_status status[4];
    const char *state, *text;
    int n, seeds, out;
    bool percent;
};

static void check_point(const struct expected *expected)
{
    struct arena arena = {0};
    struct samples samples = {.arena = &arena, .better = 1};
    struct sample sample[4];
    json_t *point;

    for (size_t i = 0; i < expected->count; i++)
        sample[i] = (struct sample){.choice = "",
                                    .seed = expected->seed[i],
                                    .value = expected->value[i],
                                    .percent = expected->percent,
                                    .status = expected->status[i]};
    point = samples_point(&samples, sample, expected->count, 0.9);
    assert_non_null(point);
    assert_string_equal(json_string_value(json_object_get(point, "text")),
                        expected->text);
    assert_string_equal(json_string_value(json_object_get(point, "state")),
                        expected->state);
    assert_int_equal(json_integer_value(json_object_get(point, "n")), expected->n);
    assert_int_equal(json_integer_value(json_object_get(point, "seeds")),
                     expected->seeds);
    assert_int_equal(json_integer_value(json_object_get(point, "out")), expected->out);
    assert_int_equal(json_is_number(json_object_get(point, "y")),
                     strcmp(expected->state, "mean") == 0);
    json_decref(point);
    arena_free(&arena);
}

#define NONE ((double)NAN)
#define DONE3                                                                          \
    {                                                                                  \
        RUN_DONE, RUN_DONE, RUN_DONE                                                   \
    }
#define SEEDS3                                                                         \
    {                                                                                  \
        "1", "2", "3"                                                                  \
    }

#define SEED7                                                                          \
    {                                                                                  \
        "7", "7", "8"                                                                  \
    }
#define REPEATS "3 (2 to 4), 3 repeats of 2 seeds"
#define DIVERGES                                                                       \
    {                                                                                  \
        RUN_DONE, RUN_DIVERGED                                                         \
    }
#define STOPS                                                                          \
    {                                                                                  \
        RUN_STOPPED, RUN_STOPPED                                                       \
    }
#define BOTH                                                                           \
    {                                                                                  \
        RUN_STOPPED, RUN_DIVERGED                                                      \
    }

static const struct expected all[] = {
    {{0.5}, 1, SEEDS3, DONE3, "mean", "0.5", 1, 1, 0, false},
    {{2, 4}, 2, SEEDS3, DONE3, "mean", "3 (2 to 4)", 2, 2, 0, false},
    {{0.86, 0.88}, 2, SEEDS3, DONE3, "mean", "87.00 % (86.00 to 88.00)", 2, 2, 0, true},
    /* some seeds collapse, all do: a range, without digits behind the point */
    {{0.1, 0.88, 0.87}, 3, SEEDS3, DONE3, "range", "10 to 88 %", 3, 3, 0, true},
    {{0.1, 0.105, 0.112}, 3, SEEDS3, DONE3, "range", "10 to 11 %", 3, 3, 0, true},
    {{0.1, 0.101}, 2, SEEDS3, DONE3, "range", "10 %", 2, 2, 0, true},
    {{1, 50}, 2, SEEDS3, DONE3, "range", "1 to 50", 2, 2, 0, false},
    /* the mean of those that got there would flatter */
    {{3, NONE, 5}, 3, SEEDS3, DONE3, "range", "3 to 5, 2 of 3", 2, 2, 0, false},
    {{3, NONE}, 2, SEEDS3, DONE3, "mean", "3, 1 of 2", 1, 1, 0, false},
    {{NONE, NONE}, 2, SEEDS3, DONE3, "never", "never", 0, 0, 0, false},
    /* repeats are not seeds */
    {{2, 4},
     2,
     SEED7,
     DONE3,
     "mean",
     "3 (2 to 4), 2 repeats of 1 seed",
     2,
     1,
     0,
     false},
    {{2, 4, 3}, 3, SEED7, DONE3, "mean", REPEATS, 3, 2, 0, false},
    /* what diverged or was stopped is in no mean */
    {{0.8, 0.1},
     2,
     SEEDS3,
     DIVERGES,
     "mean",
     "80.00 %, 1 of 2 diverged",
     1,
     1,
     1,
     true},
    {{0.2, 0.1}, 2, SEEDS3, STOPS, "stopped", "stopped: 10 to 20 %", 0, 0, 2, true},
    {{NONE}, 1, SEEDS3, {RUN_DIVERGED}, "diverged", "diverged", 0, 0, 1, true},
    {{1, 2}, 2, SEEDS3, BOTH, "left out", "left out: 1 to 2", 0, 0, 2, false},
};

static void test_points(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        check_point(&all[i]);
}

/* Lines in the order they were first seen, points by x, the best of several choices. */
static void test_panels(void **state)
{
    static const struct {
        const char *line, *choice;
        double x, value;
    } rows[] = {{"low", "0.1", 8, 0.5},      {"low", "0.1", 8, 0.54},
                {"low", "0.2", 8, 0.51},     {"high", "", 8, 0.9},
                {"high", "", 1, 0.8},        {"low", "0.1", 2, 0.6},
                {"high", "", (double)NAN, 1}};
    static const struct axis axis = {"x", "linear", false, 0};
    struct arena arena = {0};
    struct samples samples = {.arena = &arena, .better = 1, .named = "lr"};
    json_t *chart = json_pack("{s:[]}", "panels"), *lines, *points;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        samples_add(&samples, "p", rows[i].line,
                    &(struct sample){.choice = rows[i].choice,
                                     .seed = "1",
                                     .x = rows[i].x,
                                     .value = rows[i].value,
                                     .status = RUN_DONE});
    samples_panels(&samples, chart, axis, axis);
    assert_true(samples.chosen);
    lines =
        json_object_get(json_array_get(json_object_get(chart, "panels"), 0), "lines");
    assert_int_equal(json_array_size(lines), 2);
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(lines, 0), "name")), "low");
    points = json_object_get(json_array_get(lines, 0), "points");
    assert_int_equal(json_array_size(points), 2);
    assert_true(
        fabs(json_number_value(json_object_get(json_array_get(points, 1), "y")) -
             0.52) < 1e-12);
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(points, 1), "note")),
        "lr 0.1");
    points = json_object_get(json_array_get(lines, 1), "points");
    assert_int_equal(json_array_size(points), 2);
    assert_true(json_number_value(json_object_get(json_array_get(points, 0), "x")) < 2);
    json_decref(chart);
    arena_free(&arena);
}

/* ---- the page ------------------------------------------------------------ */

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "we");
    assert_non_null(file);
    (void)fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static char *page_of(struct report *report, const struct page_assets *assets)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    page_write(out, report, "a </script> title", assets);
    assert_int_equal(fclose(out), 0);
    assert_false(report->arena.failed);
    return text;
}

static size_t count(const char *text, const char *part)
{
    size_t ret = 0;

    for (; (text = strstr(text, part)) != NULL; text++)
        ret++;
    return ret;
}

static void test_page(void **state)
{
    char folder[] = "/tmp/gapless-unit-report.XXXXXX", path[256];
    const char *dirs[1] = {folder};
    struct page_assets assets = page_assets;
    struct report report = {.target = 0.5};
    struct gapless_error error = {0};
    char *page;

    (void)state;
    assert_non_null(mkdtemp(folder));
    write_file(folder, "result.json",
               "{\"rule\": \"</script><b>\", \"workers\": 2, \"seed\": 1, "
               "\"final_accuracy\": 0.75, \"final_loss\": 0.5}");
    write_file(folder, "metrics.jsonl",
               "{\"elapsed\": 1.5, \"loss\": 2.25, \"accuracy\": 0.625}\n"
               "{\"elapsed\": 3.5, \"loss\": 1.25, \"accuracy\": 0.75}\n");
    assert_int_equal(report_load(&report, dirs, 1, &error), GAPLESS_OK);
    assert_int_equal(report_runs(&report), 1);

    assets.chart_js = "/*! the library's licence */";
    page = page_of(&report, &assets);
    assert_non_null(strstr(page, "/*! the library's licence */"));
    assert_non_null(strstr(page, "class=\"plots\""));
    assert_null(strstr(page, "id=\"no-charts\""));
    assert_non_null(strstr(page, "<td>75.00 %</td>"));
    assert_non_null(strstr(page, "<td>2.25</td>"));
    assert_non_null(strstr(page, "\"seconds\":[1.5,3.5]"));
    assert_int_equal(count(page, "</script>"), 3);
    assert_null(strstr(page, "<b>"));
    assert_null(strstr(page, "{{"));
    free(page);

    assets.chart_js = NULL; /* as built without libjs-chart.js */
    page = page_of(&report, &assets);
    assert_non_null(strstr(page, "id=\"no-charts\""));
    assert_non_null(strstr(page, "apt-get install libjs-chart.js"));
    assert_null(strstr(page, "class=\"plots\""));
    assert_null(strstr(page, "new Chart"));
    assert_non_null(strstr(page, "<td>75.00 %</td>"));
    assert_non_null(strstr(page, "<td>2.25</td>"));
    free(page);
    report_free(&report);

    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder,
                       i == 0 ? "result.json" : "metrics.jsonl");
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(folder), 0);
}

/* A long run: of its lines most are left out, and of what was measured seldom nothing that
 * has a place of its own. */
static void test_seldom_measured(void **state)
{
    char folder[] = "/tmp/gapless-unit-report.XXXXXX", path[PATH_MAX];
    const char *dirs[] = {folder};
    struct report report = {.target = 0.5};
    struct gapless_error error = {0};
    const struct run *run;
    size_t measured = 0;
    double last = 0.0;
    json_t *charts = json_array(), *runs = json_array();
    const json_t *column, *value;
    size_t i;
    FILE *file;

    (void)state;
    assert_non_null(mkdtemp(folder));
    write_file(folder, "result.json", "{\"rule\": \"asgd\", \"final_accuracy\": 0.9}");
    (void)snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    file = fopen(path, "w");
    assert_non_null(file);
    for (i = 1; i <= 20001; i++)
        if (i % 499 == 3)
            (void)fprintf(file, "{\"elapsed\": %zu, \"accuracy\": %.6f}\n", i,
                          2e-5 * (double)i);
        else
            (void)fprintf(file, "{\"elapsed\": %zu, \"accuracy\": null}\n", i);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(report_load(&report, dirs, 1, &error), GAPLESS_OK);
    run = &report.set[0].run[0];
    assert_true(run->moments > 100 && run->moments < 20001);
    for (i = 0; i < run->moments; i++)
        if (isfinite(run->moment[i].of[TEST_ACCURACY])) {
            assert_true(run->moment[i].of[TEST_ACCURACY] > last); /* once each */
            last = run->moment[i].of[TEST_ACCURACY];
            measured++;
        }
    assert_int_equal(measured, 41);
    charts_make(&report, &report.set[0], charts, runs); /* which has room for fewer */
    column = json_object_get(json_object_get(json_array_get(runs, 0), "columns"),
                             "accuracy");
    assert_true(json_array_size(column) < run->moments);
    json_array_foreach(column, i, value) measured -= json_is_number(value) ? 1 : 0;
    assert_int_equal(measured, 0);
    json_decref(charts);
    json_decref(runs);
    report_free(&report);
    assert_int_equal(unlink(path), 0);
    (void)snprintf(path, sizeof path, "%s/result.json", folder);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void test_nothing_to_report(void **state)
{
    char folder[] = "/tmp/gapless-unit-report.XXXXXX";
    const char *dirs[1];
    struct report report = {.target = 0};
    struct gapless_error error = {0};

    (void)state;
    assert_non_null(mkdtemp(folder));
    dirs[0] = folder;
    assert_int_equal(report_load(&report, dirs, 1, &error), GAPLESS_MISSING);
    assert_non_null(strstr(error.text, folder));
    report_free(&report);
    assert_int_equal(report_load(&report, dirs, 0, &error), GAPLESS_INVALID);
    report_free(&report);
    dirs[0] = "";
    assert_int_equal(report_load(&report, dirs, 1, NULL), GAPLESS_MISSING);
    report_free(&report);
    assert_int_equal(rmdir(folder), 0); /* nothing was written into it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escaping),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_points),
        cmocka_unit_test(test_panels),
        cmocka_unit_test(test_page),
        cmocka_unit_test(test_nothing_to_report),
        cmocka_unit_test(test_seldom_measured),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
