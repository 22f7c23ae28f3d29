/* The fake of CUDA that is inside the plugin: see fake/fake_cuda.h. */
#include "tests/gpu/fake/fake_cuda.h"

#include <dlfcn.h>
#include <stdlib.h>

const struct fake_cuda *fake_cuda_of_plugin(void)
{
    const char *path = getenv("GAPLESS_CUDA_PLUGIN");
    const struct fake_cuda *(*table)(void) = NULL;
    void *library = path != NULL ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;

    if (library != NULL)
        *(void **)(void *)&table = dlsym(library, FAKE_CUDA_SYMBOL);
    return table != NULL ? table() : NULL;
}
