/* What transports do alike: see common.h. */
#include "transport/common.h"

#include <stdlib.h>
#include <string.h>

#define NOTES_DEFAULT 64u
#define WINDOWS_DEFAULT 4u
/* Waking a sleeper costs 10 to 20 us on a virtual machine; spinning a few times that
 * long catches what comes soon, and sched_yield gives the core to a thread that has
 * work. */
#define SPIN_DEFAULT_NS UINT64_C(50000)
#define ENTRIES_FIRST 8u

/* ---- configuration ------------------------------------------------------- */

int transport_config(const struct tp_config *given, const struct tp_limits *limits,
                     struct tp_config *ret, struct gapless_error *error)
{
    struct tp_config config = given != NULL ? *given : (struct tp_config){0};

    if (config.peers_max == 0)
        config.peers_max = 1;
    if (config.notes_max == 0)
        config.notes_max = NOTES_DEFAULT;
    if (config.windows_max == 0)
        config.windows_max = WINDOWS_DEFAULT;
    if (config.spin_ns == 0)
        config.spin_ns = SPIN_DEFAULT_NS;
    if (config.peers_max > limits->peers_max || config.notes_max > limits->notes_max ||
        config.windows_max > limits->windows_max)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "%s serves at most %u peers with %u notes and %u windows each",
            limits->server, limits->peers_max, limits->notes_max, limits->windows_max);
    *ret = config;
    return GAPLESS_OK;
}

/* ---- regions ------------------------------------------------------------- */

static struct tp_entry *head_at(const struct tp_table *table, uint32_t place)
{
    return tp_table_at(table, place);
}

static int table_grow(struct tp_table *table, struct gapless_error *error)
{
    size_t count = (size_t)table->count * 2 + ENTRIES_FIRST;
    char *entries = realloc(table->entries, count * table->entry_bytes);

    if (entries == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for %zu regions", count);
    memset(entries + table->count * table->entry_bytes, 0,
           (count - table->count) * table->entry_bytes);
    table->entries = entries;
    table->count = (uint32_t)count;
    return GAPLESS_OK;
}

int tp_table_add(struct tp_table *table, const void *entry, struct tp_region *ret,
                 struct gapless_error *error)
{
    uint32_t at = 0;
    int status = GAPLESS_OK;

    while (at < table->count && head_at(table, at)->id != 0)
        at++;
    if (at == table->count)
        status = table_grow(table, error);
    if (status != GAPLESS_OK)
        return status;
    if (++table->serial == 0)
        table->serial = 1;
    memcpy(tp_table_at(table, at), entry, table->entry_bytes);
    head_at(table, at)->id = table->serial;
    *ret = (struct tp_region){
        .split = head_at(table, at)->split, .id = table->serial, .handle = at};
    return GAPLESS_OK;
}

int tp_grant_check(const struct tp_entry *entry, size_t bytes, enum tp_access access,
                   size_t split, struct gapless_error *error)
{
    static const char *const purpose[] = {
        [TP_READ] = "reading",
        [TP_READ_WRITE] = "writing",
        [TP_SPLIT] = "reading in one part and writing in the other"};

    if (access == TP_SPLIT && split > bytes)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a region of %zu bytes cannot be split at %zu", bytes,
                                 split);
    if (entry->granted && (entry->access != access || entry->split != split))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "a region is granted with one access for ever; this one was granted for "
            "%s before",
            purpose[entry->access]);
    return GAPLESS_OK;
}

/* ---- entries of a transport without network cards ------------------------ */

int transport_bind_memory_none(struct tp *tp, struct tp_region *region, size_t offset,
                               const struct tp_memory *memory, const char **ret_how,
                               struct gapless_error *error)
{
    (void)tp, (void)region, (void)offset, (void)memory, (void)ret_how;
    return gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                             "this transport has no network card that could reach it");
}

int transport_loopback_none(struct tp *tp, const struct tp_region *region,
                            size_t offset, void *host, size_t bytes, enum tp_way way,
                            struct gapless_error *error)
{
    (void)tp, (void)region, (void)offset, (void)host, (void)bytes, (void)way;
    return gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                             "this transport has no network card that could reach it");
}

int transport_region_split(struct tp *tp, struct tp_region *region, size_t split,
                           struct gapless_error *error)
{
    (void)tp;
    if (split > region->bytes)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a region of %zu bytes cannot be split at %zu",
                                 region->bytes, split);
    region->split = split;
    return GAPLESS_OK;
}

int transport_scratch_none(struct tp *tp, const struct tp_region *window, size_t offset,
                           size_t bytes, struct gapless_error *error)
{
    (void)tp, (void)window, (void)offset, (void)bytes, (void)error;
    return GAPLESS_OK;
}
