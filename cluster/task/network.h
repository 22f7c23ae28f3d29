/* What a run over a network needs besides its address: the token that master and
 * workers share, the settings of the transport, and the address to listen at when
 * not given. */
#ifndef CLUSTER_NETWORK_H
#define CLUSTER_NETWORK_H

#include "cluster/options/address.h"
#include "cluster/options/options.h"
#include <gapless/gapless.h>

#include <stddef.h>

#define NETWORK_TOKEN_MIN 16
#define NETWORK_TOKEN_MAX 4096
/* What a stranger has to guess of it, at least. */
#define NETWORK_TOKEN_BITS 40.0

/* `net` points into `token` and into the settings: it must not be moved. */
struct network {
    struct gapless_net net;
    unsigned char token[NETWORK_TOKEN_MAX];
};

/* Reads the token's file, if one is named. GAPLESS_INVALID: misuse, the text says what
 * about the file is not right and the command that puts it right. */
int network_open(const struct settings *settings, struct network *ret,
                 struct gapless_error *error);
/* Wipes the token. */
void network_close(struct network *network);

/* The secret in a file: a regular one, of this user or root, that no other user can read;
 * 16 to 4096 bytes, and the end of the last line is not one of them. ret has room for
 * NETWORK_TOKEN_MAX. GAPLESS_INVALID as above. */
int network_token(const char *path, void *ret, size_t *ret_bytes,
                  struct gapless_error *error);
/* A new one, in memory that children inherit under the path "/proc/self/fd/N", and that
 * is gone with the last of them. */
int network_token_new(int *ret_fd, struct gapless_error *error);

/* The address "verbs:HOST:7471" of this machine's RDMA-capable interface.
 * GAPLESS_INVALID when there is none or more than one: the text lists them. */
int network_find(char ret[ADDRESS_MAX], struct gapless_error *error);
/* The address to listen at: settings->address or, where only the transport is given, the
 * one that network_find finds. NULL where shared memory's own default is meant. */
int network_listen(const struct settings *settings, char ret[ADDRESS_MAX],
                   const char **ret_address, struct gapless_error *error);

/* Names of interfaces, for network_find: those that sysfs at `root` ("" for the real
 * one) and the kernel's list of RDMA links (rdma_link of `rdma link`) call
 * RDMA-capable. */
#define NETWORK_LINKS_MAX 64
struct network_links {
    unsigned count;
    char name[NETWORK_LINKS_MAX][16];
};
void network_links(const char *root, struct network_links *ret);

#endif
