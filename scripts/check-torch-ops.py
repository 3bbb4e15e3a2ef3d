#!/usr/bin/env python3
"""Runs examples/torch_ops.py without a GPU: the operators' kernels on the emulated driver, PyTorch on the CPU.

    make check-torch

Needs torch and NVIDIA's cuda-bindings 13.0, which `make check-torch` installs from PyPI, and LD_LIBRARY_PATH with the
emulated driver.
"""

import pathlib
import sys

import torch
from cuda.bindings import driver

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "examples"))
import torch_ops  # noqa: E402


def cuda(result):
    """The values that a function of cuda-bindings returns, after its result code."""
    code, *values = result
    if code != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(driver.cuGetErrorName(code)[1].decode())
    return values[0] if len(values) == 1 else values


class EmulatedMemory:
    """Copies tensors in host memory to the emulated GPU before an operator, and back after it."""

    def __init__(self):
        cuda(driver.cuInit(0))
        self.device = cuda(driver.cuDeviceGet(0))
        name = cuda(driver.cuDeviceGetName(100, self.device)).split(b"\0")[0].decode()
        if not name.startswith("Emulated"):
            raise SystemExit(f"this check runs on the emulated GPU, not on {name}: set LD_LIBRARY_PATH")
        cuda(driver.cuCtxSetCurrent(cuda(driver.cuDevicePrimaryCtxRetain(self.device))))
        self.queue = cuda(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_DEFAULT))
        self.copies = []
        print(name)

    def pointer(self, tensor):
        storage = tensor.untyped_storage()
        for held, pointer in self.copies:
            if held.data_ptr() == storage.data_ptr():
                break
        else:
            pointer = cuda(driver.cuMemAlloc(storage.nbytes()))
            cuda(driver.cuMemcpyHtoD(pointer, storage.data_ptr(), storage.nbytes()))
            self.copies.append((storage, pointer))
        return int(pointer) + tensor.storage_offset() * tensor.element_size()

    def stream(self):
        return int(self.queue)

    def finish(self):
        cuda(driver.cuStreamSynchronize(self.queue))
        for storage, pointer in self.copies:
            cuda(driver.cuMemcpyDtoH(storage.data_ptr(), pointer, storage.nbytes()))
            cuda(driver.cuMemFree(pointer))
        self.copies.clear()


torch_ops.memory = EmulatedMemory()
torch_ops.compare("cpu")
q = torch.zeros(1, 1, 4, 64, dtype=torch.float16)
for wrong, message in ((q, "q must be torch.bfloat16"), (q.bfloat16()[..., :40], "HS % 16 == 0")):
    try:
        torch_ops.attention(wrong, wrong, wrong)
        raise SystemExit(f"accepted: {message}")
    except (TypeError, RuntimeError) as error:
        assert message in str(error), error
    torch_ops.memory.copies.clear()
print("ok")
