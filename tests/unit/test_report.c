/* The parts of the report: escaping, ticks, comparing, CSV, and what report_write says
 * where there is nothing to report. ctest: timeout=60 */
#include "cluster/report/report.h"
#include "cluster/report/report_chart.h"
#include "cluster/report/report_data.h"
#include "cluster/report/svg.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void check_text(const char *text, size_t letters, const char *expected)
{
    struct html html = {0};

    html_text_cut(&html, text, letters);
    assert_false(html.failed);
    assert_string_equal(html.bytes != NULL ? html.bytes : "", expected);
    html_free(&html);
}

static void test_escaping(void **state)
{
    (void)state;
    check_text("", 99, "");
    check_text("a<b>&\"'", 99, "a&lt;b&gt;&amp;&quot;&#39;");
    check_text("\x01\x7f", 99, "\xef\xbf\xbd\xef\xbf\xbd");
    check_text("x\ny\tz", 99, "x\ny\tz");
    check_text("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 99,
               "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    check_text("\xc3", 99, "\xef\xbf\xbd");                 /* cut off */
    check_text("\xc0\x80", 99, "\xef\xbf\xbd\xef\xbf\xbd"); /* overlong */
    check_text("\xed\xa0\x80", 99, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* half */
    check_text("\xff", 99, "\xef\xbf\xbd");
    check_text("abcdef", 6, "abcdef");
    check_text("abcdefg", 6, "abcde\xe2\x80\xa6");
    check_text("<<<<", 3, "&lt;&lt;\xe2\x80\xa6");
    assert_int_equal(html_letters("\xc3\xa9<\xff"), 3);
}

static void test_growing(void **state)
{
    struct html html = {0};

    (void)state;
    for (int i = 0; i < 3000; i++)
        html_format(&html, "%04d;", i);
    assert_false(html.failed);
    assert_int_equal(html.used, 15000);
    assert_memory_equal(html.bytes + 5 * 1234, "1234;", 5);
    assert_int_equal(html.bytes[html.used], 0);
    html_free(&html);
    assert_null(html.bytes);
}

static void check_ticks(enum svg_scale scale, double low, double high, size_t wanted)
{
    struct svg_range range = {scale, low, high, 10, 110};
    double tick[SVG_TICKS_MAX];
    size_t count = svg_ticks(&range, wanted, tick);

    if (count < 1 || count > SVG_TICKS_MAX)
        fail_msg("%g to %g: %zu ticks", low, high, count);
    for (size_t i = 0; i < count; i++) {
        double at = svg_at(&range, tick[i]);

        if (!(at > 9.9 && at < 110.1) || (i > 0 && !(tick[i] > tick[i - 1])))
            fail_msg("%g to %g: tick %g at %g", low, high, tick[i], at);
    }
}

static void test_ticks(void **state)
{
    (void)state;
    for (int i = 0; i < 28; i++)
        for (int k = 0; k < 15; k++) {
            double low = 1e-12 * pow(7.3, i), factor = 1.3 * pow(4.1, k);

            check_ticks(SVG_LINEAR, low, low * factor, 5);
            check_ticks(SVG_LOG2, low, low * factor, 8);
            check_ticks(SVG_LOG10, low, low * factor, 6);
        }
    check_ticks(SVG_LINEAR, -3, 5, 5);
    check_ticks(SVG_LINEAR, -1e-9, 0, 5);
}

static void test_ranges(void **state)
{
    double low = (double)NAN, high = (double)NAN;
    struct svg_range range = {SVG_LOG10, 1, 100, 0, 200};

    (void)state;
    svg_include(SVG_LOG10, -1, &low, &high); /* no place for it */
    svg_include(SVG_LOG10, (double)NAN, &low, &high);
    svg_include(SVG_LINEAR, (double)INFINITY, &low, &high);
    assert_false(isfinite(low) || isfinite(high));
    svg_settle(SVG_LINEAR, &low, &high);
    assert_true(low < high);
    low = high = 5;
    svg_settle(SVG_LINEAR, &low, &high);
    assert_true(low < 5 && high > 5);
    low = high = 5;
    svg_settle(SVG_LOG2, &low, &high);
    assert_true(low > 0 && low < 5 && high > 5);
    assert_true(fabs(svg_at(&range, 10) - 100) < 1e-9);
    assert_true(isnan(svg_at(&range, 0)));
}

static void check_tick_text(double value, bool percent, const char *expected)
{
    char text[48];

    svg_tick_text(value, percent, text, sizeof text);
    assert_string_equal(text, expected);
}

static void test_tick_texts(void **state)
{
    (void)state;
    check_tick_text(0, false, "0");
    check_tick_text(0.85, true, "85 %");
    check_tick_text(0.002, false, "0.002");
    check_tick_text(3e-7, false, "3·10⁻⁷");
    check_tick_text(1e-12, false, "10⁻¹²");
    check_tick_text(20000, false, "20000");
    check_tick_text(500000, false, "500k");
    check_tick_text(2e6, false, "2M");
    check_tick_text(-1, false, "-1");
}

static void test_compare(void **state)
{
    (void)state;
    assert_true(report_compare("8", "16") < 0);
    assert_true(report_compare("0.01", "1e-3") > 0);
    assert_true(report_compare("run-9", "run-10") < 0);
    assert_true(report_compare("a", "b") < 0);
    assert_true(report_compare("a", "a1") < 0);
    assert_int_equal(report_compare("x-1", "x-1"), 0);
    assert_true(isnan(report_parse("")) && isnan(report_parse("nan")) &&
                isnan(report_parse("inf")) && isnan(report_parse("1x")) &&
                isnan(report_parse("1e999")) && isnan(report_parse(" 1")));
    assert_true(fabs(report_parse("-1.5e3") + 1500) < 1e-9);
}

static void test_csv_rows(void **state)
{
    struct report_arena arena = {0};
    const char *at = "a,\"b,\"\"c\"\"\n\",\r\n\n,\n\"open", **field;

    (void)state;
    assert_int_equal(report_csv_row(&arena, &at, &field), 3);
    assert_string_equal(field[0], "a");
    assert_string_equal(field[1], "b,\"c\"\n");
    assert_string_equal(field[2], "");
    assert_int_equal(report_csv_row(&arena, &at, &field), 2);
    assert_string_equal(field[0], "");
    assert_int_equal(report_csv_row(&arena, &at, &field), 1);
    assert_string_equal(field[0], "open");
    assert_int_equal(report_csv_row(&arena, &at, &field), 0);
    arena_free(&arena);
}

static void test_arena(void **state)
{
    struct report_arena arena = {0};
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

/* Means over seeds, the best of several choices, lines sorted by their ends. */
static void test_samples(void **state)
{
    static const struct svg_axis axis = {"x", SVG_LINEAR, false, 0, 0};
    struct report_arena arena = {0};
    struct samples samples = {.arena = &arena, .better = 1, .named = "lr"};
    struct chart chart = {.kind = CHART_LINES};
    const struct chart_line *line;

    (void)state;
    samples_add(&samples, "p", "low", "0.1", 8, 0.5);
    samples_add(&samples, "p", "low", "0.1", 8, 0.7);
    samples_add(&samples, "p", "low", "0.2", 8, 0.55);
    samples_add(&samples, "p", "high", NULL, 8, 0.9);
    samples_add(&samples, "p", "high", NULL, 1, (double)NAN);
    samples_add(&samples, "p", "high", NULL, (double)NAN, 1);
    samples_panels(&samples, &chart, axis, axis);
    assert_int_equal(chart.panels, 1);
    assert_int_equal(chart.panel[0].lines, 2);
    line = &chart.panel[0].line[0];
    assert_string_equal(line->name, "high");
    assert_int_equal(line->points, 2);
    assert_true(isnan(line->point[0].y));
    line = &chart.panel[0].line[1];
    assert_true(fabs(line->point[0].y - 0.6) < 1e-12);
    assert_true(fabs(line->point[0].low - 0.5) < 1e-12);
    assert_true(fabs(line->point[0].high - 0.7) < 1e-12);
    assert_int_equal(line->point[0].count, 2);
    assert_string_equal(line->point[0].note, "lr 0.1");
    assert_true(samples.chosen);
    arena_free(&arena);
}

static void test_nothing_to_report(void **state)
{
    char folder[] = "/tmp/gapless-unit-report.XXXXXX";
    const char *dirs[1];
    struct gapless_error error = {0};

    (void)state;
    assert_non_null(mkdtemp(folder));
    dirs[0] = folder;
    assert_int_equal(report_write(dirs, 1, NULL, NULL, 0, &error), GAPLESS_MISSING);
    assert_non_null(strstr(error.text, folder));
    assert_int_equal(report_write(dirs, 0, NULL, NULL, 0, &error), GAPLESS_INVALID);
    dirs[0] = "";
    assert_int_equal(report_write(dirs, 1, NULL, NULL, 0, NULL), GAPLESS_MISSING);
    assert_int_equal(rmdir(folder), 0); /* nothing was written into it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escaping),   cmocka_unit_test(test_growing),
        cmocka_unit_test(test_ticks),      cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_tick_texts), cmocka_unit_test(test_compare),
        cmocka_unit_test(test_csv_rows),   cmocka_unit_test(test_arena),
        cmocka_unit_test(test_samples),    cmocka_unit_test(test_nothing_to_report),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
