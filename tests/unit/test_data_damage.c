/* Damaged data files: each kind of damage has its own error, which names the file;
 * random damage never crashes, never leaks, and never yields labels out of range. */
#include "tests/unit/data_files.h"

#include <stdbool.h>
#include <sys/resource.h>

/* Writes a set with one file replaced, expects an error, and puts the file back. */
static void with_file(const char *dir, const struct file *good, const struct file *bad,
                      int status, const char *says)
{
    const char *name =
        strncmp(good->name, "t10k", 4) == 0 || strncmp(good->name, "train", 5) == 0
            ? "mnist"
            : "cifar-10";

    remove_file(dir, good);
    write_file(dir, bad);
    refused(name, dir, status, says, bad->name);
    remove_file(dir, bad);
    write_file(dir, good);
}

static struct file with_size(const struct file *good, size_t at, uint32_t size)
{
    struct file ret = *good;

    put_size(&ret, at, size);
    return ret;
}

static struct file with_length(const struct file *good, size_t length)
{
    struct file ret = *good;

    ret.length = length;
    return ret;
}

static void idx_headers(void **state)
{
    static const uint32_t magics[] = {0, 0x801, 0x805, 0x903, 0x1000803, 0xffffffff};
    char dir[PATH_MAX];
    struct file bad;

    (void)state;
    make_folder(dir, "headers");
    write_files(dir, idx, 4);
    for (size_t i = 0; i < sizeof magics / sizeof magics[0]; i++) {
        bad = with_size(&idx[0], 0, magics[i]);
        with_file(dir, &idx[0], &bad, GAPLESS_CORRUPT, "not with 00000803");
    }
    bad = with_size(&idx[3], 0, 0x803);
    with_file(dir, &idx[3], &bad, GAPLESS_CORRUPT, "not with 00000801");
    bad = with_size(&idx[0], 4, 0);
    with_file(dir, &idx[0], &bad, GAPLESS_CORRUPT, "no records");
    bad = with_size(&idx[0], 8, 0);
    with_file(dir, &idx[0], &bad, GAPLESS_CORRUPT, "absurd size");
    bad = with_size(&idx[2], 8, 0xffffffff);
    with_file(dir, &idx[2], &bad, GAPLESS_CORRUPT, "absurd size");
    bad = with_size(&idx[2], 8, 0x10001); /* 65537 * 65536 wraps to 65536 */
    put_size(&bad, 12, 0x10000);
    with_file(dir, &idx[2], &bad, GAPLESS_CORRUPT, "absurd size");
    bad = with_size(&idx[0], 4, 0xffffffff); /* 51 GB in a file of 256 bytes */
    with_file(dir, &idx[0], &bad, GAPLESS_CORRUPT, "truncated");
    bad = with_size(&idx[1], 4, TRAIN + 1);
    with_file(dir, &idx[1], &bad, GAPLESS_CORRUPT, "21 labels for 20 images");
    bad = with_size(&idx[3], 4, TEST - 1);
    with_file(dir, &idx[3], &bad, GAPLESS_CORRUPT, "7 labels for 8 images");
    bad = with_size(&idx[2], 12, COLUMNS - 1);
    with_file(dir, &idx[2], &bad, GAPLESS_CORRUPT, "the training set of 12");
    data_free(loaded("mnist", dir)); /* all is as it was */
}

static void idx_contents(void **state)
{
    char dir[PATH_MAX], path[PATH_MAX];
    struct file bad;

    (void)state;
    make_folder(dir, "contents");
    write_files(dir, idx, 4);
    for (int i = 0; i < 4; i++) {
        bad = with_length(&idx[i], 0);
        with_file(dir, &idx[i], &bad, GAPLESS_CORRUPT, "truncated");
        bad = with_length(&idx[i], 7);
        with_file(dir, &idx[i], &bad, GAPLESS_CORRUPT, "truncated");
        bad = with_length(&idx[i], idx[i].length - 1);
        with_file(dir, &idx[i], &bad, GAPLESS_CORRUPT, "truncated");
        bad = with_length(&idx[i], idx[i].length + 1);
        with_file(dir, &idx[i], &bad, GAPLESS_CORRUPT, "holds more");
        bad = with_length(&idx_gz[i], idx_gz[i].length - 1);
        with_file(dir, &idx[i], &bad, GAPLESS_CORRUPT, "truncated");
        bad = idx_gz[i];
        bad.bytes[bad.length - 6] ^= 1; /* the trailer: checksum, length */
        with_file(dir, &idx[i], &bad, GAPLESS_CORRUPT, "");
        bad = idx_gz[i];
        bad.bytes[10] = 0xff; /* the first deflate block: no such type */
        with_file(dir, &idx[i], &bad, GAPLESS_CORRUPT, "not valid gzip");
        remove_file(dir, &idx[i]);
        refused("mnist", dir, GAPLESS_MISSING, idx[i].name, "belongs to the others");
        path_of(path, dir, idx[i].name);
        assert_int_equal(mkfifo(path, 0600), 0); /* must not hang */
        refused("mnist", dir, GAPLESS_CORRUPT, idx[i].name, "not a regular file");
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mkdir(path, 0700), 0);
        refused("mnist", dir, GAPLESS_CORRUPT, idx[i].name, "not a regular file");
        assert_int_equal(rmdir(path), 0);
        write_file(dir, &idx[i]);
    }
    for (int i = 1; i < 4; i += 2) {
        bad = idx[i];
        bad.bytes[8 + 5] = 10;
        with_file(dir, &idx[i], &bad, GAPLESS_CORRUPT, "label 5 is 10");
    }
    data_free(loaded("mnist", dir));
}

static void cifar_files(void **state)
{
    char dir[PATH_MAX];
    struct file bad;

    (void)state;
    make_folder(dir, "cifar-damage");
    write_files(dir, cifar, FILES);
    for (int i = 0; i < FILES; i++) {
        bad = with_length(&cifar[i], 0);
        with_file(dir, &cifar[i], &bad, GAPLESS_CORRUPT, "whole records");
        bad = with_length(&cifar[i], BYTES_MAX - 1);
        with_file(dir, &cifar[i], &bad, GAPLESS_CORRUPT, "whole records");
        bad = cifar[i];
        bad.bytes[CIFAR_RECORD] = 10;
        with_file(dir, &cifar[i], &bad, GAPLESS_CORRUPT, "label 1 is 10");
        if (i > 0 && i < 5) { /* all training files are equally long */
            bad = with_length(&cifar[i], CIFAR_RECORD);
            with_file(dir, &cifar[i], &bad, GAPLESS_CORRUPT, "holds 1 records");
        }
        remove_file(dir, &cifar[i]);
        refused("cifar-10", dir, GAPLESS_MISSING, cifar[i].name, "has no");
        write_file(dir, &cifar[i]);
    }
    data_free(loaded("cifar-10", dir));
}

/* A file of `zeros` bytes of zero after an IDX header, as small as gzip makes it. */
static void write_bomb(const char *dir, const struct file *header, size_t bytes,
                       uint32_t zeros)
{
    static const uint8_t zero[1 << 16];
    char path[PATH_MAX];
    gzFile to;

    path_of(path, dir, header->name);
    to = gzopen(path, "wb9");
    assert_non_null(to);
    assert_int_equal(gzwrite(to, header->bytes, (unsigned)bytes), bytes);
    for (uint32_t i = 0; i < zeros; i += sizeof zero)
        assert_int_equal(gzwrite(to, zero, sizeof zero), sizeof zero);
    assert_int_equal(gzclose(to), Z_OK);
}

/* A small file that claims, and by its compression might hold, gigabytes: refused by
 * reading it, not by first taking the memory. */
static void no_memory_for_empty_promises(void **state)
{
    char dir[PATH_MAX];
    struct file bad = idx[0], labels = idx[1];
    struct rusage before, after;

    (void)state;
    make_folder(dir, "bomb");
    write_files(dir, idx, 4);
    put_size(&bad, 4, 3000000);
    put_size(&labels, 4, 3000000);
    put_size(&bad, 8, 32);
    put_size(&bad, 12, 32); /* 3.07 GB */
    write_bomb(dir, &bad, 16, 1 << 23);
    write_bomb(dir, &labels, 8, 1 << 23);
    assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
    refused("mnist", dir, GAPLESS_CORRUPT, "", "");
    assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
    assert_true(after.ru_maxrss - before.ru_maxrss < 200000); /* KiB */
}

/* Loads what is in a folder and looks at all of it. Returns the set, or NULL after an
 * error that says something about one of the files. */
static struct data *survived(const char *name, const char *dir)
{
    struct gapless_error error = {.text = ""};
    struct data *d = NULL;
    uint32_t sum = 0;

    if (data_load(name, dir, &d, &error) != GAPLESS_OK) {
        assert_null(d);
        assert_true(error.status == GAPLESS_CORRUPT || error.status == GAPLESS_INVALID);
        if (strstr(error.text, "ubyte") == NULL && strstr(error.text, ".bin") == NULL)
            fail_msg("\"%s\" names no file", error.text);
        return NULL;
    }
    for (uint32_t i = 0; i < d->train_count; i++)
        assert_true(d->train_y[i] < 10);
    for (uint32_t i = 0; i < d->test_count; i++)
        assert_true(d->test_y[i] < 10);
    for (size_t i = 0; i < (size_t)d->train_count * d->features; i++)
        sum += d->train_x[i];
    for (size_t i = 0; i < (size_t)d->test_count * d->features; i++)
        sum += d->test_x[i];
    assert_true(sum > 0);
    return d;
}

static bool is_intact(const struct data *d)
{
    return d->train_count == TRAIN && d->test_count == TEST && d->features == PIXELS &&
           memcmp(d->train_x, idx[0].bytes + 16, (size_t)TRAIN * PIXELS) == 0 &&
           memcmp(d->train_y, idx[1].bytes + 8, TRAIN) == 0 &&
           memcmp(d->test_x, idx[2].bytes + 16, (size_t)TEST * PIXELS) == 0 &&
           memcmp(d->test_y, idx[3].bytes + 8, TEST) == 0;
}

/* Flips a bit or two in one of the files, or cuts it; gzip must notice all that
 * matters.
 */
static void random_damage(const char *folder, const char *name,
                          const struct file *files, int count, int rounds, bool checked)
{
    struct rng r = rng_seed(2, (uint64_t)count + (checked ? 100 : 0));
    char dir[PATH_MAX];
    int before, refusals = 0;

    make_folder(dir, folder);
    write_files(dir, files, count);
    data_free(loaded(name, dir));
    before = open_descriptors();
    for (int i = 0; i < rounds; i++) {
        const struct file *good = &files[rng_below(&r, (uint64_t)count)];
        struct file bad = *good;
        struct data *d;

        if (i % 3 == 0)
            bad.length = rng_below(&r, bad.length);
        for (int flips = i % 3; flips > 0; flips--)
            bad.bytes[rng_below(&r, i % 2 == 0 ? 24 : bad.length)] ^=
                (uint8_t)(1U << rng_below(&r, 8));
        write_file(dir, &bad);
        d = survived(name, dir);
        refusals += d == NULL;
        if (d != NULL && checked)
            assert_true(is_intact(d));
        data_free(d);
        write_file(dir, good);
    }
    assert_int_equal(open_descriptors(), before);
    assert_true(refusals > rounds / 3 && refusals < rounds);
}

static void random_damage_to_idx(void **state)
{
    (void)state;
    random_damage("random-idx", "mnist", idx, 4, 1200, false);
}

static void random_damage_to_gzip(void **state)
{
    (void)state;
    random_damage("random-gzip", "mnist", idx_gz, 4, 1200, true);
}

static void random_damage_to_cifar(void **state)
{
    (void)state;
    random_damage("random-cifar", "cifar-10", cifar, FILES, 300, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idx_headers),
        cmocka_unit_test(idx_contents),
        cmocka_unit_test(cifar_files),
        cmocka_unit_test(no_memory_for_empty_promises),
        cmocka_unit_test(random_damage_to_idx),
        cmocka_unit_test(random_damage_to_gzip),
        cmocka_unit_test(random_damage_to_cifar),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
