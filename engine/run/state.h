/* State files: everything that a run needs to go on, as one safetensors file.
 *
 *     8 bytes     the header's length, little-endian
 *     header      JSON: metadata, then each tensor's type, shape and place; spaces to the end
 *     tensors     one after another, each at a multiple of 8 bytes
 *
 * The metadata has "state" (the version of this format), "sums" (16 hexadecimal digits for
 * each tensor, in order: state_sum of its bytes) and "header_sum" (state_sum of the header,
 * with its own 16 digits as zeros). They find accidents; they are no protection against a
 * person who means harm. The parameters have the model's names, so that other programs can
 * read them; all else is below STATE_PREFIX, which no model may use.
 *
 * A file is written in place, beside what it will replace: reserved on the disk and mapped,
 * so that any thread copies a vector there; then
 * summed, synced, renamed. What is there under its name is either as it was or complete.
 *
 *     state_write_new ── _say, _add ── _begin ── copy to _at(i) ── _say ── _end or _drop
 */
#ifndef GAPLESS_STATE_H
#define GAPLESS_STATE_H

#include "engine/run/layout.h"

/* Names of what is no parameter. */
#define STATE_PREFIX "gapless/"
#define STATE_FORMAT "1"
#define STATE_NAME_MAX 96u
/* Files of a folder: state-0000000000001234.safetensors, by gradients. */
#define STATE_FILE_PREFIX "state-"
#define STATE_FILE_SUFFIX ".safetensors"
/* Kept in a folder where nothing is said. */
#define STATE_KEEP_DEFAULT 2u

enum state_type {
    STATE_F32,
    STATE_F64,
    STATE_U64,
    STATE_U8,
    STATE_TYPES
};
/* "F32", ..., as the format has it; bytes of an element. */
extern const char *const state_type_name[STATE_TYPES];
static inline uint32_t state_type_bytes(enum state_type type)
{
    return type == STATE_F32 ? 4 : type == STATE_U8 ? 1 : 8;
}

/* 64 bits of any bytes. Every change of one word of 8 bytes changes it; other damage goes
 * unseen once in 2^64. */
uint64_t state_sum(const void *data, size_t bytes);

/* ---- writing ------------------------------------------------------------- */

struct state_write;

/* A file to be, at `path`. GAPLESS_NO_MEMORY; GAPLESS_IO: what is there is no regular file. */
int state_write_new(const char *path, struct state_write **ret,
                    struct gapless_error *error);
/* Metadata; a key that was said before gets the new value. After state_write_begin at most
 * 4 KiB more in all. */
void state_write_say(struct state_write *w, const char *key, const char *value);
void state_write_number(struct state_write *w, const char *key, uint64_t value);
/* A list of keys and values, which NULL ends; NULL: none. */
void state_write_say_all(struct state_write *w, const char *const *metadata);
/* A tensor of one dimension, of `elements`; its number. `name` gets STATE_PREFIX. A
 * multiple of 8 bytes. */
uint32_t state_write_add(struct state_write *w, const char *name, enum state_type type,
                         uint64_t elements);
/* All tensors of a model, in order; the number of the first. state_write_at of it has room for
 * all of the parameters, one after another. Before any other. */
uint32_t state_write_model(struct state_write *w, const struct layout *layout);
/* Tensors so far: the number of the next. */
uint32_t state_write_count(const struct state_write *w);
/* Reserves the room and maps it. GAPLESS_NO_MEMORY, GAPLESS_IO: the disk is full, ... */
int state_write_begin(struct state_write *w, struct gapless_error *error);
/* Before state_write_begin: `rest` is called after each few MiB of work from then on, by the
 * thread that does it, so that it can leave the processor to others. */
void state_write_pace(struct state_write *w, void (*rest)(void *context),
                      void *context);
/* Where a tensor's bytes go: written by the caller, all 0 before. */
void *state_write_at(const struct state_write *w, uint32_t tensor);
uint64_t state_write_bytes(const struct state_write *w); /* of the file */
/* The bytes are there: sums, syncs, renames. Frees, also on failure, which leaves what was
 * there as it was. */
int state_write_end(struct state_write *w, struct gapless_error *error);
/* Forgets it, and removes what was written. NULL: nothing. */
void state_write_drop(struct state_write *w);

/* ---- reading ------------------------------------------------------------- */

struct state_file;

struct state_tensor {
    const char *name;
    enum state_type type;
    uint32_t dims;
    uint64_t dim[4];
    uint64_t elements, bytes;
    const void *data; /* the file's, until it is closed */
};

/* Maps a file and checks all of it. GAPLESS_MISSING; GAPLESS_CORRUPT with what is wrong, and
 * where; GAPLESS_VERSION: of another format; GAPLESS_IO. */
int state_open(const char *path, struct state_file **ret, struct gapless_error *error);
void state_close(struct state_file *file); /* NULL: nothing */
const char *state_path(const struct state_file *file);
/* Metadata; "": there is none. */
const char *state_said(const struct state_file *file, const char *key);
uint64_t state_number(const struct state_file *file, const char *key); /* 0: none */
uint32_t state_tensors(const struct state_file *file);
const struct state_tensor *state_tensor(const struct state_file *file, uint32_t index);
/* By its name without STATE_PREFIX; NULL: none of this type and length. */
const void *state_find(const struct state_file *file, const char *name,
                       enum state_type type, uint64_t elements);
/* The same of any length. */
const struct state_tensor *state_find_any(const struct state_file *file,
                                          const char *name);
/* All parameters of a model; NULL: the tensors are others, or in another order. */
const float *state_model(const struct state_file *file, const struct layout *layout,
                         struct gapless_error *error);

/* ---- a folder of them ---------------------------------------------------- */

/* The name of the state after `gradients`. */
int state_folder_path(const char *folder, uint64_t gradients, char *ret, size_t bytes,
                      struct gapless_error *error);
/* `path` itself if it is a file; of a folder the state with the most gradients that is
 * whole. *ret_file: opened; NULL: not wanted, and then a file is not looked into.
 * GAPLESS_MISSING, or as state_open. Each that is passed over makes a line of log, if there
 * is one. */
int state_folder_latest(const char *path, char *ret, size_t bytes,
                        struct state_file **ret_file,
                        void (*log)(void *context, const char *line), void *context,
                        struct gapless_error *error);
/* Removes all but the `keep` with the most gradients, and what writers that died left. */
void state_folder_prune(const char *folder, uint32_t keep);
/* The number of this start of a run, larger than any that was ever given in this folder, and
 * than `least`; it is on the disk before this returns. */
int state_folder_epoch(const char *folder, uint64_t least, uint64_t *ret,
                       struct gapless_error *error);

#endif
