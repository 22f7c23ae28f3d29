/* The options: numbers read strictly, spans, the three sources and who wins, what is
 * handed on to the processes. */
#include "cluster/options/options_table.h"
#include "cluster/options/parse.h"
#include "transport/shm/shm.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 20

static void check_count(const char *text, bool good, uint64_t value)
{
    struct parse_error reason = {""};
    uint64_t got = 77;

    if (parse_count(text, 1, 1ull << 40, &got, &reason) != good)
        fail_msg("'%s'", text);
    assert_true(got == (good ? value : 77));
    assert_true(good == (reason.text[0] == '\0'));
}

static void test_counts(void **state)
{
    (void)state;
    check_count("1", true, 1);
    check_count("4096", true, 4096);
    check_count("2k", true, 2000);
    check_count("3Ki", true, 3072);
    check_count("1Mi", true, 1u << 20);
    check_count("1Gi", true, 1u << 30);
    check_count("", false, 0);
    check_count("0", false, 0);
    check_count("-1", false, 0);
    check_count("+1", false, 0);
    check_count(" 1", false, 0);
    check_count("1 ", false, 0);
    check_count("1.0", false, 0);
    check_count("1e3", false, 0);
    check_count("0x10", false, 0);
    check_count("18446744073709551615", false, 0);
    check_count("18446744073709551616", false, 0);
    check_count("18446744073709551615G", false, 0);
}

static void test_reals(void **state)
{
    static const char *const wrong[] = {"",     "x",     "nan", "inf", "-inf", "1e400",
                                        "1.2x", "0x1p1", " 1",  "1 ",  "--1",  "1,5"};
    const struct real_bounds bounds = {0.0, 2.0, true, true};
    struct parse_error reason;
    double got = 7.0;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (parse_real(wrong[i], bounds, &got, &reason))
            fail_msg("'%s'", wrong[i]);
    assert_false(parse_real("0", bounds, &got, &reason));
    assert_false(parse_real("2", bounds, &got, &reason));
    assert_true(got == 7.0);
    assert_true(parse_real("1.5", bounds, &got, &reason) && got == 1.5);
    assert_true(parse_real("+.5", bounds, &got, &reason) && got == 0.5);
    assert_true(parse_real("5e-3", bounds, &got, &reason) && got == 5e-3);
}

static void test_spans(void **state)
{
    struct parse_error reason;
    struct span span;
    struct milestones steps;

    (void)state;
    assert_true(parse_span("1epoch", &span, &reason));
    assert_int_equal(span_gradients(span, 9375, 1875.0), 1875);
    assert_true(parse_span("2.5epochs", &span, &reason));
    assert_int_equal(span_gradients(span, 9375, 1875.0), 4688);
    assert_true(parse_span("500updates", &span, &reason));
    assert_int_equal(span_gradients(span, 9375, 1875.0), 500);
    assert_true(parse_span("0.1", &span, &reason));
    assert_int_equal(span_gradients(span, 1000, 10.0), 100);
    assert_true(parse_span("10%", &span, &reason));
    assert_int_equal(span_gradients(span, 1000, 10.0), 100);
    assert_false(parse_span("-1epoch", &span, &reason));
    assert_false(parse_span("1epochx", &span, &reason));
    assert_false(parse_span("1e300updates", &span, &reason));
    assert_true(parse_milestones("0.6:0.1,3epochs:0.5", &steps, &reason));
    assert_int_equal(steps.count, 2);
    assert_true(steps.step[1].at.unit == SPAN_EPOCHS && steps.step[1].factor == 0.5);
    assert_true(parse_milestones("none", &steps, &reason) && steps.count == 0);
    assert_true(parse_milestones("", &steps, &reason) && steps.count == 0);
    assert_false(parse_milestones(",", &steps, &reason));
    assert_false(parse_milestones("0.6:0.1:3", &steps, &reason));
}

static const char *name_at(const void *context, unsigned index)
{
    static const char *const names[] = {"dana-zero", "dana-ga", "dana-lga"};

    (void)context;
    return index < 3 ? names[index] : NULL;
}

static void test_nearest(void **state)
{
    (void)state;
    assert_string_equal(parse_nearest("dana-gaa", name_at, NULL), "dana-ga");
    assert_string_equal(parse_nearest("dana-ga", name_at, NULL), "dana-ga");
    assert_string_equal(parse_nearest("danazero", name_at, NULL), "dana-zero");
    assert_null(parse_nearest("sgd", name_at, NULL));
    assert_null(parse_nearest("", name_at, NULL));
}

/* options_read of the words of a line. */
static enum options_outcome read_line(enum option_command command, const char *line,
                                      struct settings *ret)
{
    static char copy[512];
    static char *argv[WORDS_MAX + 1]; /* operands are in it */
    char *rest = copy;
    int argc = 0;

    assert_true(strlen(line) < sizeof copy);
    memcpy(copy, line, strlen(line) + 1);
    while (rest != NULL && argc < WORDS_MAX)
        argv[argc++] = strsep(&rest, " ");
    argv[argc] = NULL;
    return options_read(command, argc, argv, ret);
}

static void test_sources(void **state)
{
    struct settings got;

    (void)state;
    assert_int_equal(read_line(FOR_TRAIN, "train", &got), OPTIONS_GO);
    assert_string_equal(got.rule, "dana-ga");
    assert_string_equal(got.data, "fashion-mnist");
    assert_int_equal(got.workers, 8);
    assert_int_equal(got.workers_max, 16);
    assert_int_equal(got.steps.count, 2);
    assert_true(got.lr == 0.005 && got.momentum == 0.9 && got.epochs == 5.0);
    assert_int_equal(options_source(&got, "workers"), OPTION_DEFAULT);
    assert_int_equal(options_source(&got, "out"), OPTION_UNSET);

    assert_int_equal(read_line(FOR_TRAIN, "train --schedule cosine:0.1", &got),
                     OPTIONS_GO);
    assert_true(got.cosine && got.steps.count == 0); /* none but those asked for */
    assert_int_equal(
        read_line(FOR_TRAIN, "train --schedule cosine --steps 0.5:0.5", &got),
        OPTIONS_GO);
    assert_true(got.cosine && got.steps.count == 1);

    assert_int_equal(setenv("GAPLESS_WORKERS", "3", 1), 0);
    assert_int_equal(setenv("GAPLESS_SSGD_SCALE_RATE", "yes", 1), 0);
    assert_int_equal(setenv("GAPLESS_OUT", "", 1), 0);
    assert_int_equal(read_line(FOR_TRAIN, "train", &got), OPTIONS_GO);
    assert_int_equal(got.workers, 3);
    assert_true(got.ssgd_scale_rate);
    assert_null(got.out);
    assert_int_equal(options_source(&got, "workers"), OPTION_ENVIRONMENT);
    assert_int_equal(read_line(FOR_TRAIN, "train -w 5 --lr=0.1 -r sa", &got),
                     OPTIONS_GO);
    assert_int_equal(got.workers, 5);
    assert_true(got.lr == 0.1);
    assert_string_equal(got.rule, "sa");
    assert_int_equal(options_source(&got, "workers"), OPTION_FLAG);
    assert_int_equal(unsetenv("GAPLESS_WORKERS"), 0);
    assert_int_equal(unsetenv("GAPLESS_SSGD_SCALE_RATE"), 0);
    assert_int_equal(unsetenv("GAPLESS_OUT"), 0);
}

static void test_schedules(void **state)
{
    struct settings got;

    (void)state;
    assert_int_equal(read_line(FOR_TRAIN, "train --schedule cosine:0.1", &got),
                     OPTIONS_GO);
    assert_true(got.cosine && got.cosine_to == 0.1);
    assert_int_equal(read_line(FOR_TRAIN, "train --schedule cosine", &got), OPTIONS_GO);
    assert_true(got.cosine && got.cosine_to == 0.0);
    assert_int_equal(read_line(FOR_TRAIN, "train --schedule constant", &got),
                     OPTIONS_GO);
    assert_false(got.cosine);
    assert_int_equal(read_line(FOR_TRAIN, "train --horizon 0", &got), OPTIONS_GO);
    assert_true(got.horizon_set && got.horizon == 0.0);
}

static void check_warmup(enum option_command command, const char *line,
                         enum span_unit unit, double amount, bool shortened)
{
    struct settings got;

    assert_int_equal(read_line(command, line, &got), OPTIONS_GO);
    if (got.warmup.unit != unit || fabs(got.warmup.amount - amount) > 1e-12 ||
        options_warmup_shortened(&got) != shortened)
        fail_msg("%s: a warm-up of %g, unit %d", line, got.warmup.amount,
                 (int)got.warmup.unit);
}

/* At most a tenth of the run, unless it was given. */
static void test_warmup(void **state)
{
    struct settings got;

    (void)state;
    check_warmup(FOR_TRAIN, "train", SPAN_FRACTION, 0.1, true);
    check_warmup(FOR_MASTER, "master --epochs 9.9", SPAN_FRACTION, 0.1, true);
    check_warmup(FOR_SIMULATE, "simulate --epochs 0.5", SPAN_FRACTION, 0.1, true);
    check_warmup(FOR_TRAIN, "train --epochs 10", SPAN_EPOCHS, 1.0, false);
    check_warmup(FOR_TRAIN, "train --epochs 100", SPAN_EPOCHS, 1.0, false);
    check_warmup(FOR_TRAIN, "train --epochs 1 --warmup 1epoch", SPAN_EPOCHS, 1.0,
                 false);
    check_warmup(FOR_TRAIN, "train --epochs 1 --warmup 0.1", SPAN_FRACTION, 0.1, false);
    check_warmup(FOR_SIMULATE, "simulate --epochs 1 --warmup 0", SPAN_FRACTION, 0.0,
                 false);
    assert_int_equal(setenv("GAPLESS_WARMUP", "7updates", 1), 0);
    check_warmup(FOR_TRAIN, "train --epochs 1", SPAN_UPDATES, 7.0, false);
    assert_int_equal(unsetenv("GAPLESS_WARMUP"), 0);
    assert_int_equal(read_line(FOR_TRAIN, "train", &got), OPTIONS_GO);
    assert_int_equal(options_source(&got, "warmup"), OPTION_DEFAULT);
    assert_string_equal(options_text(&got, "warmup"), "0.1");
    assert_int_equal(read_line(FOR_WORKER, "worker", &got), OPTIONS_GO);
}

static void test_outcome_untouched(void **state)
{
    struct settings got;
    char before[sizeof got];

    (void)state;
    memset(&got, 0x5a, sizeof got);
    memcpy(before, &got, sizeof got);
    assert_int_equal(read_line(FOR_TRAIN, "train --workers 0", &got), OPTIONS_WRONG);
    assert_memory_equal(before, &got, sizeof got);
}

/* What is handed on says the same as what was read. */
static void test_emit(void **state)
{
    static const char *const except[] = {"out", "address", NULL};
    struct settings got, again;
    char *argv[64] = {NULL};
    size_t count = 1;

    (void)state;
    argv[0] = strdup("master");
    assert_int_equal(
        read_line(FOR_TRAIN,
                  "train -w 3 --rule sa --steps 10%:0.5 --gap-ref "
                  "own_lookahead --ssgd-scale-rate --out x --worker-device cpu",
                  &got),
        OPTIONS_GO);
    assert_true(options_emit(&got, FOR_MASTER, except, argv, 63, &count));
    for (size_t i = 0; i < count; i++)
        assert_null(strstr(argv[i], "worker-device"));
    assert_int_equal(options_read(FOR_MASTER, (int)count, argv, &again), OPTIONS_GO);
    assert_string_equal(again.rule, "sa");
    assert_string_equal(again.gap_ref, "own_lookahead");
    assert_int_equal(again.workers, 3);
    assert_true(again.ssgd_scale_rate);
    assert_null(again.out);
    assert_memory_equal(&again.steps, &got.steps, sizeof got.steps);
    assert_memory_equal(&again.warmup, &got.warmup, sizeof got.warmup);
    for (size_t i = 0; i < count; i++)
        free(argv[i]);
    count = 0;
    assert_false(options_emit(&got, FOR_MASTER, except, argv, 2, &count));
    free(argv[0]);
    free(argv[1]);
}

static void test_times(void **state)
{
    static const char *const wrong[] = {"",    "s",   "-1s",   "1 s",  "1h",
                                        "1ss", "nan", "inf s", "1e10", "1e9m"};
    static const struct real_bounds bounds = {0, 1e9, false, false};
    struct parse_error reason;
    double got = 7.0;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (parse_time(wrong[i], bounds, &got, &reason))
            fail_msg("'%s'", wrong[i]);
    assert_true(got == 7.0);
    assert_true(parse_time("40s", bounds, &got, &reason) && got == 40.0);
    assert_true(parse_time("40", bounds, &got, &reason) && got == 40.0);
    assert_true(parse_time("1.5m", bounds, &got, &reason) && got == 90.0);
    assert_true(parse_time("0.5min", bounds, &got, &reason) && got == 30.0);
    assert_true(parse_time("0ms", bounds, &got, &reason) && got == 0.0);
    assert_true(parse_time("120ms", bounds, &got, &reason) && fabs(got - 0.12) < 1e-12);
    assert_true(parse_time("80us", bounds, &got, &reason) && fabs(got - 8e-5) < 1e-12);
    assert_true(parse_time("1e-05", bounds, &got, &reason) && got == 1e-5);
}

/* --batch-time is written alike, whatever the command; the others of its kind too. */
static void test_batch_time(void **state)
{
    static const char *const spellings[] = {"120ms", "0.12", "0.12s", "120000us"};
    static const enum option_command commands[] = {FOR_SIMULATE, FOR_PLAN};
    struct settings got;
    char line[80];

    (void)state;
    for (unsigned c = 0; c < 2; c++)
        for (unsigned i = 0; i < 4; i++) {
            (void)snprintf(line, sizeof line, "%s --batch-time %s",
                           options_command_name(commands[c]), spellings[i]);
            assert_int_equal(read_line(commands[c], line, &got), OPTIONS_GO);
            assert_true(fabs(got.batch_time - 0.12) < 1e-12);
        }
    assert_int_equal(
        read_line(FOR_SIMULATE, "simulate --latency 20us --pass-time 1e-4", &got),
        OPTIONS_GO);
    assert_true(fabs(got.latency - 2e-5) < 1e-12 && fabs(got.pass_time - 1e-4) < 1e-12);
    assert_int_equal(read_line(FOR_PLAN, "plan --batch-time 120x", &got),
                     OPTIONS_WRONG);
}

/* --json prints; what is written to a file is --json-file, and where that was once called
 * --json it still counts. */
static void test_json(void **state)
{
    struct settings got;

    (void)state;
    assert_int_equal(read_line(FOR_PLAN, "plan --json", &got), OPTIONS_GO);
    assert_true(got.json);
    assert_int_equal(read_line(FOR_BENCH_RULES, "rules --json-file a", &got),
                     OPTIONS_GO);
    assert_string_equal(got.json_file, "a");
    assert_int_equal(read_line(FOR_BENCH_UPDATE, "update --json b", &got), OPTIONS_GO);
    assert_string_equal(got.json_file, "b");
    /* What is set for all commands makes no file of any. */
    assert_int_equal(setenv("GAPLESS_JSON", "1", 1), 0);
    assert_int_equal(read_line(FOR_BENCH_RULES, "rules", &got), OPTIONS_GO);
    assert_null(got.json_file);
    assert_int_equal(unsetenv("GAPLESS_JSON"), 0);
}

static void test_simulation(void **state)
{
    struct settings got;

    (void)state;
    assert_int_equal(read_line(FOR_SIMULATE, "simulate", &got), OPTIONS_GO);
    assert_string_equal(got.clock, "homogeneous");
    assert_string_equal(got.gradients, "blas");
    assert_int_equal(got.workers_max, 0); /* --events decides */
    assert_int_equal(got.period, 4);
    assert_int_equal(got.block_elements, 16384);
    assert_int_equal(options_source(&got, "elastic"), OPTION_UNSET);
    assert_int_equal(options_source(&got, "batch-time"), OPTION_UNSET);
    assert_false(got.horizon_set);
    assert_null(got.events);
    assert_int_equal(read_line(FOR_SIMULATE,
                               "simulate -c round-robin --batch-time 0.5 -t 3 "
                               "--evaluate-every 0 --horizon 2 --elastic 0.3",
                               &got),
                     OPTIONS_GO);
    assert_true(got.batch_time == 0.5 && got.threads == 3 && got.elastic == 0.3);
    assert_true(got.evaluate_every.amount == 0.0 && got.horizon_set);
    assert_int_equal(read_line(FOR_SIMULATE, "simulate --gradients gpu", &got),
                     OPTIONS_WRONG);
    assert_int_equal(
        read_line(FOR_SIMULATE, "simulate --workers 9 --workers-max 8", &got),
        OPTIONS_WRONG);
    assert_int_equal(read_line(FOR_SIMULATE, "simulate --batch-time 0", &got),
                     OPTIONS_WRONG);
    assert_int_equal(read_line(FOR_SIMULATE, "simulate --elastic 0", &got),
                     OPTIONS_WRONG);
    assert_int_equal(read_line(FOR_SIMULATE, "simulate --record x", &got),
                     OPTIONS_WRONG);
    assert_int_equal(read_line(FOR_TRAIN, "train --record x", &got), OPTIONS_GO);
    assert_string_equal(got.record, "x");
}

/* Of Adam's and Muon's rules the default rate is AdamW's, of all others momentum SGD's;
 * what is given is kept. A default stays one: another rule, another rate. */
static void test_rate_of_rule(void **state)
{
    struct gapless_rule rule;
    struct settings got;
    unsigned adam = 0;

    (void)state;
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        char line[100];

        (void)snprintf(line, sizeof line, "simulate --rule %s", rule.name);
        assert_int_equal(read_line(FOR_SIMULATE, line, &got), OPTIONS_GO);
        assert_true(got.lr == (rule.own_decay ? 0.001 : 0.005));
        assert_int_equal(options_source(&got, "lr"), OPTION_DEFAULT);
        (void)snprintf(line, sizeof line, "train --lr 0.005 --rule %s", rule.name);
        assert_int_equal(read_line(FOR_TRAIN, line, &got), OPTIONS_GO);
        assert_true(got.lr == 0.005);
        adam += rule.own_decay;
    }
    assert_int_equal(adam, 10);
}

/* With local steps the outer rate is DiLoCo's and the inner optimizer torch's, unless
 * they are given. */
static void test_local_steps(void **state)
{
    struct settings got;

    (void)state;
    assert_int_equal(read_line(FOR_TRAIN, "train", &got), OPTIONS_GO);
    assert_int_equal(got.local_steps, 0);
    assert_null(options_text(&got, "inner-lr"));
    assert_int_equal(read_line(FOR_TRAIN, "train --local-steps 16", &got), OPTIONS_GO);
    assert_int_equal(got.local_steps, 16);
    assert_false(got.adapt_steps);
    assert_true(got.lr == 0.04375 && got.momentum == 0.9); /* 8 workers */
    assert_string_equal(got.inner, "adamw");
    assert_true(got.inner_lr == 0.001 && got.inner_momentum == 0.9);
    assert_true(got.inner_beta2 == 0.999 && got.inner_decay == 0.01);
    assert_int_equal(read_line(FOR_SIMULATE,
                               "simulate --local-steps 4 --inner sgd --lr 0.1 "
                               "--adapt-steps",
                               &got),
                     OPTIONS_GO);
    assert_true(got.lr == 0.1 && got.inner_momentum == 0.0 && got.adapt_steps);
    assert_null(options_text(&got, "inner-beta2"));
    assert_int_equal(read_line(FOR_TRAIN, "train --local-steps 2 --rule ssgd", &got),
                     OPTIONS_GO);
    assert_true(got.lr == 0.7);
    assert_int_equal(read_line(FOR_TRAIN, "train --local-steps 2 -w 9 --rule dn", &got),
                     OPTIONS_GO);
    assert_true(got.lr == 0.35);
    assert_int_equal(read_line(FOR_TRAIN, "train --local-steps 2 -r dana-adamw", &got),
                     OPTIONS_GO);
    assert_true(got.lr == 0.0003);
    assert_int_equal(read_line(FOR_TRAIN, "train --local-steps 0", &got),
                     OPTIONS_WRONG);
    assert_int_equal(read_line(FOR_TRAIN, "train --inner lion", &got), OPTIONS_WRONG);
    assert_int_equal(read_line(FOR_WORKER, "worker --local-steps 4", &got),
                     OPTIONS_WRONG);
    assert_int_equal(read_line(FOR_PLAN, "plan --local-steps 4", &got), OPTIONS_GO);
}

static void test_operands(void **state)
{
    struct settings got;

    (void)state;
    assert_int_equal(read_line(FOR_STUDY, "study a.ini -j 3 b.ini", &got), OPTIONS_GO);
    assert_int_equal(got.operands, 2);
    assert_string_equal(got.operand[0], "a.ini");
    assert_string_equal(got.operand[1], "b.ini");
    assert_int_equal(got.jobs, 3);
    assert_int_equal(read_line(FOR_REPORT, "report", &got), OPTIONS_GO);
    assert_int_equal(got.operands, 0);
    assert_int_equal(read_line(FOR_SIMULATE, "simulate a", &got), OPTIONS_WRONG);
}

/* However it is written, the same value is the same. */
static void test_same_and_take(void **state)
{
    struct settings a, b;
    struct parse_error reason;

    (void)state;
    assert_int_equal(setenv("GAPLESS_LR", "0.3", 1), 0);
    assert_int_equal(read_line(FOR_SIMULATE,
                               "simulate --lr 5e-3 --warmup 10% --range-elements 1Ki "
                               "--steps none --rule sa",
                               &a),
                     OPTIONS_GO);
    assert_int_equal(read_line(FOR_SIMULATE, "simulate --horizon 3", &b), OPTIONS_GO);
    assert_true(b.lr == 0.3);
    assert_false(options_same(&a, &b, "lr"));
    options_defaults(FOR_SIMULATE, &b);
    assert_true(options_set(FOR_SIMULATE, "warmup", "0.1", &b, &reason));
    assert_true(options_set(FOR_SIMULATE, "steps", "", &b, &reason));
    assert_true(options_set(FOR_SIMULATE, "range-elements", "1024", &b, &reason));
    assert_true(b.lr == 0.005); /* the environment was not looked at */
    assert_int_equal(unsetenv("GAPLESS_LR"), 0);
    assert_true(options_same(&a, &b, "lr"));
    assert_true(options_same(&a, &b, "warmup"));
    assert_true(options_same(&a, &b, "steps"));
    assert_true(options_same(&a, &b, "range-elements"));
    assert_true(options_same(&a, &b, "schedule"));
    assert_true(options_same(&a, &b, "horizon")); /* neither has one */
    assert_false(options_same(&a, &b, "rule"));
    options_take(&b, &a, "rule");
    assert_true(options_same(&a, &b, "rule"));
    assert_string_equal(b.rule, "sa");
    assert_string_equal(options_text(&b, "lr"), "0.005");
    assert_null(options_text(&b, "horizon"));
    assert_int_equal(options_source(&b, "rule"), OPTION_FLAG);
    assert_int_equal(read_line(FOR_SIMULATE, "simulate --horizon 3", &b), OPTIONS_GO);
    assert_false(options_same(&a, &b, "horizon"));
    options_take(&b, &a, "horizon");
    assert_int_equal(options_source(&b, "horizon"), OPTION_UNSET);
}

/* What --transport, --listen, --address and --master mean together. */
static void test_network(void **state)
{
    static const char *const wrong[] = {
        "--address tcp:1.2.3.4",
        "--address 10.0.0.1:7471",
        "--address shm:",
        "--transport tcp",
        "--transport shm --listen 10.0.0.1",
        "--address shm:x --listen 10.0.0.1",
        "--transport verbs --listen verbs:10.0.0.1:7471",
        "--transport verbs --address shm:x",
        "--transport shm --address verbs:10.0.0.1:7471",
        "--channels 0",
        "--retries 0",
        "--retries 7",
        "--ack-timeout 7",
        "--ack-timeout 21",
        "--reconnect 5",
    };
    struct settings got;
    char line[128];

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        (void)snprintf(line, sizeof line, "master %s", wrong[i]);
        if (read_line(FOR_MASTER, line, &got) != OPTIONS_WRONG)
            fail_msg("'%s' was taken", wrong[i]);
    }
    assert_int_equal(read_line(FOR_MASTER, "master", &got), OPTIONS_GO);
    assert_null(got.address);
    assert_string_equal(got.transport, "shm");
    assert_int_equal(read_line(FOR_MASTER, "master --transport shm --address x", &got),
                     OPTIONS_GO);
    assert_string_equal(got.address, "shm:x");
    assert_int_equal(read_line(FOR_WORKER, "worker", &got), OPTIONS_GO);
    assert_string_equal(got.address, "shm:gapless");
    assert_true(got.reconnect == 0.0);
    assert_int_equal(read_line(FOR_WORKER, "worker --reconnect 7.5", &got), OPTIONS_GO);
    assert_true(got.reconnect == 7.5);
    assert_int_equal(
        read_line(FOR_MASTER,
                  "master --insecure --channels 2 --retries 3 --ack-timeout 16", &got),
        OPTIONS_GO);
    assert_true(got.insecure && got.channels == 2 && got.retries == 3 &&
                got.ack_timeout == 16);
    /* What the environment says of another transport does not disturb what is typed. */
    assert_int_equal(setenv("GAPLESS_LISTEN", "10.0.0.1", 1), 0);
    assert_int_equal(read_line(FOR_MASTER, "master --address shm:x", &got), OPTIONS_GO);
    assert_string_equal(got.address, "shm:x");
    assert_int_equal(unsetenv("GAPLESS_LISTEN"), 0);
    /* The other commands know nothing of it. */
    assert_int_equal(read_line(FOR_SIMULATE, "simulate", &got), OPTIONS_GO);
    assert_null(got.transport);
    assert_int_equal(read_line(FOR_WORKER, "worker --transport verbs", &got),
                     OPTIONS_WRONG);
}

/* The longest that the options take, the transport takes; one byte more is refused before
 * anything is started. */
static void test_shm_addresses(void **state)
{
    static const struct {
        const char *start;
        unsigned most;
    } kinds[] = {{"shm:", ADDRESS_SHM_NAME_MAX}, {"shm:/", ADDRESS_SHM_PATH_MAX}};
    struct settings got;
    char line[256];

    (void)state;
    for (unsigned i = 0; i < 2; i++)
        for (unsigned more = 0; more < 2; more++) {
            struct sockaddr_un to;
            socklen_t bytes;
            int used =
                snprintf(line, sizeof line, "master --address %s", kinds[i].start);
            unsigned fill = kinds[i].most - (i == 1) + more;

            memset(line + used, 'x', fill);
            line[used + (int)fill] = '\0';
            assert_int_equal(read_line(FOR_MASTER, line, &got),
                             more > 0 ? OPTIONS_WRONG : OPTIONS_GO);
            if (more == 0)
                assert_int_equal(
                    shm_address(strchr(got.address, ':') + 1, &to, &bytes, NULL),
                    GAPLESS_OK);
        }
    assert_int_equal(read_line(FOR_MASTER, "master --address shm:a/b", &got),
                     OPTIONS_WRONG);
    assert_int_equal(read_line(FOR_WORKER, "worker --transport shm --master a/b", &got),
                     OPTIONS_WRONG);
}

#if GAPLESS_HAVE_VERBS
static void test_verbs(void **state)
{
    struct settings got;

    (void)state;
    assert_int_equal(
        read_line(FOR_MASTER, "master --transport verbs --listen 10.0.0.1", &got),
        OPTIONS_GO);
    assert_string_equal(got.address, "verbs:10.0.0.1:7471");
    assert_ptr_equal(got.address, got.address_text); /* not that of a copy */
    assert_int_equal(read_line(FOR_TRAIN, "train --listen [2001:db8::1]:99", &got),
                     OPTIONS_GO);
    assert_string_equal(got.address, "verbs:[2001:db8::1]:99");
    assert_string_equal(got.transport, "verbs");
    assert_int_equal(read_line(FOR_MASTER, "master --transport verbs", &got),
                     OPTIONS_GO);
    assert_null(got.address); /* found when it listens */
    assert_string_equal(got.transport, "verbs");
    assert_int_equal(read_line(FOR_WORKER,
                               "worker --transport verbs --master node1:9,node1-b:9",
                               &got),
                     OPTIONS_GO);
    assert_string_equal(got.address, "verbs:node1:9,node1-b:9");
    assert_true(got.reconnect == 30.0);
    assert_int_equal(
        read_line(FOR_OBSERVE, "observe --master verbs:10.0.0.1:7471", &got),
        OPTIONS_GO);
    assert_string_equal(got.transport, "verbs");
    /* A port that is missing is 7471, in every spelling. */
    assert_int_equal(read_line(FOR_WORKER, "worker --master verbs:10.0.0.1", &got),
                     OPTIONS_GO);
    assert_string_equal(got.address, "verbs:10.0.0.1:7471");
    assert_ptr_equal(got.address, got.address_text);
    assert_int_equal(read_line(FOR_MASTER, "master --address verbs:[::1],n2:9", &got),
                     OPTIONS_GO);
    assert_string_equal(got.address, "verbs:[::1]:7471,n2:9");
    assert_int_equal(
        read_line(FOR_WORKER, "worker --transport verbs --master verbs:n1", &got),
        OPTIONS_GO);
    assert_string_equal(got.address, "verbs:n1:7471");
    assert_int_equal(read_line(FOR_MASTER,
                               "master --address verbs:10.0.0.1:1 --listen 10.0.0.1",
                               &got),
                     OPTIONS_WRONG);
    assert_int_equal(setenv("GAPLESS_TRANSPORT", "verbs", 1), 0);
    assert_int_equal(read_line(FOR_WORKER, "worker --master shm:x", &got), OPTIONS_GO);
    assert_string_equal(got.transport, "shm");
    assert_int_equal(read_line(FOR_WORKER, "worker --master 10.0.0.1", &got),
                     OPTIONS_GO);
    assert_string_equal(got.address, "verbs:10.0.0.1:7471");
    assert_int_equal(unsetenv("GAPLESS_TRANSPORT"), 0);
}
#else
static void test_verbs(void **state)
{
    struct settings got;

    (void)state;
    assert_int_equal(read_line(FOR_MASTER, "master --transport verbs", &got),
                     OPTIONS_WRONG);
    assert_int_equal(read_line(FOR_WORKER, "worker --master verbs:10.0.0.1:7471", &got),
                     OPTIONS_WRONG);
}
#endif

/* What -h shows are options of the command, at most ten; every command has its bit. */
static void test_basics(void **state)
{
    unsigned seen = 0;

    (void)state;
    for (unsigned i = 0; i < options_commands_count; i++) {
        const struct option_command_row *about = &options_commands[i];
        unsigned words = 0;

        assert_int_equal(seen & about->command, 0);
        seen |= about->command;
        if (about->command != FOR_NOTHING)
            assert_ptr_equal(options_command(about->command), about);
        for (const char *at = about->basics; *at != '\0'; at += strspn(at, " ")) {
            size_t bytes = strcspn(at, " ");
            unsigned found = 0;

            for (unsigned r = 0; r < options_count; r++)
                found += (options_table[r].commands & about->command) != 0 &&
                         !options_table[r].hidden &&
                         strlen(options_table[r].name) == bytes &&
                         strncmp(options_table[r].name, at, bytes) == 0;
            if (found != 1)
                fail_msg("%s: %u options '%.*s'", about->name, found, (int)bytes, at);
            at += bytes;
            words++;
        }
        assert_true(words <= 10);
    }
    for (unsigned r = 0; r < options_count; r++)
        assert_int_equal(options_table[r].commands & ~seen, 0);
}

/* What the examples say can be read. */
static void test_examples(void **state)
{
    struct settings got;
    char head[64];

    (void)state;
    for (unsigned i = 0; i < options_commands_count; i++) {
        const struct option_command_row *about = &options_commands[i];
        const char *line = about->example;

        if (about->command == FOR_NOTHING)
            continue;
        (void)snprintf(head, sizeof head, "gapless %s", about->name);
        assert_memory_equal(line, head, strlen(head));
        if (!GAPLESS_HAVE_VERBS && strstr(line, "verbs") != NULL)
            continue;
        if (about->command != FOR_BENCH &&
            read_line(about->command, line + strlen(head) - 1, &got) != OPTIONS_GO)
            fail_msg("'%s' cannot be read", line);
    }
}

/* One name, one meaning: a command has an option of a name once, and a letter once. */
static void test_names(void **state)
{
    (void)state;
    for (unsigned a = 0; a < options_count; a++)
        for (unsigned b = a + 1; b < options_count; b++) {
            const struct option_row *x = &options_table[a], *y = &options_table[b];

            if ((x->commands & y->commands) == 0)
                continue;
            if (strcmp(x->name, y->name) == 0 ||
                (x->letter != '\0' && x->letter == y->letter))
                fail_msg("--%s and --%s of one command", x->name, y->name);
        }
}

static void test_lists(void **state)
{
    struct settings got;

    (void)state;
    assert_int_equal(read_line(FOR_BENCH_TRANSPORT,
                               "transport --sizes 8,4K,1Mi --ops read,update", &got),
                     OPTIONS_GO);
    assert_int_equal(got.sizes.count, 3);
    assert_int_equal(got.sizes.at[1], 4096);
    assert_int_equal(got.sizes.at[2], 1u << 20);
    assert_int_equal(got.ops, 1u << 1 | 1u << 4);
    assert_int_equal(read_line(FOR_BENCH_TRANSPORT, "transport", &got), OPTIONS_GO);
    assert_int_equal(got.ops, 31);
    assert_int_equal(got.sizes.count, 0);
    assert_int_equal(
        read_line(FOR_BENCH_RULES, "rules --rule asgd,hb-asgd --sizes 4k", &got),
        OPTIONS_GO);
    assert_int_equal(got.rules, 1u << 0 | 1u << 2);
    assert_int_equal(got.sizes.at[0], 4000);
    assert_int_equal(read_line(FOR_BENCH_RULES, "rules --rules asgd,", &got),
                     OPTIONS_WRONG);
    assert_int_equal(read_line(FOR_BENCH_RULES, "rules --rules all,asgd", &got),
                     OPTIONS_WRONG);
}

static void test_plan(void **state)
{
    struct settings got;

    (void)state;
    assert_int_equal(read_line(FOR_PLAN,
                               "plan --parameters 25.6M --link measured --batch-time "
                               "120ms --measured a --measured b --gpu-memory 80GB",
                               &got),
                     OPTIONS_GO);
    assert_int_equal(got.parameters, 25600000);
    assert_true(got.link < 0 && got.batch_time == 0.12 && got.gpu_memory == 80e9);
    assert_int_equal(got.measured.count, 2);
    assert_string_equal(got.measured.at[1], "b");
    /* What is typed replaces the environment's list. */
    assert_int_equal(setenv("GAPLESS_MEASURED", "c", 1), 0);
    assert_int_equal(read_line(FOR_PLAN, "plan", &got), OPTIONS_GO);
    assert_int_equal(got.measured.count, 1);
    assert_int_equal(read_line(FOR_PLAN, "plan --measured a", &got), OPTIONS_GO);
    assert_int_equal(got.measured.count, 1);
    assert_string_equal(got.measured.at[0], "a");
    assert_int_equal(unsetenv("GAPLESS_MEASURED"), 0);
}

/* A variable that nothing reads is taken out of the environment of the processes that
 * are started: each says so once. */
static void test_unknown_variables(void **state)
{
    struct settings got;

    (void)state;
    assert_int_equal(setenv("GAPLESS_WORKRES", "3", 1), 0);
    assert_int_equal(setenv("GAPLESS_ISA", "generic", 1), 0);
    assert_int_equal(read_line(FOR_TRAIN, "train", &got), OPTIONS_GO);
    assert_null(getenv("GAPLESS_WORKRES"));
    assert_non_null(getenv("GAPLESS_ISA"));
    assert_int_equal(unsetenv("GAPLESS_ISA"), 0);
}

/* No line of any help is too wide for a page. */
static void test_help_fits(void **state)
{
    (void)state;
    for (unsigned i = 0; i < options_commands_count; i++) {
        char line[512];
        FILE *file = tmpfile();

        assert_non_null(file);
        options_help_of(&options_commands[i], file);
        if (options_commands[i].command != FOR_NOTHING)
            options_basics(options_commands[i].command, file);
        rewind(file);
        while (fgets(line, sizeof line, file) != NULL)
            if (strlen(line) > 97 || strstr(line, " \n") != NULL)
                fail_msg("'%s'", line);
        assert_int_equal(fclose(file), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),        cmocka_unit_test(test_reals),
        cmocka_unit_test(test_spans),         cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_sources),       cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_warmup),        cmocka_unit_test(test_outcome_untouched),
        cmocka_unit_test(test_emit),          cmocka_unit_test(test_times),
        cmocka_unit_test(test_batch_time),    cmocka_unit_test(test_json),
        cmocka_unit_test(test_simulation),    cmocka_unit_test(test_rate_of_rule),
        cmocka_unit_test(test_local_steps),   cmocka_unit_test(test_operands),
        cmocka_unit_test(test_same_and_take), cmocka_unit_test(test_network),
        cmocka_unit_test(test_shm_addresses), cmocka_unit_test(test_verbs),
        cmocka_unit_test(test_basics),        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_names),         cmocka_unit_test(test_lists),
        cmocka_unit_test(test_plan),          cmocka_unit_test(test_unknown_variables),
        cmocka_unit_test(test_help_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
