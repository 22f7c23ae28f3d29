/* Reads a cubin: see cubin.h. */
#include "tests/gpu/scan/cubin.h"

#include <elf.h>
#include <stdbool.h>
#include <string.h>

enum {
    MACHINE_CUDA = 190, /* EM_CUDA of <elf.h>, where it knows it */
    INSTRUCTION_BYTES = 16,
    /* .nv.info: a sequence of { format, attribute, 16 bits } records; with format 4 the
     * 16 bits are the length of what follows, here { symbol, value }. */
    INFO_SIZED = 4,
    INFO_FRAME = 0x11,
    INFO_REGISTERS = 0x2f
};

static const uint16_t opcodes[CODE_KINDS] = {
    [CODE_LDG] = 0x181, [CODE_STG] = 0x186,  [CODE_LD] = 0x180,  [CODE_ST] = 0x185,
    [CODE_LDL] = 0x183, [CODE_STL] = 0x187,  [CODE_LDS] = 0x184, [CODE_STS] = 0x188,
    [CODE_FFMA] = 0x23, [CODE_DFMA] = 0x02b,
};

struct file {
    const unsigned char *bytes;
    size_t size;
    Elf64_Ehdr head;
    Elf64_Shdr names; /* of sections */
};

uint32_t code_sum(const struct code *code, enum code_kind kind)
{
    uint32_t sum = 0;
    for (int i = 0; i < WIDTHS; i++)
        sum += code->count[kind][i];
    return sum;
}

static bool inside(const struct file *file, uint64_t offset, uint64_t length)
{
    return offset <= file->size && length <= file->size - offset;
}

static bool section_get(const struct file *file, unsigned index, Elf64_Shdr *ret)
{
    uint64_t at = file->head.e_shoff + (uint64_t)index * sizeof(*ret);
    if (index >= file->head.e_shnum || !inside(file, at, sizeof(*ret)))
        return false;
    memcpy(ret, file->bytes + at, sizeof(*ret));
    return ret->sh_type == SHT_NOBITS || inside(file, ret->sh_offset, ret->sh_size);
}

/* The text at an offset of a string table; "" if it is not all there. */
static const char *text_at(const struct file *file, const Elf64_Shdr *table,
                           uint64_t offset)
{
    if (offset >= table->sh_size)
        return "";
    const char *text = (const char *)file->bytes + table->sh_offset + offset;
    return memchr(text, 0, table->sh_size - offset) != NULL ? text : "";
}

static const char *file_open(struct file *file)
{
    if (file->size < sizeof(file->head))
        return "it is too short";
    memcpy(&file->head, file->bytes, sizeof(file->head));
    if (memcmp(file->head.e_ident, ELFMAG, SELFMAG) != 0 ||
        file->head.e_ident[EI_CLASS] != ELFCLASS64)
        return "it is no ELF file";
    if (file->head.e_machine != MACHINE_CUDA)
        return "it is for another machine than a GPU of NVIDIA";
    if (file->head.e_shentsize != sizeof(Elf64_Shdr) ||
        file->head.e_shoff > file->size ||
        !section_get(file, file->head.e_shstrndx, &file->names))
        return "its table of sections is damaged";
    return NULL;
}

/* Of the symbol with this index, by the file's symbol table. */
static const char *symbol_name(const struct file *file, uint32_t index)
{
    for (unsigned i = 0; i < file->head.e_shnum; i++) {
        Elf64_Shdr table, names;
        Elf64_Sym symbol;
        if (!section_get(file, i, &table) || table.sh_type != SHT_SYMTAB)
            continue;
        if (index >= table.sh_size / sizeof(symbol) ||
            !section_get(file, table.sh_link, &names))
            return "";
        memcpy(&symbol, file->bytes + table.sh_offset + index * sizeof(symbol),
               sizeof(symbol));
        return text_at(file, &names, symbol.st_name);
    }
    return "";
}

static void count_code(const unsigned char *bytes, size_t size, struct code *ret)
{
    for (size_t at = 0; at < size; at += INSTRUCTION_BYTES) {
        uint64_t low, high;
        memcpy(&low, bytes + at, sizeof(low));
        memcpy(&high, bytes + at + sizeof(low), sizeof(high));
        for (int kind = 0; kind < CODE_KINDS; kind++) {
            if ((low & 0x1ff) == opcodes[kind]) {
                unsigned width = kind < CODE_FFMA ? (high >> 9) & 7 : WIDTH_OTHER;
                ret->count[kind][width]++;
            }
        }
        ret->instructions++;
    }
}

/* Puts registers and frames to the kernels of this file. */
static const char *read_info(const struct file *file, const Elf64_Shdr *info,
                             struct code *codes, unsigned count)
{
    const unsigned char *bytes = file->bytes + info->sh_offset;
    for (uint64_t at = 0; at + 4 <= info->sh_size;) {
        unsigned format = bytes[at], attribute = bytes[at + 1];
        uint64_t length =
            format == INFO_SIZED ? bytes[at + 2] + 256u * bytes[at + 3] : 0;
        at += 4;
        if (length > info->sh_size - at)
            return "its .nv.info is damaged";
        if (length == 8 && (attribute == INFO_FRAME || attribute == INFO_REGISTERS)) {
            uint32_t word[2];
            memcpy(word, bytes + at, sizeof(word));
            const char *name = symbol_name(file, word[0]);
            for (unsigned i = 0; i < count; i++) {
                if (strcmp(codes[i].name, name) == 0)
                    *(attribute == INFO_FRAME ? &codes[i].frame : &codes[i].registers) =
                        word[1];
            }
        }
        at += length;
    }
    return NULL;
}

static const char *read_code(const struct file *file, struct code *ret, unsigned max,
                             unsigned *ret_count)
{
    static const char prefix[] = ".text.";
    for (unsigned i = 0; i < file->head.e_shnum; i++) {
        Elf64_Shdr section;
        if (!section_get(file, i, &section))
            return "a section lies outside of it";
        const char *name = text_at(file, &file->names, section.sh_name);
        if (strncmp(name, prefix, strlen(prefix)) != 0)
            continue;
        name += strlen(prefix);
        if (*ret_count == max)
            return "it has more kernels than expected";
        if (section.sh_type != SHT_PROGBITS || section.sh_size % INSTRUCTION_BYTES != 0)
            return "its instructions are not of 16 bytes";
        struct code *code = &ret[*ret_count];
        memset(code, 0, sizeof(*code));
        if (strlen(name) >= sizeof(code->name))
            return "the name of a kernel is too long";
        memcpy(code->name, name, strlen(name) + 1);
        code->architecture = file->head.e_flags >> 8 & 0xff;
        count_code(file->bytes + section.sh_offset, section.sh_size, code);
        (*ret_count)++;
    }
    return NULL;
}

const char *cubin_read(const unsigned char *bytes, size_t size, struct code *ret,
                       unsigned max, unsigned *ret_count)
{
    struct file file = {.bytes = bytes, .size = size};
    const char *reason = file_open(&file);
    unsigned first = *ret_count;
    if (reason == NULL)
        reason = read_code(&file, ret, max, ret_count);
    for (unsigned i = 0; reason == NULL && i < file.head.e_shnum; i++) {
        Elf64_Shdr section;
        if (section_get(&file, i, &section) &&
            strcmp(text_at(&file, &file.names, section.sh_name), ".nv.info") == 0)
            reason = read_info(&file, &section, ret + first, *ret_count - first);
    }
    return reason;
}
