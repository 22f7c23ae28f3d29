/* A workload's children: what they say, gradients and measures by several, and every way in
 * which one can be wrong or go away. The children are Python scripts that need nothing but
 * Python. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cluster/workloads/workload.h"
#include "engine/base/clock.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A quadratic: the loss is the mean of (x - 1)^2 / 2, the gradient (x - 1) plus 1000 for each
 * batch of the seed; words and environment bend it. */
static const char script[] =
    "import json, math, mmap, os, socket, struct, sys, time\n"
    "channel = socket.socket(fileno=3)\n"
    "how = sys.argv[1] if len(sys.argv) > 1 else ''\n"
    "if how == 'ends': sys.exit(7)\n"
    "memory = floats = None\n"
    "while True:\n"
    "    request = channel.recv(16, socket.MSG_WAITALL)\n"
    "    if len(request) < 16: break\n"
    "    what, part, number = struct.unpack('=IIQ', request)\n"
    "    failed, text, loss, correct, weight = 0, b'', 0.0, math.nan, 1.0\n"
    "    if what == 1:\n"
    "        seed = number\n"
    "        said = {'tensors': [{'name': 'a', 'shape': [3, 2]}, {'name': 'b', "
    "'shape': [1], 'rate': 0.5}],\n"
    "                'epoch': 10, 'batch': 4, 'parts': 3}\n"
    "        if how == 'other' and part > 0: said['epoch'] = 11\n"
    "        if how.startswith('{'): said = dict(said, **json.loads(how))\n"
    "        text = json.dumps(said).encode() if how != 'nothing' else b'hello'\n"
    "        if how == 'long': channel.sendall(struct.pack('=IIddd', 0, 1 << 31, 0, 0, "
    "0)); continue\n"
    "    else:\n"
    "        if memory is None:\n"
    "            memory = mmap.mmap(4, os.fstat(4).st_size)\n"
    "            floats = memoryview(memory).cast('f')\n"
    "        count = len(floats) // 2\n"
    "        if what == 2:\n"
    "            for i in range(count): floats[i] = i + seed\n"
    "        if what == 3:\n"
    "            if how == 'dies' and number == 2: os.kill(os.getpid(), 9)\n"
    "            if how == 'leaves' and number == 2: sys.exit(0)\n"
    "            if how == 'fails' and number == 2: failed, text = 1, b'ValueError: "
    "not today'\n"
    "            for i in range(count): floats[count + i] = floats[i] - 1 + 1000 * "
    "number\n"
    "            loss = sum((x - 1) ** 2 for x in floats[:count]) / 2 / count\n"
    "        if what == 4: loss, correct, weight = floats[0] + part, 0.25 * part, part "
    "+ 1.0\n"
    "    channel.sendall(struct.pack('=IIddd', failed, len(text), loss, correct, "
    "weight) + text)\n";

static char path[64], command[400];

static const char *with(const char *word)
{
    (void)snprintf(command, sizeof command, "%s %s", path, word);
    return command;
}

static struct workload *opened(const char *word, uint64_t seed)
{
    struct gapless_error error = {.text = ""};
    struct workload *ret = NULL;

    if (workload_open(with(word), seed, &ret, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return ret;
}

static void it_says_what_it_is(void **state)
{
    struct workload *w = opened("", 5);
    struct gapless_error error = {.text = ""};
    struct workload_about about;
    float initial[7];
    char name[20];

    (void)state;
    workload_about(w, &about);
    assert_int_equal(about.tensors_count, 2);
    assert_int_equal(about.parameters, 7);
    assert_string_equal(about.tensors[0].name, "a");
    assert_int_equal(about.tensors[0].dim[1], 2);
    assert_true(fabs(about.tensors[1].rate - 0.5) < 1e-12);
    assert_int_equal(about.epoch, 10);
    assert_int_equal(about.batch, 4);
    assert_int_equal(about.parts, 3);
    assert_int_equal(workload_initial(w, initial, &error), GAPLESS_OK);
    for (int i = 0; i < 7; i++)
        assert_true(fabsf(initial[i] - (float)(i + 5)) < 1e-6f);
    workload_close(w);
    workload_close(NULL);
    workload_name("a/b/resnet8.py depth=20", name, sizeof name);
    assert_string_equal(name, "resnet8");
    workload_name("plain", name, sizeof name);
    assert_string_equal(name, "plain");
}

struct asking {
    struct workload *workload;
    uint32_t thread;
    bool right;
};

/* Many gradients of one thread, each of which has to be its own. */
static void *ask_many(void *context)
{
    struct asking *a = context;
    float params[7], grad[7];

    a->right = true;
    for (uint64_t i = 0; i < 200; i++) {
        uint64_t batch = i % 2 * 10 + a->thread;
        double loss = 0.0;

        for (int k = 0; k < 7; k++)
            params[k] = (float)(k + (int)i);
        if (workload_gradient(a->workload, a->thread, batch, params, grad, &loss,
                              NULL) != GAPLESS_OK)
            a->right = false;
        for (int k = 0; k < 7; k++)
            a->right = a->right &&
                       fabsf(grad[k] - (params[k] - 1 + 1000 * (float)batch)) < 1e-3f;
    }
    return NULL;
}

static void threads_have_a_child_each(void **state)
{
    struct workload *w = opened("", 1);
    struct gapless_error error = {.text = ""};
    struct workload_measured measured = {0};
    struct asking asking[3];
    pthread_t thread[3];
    float params[7] = {2.5f};

    (void)state;
    assert_int_equal(workload_threads(w, 3, &error), GAPLESS_OK);
    for (uint32_t i = 0; i < 3; i++) {
        asking[i] = (struct asking){.workload = w, .thread = i};
        assert_int_equal(pthread_create(&thread[i], NULL, ask_many, &asking[i]), 0);
    }
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_true(asking[i].right);
    }
    assert_int_equal(workload_measure(w, 2, 2, params, &measured, &error), GAPLESS_OK);
    assert_true(fabs(measured.loss - 4.5) < 1e-6 &&
                fabs(measured.correct - 0.5) < 1e-9 &&
                fabs(measured.weight - 3.0) < 1e-9);
    workload_close(w);
}

static void what_it_says_is_checked(void **state)
{
    static const struct {
        const char *word, *says;
        int status;
    } wrong[] = {
        {"nothing", "does not say what it is", GAPLESS_PROTOCOL},
        {"long", "does not answer as a workload does", GAPLESS_PROTOCOL},
        {"ends", "exit code 7", GAPLESS_PEER_LOST},
        {"{\"tensors\":[]}", "no list of 1 to", GAPLESS_INVALID},
        {"{\"tensors\":[{\"shape\":[2]}]}", "without a name", GAPLESS_INVALID},
        {"{\"tensors\":[{\"name\":\"a\",\"shape\":[]}]}", "tensor a without a shape",
         GAPLESS_INVALID},
        {"{\"tensors\":[{\"name\":\"a\",\"shape\":[0]}]}", "size that cannot be",
         GAPLESS_INVALID},
        {"{\"tensors\":[{\"name\":\"a\",\"shape\":[1e9,1]}]}", "size that cannot be",
         GAPLESS_INVALID},
        {"{\"tensors\":[{\"name\":\"a\",\"shape\":[2],\"rate\":\"x\"}]}",
         "rate that is no number", GAPLESS_INVALID},
        {"{\"tensors\":[{\"name\":\"a\",\"shape\":[2],\"flags\":64}]}",
         "flags that are not known", GAPLESS_INVALID},
        {"{\"epoch\":0}", "no epoch from 1", GAPLESS_INVALID},
        {"{\"batch\":1.5}", "no batch from 1", GAPLESS_INVALID},
        {"{\"parts\":100000}", "no parts from 1", GAPLESS_INVALID},
    };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct gapless_error error = {.text = ""};
        struct workload *w = NULL;
        int status = workload_open(with(wrong[i].word), 1, &w, &error);

        if (status != wrong[i].status || strstr(error.text, wrong[i].says) == NULL)
            fail_msg("%s: %d, %s", wrong[i].word, status, error.text);
        assert_null(w);
    }
}

static void what_cannot_start_is_explained(void **state)
{
    struct gapless_error error = {.text = ""};
    struct workload *w = NULL;

    (void)state;
    assert_int_equal(workload_open("/nowhere/x.py", 1, &w, &error), GAPLESS_MISSING);
    assert_non_null(strstr(error.text, "cannot be read"));
    assert_int_equal(workload_open("  ", 1, &w, &error), GAPLESS_INVALID);
    assert_int_equal(setenv("PYTHON", "/nowhere/python", 1), 0);
    assert_int_equal(workload_open(with(""), 1, &w, &error), GAPLESS_MISSING);
    assert_non_null(strstr(error.text, "set PYTHON"));
    assert_int_equal(unsetenv("PYTHON"), 0);
    w = opened("other", 1);
    assert_int_equal(workload_threads(w, 2, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "another thing"));
    workload_close(w);
}

static void one_that_goes_away_is_noticed(void **state)
{
    static const struct {
        const char *word, *says;
        int status;
    } ends[] = {
        {"dies", "signal 9", GAPLESS_PEER_LOST},
        {"leaves", "exit code 0", GAPLESS_PEER_LOST},
        {"fails", "ValueError: not today", GAPLESS_INVALID},
    };

    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct workload *w = opened(ends[i].word, 1);
        struct gapless_error error = {.text = ""};
        float params[7] = {0}, grad[7];
        double loss = 0.0;
        int status;

        assert_int_equal(workload_gradient(w, 0, 1, params, grad, &loss, &error),
                         GAPLESS_OK);
        status = workload_gradient(w, 0, 2, params, grad, &loss, &error);
        if (status != ends[i].status || strstr(error.text, ends[i].says) == NULL)
            fail_msg("%s: %d, %s", ends[i].word, status, error.text);
        /* one that is gone stays gone; one that failed goes on */
        status = workload_gradient(w, 0, 3, params, grad, &loss, &error);
        assert_int_equal(status, ends[i].status == GAPLESS_INVALID ? GAPLESS_OK
                                                                   : GAPLESS_PEER_LOST);
        workload_close(w);
    }
}

static unsigned descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    unsigned ret = 0;

    assert_non_null(folder);
    while (readdir(folder) != NULL)
        ret++;
    (void)closedir(folder);
    return ret;
}

static void nothing_is_left_behind(void **state)
{
    unsigned before = descriptors();
    double begun = clock_seconds();
    struct workload *w = opened("", 1);
    struct gapless_error error = {.text = ""};

    (void)state;
    assert_int_equal(workload_threads(w, 4, &error), GAPLESS_OK);
    workload_close(w);
    assert_int_equal(descriptors(), before);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* there is no child */
    assert_true(clock_seconds() - begun < 120.0);
}

static int write_script(void **state)
{
    FILE *file;
    int fd;

    (void)state;
    (void)snprintf(path, sizeof path, "/tmp/gapless-workload.XXXXXX.py");
    fd = mkstemps(path, 3);
    file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL || fputs(script, file) < 0)
        return -1;
    return fclose(file);
}

static int remove_script(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_says_what_it_is),
        cmocka_unit_test(threads_have_a_child_each),
        cmocka_unit_test(what_it_says_is_checked),
        cmocka_unit_test(what_cannot_start_is_explained),
        cmocka_unit_test(one_that_goes_away_is_noticed),
        cmocka_unit_test(nothing_is_left_behind),
    };

    if (system("command -v python3 >/dev/null") != 0) {
        (void)printf("SKIP: python3 is not installed\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, write_script, remove_script);
}
