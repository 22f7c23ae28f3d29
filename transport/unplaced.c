/* What a transport without network cards says of memory that is not its own. */
#include "transport/unplaced.h"

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
