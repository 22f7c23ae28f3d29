/* Finding cuBLAS at run time: a program that multiplies no matrices on a GPU needs none. */
#include "gpu/cublas_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
static struct cublas functions;
static bool loaded;

/* What the loader of the system said last; never NULL. */
static const char *reason(void)
{
    const char *text = dlerror();

    return text != NULL ? text : "for no reason that the system tells";
}

static int open_library(void **ret, struct gapless_error *error)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12",
                                        "libcublas.so"};
    const char *given = getenv("GAPLESS_CUBLAS");
    char first[200] = "";
    void *library = NULL;

    if (given != NULL && given[0] != '\0') {
        library = dlopen(given, RTLD_NOW | RTLD_LOCAL);
        if (library == NULL)
            return gapless_error_set(error, GAPLESS_MISSING, 0,
                                     "GAPLESS_CUBLAS names no library that can be "
                                     "opened (%.200s): name a libcublas.so.13 or .12, "
                                     "or unset it",
                                     reason());
    }
    for (unsigned i = 0; library == NULL && i < sizeof names / sizeof names[0]; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL && i == 0)
            (void)snprintf(first, sizeof first, "%s", reason());
    }
    if (library == NULL)
        return gapless_error_set(
            error, GAPLESS_MISSING, 0,
            "cuBLAS is not here, which models and Muon on a GPU need (%.160s): install "
            "NVIDIA's "
            "libcublas of CUDA 13 or 12, name the file, GAPLESS_CUBLAS=/path/"
            "libcublas.so.13, or compute on the CPU: --device cpu",
            first);
    *ret = library;
    return GAPLESS_OK;
}

static int find(void *library, const char *name, void *ret, struct gapless_error *error)
{
    void *found = dlsym(library, name);

    if (found == NULL)
        return gapless_error_set(
            error, GAPLESS_VERSION, 0,
            "the cuBLAS found here has no %s: it is older than that of CUDA 11, or no "
            "cuBLAS; install a later one, or name the file: GAPLESS_CUBLAS=/path/"
            "libcublas.so.13",
            name);
    memcpy(ret, &found, sizeof found); /* C has no cast from data to functions */
    return GAPLESS_OK;
}

static int find_all(void *library, struct cublas *ret, struct gapless_error *error)
{
    int status = GAPLESS_OK;

#define CUBLAS_FIND(name, result, arguments)                                           \
    if (status == GAPLESS_OK)                                                          \
        status = find(library, "cublas" #name, &ret->name, error);
    CUBLAS_API_FUNCTIONS(CUBLAS_FIND)
#undef CUBLAS_FIND
    return status;
}

int cublas_find(const struct cublas **ret, struct gapless_error *error)
{
    struct cublas found;
    void *library = NULL;
    int status = GAPLESS_OK;

    (void)pthread_mutex_lock(&loading);
    if (!loaded) {
        status = open_library(&library, error);
        if (status == GAPLESS_OK)
            status = find_all(library, &found, error);
        if (status == GAPLESS_OK) {
            functions = found;
            loaded = true;
        } else if (library != NULL) {
            (void)dlclose(library);
        }
    }
    (void)pthread_mutex_unlock(&loading);
    if (status == GAPLESS_OK)
        *ret = &functions;
    return status;
}
