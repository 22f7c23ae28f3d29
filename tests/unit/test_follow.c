/* Following a live run: a line of metrics.jsonl says what was measured since the line
 * before, and repeats nothing. */
#include "cluster/task/follow.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINES_MAX 8u

struct bed {
    char folder[64];
    struct view_facts facts;
    struct evaluator evaluator;
    struct follow follow;
    json_t *line[LINES_MAX];
    size_t lines;
};

static struct gapless_summary summary(uint64_t count, double mean)
{
    return (struct gapless_summary){.count = count, .mean = mean, .max = 9.0};
}

static void begin(struct bed *bed)
{
    struct gapless_error error = {0};

    memset(bed, 0, sizeof *bed);
    (void)snprintf(bed->folder, sizeof bed->folder, "/tmp/gapless-follow-XXXXXX");
    assert_non_null(mkdtemp(bed->folder));
    bed->facts.epoch_gradients = 100.0;
    bed->facts.accuracy = (double)NAN;
    bed->follow = follow_new(&bed->facts, &bed->evaluator);
    follow_metrics(&bed->follow); /* nothing, before there was an update */
    bed->facts.stats.updates = bed->facts.stats.gradients = 10;
    assert_int_equal(follow_begin(&bed->follow, bed->folder, "an-id", &error),
                     GAPLESS_OK);
}

static void measured(struct bed *bed, double accuracy, double loss)
{
    bed->evaluator.accuracy = accuracy;
    bed->evaluator.mean_loss = loss;
    follow_measured(&bed->follow);
}

/* Reads the lines, and takes the folder away. */
static void end(struct bed *bed)
{
    char path[128], text[4096];
    FILE *file;

    assert_false(bed->follow.results.failed);
    results_close(&bed->follow.results);
    (void)snprintf(path, sizeof path, "%s/metrics.jsonl", bed->folder);
    file = fopen(path, "re");
    assert_non_null(file);
    while (bed->lines < LINES_MAX && fgets(text, sizeof text, file) != NULL) {
        bed->line[bed->lines] = json_loads(text, 0, NULL);
        assert_non_null(bed->line[bed->lines++]);
    }
    (void)fclose(file);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(bed->folder), 0);
}

static void drop(struct bed *bed)
{
    for (size_t i = 0; i < bed->lines; i++)
        json_decref(bed->line[i]);
}

static double number(const struct bed *bed, size_t line, const char *key)
{
    const json_t *value = json_object_get(bed->line[line], key);

    assert_non_null(value); /* the key is there, in every line */
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static void test_measured_once(void **state)
{
    static struct bed bed;

    (void)state;
    begin(&bed);
    follow_metrics(&bed.follow);
    measured(&bed, 0.5, 1.5);
    follow_metrics(&bed.follow);
    follow_metrics(&bed.follow);
    assert_true(bed.facts.accuracy == 0.5); /* the picture goes on showing it */
    measured(&bed, 0.5, 1.5);               /* again, and the same comes of it */
    follow_metrics(&bed.follow);
    end(&bed);
    assert_int_equal(bed.lines, 4);
    assert_true(isnan(number(&bed, 0, "accuracy")));
    assert_true(number(&bed, 1, "accuracy") == 0.5);
    assert_true(number(&bed, 1, "test_loss") == 1.5);
    assert_true(isnan(number(&bed, 2, "accuracy")));
    assert_true(isnan(number(&bed, 2, "test_loss")));
    assert_true(number(&bed, 3, "accuracy") == 0.5);
    drop(&bed);
}

/* Before there are two looks there is no rate, not one of 0; later 0 is one. */
static void test_rate(void **state)
{
    static struct bed bed;

    (void)state;
    begin(&bed);
    bed.facts.elapsed = 1.0;
    follow_rate(&bed.follow);
    follow_metrics(&bed.follow);
    bed.facts.elapsed = 4.0;
    bed.facts.stats.updates += 30;
    follow_rate(&bed.follow);
    follow_metrics(&bed.follow);
    bed.facts.elapsed = 7.0;
    follow_rate(&bed.follow);
    follow_metrics(&bed.follow);
    end(&bed);
    assert_int_equal(bed.lines, 3);
    assert_true(isnan(number(&bed, 0, "updates_per_second")));
    assert_true(fabs(number(&bed, 1, "updates_per_second") - 10.0) < 1e-9);
    assert_true(number(&bed, 2, "updates_per_second") == 0.0);
    drop(&bed);
}

/* Lag and gap are means since the line before; their summaries are of the whole run. */
static void test_means_since_the_line_before(void **state)
{
    static struct bed bed;

    (void)state;
    begin(&bed);
    bed.facts.stats.lag = summary(10, 2.0);
    follow_metrics(&bed.follow);
    bed.facts.stats.lag = summary(30, 4.0); /* 20 more, of 5 each */
    bed.facts.stats.gap_rms = summary(4, 0.5);
    follow_metrics(&bed.follow);
    follow_metrics(&bed.follow); /* nothing came since */
    end(&bed);
    assert_int_equal(bed.lines, 3);
    assert_true(number(&bed, 0, "lag_mean") == 2.0);
    assert_true(isnan(number(&bed, 0, "gap_rms_mean")));
    assert_true(fabs(number(&bed, 1, "lag_mean") - 5.0) < 1e-9);
    assert_true(number(&bed, 1, "gap_rms_mean") == 0.5);
    assert_true(json_number_value(json_object_get(json_object_get(bed.line[1], "lag"),
                                                  "mean")) == 4.0);
    assert_true(isnan(number(&bed, 2, "lag_mean")));
    assert_null(json_object_get(bed.line[0], "grad_norm_sq"));
    drop(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_measured_once),
        cmocka_unit_test(test_means_since_the_line_before),
        cmocka_unit_test(test_rate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
