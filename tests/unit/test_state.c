/* State files: what is written comes back; what is damaged is refused with the reason; a
 * full disk changes nothing. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/run/state.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define COUNT 25u /* odd: what follows the model has to be brought in line */

static const struct gapless_tensor tensors[] = {
    {.name = "layer1.weight", .dims = 2, .dim = {6, 3}},
    {.name = "layer1.bias", .dims = 1, .dim = {7}}};
static const struct gapless_model model = {tensors, 2};
static char folder[] = "/tmp/gapless-state-XXXXXX";
static char path[128];

static int write_state(const char *to, uint64_t gradients, struct gapless_error *error)
{
    static const uint64_t versions[3] = {7, 8, UINT64_MAX};
    struct state_write *w = NULL;
    struct layout l;
    uint32_t words, i;
    int status;

    assert_int_equal(layout_init(&l, &model, 0, 0, false, NULL), GAPLESS_OK);
    assert_int_equal(state_write_new(to, &w, NULL), GAPLESS_OK);
    state_write_say(w, "rule", "a \"b\" \\c\n");
    state_write_say(w, "rule", "dana-ga \"x\" \\ \t");
    (void)state_write_model(w, &l);
    words = state_write_add(w, "versions", STATE_U64, 3);
    (void)state_write_add(w, "bytes", STATE_U8, 16);
    layout_free(&l);
    status = state_write_begin(w, error);
    if (status != GAPLESS_OK) {
        state_write_drop(w);
        return status;
    }
    for (i = 0; i < COUNT; i++)
        ((float *)state_write_at(w, 0))[i] = 0.5f + (float)i;
    memcpy(state_write_at(w, words), versions, sizeof versions);
    state_write_number(w, "gradients", gradients);
    return state_write_end(w, error);
}

static void test_reads_back(void **state)
{
    struct state_file *f = NULL;
    struct gapless_error error = {0};
    struct layout l;
    const uint64_t *words;
    const float *theta;
    uint32_t i;

    (void)state;
    assert_int_equal(write_state(path, 1234, NULL), GAPLESS_OK);
    assert_int_equal(state_open(path, &f, &error), GAPLESS_OK);
    assert_string_equal(state_said(f, "rule"), "dana-ga \"x\" \\ \t");
    assert_int_equal(state_number(f, "gradients"), 1234);
    assert_string_equal(state_said(f, "nothing"), "");
    assert_int_equal(layout_init(&l, &model, 0, 0, false, NULL), GAPLESS_OK);
    theta = state_model(f, &l, &error);
    assert_non_null(theta);
    for (i = 0; i < COUNT; i++)
        assert_true(theta[i] == 0.5f + (float)i);
    words = state_find(f, "versions", STATE_U64, 3);
    assert_non_null(words);
    assert_true(words[0] == 7 && words[2] == UINT64_MAX);
    assert_null(state_find(f, "versions", STATE_U64, 4));
    assert_null(state_find(f, "versions", STATE_F64, 3));
    assert_null(state_find(f, "layer1.bias", STATE_F32, 7));
    assert_int_equal(state_tensors(f), 5); /* and what brings in line */
    l.tensors[1].dim[0] = 8;
    assert_null(state_model(f, &l, &error));
    assert_non_null(strstr(error.text, "layer1.bias"));
    layout_free(&l);
    state_close(f);
}

static size_t read_all(char *ret, size_t max)
{
    FILE *file = fopen(path, "rb");
    size_t bytes;

    assert_non_null(file);
    bytes = fread(ret, 1, max, file);
    (void)fclose(file);
    return bytes;
}

static void write_all(const char *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    (void)fclose(file);
}

static void assert_refused(const char *what)
{
    struct state_file *f = NULL;
    struct gapless_error error = {0};
    int status = state_open(path, &f, &error);

    if (status != GAPLESS_CORRUPT || strstr(error.text, path) == NULL)
        fail_msg("%s: %d %s", what, status, error.text);
}

/* Every byte of the file counts: each is changed once, in one bit; then many at once. */
static void test_flips(void **state)
{
    static char whole[16384], damaged[sizeof whole];
    uint64_t random = 1;
    size_t bytes, i;
    char what[64];

    (void)state;
    assert_int_equal(write_state(path, 1, NULL), GAPLESS_OK);
    bytes = read_all(whole, sizeof whole);
    assert_true(bytes < sizeof whole);
    for (i = 0; i < bytes + 2000; i++) {
        size_t n = i < bytes ? 1 : 1 + i % 7;

        memcpy(damaged, whole, bytes);
        while (n-- > 0) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            damaged[i < bytes ? i : (random >> 33) % bytes] ^=
                (char)(1 << (random >> 61));
        }
        if (memcmp(damaged, whole, bytes) == 0)
            continue; /* twice the same bit */
        write_all(damaged, bytes);
        (void)snprintf(what, sizeof what, "byte %zu", i);
        assert_refused(what);
    }
    for (i = 0; i < bytes; i += i < 700 ? 1 : 61) {
        write_all(whole, i);
        (void)snprintf(what, sizeof what, "cut at %zu", i);
        assert_refused(what);
    }
    memcpy(damaged, whole, bytes);
    damaged[bytes] = 0;
    write_all(damaged, bytes + 1);
    assert_refused("a byte more");
    write_all(whole, bytes);
    {
        struct state_file *f = NULL;

        assert_int_equal(state_open(path, &f, NULL), GAPLESS_OK);
        state_close(f);
    }
}

/* A header whose checksum is right and that makes no sense: the reader's own checks. */
static void write_header(const char *text)
{
    static const char key[] = "\"header_sum\":\"";
    char file[1024] = {0}, digits[17];
    uint64_t length = strlen(text);
    char *at;

    memcpy(file, &length, sizeof length);
    memcpy(file + 8, text, length);
    at = strstr(file + 8, key);
    assert_non_null(at);
    (void)snprintf(digits, sizeof digits, "%016llx",
                   (unsigned long long)state_sum(file + 8, length));
    memcpy(at + sizeof key - 1, digits, 16);
    write_all(file, 8 + length);
}

#define HEAD                                                                           \
    "{\"__metadata__\":{\"header_sum\":\"0000000000000000\",\"state\":\"1\","          \
    "\"sums\":\"0000000000000000\"}"

static void test_nonsense(void **state)
{
    static const char *const cases[] = {
        HEAD,
        HEAD "}x",
        HEAD ",\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
        HEAD ",\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,16]}}",
        HEAD ",\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905,4],"
             "\"data_offsets\":[0,16]}}",
        HEAD ",\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],"
             "\"data_offsets\":[0,0]}}",
        HEAD ",\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}",
        HEAD ",\"a\":{\"dtype\":\"F99\",\"shape\":[0],\"data_offsets\":[0,0]}}",
        HEAD ",\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}",
        HEAD ",\"a\\u0000\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
        HEAD ",\"a}}",
        HEAD "}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_header(cases[i]);
        assert_refused(cases[i]);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(state_open(path, &(struct state_file *){NULL}, NULL),
                     GAPLESS_MISSING);
    assert_int_equal(state_write_new("/dev/null", &(struct state_write *){NULL}, NULL),
                     GAPLESS_IO);
}

static uint32_t files(void)
{
    DIR *dir = opendir(folder);
    uint32_t count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    (void)closedir(dir);
    return count - 2;
}

/* The file size limit stands for a full disk: both fail when the room is reserved. */
static void test_full_disk(void **state)
{
    struct rlimit before, tight;
    struct gapless_error error = {0};
    struct state_file *f = NULL;

    (void)state;
    assert_int_equal(write_state(path, 1, NULL), GAPLESS_OK);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    tight = before;
    tight.rlim_cur = 500;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    assert_int_equal(write_state(path, 2, &error), GAPLESS_IO);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_non_null(strstr(error.text, "unchanged"));
    assert_int_equal(files(), 1);
    assert_int_equal(state_open(path, &f, NULL), GAPLESS_OK);
    assert_int_equal(state_number(f, "gradients"), 1);
    state_close(f);
}

/* More than any disk has: nothing is reserved, and nothing is left. */
static void test_no_room(void **state)
{
    struct state_write *w = NULL;
    struct gapless_error error = {0};
    uint32_t before = files();

    (void)state;
    assert_int_equal(state_write_new(path, &w, NULL), GAPLESS_OK);
    (void)state_write_add(w, "vector", STATE_F32, 1ull << 50);
    assert_int_equal(state_write_begin(w, &error), GAPLESS_IO);
    assert_int_equal(error.os, ENOSPC);
    state_write_drop(w);
    assert_int_equal(files(), before);
}

static void count_line(void *context, const char *line)
{
    (void)line;
    (*(int *)context)++;
}

/* What a writer leaves that dies. */
static void leave_part(long pid)
{
    char name[256];
    FILE *file;

    (void)snprintf(name, sizeof name,
                   "%s/state-0000000000000090.safetensors.%ld-0x1.part", folder, pid);
    file = fopen(name, "w");
    assert_non_null(file);
    (void)fclose(file);
}

static void test_folder(void **state)
{
    char name[256], found[256];
    struct gapless_error error = {0};
    uint64_t epoch = 0, gradients;
    int lines = 0;

    (void)state;
    (void)unlink(path);
    assert_int_equal(
        state_folder_latest(folder, found, sizeof found, NULL, NULL, NULL, &error),
        GAPLESS_MISSING);
    for (gradients = 90; gradients < 130; gradients += 10) {
        assert_int_equal(state_folder_path(folder, gradients, name, sizeof name, NULL),
                         GAPLESS_OK);
        assert_int_equal(write_state(name, gradients, NULL), GAPLESS_OK);
    }
    leave_part(2147483646); /* of nobody */
    leave_part((long)getpid());
    state_folder_prune(folder, 2);
    assert_int_equal(files(), 3);
    assert_int_equal(truncate(name, 100), 0); /* the last one */
    assert_int_equal(state_folder_latest(folder, found, sizeof found, NULL, count_line,
                                         &lines, &error),
                     GAPLESS_OK);
    assert_non_null(strstr(found, "110"));
    assert_int_equal(lines, 1);
    assert_int_equal(truncate(found, 100), 0);
    assert_int_equal(
        state_folder_latest(folder, found, sizeof found, NULL, NULL, NULL, &error),
        GAPLESS_CORRUPT);

    assert_int_equal(state_folder_epoch(folder, 0, &epoch, NULL), GAPLESS_OK);
    assert_int_equal(epoch, 1);
    assert_int_equal(state_folder_epoch(folder, 0, &epoch, NULL), GAPLESS_OK);
    assert_int_equal(epoch, 2);
    assert_int_equal(state_folder_epoch(folder, 40, &epoch, NULL), GAPLESS_OK);
    assert_int_equal(epoch, 41);
    assert_int_equal(state_folder_epoch("/nowhere", 0, &epoch, &error), GAPLESS_IO);
    (void)snprintf(name, sizeof name, "rm -r %s", folder);
    assert_int_equal(system(name), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_back), cmocka_unit_test(test_flips),
        cmocka_unit_test(test_nonsense),   cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_no_room),    cmocka_unit_test(test_folder),
    };

    if (mkdtemp(folder) == NULL)
        return 1;
    (void)snprintf(path, sizeof path, "%s/a.safetensors", folder);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
