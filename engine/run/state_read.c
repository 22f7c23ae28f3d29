/* Reads state files: a strict reader of the JSON that state_write.c makes, which trusts no
 * number that it finds. */
#include "engine/run/state.h"

#include "engine/base/array.h"
#include "engine/run/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH_BYTES 8u
#define SUM_DIGITS 16u
/* A header of more than this is none: 65,536 tensors of 4096 workers have less. */
#define HEADER_MAX (256u << 20)

struct pair {
    char *key, *value;
};

struct state_file {
    char *path;
    char *map;
    size_t bytes;
    char *header; /* a copy, cut into texts */
    size_t header_bytes;
    struct pair *pairs;
    size_t pairs_count, pairs_room;
    struct state_tensor *tensors;
    size_t tensors_count, tensors_room;
};

static int corrupt(const struct state_file *f, struct gapless_error *error,
                   const char *what)
{
    return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                             "the state '%.250s' is damaged: %s", f->path, what);
}

/* ---- JSON ---------------------------------------------------------------- */

struct reader {
    char *at, *end;
};

static bool next_is(struct reader *r, const char *text)
{
    size_t n = strlen(text);

    if ((size_t)(r->end - r->at) < n || memcmp(r->at, text, n) != 0)
        return false;
    r->at += n;
    return true;
}

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A control character, written as \u00xx. */
static bool unescape(struct reader *r, char *ret)
{
    int high, low;

    if (next_is(r, "\"") || next_is(r, "\\")) {
        *ret = r->at[-1];
        return true;
    }
    if (!next_is(r, "u00") || r->end - r->at < 2)
        return false;
    high = digit_of(r->at[0]);
    low = digit_of(r->at[1]);
    if (high < 0 || high > 1 || low < 0 || high + low == 0)
        return false;
    r->at += 2;
    *ret = (char)(high * 16 + low);
    return true;
}

/* A string, in place; NULL: it is none. */
static char *read_string(struct reader *r)
{
    char *ret, *to;

    if (!next_is(r, "\""))
        return NULL;
    ret = to = r->at;
    while (r->at < r->end && *r->at != '"') {
        char c = *r->at++;

        if (c == '\0' || (c == '\\' && !unescape(r, &c)))
            return NULL;
        *to++ = c;
    }
    if (r->at >= r->end)
        return NULL;
    r->at++;
    *to = '\0'; /* at the latest where the quote was */
    return ret;
}

static bool read_number(struct reader *r, uint64_t *ret)
{
    uint64_t value = 0;
    char *first = r->at;

    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') {
        unsigned digit = (unsigned)(*r->at - '0');

        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
        r->at++;
    }
    *ret = value;
    return r->at > first;
}

static bool read_pairs(struct state_file *f, struct reader *r)
{
    do {
        struct pair *pairs =
            array_room(f->pairs, &f->pairs_room, f->pairs_count + 1, sizeof *pairs);
        struct pair pair = {NULL, NULL};

        if (pairs == NULL)
            return false;
        f->pairs = pairs;
        pair.key = read_string(r);
        if (pair.key == NULL || !next_is(r, ":"))
            return false;
        pair.value = read_string(r);
        if (pair.value == NULL)
            return false;
        pairs[f->pairs_count++] = pair;
    } while (next_is(r, ","));
    return next_is(r, "}");
}

static bool read_type(struct reader *r, enum state_type *ret)
{
    if (!next_is(r, "\""))
        return false;
    for (unsigned type = 0; type < STATE_TYPES; type++)
        if (next_is(r, state_type_name[type])) {
            *ret = (enum state_type)type;
            return next_is(r, "\"");
        }
    return false;
}

/* {"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}, right behind the tensor before. */
static bool read_tensor(struct state_file *f, struct reader *r, uint64_t *at)
{
    struct state_tensor t = {.name = read_string(r)};
    uint64_t from, to;
    uint32_t element;

    if (t.name == NULL || !next_is(r, ":{\"dtype\":") || !read_type(r, &t.type) ||
        !next_is(r, ",\"shape\":["))
        return false;
    element = state_type_bytes(t.type);
    t.elements = 1;
    do {
        if (t.dims == 4 || !read_number(r, &t.dim[t.dims]) ||
            (t.dim[t.dims] > 0 && t.elements > f->bytes / t.dim[t.dims]))
            return false;
        t.elements *= t.dim[t.dims++];
    } while (next_is(r, ","));
    if (!next_is(r, "],\"data_offsets\":[") || !read_number(r, &from) ||
        !next_is(r, ",") || !read_number(r, &to) || !next_is(r, "]}") || from != *at ||
        to < from || t.elements > f->bytes / element ||
        to - from != t.elements * element)
        return false;
    t.bytes = to - from;
    if (to > f->bytes - LENGTH_BYTES - f->header_bytes)
        return false;
    t.data = f->map + LENGTH_BYTES + f->header_bytes + from;
    *at = to;
    f->tensors[f->tensors_count++] = t;
    return true;
}

static bool read_header(struct state_file *f)
{
    struct reader r = {f->header, f->header + f->header_bytes};
    uint64_t at = 0;

    if (!next_is(&r, "{\"" HEADER_METADATA "\":{") || !read_pairs(f, &r))
        return false;
    while (next_is(&r, ",")) {
        struct state_tensor *tensors = array_room(
            f->tensors, &f->tensors_room, f->tensors_count + 1, sizeof *tensors);

        if (tensors == NULL)
            return false;
        f->tensors = tensors;
        if (!read_tensor(f, &r, &at))
            return false;
    }
    if (!next_is(&r, "}"))
        return false;
    while (next_is(&r, " "))
        continue;
    return r.at == r.end && at == f->bytes - LENGTH_BYTES - f->header_bytes;
}

/* ---- checks -------------------------------------------------------------- */

/* 16 digits; false: they are none. */
static bool read_sum(const char *digits, uint64_t *ret)
{
    uint64_t sum = 0;
    unsigned i;

    for (i = 0; i < SUM_DIGITS; i++) {
        int digit = digit_of(digits[i]);

        if (digit < 0)
            return false;
        sum = sum << 4 | (unsigned)digit;
    }
    *ret = sum;
    return true;
}

/* Of the header as it is in the file. False: it has none, or another. */
static bool header_is_whole(const struct state_file *f)
{
    static const char key[] = "\"header_sum\":\"";
    char *copy = malloc(f->header_bytes + 1), *at;
    uint64_t sum = 0;
    bool whole = false;

    if (copy == NULL)
        return false;
    memcpy(copy, f->header, f->header_bytes);
    copy[f->header_bytes] = '\0';
    at = strstr(copy, key);
    if (at != NULL &&
        (size_t)(at - copy) + sizeof key - 1 + SUM_DIGITS < f->header_bytes &&
        read_sum(at + sizeof key - 1, &sum)) {
        memset(at + sizeof key - 1, '0', SUM_DIGITS);
        whole = state_sum(copy, f->header_bytes) == sum;
    }
    free(copy);
    return whole;
}

static int check_sums(const struct state_file *f, struct gapless_error *error)
{
    const char *sums = state_said(f, "sums");
    char what[200];
    uint64_t sum = 0;
    size_t i;

    if (strlen(sums) != f->tensors_count * SUM_DIGITS)
        return corrupt(f, error, "it has not a checksum for each tensor");
    for (i = 0; i < f->tensors_count; i++) {
        const struct state_tensor *t = &f->tensors[i];

        if (read_sum(sums + i * SUM_DIGITS, &sum) &&
            state_sum(t->data, (size_t)t->bytes) == sum)
            continue;
        (void)snprintf(what, sizeof what,
                       "the checksum of tensor '%.100s' is not that of its bytes",
                       t->name);
        return corrupt(f, error, what);
    }
    return GAPLESS_OK;
}

/* The header's length, and a copy of it. */
static int take_header(struct state_file *f, struct gapless_error *error)
{
    uint64_t length = 0;

    if (f->bytes > LENGTH_BYTES)
        memcpy(&length, f->map, LENGTH_BYTES);
    if (length < 2 || length > f->bytes - LENGTH_BYTES || length > HEADER_MAX) {
        (void)corrupt(f, error, "it ends before its header does");
        return GAPLESS_CORRUPT;
    }
    f->header_bytes = (size_t)length;
    f->header = malloc(f->header_bytes + 1);
    if (f->header == NULL) {
        (void)gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a header");
        return GAPLESS_NO_MEMORY;
    }
    memcpy(f->header, f->map + LENGTH_BYTES, f->header_bytes);
    f->header[f->header_bytes] = '\0';
    return GAPLESS_OK;
}

static int check(struct state_file *f, struct gapless_error *error)
{
    int status = take_header(f, error);

    if (status != GAPLESS_OK)
        return status;
    if (memmem(f->header, f->header_bytes, "\"state\":\"", sizeof "\"state\":\"" - 1) ==
        NULL)
        return corrupt(f, error,
                       "it is no state of a run, or its header is not whole (a model "
                       "alone is taken with --init)");
    if (!header_is_whole(f))
        return corrupt(f, error, "the checksum of its header is not that of its bytes");
    if (!read_header(f))
        return corrupt(f, error, "its header does not agree with its length");
    if (strcmp(state_said(f, "state"), STATE_FORMAT) != 0)
        return gapless_error_set(error, GAPLESS_VERSION, 0,
                                 "the state '%.200s' has format %.20s, this is gapless "
                                 "%s, which reads format " STATE_FORMAT,
                                 f->path, state_said(f, "state"), gapless_version());
    return check_sums(f, error);
}

static int map_file(struct state_file *f, struct gapless_error *error)
{
    int fd = open(f->path, O_RDONLY | O_CLOEXEC);
    struct stat is;
    int os = errno;

    if (fd < 0) {
        (void)gapless_error_set(error, os == ENOENT ? GAPLESS_MISSING : GAPLESS_IO, os,
                                "cannot read the state '%.300s'", f->path);
        return os == ENOENT ? GAPLESS_MISSING : GAPLESS_IO;
    }
    if (fstat(fd, &is) != 0 || !S_ISREG(is.st_mode) || is.st_size <= 0) {
        (void)close(fd);
        (void)corrupt(f, error, "it is empty, or no regular file");
        return GAPLESS_CORRUPT;
    }
    f->bytes = (size_t)is.st_size;
    f->map = mmap(NULL, f->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    os = errno;
    (void)close(fd);
    if (f->map != MAP_FAILED)
        return GAPLESS_OK;
    f->map = NULL;
    (void)gapless_error_set(error, GAPLESS_IO, os, "cannot map the state '%.300s'",
                            f->path);
    return GAPLESS_IO;
}

int state_open(const char *path, struct state_file **ret, struct gapless_error *error)
{
    struct state_file *f = calloc(1, sizeof *f);
    int status;

    if (f != NULL)
        f->path = strdup(path);
    if (f == NULL || f->path == NULL) {
        free(f);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a state");
    }
    status = map_file(f, error);
    if (status == GAPLESS_OK)
        status = check(f, error);
    if (status != GAPLESS_OK) {
        state_close(f);
        return status;
    }
    *ret = f;
    return GAPLESS_OK;
}

void state_close(struct state_file *f)
{
    if (f == NULL)
        return;
    if (f->map != NULL)
        (void)munmap(f->map, f->bytes);
    free(f->header);
    free(f->pairs);
    free(f->tensors);
    free(f->path);
    free(f);
}

/* ---- looking ------------------------------------------------------------- */

const char *state_path(const struct state_file *f)
{
    return f->path;
}

const char *state_said(const struct state_file *f, const char *key)
{
    size_t i;

    for (i = 0; i < f->pairs_count; i++)
        if (strcmp(f->pairs[i].key, key) == 0)
            return f->pairs[i].value;
    return "";
}

uint64_t state_number(const struct state_file *f, const char *key)
{
    return strtoull(state_said(f, key), NULL, 10);
}

uint32_t state_tensors(const struct state_file *f)
{
    return (uint32_t)f->tensors_count;
}

const struct state_tensor *state_tensor(const struct state_file *f, uint32_t index)
{
    return index < f->tensors_count ? &f->tensors[index] : NULL;
}

const struct state_tensor *state_find_any(const struct state_file *f, const char *name)
{
    static const size_t prefix = sizeof STATE_PREFIX - 1;
    size_t i;

    for (i = 0; i < f->tensors_count; i++)
        if (strncmp(f->tensors[i].name, STATE_PREFIX, prefix) == 0 &&
            strcmp(f->tensors[i].name + prefix, name) == 0 &&
            f->tensors[i].bytes % 8 == 0 && (uintptr_t)f->tensors[i].data % 8 == 0)
            return &f->tensors[i];
    return NULL;
}

const void *state_find(const struct state_file *f, const char *name,
                       enum state_type type, uint64_t elements)
{
    const struct state_tensor *t = state_find_any(f, name);

    return t != NULL && t->type == type && t->elements == elements ? t->data : NULL;
}

static bool is_tensor(const struct state_tensor *t, const struct gapless_tensor *of)
{
    return t->type == STATE_F32 && t->dims == of->dims &&
           strcmp(t->name, of->name) == 0 &&
           memcmp(t->dim, of->dim, of->dims * sizeof of->dim[0]) == 0;
}

const float *state_model(const struct state_file *f, const struct layout *layout,
                         struct gapless_error *error)
{
    uint32_t i;

    for (i = 0; i < layout->tensors_count; i++)
        if (i >= f->tensors_count || !is_tensor(&f->tensors[i], &layout->tensors[i])) {
            (void)gapless_error_set(
                error, GAPLESS_MODEL, 0,
                "the state '%.200s' is of another model: tensor %u is '%.70s' there, "
                "and '%.70s' in this run, or has another shape",
                f->path, i, i < f->tensors_count ? f->tensors[i].name : "missing",
                layout->tensors[i].name);
            return NULL;
        }
    if (i < f->tensors_count &&
        strncmp(f->tensors[i].name, STATE_PREFIX, sizeof STATE_PREFIX - 1) != 0) {
        (void)gapless_error_set(
            error, GAPLESS_MODEL, 0,
            "the state '%.200s' is of another model: it has a tensor "
            "'%.70s', which this run has not",
            f->path, f->tensors[i].name);
        return NULL;
    }
    return f->tensors[0].data;
}
