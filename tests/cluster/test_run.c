/* gapless run: this test is also the program that it starts. As a rank it makes an offer,
 * good or broken, opens a worker and hands in gradients of a bowl, in the way that its
 * arguments say; so the whole is tested without Python.
 *
 *     test_cluster_run rank WORD...
 *         steps=N      gradients; 0: until the run is over
 *         offer=KIND   see offer_break; none: it makes no offer
 *         watch=N      rank 0 opens N observers at once, or ends with code 4
 *         die=R@K      rank R ends with code 9, in words, before its gradient K
 *         lines=N      prints N lines to stdout and as many to stderr
 *         ms=N         a gradient takes so long
 *         stubborn     takes no notice of SIGINT and SIGTERM
 *         fork         leaves a child behind
 *         model        in the end, waits for the run's model to be there
 */
#include "tests/cluster/run.h"

#include <gapless/gapless.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WEIGHTS 32u
#define BIASES 4u
#define COUNT (WEIGHTS + BIASES)

/* ---- a rank -------------------------------------------------------------- */

static char rank_offer[32], rank_die[32];
static bool rank_forks, rank_looks;
static unsigned long rank_steps = 100, rank_lines, rank_ms, rank_watchers;
static volatile sig_atomic_t rank_left;

static void leave(int number)
{
    (void)number;
    rank_left = 1;
}

static const char *rank_env(const char *name)
{
    const char *text = getenv(name);

    if (text == NULL) {
        (void)fprintf(stderr, "%s is not set\n", name);
        exit(7);
    }
    return text;
}

/* The texts of a good offer, and what is wrong with the others. */
struct offer_texts {
    const char *form, *options, *gradients, *weight, *list;
    size_t cut; /* bytes that are missing at the end */
    bool nan;
};

static struct offer_texts offer_break(const char *kind)
{
    struct offer_texts t = {"1",
                            "{\\\"rule\\\":\\\"nag-asgd\\\",\\\"lr\\\":\\\"0.01\\\"}",
                            "0",
                            "layer.weight",
                            "[{\\\"name\\\":\\\"layer.weight\\\",\\\"shape\\\":[4,8],"
                            "\\\"rate\\\":1,\\\"flags\\\":0},"
                            "{\\\"name\\\":\\\"layer.bias\\\",\\\"shape\\\":[4]}]",
                            0,
                            false};

    if (strcmp(kind, "form") == 0)
        t.form = "2";
    else if (strcmp(kind, "option") == 0)
        t.options = "{\\\"rate\\\":\\\"0.01\\\"}";
    else if (strcmp(kind, "value") == 0)
        t.options = "{\\\"lr\\\":\\\"fast\\\"}";
    else if (strcmp(kind, "number") == 0)
        t.options = "{\\\"lr\\\":0.01}";
    else if (strcmp(kind, "rule") == 0)
        t.options = "{\\\"rule\\\":\\\"adamw\\\",\\\"weight-decay\\\":\\\"0.1\\\"}";
    else if (strcmp(kind, "share") == 0)
        t.options = "{\\\"steps\\\":\\\"0.5:0.1\\\"}";
    else if (strcmp(kind, "size") == 0)
        t.list = "[{\\\"name\\\":\\\"layer.weight\\\",\\\"shape\\\":[4,9]},"
                 "{\\\"name\\\":\\\"layer.bias\\\",\\\"shape\\\":[4]}]";
    else if (strcmp(kind, "order") == 0)
        t.list = "[{\\\"name\\\":\\\"layer.bias\\\",\\\"shape\\\":[4]},"
                 "{\\\"name\\\":\\\"layer.weight\\\",\\\"shape\\\":[4,8]}]";
    else if (strcmp(kind, "flags") == 0)
        t.list =
            "[{\\\"name\\\":\\\"layer.weight\\\",\\\"shape\\\":[4,8],\\\"flags\\\":64},"
            "{\\\"name\\\":\\\"layer.bias\\\",\\\"shape\\\":[4]}]";
    else if (strcmp(kind, "missing") == 0)
        t.weight = "layer.other";
    else if (strcmp(kind, "nolist") == 0)
        t.list = "";
    else if (strcmp(kind, "length") == 0)
        t.gradients = "soon";
    else if (strcmp(kind, "cut") == 0)
        t.cut = 8;
    else if (strcmp(kind, "nan") == 0)
        t.nan = true;
    else if (strcmp(kind, "ends") == 0)
        t.gradients = "200";
    return t;
}

static void offer_write(FILE *out, const char *kind)
{
    struct offer_texts t = offer_break(kind);
    float values[COUNT] = {0};
    char header[2048];
    uint64_t bytes;

    for (unsigned i = 0; i < COUNT; i++)
        values[i] = 1.0f + (float)i;
    if (t.nan)
        ((uint32_t *)values)[5] = 0x7fc00000u;
    if (strcmp(kind, "text") == 0) {
        (void)fputs("this is no safetensors file, by any means", out);
        return;
    }
    bytes = (uint64_t)snprintf(
        header, sizeof header,
        "{\"__metadata__\":{\"gapless.offer\":\"%s\",\"gapless.tensors\":\"%s\","
        "\"gapless.options\":\"%s\",\"gapless.job\":\"a "
        "job\",\"gapless.gradients\":\"%s\"},"
        "\"%s\":{\"dtype\":\"F32\",\"shape\":[4,8],\"data_offsets\":[0,128]},"
        "\"layer.bias\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[128,144]}}",
        t.form, t.list, t.options, t.gradients, t.weight);
    (void)fwrite(&bytes, sizeof bytes, 1, out);
    (void)fwrite(header, 1, bytes, out);
    (void)fwrite(values, 1, sizeof values - t.cut, out);
}

/* To a temporary name, then linked: one rank is first. */
static void offer_make(const char *kind)
{
    const char *path = rank_env("GAPLESS_OFFER");
    char temporary[2048];
    FILE *out;

    (void)snprintf(temporary, sizeof temporary, "%s.%d", path, (int)getpid());
    out = fopen(temporary, "we");
    if (out == NULL)
        exit(8);
    offer_write(out, kind);
    if (fclose(out) != 0 || (link(temporary, path) != 0 && errno != EEXIST))
        exit(8);
    (void)unlink(temporary);
}

static void rank_read(char **words)
{
    for (; *words != NULL; words++) {
        (void)sscanf(*words, "steps=%lu", &rank_steps);
        (void)sscanf(*words, "offer=%31s", rank_offer);
        (void)sscanf(*words, "die=%31s", rank_die);
        (void)sscanf(*words, "lines=%lu", &rank_lines);
        (void)sscanf(*words, "ms=%lu", &rank_ms);
        (void)sscanf(*words, "watch=%lu", &rank_watchers);
        rank_forks |= strcmp(*words, "fork") == 0;
        rank_looks |= strcmp(*words, "model") == 0;
        if (strcmp(*words, "stubborn") == 0) {
            (void)signal(SIGINT, SIG_IGN);
            (void)signal(SIGTERM, SIG_IGN);
        } else {
            (void)signal(SIGINT, leave);
        }
    }
}

static uint32_t rank_number(void)
{
    return (uint32_t)strtoul(rank_env("RANK"), NULL, 10);
}

static void rank_dies(unsigned long step)
{
    unsigned rank = 0;
    unsigned long at = 0;

    if (sscanf(rank_die, "%u@%lu", &rank, &at) == 2 && at == step &&
        rank == rank_number()) {
        (void)fprintf(stderr, "Traceback of rank %u\nOh dear: it went wrong\n", rank);
        exit(9);
    }
}

static unsigned long rank_train(struct gapless_worker *worker)
{
    unsigned long done = 0;
    uint64_t batch;

    while (!rank_left && (rank_steps == 0 || done < rank_steps) &&
           gapless_worker_pull(worker, &batch, NULL) == GAPLESS_OK) {
        const float *params = gapless_worker_params(worker);
        float *grad = gapless_worker_grad(worker);
        double loss = 0.0;

        rank_dies(done);
        for (unsigned i = 0; i < COUNT; i++) {
            grad[i] = params[i];
            loss += 0.5 * (double)params[i] * (double)params[i];
        }
        run_sleep(1e-3 * (double)rank_ms);
        if (gapless_worker_push(worker, loss, NULL) != GAPLESS_OK)
            break;
        done++;
    }
    return done;
}

static int rank_sees_model(void)
{
    struct pace_bound bound = pace_begin(10000000000);
    char path[600];

    (void)snprintf(path, sizeof path, "%s/model.safetensors",
                   rank_env("GAPLESS_RUN_DIR"));
    while (access(path, R_OK) != 0)
        if (pace_over(&bound))
            return 5;
        else
            run_sleep(0.02);
    return 0;
}

/* As many ranks that look at the run at the same time. */
static int rank_watches(void)
{
    const struct gapless_observer_config config = {.address =
                                                       rank_env("GAPLESS_MASTER")};
    struct gapless_observer *observers[64] = {NULL};
    struct gapless_error error = {0};
    unsigned long count = rank_number() == 0 ? rank_watchers : 0, i;
    int status = GAPLESS_OK;

    for (i = 0; i < count && i < 64 && status == GAPLESS_OK; i++)
        status = gapless_observer_open(&config, &observers[i], &error);
    if (status != GAPLESS_OK)
        (void)fprintf(stderr, "observer %lu: %s\n", i, error.text);
    for (i = 0; i < 64; i++)
        gapless_observer_close(observers[i]);
    return status == GAPLESS_OK ? 0 : 4;
}

static int rank_main(char **words)
{
    struct gapless_worker_config config = {.address = rank_env("GAPLESS_MASTER"),
                                           .connect_ns = 60000000000};
    const char *rank = rank_env("RANK");
    struct gapless_worker *worker = NULL;
    struct gapless_error error = {0};
    unsigned long done;

    config.wish = 1 + rank_number();
    rank_read(words);
    for (unsigned long i = 0; i < rank_lines; i++) {
        (void)printf("out %s line %lu of %lu\n", rank, i, rank_lines);
        (void)fprintf(stderr, "err %s line %lu of %lu\n", rank, i, rank_lines);
    }
    if (rank_forks && fork() == 0)
        run_sleep(600.0);
    if (strcmp(rank_offer, "none") == 0)
        return 0;
    rank_dies(12345);
    offer_make(rank_offer);
    if (gapless_worker_open(&config, &worker, &error) != GAPLESS_OK) {
        (void)fprintf(stderr, "%s\n", error.text);
        return rank_left || error.status == GAPLESS_STOPPED ? 0 : 6; /* a late one */
    }
    if (rank_watches() != 0)
        return 4;
    done = rank_train(worker);
    (void)printf(
        "rank %s of %s (local %s of %s) in %s did %s steps with %s threads and "
        "the job '%s'\n",
        rank, rank_env("WORLD_SIZE"), rank_env("LOCAL_RANK"),
        rank_env("LOCAL_WORLD_SIZE"), rank_env("GAPLESS_RUN_DIR"),
        done == rank_steps ? "all" : "some", rank_env("OMP_NUM_THREADS"),
        gapless_worker_job(worker));
    gapless_worker_close(worker);
    return rank_looks ? rank_sees_model() : 0;
}

/* ---- the runs ------------------------------------------------------------ */

static char self[512];

/* "run OPTIONS --out DIR/r SELF rank WORDS tag=DIR": the tag is how a rank is found. */
static struct run start(const char *options, const char *words)
{
    char line[1400];

    (void)snprintf(line, sizeof line, "run %s --out %s/r %s rank %s tag=%s", options,
                   run_dir, self, words, run_dir);
    return run_start(NULL, 0, line);
}

/* The same to its end: the exit code, and a text of its output. The output: malloc'ed. */
static char *whole(const char *options, const char *words, int code, const char *text)
{
    struct run run = start(options, words);
    int got = run_wait(&run, 60.0);
    char *output = run_output(&run);

    if (got != code || strstr(output, text) == NULL)
        fail_msg("run %s ... %s ended with %d, not %d, or did not say '%s':\n%s",
                 options, words, got, code, text, output);
    run_close(&run);
    return output;
}

static unsigned count_of(const char *output, const char *text)
{
    unsigned count = 0;

    for (const char *at = output; (at = strstr(at, text)) != NULL; at += strlen(text))
        count++;
    return count;
}

static json_t *result(void)
{
    char folder[64];

    (void)snprintf(folder, sizeof folder, "%s/r", run_dir);
    return run_json(folder, "result.json");
}

static bool exists(const char *name)
{
    char path[128];
    struct stat is;

    (void)snprintf(path, sizeof path, "%s/r/%s", run_dir, name);
    return stat(path, &is) == 0;
}

static void test_eight_ranks(void **state)
{
    char where[128], *output = whole("-n 8", "steps=100", 0, "model.safetensors");
    json_t *json = result();

    (void)state;
    (void)snprintf(
        where, sizeof where,
        "[3] rank 3 of 8 (local 3 of 8) in %s/r did all steps with 1 threads "
        "and the job 'a job'\n",
        run_dir);
    assert_non_null(strstr(output, where));
    assert_int_equal(count_of(output, "did all steps"), 8);
    assert_string_equal(json_string_value(json_object_get(json, "mode")), "run");
    assert_string_equal(json_string_value(json_object_get(json, "rule")), "nag-asgd");
    assert_true(run_number(json, "lr") < 0.0101 && run_number(json, "lr") > 0.0099);
    assert_int_equal((int)run_number(json, "gradients"), 800);
    assert_int_equal((int)run_number(json, "parameters"), COUNT);
    assert_int_equal(json_array_size(json_object_get(json, "per_worker")), 8);
    assert_true(json_is_null(json_object_get(json, "final_accuracy")));
    assert_true(exists("model.safetensors") && exists("metrics.jsonl"));
    assert_true(exists("log/rank-07.log"));
    assert_false(exists("offer"));
    json_decref(json);
    free(output);
}

/* What was typed wins over the offer; and one rank's output is as it is. */
static void test_typed_wins(void **state)
{
    char *output = whole("--rule dana-zero --lr 0.02", "steps=20", 0, "did all steps");
    json_t *json = result();

    (void)state;
    assert_true(strncmp(output, "rank 0 of 1", 11) == 0 ||
                strstr(output, "\nrank 0 of 1") != NULL);
    assert_null(strstr(output, "[0]"));
    assert_string_equal(json_string_value(json_object_get(json, "rule")), "dana-zero");
    assert_true(run_number(json, "lr") > 0.0199);
    json_decref(json);
    free(output);
}

/* Every rank may look at the run at once, and eight more. */
static void test_many_look(void **state)
{
    (void)state;
    free(whole("-n 5", "steps=20 watch=13", 0, "did all steps"));
}

static void test_broken_offers(void **state)
{
    static const char *const kinds[][2] = {
        {"text", "the offer is no safetensors file"},
        {"form", "the offer is of form '2'"},
        {"option", "has option rate, which is no option of gapless run"},
        {"value", "has option lr, which must be a finite number"},
        {"number", "has option lr with a value that is no text"},
        {"rule", "--weight-decay 0.1 is not for rule adamw"},
        {"share", "--steps has a share of the run"},
        {"size",
         "has tensor layer.weight of 32 elements in the file, and 36 in its list"},
        {"order", "has tensor layer.bias at another place than its list"},
        {"flags", "has tensor layer.weight with flags that are not known"},
        {"missing", "lists tensor layer.weight, which is not in the file"},
        {"nolist", "the offer has no list of 1 to 65536 tensors"},
        {"length", "has a gapless.gradients that must be"},
        {"cut", "has 136 bytes of tensors; its list makes 144"},
        {"nan", "has a parameter that is not finite: layer.weight, element 5"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        char words[64], *output;

        (void)snprintf(words, sizeof words, "offer=%s", kinds[i][0]);
        output = whole("-n 2", words, 1, kinds[i][1]);
        if (count_of(output, "gapless run: ") !=
            1 + count_of(output, "gapless run: OpenBLAS took")) /* an old OpenBLAS */
            fail_msg("offer %s: more than one line:\n%s", kinds[i][0], output);
        assert_false(exists("result.json"));
        free(output);
        run_none_left(run_dir);
    }
}

static void test_rank_dies(void **state)
{
    char *output = whole("-n 4", "steps=400 die=1@20", 0,
                         "ended with code 9; its last words: Oh dear: it went wrong");
    json_t *json = result();

    (void)state;
    assert_non_null(strstr(output, "gapless run: rank 1 (process "));
    assert_non_null(strstr(output, "[1] Traceback of rank 1\n"));
    assert_int_equal(count_of(output, "did all steps"), 3);
    assert_int_equal((int)run_number(json, "gradients"), 3 * 400 + 20);
    assert_true(json_is_null(json_object_get(json, "failure")));
    json_decref(json);
    free(output);
}

static void test_restarts(void **state)
{
    char *output = whole("-n 3 --restarts 2", "steps=300 die=2@10", 0, "2 of 2 times");

    (void)state;
    assert_int_equal(count_of(output, "it is started again"), 2);
    assert_int_equal(count_of(output, "did all steps"), 2);
    free(output);
}

static void test_none_left(void **state)
{
    (void)state;
    free(whole("-n 1", "die=0@0", 1,
               "no rank is left, and none has handed in a gradient"));
    free(whole("-n 1", "die=0@5", 1, "no rank is left after 5 gradients"));
    free(whole("-n 1", "die=0@12345", 1,
               "no rank is left, and none has made a gapless.Worker"));
    free(whole("-n 2", "offer=none", 1,
               "no rank made a gapless.Worker; was this program written for gapless?"));
}

static void test_program(void **state)
{
    char *output;
    struct run run;

    (void)state;
    run_whole(NULL, "run", 2, "name the program behind the options");
    run_whole(NULL, "run --ranks 0 true", 2, "--ranks must be");
    run_whole(NULL, "run no-such-program", 2, "there is no program no-such-program");
    run_whole(NULL, "run no-such-file.py", 2, "cannot read no-such-file.py");
    run_whole("PYTHON=/no/python", "run -m train", 2, "there is no program /no/python");
    run_whole(NULL, "run --help", 0, "usage: gapless run [OPTION...] PROGRAM");
    /* What follows the program is the program's. */
    output = NULL;
    run = run_start(NULL, 0, "run --out /tmp/gapless-test-none -n 2 echo --help -n 5");
    assert_int_equal(run_wait(&run, 30.0), 1);
    output = run_output(&run);
    assert_non_null(strstr(output, "[0] --help -n 5\n"));
    assert_non_null(strstr(output, "[1] --help -n 5\n"));
    free(output);
    run_close(&run);
    run_remove("/tmp/gapless-test-none");
}

/* The length that the program says: ranks are sent home by their pulls. */
static void test_length(void **state)
{
    char *output = whole("-n 3", "offer=ends steps=0 model", 0, "did some steps");
    json_t *json = result();

    (void)state;
    assert_int_equal((int)run_number(json, "gradients"), 200);
    assert_false(json_is_true(json_object_get(json, "stopped")));
    json_decref(json);
    free(output);
}

static void test_interrupt(void **state)
{
    struct run run = start("-n 3 --interval 0.05", "steps=0 ms=1");
    json_t *json;
    char *output;

    (void)state;
    run_expect(&run, "workers 3", 20.0);
    assert_int_equal(kill(run.pid, SIGINT), 0);
    assert_int_equal(run_wait(&run, 20.0), 128 + SIGINT);
    output = run_output(&run);
    assert_int_equal(count_of(output, "did some steps"), 3);
    assert_null(strstr(output, "its last words"));
    json = result();
    assert_true(json_is_true(json_object_get(json, "stopped")));
    json_decref(json);
    free(output);
    run_close(&run);
}

/* Ranks that stay: a second signal ends all at once. */
static void test_second_interrupt(void **state)
{
    struct run run = start("-n 2", "steps=0 ms=600000 stubborn");

    (void)state;
    run_expect(&run, "watch it by", 20.0);
    assert_int_equal(kill(run.pid, SIGINT), 0);
    run_expect(&run, "once more to end at once", 10.0);
    run_sleep(0.2);
    assert_int_equal(kill(run.pid, 0), 0);
    assert_int_equal(kill(run.pid, SIGINT), 0);
    assert_int_equal(run_wait(&run, 20.0), 128 + SIGINT);
    run_close(&run);
}

/* Ranks that would stay, of a launcher that is killed. */
static void test_launcher_killed(void **state)
{
    struct run run = start("-n 2", "steps=0 ms=600000 stubborn");

    (void)state;
    run_expect(&run, "watch it by", 20.0);
    run_sleep(0.2); /* to be in the middle of a gradient, where no loss is noticed */
    assert_int_equal(kill(run.pid, SIGKILL), 0);
    assert_int_equal(run_wait(&run, 5.0), -SIGKILL);
    run_none_left(run_dir);
    run_close(&run);
}

/* A rank that is killed disturbs nobody; ranks of a launcher that is killed are gone. */
static void test_kills(void **state)
{
    struct run run = start("-n 3 --interval 0.05", "steps=0 ms=1");
    char tag[64];
    pid_t pids[8];
    unsigned count = 0, killed = 0;

    (void)state;
    (void)snprintf(tag, sizeof tag, "rank steps=0 ms=1 tag=%s", run_dir);
    run_expect(&run, "workers 3", 20.0);
    count = run_processes(tag, pids, 8);
    for (unsigned i = 0; i < count && killed == 0; i++)
        if (pids[i] != run.pid && kill(pids[i], SIGKILL) == 0)
            killed++;
    assert_int_equal(killed, 1);
    run_expect(&run, "was killed by signal 9 (Killed); the run goes on with 2", 20.0);
    run_expect(&run, "workers 2", 20.0);
    assert_int_equal(kill(run.pid, SIGKILL), 0);
    assert_int_equal(run_wait(&run, 5.0), -SIGKILL);
    run_none_left(run_dir);
    run_close(&run);
}

/* What a rank leaves behind ends with it, and holds nothing up. */
static void test_left_behind(void **state)
{
    (void)state;
    free(whole("-n 2", "steps=5 fork", 0, "did all steps")); /* has a bound */
    run_none_left(run_dir);
}

static void test_log_folder(void **state)
{
    char options[64], path[64];
    struct stat is;

    (void)state;
    (void)snprintf(options, sizeof options, "-n 2 -q --log-dir %s/logs", run_dir);
    free(whole(options, "steps=5 lines=3", 0, "did all steps"));
    (void)snprintf(path, sizeof path, "%s/logs/rank-01.log", run_dir);
    assert_int_equal(stat(path, &is), 0);
    assert_true(is.st_size > 100);
    assert_false(exists("log"));
}

/* Of many lines at once none is cut, mixed or lost. */
static void test_lines(void **state)
{
    char *output = whole("-n 4", "lines=1500 steps=1", 0, "did all steps"), *line,
         *rest;
    unsigned seen[4][2] = {{0}};

    (void)state;
    rest = output;
    while ((line = strsep(&rest, "\n")) != NULL) {
        unsigned rank, again, number, of, err = 0;
        char end;

        if (strncmp(line, "[", 1) != 0 || strstr(line, "line") == NULL)
            continue;
        if (sscanf(line, "[%u] out %u line %u of %u%c", &rank, &again, &number, &of,
                   &end) != 4) {
            err = 1;
            if (sscanf(line, "[%u] err %u line %u of %u%c", &rank, &again, &number, &of,
                       &end) != 4)
                fail_msg("a line that is not whole: %s", line);
        }
        assert_true(rank == again && rank < 4 && of == 1500);
        assert_int_equal(seen[rank][err], number);
        seen[rank][err]++;
    }
    for (unsigned i = 0; i < 4; i++)
        assert_true(seen[i][0] == 1500 && seen[i][1] == 1500);
    free(output);
}

static void test_watched(void **state)
{
    struct run run = start("-n 2 --interval 0.05", "steps=0 ms=1");
    char line[128], *output, *at;

    (void)state;
    run_expect(&run, "workers 2", 20.0);
    output = run_output(&run);
    at = strstr(output, "gapless observe --master ");
    assert_non_null(at);
    (void)snprintf(line, sizeof line, "observe --once --master %.*s",
                   (int)strcspn(at + 25, "\n"), at + 25);
    run_whole(NULL, line, 0, "workers 2");
    (void)strncat(line, " --accuracy", sizeof line - strlen(line) - 1);
    run_whole(NULL, line, 2, "has no data");
    assert_int_equal(kill(run.pid, SIGTERM), 0);
    assert_int_equal(run_wait(&run, 20.0), 128 + SIGTERM);
    free(output);
    run_close(&run);
    (void)snprintf(line, sizeof line, "report %s/r", run_dir);
    run_whole(NULL, line, 0, "report.html");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, run_set_up, run_tear_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(test_eight_ranks),      TEST(test_typed_wins),
        TEST(test_broken_offers),    TEST(test_many_look),
        TEST(test_rank_dies),        TEST(test_restarts),
        TEST(test_none_left),        TEST(test_program),
        TEST(test_length),           TEST(test_interrupt),
        TEST(test_second_interrupt), TEST(test_kills),
        TEST(test_launcher_killed),  TEST(test_lines),
        TEST(test_left_behind),      TEST(test_log_folder),
        TEST(test_watched),
    };
    ssize_t bytes = readlink("/proc/self/exe", self, sizeof self - 1);

    if (argc > 1 && strcmp(argv[1], "rank") == 0)
        return rank_main(argv + 2);
    assert_true(bytes > 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
