/* Every file of the corpus, and thousands of files made of them by small damage, go
 * through the reader that they are for. What coverage finds beyond that is libFuzzer's
 * work: tests/fuzz/run. */
#include "tests/fuzz/readers.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include "engine/base/clock.h"
#include "engine/base/rng.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_MAX 16384
#define FILES_MAX 400
/* Damaged files of a reader, and how long it may take over them. */
#define DAMAGED 3000
#define BOUND_NS UINT64_C(3000000000)

struct seed {
    uint8_t *bytes;
    size_t count;
};

static struct seed seeds[FILES_MAX];
static size_t seeds_count;

static void seed_read(const char *path)
{
    FILE *file = fopen(path, "rb");
    static uint8_t all[BYTES_MAX];
    struct seed *seed = &seeds[seeds_count];

    assert_non_null(file);
    seed->count = fread(all, 1, sizeof all, file);
    assert_int_equal(fclose(file), 0);
    seed->bytes = malloc(seed->count + 1);
    assert_non_null(seed->bytes);
    memcpy(seed->bytes, all, seed->count);
    seeds_count++;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In the order of their names, so that a failure is found again. */
static void seeds_read(const char *reader)
{
    static char *names[FILES_MAX];
    char path[4096];
    size_t count = 0;
    DIR *folder;

    (void)snprintf(path, sizeof path, "%s/tests/fuzz/corpus/%s", GAPLESS_SOURCE_DIR,
                   reader);
    folder = opendir(path);
    if (folder == NULL)
        fail_msg("no corpus: %s", path);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL && count < FILES_MAX;)
        if (entry->d_name[0] != '.')
            names[count++] = strdup(entry->d_name);
    assert_int_equal(closedir(folder), 0);
    assert_true(count > 0);
    qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(path, sizeof path, "%s/tests/fuzz/corpus/%s/%s",
                       GAPLESS_SOURCE_DIR, reader, names[i]);
        seed_read(path);
        free(names[i]);
    }
}

static size_t below(struct rng *rng, size_t n)
{
    return n > 0 ? (size_t)(rng_u64(rng) % n) : 0;
}

/* One to four times: a bit, a byte, a cut, a part twice, a part of another. */
static size_t damage(struct rng *rng, uint8_t *bytes, size_t count)
{
    static const char odd[] = "\0\xff\x80\n \t-+.,:;{}[]\"'#=019eEnN/";

    for (size_t times = 1 + below(rng, 4); times > 0; times--) {
        const struct seed *other = &seeds[below(rng, seeds_count)];
        size_t at = below(rng, count), part = 1 + below(rng, 16);

        switch (below(rng, 6)) {
        case 0:
            if (count > 0)
                bytes[at] ^= (uint8_t)(1u << below(rng, 8));
            break;
        case 1:
            if (count > 0)
                bytes[at] = (uint8_t)odd[below(rng, sizeof odd)];
            break;
        case 2:
            count = at;
            break;
        case 3: /* taken out */
            part = part < count - at ? part : count - at;
            memmove(bytes + at, bytes + at + part, count - at - part);
            count -= part;
            break;
        case 4: /* twice */
            part = part < count - at ? part : count - at;
            if (count + part > BYTES_MAX)
                break;
            memmove(bytes + at + part, bytes + at, count - at);
            count += part;
            break;
        default:
            part = part < other->count ? part : other->count;
            part = part < count - at ? part : count - at;
            memcpy(bytes + at, other->bytes + below(rng, other->count - part + 1),
                   part);
            break;
        }
    }
    return count;
}

static void feed_all(void **state)
{
    const struct fuzz_reader *reader = *state;
    static uint8_t bytes[BYTES_MAX];
    struct rng rng = rng_seed(1, 0);
    uint64_t end;

    seeds_read(reader->name);
    for (size_t i = 0; i < seeds_count; i++)
        reader->feed(seeds[i].bytes, seeds[i].count);
    end = clock_ns() + BOUND_NS;
    for (int i = 0; i < DAMAGED && clock_ns() < end; i++) {
        const struct seed *seed = &seeds[below(&rng, seeds_count)];
        size_t count = seed->count;

        memcpy(bytes, seed->bytes, count);
        count = damage(&rng, bytes, count);
        reader->feed(bytes, count);
    }
    while (seeds_count > 0)
        free(seeds[--seeds_count].bytes);
}

int main(void)
{
    struct CMUnitTest tests[32] = {{0}};
    size_t count = 0;

    for (const struct fuzz_reader *reader = fuzz_readers; reader->name != NULL;
         reader++)
        tests[count++] =
            (struct CMUnitTest){.name = reader->name,
                                .test_func = feed_all,
                                .initial_state = (void *)(uintptr_t)reader};
    return _cmocka_run_group_tests("readers", tests, count, NULL, NULL);
}
