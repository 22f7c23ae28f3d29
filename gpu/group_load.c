/* Finding NCCL at run time: a program that never asks for a group needs none. */
#include "gpu/group.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(GPU_GROUP_ID == NCCL_API_ID_BYTES, "a group's name is NCCL's");

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
static struct nccl functions;
static int version; /* of what is loaded; 0: nothing is */

/* What the loader of the system said last; never NULL. */
static const char *reason(void)
{
    const char *text = dlerror();

    return text != NULL ? text : "for no reason that the system tells";
}

static int open_library(void **ret, struct gapless_error *error)
{
    const char *given = getenv("GAPLESS_NCCL");
    char first[200];
    void *library;

    if (given != NULL && given[0] != '\0') {
        library = dlopen(given, RTLD_NOW | RTLD_LOCAL);
        if (library == NULL)
            return gapless_error_set(error, GAPLESS_MISSING, 0,
                                     "GAPLESS_NCCL names no library that can be "
                                     "opened (%.200s): name a libnccl.so.2, or unset "
                                     "it",
                                     reason());
        *ret = library;
        return GAPLESS_OK;
    }
    library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        (void)snprintf(first, sizeof first, "%s", reason());
        library = dlopen("libnccl.so", RTLD_NOW | RTLD_LOCAL);
    }
    if (library == NULL)
        return gapless_error_set(error, GAPLESS_MISSING, 0,
                                 "libnccl is not installed (%.160s): install NVIDIA's "
                                 "NCCL 2.18 or later (package libnccl2), or name the "
                                 "file: GAPLESS_NCCL=/path/libnccl.so.2",
                                 first);
    *ret = library;
    return GAPLESS_OK;
}

static int find(void *library, const char *name, void **ret,
                struct gapless_error *error)
{
    void *found = dlsym(library, name);

    if (found == NULL)
        return gapless_error_set(error, GAPLESS_VERSION, 0,
                                 "the NCCL found here has no %s: it is older than "
                                 "2.18, or no NCCL; install a later one, or name the "
                                 "file: GAPLESS_NCCL=/path/libnccl.so.2",
                                 name);
    *ret = found;
    return GAPLESS_OK;
}

/* By memcpy, for C has no cast from data to functions. */
static int find_all(void *library, struct nccl *ret, struct gapless_error *error)
{
    void *found = NULL;
    int status;

#define NCCL_FIND(name, result, arguments)                                             \
    status = find(library, "nccl" #name, &found, error);                               \
    if (status != GAPLESS_OK)                                                          \
        return status;                                                                 \
    memcpy(&ret->name, &found, sizeof found);
    NCCL_API_FUNCTIONS(NCCL_FIND)
#undef NCCL_FIND
    return GAPLESS_OK;
}

static int check_version(const struct nccl *nccl, int *ret, struct gapless_error *error)
{
    int found = 0, result = nccl->GetVersion(&found);

    if (result != NCCL_SUCCESS)
        return gapless_error_set(error, GAPLESS_VERSION, 0,
                                 "NCCL does not tell its version: %.100s",
                                 nccl->GetErrorString(result));
    if (found < NCCL_API_OLDEST)
        return gapless_error_set(error, GAPLESS_VERSION, 0,
                                 "NCCL is too old (its number is %d, 2.18 has %d): "
                                 "install 2.18 or later, or name the file: "
                                 "GAPLESS_NCCL=/path/libnccl.so.2",
                                 found, NCCL_API_OLDEST);
    *ret = found;
    return GAPLESS_OK;
}

static int load(struct gapless_error *error)
{
    struct nccl nccl;
    void *library = NULL;
    int found = 0, status = open_library(&library, error);

    if (status != GAPLESS_OK || library == NULL)
        return status;
    status = find_all(library, &nccl, error);
    if (status == GAPLESS_OK)
        status = check_version(&nccl, &found, error);
    if (status != GAPLESS_OK) {
        (void)dlclose(library);
        return status;
    }
    functions = nccl;
    version = found;
    return GAPLESS_OK;
}

int group_nccl(const struct nccl **ret, struct gapless_error *error)
{
    int status;

    (void)pthread_mutex_lock(&loading);
    status = version != 0 ? GAPLESS_OK : load(error);
    (void)pthread_mutex_unlock(&loading);
    if (status == GAPLESS_OK)
        *ret = &functions;
    return status;
}

int group_version(int *ret, struct gapless_error *error)
{
    const struct nccl *nccl;
    int status = group_nccl(&nccl, error);

    if (status == GAPLESS_OK)
        *ret = version; /* written once, before group_nccl came back */
    return status;
}

int group_id(unsigned char ret[GPU_GROUP_ID], struct gapless_error *error)
{
    const struct nccl *nccl;
    struct nccl_id id;
    int result, status = group_nccl(&nccl, error);

    if (status != GAPLESS_OK)
        return status;
    result = nccl->GetUniqueId(&id);
    if (result != NCCL_SUCCESS)
        return gapless_error_set(error, GAPLESS_SYSTEM, 0,
                                 "NCCL cannot make a name for a group (%.100s; "
                                 "%.200s): see whether this machine has a network "
                                 "interface that is up, or name one: "
                                 "NCCL_SOCKET_IFNAME=lo",
                                 nccl->GetErrorString(result),
                                 nccl->GetLastError(NULL));
    memcpy(ret, id.bytes, sizeof id.bytes);
    return GAPLESS_OK;
}
