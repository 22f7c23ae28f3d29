/* The picture and the line of a run: whatever the numbers and the size of the terminal,
 * nothing is wider or higher than it, and without UTF-8 or colours there is none. */
#include "cluster/task/job.h"
#include "cluster/terminal/view.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define WORKERS 400u

static struct gapless_worker_stats workers[WORKERS];
static struct canvas canvas;

static struct view_facts some_facts(uint32_t count)
{
    struct view_facts facts = {
        .rule = "dana-ga",
        .data = "fashion-mnist",
        .model = "mlp:64",
        .workers = count,
        .parameters = 50890,
        .epochs = 5.0,
        .epoch_gradients = 1875.0,
        .elapsed = 12.3,
        .updates_per_second = 391.0,
        .accuracy = 0.8642,
        .worker = workers,
        .worker_count = count,
    };

    facts.stats = (struct gapless_stats){
        .state = GAPLESS_RUN_GOING,
        .workers_active = count,
        .gradients = 4331,
        .gradients_total = 9375,
        .updates = 4331,
        .rate = 0.005,
        .loss = 0.3512,
        .seconds = 11.0,
        .lag = {4331, 6.98, 7.0, 14.0, 22.0},
        .gap_rms = {541, 1.21e-4, 1e-4, 3.1e-4, 8e-4},
    };
    for (uint32_t i = 0; i < WORKERS; i++)
        workers[i] = (struct gapless_worker_stats){.state = 2,
                                                   .gradients = 500 + i,
                                                   .lag_sum = 3500.0,
                                                   .lag_count = 500 + i,
                                                   .gap_sum = 0.01,
                                                   .gap_count = 70};
    for (unsigned i = 0; i < 300; i++) {
        history_add(&facts.losses, 1.0 / (1.0 + (double)i));
        history_add(&facts.accuracies, 1.0 - 1.0 / (1.0 + (double)i));
    }
    return facts;
}

/* Columns of the widest line, and how many lines. */
static void measure(const char *text, unsigned *ret_width, unsigned *ret_lines)
{
    unsigned column = 0;

    *ret_width = *ret_lines = 0;
    for (; *text != '\0'; text++) {
        if (*text == '\033') {
            text += strcspn(text, "mKJHhl");
            continue;
        }
        if (*text == '\n') {
            *ret_width = column > *ret_width ? column : *ret_width;
            column = 0;
            ++*ret_lines;
            continue;
        }
        column += ((unsigned char)*text & 0xc0u) != 0x80u;
    }
    assert_int_equal(column, 0); /* the last line is ended too */
}

static void check_size(const struct view_facts *facts, unsigned width, unsigned height,
                       bool utf8)
{
    unsigned columns, lines;

    view_paint(&canvas, facts, width, height, utf8, true);
    measure(canvas.text, &columns, &lines);
    if (columns >= width || lines >= height)
        fail_msg("%u columns and %u lines in %u by %u", columns, lines, width, height);
    assert_int_equal(lines, canvas.lines);
}

static void test_fits(void **state)
{
    struct view_facts facts = some_facts(WORKERS);

    (void)state;
    for (unsigned width = 2; width < 260; width += 7)
        for (unsigned height = 2; height < 300; height += 9) {
            check_size(&facts, width, height, true);
            check_size(&facts, width, height, false);
        }
}

static void test_odd_numbers(void **state)
{
    struct view_facts facts = some_facts(WORKERS);
    char line[512];

    (void)state;
    facts.accuracy = facts.stats.loss = facts.stats.rate = (double)NAN;
    facts.stats.gradients_total = 0;
    facts.stats.seconds = 0.0;
    facts.stats.lag = facts.stats.gap_rms = (struct gapless_summary){0};
    facts.stats.dropped = UINT64_MAX;
    workers[0] = (struct gapless_worker_stats){.state = 1};
    workers[1] = (struct gapless_worker_stats){
        .gradients = UINT64_MAX, .gap_count = 1, .gap_sum = (double)INFINITY};
    check_size(&facts, 80, 24, true);
    assert_null(strstr(canvas.text, "nan"));
    assert_null(strstr(canvas.text, "inf"));
    view_line(&facts, line, sizeof line);
    assert_null(strstr(line, "nan"));
    assert_non_null(strstr(line, "dropped 18,446,744,073,709,551,615"));
    view_line(&facts, line, 20);
    assert_true(strlen(line) < 20);
}

/* Before the first gradient there is no loss, not one of 0. */
static void test_no_loss_yet(void **state)
{
    struct view_facts facts = some_facts(8);
    char line[512];

    (void)state;
    facts.stats.updates = facts.stats.gradients = 0;
    facts.stats.loss = 0.0;
    view_paint(&canvas, &facts, 100, 40, true, false);
    assert_null(strstr(canvas.text, "0.0000"));
    view_line(&facts, line, sizeof line);
    assert_non_null(strstr(line, "loss --"));
    facts.stats.updates = 1;
    view_line(&facts, line, sizeof line);
    assert_non_null(strstr(line, "loss 0.0000"));
}

static void test_words(void **state)
{
    struct view_facts facts = some_facts(8);
    char line[512];

    (void)state;
    view_paint(&canvas, &facts, 100, 40, true, false);
    assert_non_null(strstr(canvas.text, "dana-ga"));
    assert_non_null(strstr(canvas.text, "86.42 %"));
    assert_non_null(strstr(canvas.text, "epoch 2.31 of 5"));
    assert_non_null(strstr(canvas.text, "46 %"));
    assert_non_null(strstr(canvas.text, "4,331"));
    assert_non_null(strstr(canvas.text, "0:13 left"));
    assert_null(strstr(canvas.text, "\033[1m"));
    view_paint(&canvas, &facts, 100, 40, false, false);
    for (const char *at = canvas.text; *at != '\0'; at++)
        assert_true((unsigned char)*at < 0x80u);
    view_line(&facts, line, sizeof line);
    assert_non_null(strstr(line, "accuracy 86.42 %"));
    facts = some_facts(WORKERS);
    view_paint(&canvas, &facts, 80, 20, true, true);
    assert_non_null(strstr(canvas.text, "more:"));
}

static void test_numbers(void **state)
{
    (void)state;
    assert_string_equal(word_count(0).text, "0");
    assert_string_equal(word_count(999).text, "999");
    assert_string_equal(word_count(1000).text, "1,000");
    assert_string_equal(word_count(1234567).text, "1,234,567");
    assert_string_equal(word_seconds(7.2).text, "0:07");
    assert_string_equal(word_seconds(3723.0).text, "1:02:03");
    assert_string_equal(word_seconds(-1.0).text, "--:--");
    assert_string_equal(word_seconds((double)NAN).text, "--:--");
    assert_string_equal(word_small((double)NAN).text, "--");
    assert_string_equal(word_small(0.0).text, "0");
    assert_string_equal(word_small(0.00012).text, "1.20e-04");
    assert_string_equal(word_real(1.5, 2).text, "1.50");
}

static void test_job(void **state)
{
    char text[GAPLESS_JOB_MAX], name[600];
    struct job job, again;
    struct gapless_error error;

    (void)state;
    assert_int_equal(job_set("mnist", "/some where", "mlp:64", 32,
                             18446744073709551615u, &job, &error),
                     GAPLESS_OK);
    assert_int_equal(job_write(&job, text, &error), GAPLESS_OK);
    assert_int_equal(job_read(text, &again, &error), GAPLESS_OK);
    assert_null(job_difference(&job, &again));
    assert_string_equal(again.data_dir, "/some where");
    assert_true(again.seed == UINT64_MAX);
    again.batch = 31;
    assert_string_equal(job_difference(&job, &again), "batch");
    assert_int_equal(job_read("later=1\ndata=a\nmodel=b\nbatch=2", &again, &error),
                     GAPLESS_OK);
    assert_int_equal(job_read("", &again, &error), GAPLESS_PROTOCOL);
    assert_int_equal(job_read("data=a\nmodel=b\nbatch=0\n", &again, &error),
                     GAPLESS_PROTOCOL);
    assert_int_equal(job_read("data=a\nmodel=b\nbatch=x\n", &again, &error),
                     GAPLESS_PROTOCOL);
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(job_set(name, NULL, "m", 1, 1, &job, &error), GAPLESS_INVALID);
    assert_int_equal(job_set("a\nb", NULL, "m", 1, 1, &job, &error), GAPLESS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fits),  cmocka_unit_test(test_odd_numbers),
        cmocka_unit_test(test_words), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_job),   cmocka_unit_test(test_no_loss_yet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
