/* Fake CUDA: the part of the driver's interface that the plugin uses, by function
 * pointers from cudaGetDriverEntryPointByVersion. Numbers are those of CUDA 13.
 *
 * In C and in C++.
 */
#ifndef FAKE_CUDA_DRIVER_H
#define FAKE_CUDA_DRIVER_H

#include <stddef.h>

typedef enum cudaError_enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_NOT_SUPPORTED = 801,
    CUDA_ERROR_UNKNOWN = 999
} CUresult;

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;

typedef enum CUdevice_attribute_enum {
    CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED = 124
} CUdevice_attribute;

typedef enum CUpointer_attribute_enum {
    CU_POINTER_ATTRIBUTE_SYNC_MEMOPS = 6
} CUpointer_attribute;

typedef enum CUmemRangeHandleType_enum {
    CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD = 1
} CUmemRangeHandleType;

#ifdef __cplusplus
extern "C" {
#endif

CUresult cuDeviceGet(CUdevice *device, int ordinal);
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice device);
CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute which,
                               CUdeviceptr pointer);
CUresult cuMemGetHandleForAddressRange(void *handle, CUdeviceptr pointer, size_t bytes,
                                       CUmemRangeHandleType type,
                                       unsigned long long flags);

#ifdef __cplusplus
}
#endif

#endif
