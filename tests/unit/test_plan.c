/* gapless plan: the arithmetic against cases worked out by hand, what must rise and
 * fall, the extremes, numbers with units; and the figures that it calls measured are
 * those of bench/results. */
#include "cluster/options/parse.h"
#include "cluster/plan/plan.h"

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

static void near(double x, double y)
{
    if (!(fabs(x - y) <= 1e-9 * fabs(y)))
        fail_msg("%.15g is not %.15g", x, y);
}

static struct plan_input input_of(uint64_t parameters, uint32_t workers)
{
    struct plan_input ret = {.parameters = parameters,
                             .workers = workers,
                             .batch_s = 0.1,
                             .period = 1,
                             .range_elements = 1000000};

    assert_int_equal(gapless_rule_find("dana-ga", &ret.rule, NULL), GAPLESS_OK);
    return ret;
}

static struct plan_result planned(const struct plan_input *input,
                                  const struct plan_speeds *speeds)
{
    struct plan_result ret;

    plan_compute(input, speeds, &ret);
    return ret;
}

/* 16 M parameters at 6.4 GB/s: 10 ms each way, 16 ranges of 0.625 ms. */
static const struct plan_speeds even = {
    .wire = 6.4e9, .check_s = 0, .pass_s = 10e-3 / 16e6};

/* Wire, pass and wire take alike: what the simulator's link model can reach is 0.375,
 * 0.500 and 0.344 of the sum of the parts in 16, 4 and 64 ranges. */
static void ranges_follow_each_other(void **state)
{
    static const struct {
        uint64_t elements;
        double share;
    } rows[] = {{1000000, 18.0 / 48},
                {4000000, 6.0 / 12},
                {250000, 66.0 / 192},
                {16000000, 1.0},
                {1u << 30, 1.0}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct plan_input in = input_of(16000000, 1);
        struct plan_result r;

        in.range_elements = rows[i].elements;
        r = planned(&in, &even);
        near(r.apart_s, 30e-3);
        near(r.alone_s, 30e-3 * rows[i].share);
    }
}

/* By hand: 2 M parameters in 2 ranges; 4 ms by wire, 1 + 3 ms of passes, 2 x 0.5 ms for
 * ranges; 2 x 0.25 ms of latency. A range: 2, 2 + 0.5, 2. */
static void one_case_by_hand(void **state)
{
    struct plan_input in = input_of(2000000, 30);
    struct plan_speeds speeds = {.wire = 2e9,
                                 .latency_s = 0.25e-3,
                                 .range_s = 0.5e-3,
                                 .check_s = 1e-3 / 2e6,
                                 .pass_s = 3e-3 / 2e6};
    struct plan_result r = planned(&in, &speeds);

    (void)state;
    assert_int_equal(r.ranges, 2);
    near(r.wire_s, 4e-3);
    near(r.check_s, 1e-3);
    near(r.pass_s, 3e-3);
    near(r.ranges_s, 1e-3);
    near(r.apart_s, 13.5e-3);
    near(r.alone_s, 0.5e-3 + 2e-3 + 2.5e-3 + 2e-3 + 2.5e-3);
    near(r.wire_rate, 250);
    near(r.pass_rate, 200);
    near(r.can_rate, 200);
    near(r.demand, 30 / 109.5e-3);
    near(r.rate, 200);
    assert_int_equal(r.bound, PLAN_BY_PASS);
    near(r.saturates_at, 200 * 109.5e-3);
    near(r.trip_s, 30 / 200.0 - 0.1);
    near(r.busy, 0.1 * 200 / 30);
    near(r.lag, 29);
    near(r.link_bytes, 16e6);
    /* dana-ga: theta, all, stat; own, sent and the gradient of each worker; a vector is
     * 8,000,000 bytes, in pieces of 64 KiB 8,060,928 */
    near(r.shared, 3 * 8060928.0);
    near(r.vectors, 30 * 2 * 8060928.0);
    near(r.landing, 30 * 8060928.0);
    near(r.total, 93 * 8060928.0);

    /* Two masters, a range each: 274 are asked for, 400 can be done. */
    assert_int_equal(r.shards_for_speed, 2);
    in.shards = 2;
    r = planned(&in, &speeds);
    near(r.alone_s, 0.5e-3 + 2e-3 + 2.5e-3 + 2e-3 + 2e-3); /* now the wire is longest */
    near(r.can_rate, 400);
    near(r.rate, 30 / 109e-3);
    assert_int_equal(r.bound, PLAN_BY_WORKERS);
    near(r.trip_s, 9e-3);
    near(r.shared, 3 * 4063232.0);
}

/* A worker that exchanges after four batches of its own asks a quarter as often; a rule
 * that needs a norm of the whole gradient has nothing to overlap. */
static void rules_that_differ(void **state)
{
    struct plan_input in = input_of(16000000, 8);
    struct plan_result r;

    (void)state;
    in.period = 4;
    r = planned(&in, &even);
    near(r.demand, 8 / (0.4 + r.alone_s));
    in.period = 1;
    in.rule.whole = true;
    r = planned(&in, &even);
    near(r.alone_s, 30e-3);
    near(r.demand, 8 / 0.13);
}

static void nothing_moves_where_memory_is_mapped(void **state)
{
    struct plan_input in = input_of(50000, 4);
    struct plan_speeds speeds = {
        .wire = (double)INFINITY, .range_s = 1e-6, .pass_s = 1e-9};
    struct plan_result r = planned(&in, &speeds);

    (void)state;
    near(r.alone_s, 51e-6);
    assert_true(isinf(r.wire_rate) && r.link_bytes <= 0 && r.wire_s <= 0);
    near(r.can_rate, 1 / 51e-6);
    assert_int_equal(r.shards_for_speed, 1);
}

/* More workers, a faster link, a shorter pass, more masters: never fewer updates. */
static void what_must_rise_rises(void **state)
{
    double before = 0;

    (void)state;
    for (uint32_t workers = 1; workers <= GAPLESS_WORKERS_MAX; workers *= 2) {
        struct plan_input in = input_of(25600000, workers);
        struct plan_result r = planned(&in, &even);

        assert_true(r.rate >= before && r.rate <= r.can_rate && r.rate <= r.demand);
        assert_true(r.busy > 0 && r.busy < 1 && r.trip_s >= r.alone_s - 1e-12);
        assert_true((r.bound == PLAN_BY_WORKERS) == (workers <= r.saturates_at));
        before = r.rate;
    }
    before = 0;
    for (int i = 0; i < 9; i++) {
        struct plan_input in = input_of(25600000, 64);
        struct plan_speeds speeds = even;
        struct plan_result r;

        speeds.wire = 1e8 * pow(3, i);
        r = planned(&in, &speeds);
        assert_true(r.rate >= before);
        before = r.rate;
    }
    before = 0;
    for (uint32_t shards = 1; shards <= 26; shards++) {
        struct plan_input in = input_of(25600000, 1000);
        struct plan_result r;

        in.shards = shards;
        r = planned(&in, &even);
        assert_true(r.rate >= before);
        assert_true(shards < r.shards_for_speed ? r.bound != PLAN_BY_WORKERS : true);
        if (shards == r.shards_for_speed)
            assert_int_equal(r.bound, PLAN_BY_WORKERS);
        before = r.rate;
    }
}

static void extremes(void **state)
{
    struct plan_input in = input_of(1, 1);
    struct plan_result r = planned(&in, &even);

    (void)state;
    assert_int_equal(r.ranges, 1);
    assert_true(r.rate > 0 && isfinite(r.rate));
    assert_true(r.lag >= 0 && r.lag <= 0);
    near(r.total, 6 * 65536.0);

    in = input_of(GAPLESS_ELEMENTS_MAX, GAPLESS_WORKERS_MAX);
    in.range_elements = 16;
    in.memory = 80e9;
    r = planned(&in, &even);
    assert_true(isfinite(r.rate) && r.rate > 0 && isfinite(r.total));
    assert_int_equal(r.ranges, UINT32_MAX); /* 2^32: as many as can be counted */

    in = input_of(1000000, 4096); /* one range: it cannot be cut */
    r = planned(&in, &even);
    assert_int_equal(r.shards_for_speed, 0);
    in.memory = 1e6;
    r = planned(&in, &even);
    assert_int_equal(r.shards_for_memory, 0);
    in.shards = 100;
    r = planned(&in, &even);
    assert_int_equal(r.shards, 1);
}

/* ---- numbers with units -------------------------------------------------- */

static void parameters_are_read(void **state)
{
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {{"1", 1},           {"25.6M", 25600000},        {"0.27M", 270000},
                {"1B", 1000000000}, {"25,600,000", 25600000},   {"1,000", 1000},
                {"2.5k", 2500},     {"68719476736", 1ull << 36}};
    static const char *const bad[] = {
        "",          "0",           "-1",    "25.6",     "x",
        "1e6",       "1,00",        ",100",  "1000,000", "1,0000",
        "1.000,000", "68719476737", "1.2.3", "M",        "25 M",
        "1MM",       "0x10",        "nan",   "1,",       "99999999999999999999B",
        "1.0001k1"};
    struct parse_error reason;
    uint64_t value = 7;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (!parse_parameters(good[i].text, &value, &reason))
            fail_msg("'%s' %s", good[i].text, reason.text);
        assert_true(value == good[i].value);
    }
    value = 7;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (parse_parameters(bad[i], &value, &reason) || value != 7)
            fail_msg("'%s'", bad[i]);
}

static void links_times_and_sizes_are_read(void **state)
{
    struct parse_error reason;
    double value = 7;

    (void)state;
    assert_true(parse_link("400Gb", &value, &reason));
    near(value, 50e9);
    assert_true(parse_link("100Gb/s", &value, &reason));
    near(value, 12.5e9);
    assert_true(parse_link("25GB/s", &value, &reason));
    near(value, 25e9);
    assert_true(parse_link("shm", &value, &reason) && value <= 0);
    value = 7;
    assert_false(parse_link("400", &value, &reason));
    assert_false(parse_link("400gb", &value, &reason)); /* bits or bytes? */
    assert_false(parse_link("0Gb", &value, &reason));
    assert_false(parse_link("1e300Gb", &value, &reason));
    assert_true(parse_bytes("80GB", &value, &reason));
    near(value, 80e9);
    assert_false(parse_bytes("80", &value, &reason));
}

/* ---- what is called measured --------------------------------------------- */

static json_t *results(const char *name)
{
    char path[300];
    json_error_t reason;
    json_t *ret;

    (void)snprintf(path, sizeof path, "%s/bench/results/%s", GAPLESS_SOURCE_DIR, name);
    ret = json_load_file(path, 0, &reason);
    if (ret == NULL)
        fail_msg("%s: %s", path, reason.text);
    return ret;
}

/* What the program carries is what the files say, for every rule and size. */
static void measured_means_measured(void **state)
{
    static struct plan_measured measured;
    json_t *root = results("rules.json");
    const json_t *row;
    size_t i, found = 0;

    (void)state;
    plan_measured_builtin(&measured);
    assert_non_null(strstr(measured.cpu.where, "rules.json"));
    assert_non_null(strstr(
        measured.cpu.where,
        json_string_value(json_object_get(root, "date")) != NULL ? "2026-11-22" : "?"));
    assert_memory_equal(json_string_value(json_object_get(root, "date")), "2026-11-22",
                        10);
    json_array_foreach(json_object_get(root, "results"), i, row)
    {
        const char *rule = json_string_value(json_object_get(row, "rule"));
        double ns = json_number_value(json_object_get(row, "ns_per_element"));
        uint64_t elements =
                     (uint64_t)json_integer_value(json_object_get(row, "elements")),
                 at = 0;
        double seconds = plan_measured_find(&measured.cpu, rule, elements, &at);

        if (strcmp(rule, "ssgd") == 0) /* is not planned */
            continue;
        found++;
        if (at != elements || fabs(1e9 * seconds - ns) > 6e-5)
            fail_msg("%s at %llu: %.5f ns, and %.5f in the file", rule,
                     (unsigned long long)elements, 1e9 * seconds, ns);
    }
    assert_int_equal(found, 69);
    json_decref(root);

    root = results("update-shm.json");
    json_array_foreach(json_object_get(root, "sizes"), i, row)
    {
        uint64_t elements =
                     (uint64_t)json_integer_value(json_object_get(row, "bytes")) / 4,
                 at = 0;
        double us =
            json_number_value(json_object_get(json_object_get(row, "check"), "p50_us"));
        double seconds = plan_measured_find(&measured.cpu, "", elements, &at);

        assert_true(at == elements);
        assert_true(fabs(1e9 * seconds - 1e3 * us / (double)elements) < 6e-5);
        if (i == 0)
            assert_true(fabs(1e6 * measured.note_shm_s -
                             json_number_value(json_object_get(
                                 json_object_get(row, "rest"), "p50_us"))) < 0.05);
    }
    json_decref(root);
}

static void terms_say_where_they_are_from(void **state)
{
    static struct plan_measured measured;
    struct plan_machine gpu = {.gpu = true, .bandwidth = 3350e9, .link = 50e9};
    struct plan_machine cpu = {.link = 0};
    struct gapless_rule rule;
    struct plan_terms terms;
    struct plan_speeds speeds;

    (void)state;
    plan_measured_builtin(&measured);
    assert_int_equal(gapless_rule_find("dana-ga", &rule, NULL), GAPLESS_OK);
    plan_terms(&gpu, &measured, &rule, 25600000, &terms);
    for (int i = 0; i < TERMS; i++) { /* no GPU, no card was measured */
        assert_int_equal(terms.term[i].source, PLAN_ASSUMED);
        assert_true(strlen(terms.term[i].where) > 10);
    }
    plan_speeds(&gpu, &terms, &speeds);
    near(speeds.pass_s, 44 / (0.85 * 3350e9));
    near(speeds.check_s, 4 / (0.85 * 3350e9));
    near(speeds.wire, 0.95 * 50e9);

    plan_terms(&cpu, &measured, &rule, 25600000, &terms);
    for (int i = 0; i < TERMS; i++)
        assert_int_not_equal(terms.term[i].source, PLAN_ASSUMED);
    assert_true(fabs(terms.term[TERM_PASS].value - 0.9441e-9) < 1e-13);
    plan_speeds(&cpu, &terms, &speeds);
    assert_true(isinf(speeds.wire));

    assert_int_equal(gapless_rule_find("easgd", &rule, NULL), GAPLESS_OK);
    plan_terms(&cpu, &measured, &rule, 25600000, &terms); /* is not in rules.json */
    assert_int_equal(terms.term[TERM_PASS].source, PLAN_ASSUMED);
    assert_true(fabs(terms.term[TERM_PASS].value - 0.3997e-9) < 1e-13);

    cpu.bandwidth = 200e9;
    cpu.bandwidth_given = true;
    plan_terms(&cpu, &measured, &rule, 25600000, &terms);
    assert_int_equal(terms.term[TERM_PASS].source, PLAN_GIVEN);
    near(terms.term[TERM_PASS].value, 16 / 200e9);
}

/* What kind a rule is, is known by its row, not by its name. */
static void kinds_are_of_the_table(void **state)
{
    struct plan_options options = {
        .input = {.workers = 8, .batch_s = 0.1, .range_elements = 1u << 20}};
    struct gapless_rule rule;
    struct plan_case c;

    (void)state;
    plan_measured_builtin(&options.measured);
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        rule.name = "another-name";
        options.input.period = 1;
        plan_case_of(&options, &rule, 1000000, 0, false, &c);
        assert_int_equal(c.input.period, rule.elastic ? 4 : 1);
        options.input.period = 16; /* local steps */
        plan_case_of(&options, &rule, 1000000, 0, false, &c);
        assert_int_equal(c.input.period, rule.elastic ? 4 : 16);
    }
}

/* ---- files --------------------------------------------------------------- */

static int read_text(const char *text, struct plan_measured *ret)
{
    char path[] = "/tmp/gapless-plan-XXXXXX";
    struct gapless_error error = {0};
    int fd = mkstemp(path), status;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(close(fd), 0);
    plan_measured_builtin(ret);
    status = plan_measured_read(path, ret, &error);
    assert_int_equal(unlink(path), 0);
    assert_true((status == GAPLESS_OK) == (error.text[0] == '\0'));
    return status;
}

static void files_are_read(void **state)
{
    static struct plan_measured m;
    struct plan_machine gpu = {.gpu = true, .bandwidth = 3350e9, .link = 50e9};
    struct gapless_rule rule;
    struct plan_terms terms;

    (void)state;
    assert_int_equal(
        read_text(
            "{\"benchmark\":\"gpu-acceptance\",\"fake\":false,\"date\":"
            "\"2027-01-02T\",\"gpu\":{\"name\":\"X9\"},\"plan\":{\"passes\":["
            "{\"rule\":\"dana-ga\",\"elements\":1000,\"seconds_per_element\":"
            "2e-11}],\"checks\":[{\"elements\":1000,\"seconds_per_element\":3e-12}"
            "],\"launch_s\":2e-6,\"seen_s\":1e-6,\"link_bytes_per_s\":4e10}}",
            &m),
        GAPLESS_OK);
    assert_int_equal(gapless_rule_find("dana-ga", &rule, NULL), GAPLESS_OK);
    plan_terms(&gpu, &m, &rule, 25600000, &terms);
    assert_int_equal(terms.term[TERM_PASS].source, PLAN_MEASURED);
    near(terms.term[TERM_PASS].value, 2e-11);
    near(terms.term[TERM_CHECK].value, 3e-12);
    near(terms.term[TERM_LAUNCH].value, 4e-6);
    near(terms.term[TERM_SEEN].value, 1e-6);
    near(m.link, 4e10);
    assert_non_null(strstr(terms.term[TERM_PASS].where, "X9"));
    assert_non_null(strstr(terms.term[TERM_PASS].where, "2027-01-02"));
    assert_int_equal(terms.term[TERM_WIRE_SHARE].source, PLAN_ASSUMED);

    assert_int_equal(
        read_text(
            "{\"benchmark\":\"rules\",\"cpu\":\"Z\",\"date\":\"2027-01-01\","
            "\"results\":[{\"rule\":\"asgd\",\"elements\":5,\"ns_per_element\":2}"
            ",{\"rule\":\"asgd\",\"elements\":3,\"ns_per_element\":1},{\"rule\":"
            "\"asgd\",\"elements\":-1,\"ns_per_element\":9},{\"rule\":\"asgd\"}]}",
            &m),
        GAPLESS_OK);
    uint64_t at = 0;
    near(plan_measured_find(&m.cpu, "asgd", 2, &at), 1e-9);
    near(plan_measured_find(&m.cpu, "asgd", 4, &at), 2e-9);
    near(plan_measured_find(&m.cpu, "asgd", 400, &at), 2e-9);
    assert_true(at == 5);
    assert_true(plan_measured_find(&m.cpu, "dana-ga", 4, &at) <= 0);
    assert_true(plan_measured_find(&m.cpu, "", 4, &at) > 0); /* of the other file */

    assert_int_equal(read_text("{\"benchmark\":\"gpu-acceptance\",\"fake\":true}", &m),
                     GAPLESS_INVALID);
    assert_int_equal(read_text("{\"benchmark\":\"gpu-acceptance\"}", &m),
                     GAPLESS_INVALID);
    assert_int_equal(read_text("{\"benchmark\":\"transport\"}", &m), GAPLESS_INVALID);
    assert_int_equal(read_text("[]", &m), GAPLESS_INVALID);
    assert_int_equal(read_text("", &m), GAPLESS_INVALID);
    assert_int_equal(read_text("{\"benchmark\":\"rules\",\"results\":7}", &m),
                     GAPLESS_OK); /* nothing in it: the assumptions stay */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_follow_each_other),
        cmocka_unit_test(one_case_by_hand),
        cmocka_unit_test(rules_that_differ),
        cmocka_unit_test(nothing_moves_where_memory_is_mapped),
        cmocka_unit_test(what_must_rise_rises),
        cmocka_unit_test(extremes),
        cmocka_unit_test(parameters_are_read),
        cmocka_unit_test(links_times_and_sizes_are_read),
        cmocka_unit_test(measured_means_measured),
        cmocka_unit_test(terms_say_where_they_are_from),
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(kinds_are_of_the_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
