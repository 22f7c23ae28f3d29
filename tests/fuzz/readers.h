/* Readers of what others wrote, each fed with bytes that may be anything. What a reader
 * must do with them: take them, or refuse them with a reason; never more. */
#ifndef GAPLESS_TESTS_FUZZ_READERS_H
#define GAPLESS_TESTS_FUZZ_READERS_H

#include <stddef.h>
#include <stdint.h>

struct fuzz_reader {
    const char *name;
    /* Ends the program where a refusal has no reason. */
    void (*feed)(const uint8_t *bytes, size_t count);
};

/* Ends with one whose name is NULL. */
extern const struct fuzz_reader fuzz_readers[];

/* NULL: there is none of that name. */
const struct fuzz_reader *fuzz_reader_find(const char *name);

#endif
