/* gapless bench gpu --accept: the checks in order, a short table, and
 * gpu-acceptance.json with every figure and what it was measured on. */
#include "bench/gpu/bench_gpu.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "gpu-acceptance.json"
#define TEXT_COLUMNS 62

typedef void check_function(struct bg_run *run, struct bg_check *ret);

static const struct {
    check_function *run;
    bool here; /* uses the GPU in this process */
} checks[BG_CHECKS] = {
    [BG_BITS] = {bg_bits, true},           [BG_SANITIZER] = {bg_sanitizer, false},
    [BG_BANDWIDTH] = {bg_bandwidth, true}, [BG_GPUDIRECT] = {bg_gpudirect, true},
    [BG_SOAK] = {bg_soak, true},           [BG_LATENCY] = {bg_latency, true},
    [BG_RUNS] = {bg_runs, false},          [BG_KILL] = {bg_kill, false},
};

const char *const bg_names[BG_CHECKS] = {
    [BG_BITS] = "bits",           [BG_SANITIZER] = "sanitizer",
    [BG_BANDWIDTH] = "bandwidth", [BG_GPUDIRECT] = "gpudirect",
    [BG_SOAK] = "soak",           [BG_LATENCY] = "latency",
    [BG_RUNS] = "runs",           [BG_KILL] = "kill"};

static const char *const verdicts[] = {
    [BG_NOT_RUN] = "not run", [BG_PASSED] = "passed", [BG_FAILED] = "FAILED"};

enum bg_verdict bg_says(struct bg_check *check, enum bg_verdict verdict,
                        const char *format, ...)
{
    va_list list;

    check->verdict = verdict;
    va_start(list, format);
    (void)vsnprintf(check->text, sizeof check->text, format, list);
    va_end(list);
    return verdict;
}

json_t *bg_facts_json(const struct bg_gpu *gpu)
{
    const struct device_facts *f = &gpu->facts;
    json_t *ret = json_pack(
        "{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:i,s:i,s:s}", "name", f->name, "bus", f->bus,
        "number", (json_int_t)f->number, "processors", (json_int_t)f->processors,
        "memory_bytes", (json_int_t)f->memory_bytes, "free_bytes",
        (json_int_t)f->free_bytes, "l2_bytes", (json_int_t)f->l2_bytes,
        "peak_bytes_per_s", (json_int_t)f->bandwidth, "driver", f->driver, "runtime",
        f->runtime, "plugin", gpu->plugin->version);
    char capability[24];

    (void)snprintf(capability, sizeof capability, "%u.%u", f->major, f->minor);
    (void)json_object_set_new(ret, "capability", json_string(capability));
    (void)json_object_set_new(ret, "gpudirect", json_boolean(f->rdma));
    (void)json_object_set_new(ret, "dmabuf", json_boolean(f->dmabuf));
    (void)json_object_set_new(ret, "writes_ordering", json_integer(f->ordering));
    (void)json_object_set_new(ret, "host_can_flush", json_boolean(f->can_flush));
    return ret;
}

/* Does the GPU still answer? A context that a kernel broke never does. */
static bool answers(const struct bg_gpu *gpu)
{
    struct device *device = NULL;
    bool ret =
        gpu->ops->open(gpu->facts.number, 1024, 1, &device, NULL) == GAPLESS_OK &&
        gpu->ops->wait(device, gpu->ops->mark(device, DEVICE_WORK), BG_WAIT_NS, NULL) ==
            GAPLESS_OK;

    gpu->ops->close(device);
    return ret;
}

/* ---- folders ------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *info, int kind,
                      struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static void remove_folder(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int folders(const struct bench_gpu_config *options, struct bg_run *run,
                   struct gapless_error *error)
{
    const char *temporary = getenv("TMPDIR");
    ssize_t length = readlink("/proc/self/exe", run->self, sizeof run->self - 1);

    if (length <= 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                 "cannot find this program: /proc/self/exe");
    run->self[length] = '\0';
    if (mkdir(options->out, 0777) != 0 && errno != EEXIST)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                 "cannot make the folder %.200s", options->out);
    (void)snprintf(run->folder, sizeof run->folder, "%.200s/gapless-accept-XXXXXX",
                   temporary != NULL && temporary[0] == '/' ? temporary : "/tmp");
    if (mkdtemp(run->folder) == NULL)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                 "cannot make a temporary folder");
    return GAPLESS_OK;
}

/* ---- the report ---------------------------------------------------------- */

/* The text wrapped, under where it began. */
static void print_check(const struct bg_check *check)
{
    const char *text = check->text;
    size_t column = 0;

    (void)printf("  %-10s %-8s %6.1f s ", bg_names[check->name],
                 verdicts[check->verdict], check->seconds);
    while (*text != '\0') {
        size_t word = strcspn(text, " ");

        if (column > 0 && column + 1 + word > TEXT_COLUMNS) {
            (void)printf("\n%30s", "");
            column = 0;
        }
        (void)printf(" %.*s", (int)word, text);
        column += 1 + word;
        text += word;
        text += strspn(text, " ");
    }
    (void)printf("\n");
    (void)fflush(stdout);
}

static json_t *check_json(const struct bg_check *check)
{
    return json_pack("{s:s,s:s,s:s,s:f,s:O}", "check", bg_names[check->name], "verdict",
                     check->verdict == BG_FAILED ? "failed" : verdicts[check->verdict],
                     "text", check->text, "seconds", check->seconds, "figures",
                     check->figures);
}

static int write_report(const struct bg_run *run, json_t *list, const int *count)
{
    char path[600];
    json_t *root = json_pack("{s:s,s:b,s:s,s:b,s:i,s:i,s:i}", "benchmark",
                             "gpu-acceptance", "fake", run->gpu.fake, "note",
                             run->gpu.fake ? "fake device: not a measurement"
                                           : "measured on the GPU named here",
                             "quick", run->options->quick, "passed", count[BG_PASSED],
                             "failed", count[BG_FAILED], "not_run", count[BG_NOT_RUN]);
    int failed;

    bench_machine(root);
    (void)json_object_set_new(root, "gpu", bg_facts_json(&run->gpu));
    (void)json_object_set(root, "checks", list);
    (void)json_object_set(root, "plan", run->plan);
    (void)snprintf(path, sizeof path, "%.500s/" FILE_NAME, run->options->out);
    failed = json_dump_file(root, path, JSON_INDENT(1)) != 0;
    json_decref(root);
    if (failed)
        (void)fprintf(stderr, "gapless bench gpu: cannot write %s: %s\n", path,
                      strerror(errno));
    else
        (void)printf("\nwrote %s\n", path);
    return failed;
}

/* ---- all of it ----------------------------------------------------------- */

static void one_check(struct bg_run *run, enum bg_name name, struct bg_check *ret)
{
    double began = clock_seconds();

    *ret = (struct bg_check){.name = name, .figures = json_object()};
    if (run->lost && checks[name].here) {
        (void)bg_says(ret, BG_NOT_RUN, "the GPU was lost in an earlier check");
        return;
    }
    if (isatty(2))
        (void)fprintf(stderr, "%s...\r", bg_names[name]);
    checks[name].run(run, ret);
    if (isatty(2))
        (void)fprintf(stderr, "%-20s\r", "");
    ret->seconds = clock_seconds() - began;
    if (ret->verdict == BG_FAILED && checks[name].here)
        run->lost = !answers(&run->gpu);
}

static void head(const struct bg_run *run)
{
    const struct device_facts *f = &run->gpu.facts;

    (void)printf("GPU %u: %s (%s), capability %u.%u, %.1f GB, CUDA %d.%d, driver for "
                 "%d.%d\n",
                 f->number, f->name, f->bus, f->major, f->minor,
                 1e-9 * (double)f->memory_bytes, f->runtime / 1000,
                 f->runtime % 1000 / 10, f->driver / 1000, f->driver % 1000 / 10);
    if (run->gpu.fake)
        (void)printf("fake device: not a measurement\n");
    (void)printf("\n");
    (void)fflush(stdout);
}

int bg_accept(const struct bench_gpu_config *options, const struct bg_gpu *gpu)
{
    struct bg_run run = {.options = options, .gpu = *gpu};
    struct gapless_error error = {0};
    json_t *list = json_array();
    int count[3] = {0}, wrote;

    if (folders(options, &run, &error) != GAPLESS_OK) {
        (void)fprintf(stderr, "gapless bench gpu: %s\n", error.text);
        json_decref(list);
        return 1;
    }
    run.plan = json_pack("{s:[],s:[]}", "passes", "checks");
    head(&run);
    for (int i = 0; i < BG_CHECKS; i++) {
        struct bg_check check;

        if (!bench_has(options->checks, i))
            continue;
        one_check(&run, (enum bg_name)i, &check);
        print_check(&check);
        count[check.verdict]++;
        (void)json_array_append_new(list, check_json(&check));
        json_decref(check.figures);
    }
    wrote = write_report(&run, list, count);
    (void)printf("%d passed, %d failed, %d not run%s\n", count[BG_PASSED],
                 count[BG_FAILED], count[BG_NOT_RUN],
                 gpu->fake ? "; fake device: not a measurement" : "");
    json_decref(run.plan);
    json_decref(list);
    remove_folder(run.folder);
    return count[BG_FAILED] > 0 || wrote != 0 ? 1 : 0;
}
