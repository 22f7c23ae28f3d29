/* Finding and opening the plugin, and choosing GPUs by a text: what is wrong with each
 * file, where it was looked for, and a strict reader.
 *
 * The program runs itself again for each case (its name and a word), since a plugin
 * that was opened stays. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/device/device.h"
#include <gapless/gapless.h>

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64] = "/tmp/gapless-load-XXXXXX";
static char fake_plugin[PATH_MAX];

static void write_file(const char *name, const char *text)
{
    char path[256];
    FILE *out;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    out = fopen(path, "w");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void shell(const char *format, ...)
{
    char line[3 * PATH_MAX];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (system(line) != 0) /* NOLINT(cert-env33-c): the test's own commands */
        fail_msg("%s", line);
}

/* A plugin whose function returns these tables. */
static void compile(const char *name, const char *abi, const char *bytes,
                    const char *version)
{
    const char *compiler = getenv("CC");
    char text[1024], source[64];

    (void)snprintf(source, sizeof source, "%s.c", name);
    (void)snprintf(text, sizeof text,
                   "#include \"engine/device/device.h\"\n"
                   "static const struct gpu_plugin p = {%s, %s, \"%s\", 0, 0, 0, 0};\n"
                   "const struct gpu_plugin *gapless_gpu_plugin(uint32_t abi);\n"
                   "const struct gpu_plugin *gapless_gpu_plugin(uint32_t abi)\n"
                   "{ return abi == p.abi ? &p : NULL; }\n",
                   abi, bytes, version);
    write_file(source, text);
    shell("%s -std=c17 -shared -fPIC -I%s -I%s/engine/include -o %s/%s.so %s/%s.c",
          compiler != NULL ? compiler : "cc", GAPLESS_SOURCE_DIR, GAPLESS_SOURCE_DIR,
          folder, name, folder, name);
}

/* What device_plugin says in a process of its own, started from `program`. */
static int opened(const char *program, const char *plugin, char *ret, size_t bytes)
{
    char line[3 * PATH_MAX];
    size_t used;
    FILE *out;
    int status;

    if (plugin != NULL)
        (void)snprintf(line, sizeof line, "GAPLESS_CUDA_PLUGIN='%s' %s open", plugin,
                       program);
    else
        (void)snprintf(line, sizeof line, "unset GAPLESS_CUDA_PLUGIN; %s open",
                       program);
    out = popen(line, "r"); /* NOLINT(cert-env33-c): the test's own command */
    assert_non_null(out);
    used = fread(ret, 1, bytes - 1, out);
    ret[used] = '\0';
    status = pclose(out);
    assert_true(WIFEXITED(status));
    return -WEXITSTATUS(status);
}

static char self[PATH_MAX];

static void wrong(const char *plugin, int status, const char *word)
{
    char path[256], text[1024];
    int got;

    (void)snprintf(path, sizeof path, "%s/%s", folder, plugin);
    got = opened(self, path, text, sizeof text);
    if (got != status || strstr(text, word) == NULL || strstr(text, plugin) == NULL)
        fail_msg("%s: %d, '%s' without '%s'", plugin, got, text, word);
}

static void bad_files(void **state)
{
    (void)state;
    wrong("nothing.so", GAPLESS_MISSING, "cannot open shared object file");
    write_file("garbage.so", "no library at all\n");
    wrong("garbage.so", GAPLESS_MISSING, "does not open");
    write_file("empty.so", "");
    wrong("empty.so", GAPLESS_MISSING, "does not open");
    write_file("other.c", "int gapless_other;\n");
    shell("%s -shared -fPIC -o %s/other.so %s/other.c",
          getenv("CC") != NULL ? getenv("CC") : "cc", folder, folder);
    wrong("other.so", GAPLESS_VERSION, "no plugin of Gapless");
    compile("abi", "DEVICE_ABI + 1", "sizeof p", gapless_version());
    wrong("abi.so", GAPLESS_VERSION, "no tables of number");
    compile("bytes", "DEVICE_ABI", "sizeof p + 8", gapless_version());
    wrong("bytes.so", GAPLESS_VERSION, "another Gapless");
    compile("older", "DEVICE_ABI", "sizeof p", "0.0.9, CUDA 12");
    wrong("older.so", GAPLESS_VERSION, "0.0.9");
    compile("longer", "DEVICE_ABI", "sizeof p", "0.1.01");
    wrong("longer.so", GAPLESS_VERSION, "0.1.01");
}

/* Beside the program, then its ../lib; else the text says so. An empty variable is as
 * none. */
static void places(void **state)
{
    char program[256], text[1024];

    (void)state;
    shell("mkdir -p %s/at/bin %s/at/lib && cp %s %s/at/bin/program", folder, folder,
          self, folder);
    (void)snprintf(program, sizeof program, "%s/at/bin/program", folder);
    assert_int_equal(opened(program, NULL, text, sizeof text), GAPLESS_MISSING);
    assert_non_null(strstr(text, "/at/bin"));
    assert_non_null(strstr(text, "GAPLESS_CUDA=ON"));
    assert_non_null(strstr(text, "--target gapless_cuda"));
    assert_int_equal(opened(program, "", text, sizeof text), GAPLESS_MISSING);
    assert_non_null(strstr(text, "GAPLESS_CUDA=ON"));
    compile("libgapless_cuda", "DEVICE_ABI", "sizeof p", "0.0.8");
    shell("mv %s/libgapless_cuda.so %s/at/lib/", folder, folder);
    assert_int_equal(opened(program, NULL, text, sizeof text), GAPLESS_VERSION);
    assert_non_null(strstr(text, "/lib/libgapless_cuda.so is of Gapless 0.0.8"));
    shell("cp %s %s/at/bin/libgapless_cuda.so", fake_plugin, folder);
    assert_int_equal(opened(program, NULL, text, sizeof text), GAPLESS_OK);
    assert_int_equal(strncmp(text, gapless_version(), strlen(gapless_version())), 0);
}

static void *open_it(void *argument)
{
    const struct gpu_plugin *plugin = NULL;

    (void)argument;
    return device_plugin(&plugin, NULL) == GAPLESS_OK ? (void *)(uintptr_t)plugin
                                                      : NULL;
}

/* A failure is not kept; a plugin is, and the same for every thread. */
static void once(void **state)
{
    const struct gpu_plugin *plugin = NULL;
    struct gapless_error error = {0};
    pthread_t threads[4];
    void *seen[4];

    (void)state;
    assert_int_equal(setenv("GAPLESS_CUDA_PLUGIN", "/nowhere/x.so", 1), 0);
    assert_int_equal(device_plugin(&plugin, &error), GAPLESS_MISSING);
    assert_null(plugin);
    assert_int_equal(setenv("GAPLESS_CUDA_PLUGIN", fake_plugin, 1), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, open_it, NULL), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], &seen[i]), 0);
    assert_int_equal(device_plugin(&plugin, &error), GAPLESS_OK);
    for (int i = 0; i < 4; i++)
        assert_ptr_equal(seen[i], plugin);
    assert_int_equal(plugin->abi, DEVICE_ABI);
    assert_non_null(plugin->device);
    assert_non_null(plugin->model);
    assert_non_null(plugin->group);
}

static void chooses(const char *text, uint32_t count, const uint32_t *numbers)
{
    struct gapless_error error = {0};
    const struct gpu_plugin *plugin = NULL;
    uint32_t got[DEVICE_MAX] = {99}, got_count = 99;

    assert_int_equal(device_plugin(&plugin, &error), GAPLESS_OK);
    if (device_choose(plugin, text, got, &got_count, &error) != GAPLESS_OK)
        fail_msg("%s: %s", text, error.text);
    assert_int_equal(got_count, count);
    assert_memory_equal(got, numbers, count * sizeof *numbers);
}

static void refuses(const char *text, int status, const char *word)
{
    struct gapless_error error = {0};
    const struct gpu_plugin *plugin = NULL;
    uint32_t got[DEVICE_MAX] = {99}, got_count = 99;

    assert_int_equal(device_plugin(&plugin, &error), GAPLESS_OK);
    if (device_choose(plugin, text, got, &got_count, &error) != status)
        fail_msg("'%s' is not refused so: %s", text, error.text);
    if (strstr(error.text, word) == NULL)
        fail_msg("'%s' without '%s': %s", text, word, error.text);
    assert_int_equal(got_count, 99);
    assert_int_equal(got[0], 99);
}

static void choice(void **state)
{
    static const uint32_t numbers[] = {0, 1, 2, 3}, two[] = {3, 0};
    static const char *const malformed[] = {
        "",        "cud",      "cudaX",      "CUDA",       "cuda:",     "cuda: 1",
        "cuda:-1", "cuda:+1",  "cuda:1,",    "cuda:,1",    "cuda:1,,2", "cuda:01",
        "cuda:a",  "cuda:1 ",  "cuda:all,1", "cuda:1,all", "cuda:0x1",  "cuda:1;2",
        "cuda1",   "cuda:ALL", "cuda:1234",  "gpu:1",      "cpu",       "auto"};

    (void)state; /* the fake has 4 */
    chooses("cuda", 1, numbers);
    chooses("cuda:0", 1, numbers);
    chooses("cuda:3,0", 2, two);
    chooses("cuda:all", 4, numbers);
    chooses("cuda:0,1,2,3", 4, numbers);
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
        refuses(malformed[i], GAPLESS_INVALID, "cuda:0,2");
    refuses("cuda:1,2,1", GAPLESS_INVALID, "twice");
    refuses("cuda:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", GAPLESS_INVALID,
            "more than 16");
    refuses("cuda:4", GAPLESS_MISSING, "no GPU 4: this machine shows 4");
    refuses("cuda:0,999", GAPLESS_MISSING, "no GPU 999");
}

static int make_folder(void **state)
{
    const char *plugin = getenv("GAPLESS_CUDA_PLUGIN");

    (void)state;
    if (plugin == NULL || mkdtemp(folder) == NULL)
        return -1;
    (void)snprintf(fake_plugin, sizeof fake_plugin, "%s", plugin);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    shell("rm -r %s", folder);
    return 0;
}

/* "open": the version or the error, and the status. */
static int child(void)
{
    const struct gpu_plugin *plugin = NULL;
    struct gapless_error error = {0};
    int status = device_plugin(&plugin, &error);

    (void)printf("%s\n", status == GAPLESS_OK ? plugin->version : error.text);
    return -status;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_files),
        cmocka_unit_test(places),
        cmocka_unit_test(once),
        cmocka_unit_test(choice),
    };

    if (argc == 2 && strcmp(argv[1], "open") == 0)
        return child();
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return 1;
    if (setenv("FAKE_CUDA_GPUS", "4", 1) != 0)
        return 1;
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
