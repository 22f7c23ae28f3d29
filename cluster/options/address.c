/* Addresses: what may stand behind shm: and verbs:, and what is said when it may
 * not. */
#include "cluster/options/address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#define HOST_MAX 254 /* of a host name, with its end (RFC 1035) */

const char address_no_verbs[] =
    "this build has no RDMA: install libibverbs-dev, librdmacm-dev and libsodium-dev, "
    "configure again with -DGAPLESS_VERBS=ON and build";

const char *address_transport(const char *text)
{
    static const char *const names[] = {"shm", "verbs"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t count = strlen(names[i]);

        if (strncmp(text, names[i], count) == 0 && text[count] == ':')
            return names[i];
    }
    return NULL;
}

/* ---- one host and port --------------------------------------------------- */

struct place {
    char host[HOST_MAX]; /* without brackets */
    bool bracketed;
    char port[8]; /* "": none was given */
};

static bool read_port(const char *text, struct place *ret, struct parse_error *reason)
{
    uint64_t port;
    struct parse_error what;

    if (text[0] == '\0')
        return parse_refuse(
            reason, "has a ':' and no port behind it: write %.80s:" ADDRESS_PORT_TEXT,
            ret->host);
    if (strlen(text) >= sizeof ret->port ||
        strspn(text, "0123456789") != strlen(text) ||
        !parse_count(text, 1, 65535, &port, &what))
        return parse_refuse(
            reason, "has the port '%.40s', which is no number from 1 to 65535", text);
    memcpy(ret->port, text, strlen(text) + 1);
    return true;
}

/* "[fe80::1%ib0]:7471" */
static bool read_bracketed(const char *text, struct place *ret,
                           struct parse_error *reason)
{
    const char *end = strchr(text, ']');
    unsigned char binary[16];
    char *scope;
    bool good;

    if (end == NULL || (end[1] != '\0' && end[1] != ':') ||
        (size_t)(end - text) >= sizeof ret->host)
        return parse_refuse(reason, "wants [IPV6]:PORT, not '%.80s'", text);
    memcpy(ret->host, text + 1, (size_t)(end - text) - 1);
    ret->host[end - text - 1] = '\0';
    ret->bracketed = true;
    scope = strchr(ret->host, '%');
    if (scope != NULL && (scope[1] == '\0' || strlen(scope + 1) >= IF_NAMESIZE))
        return parse_refuse(reason, "has no interface behind the %% in '%.80s'", text);
    if (scope != NULL)
        *scope = '\0';
    good = inet_pton(AF_INET6, ret->host, binary) == 1;
    if (good && scope == NULL && binary[0] == 0xfe && (binary[1] & 0xc0) == 0x80)
        return parse_refuse(reason,
                            "is a link-local address: name the interface, as in "
                            "[%.60s%%ib0]",
                            ret->host);
    if (scope != NULL)
        *scope = '%';
    if (!good)
        return parse_refuse(reason, "has '%.80s' in brackets, which is no IPv6 address",
                            ret->host);
    return end[1] == '\0' || read_port(end + 2, ret, reason);
}

static bool host_good(const char *host)
{
    struct in_addr binary;
    size_t digits = strspn(host, "0123456789.");

    if (host[digits] == '\0') /* numbers only: then it has to be an address */
        return inet_pton(AF_INET, host, &binary) == 1;
    for (const char *at = host; *at != '\0'; at++)
        if (!isalnum((unsigned char)*at) && strchr("-._", *at) == NULL)
            return false;
    return host[0] != '-' && host[0] != '.';
}

static bool read_place(const char *text, struct place *ret, struct parse_error *reason)
{
    const char *colon = strchr(text, ':');
    size_t count = colon != NULL ? (size_t)(colon - text) : strlen(text);

    *ret = (struct place){.host = ""};
    if (text[0] == '[')
        return read_bracketed(text, ret, reason);
    if (colon != NULL && strchr(colon + 1, ':') != NULL)
        return parse_refuse(reason,
                            "has more than one ':' in '%.60s': an IPv6 address goes "
                            "into brackets, as in [2001:db8::1]:" ADDRESS_PORT_TEXT,
                            text);
    if (count == 0)
        return parse_refuse(reason, "has no host in '%.60s': write HOST:PORT", text);
    if (count >= sizeof ret->host)
        return parse_refuse(reason, "has a host name that is too long");
    memcpy(ret->host, text, count);
    ret->host[count] = '\0';
    if (!host_good(ret->host))
        return parse_refuse(reason,
                            "has '%.80s', which is neither an address nor a host name",
                            ret->host);
    return colon == NULL || read_port(colon + 1, ret, reason);
}

/* ---- lists of them ------------------------------------------------------- */

/* Checks "HOST:PORT,..." and writes it to ret, with the usual port where none is. */
static bool read_places(const char *text, char *ret, size_t max,
                        struct parse_error *reason)
{
    char copy[ADDRESS_MAX];
    char *rest = copy;
    size_t used = 0;
    unsigned hosts = 0;

    if (strlen(text) >= sizeof copy)
        return parse_refuse(reason, "is longer than %d bytes", ADDRESS_MAX - 1);
    memcpy(copy, text, strlen(text) + 1);
    while (rest != NULL) {
        const char *word = strsep(&rest, ",");
        struct place place;

        if (++hosts > ADDRESS_HOSTS_MAX)
            return parse_refuse(reason, "has more than %d hosts", ADDRESS_HOSTS_MAX);
        if (!read_place(word, &place, reason))
            return false;
        used += (size_t)snprintf(
            ret + used, max - used, "%s%s%s%s:%s", hosts > 1 ? "," : "",
            place.bracketed ? "[" : "", place.host, place.bracketed ? "]" : "",
            place.port[0] != '\0' ? place.port : ADDRESS_PORT_TEXT);
        if (used >= max)
            return parse_refuse(reason, "is longer than %d bytes", ADDRESS_MAX - 1);
    }
    return true;
}

/* "NAME" or "/path/of/socket" */
static bool read_shm(const char *text, struct parse_error *reason)
{
    size_t bytes = strlen(text);
    bool path = text[0] == '/';

    if (!path && strchr(text, '/') != NULL)
        return parse_refuse(reason,
                            "has '%.60s', which is neither a name (without a '/') nor "
                            "the whole path of a socket",
                            text);
    if (bytes <= (path ? ADDRESS_SHM_PATH_MAX : ADDRESS_SHM_NAME_MAX))
        return true;
    return parse_refuse(reason, "has a %s of %zu bytes: at most %d fit; '%.40s...'",
                        path ? "path" : "name", bytes,
                        path ? ADDRESS_SHM_PATH_MAX : ADDRESS_SHM_NAME_MAX, text);
}

bool address_check(const char *text, struct parse_error *reason)
{
    const char *transport = address_transport(text);
    char nothing[ADDRESS_MAX];

    if (transport == NULL || text[strlen(transport) + 1] == '\0')
        return parse_refuse(reason,
                            "must be shm:NAME, shm:/path/of/socket or verbs:HOST:PORT, "
                            "not '%.60s'",
                            text);
    if (strcmp(transport, "shm") == 0)
        return read_shm(text + strlen("shm:"), reason);
    if (!GAPLESS_HAVE_VERBS)
        return parse_refuse(reason, "is an RDMA address, and %s", address_no_verbs);
    return read_places(text + 6, nothing, sizeof nothing, reason);
}

bool address_join(const char *transport, const char *text, char ret[ADDRESS_MAX],
                  struct parse_error *reason)
{
    char whole[ADDRESS_MAX];
    int used = snprintf(whole, sizeof whole, "%s:", transport);

    if (strcmp(transport, "verbs") == 0) {
        if (!read_places(text, whole + used, sizeof whole - (size_t)used, reason))
            return false;
    } else if (snprintf(whole + used, sizeof whole - (size_t)used, "%s", text) >=
               (int)sizeof whole - used) {
        return parse_refuse(reason, "is longer than %d bytes", ADDRESS_MAX - 1);
    }
    if (!address_check(whole, reason))
        return false;
    memcpy(ret, whole, sizeof whole);
    return true;
}

bool address_is_wildcard(const char *text)
{
    char copy[ADDRESS_MAX];
    char *rest = copy;
    const char *transport = address_transport(text);

    if (transport == NULL || strcmp(transport, "verbs") != 0 ||
        strlen(text) >= sizeof copy)
        return false;
    memcpy(copy, text + 6, strlen(text + 6) + 1);
    while (rest != NULL) {
        struct place place;
        struct parse_error reason;

        if (read_place(strsep(&rest, ","), &place, &reason) &&
            (strcmp(place.host, "0.0.0.0") == 0 || strcmp(place.host, "::") == 0))
            return true;
    }
    return false;
}
