/* What the options about addresses mean together. The usual order of sources holds:
 * what was typed wins over the environment, and that over the default; of two that were
 * typed and do not agree neither is right.
 *
 *   --transport verbs --listen 10.0.0.1     ->  verbs:10.0.0.1:7471      train, master
 *   --transport verbs --master 10.0.0.1     ->  verbs:10.0.0.1:7471      worker, observe
 *   --address verbs:10.0.0.1                ->  the same
 *   --transport verbs                       ->  found when it listens    train, master
 */
#include "cluster/options/device_choice.h"
#include "cluster/options/options_table.h"

#include <stdio.h>
#include <string.h>

#define RECONNECT_S 30.0 /* over a network, by default */

static const struct option_row *row_of(enum option_command command, const char *name)
{
    for (unsigned i = 0; i < options_count; i++)
        if ((options_table[i].commands & command) != 0 &&
            strcmp(options_table[i].name, name) == 0)
            return &options_table[i];
    return NULL;
}

static bool wrong(enum option_command command, const struct settings *settings,
                  const char *name, const struct parse_error *reason)
{
    char variable[64];

    options_variable(row_of(command, name), variable, sizeof variable);
    (void)fprintf(stderr, "gapless %s: %s%s %s\n", options_command_name(command),
                  options_source(settings, name) == OPTION_ENVIRONMENT ? "" : "--",
                  options_source(settings, name) == OPTION_ENVIRONMENT ? variable
                                                                       : name,
                  reason->text);
    return false;
}

/* Makes "TRANSPORT:..." of a text that lacks it. */
static bool join(enum option_command command, struct settings *ret, const char *name,
                 const char *text)
{
    struct parse_error reason;

    if (!address_join(ret->transport, text, ret->address_text, &reason))
        return wrong(command, ret, name, &reason);
    ret->address = ret->address_text;
    return true;
}

/* --listen, where it counts: moves it to the address. */
static bool take_listen(enum option_command command, struct settings *ret,
                        const char *name)
{
    enum option_source listen = options_source(ret, "listen");
    enum option_source address = options_source(ret, name);
    enum option_source transport = options_source(ret, "transport");
    bool shm = ret->transport != NULL && strcmp(ret->transport, "shm") == 0;
    struct parse_error reason;

    if (ret->listen == NULL || address > listen || (shm && transport > listen))
        return true; /* something stronger was said */
    if (address == listen || shm) {
        (void)snprintf(reason.text, sizeof reason.text,
                       "is for --transport verbs%s%s; say one of them",
                       address == listen ? ", and means the same as --" : "",
                       address == listen ? name : "");
        return wrong(command, ret, "listen", &reason);
    }
    if (address_transport(ret->listen) != NULL) {
        (void)snprintf(reason.text, sizeof reason.text,
                       "takes ADDR[:PORT] without a transport; or write --%s %.80s",
                       name, ret->listen);
        return wrong(command, ret, "listen", &reason);
    }
    ret->transport = "verbs";
    return join(command, ret, "listen", ret->listen);
}

/* An address with a transport of its own, beside --transport: the stronger one
 * counts. */
static bool agree(enum option_command command, struct settings *ret, const char *name,
                  const char *own)
{
    enum option_source address = options_source(ret, name);
    enum option_source transport = options_source(ret, "transport");
    struct parse_error reason;

    if (ret->transport == NULL || transport < address ||
        strcmp(ret->transport, own) == 0) {
        ret->transport = own;
        return true;
    }
    if (transport > address) { /* such as the default of --master */
        ret->address = NULL;
        return true;
    }
    (void)snprintf(reason.text, sizeof reason.text,
                   "%.60s is no address of --transport %s", ret->address,
                   ret->transport);
    return wrong(command, ret, name, &reason);
}

/* An address without a transport. */
static bool complete(enum option_command command, struct settings *ret,
                     const char *name)
{
    struct parse_error reason;

    if (ret->transport != NULL)
        return join(command, ret, name, ret->address);
    (void)address_check(ret->address, &reason); /* says that the transport is missing */
    return wrong(command, ret, name, &reason);
}

static bool resolve(enum option_command command, struct settings *ret, const char *name)
{
    bool master = (command & (FOR_TRAIN | FOR_MASTER)) != 0;
    const char *own;

    if (master && !take_listen(command, ret, name))
        return false;
    if (ret->address == ret->address_text)
        return true;
    own = ret->address != NULL ? address_transport(ret->address) : NULL;
    if (own != NULL && !agree(command, ret, name, own))
        return false;
    if (own != NULL && ret->address != NULL && strcmp(own, "verbs") == 0)
        return join(command, ret, name, ret->address + strlen("verbs:"));
    if (ret->address != NULL && own == NULL)
        return complete(command, ret, name);
    if (ret->transport == NULL)
        ret->transport = "shm";
    if (ret->address != NULL || master)
        return true;
    (void)fprintf(
        stderr,
        "gapless %s: with --transport %s say where the master is: --master %s\n",
        options_command_name(command), ret->transport,
        strcmp(ret->transport, "shm") == 0 ? "shm:NAME" : "ADDR[:PORT]");
    return false;
}

/* --device was once what --rdma-device is now: over RDMA such a name still counts. */
static bool take_device(enum option_command command, struct settings *ret)
{
    bool verbs = (ret->transport != NULL && strcmp(ret->transport, "verbs") == 0) ||
                 (ret->address != NULL && strncmp(ret->address, "verbs:", 6) == 0);
    struct parse_error reason;

    if (ret->device == NULL || device_is_place(ret->device))
        return true;
    if (!verbs || ret->rdma_device != NULL) {
        (void)snprintf(reason.text, sizeof reason.text,
                       "%.60s: write cpu, cuda, cuda:1, cuda:0,2, cuda:all or auto%s",
                       ret->device,
                       ret->rdma_device == NULL ? "; of RDMA it is --rdma-device" : "");
        return wrong(command, ret, "device", &reason);
    }
    ret->rdma_device = ret->device;
    ret->device = "cpu";
    return true;
}

bool options_network(enum option_command command, struct settings *ret)
{
    const char *name = row_of(command, "address") != NULL ? "address" : "master";
    struct parse_error reason;

    if ((command & (FOR_TRAIN | FOR_MASTER | FOR_WORKER | FOR_OBSERVE)) == 0)
        return true;
    if (!GAPLESS_HAVE_VERBS && ret->transport != NULL &&
        strcmp(ret->transport, "verbs") == 0) {
        (void)snprintf(reason.text, sizeof reason.text, "verbs: %s", address_no_verbs);
        return wrong(command, ret, "transport", &reason);
    }
    if (!resolve(command, ret, name) || !take_device(command, ret))
        return false;
    if (options_source(ret, "reconnect") == OPTION_UNSET)
        ret->reconnect = ret->transport != NULL && strcmp(ret->transport, "verbs") == 0
                             ? RECONNECT_S
                             : 0.0;
    return true;
}
