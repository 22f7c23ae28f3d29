/* What the public functions say of a network and its settings, put together from the
 * transport's. */
#ifndef GAPLESS_NETWORK_H
#define GAPLESS_NETWORK_H

#include <gapless/gapless.h>
#include "transport/transport.h"

/* Checks the settings and hands them to a transport; what they point at stays the
 * caller's. GAPLESS_INVALID. */
int network_settings(const struct gapless_net *net, struct tp_net *ret,
                     struct gapless_error *error);
void network_traffic(const struct transport *transport, struct tp *tp,
                     struct gapless_traffic *ret);
/* Always ends with a terminator if bytes > 0. */
void network_link(const struct transport *transport, struct tp *tp, tp_peer peer,
                  char *ret, size_t bytes);

#endif
