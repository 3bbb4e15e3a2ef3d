#!/usr/bin/env python3
"""NVIDIA's Python client (cuda-bindings 13.0, from PyPI) on the emulated driver.

    LD_LIBRARY_PATH=FOLDER python3 python_client.py

FOLDER contains libcuda.so.1, a link to libcuda_emulator.so (`make emulator` creates one). The client loads a PTX kernel,
launches it and checks the result, then checks that a faulty launch gives a finding.
"""

import array
import ctypes

from cuda.bindings import driver

PTX = b"""
.version 8.0
.target sm_80
.address_size 64

// y[i] = a * x[i] + y[i] for i < n
.visible .entry saxpy(.param .f32 a, .param .u64 x, .param .u64 y, .param .u64 n)
{
    .reg .pred %p;
    .reg .b32 %r<4>;
    .reg .f32 %f<4>;
    .reg .b64 %rd<7>;

    ld.param.f32 %f1, [a];
    ld.param.u64 %rd1, [x];
    ld.param.u64 %rd2, [y];
    ld.param.u64 %rd3, [n];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r1, %r1, %r2, %r3;
    cvt.u64.u32 %rd4, %r1;
    setp.ge.u64 %p, %rd4, %rd3;
    @%p bra DONE;
    shl.b64 %rd4, %rd4, 2;
    add.u64 %rd5, %rd1, %rd4;
    add.u64 %rd6, %rd2, %rd4;
    ld.global.f32 %f2, [%rd5];
    ld.global.f32 %f3, [%rd6];
    fma.rn.f32 %f3, %f1, %f2, %f3;
    st.global.f32 [%rd6], %f3;
DONE:
    ret;
}
"""


def check(result):
    """The values of a call that must succeed."""
    error, *values = result
    if error != driver.CUresult.CUDA_SUCCESS:
        _, name = driver.cuGetErrorName(error)
        _, text = driver.cuGetErrorString(error)
        raise RuntimeError(f"{name.decode()}: {text.decode()}")
    return values[0] if len(values) == 1 else values


def launch(kernel, stream, n, a, x, y):
    params = ((a, x, y, n), (ctypes.c_float, None, None, ctypes.c_size_t))
    check(driver.cuLaunchKernel(kernel, (n + 127) // 128, 1, 1, 128, 1, 1, 0, stream, params, 0))


def main():
    check(driver.cuInit(0))
    device = check(driver.cuDeviceGet(0))
    name = check(driver.cuDeviceGetName(64, device)).split(b"\0")[0].decode()
    version = check(driver.cuDriverGetVersion())
    attribute = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    print(f"{name}, driver {version}, {check(driver.cuDeviceGetAttribute(attribute, device))} multiprocessors")
    context = check(driver.cuCtxCreate(None, 0, device))

    module = check(driver.cuModuleLoadData(PTX))
    kernel = check(driver.cuModuleGetFunction(module, b"saxpy"))
    n = 1000
    x, y = array.array("f", range(n)), array.array("f", [1.0] * n)
    size = n * x.itemsize
    stream = check(driver.cuStreamCreate(0))
    dx, dy = check(driver.cuMemAlloc(size)), check(driver.cuMemAllocAsync(size, stream))
    check(driver.cuMemcpyHtoDAsync(dx, x.buffer_info()[0], size, stream))
    check(driver.cuMemcpyHtoDAsync(dy, y.buffer_info()[0], size, stream))
    launch(kernel, stream, n, 2.0, dx, dy)
    check(driver.cuMemcpyDtoHAsync(y.buffer_info()[0], dy, size, stream))
    check(driver.cuStreamSynchronize(stream))
    wrong = [i for i in range(n) if y[i] != 2.0 * i + 1.0]
    print(f"saxpy of {n}: y[999] = {y[999]}, {len(wrong)} wrong")
    assert not wrong

    error, _ = driver.cuModuleLoadData(PTX.replace(b"fma.rn.f32", b"fmx.rn.f32"))
    print(f"an unknown instruction: {error.name}")
    assert error != driver.CUresult.CUDA_SUCCESS

    # One element more than the buffers have: found with every schedule and with any neighbouring memory.
    launch(kernel, stream, n + 1, 2.0, dx, dy)
    error, = driver.cuStreamSynchronize(stream)
    print(f"one element too many: {error.name}")
    assert error == driver.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    check(driver.cuCtxDestroy(context))


main()
