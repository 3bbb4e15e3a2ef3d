#!/usr/bin/env python3
"""Runs examples/torch_ops.py without a GPU: the operators' kernels on the emulated driver, PyTorch on the CPU.

    make check-torch

Needs torch and NVIDIA's cuda-bindings 13.0, which `make check-torch` installs from PyPI, and LD_LIBRARY_PATH with the
emulated driver.
"""

import contextlib
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

    def stream(self, _device):
        return int(self.queue)

    def current(self, _device):
        return contextlib.nullcontext()

    def finish(self):
        cuda(driver.cuStreamSynchronize(self.queue))
        for storage, pointer in self.copies:
            cuda(driver.cuMemcpyDtoH(storage.data_ptr(), pointer, storage.nbytes()))
            cuda(driver.cuMemFree(pointer))
        self.copies.clear()


torch_ops.memory = EmulatedMemory()
torch_ops.compare("cpu")
half = torch.zeros(1, 1, 4, 64, dtype=torch.float16)
heads = half.bfloat16()
x, w = torch.zeros(8, 16).bfloat16(), torch.zeros(24, 16).bfloat16()
refused = {
    "q must be torch.bfloat16": lambda: torch_ops.attention(half, half, half),
    "k must have the shape (1, 1, 4, 64)": lambda: torch_ops.attention(heads, heads[:, :, :2], heads),
    "HS % 16 == 0": lambda: torch_ops.attention(heads[..., :40], heads[..., :40], heads[..., :40]),
    "b1 must have the shape (24,)": lambda: torch_ops.mlp(x, w, w[:, 0][:8], w.T, x[0]),
}
for message, operation in refused.items():
    try:
        operation()
        raise SystemExit(f"accepted: {message}")
    except (TypeError, ValueError, RuntimeError) as error:
        assert message in str(error), error
    torch_ops.memory.copies.clear()
# What torch.compile relies on: schemas, fake tensors, autograd.
torch_ops.torch.library.opcheck(torch_ops.mlp_forward, (x, w, w[:, 0], w.T.contiguous(), x[0]))
torch_ops.torch.library.opcheck(torch_ops.attention_forward, (heads, heads, heads, True))
print("ok")
