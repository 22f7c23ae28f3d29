/* safetensors files: read back with a JSON library; a full disk loses nothing. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/run/checkpoint.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct gapless_tensor tensors[] = {
    {.name = "layer1.weight", .dims = 2, .dim = {7, 3}},
    {.name = "layer1.bias", .dims = 1, .dim = {7}}};
static const struct gapless_model model = {tensors, 2};
static char folder[] = "/tmp/gapless-test-XXXXXX";
static char path[64];

static char *slurp(const char *name, size_t *ret_bytes)
{
    FILE *f = fopen(name, "rb");
    char *data = calloc(1, 1 << 16);

    assert_non_null(f);
    assert_non_null(data);
    *ret_bytes = fread(data, 1, (1 << 16) - 1, f);
    (void)fclose(f);
    return data;
}

static void fill(float *theta, float from)
{
    int i;

    for (i = 0; i < 28; i++)
        theta[i] = from + (float)i;
}

static void test_reads_back(void **state)
{
    static char large[5000];
    const char *const metadata[] = {"rule", "dana-ga", NULL};
    const char *const more[] = {"names", "a \"b\" \\c\n", "large", large, NULL};
    float theta[28];
    struct layout l;
    size_t bytes;
    uint64_t length;
    json_t *root, *t;
    char *data;

    (void)state;
    fill(theta, 1);
    memset(large, 'x', sizeof large - 1);
    assert_int_equal(layout_init(&l, &model, 0, 0, false, NULL), 0);
    assert_int_equal(checkpoint_save(&l, theta, path, metadata, more, NULL), 0);
    data = slurp(path, &bytes);
    memcpy(&length, data, 8);
    assert_int_equal(length % 8, 0);
    assert_int_equal(bytes, 8 + length + sizeof theta);
    root = json_loadb(data + 8, length, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(
                            json_object_get(root, "__metadata__"), "rule")),
                        "dana-ga");
    assert_string_equal(json_string_value(json_object_get(
                            json_object_get(root, "__metadata__"), "names")),
                        more[1]);
    assert_string_equal(json_string_value(json_object_get(
                            json_object_get(root, "__metadata__"), "large")),
                        large);
    t = json_object_get(root, "layer1.bias");
    assert_string_equal(json_string_value(json_object_get(t, "dtype")), "F32");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(t, "shape"), 0)),
                     7);
    assert_int_equal(
        json_integer_value(json_array_get(json_object_get(t, "data_offsets"), 0)), 84);
    assert_int_equal(
        json_integer_value(json_array_get(json_object_get(t, "data_offsets"), 1)), 112);
    assert_memory_equal(data + 8 + length, theta, sizeof theta);
    json_decref(root);
    free(data);
    layout_free(&l);
}

static void test_full_disk_keeps_the_old(void **state)
{
    struct rlimit was, small = {40, RLIM_INFINITY};
    struct gapless_error e = {0};
    float theta[28];
    struct layout l;
    size_t before, after;
    char *old, *now;

    (void)state;
    fill(theta, 100);
    old = slurp(path, &before);
    assert_int_equal(layout_init(&l, &model, 0, 0, false, NULL), 0);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small.rlim_max = was.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(checkpoint_save(&l, theta, path, NULL, NULL, &e), GAPLESS_IO);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_non_null(strstr(e.text, path));
    now = slurp(path, &after);
    assert_int_equal(before, after);
    assert_memory_equal(old, now, before);
    free(old);
    free(now);
    layout_free(&l);
}

static void test_no_such_folder(void **state)
{
    struct gapless_error e = {0};
    float theta[28] = {0};
    struct layout l;

    (void)state;
    assert_int_equal(layout_init(&l, &model, 0, 0, false, NULL), 0);
    assert_int_equal(
        checkpoint_save(&l, theta, "/nowhere/x.safetensors", NULL, NULL, &e),
        GAPLESS_IO);
    assert_non_null(strstr(e.text, "/nowhere/x.safetensors"));
    layout_free(&l);
}

/* A rename would put a file in the place of a device, /dev/null of a root user too. */
static void test_a_pipe_stays(void **state)
{
    struct gapless_error e = {0};
    float theta[28] = {0};
    char pipe_path[80];
    struct layout l;
    struct stat is;

    (void)state;
    (void)snprintf(pipe_path, sizeof pipe_path, "%s/pipe", folder);
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_int_equal(layout_init(&l, &model, 0, 0, false, NULL), 0);
    assert_int_equal(checkpoint_save(&l, theta, pipe_path, NULL, NULL, &e),
                     GAPLESS_INVALID);
    assert_non_null(strstr(e.text, pipe_path));
    assert_int_equal(stat(pipe_path, &is), 0);
    assert_true(S_ISFIFO(is.st_mode));
    assert_int_equal(unlink(pipe_path), 0);
    layout_free(&l);
}

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    (void)snprintf(path, sizeof path, "%s/m.safetensors", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(folder); /* fails if a temporary file was left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_back),
        cmocka_unit_test(test_full_disk_keeps_the_old),
        cmocka_unit_test(test_no_such_folder),
        cmocka_unit_test(test_a_pipe_stays),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
