#!/bin/sh
# The plugin as it is shipped: it shows one function, needs nothing of NVIDIA's to be opened, and where there is no
# driver it says so.
# ctest: plain nvcc
set -u
source=$1 build=$2
plugin=$build/libgapless_cuda.so
work=$(mktemp -d "${TMPDIR:-/tmp}/gapless-plugin.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
result=0

wrong() {
    echo "FAILED: $*"
    result=1
}
if [ ! -e "$plugin" ]; then
    echo "SKIP: nvcc is not installed, or does not work (see the end of configuring)"
    exit 77
fi

shown=$(nm -D --defined-only "$plugin" | awk '{ print $3 }')
[ "$shown" = gapless_gpu_plugin ] || wrong "it shows other functions:" "$shown"

needed=$(readelf -d "$plugin" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
[ -n "$needed" ] || wrong "readelf does not say what it needs"
for library in $needed; do
    case $library in
    libc.so.* | libm.so.* | libdl.so.* | librt.so.* | libpthread.so.* | libgcc_s.so.* | libstdc++.so.* | ld-linux*) ;;
    *) wrong "it needs $library, which not every machine has" ;;
    esac
done

cat >"$work/open.c" <<'END'
#include "engine/device/device.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library == NULL)
        return printf("it does not open: %s\n", dlerror()), 1;
    gpu_plugin_fn *open_plugin;
    *(void **)&open_plugin = dlsym(library, DEVICE_PLUGIN_SYMBOL);
    if (open_plugin == NULL)
        return printf("%s\n", dlerror()), 1;
    if (open_plugin(DEVICE_ABI + 1) != NULL)
        return puts("it claims to know tables that are yet to come"), 1;
    const struct gpu_plugin *plugin = open_plugin(DEVICE_ABI);
    if (plugin == NULL || plugin->abi != DEVICE_ABI || plugin->bytes != sizeof(*plugin) ||
        plugin->device == NULL || plugin->version[0] == 0)
        return puts("its table is not whole"), 1;
    uint32_t count = 77;
    struct gapless_error error = {0};
    int status = plugin->device->count(&count, &error);
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    printf("%s; status %d, %u GPUs, \"%s\"\n", plugin->version, status, count, error.text);
    if (status == GAPLESS_OK)
        return driver != NULL && count > 0 ? 0 : 1;
    if (status != GAPLESS_MISSING || count != 77)
        return puts("without a GPU, count() must say GAPLESS_MISSING and touch nothing"), 1;
    if (driver == NULL && strstr(error.text, "driver") == NULL)
        return puts("the text does not name the driver"), 1;
    return 0;
}
END
if "${CC:-cc}" -std=c17 -D_GNU_SOURCE -I"$source" -I"$source/engine/include" "$work/open.c" -o "$work/open" -ldl; then
    "$work/open" "$plugin" || wrong "opened by hand"
else
    wrong "the host does not compile"
fi

# As a user sees it.
GAPLESS_CUDA_PLUGIN='' "$build/gapless" doctor >"$work/doctor" 2>&1
if ! grep -qi 'gpu\|cuda' "$work/doctor"; then
    cat "$work/doctor"
    wrong "gapless doctor does not speak of GPUs"
fi
grep -i 'gpu\|cuda\|driver' "$work/doctor"
exit $result
