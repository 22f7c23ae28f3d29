/* Transports by name. */
#include "engine/run/backends.h"

#include <string.h>

#if GAPLESS_HAVE_VERBS
#define NAMES "shm, verbs, sim, simnet"
#else
#define NAMES "shm, sim, simnet"
#endif

static const struct transport *const transports[] = {
    &transport_shm,
#if GAPLESS_HAVE_VERBS
    &transport_verbs,
#endif
    &transport_sim,
    &transport_simnet,
};

int backend_find(const char *address, const struct transport **ret,
                 const char **ret_rest, struct gapless_error *error)
{
    const char *colon = address == NULL ? NULL : strchr(address, ':');
    size_t i;

    if (address == NULL || colon == NULL || colon[1] == '\0')
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "'%s' is no address: write TRANSPORT:NAME, for example "
            "shm:demo",
            address == NULL ? "" : address);
    for (i = 0; i < sizeof transports / sizeof transports[0]; i++)
        if (strlen(transports[i]->name) == (size_t)(colon - address) &&
            strncmp(transports[i]->name, address, (size_t)(colon - address)) == 0) {
            *ret = transports[i];
            *ret_rest = colon + 1;
            return GAPLESS_OK;
        }
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "no transport '%.*s' in this build, which has: " NAMES,
                             (int)(colon - address), address);
}
