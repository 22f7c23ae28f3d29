/* Addresses as people write them. Nothing here opens or resolves anything: a name that
 * does not exist is found out by the transport, one that cannot be a name is reported here.
 *
 *     shm:demo                              a name, of this machine
 *     shm:/run/user/1000/demo               the path of a socket
 *     verbs:10.0.0.1:7471                   RDMA: an address or host name, and a port
 *     verbs:10.0.0.1                        the same: 7471 is the port where none is given
 *     verbs:[fe80::1%ib0]:7471              IPv6 in brackets, link-local with its scope
 *     verbs:10.0.0.1:7471,10.1.0.1:7471     several, for several network cards
 */
#ifndef CLUSTER_ADDRESS_H
#define CLUSTER_ADDRESS_H

#include "cluster/options/parse.h"

#include <stdbool.h>

#define ADDRESS_MAX 512 /* with its end */
/* What fits into the address of a Unix socket, 108 bytes (sun_path): a path with its end;
 * a name behind a 0, "gapless-", a user's number of up to ten digits, "-". */
#define ADDRESS_SHM_PATH_MAX 107
#define ADDRESS_SHM_NAME_MAX 80
#define ADDRESS_PORT_TEXT                                                              \
    "7471"                  /* the port where none is given, for TCP and CM alike */
#define ADDRESS_HOSTS_MAX 8 /* in one address */

/* What to install where a build lacks RDMA: a clause. */
extern const char address_no_verbs[];

/* The transport that the address begins with, "shm" or "verbs"; NULL: none. */
const char *address_transport(const char *text);
/* Is it a whole address, with its transport? Ports may be missing. */
bool address_check(const char *text, struct parse_error *reason);
/* Puts a transport before what follows the colon, adds the usual port to hosts that
 * have none, and checks it. */
bool address_join(const char *transport, const char *text, char ret[ADDRESS_MAX],
                  struct parse_error *reason);
/* Does a verbs address stand for every interface of a machine (0.0.0.0, [::])? No peer
 * can connect to that. */
bool address_is_wildcard(const char *text);

#endif
