/* The table of rules, and the checks `bandwidth` (how near each pass is to the speed of
 * the GPU's memory) and `latency` (what starting, seeing and copying little costs). */
#include "bench/gpu/bench_gpu.h"

#include "engine/base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Share of the peak that a pass should reach: the estimate that plans are made with.
 * Below BAD something is wrong with the pass. Only vectors that no cache holds count.
 */
#define SHARE_ASKED 0.85
#define SHARE_BAD 0.60
/* Rules with a number per block visit each block twice, and on the CPU that costs them
 * a quarter to a half. */
#define SHARE_BAD_BLOCK 0.30
#define CACHES                                                                         \
    4 /* vectors together are this many times the L2: then it does not matter */
#define SAMPLES 2000
#define TIMED_S 0.3
#define COPY_BYTES (256u << 20)

struct row {
    double seconds, queue_s; /* of a gradient: alone, and one of a queue; 0: not */
    unsigned bytes;
};

/* Bytes of all vectors of a pass. */
static double footprint(const struct rule *rule, size_t n, uint32_t queue)
{
    unsigned used = rule->reads | rule->writes | rule->measure_reads;
    unsigned once = used & (SLOT_THETA | SLOT_ALL | SLOT_STAT | SLOT_SQUARE);
    unsigned each = used & (SLOT_OWN | SLOT_SENT | SLOT_GRAD);

    return 4.0 * (double)n *
           ((unsigned)__builtin_popcount(once) +
            queue * (unsigned)__builtin_popcount(each));
}

/* One rule at one size, `queue` gradients at a time. GAPLESS_NO_MEMORY: it does not
 * fit.
 */
static int one(const struct bg_run *run, const struct rule *rule, size_t n,
               uint32_t queue, double seconds, double *ret, struct gapless_error *error)
{
    const struct bg_gpu *gpu = &run->gpu;
    struct device *device = NULL;
    struct bg_vectors v;
    double launch = 0;
    int status;

    if (footprint(rule, n, queue) > 0.9 * (double)gpu->facts.free_bytes)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "%s over %zu elements needs %.1f GB", rule->name, n,
                                 1e-9 * footprint(rule, n, queue));
    status = gpu->ops->open(gpu->facts.number, n, bg_blocks_of(n), &device, error);
    if (status != GAPLESS_OK)
        return status;
    status = bg_vectors_open(gpu, device, rule, n, queue, &v, error);
    if (status == GAPLESS_OK)
        status = bg_time(gpu, device, queue > 1 ? bg_launch_queue : bg_launch_one, &v,
                         seconds, &launch, error);
    bg_vectors_close(&v);
    gpu->ops->close(device);
    if (status == GAPLESS_OK)
        *ret = launch / queue / (double)n;
    return status;
}

/* A copy inside of the GPU, and the check of a gradient: seconds of an element. */
static int plain(const struct bg_run *run, size_t n, double seconds, double *ret_copy,
                 double *ret_finite, struct gapless_error *error)
{
    const struct bg_gpu *gpu = &run->gpu;
    const struct rule *rule = rules_find("asgd");
    struct device *device = NULL;
    struct bg_vectors v;
    double copy = 0, finite = 0;
    int status = gpu->ops->open(gpu->facts.number, n, 1, &device, error);

    if (status != GAPLESS_OK)
        return status;
    status = bg_vectors_open(gpu, device, rule, n, 1, &v, error);
    if (status == GAPLESS_OK)
        status = bg_time(gpu, device, bg_launch_copy, &v, seconds, &copy, error);
    if (status == GAPLESS_OK)
        status = bg_time(gpu, device, bg_launch_finite, &v, seconds, &finite, error);
    bg_vectors_close(&v);
    gpu->ops->close(device);
    *ret_copy = copy / (double)n;
    *ret_finite = finite / (double)n;
    return status;
}

static void print_head(const struct bg_run *run, size_t n, double copy)
{
    double peak = (double)run->gpu.facts.bandwidth;

    (void)printf("\n%zu elements", n);
    if (copy > 0)
        (void)printf("; a copy inside of the GPU: %.4g GB/s", 8e-9 / copy);
    if (peak > 0)
        (void)printf("; peak of its memory: %.4g GB/s", 1e-9 * peak);
    (void)printf("\n%-16s %6s %10s %8s %8s %8s %10s\n", "rule", "bytes", "us", "GB/s",
                 "of peak", "of copy", "8 together");
}

/* A share, or nothing where it is not known. */
static const char *share_text(double share, char *text, size_t room)
{
    if (isfinite(share) && share > 0)
        (void)snprintf(text, room, "%.1f %%", 100 * share);
    else
        (void)snprintf(text, room, "-");
    return text;
}

static void print_row(const struct bg_run *run, const struct rule *rule, size_t n,
                      const struct row *row, double copy)
{
    double gb = row->bytes / row->seconds, peak = (double)run->gpu.facts.bandwidth;
    char of_peak[24], of_copy[24], queue[24];

    (void)snprintf(queue, sizeof queue, "-");
    if (row->queue_s > 0)
        (void)snprintf(queue, sizeof queue, "x %.2f", row->seconds / row->queue_s);
    (void)printf("%-16s %6u %10.1f %8.4g %8s %8s %10s\n", rule->name, row->bytes,
                 1e6 * row->seconds * (double)n, 1e-9 * gb,
                 share_text(peak > 0 ? gb / peak : 0, of_peak, sizeof of_peak),
                 share_text(copy > 0 ? gb * copy / 8 : 0, of_copy, sizeof of_copy),
                 queue);
    (void)fflush(stdout);
}

static json_t *row_json(const struct bg_run *run, const struct rule *rule, size_t n,
                        const struct row *row, double copy)
{
    double rate = row->bytes / row->seconds, peak = (double)run->gpu.facts.bandwidth;
    json_t *ret = json_pack("{s:s,s:I,s:i,s:f,s:f,s:f}", "rule", rule->name, "elements",
                            (json_int_t)n, "bytes_per_element", (int)row->bytes,
                            "seconds_per_element", row->seconds, "gb_per_s",
                            1e-9 * rate, "of_copy", copy > 0 ? rate * copy / 8 : 0.0);

    (void)json_object_set_new(ret, "of_peak",
                              peak > 0 ? json_real(rate / peak) : json_null());
    (void)json_object_set_new(ret, "queue_seconds_per_element",
                              row->queue_s > 0 ? json_real(row->queue_s) : json_null());
    return ret;
}

static void plan_add(json_t *plan, const char *list, const char *rule, size_t n,
                     double seconds)
{
    json_t *row = json_pack("{s:I,s:f}", "elements", (json_int_t)n,
                            "seconds_per_element", seconds);

    if (rule != NULL)
        (void)json_object_set_new(row, "rule", json_string(rule));
    (void)json_array_append_new(json_object_get(plan, list), row);
}

static int timings(const struct bg_run *run)
{
    int count = 0;

    for (int r = 0; r < rules_count; r++)
        count += bench_has(run->options->rules, r);
    return (2 * count + 2) * (int)run->options->sizes.count;
}

/* One size. */
static int size_rows(const struct bg_run *run, size_t n, double seconds, json_t *rows,
                     json_t *plan, bool print, int *missing,
                     struct gapless_error *error)
{
    double copy = 0, finite = 0;
    int status = plain(run, n, seconds, &copy, &finite, error);

    if (status != GAPLESS_OK)
        return status;
    if (plan != NULL)
        plan_add(plan, "checks", NULL, n, finite);
    if (print)
        print_head(run, n, copy);
    for (int r = 0; r < rules_count; r++) {
        const struct rule *rule = &rules[r];
        struct row row = {.bytes = rules_bytes(rule)};

        if (!bench_has(run->options->rules, r) ||
            (rule->flags & (RULE_ROUND | RULE_MATRIX)))
            continue; /* a round's pass is that of nag-asgd, Muon's Adam's */
        status = one(run, rule, n, 1, seconds, &row.seconds, error);
        if (status == GAPLESS_OK &&
            one(run, rule, n, DEVICE_QUEUE, seconds, &row.queue_s, NULL) != GAPLESS_OK)
            row.queue_s = 0; /* there was no room */
        if (status == GAPLESS_NO_MEMORY) {
            (*missing)++;
            if (print)
                (void)printf("%-16s %s\n", rule->name, error->text);
            continue;
        }
        if (status != GAPLESS_OK)
            return status;
        if (print)
            print_row(run, rule, n, &row, copy);
        if (plan != NULL)
            plan_add(plan, "passes", rule->name, n, row.seconds);
        (void)json_array_append_new(rows, row_json(run, rule, n, &row, copy));
    }
    return GAPLESS_OK;
}

int bg_rules(const struct bg_run *run, json_t *rows, json_t *plan, bool print,
             int *ret_missing, struct gapless_error *error)
{
    double seconds = run->options->seconds / timings(run);
    int status = GAPLESS_OK;

    if (seconds < TIMED_S && !run->options->quick)
        seconds = TIMED_S;
    *ret_missing = 0;
    for (int s = 0; status == GAPLESS_OK && s < (int)run->options->sizes.count; s++)
        status = size_rows(run, run->options->sizes.at[s], seconds, rows, plan, print,
                           ret_missing, error);
    return status;
}

/* ---- the check `bandwidth` ----------------------------------------------- */

/* Is the size beyond the L2, so that the memory's speed is what is seen? */
static bool in_memory(const struct bg_run *run, const struct rule *rule, size_t n)
{
    return footprint(rule, n, 1) > CACHES * (double)run->gpu.facts.l2_bytes;
}

/* The rows that count: how many, the least share, and the first that is too low. */
struct shares {
    int judged;
    double least;
    const char *slowest, *low;
};

static void judge(const struct bg_run *run, const json_t *rows, struct shares *ret)
{
    const json_t *row;
    size_t i;

    *ret = (struct shares){.least = 1e9};
    json_array_foreach(rows, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "rule"));
        double share = json_number_value(json_object_get(row, "of_peak"));
        size_t n = (size_t)json_integer_value(json_object_get(row, "elements"));
        const struct rule *rule = rules_find(name);

        if (share <= 0 || rule == NULL || !in_memory(run, rule, n))
            continue;
        ret->judged++;
        if (share < ret->least) {
            ret->least = share;
            ret->slowest = name;
        }
        if (ret->low == NULL &&
            share < (rule->flags & RULE_BLOCK ? SHARE_BAD_BLOCK : SHARE_BAD))
            ret->low = name;
    }
}

void bg_bandwidth(struct bg_run *run, struct bg_check *ret)
{
    struct gapless_error error = {0};
    json_t *rows = json_array();
    struct shares shares;
    int missing = 0;
    int status = bg_rules(run, rows, run->plan, false, &missing, &error);

    judge(run, rows, &shares);
    (void)json_object_set(ret->figures, "rules", rows);
    if (status != GAPLESS_OK)
        (void)bg_says(ret, BG_FAILED, "%s", error.text);
    else if (run->gpu.fake)
        (void)bg_says(ret, BG_PASSED,
                      "%zu rows timed; a fake device: not a measurement",
                      json_array_size(rows));
    else if (shares.judged == 0)
        (void)bg_says(ret, BG_NOT_RUN,
                      "%zu rows timed, but none is beyond the L2 of %.0f MB, or the "
                      "memory's peak is not known: say larger --elements",
                      json_array_size(rows), 1e-6 * (double)run->gpu.facts.l2_bytes);
    else
        (void)bg_says(
            ret, shares.low != NULL ? BG_FAILED : BG_PASSED,
            "%d rows beyond the L2: %.0f %% of the memory's peak or more, least %s "
            "(planned with %.0f %%; below %.0f %% fails, a rule with a number per "
            "block below %.0f %%)%s%s%s",
            shares.judged, 100 * shares.least, shares.slowest, 100 * SHARE_ASKED,
            100 * SHARE_BAD, 100 * SHARE_BAD_BLOCK,
            shares.low != NULL ? "; too low: " : "",
            shares.low != NULL ? shares.low : "",
            missing > 0 ? "; some did not fit" : "");
    json_decref(rows);
}

/* ---- the check `latency` ------------------------------------------------- */

struct times {
    double p50, p99;
};

static void times_set(json_t *figures, const char *name, double *sample, int count)
{
    bench_sort(sample, (size_t)count);
    (void)json_object_set_new(
        figures, name,
        json_pack("{s:f,s:f,s:f}", "p50_us", 1e6 * sample[count / 2], "p99_us",
                  1e6 * sample[count * 99 / 100], "max_us", 1e6 * sample[count - 1]));
}

static double p50_of(const json_t *figures, const char *name)
{
    return json_number_value(json_object_get(json_object_get(figures, name), "p50_us"));
}

struct small {
    const struct bg_run *run;
    const struct device_ops *ops;
    struct device *device;
    struct bg_vectors v;
    char *host;
    void *there;
    double sample[SAMPLES];
    int samples;
};

/* Waits by looking, as the master does. */
static int seen(struct small *s, uint64_t ticket, struct gapless_error *error)
{
    double end = clock_seconds() + 1e-9 * (double)BG_WAIT_NS;
    int done;

    while ((done = s->ops->done(s->device, ticket)) == 0)
        if (clock_seconds() > end)
            return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                                     "a small kernel did not end");
    if (done < 0)
        (void)s->ops->failure(s->device, error);
    return done < 0 ? done : GAPLESS_OK;
}

/* The call that launches, with nothing else under way; and from it until its end is
 * seen. */
static int launches(struct small *s, json_t *figures, struct gapless_error *error)
{
    double call[SAMPLES];
    int status = GAPLESS_OK;

    for (int i = -20; status == GAPLESS_OK && i < s->samples; i++) {
        double began = clock_seconds(), launched;

        bg_launch_one(&s->v, s->device);
        launched = clock_seconds();
        status = seen(s, s->ops->mark(s->device, DEVICE_WORK), error);
        if (i >= 0) {
            call[i] = launched - began;
            s->sample[i] = clock_seconds() - began;
        }
    }
    if (status == GAPLESS_OK) {
        times_set(figures, "launch_call", call, s->samples);
        times_set(figures, "launch_to_seen", s->sample, s->samples);
    }
    return status;
}

static int marks(struct small *s, json_t *figures, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    for (int i = -20; status == GAPLESS_OK && i < s->samples; i++) {
        double began = clock_seconds();

        status = seen(s, s->ops->mark(s->device, DEVICE_WORK), error);
        if (i >= 0)
            s->sample[i] = clock_seconds() - began;
    }
    if (status == GAPLESS_OK)
        times_set(figures, "mark_to_seen", s->sample, s->samples);
    return status;
}

/* A copy of few bytes, one way, until it is seen. */
static int copies(struct small *s, bool in, size_t bytes, const char *name,
                  json_t *figures, struct gapless_error *error)
{
    enum device_stream stream = in ? DEVICE_IN : DEVICE_OUT;
    int status = GAPLESS_OK;

    for (int i = -20; status == GAPLESS_OK && i < s->samples; i++) {
        double began = clock_seconds();

        if (in)
            s->ops->copy_in(s->device, s->there, s->host, bytes);
        else
            s->ops->copy_out(s->device, s->host, s->there, bytes);
        status = seen(s, s->ops->mark(s->device, stream), error);
        if (i >= 0)
            s->sample[i] = clock_seconds() - began;
    }
    if (status == GAPLESS_OK)
        times_set(figures, name, s->sample, s->samples);
    return status;
}

/* GB/s of large copies, one way, from page-locked memory. */
static int flood(struct small *s, bool in, size_t bytes, const char *name,
                 json_t *figures, struct gapless_error *error)
{
    enum device_stream stream = in ? DEVICE_IN : DEVICE_OUT;
    double best = 0;
    int status = GAPLESS_OK;

    for (int i = 0; status == GAPLESS_OK && i < 5; i++) {
        double began = clock_seconds();

        if (in)
            s->ops->copy_in(s->device, s->there, s->host, bytes);
        else
            s->ops->copy_out(s->device, s->host, s->there, bytes);
        status = seen(s, s->ops->mark(s->device, stream), error);
        best = fmax(best, (double)bytes / (clock_seconds() - began));
    }
    (void)json_object_set_new(figures, name, json_real(1e-9 * best));
    return status;
}

static int measured(struct small *s, size_t bytes, json_t *figures,
                    struct gapless_error *error)
{
    static const struct {
        bool in;
        size_t bytes;
        const char *name;
    } rows[] = {{true, 4, "copy_in_4"},         {false, 4, "copy_out_4"},
                {true, 4096, "copy_in_4096"},   {false, 4096, "copy_out_4096"},
                {true, 1 << 20, "copy_in_1Mi"}, {false, 1 << 20, "copy_out_1Mi"}};
    int status = launches(s, figures, error);

    if (status == GAPLESS_OK)
        status = marks(s, figures, error);
    for (size_t i = 0; status == GAPLESS_OK && i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].bytes <= bytes)
            status = copies(s, rows[i].in, rows[i].bytes, rows[i].name, figures, error);
    if (status == GAPLESS_OK)
        status = flood(s, true, bytes, "pinned_in_gb_per_s", figures, error);
    if (status == GAPLESS_OK)
        status = flood(s, false, bytes, "pinned_out_gb_per_s", figures, error);
    return status;
}

static void plan_latency(struct bg_run *run, const json_t *figures)
{
    double call = p50_of(figures, "launch_call");
    double whole = p50_of(figures, "launch_to_seen");

    (void)json_object_set_new(run->plan, "launch_s", json_real(1e-6 * call));
    (void)json_object_set_new(run->plan, "seen_s",
                              json_real(1e-6 * (whole > call ? whole - call : 0)));
}

void bg_latency(struct bg_run *run, struct bg_check *ret)
{
    struct gapless_error error = {0};
    size_t bytes = run->options->quick ? 1u << 20 : COPY_BYTES;
    struct small *s = calloc(1, sizeof *s);
    int status = GAPLESS_NO_MEMORY;

    if (s == NULL || (s->host = aligned_alloc(4096, bytes)) == NULL) {
        (void)bg_says(ret, BG_NOT_RUN, "no memory on the host");
        free(s);
        return;
    }
    memset(s->host, 0, bytes);
    s->run = run;
    s->ops = run->gpu.ops;
    s->samples = run->options->quick ? 20 : SAMPLES;
    status = s->ops->open(run->gpu.facts.number, 1024, 1, &s->device, &error);
    if (status == GAPLESS_OK) {
        status = bg_vectors_open(&run->gpu, s->device, rules_find("asgd"), 256, 1,
                                 &s->v, &error);
        if (status == GAPLESS_OK)
            status = s->ops->pin(s->device, s->host, bytes, &error);
        if (status == GAPLESS_OK)
            status = s->ops->take(s->device, bytes, &s->there, &error);
        if (status == GAPLESS_OK)
            status = measured(s, bytes, ret->figures, &error);
        bg_vectors_close(&s->v);
        s->ops->close(s->device); /* and gives back the rest */
    }
    if (status == GAPLESS_OK) {
        plan_latency(run, ret->figures);
        (void)bg_says(
            ret, BG_PASSED,
            "launch %.1f us, seen after %.1f us; 4 bytes in %.1f us, out %.1f us; "
            "pinned %.1f GB/s in, %.1f GB/s out%s",
            p50_of(ret->figures, "launch_call"), p50_of(ret->figures, "launch_to_seen"),
            p50_of(ret->figures, "copy_in_4"), p50_of(ret->figures, "copy_out_4"),
            json_number_value(json_object_get(ret->figures, "pinned_in_gb_per_s")),
            json_number_value(json_object_get(ret->figures, "pinned_out_gb_per_s")),
            run->gpu.fake ? "; a fake device: not a measurement" : "");
    } else {
        (void)bg_says(ret, BG_FAILED, "%s", error.text);
    }
    free(s->host);
    free(s);
}
