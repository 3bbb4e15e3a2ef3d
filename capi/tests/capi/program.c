/* A linear layer of ones with a GELU, on the first device. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "ironwarp.h"

/* What the program needs of cuda.h, which this machine may lack. */
typedef unsigned long long CUdeviceptr;
int cuInit(unsigned flags);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuStreamCreate(IronwarpStream *stream, unsigned flags);
int cuStreamSynchronize(IronwarpStream stream);
int cuMemAlloc_v2(CUdeviceptr *ptr, size_t bytes);
int cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes);
int cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes);

#define CHECK(call)                                                   \
    do {                                                              \
        if ((call) != 0) {                                            \
            printf("%s failed: %s\n", #call, ironwarp_last_error());  \
            exit(1);                                                  \
        }                                                             \
    } while (0)

enum { N = 16, C = 32, OC = 8, ONE = 0x3f80 };

/* Device memory with `count` ones. */
static void *ones(size_t count) {
    uint16_t values[N * C];
    CUdeviceptr ptr;
    for (size_t i = 0; i < count; i++) values[i] = ONE;
    CHECK(cuMemAlloc_v2(&ptr, count * sizeof *values));
    CHECK(cuMemcpyHtoD_v2(ptr, values, count * sizeof *values));
    return (void *)(uintptr_t)ptr;
}

int main(void) {
    void *context;
    IronwarpStream stream;
    CHECK(cuInit(0));
    CHECK(cuDevicePrimaryCtxRetain(&context, 0));
    CHECK(cuCtxSetCurrent(context));
    /* CU_STREAM_DEFAULT: the stream waits for the copies, which are in the NULL stream. */
    CHECK(cuStreamCreate(&stream, 0));
    IronwarpMatmulForward layer = {
        .x = ones(N * C),
        .weight = ones(OC * C),
        .bias = ones(OC),
        .pre = ones(N * OC),
        .out = ones(N * OC),
        .n = N,
        .c = C,
        .oc = OC,
        .epilogue = IRONWARP_EPILOGUE_BIAS_GELU,
    };
    CHECK(ironwarp_matmul_forward(&layer, stream));
    CHECK(cuStreamSynchronize(stream));
    union {
        uint32_t bits;
        float value;
    } out;
    uint16_t rounded;
    CHECK(cuMemcpyDtoH_v2(&rounded, (CUdeviceptr)(uintptr_t)layer.out, sizeof rounded));
    out.bits = (uint32_t)rounded << 16;
    printf("gelu(33) = %.1f\n", out.value);
    layer.c = 7;
    if (ironwarp_matmul_forward(&layer, stream) != IRONWARP_STATUS_INVALID_ARGUMENT) return 1;
    printf("%s\n", ironwarp_last_error());
    return 0;
}
