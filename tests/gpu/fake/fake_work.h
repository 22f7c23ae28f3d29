/* Fake CUDA: work of a library on a stream, for stand-ins of libraries that are opened
 * beside the plugin (tests/gpu/fake_*). They find it in the plugin, by name. */
#ifndef FAKE_WORK_H
#define FAKE_WORK_H

#include <cuda_runtime_api.h>

#define FAKE_WORK_SYMBOL "fake_cuda_work"

#ifdef __cplusplus
extern "C" {
#endif

/* fake_stream_work of runtime_api.h: body(context) is called when the stream gets
 * there, and again later where it returns false. */
typedef cudaError_t fake_work_fn(cudaStream_t stream, const char *call,
                                 bool (*body)(void *context), void *context);
fake_work_fn fake_cuda_work;

#ifdef __cplusplus
}
#endif

#endif
