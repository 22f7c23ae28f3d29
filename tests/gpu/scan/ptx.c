/* Reads PTX: see ptx.h. A statement is on a line of its own, as nvcc writes it. */
#include "tests/gpu/scan/ptx.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* The bits that a load or store moves: ".v4.f32", ".v2.b64", ".u8". */
static unsigned bits_of(const char *word)
{
    unsigned lanes = 1, bits = 0;
    for (const char *part = strchr(word, '.'); part != NULL;
         part = strchr(part + 1, '.')) {
        if (part[1] == 'v' && isdigit((unsigned char)part[2]))
            lanes = (unsigned)strtoul(part + 2, NULL, 10);
        if (strchr("bfsu", part[1]) != NULL && isdigit((unsigned char)part[2]))
            bits = (unsigned)strtoul(part + 2, NULL, 10);
    }
    return lanes * bits;
}

static void count_word(const char *word, struct ptx *ret)
{
    bool load = starts(word, "ld."), store = starts(word, "st.");
    if (starts(word, "fma.") || starts(word, "mad.f") || starts(word, "mad.rn"))
        ret->fused++;
    if (strstr(word, ".approx") != NULL || strstr(word, ".full") != NULL)
        ret->loose++;
    if (strstr(word, ".ftz") != NULL)
        ret->flushed++;
    if (starts(word, "div.rn"))
        ret->divisions++;
    if (starts(word, "sqrt.rn"))
        ret->roots++;
    if ((load || store) && strstr(word, ".local") != NULL)
        ret->local++;
    if ((load || store) && strstr(word, ".global") != NULL && bits_of(word) == 128)
        *(load ? &ret->loads_128 : &ret->stores_128) += 1;
}

/* Reads the next word into ret and returns what follows; NULL at the end of the
 * line. */
static const char *next_word(const char *line, char *ret, size_t size)
{
    size_t length = 0;
    line += strspn(line, " \t");
    length = strcspn(line, " \t\r\n(,;");
    if (length == 0)
        return NULL;
    size_t taken = length < size ? length : size - 1;
    memcpy(ret, line, taken);
    ret[taken] = 0;
    return line + length;
}

/* ".visible .entry NAME(": puts NAME into ret; false if the line is no such line. */
static bool kernel_name(const char *line, char *ret, size_t size)
{
    char word[256];
    const char *rest = line;
    if (line[0] != '.')
        return false;
    while ((rest = next_word(rest, word, sizeof(word))) != NULL) {
        if (strcmp(word, ".entry") == 0)
            return next_word(rest, ret, size) != NULL;
        if (strcmp(word, ".func") == 0) {
            rest += strspn(rest, " \t");
            if (*rest == '(' &&
                (rest = strchr(rest, ')')) != NULL) /* what it returns */
                rest++;
            return rest != NULL && next_word(rest, ret, size) != NULL;
        }
    }
    return false;
}

const char *ptx_read(const char *text, struct ptx *ret, unsigned max,
                     unsigned *ret_count)
{
    struct ptx *kernel = NULL;
    uint32_t target = 0;
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        char word[256];
        line += *line == '\n';
        if (starts(line, ".target sm_"))
            target = (uint32_t)strtoul(line + strlen(".target sm_"), NULL, 10);
        if (kernel_name(line, word, sizeof(word))) {
            if (*ret_count == max)
                return "it has more kernels than expected";
            kernel = &ret[(*ret_count)++];
            memset(kernel, 0, sizeof(*kernel));
            memcpy(kernel->name, word, sizeof(kernel->name));
            kernel->target = target;
            continue;
        }
        const char *rest = next_word(line, word, sizeof(word));
        if (rest != NULL && word[0] == '@') /* if */
            rest = next_word(rest, word, sizeof(word));
        if (rest != NULL && kernel != NULL && islower((unsigned char)word[0]))
            count_word(word, kernel);
    }
    return target == 0 ? "it is no PTX" : NULL;
}
