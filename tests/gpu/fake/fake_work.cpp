/* Work of a library on a stream, by a name that dlsym finds. */
#include "tests/gpu/fake/fake_work.h"

#include <functional>

__attribute__((visibility("default"))) cudaError_t
fake_cuda_work(cudaStream_t stream, const char *call, bool (*body)(void *context),
               void *context)
{
    return fake_stream_work(stream, call, [body, context] { return body(context); });
}
