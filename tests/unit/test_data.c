/* Data sets: reading small files, finding them, standardising, and the memory that
 * processes share. test_data_damage.c is about files that are not what they should be.
 */
#include "tests/unit/data_files.h"

#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>

static void assert_is_idx(const struct data *d)
{
    assert_int_equal(d->train_count, TRAIN);
    assert_int_equal(d->test_count, TEST);
    assert_int_equal(data_count(d, DATA_TRAIN), TRAIN);
    assert_int_equal(data_count(d, DATA_TEST), TEST);
    assert_int_equal(d->features, PIXELS);
    assert_int_equal(d->classes, 10);
    assert_memory_equal(d->train_x, idx[0].bytes + 16, TRAIN * PIXELS);
    assert_memory_equal(d->train_y, idx[1].bytes + 8, TRAIN);
    assert_memory_equal(d->test_x, idx[2].bytes + 16, TEST * PIXELS);
    assert_memory_equal(d->test_y, idx[3].bytes + 8, TEST);
}

/* --- reading --------------------------------------------------------------- */

static void reads_idx_plain_and_gzip(void **state)
{
    char dir[PATH_MAX];
    struct data *d;

    (void)state;
    make_folder(dir, "idx");
    write_files(dir, idx, 4);
    d = loaded("mnist", dir);
    assert_is_idx(d);
    assert_string_equal(d->name, "mnist");
    assert_string_equal(d->source, dir);
    data_free(d);
    for (int i = 0; i < 4; i++) { /* one after another becomes gzip */
        remove_file(dir, &idx[i]);
        write_file(dir, &idx_gz[i]);
        d = loaded("fashion-mnist", dir);
        assert_is_idx(d);
        data_free(d);
    }
    data_free(NULL);
}

static void standardises(void **state)
{
    const uint32_t indices[] = {3, 0, 19, 3};
    double mean = 0.0, variance = 0.0;
    float x[4 * PIXELS];
    uint8_t y[4];
    char dir[PATH_MAX];
    struct data *d;

    (void)state;
    make_folder(dir, "standard");
    write_files(dir, idx, 4);
    d = loaded("mnist", dir);
    for (uint32_t i = 0; i < TRAIN * PIXELS; i++)
        mean += pixel_at(0, i) / 255.0 / (TRAIN * PIXELS);
    for (uint32_t i = 0; i < TRAIN * PIXELS; i++)
        variance += pow(pixel_at(0, i) / 255.0 - mean, 2) / (TRAIN * PIXELS);
    assert_true(fabs(d->mean - mean) < 1e-12);
    assert_true(fabs(d->deviation - sqrt(variance)) < 1e-12);
    for (int part = 0; part < 2; part++) {
        uint32_t last = part == 0 ? 19 : 7;

        data_gather(d, part == 0 ? DATA_TRAIN : DATA_TEST,
                    (const uint32_t[]){3, 0, last, 3}, 4, x, y);
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t from = i == 2 ? last : indices[i];

            assert_int_equal(y[i], idx[2 * part + 1].bytes[8 + from]);
            for (uint32_t j = 0; j < PIXELS; j++) {
                double want = pixel_at(part, from * PIXELS + j) / 255.0;

                want = (want - mean) / sqrt(variance);
                assert_true(fabs((double)x[i * PIXELS + j] - want) < 1e-6);
            }
        }
    }
    data_free(d);
}

static void reads_cifar(void **state)
{
    char dir[PATH_MAX], inner[PATH_MAX];
    struct data *d;

    (void)state;
    make_folder(dir, "cifar");
    for (int round = 0; round < 2; round++) {
        if (round == 0)
            make_folder(inner, "cifar/cifar-10-batches-bin");
        else
            remove_tree(inner);
        write_files(round == 0 ? inner : dir, cifar, FILES);
        d = loaded("cifar-10", dir);
        assert_int_equal(d->train_count, 10);
        assert_int_equal(d->test_count, 2);
        assert_int_equal(d->features, 3072);
        for (uint32_t i = 0; i < 12; i++) {
            const uint8_t *record = cifar[i / 2].bytes + i % 2 * CIFAR_RECORD;
            bool test = i >= 10;

            assert_memory_equal((test ? d->test_x : d->train_x) + i % 10 * 3072,
                                record + 1, 3072);
            assert_int_equal((test ? d->test_y : d->train_y)[i % 10], record[0]);
        }
        data_free(d);
    }
}

static void synthetic_is_reproducible(void **state)
{
    struct data *a = loaded("synthetic:500x30x7:9", NULL);
    struct data *b = loaded("synthetic:500x30x7:9", "/nonexistent");
    struct data *c = loaded("synthetic:500x30x7:10", NULL);
    uint32_t counts[7] = {0};
    uint64_t hash = 0;

    (void)state;
    assert_int_equal(a->train_count, 500);
    assert_int_equal(a->test_count, 100);
    assert_int_equal(a->features, 30);
    assert_int_equal(a->classes, 7);
    assert_memory_equal(a->train_x, b->train_x, 500 * 30);
    assert_memory_equal(a->test_x, b->test_x, 100 * 30);
    assert_memory_not_equal(a->train_x, c->train_x, 500 * 30);
    assert_memory_not_equal(a->train_x, a->test_x, 100 * 30);
    for (int i = 0; i < 500; i++)
        counts[a->train_y[i]]++;
    for (int i = 0; i < 7; i++)
        assert_true(counts[i] >= 71 && counts[i] <= 72);
    for (int i = 0; i < 500 * 30; i++)
        hash = rng_mix(hash ^ a->train_x[i]);
    if (hash != UINT64_C(0x40a21ce819b3b4c1)) /* the same on every machine */
        fail_msg("hash 0x%016llx", (unsigned long long)hash);
    data_free(a);
    data_free(b);
    data_free(c);
    a = loaded("synthetic", NULL);
    assert_int_equal(a->train_count, 12000);
    assert_int_equal(a->features, 64);
    data_free(a);
    a = loaded("synthetic:1x1x2", NULL); /* one pixel: no deviation */
    assert_true(a->deviation > 0.0);
    data_free(a);
}

/* --- names and places ------------------------------------------------------ */

static void unknown_names_list_the_choices(void **state)
{
    static const char *const wrong[] = {"", "imagenet", "Mnist", "synthetics",
                                        "mnist "};
    static const char *const shapes[] = {"synthetic:",
                                         "synthetic:5",
                                         "synthetic:5x5",
                                         "synthetic:5x5x",
                                         "synthetic:0x5x2",
                                         "synthetic:5x0x2",
                                         "synthetic:5x5x1",
                                         "synthetic:5x5x257",
                                         "synthetic:5x65537x2",
                                         "synthetic:-5x5x2",
                                         "synthetic:5x5x2:",
                                         "synthetic:5x5x2:1:",
                                         "synthetic: 5x5x2",
                                         "synthetic:5x5x2:-1",
                                         "synthetic:4294967296x1x2",
                                         "synthetic:5x5x2 ",
                                         "synthetic:5y5y2",
                                         "synthetic:99999999999999999999x1x2",
                                         "synthetic:5x5x2:18446744073709551616"};
    char huge[3000];

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        refused(wrong[i], NULL, GAPLESS_INVALID, "fashion-mnist, mnist, cifar-10",
                "synthetic[:COUNT");
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        refused(shapes[i], NULL, GAPLESS_INVALID, shapes[i], "COUNTxFEATURESxCLASSES");
    refused("synthetic:4294967295x65536x2", NULL, GAPLESS_INVALID, "too large",
            "65536");
    memset(huge, 'y', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    refused(huge, NULL, GAPLESS_INVALID, "choose one of", "");
    memcpy(huge, "synthetic:1x1x2:", 16);
    memset(huge + 16, '0', sizeof huge - 17);
    refused(huge, NULL, GAPLESS_INVALID, "such as", "");
}

static void missing_sets_say_what_to_do(void **state)
{
    char dir[PATH_MAX], deep[PATH_MAX];

    (void)state;
    make_folder(dir, "empty");
    if (access("/usr/share/datasets/mnist", F_OK) != 0)
        refused("mnist", NULL, GAPLESS_MISSING, "$GAPLESS_DATA_DIR/mnist",
                "train-images-idx3-ubyte");
    if (access("/usr/share/datasets/cifar-10", F_OK) != 0)
        refused("cifar-10", NULL, GAPLESS_MISSING, "$GAPLESS_DATA_DIR/cifar-10",
                "data_batch_1.bin");
    if (access("/usr/share/datasets/fashion-mnist", F_OK) != 0)
        refused("fashion-mnist", NULL, GAPLESS_MISSING,
                "apt-get install dataset-fashion-mnist", "");
    refused("fashion-mnist", dir, GAPLESS_MISSING, dir, "fashion-mnist");
    refused("mnist", "", GAPLESS_MISSING, "mnist", "");
    memset(deep, 'a', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    refused("mnist", deep, GAPLESS_MISSING, "aaa", "mnist");
}

static void folders_are_searched_in_order(void **state)
{
    static const char *const order[] = {"env/mnist", "env", "cache/gapless/mnist"};
    static const char *const made[] = {"env", "env/mnist", "cache", "cache/gapless",
                                       "cache/gapless/mnist"};
    char dir[PATH_MAX], env[PATH_MAX], cache[PATH_MAX];
    struct data *d;

    (void)state;
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++)
        make_folder(dir, made[i]);
    path_of(env, root, "env");
    path_of(cache, root, "cache");
    for (int i = 0; i < 3; i++) {
        path_of(dir, root, order[i]);
        write_files(dir, idx, 4);
    }
    assert_int_equal(setenv("GAPLESS_DATA", env, 1), 0);
    assert_int_equal(setenv("XDG_CACHE_HOME", cache, 1), 0);
    for (int i = 0; i < 3; i++) {
        if (i == 1) { /* the same folder by its other name */
            assert_int_equal(setenv("GAPLESS_DATA_DIR", env, 1), 0);
            assert_int_equal(setenv("GAPLESS_DATA", "mnist", 1), 0);
        }
        d = loaded("mnist", NULL);
        path_of(dir, root, order[i]);
        assert_string_equal(d->source, dir);
        data_free(d);
        for (int j = 0; j < 4; j++)
            remove_file(dir, &idx[j]);
    }
    assert_int_equal(unsetenv("GAPLESS_DATA_DIR"), 0);
    make_folder(dir, "given");
    make_folder(dir, "given/mnist");
    write_files(dir, idx, 4);
    path_of(env, root, "given");
    d = loaded("mnist", env); /* the folder itself or <folder>/<name> */
    assert_string_equal(d->source, dir);
    data_free(d);
    assert_int_equal(setenv("GAPLESS_DATA", env, 1), 0);
    refused("mnist", home, GAPLESS_MISSING, "no files of mnist", ""); /* and no other */
    assert_int_equal(unsetenv("GAPLESS_DATA") | unsetenv("XDG_CACHE_HOME"), 0);
}

/* --- sharing --------------------------------------------------------------- */

static void shared_with_another_process(void **state)
{
    struct gapless_error error;
    struct data *d = loaded("synthetic:300x10x3", NULL), *copy = NULL;
    int fd = -1, status;
    pid_t child;

    (void)state;
    assert_int_equal(data_share(d, &fd, &error), GAPLESS_OK);
    assert_true(fd >= 3 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct data *mine;
        int bad = data_open_fd(fd, &mine, NULL) != GAPLESS_OK;

        (void)close(fd);
        bad = bad || mine->train_count != 300 || strcmp(mine->name, d->name) != 0 ||
              memcmp(mine->train_x, d->train_x, 3000) != 0 ||
              memcmp(mine->test_y, d->test_y, 60) != 0 || mine->mean < d->mean ||
              mine->scale < d->scale || mine->offset < d->offset ||
              mine->train_x == d->train_x;
        data_free(bad ? NULL : mine);
        _exit(bad);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    /* nobody can write to it or shrink it */
    assert_int_equal(pwrite(fd, "x", 1, 5000), -1);
    assert_int_equal(ftruncate(fd, 4096), -1);
    assert_ptr_equal(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    data_free(d);
    assert_int_equal(data_open_fd(fd, &copy, &error), GAPLESS_OK);
    assert_int_equal(copy->train_count, 300);
    data_free(copy);
    (void)close(fd);
}

static void refused_fd(int fd, const char *says)
{
    struct gapless_error error = {.text = ""};
    struct data *data = NULL;

    if (data_open_fd(fd, &data, &error) != GAPLESS_CORRUPT ||
        strstr(error.text, says) == NULL)
        fail_msg("\"%s\", expected \"%s\"", error.text, says);
    assert_null(data);
}

static int memory_file(const void *bytes, size_t count, unsigned seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, count), count);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void foreign_descriptors_are_refused(void **state)
{
    enum {
        SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
    };
    struct data *d = loaded("synthetic:40x10x3", NULL), *damaged = NULL;
    uint8_t *bytes = malloc(d->map_bytes);
    struct rng r = rng_seed(1, 1);
    int fd = open("/dev/null", O_RDONLY), opened = 0, before = open_descriptors();

    (void)state;
    assert_non_null(bytes);
    memcpy(bytes, d->map, d->map_bytes);
    refused_fd(-1, "not sealed");
    refused_fd(fd, "not sealed");
    (void)close(fd);
    fd = memory_file(bytes, d->map_bytes, F_SEAL_SHRINK);
    refused_fd(fd, "not sealed");
    (void)close(fd);
    fd = memory_file(bytes, 100, SEALS);
    refused_fd(fd, "too short");
    (void)close(fd);
    fd = memory_file(bytes, d->map_bytes - 64, SEALS);
    refused_fd(fd, "size");
    (void)close(fd);
    memset(bytes + 16, 'a', DATA_NAME_MAX); /* a name without an end */
    fd = memory_file(bytes, d->map_bytes, SEALS);
    refused_fd(fd, "damaged");
    (void)close(fd);
    memcpy(bytes, d->map, d->map_bytes);
    for (int i = 0; i < 1500; i++) { /* anything in the header or the labels */
        size_t labels = (size_t)(d->train_y - (const uint8_t *)d->map);
        size_t at = i < 1000 ? rng_below(&r, 4096)
                             : labels + rng_below(&r, d->map_bytes - labels);
        uint8_t was = bytes[at];

        bytes[at] = (uint8_t)(was ^ (1U << rng_below(&r, 8)));
        fd = memory_file(bytes, d->map_bytes, SEALS);
        if (data_open_fd(fd, &damaged, NULL) == GAPLESS_OK) {
            opened++;
            for (uint32_t j = 0; j < damaged->train_count; j++)
                assert_true(damaged->train_y[j] < damaged->classes);
            for (uint32_t j = 0; j < damaged->test_count; j++)
                assert_true(damaged->test_y[j] < damaged->classes);
            assert_int_equal(damaged->features, 10);
            data_free(damaged);
        }
        (void)close(fd);
        bytes[at] = was;
    }
    assert_int_equal(open_descriptors(), before - 1); /* less /dev/null */
    assert_true(opened > 700 && opened < 1450);       /* most of both is unused */
    free(bytes);
    data_free(d);
}

static void fashion_mnist_is_what_it_was(void **state)
{
    struct gapless_error error;
    uint32_t counts[10] = {0};
    struct data *d;

    (void)state;
    if (data_load("fashion-mnist", NULL, &d, &error) != GAPLESS_OK) {
        print_message("skipped: %s\n", error.text);
        skip();
        return;
    }
    assert_int_equal(d->train_count, 60000);
    assert_int_equal(d->test_count, 10000);
    assert_int_equal(d->features, 784);
    assert_true(fabs(d->mean - 0.2860) < 5e-5 && fabs(d->deviation - 0.3530) < 5e-5);
    for (uint32_t i = 0; i < d->train_count; i++)
        counts[d->train_y[i]]++;
    for (int i = 0; i < 10; i++)
        assert_int_equal(counts[i], 6000);
    data_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_idx_plain_and_gzip),
        cmocka_unit_test(standardises),
        cmocka_unit_test(reads_cifar),
        cmocka_unit_test(synthetic_is_reproducible),
        cmocka_unit_test(unknown_names_list_the_choices),
        cmocka_unit_test(missing_sets_say_what_to_do),
        cmocka_unit_test(folders_are_searched_in_order),
        cmocka_unit_test(shared_with_another_process),
        cmocka_unit_test(foreign_descriptors_are_refused),
        cmocka_unit_test(fashion_mnist_is_what_it_was),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
