/* What a simulation is told: lists of events, files of batch times, the points of a
 * run; and that its line of progress fits. */
#include "cluster/simulate/simulate.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- events -------------------------------------------------------------- */

static const struct {
    const char *text, *said;
} wrong_events[] = {
    {"", "no event"},
    {" ; ;\n;", "no event"},
    {"40s", "event 1, '40s', does not say what happens"},
    {"40x kill 3", "units us, ms, s and m"},
    {"-1s kill 3", "must be at least 0 s"},
    {"nan kill 3", "wants a time"},
    {"1e300 kill 3", "must be at most 1e+09 s"},
    {"kill 3", "wants a time"},
    {"1s join; 40s kil 3", "event 2, '40s kil 3', has no 'kill'"},
    {"40s kil 3", "did you mean 'kill'?"},
    {"40s kill", "which worker"},
    {"40s leave", "which worker"},
    {"40s kill three", "must be a whole number"},
    {"40s kill -3", "must be a whole number"},
    {"40s kill 4096", "must be at most 4095"},
    {"40s kill 8", "no worker 8: 8 start, with numbers 0 to 7"},
    {"40s join 2; 50s kill 10", "no worker 10: 8 start and others join, with numbers "
                                "0 to 9"},
    {"40s kill 3 4", "too much in it: '4'"},
    {"40s kill 3, 50s kill 4", "too much in it"},
    {"40s stall 3", "for how long"},
    {"40s stall 3 10s", "for how long"},
    {"40s stall 3 for", "for how long"},
    {"40s stall 3 for ever", "wants a time"},
    {"40s stall 3 for 10s more", "too much in it: 'more'"},
    {"40s join 0", "must be at least 1"},
    {"40s join 4097", "must be at most 4096"},
};

static void test_wrong_events(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrong_events / sizeof wrong_events[0]; i++) {
        struct gapless_incident *got = (void *)&got;
        struct gapless_error error = {0};
        size_t count = 77;
        uint32_t joins = 77;

        assert_int_equal(
            simulate_events(wrong_events[i].text, 8, &got, &count, &joins, &error),
            GAPLESS_INVALID);
        if (strstr(error.text, wrong_events[i].said) == NULL)
            fail_msg("'%s' is said of '%s'", error.text, wrong_events[i].text);
        assert_true(strstr(error.text, "--events") != NULL);
        assert_true(got == (void *)&got && count == 77 && joins == 77);
    }
}

static void test_long_event(void **state)
{
    char text[600];
    struct gapless_incident *got;
    struct gapless_error error = {0};
    size_t count;
    uint32_t joins;

    (void)state;
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_int_equal(simulate_events(text, 8, &got, &count, &joins, &error),
                     GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "is too long"));
    memset(text, ' ', sizeof text - 1); /* blanks are no event, however many */
    assert_int_equal(simulate_events(text, 8, &got, &count, &joins, &error),
                     GAPLESS_INVALID);
}

static void test_events(void **state)
{
    static const struct gapless_incident want[] = {
        {250000000, GAPLESS_JOIN, 0, 0},          {250000000, GAPLESS_JOIN, 0, 0},
        {250000000, GAPLESS_KILL, 9, 0},          {40000000000, GAPLESS_KILL, 3, 0},
        {90000000000, GAPLESS_STALL, 5, 1500000}, {100000000000, GAPLESS_LEAVE, 0, 0},
    };
    struct gapless_incident *got;
    size_t count;
    uint32_t joins;

    (void)state;
    assert_int_equal(simulate_events(" 100 leave 0;\n40s\tkill  3 ; 250ms join 2;"
                                     "0.25s kill 9;1.5m stall 5 for 1.5ms;",
                                     8, &got, &count, &joins, NULL),
                     GAPLESS_OK);
    assert_int_equal(joins, 2);
    assert_int_equal(count, sizeof want / sizeof want[0]);
    for (size_t i = 0; i < count; i++)
        if (got[i].at_ns != want[i].at_ns || got[i].kind != want[i].kind ||
            got[i].worker != want[i].worker || got[i].ns != want[i].ns)
            fail_msg("event %zu", i);
    free(got);
}

/* ---- batch times --------------------------------------------------------- */

static char path[64];

static void write_file(const char *bytes, size_t count)
{
    FILE *file = fopen(path, "we");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

static int set_up(void **state)
{
    int fd;

    (void)state;
    (void)snprintf(path, sizeof path, "/tmp/gapless-test-clock-XXXXXX");
    fd = mkstemp(path);
    return fd < 0 || close(fd) != 0;
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

static const struct {
    const char *bytes, *said;
} wrong_times[] = {
    {"", "no batch time in it"},
    {"# nothing\n\n \t\n", "no batch time in it"},
    {"0 0.1\n", ":1: the file ends without a batch time of worker 1"},
    {"0 0.1\n\n# one\n2 0.1\n", ":4: the file ends without a batch time of worker 1"},
    {"0 0.1\n1 x\n", ":2: the seconds of a batch: it must be a finite number"},
    {"0 0.1\n1 nan\n", ":2: the seconds"},
    {"0 0.1\n1 inf\n", ":2: the seconds"},
    {"0 0.1\n1 1e400\n", ":2: the seconds"},
    {"0 0.1\n1 -1\n", ":2: the seconds of a batch: it must be at least 1e-09"},
    {"0 0\n1 1\n", ":1: the seconds"},
    {"0 1e7\n1 1\n", ":1: the seconds of a batch: it must be at most"},
    {"x 1\n", ":1: a worker's number must be a whole number"},
    {"-1 1\n", ":1: a worker's number must be a whole number"},
    {"4096 1\n", ":1: a worker's number must be at most 4095"},
    {"0\n", ":1: a line is a worker's number and seconds"},
    {"0 1 2\n", ":1: a line is a worker's number and seconds"},
    {"0,1\n", ":1: a line is a worker's number and seconds"},
};

static void test_wrong_times(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrong_times / sizeof wrong_times[0]; i++) {
        enum gapless_clock kind = GAPLESS_CLOCK_ROUND_ROBIN;
        struct gapless_batch_time *times = NULL;
        struct gapless_error error = {0};
        size_t count = 77;

        write_file(wrong_times[i].bytes, strlen(wrong_times[i].bytes));
        assert_int_equal(simulate_clock(path, 2, &kind, &times, &count, &error),
                         GAPLESS_CORRUPT);
        if (strstr(error.text, wrong_times[i].said) == NULL ||
            strstr(error.text, path) == NULL)
            fail_msg("'%s' is said of '%s'", error.text, wrong_times[i].bytes);
        assert_true(times == NULL && count == 77);
        assert_true(kind == GAPLESS_CLOCK_ROUND_ROBIN);
    }
}

static void test_no_text(void **state)
{
    char longest[400];
    enum gapless_clock kind;
    struct gapless_batch_time *times;
    struct gapless_error error = {0};
    size_t count;

    (void)state;
    write_file("0 1\n\0\n1 1\n", 10);
    assert_int_equal(simulate_clock(path, 2, &kind, &times, &count, &error),
                     GAPLESS_CORRUPT);
    assert_non_null(strstr(error.text, ":2: "));
    memset(longest, ' ', sizeof longest);
    longest[0] = '0';
    longest[2] = longest[3] = '1';
    longest[4] = longest[5] = '\n';
    write_file(longest, sizeof longest);
    assert_int_equal(simulate_clock(path, 2, &kind, &times, &count, &error),
                     GAPLESS_CORRUPT);
    assert_non_null(strstr(error.text, ":3: this line has 394 bytes"));
    assert_int_equal(simulate_clock("/tmp", 2, &kind, &times, &count, &error),
                     GAPLESS_INVALID);
    assert_int_equal(simulate_clock("/nowhere/x", 2, &kind, &times, &count, &error),
                     GAPLESS_MISSING);
    assert_non_null(strstr(error.text, "/nowhere/x"));
    assert_int_equal(simulate_clock("homogenous", 2, &kind, &times, &count, &error),
                     GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "did you mean 'homogeneous'?"));
}

static void test_times(void **state)
{
    static const char bytes[] =
        "# worker seconds\n1 0.5\n 0\t1e-3 # fast\r\n\n1 2\n7 1";
    enum gapless_clock kind = GAPLESS_CLOCK_ROUND_ROBIN;
    struct gapless_batch_time *times = NULL;
    size_t count = 0;

    (void)state;
    write_file(bytes, sizeof bytes - 1);
    assert_int_equal(simulate_clock(path, 2, &kind, &times, &count, NULL), GAPLESS_OK);
    assert_int_equal(kind, GAPLESS_CLOCK_TIMES);
    assert_int_equal(count, 4);
    assert_true(times[0].worker == 1 && times[0].ns == 500000000);
    assert_true(times[1].worker == 0 && times[1].ns == 1000000);
    assert_true(times[2].worker == 1 && times[2].ns == 2000000000);
    assert_true(times[3].worker == 7); /* more than there are workers: no mistake */
    free(times);
    assert_int_equal(simulate_clock("heterogeneous", 2, &kind, &times, &count, NULL),
                     GAPLESS_OK);
    assert_int_equal(kind, GAPLESS_CLOCK_HETEROGENEOUS);
}

/* ---- points -------------------------------------------------------------- */

static struct simulate_points points_of(enum span_unit unit, double amount,
                                        uint64_t total)
{
    struct span span = {unit, amount};
    struct simulate_points ret = simulate_points_of(span, total, 100.0);
    uint64_t before = 0, line = 1;

    /* Forward, never twice the same, and every measured point is hit. */
    assert_true(simulate_point(&ret, 0) == 0);
    for (; before < total && line < 3000; line++) {
        uint64_t point = simulate_point(&ret, line);

        assert_true(point > before);
        if (line % ret.parts == 0)
            assert_true(point == line / ret.parts * ret.every);
        before = point;
    }
    return ret;
}

static void test_points(void **state)
{
    struct simulate_points got;

    (void)state;
    got = points_of(SPAN_EPOCHS, 1.0, 500);
    assert_true(got.every == 100 && got.parts == 10);
    got = points_of(SPAN_EPOCHS, 0.05, 500);
    assert_true(got.every == 5 && got.parts == 1);
    got = points_of(SPAN_FRACTION, 0.0, 1000); /* only at the end */
    assert_true(got.every == 1000 && got.parts == 50);
    got = points_of(SPAN_EPOCHS, 0.001, 1000);
    assert_true(got.every == 1 && got.parts == 1);
    got = points_of(SPAN_EPOCHS, 7.0, 30); /* a short run: a line each */
    assert_true(got.every == 30 && got.parts == 30);
    got = points_of(SPAN_UPDATES, 3.0, 30);
    assert_true(got.every == 3 && got.parts == 3);
    got = points_of(SPAN_EPOCHS, 1.0, 1);
    assert_true(got.every == 1 && got.parts == 1);
    got = points_of(SPAN_FRACTION, 1.0, 1000000000000);
    assert_true(got.every == 1000000000000 && got.parts == 50);
}

/* ---- progress ------------------------------------------------------------ */

static void test_progress(void **state)
{
    static struct canvas canvas;
    struct progress_facts facts = {"dana-ga-global", 4096,  4331,  9375, 12.0,
                                   86399.0,          0.351, 0.8642};
    char text[256];

    (void)state;
    for (unsigned width = 1; width < 150; width++) {
        progress_paint(&canvas, &facts, width, false, false);
        assert_true(canvas.used <= width);
        assert_true(strlen(canvas.text) == canvas.used);
        assert_null(strchr(canvas.text, '\033'));
    }
    assert_non_null(strstr(canvas.text, "46 %"));
    assert_non_null(strstr(canvas.text, "4,331 of 9,375"));
    assert_non_null(strstr(canvas.text, "virtual 23:59:59"));
    assert_non_null(strstr(canvas.text, "0:14 left"));
    assert_non_null(strstr(canvas.text, "86.42 %"));
    progress_line(&facts, text, sizeof text);
    assert_non_null(strstr(text, "accuracy 86.42 %"));
    facts = (struct progress_facts){
        .rule = "sa", .workers = 1, .loss = (double)NAN, .accuracy = (double)NAN};
    progress_paint(&canvas, &facts, 79, true, true);
    assert_non_null(strstr(canvas.text, "1 worker "));
    assert_null(strstr(canvas.text, "nan"));
    progress_line(&facts, text, sizeof text);
    assert_null(strstr(text, "nan"));
    assert_non_null(strstr(text, "--:-- left"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_events),
        cmocka_unit_test(test_long_event),
        cmocka_unit_test(test_events),
        cmocka_unit_test_setup_teardown(test_wrong_times, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_text, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_times, set_up, tear_down),
        cmocka_unit_test(test_points),
        cmocka_unit_test(test_progress),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
