/* For libFuzzer: one of the readers, by name in FUZZ_READER. tests/fuzz/run starts it. */
#include "tests/fuzz/readers.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static const struct fuzz_reader *reader;

    if (reader == NULL) {
        const char *name = getenv("FUZZ_READER");

        reader = name != NULL ? fuzz_reader_find(name) : NULL;
        if (reader == NULL) {
            (void)fprintf(stderr, "FUZZ_READER names no reader; there are:");
            for (reader = fuzz_readers; reader->name != NULL; reader++)
                (void)fprintf(stderr, " %s", reader->name);
            (void)fprintf(stderr, "\n");
            exit(2);
        }
    }
    reader->feed(bytes, count);
    return 0;
}
