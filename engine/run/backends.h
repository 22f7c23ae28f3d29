/* The switchboard: which transports this build has. The only place where the engine
 * names one. */
#ifndef GAPLESS_BACKENDS_H
#define GAPLESS_BACKENDS_H

#include "transport/transport.h"

/* Splits "name:rest" and finds the transport of that name. GAPLESS_INVALID lists the
 * choices. */
int backend_find(const char *address, const struct transport **ret,
                 const char **ret_rest, struct gapless_error *error);

#endif
