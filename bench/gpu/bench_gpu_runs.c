/* The checks that start programs: `sanitizer` (compute-sanitizer over the check
 * `bits`), `runs` (whole runs on the GPU end with the parameters of the CPU), `kill`
 * (workers killed in the midst of what they do leave no trace in the parameters). */
#include "bench/gpu/bench_gpu.h"

#include "engine/base/clock.h"

#include <gapless/gapless.h>

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WORDS_MAX 48
#define SANITIZER_S 500.0
#define RUN_S 240.0
#define SANITIZER_FOUND "86"
#define KILLS 5
#define WORKERS 2 /* that live; as a word: */
#define WORKERS_WORD "2"
#define LOOK_S 15.0
#define UNTIL_S 60.0
#define FILE_MAX (64l << 20)

/* Words of a command, put together. */
struct line {
    const char *word[WORDS_MAX + 1];
    size_t count;
    char text[8][320];
    size_t texts;
};

static void add(struct line *line, const char *word)
{
    if (line->count < WORDS_MAX)
        line->word[line->count++] = word;
}

static void add_all(struct line *line, const char *const *words)
{
    while (*words != NULL)
        add(line, *words++);
}

__attribute__((format(printf, 2, 3))) static void add_text(struct line *line,
                                                           const char *format, ...)
{
    va_list list;

    if (line->texts == 8)
        return;
    va_start(list, format);
    (void)vsnprintf(line->text[line->texts], sizeof line->text[0], format, list);
    va_end(list);
    add(line, line->text[line->texts++]);
}

/* Runs it to its end. False: `why` says what came instead. */
static bool finish(const struct line *line, double seconds, char *reason, size_t bytes)
{
    struct gapless_error error = {0};
    struct bg_tool tool = {0};
    char tail[200];
    bool ended, good;

    if (bg_start(line->word, NULL, &tool, &error) != GAPLESS_OK) {
        (void)snprintf(reason, bytes, "%.280s", error.text);
        return false;
    }
    ended = bg_wait(&tool, seconds);
    good = ended && tool.code == 0;
    bg_tail(&tool, tail, sizeof tail);
    if (!ended)
        (void)snprintf(reason, bytes, "no end within %g s: %s", seconds, tail);
    else if (!good)
        (void)snprintf(reason, bytes, "exit code %d: %s", tool.code, tail);
    bg_end(&tool);
    return good;
}

/* ---- sanitizer ----------------------------------------------------------- */

static enum bg_verdict sanitize(struct bg_run *run, const char *program,
                                const char *tool, char *reason, size_t bytes)
{
    struct line line = {0};

    add(&line, program);
    add(&line, "--tool");
    add(&line, tool);
    add(&line, "--error-exitcode");
    add(&line, SANITIZER_FOUND);
    add(&line, run->self);
    add_all(&line, (const char *const[]){"bench", "gpu", "--accept", "--only", "bits",
                                         "--quick", "--device", NULL});
    add_text(&line, "cuda:%u", run->gpu.facts.number);
    add(&line, "--out");
    add_text(&line, "%s/%s", run->folder, tool);
    return finish(&line, SANITIZER_S, reason, bytes) ? BG_PASSED : BG_FAILED;
}

void bg_sanitizer(struct bg_run *run, struct bg_check *ret)
{
    static const char *const tools[] = {"memcheck", "racecheck", "synccheck"};
    char program[400], reason[300] = "";

    if (run->gpu.fake) {
        (void)bg_says(ret, BG_NOT_RUN, "a fake device has no code for it to follow");
        return;
    }
    if (!bg_find("compute-sanitizer", program, sizeof program)) {
        (void)bg_says(ret, BG_NOT_RUN,
                      "compute-sanitizer is not installed (it is part of the CUDA "
                      "toolkit: cuda-sanitizer)");
        return;
    }
    for (size_t i = 0; i < sizeof tools / sizeof tools[0]; i++) {
        if (sanitize(run, program, tools[i], reason, sizeof reason) != BG_PASSED) {
            (void)bg_says(ret, BG_FAILED, "%s: %s", tools[i], reason);
            return;
        }
        (void)json_object_set_new(ret->figures, tools[i], json_string("clean"));
    }
    (void)bg_says(ret, BG_PASSED, "memcheck, racecheck and synccheck over bits: clean");
}

/* ---- files --------------------------------------------------------------- */

/* A whole file, malloc'ed; NULL: it cannot be read. */
static unsigned char *file_of(const char *path, long *ret_bytes)
{
    FILE *file = fopen(path, "re");
    unsigned char *ret = NULL;
    long bytes = -1;

    if (file != NULL && fseek(file, 0, SEEK_END) == 0)
        bytes = ftell(file);
    if (bytes > 0 && bytes <= FILE_MAX && fseek(file, 0, SEEK_SET) == 0)
        ret = malloc((size_t)bytes);
    if (ret != NULL && fread(ret, 1, (size_t)bytes, file) != (size_t)bytes) {
        free(ret);
        ret = NULL;
    }
    if (file != NULL)
        (void)fclose(file);
    *ret_bytes = bytes;
    return ret;
}

static bool files_same(const char *a, const char *b)
{
    long bytes[2];
    unsigned char *x = file_of(a, &bytes[0]), *y = file_of(b, &bytes[1]);
    bool ret = x != NULL && y != NULL && bytes[0] == bytes[1] &&
               memcmp(x, y, (size_t)bytes[0]) == 0;

    free(x);
    free(y);
    return ret;
}

/* Are all parameters of a safetensors file finite? It begins with the length of its
 * header in eight bytes. */
static bool file_finite(const char *path)
{
    long bytes;
    unsigned char *file = file_of(path, &bytes);
    uint64_t header = 0;
    bool ret = file != NULL && bytes > 8;

    for (int i = 7; ret && i >= 0; i--)
        header = header << 8 | file[i];
    ret = ret && header < (uint64_t)bytes - 8;
    for (uint64_t at = 8 + header; ret && at + 4 <= (uint64_t)bytes; at += 4) {
        float x;

        memcpy(&x, file + at, sizeof x);
        ret = isfinite(x);
    }
    free(file);
    return ret;
}

/* ---- runs ---------------------------------------------------------------- */

/* A small task, the same for all; --quick makes it smaller. */
static void train(const struct bg_run *run, struct line *line, const char *rule,
                  const char *workers, bool gpu, const char *out)
{
    add(line, run->self);
    add_all(line, (const char *const[]){"train", "--batch", "16", "--epochs", "1",
                                        "--lr", "0.02", "--quiet", "--data", NULL});
    add(line, run->options->quick ? "synthetic:800x20x4" : "synthetic:8000x64x10");
    add(line, "--model");
    add(line, run->options->quick ? "mlp:16" : "mlp:128");
    add(line, "--range-elements");
    add(line, run->options->quick ? "1024" : "4096");
    add(line, "--workers");
    add(line, workers);
    add(line, "--rule");
    add(line, rule);
    add(line, "--device");
    if (gpu)
        add_text(line, "cuda:%u", run->gpu.facts.number);
    else
        add(line, "cpu");
    add(line, "--out");
    add_text(line, "%s/%s", run->folder, out);
}

static bool compare(const struct bg_run *run, const char *a, const char *b,
                    char *reason, size_t bytes)
{
    char paths[2][320];

    (void)snprintf(paths[0], sizeof paths[0], "%s/%s/model.safetensors", run->folder,
                   a);
    (void)snprintf(paths[1], sizeof paths[1], "%s/%s/model.safetensors", run->folder,
                   b);
    if (files_same(paths[0], paths[1]))
        return true;
    (void)snprintf(reason, bytes, "the parameters of %s and %s differ", a, b);
    return false;
}

/* One worker: there is one order, so a live run can be held against another. */
static bool one_worker(const struct bg_run *run, const char *rule, char *reason,
                       size_t bytes)
{
    struct line cpu = {0}, gpu = {0};
    char names[2][64];

    (void)snprintf(names[0], sizeof names[0], "%s-cpu", rule);
    (void)snprintf(names[1], sizeof names[1], "%s-gpu", rule);
    train(run, &cpu, rule, "1", false, names[0]);
    train(run, &gpu, rule, "1", true, names[1]);
    return finish(&cpu, RUN_S, reason, bytes) && finish(&gpu, RUN_S, reason, bytes) &&
           compare(run, names[0], names[1], reason, bytes);
}

/* Several workers, recorded, and replayed by the simulator on the CPU. */
static bool recorded(const struct bg_run *run, const char *rule, char *reason,
                     size_t bytes)
{
    struct line live = {0}, again = {0};
    char names[2][64];

    (void)snprintf(names[0], sizeof names[0], "%s-live", rule);
    (void)snprintf(names[1], sizeof names[1], "%s-again", rule);
    train(run, &live, rule, "4", true, names[0]);
    add(&live, "--record");
    add_text(&live, "%s/%s.record", run->folder, rule);
    add(&again, run->self);
    add_all(&again, (const char *const[]){"simulate", "--quiet", "--replay", NULL});
    add_text(&again, "%s/%s.record", run->folder, rule);
    add(&again, "--out");
    add_text(&again, "%s/%s", run->folder, names[1]);
    return finish(&live, RUN_S, reason, bytes) &&
           finish(&again, RUN_S, reason, bytes) &&
           compare(run, names[0], names[1], reason, bytes);
}

/* Gradients on the GPU too: cuBLAS has bits of its own, so only that it learns. */
static void gpu_worker(struct bg_run *run, struct bg_check *ret)
{
    struct line line = {0};
    char reason[300] = "", path[320];
    bool good;

    if (run->gpu.fake)
        return;
    train(run, &line, "dana-ga", "2", true, "worker-gpu");
    add(&line, "--worker-device");
    add_text(&line, "cuda:%u", run->gpu.facts.number);
    good = finish(&line, RUN_S, reason, sizeof reason);
    (void)snprintf(path, sizeof path, "%s/worker-gpu/model.safetensors", run->folder);
    if (good && !file_finite(path)) {
        good = false;
        (void)snprintf(reason, sizeof reason, "parameters that are not finite");
    }
    (void)json_object_set_new(ret->figures, "gpu_worker",
                              json_string(good ? "finite" : reason));
    if (!good)
        (void)bg_says(ret, BG_FAILED, "workers on the GPU: %s", reason);
}

void bg_runs(struct bg_run *run, struct bg_check *ret)
{
    static const char *const alone[] = {"dana-ga", "ga-global", "shared-lga-dot",
                                        "ssgd"};
    static const char *const crowds[] = {"dana-ga", "dana-lga"};
    size_t some = run->options->quick ? 1 : sizeof alone / sizeof alone[0];
    size_t more = run->options->quick ? 1 : sizeof crowds / sizeof crowds[0];
    char reason[300] = "";
    const char *rule = "";
    bool good = true;

    for (size_t i = 0; good && i < some; i++)
        good = one_worker(run, rule = alone[i], reason, sizeof reason);
    for (size_t i = 0; good && i < more; i++)
        good = recorded(run, rule = crowds[i], reason, sizeof reason);
    (void)json_object_set_new(ret->figures, "one_worker", json_integer((int)some));
    (void)json_object_set_new(ret->figures, "recorded", json_integer((int)more));
    if (!good) {
        (void)bg_says(ret, BG_FAILED, "%s: %s", rule, reason);
        return;
    }
    (void)bg_says(ret, BG_PASSED,
                  "%zu with one worker, %zu recorded with four: the parameters of "
                  "the CPU, to the bit",
                  some, more);
    gpu_worker(run, ret);
}

/* ---- kill ---------------------------------------------------------------- */

struct hunt {
    struct bg_run *run;
    char address[BENCH_ADDRESS_MAX], token[300];
    bool verbs;
    struct bg_tool train;
    int killed;
};

static void network_words(const struct hunt *h, struct line *line, const char *option)
{
    add(line, option);
    add(line, h->address);
    if (!h->verbs)
        return;
    add(line, "--transport");
    add(line, "verbs");
    add(line, "--token-file");
    add(line, h->token);
}

/* What an observer learns of the run; NULL: nothing yet. */
static json_t *look(const struct hunt *h)
{
    struct line line = {0};
    struct gapless_error error = {0};
    struct bg_tool tool = {0};
    json_t *ret = NULL;

    add(&line, h->run->self);
    add_all(&line, (const char *const[]){"observe", "--once", "--json", NULL});
    network_words(h, &line, "--master");
    if (bg_start(line.word, NULL, &tool, &error) == GAPLESS_OK &&
        bg_wait(&tool, LOOK_S) && tool.code == 0)
        ret = bg_object(&tool);
    bg_end(&tool);
    return ret;
}

/* Waits until `low` to `high` workers are there and gradients come. */
static int until(struct hunt *h, double low, double high, struct gapless_error *error)
{
    const struct timespec pause = {0, 50000000};
    double end = clock_seconds() + UNTIL_S;

    while (clock_seconds() < end && !bg_wait(&h->train, 0)) {
        json_t *reported = look(h);
        double workers = json_number_value(json_object_get(reported, "workers"));
        bool good = reported != NULL && workers >= low && workers <= high &&
                    json_number_value(json_object_get(reported, "updates")) > 0;

        json_decref(reported);
        if (good)
            return GAPLESS_OK;
        (void)nanosleep(&pause, NULL);
    }
    if (h->train.pid == 0) {
        char tail[200];

        bg_tail(&h->train, tail, sizeof tail);
        return gapless_error_set(error, GAPLESS_SYSTEM, 0, "the run ended: %s", tail);
    }
    return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                             "no observer saw %g workers, and gradients, within %g s",
                             low, UNTIL_S);
}

/* Long enough that there is always something to kill; the end comes by a signal. */
static int begin(struct hunt *h, struct gapless_error *error)
{
    struct line line = {0};
    int status;

    train(h->run, &line, "dana-ga", WORKERS_WORD, true, "kill");
    add_all(&line,
            (const char *const[]){"--epochs", "100000", "--workers-max", "16", NULL});
    network_words(h, &line, h->verbs ? "--listen" : "--address");
    status = bg_start(line.word, NULL, &h->train, error);
    return status == GAPLESS_OK ? until(h, WORKERS, WORKERS, error) : status;
}

/* A worker that joins, works for so long and is killed without a word; the master
 * notices. */
static int kill_one(struct hunt *h, double lives, struct gapless_error *error)
{
    struct line line = {0};
    struct bg_tool worker = {0};
    char tail[200];
    int status;

    add(&line, h->run->self);
    add(&line, "worker");
    add(&line, "--quiet");
    network_words(h, &line, "--master");
    status = bg_start(line.word, NULL, &worker, error);
    if (status == GAPLESS_OK)
        status = until(h, WORKERS + 1, GAPLESS_WORKERS_MAX, error);
    if (status == GAPLESS_OK && bg_wait(&worker, lives)) {
        bg_tail(&worker, tail, sizeof tail);
        status = gapless_error_set(error, GAPLESS_SYSTEM, 0,
                                   "a worker ended before it was killed: %s", tail);
    }
    bg_end(&worker);
    if (status == GAPLESS_OK)
        status = until(h, 1, WORKERS, error);
    h->killed += status == GAPLESS_OK;
    return status;
}

/* The run ends by an interrupt, as by Ctrl-C, and writes its files. */
static bool stop(struct hunt *h, char *reason, size_t bytes)
{
    char tail[200];

    if (h->train.pid > 0)
        (void)kill(h->train.pid, SIGINT);
    if (!bg_wait(&h->train, 60.0)) {
        (void)snprintf(reason, bytes,
                       "the run did not end within 60 s of an interrupt");
        return false;
    }
    if (h->train.code == 128 + SIGINT || h->train.code == -SIGINT)
        return true;
    bg_tail(&h->train, tail, sizeof tail);
    (void)snprintf(reason, bytes, "exit code %d: %s", h->train.code, tail);
    return false;
}

static void judge(struct hunt *h, struct bg_check *ret)
{
    char path[320];
    json_t *root;
    double lost, dropped, gradients, partial;
    const json_t *loss;
    bool finite;

    (void)snprintf(path, sizeof path, "%s/kill/result.json", h->run->folder);
    root = json_load_file(path, 0, NULL);
    (void)snprintf(path, sizeof path, "%s/kill/model.safetensors", h->run->folder);
    finite = file_finite(path);
    lost = json_number_value(json_object_get(root, "workers_lost"));
    dropped = json_number_value(json_object_get(root, "dropped"));
    partial = json_number_value(json_object_get(root, "partial"));
    gradients = json_number_value(json_object_get(root, "gradients"));
    loss = json_object_get(root, "final_loss");
    (void)json_object_set_new(ret->figures, "killed", json_integer(h->killed));
    (void)json_object_set_new(ret->figures, "workers_lost", json_real(lost));
    (void)json_object_set_new(ret->figures, "gradients", json_real(gradients));
    (void)json_object_set_new(ret->figures, "cut_short", json_real(partial));
    if (root == NULL || !finite || !json_is_number(loss) ||
        !isfinite(json_number_value(loss)))
        (void)bg_says(ret, BG_FAILED,
                      "after %d kills the parameters or the loss are not finite",
                      h->killed);
    else if (dropped > 0 || gradients <= 0 || lost < h->killed)
        (void)bg_says(ret, BG_FAILED,
                      "%d killed, %g noticed, %g gradients applied, %g of them not "
                      "finite: half a gradient was taken for a whole one",
                      h->killed, lost, gradients, dropped);
    else
        (void)bg_says(ret, BG_PASSED,
                      "%d workers killed over %s, %g noticed: %g gradients applied, %g "
                      "cut short and counted, parameters finite",
                      h->killed, h->verbs ? "RDMA" : "shm", lost, gradients, partial);
    json_decref(root);
}

/* Over RDMA where --rdma says by what, so that a kill may cut a WRITE; else over
 * shm. */
static int reach(struct hunt *h, struct gapless_error *error)
{
    FILE *file;

    h->verbs = h->run->options->rdma_given;
    if (!h->verbs) {
        (void)snprintf(h->address, sizeof h->address, "shm:%s/socket", h->run->folder);
        return GAPLESS_OK;
    }
    (void)snprintf(h->token, sizeof h->token, "%s/kill-token", h->run->folder);
    file = fopen(h->token, "wxe");
    if (file == NULL || fchmod(fileno(file), S_IRUSR | S_IWUSR) != 0 ||
        fprintf(file, "%ld-%.0f-acceptance-kill", (long)getpid(),
                1e9 * clock_seconds()) < 0) {
        if (file != NULL)
            (void)fclose(file);
        return gapless_error_set(error, GAPLESS_SYSTEM, errno, "cannot write %s",
                                 h->token);
    }
    (void)fclose(file);
    /* Without the transport, which --transport names. */
    (void)snprintf(h->address, sizeof h->address, "%s",
                   h->run->options->rdma + strlen("verbs:"));
    return GAPLESS_OK;
}

void bg_kill(struct bg_run *run, struct bg_check *ret)
{
    /* Odd times, so that kills fall into everything a worker does. */
    static const double lives[KILLS] = {0.061, 0.173, 0.287, 0.401, 0.523};
    struct hunt h = {.run = run};
    struct gapless_error error = {0};
    char reason[300] = "";
    int count = run->options->quick ? 2 : KILLS;
    int status = reach(&h, &error);

    if (status == GAPLESS_OK)
        status = begin(&h, &error);
    for (int i = 0; status == GAPLESS_OK && i < count; i++)
        status = kill_one(&h, lives[i], &error);
    if (status != GAPLESS_OK)
        (void)bg_says(ret, BG_FAILED, "%s", error.text);
    else if (!stop(&h, reason, sizeof reason))
        (void)bg_says(ret, BG_FAILED, "%s", reason);
    else
        judge(&h, ret);
    bg_end(&h.train);
}
