/* What transports do alike: defaults and limits of a configuration, a table of regions,
 * one access of a region for ever, and the entries of those that have no network card.
 */
#ifndef GAPLESS_TRANSPORT_COMMON_H
#define GAPLESS_TRANSPORT_COMMON_H

#include "transport/transport.h"

/* ---- configuration ------------------------------------------------------- */

/* The most that a transport serves. */
struct tp_limits {
    const char *server; /* of messages: "shared memory" */
    uint32_t peers_max, notes_max, windows_max;
};

/* What is 0 becomes what transport.h says. `given` may be NULL. GAPLESS_INVALID. */
int transport_config(const struct tp_config *given, const struct tp_limits *limits,
                     struct tp_config *ret, struct gapless_error *error);

/* ---- regions ------------------------------------------------------------- */

/* An entry of a table begins with this. A handle (struct tp_region) names its place and
 * a number of its own, so that one kept after region_free is known as stale. */
struct tp_entry {
    uint32_t id;  /* 0: unused, and all of the entry is 0 */
    bool granted; /* ever; from then on only with this access */
    enum tp_access access;
    size_t split;  /* of TP_SPLIT */
    uint32_t peer; /* of a window */
    uint32_t generation;
};

struct tp_table {
    void *entries;
    size_t entry_bytes; /* of the transport's own structure */
    uint32_t count, serial;
};

/* Enters a copy of `entry`; fills all of *ret but base and bytes. GAPLESS_NO_MEMORY. */
int tp_table_add(struct tp_table *table, const void *entry, struct tp_region *ret,
                 struct gapless_error *error);
/* The entry at a place, used or not. */
static inline void *tp_table_at(const struct tp_table *table, uint64_t place)
{
    return (char *)table->entries + place * table->entry_bytes;
}
/* NULL: not of this table, or not any more. */
static inline void *tp_table_find(const struct tp_table *table,
                                  const struct tp_region *region)
{
    const struct tp_entry *entry;

    if (region == NULL || region->id == 0 || region->handle >= table->count)
        return NULL;
    entry = tp_table_at(table, region->handle);
    return entry->id == region->id ? tp_table_at(table, region->handle) : NULL;
}

/* A region of `bytes` is granted with one access for ever. GAPLESS_INVALID. */
int tp_grant_check(const struct tp_entry *entry, size_t bytes, enum tp_access access,
                   size_t split, struct gapless_error *error);

/* ---- entries of a transport without network cards ------------------------ */

/* bind_memory and loopback, see transport.h: GAPLESS_UNSUPPORTED. */
int transport_bind_memory_none(struct tp *tp, struct tp_region *region, size_t offset,
                               const struct tp_memory *memory, const char **ret_how,
                               struct gapless_error *error);
int transport_loopback_none(struct tp *tp, const struct tp_region *region,
                            size_t offset, void *host, size_t bytes, enum tp_way way,
                            struct gapless_error *error);
/* region_split and scratch where windows are memory of the client's own, or of one
 * process: the first sets the split, the second has nothing to do. */
int transport_region_split(struct tp *tp, struct tp_region *region, size_t split,
                           struct gapless_error *error);
int transport_scratch_none(struct tp *tp, const struct tp_region *window, size_t offset,
                           size_t bytes, struct gapless_error *error);

#endif
