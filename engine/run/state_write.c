/* Writes state files. */
#include "engine/run/state.h"

#include "engine/base/array.h"
#include "engine/base/file_out.h"
#include "engine/run/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE /* Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif
/* Of the work between two rests. */
#define STRETCH_BYTES ((size_t)4 << 20)
/* For what is said after the file has its size. */
#define HEADER_SPARE 4096u
#define SUM_DIGITS 16u
#define LENGTH_BYTES 8u

struct pair {
    char *key, *value;
};

struct tensor {
    char name[STATE_NAME_MAX];
    enum state_type type;
    uint32_t dims;
    uint64_t dim[4];
    uint64_t at, bytes; /* from the first tensor on */
};

struct state_write {
    char *path, *temporary;
    struct pair *pairs;
    size_t pairs_count, pairs_room;
    struct tensor *tensors;
    size_t tensors_count, tensors_room;
    bool no_memory, made;
    int fd;
    char *map;
    size_t header_bytes, file_bytes;
    void (*rest)(void *context);
    void *rest_context;
};

const char *const state_type_name[STATE_TYPES] = {
    [STATE_F32] = "F32", [STATE_F64] = "F64", [STATE_U64] = "U64", [STATE_U8] = "U8"};

/* Four lanes, each a chain of steps that can be undone: so no change of one word is lost. */
uint64_t state_sum(const void *data, size_t bytes)
{
    static const uint64_t odd = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t lane[4] = {bytes, 1, 2, 3}, word[4], ret = bytes;
    const char *p = data;
    size_t i, k;

    for (i = 0; i + sizeof word <= bytes; i += sizeof word) {
        memcpy(word, p + i, sizeof word);
        for (k = 0; k < 4; k++) {
            lane[k] = (lane[k] ^ word[k]) * odd;
            lane[k] = (lane[k] << 29) | (lane[k] >> 35);
        }
    }
    memset(word, 0, sizeof word);
    if (i < bytes)
        memcpy(word, p + i, bytes - i);
    for (k = 0; k < 4; k++) {
        ret = (ret ^ lane[k]) * odd;
        ret = (ret ^ (ret >> 31) ^ word[k]) * odd;
        ret ^= ret >> 29;
    }
    return ret;
}

int state_write_new(const char *path, struct state_write **ret,
                    struct gapless_error *error)
{
    struct state_write *w = calloc(1, sizeof *w);
    struct stat is;

    if (stat(path, &is) == 0 && !S_ISREG(is.st_mode)) { /* rename would replace it */
        free(w);
        return gapless_error_set(error, GAPLESS_IO, 0,
                                 "cannot write the state '%.300s': what is there is no "
                                 "regular file",
                                 path);
    }
    if (w != NULL) {
        size_t bytes = strlen(path) + 64;

        w->fd = -1;
        w->path = strdup(path);
        w->temporary = malloc(bytes);
        if (w->temporary != NULL)
            (void)snprintf(w->temporary, bytes, "%s.%ld-%p.part", path, (long)getpid(),
                           (void *)w);
    }
    if (w == NULL || w->path == NULL || w->temporary == NULL) {
        state_write_drop(w);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a state");
    }
    *ret = w;
    return GAPLESS_OK;
}

void state_write_pace(struct state_write *w, void (*rest)(void *context), void *context)
{
    w->rest = rest;
    w->rest_context = context;
}

static void rest(const struct state_write *w)
{
    if (w->rest != NULL)
        w->rest(w->rest_context);
}

void state_write_say(struct state_write *w, const char *key, const char *value)
{
    char *copy = strdup(value);
    struct pair *pairs;
    size_t i;

    for (i = 0; i < w->pairs_count && strcmp(w->pairs[i].key, key) != 0; i++)
        continue;
    pairs = array_room(w->pairs, &w->pairs_room, i + 1, sizeof *pairs);
    if (pairs != NULL)
        w->pairs = pairs;
    if (pairs != NULL && copy != NULL && i == w->pairs_count) {
        pairs[i] = (struct pair){.key = strdup(key)};
        w->no_memory |= pairs[i].key == NULL;
        w->pairs_count += pairs[i].key != NULL ? 1 : 0;
    }
    if (pairs == NULL || copy == NULL || i == w->pairs_count) {
        w->no_memory = true;
        free(copy);
        return;
    }
    free(pairs[i].value);
    pairs[i].value = copy;
}

void state_write_number(struct state_write *w, const char *key, uint64_t value)
{
    char text[24];

    (void)snprintf(text, sizeof text, "%" PRIu64, value);
    state_write_say(w, key, text);
}

void state_write_say_all(struct state_write *w, const char *const *metadata)
{
    for (; metadata != NULL && metadata[0] != NULL; metadata += 2)
        state_write_say(w, metadata[0], metadata[1]);
}

/* The next place; what it returns may be moved by the next call. NULL: no memory. */
static struct tensor *add(struct state_write *w, const char *name, enum state_type type)
{
    struct tensor *tensors =
        array_room(w->tensors, &w->tensors_room, w->tensors_count + 1, sizeof *tensors);
    struct tensor *ret;

    if (tensors == NULL) {
        w->no_memory = true;
        return NULL;
    }
    w->tensors = tensors;
    ret = &tensors[w->tensors_count++];
    *ret = (struct tensor){.type = type};
    (void)snprintf(ret->name, sizeof ret->name, "%s", name);
    return ret;
}

uint32_t state_write_add(struct state_write *w, const char *name, enum state_type type,
                         uint64_t elements)
{
    char full[STATE_NAME_MAX];
    struct tensor *tensor;

    (void)snprintf(full, sizeof full, STATE_PREFIX "%s", name);
    tensor = add(w, full, type);
    if (tensor != NULL) {
        tensor->dims = 1;
        tensor->dim[0] = elements;
    }
    return (uint32_t)w->tensors_count - 1;
}

uint32_t state_write_model(struct state_write *w, const struct layout *layout)
{
    uint32_t i;

    for (i = 0; i < layout->tensors_count; i++) {
        struct tensor *tensor = add(w, layout->tensors[i].name, STATE_F32);

        if (tensor == NULL)
            break;
        tensor->dims = layout->tensors[i].dims;
        memcpy(tensor->dim, layout->tensors[i].dim, sizeof tensor->dim);
    }
    if (layout->count % 2 != 0) /* the format has no gaps */
        (void)state_write_add(w, "pad", STATE_F32, 1);
    return 0;
}

static void place(struct state_write *w)
{
    uint64_t at = 0;
    size_t i;

    for (i = 0; i < w->tensors_count; i++) {
        struct tensor *t = &w->tensors[i];
        uint32_t d;

        t->bytes = state_type_bytes(t->type);
        for (d = 0; d < t->dims; d++)
            t->bytes *= t->dim[d];
        t->at = at;
        at += t->bytes;
    }
    w->file_bytes = LENGTH_BYTES + w->header_bytes + (size_t)at;
}

/* With the sums of what is there, or zeros for its size. */
static struct header_text header_of(const struct state_write *w, bool summed)
{
    struct header_text t = {0};
    char *sums = malloc(w->tensors_count * SUM_DIGITS + 1);
    size_t i;

    if (sums == NULL) {
        t.failed = true;
        return t;
    }
    sums[0] = '\0';
    for (i = 0; i < w->tensors_count; i++) {
        uint64_t sum = summed ? state_sum(state_write_at(w, (uint32_t)i),
                                          (size_t)w->tensors[i].bytes)
                              : 0;

        (void)snprintf(sums + i * SUM_DIGITS, SUM_DIGITS + 1, "%016" PRIx64, sum);
        if (summed)
            rest(w);
    }
    header_begin(&t);
    header_say(&t, "header_sum", "0000000000000000");
    header_say(&t, "state", STATE_FORMAT);
    header_say(&t, "sums", sums);
    for (i = 0; i < w->pairs_count; i++)
        header_say(&t, w->pairs[i].key, w->pairs[i].value);
    header_metadata_end(&t);
    for (i = 0; i < w->tensors_count; i++) {
        const struct tensor *from = &w->tensors[i];
        struct header_tensor one = {.name = from->name,
                                    .type = state_type_name[from->type],
                                    .dims = from->dims,
                                    .element_bytes = state_type_bytes(from->type)};

        memcpy(one.dim, from->dim, sizeof one.dim);
        header_tensor(&t, &one);
    }
    header_end(&t, summed ? w->header_bytes : t.used + HEADER_SPARE);
    free(sums);
    return t;
}

static int failed(const struct state_write *w, int os, struct gapless_error *error)
{
    if (os == ENOMEM || w->no_memory)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory to save the state '%.300s'", w->path);
    return gapless_error_set(error, GAPLESS_IO, os,
                             "cannot save the state '%.300s' (%zu MiB); what was "
                             "there is unchanged",
                             w->path, w->file_bytes >> 20);
}

/* Pages now, and not one by one when a thread waits for a copy; no matter if refused. */
static void populate(const struct state_write *w)
{
    size_t at, bytes;

    for (at = 0; at < w->file_bytes; at += STRETCH_BYTES) {
        bytes = size_least(STRETCH_BYTES, w->file_bytes - at);
        if (madvise(w->map + at, bytes, MADV_POPULATE_WRITE) != 0)
            return;
        rest(w);
    }
}

/* To the disk, stretch by stretch. */
static int sync_all(const struct state_write *w)
{
    size_t at, bytes;

    for (at = 0; w->rest != NULL && at < w->file_bytes; at += STRETCH_BYTES) {
        bytes = size_least(STRETCH_BYTES, w->file_bytes - at);
        if (msync(w->map + at, bytes, MS_SYNC) != 0)
            return errno;
        rest(w);
    }
    return msync(w->map, w->file_bytes, MS_SYNC) != 0 || fsync(w->fd) != 0 ? errno : 0;
}

int state_write_begin(struct state_write *w, struct gapless_error *error)
{
    struct header_text t = header_of(w, false);
    struct statvfs space;
    int os = 0;

    w->header_bytes = t.used;
    free(t.data);
    place(w);
    if (t.failed || w->no_memory)
        return failed(w, ENOMEM, error);
    w->fd = open(w->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0)
        return failed(w, errno, error);
    w->made = true;
    /* Written through a map, a page that the disk has no room for would be a signal. What
     * cannot fit is not begun: that would fill the disk for a moment, for others, too. */
    if (fstatvfs(w->fd, &space) == 0 && space.f_frsize > 0 &&
        w->file_bytes / space.f_frsize >= space.f_bavail)
        return failed(w, ENOSPC, error);
    os = posix_fallocate(w->fd, 0, (off_t)w->file_bytes);
    if (os != 0)
        return failed(w, os, error);
    w->map = mmap(NULL, w->file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
    if (w->map == MAP_FAILED) {
        w->map = NULL;
        return failed(w, errno, error);
    }
    populate(w);
    return GAPLESS_OK;
}

void *state_write_at(const struct state_write *w, uint32_t tensor)
{
    return w->map + LENGTH_BYTES + w->header_bytes + w->tensors[tensor].at;
}

uint32_t state_write_count(const struct state_write *w)
{
    return (uint32_t)w->tensors_count;
}

uint64_t state_write_bytes(const struct state_write *w)
{
    return w->file_bytes;
}

/* The header's own sum, in its place. */
static void sum_header(char *header, size_t bytes)
{
    static const char key[] = "\"header_sum\":\"";
    char digits[SUM_DIGITS + 1];
    char *at = strstr(header, key);

    (void)snprintf(digits, sizeof digits, "%016" PRIx64, state_sum(header, bytes));
    if (at != NULL)
        memcpy(at + sizeof key - 1, digits, SUM_DIGITS);
}

static int finish(struct state_write *w)
{
    struct header_text t = header_of(w, true);
    uint64_t length = w->header_bytes;
    bool fits = !t.failed && !w->no_memory && t.used == w->header_bytes;
    int os;

    if (fits) {
        sum_header(t.data, t.used);
        memcpy(w->map, &length, LENGTH_BYTES);
        memcpy(w->map + LENGTH_BYTES, t.data, t.used);
    }
    free(t.data);
    if (!fits)
        return t.failed || w->no_memory ? ENOMEM : E2BIG;
    os = sync_all(w);
    if (os != 0)
        return os;
    return rename(w->temporary, w->path) == 0 ? 0 : errno;
}

int state_write_end(struct state_write *w, struct gapless_error *error)
{
    int os = finish(w), status = GAPLESS_OK;

    if (os == 0) {
        w->made = false;
        file_out_sync_folder(w->path);
    } else {
        status = failed(w, os, error);
    }
    state_write_drop(w);
    return status;
}

void state_write_drop(struct state_write *w)
{
    size_t i;

    if (w == NULL)
        return;
    if (w->map != NULL)
        (void)munmap(w->map, w->file_bytes);
    if (w->fd >= 0)
        (void)close(w->fd);
    if (w->made)
        (void)unlink(w->temporary);
    for (i = 0; i < w->pairs_count; i++) {
        free(w->pairs[i].key);
        free(w->pairs[i].value);
    }
    free(w->pairs);
    free(w->tensors);
    free(w->path);
    free(w->temporary);
    free(w);
}
