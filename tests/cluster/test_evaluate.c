/* gapless evaluate, and data of one's own from end to end: a model is measured as its
 * run measured it, whoever has written it; what does not fit is refused.
 * ctest: timeout=120 */
#include "tests/cluster/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TASK "--model mlp:8 --epochs 20 --lr 0.02 --steps none --quiet"

/* Three clouds, of columns of very different sizes. */
static void write_table(const char *name, unsigned rows)
{
    static const char *const names[] = {"red", "green", "blue"};
    char path[128];
    unsigned chance = 12345;
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/%s", run_dir, name);
    file = fopen(path, "we");
    assert_non_null(file);
    (void)fputs("length,colour,weight\n", file);
    for (unsigned i = 0; i < rows; i++) {
        unsigned label = i * 7 % 3;

        chance = chance * 1103515245u + 12345u;
        (void)fprintf(file, "%u,%s,0.%04u\n", 10000 * label + (chance >> 16) % 6000,
                      names[label], 1000 * ((label + 1) % 3) + (chance >> 8) % 900);
    }
    assert_int_equal(fclose(file), 0);
}

/* Runs it in the test's folder: paths are relative. */
static void whole(const char *line, int code, const char *text)
{
    char words[500];
    size_t used = 0;

    for (const char *at = line; *at != '\0' && used + 40 < sizeof words; at++)
        if (*at == '%')
            used += (size_t)snprintf(words + used, sizeof words - used, "%s", run_dir);
        else
            words[used++] = *at;
    words[used] = '\0';
    run_whole(NULL, words, code, text);
}

static json_t *evaluated(const char *more)
{
    char line[400];
    struct run run;
    json_t *ret;
    char *text;

    (void)snprintf(line, sizeof line, "evaluate --json %s", more);
    run = run_start(NULL, 0, line);
    assert_int_equal(run_wait(&run, 30.0), 0);
    text = run_output(&run);
    ret = json_loads(text, 0, NULL);
    assert_non_null(ret);
    free(text);
    run_close(&run);
    return ret;
}

/* The file of a run gives the accuracy that the run had. */
static void check_same(const char *folder, double samples)
{
    char path[200];
    json_t *result = run_json(folder, "result.json"), *row;

    (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
    row = evaluated(path);
    assert_true(run_number(row, "samples") == samples);
    assert_true(run_number(row, "accuracy") - run_number(result, "final_accuracy") <
                1e-8);
    assert_true(run_number(result, "final_accuracy") - run_number(row, "accuracy") <
                1e-8);
    assert_true(run_number(row, "loss") - run_number(result, "final_loss") < 1e-4);
    assert_true(run_number(result, "final_loss") - run_number(row, "loss") < 1e-4);
    assert_string_equal(json_string_value(json_object_get(row, "model")),
                        json_string_value(json_object_get(result, "model")));
    json_decref(row);
    json_decref(result);
}

static void test_train(void **state)
{
    char folder[64];
    json_t *row;

    (void)state;
    write_table("t.csv", 300);
    whole("train --data csv:%/t.csv:label=colour --workers 2 " TASK " --out %/own", 0,
          "test accuracy");
    (void)snprintf(folder, sizeof folder, "%s/own", run_dir);
    check_same(folder, 60.0);
    row = run_json(folder, "result.json");
    assert_true(run_number(row, "final_accuracy") > 0.9); /* scaled columns: easy */
    json_decref(row);
    whole("train --data synthetic --workers 2 --epochs 1 --quiet --out %/bytes", 0,
          "test accuracy");
    (void)snprintf(folder, sizeof folder, "%s/bytes", run_dir);
    check_same(folder, 2400.0);
    whole("simulate --data csv:%/t.csv:label=colour --workers 3 " TASK " --out %/sim",
          0, "test accuracy");
    (void)snprintf(folder, sizeof folder, "%s/sim", run_dir);
    check_same(folder, 60.0);
}

/* A master that is started by itself hands the whole path on. */
static void test_master(void **state)
{
    char line[400], folder[64];
    struct run master, worker, observer;

    (void)state;
    write_table("t.csv", 300);
    (void)snprintf(
        line, sizeof line,
        "master --data csv:%s/../%s/t.csv:label=colour --address shm:%s/s " TASK
        " --out %s/own",
        run_dir, run_dir + strlen("/tmp/"), run_dir, run_dir);
    master = run_start(NULL, 0, line);
    (void)snprintf(line, sizeof line, "observe --master shm:%s/s --save %s/live",
                   run_dir, run_dir);
    observer = run_start(NULL, 0, line);
    run_expect(&observer, "updates", 20.0);
    (void)snprintf(line, sizeof line, "worker --master shm:%s/s", run_dir);
    worker = run_start(NULL, 0, line);
    assert_int_equal(run_wait(&worker, 60.0), 0);
    assert_int_equal(run_wait(&observer, 60.0), 0);
    assert_int_equal(run_wait(&master, 60.0), 0);
    run_close(&worker);
    run_close(&observer);
    run_close(&master);
    (void)snprintf(folder, sizeof folder, "%s/own", run_dir);
    check_same(folder, 60.0);
    whole("evaluate %/live", 0, "accuracy");
}

static void test_other_data(void **state)
{
    char more[256];
    json_t *row;

    (void)state;
    write_table("t.csv", 300);
    write_table("more.csv", 500);
    whole("train --data csv:%/t.csv:label=colour --workers 2 " TASK " --out %/own", 0,
          "test accuracy");
    (void)snprintf(
        more, sizeof more,
        "%s/own/model.safetensors --data csv:%s/more.csv:label=colour --part "
        "all",
        run_dir, run_dir);
    row = evaluated(more);
    assert_true(run_number(row, "samples") == 500.0);
    assert_true(run_number(row, "accuracy") > 0.9);
    json_decref(row);
    whole("evaluate %/own/model.safetensors --data synthetic", 2,
          "was trained on other data");
    whole("evaluate %/own/model.safetensors --model mlp:9", 1,
          "no tensor layer1.weight");
    whole("evaluate %/own/model.safetensors --model softmax", 1,
          "4 tensors, the model");
    (void)snprintf(more, sizeof more, "%s/t.csv", run_dir);
    assert_int_equal(unlink(more), 0);
    whole("evaluate %/own/model.safetensors", 1, "t.csv does not exist");
}

/* Cuts a file, or writes another. */
static void rewrite(const char *name, const char *bytes, size_t count, long cut)
{
    char path[128];
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/%s", run_dir, name);
    if (cut > 0) {
        assert_int_equal(truncate(path, cut), 0);
        return;
    }
    file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* Makes the last parameter of a model a NaN. */
static void spoil(const char *name)
{
    static const unsigned char nan[] = {0, 0, 0xc0, 0x7f};
    char path[128];
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/%s", run_dir, name);
    file = fopen(path, "r+e");
    assert_non_null(file);
    assert_int_equal(fseek(file, -(long)sizeof nan, SEEK_END), 0);
    assert_int_equal(fwrite(nan, 1, sizeof nan, file), sizeof nan);
    assert_int_equal(fclose(file), 0);
}

static long size_of(const char *name)
{
    char path[128];
    struct stat info;

    (void)snprintf(path, sizeof path, "%s/%s", run_dir, name);
    assert_int_equal(stat(path, &info), 0);
    return (long)info.st_size;
}

/* A byte behind a file's end. */
static void append(const char *name)
{
    char path[128];
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/%s", run_dir, name);
    file = fopen(path, "ae");
    assert_non_null(file);
    assert_int_equal(fputc('x', file), 'x');
    assert_int_equal(fclose(file), 0);
}

static void test_bad_files(void **state)
{
    static const char foreign[] = "\x0a\0\0\0\0\0\0\0{\"a\":{}}  ";
    static const char text[] = "\x04\0\0\0\0\0\0\0what";

    (void)state;
    whole("evaluate", 2, "give the file of a model, as in");
    whole("evaluate a b", 2, "give the file of one model, as in");
    whole("evaluate %/none", 1, "cannot read");
    whole("evaluate %", 1, "is no regular file");
    whole("train --data synthetic --workers 1 --epochs 1 --quiet --out %", 0,
          "accuracy");
    append("model.safetensors");
    whole("evaluate %/model.safetensors", 1, "has bytes behind its last tensor");
    rewrite("model.safetensors", NULL, 0, size_of("model.safetensors") - 1);
    whole("evaluate %/model.safetensors", 0, "accuracy");
    spoil("model.safetensors");
    whole("evaluate %/model.safetensors", 1,
          "is not finite: the training that wrote it diverged");
    rewrite("model.safetensors", NULL, 0, 9000);
    whole("evaluate %/model.safetensors", 1, "is truncated");
    rewrite("x", "abc", 3, 0);
    whole("evaluate %/x", 1, "too short");
    rewrite("x", "abcdefghijkl", 12, 0);
    whole("evaluate %/x", 1, "is no safetensors file");
    rewrite("x", text, sizeof text - 1, 0);
    whole("evaluate %/x", 1, "not JSON");
    rewrite("x", foreign, sizeof foreign - 1, 0);
    whole("evaluate %/x", 2, "give --model and --data");
    whole("evaluate %/x --model softmax --data synthetic", 1, "1 tensors, the model");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_train, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_master, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_other_data, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_bad_files, run_set_up, run_tear_down),
    };

    (void)run_program();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
