/* Entries of a transport table that cannot reach memory of the caller's: shared memory,
 * and the simulator's networks. */
#ifndef GAPLESS_TRANSPORT_UNPLACED_H
#define GAPLESS_TRANSPORT_UNPLACED_H

#include "transport/transport.h"

/* place and loop, see transport.h: GAPLESS_UNSUPPORTED. */
int transport_bind_memory_none(struct tp *tp, struct tp_region *region, size_t offset,
                               const struct tp_memory *memory, const char **ret_how,
                               struct gapless_error *error);
int transport_loopback_none(struct tp *tp, const struct tp_region *region,
                            size_t offset, void *host, size_t bytes, enum tp_way way,
                            struct gapless_error *error);

#endif
