"""Ironwarp's kernels as PyTorch operators with autograd, through the C library and ctypes.

    cargo build --release -p ironwarp-capi
    python3 examples/torch_ops.py        # on a GPU: runs both operators and compares them with PyTorch's own

`attention(q, k, v, causal)` is scaled_dot_product_attention, and `mlp(x, w1, b1, w2, b2)` is
linear(gelu(linear(x, w1, b1)), w2, b2). Nothing is copied: the kernels run on the tensors' memory, in PyTorch's current
stream. Both are custom operators, so torch.compile keeps them in its graphs. scripts/check-torch-ops.py runs this file
without a GPU, on the emulated driver.
"""

import ctypes
import os
import pathlib

import torch

PROJECT = pathlib.Path(__file__).resolve().parent.parent


class Memory:
    """Gives the kernels the tensors' own memory, and the current stream."""

    def pointer(self, tensor):
        return tensor.data_ptr()

    def stream(self, device):
        return torch.cuda.current_stream(device).cuda_stream

    def current(self, device):
        """Makes the tensors' device current, as the stream belongs to it."""
        return torch.cuda.device(device)

    def finish(self):
        """Called after the kernels of an operator have been enqueued."""


# scripts/check-torch-ops.py replaces it by the memory of the emulated GPU.
memory = Memory()


class Strides(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "token", "head")]


class Workspace(ctypes.Structure):
    _fields_ = [("ptr", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


def structure(name, pointers, strides=(), sizes=(), ints=()):
    """A struct of ironwarp.h, whose fields are in this order in all of them."""
    fields = [(field, ctypes.c_void_p) for field in pointers]
    fields += [(field, Strides) for field in strides]
    fields += [(field, ctypes.c_int64) for field in sizes]
    fields += [(field, ctypes.c_int32) for field in ints]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


AttentionForward = structure(
    "AttentionForward",
    ["q", "k", "v", "out", "lse"],
    ["q_strides", "k_strides", "v_strides"],
    ["b", "t", "nh", "hs"],
    ["causal"],
)
AttentionBackward = structure(
    "AttentionBackward",
    ["dout", "q", "k", "v", "out", "lse", "dq", "dk", "dv"],
    ["q_strides", "k_strides", "v_strides", "dq_strides", "dk_strides", "dv_strides"],
    ["b", "t", "nh", "hs"],
    ["causal"],
)
MatmulForward = structure(
    "MatmulForward", ["x", "weight", "bias", "residual", "pre", "out"], [], ["n", "c", "oc"], ["epilogue"]
)
MatmulDgrad = structure("MatmulDgrad", ["dout", "weight", "pre", "dx"], [], ["n", "c", "oc"])
MatmulWgrad = structure("MatmulWgrad", ["dout", "x", "dweight", "dbias"], [], ["n", "c", "oc"], ["accumulate"])

EPILOGUE_BIAS, EPILOGUE_BIAS_GELU = 1, 2


def load_library():
    path = os.environ.get("IRONWARP_CAPI", PROJECT / "target/release/libironwarp_capi.so")
    library = ctypes.CDLL(str(path))
    library.ironwarp_last_error.restype = ctypes.c_char_p
    return library


library = load_library()


def check(status):
    if status != 0:
        raise RuntimeError(library.ironwarp_last_error().decode())


def call(function, args, device):
    """Calls a function without a workspace."""
    with memory.current(device):
        check(getattr(library, function)(ctypes.byref(args), ctypes.c_void_p(memory.stream(device))))


def call_with_workspace(function, args, device):
    """Calls a function with a workspace of the size that it needs, allocated by PyTorch."""
    size = ctypes.c_size_t()
    check(getattr(library, function + "_workspace_size")(ctypes.byref(args), ctypes.byref(size)))
    workspace = torch.empty(max(size.value, 1), dtype=torch.uint8, device=device)
    lent = Workspace(memory.pointer(workspace) if size.value else None, size.value)
    with memory.current(device):
        check(getattr(library, function)(ctypes.byref(args), lent, ctypes.c_void_p(memory.stream(device))))


def require(**tensors):
    """Checks tensors that are given as name=(tensor, shape): bf16, of this shape, and all on one device."""
    device = next(iter(tensors.values()))[0].device
    for name, (tensor, shape) in tensors.items():
        if tensor.dtype != torch.bfloat16:
            raise TypeError(f"{name} must be torch.bfloat16, not {tensor.dtype}")
        if tuple(tensor.shape) != tuple(shape):
            raise ValueError(f"{name} must have the shape {tuple(shape)}, not {tuple(tensor.shape)}")
        if tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device}, and the other tensors on {device}")


def head_strides(tensor):
    """Strides of a (B, NH, T, HS) tensor, whose last axis must be contiguous."""
    batch, head, token, last = tensor.stride()
    if last != 1:
        raise ValueError(f"the last axis must be contiguous, but its stride is {last}")
    return Strides(batch, token, head)


def like_heads(tensor):
    """An uninitialised (B, NH, T, HS) tensor with the memory layout (B, T, NH, HS)."""
    b, nh, t, hs = tensor.shape
    return torch.empty(b, t, nh, hs, dtype=tensor.dtype, device=tensor.device).transpose(1, 2)


@torch.library.custom_op("ironwarp::attention_forward", mutates_args=())
def attention_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (B, NH, T, HS) and log-sum-exp (B, NH, T) of attention on (B, NH, T, HS) bf16 tensors with any strides."""
    require(q=(q, q.shape), k=(k, q.shape), v=(v, q.shape))
    b, nh, t, hs = q.shape
    out = like_heads(q)
    lse = torch.empty(b, nh, t, dtype=torch.float32, device=q.device)
    pointers = (memory.pointer(tensor) for tensor in (q, k, v, out, lse))
    strides = (head_strides(tensor) for tensor in (q, k, v))
    call("ironwarp_attention_forward", AttentionForward(*pointers, *strides, b, t, nh, hs, causal), q.device)
    memory.finish()
    return out, lse


@attention_forward.register_fake
def _(q, k, v, causal):
    return like_heads(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("ironwarp::attention_backward", mutates_args=())
def attention_backward(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    causal: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    b, nh, t, hs = q.shape
    # The kernels read these two as (B, T, NH, HS) without gaps.
    dout, out = (tensor.transpose(1, 2).contiguous() for tensor in (dout, out))
    gradients = [like_heads(tensor) for tensor in (q, k, v)]
    pointers = (memory.pointer(tensor) for tensor in (dout, q, k, v, out, lse, *gradients))
    strides = (head_strides(tensor) for tensor in (q, k, v, *gradients))
    args = AttentionBackward(*pointers, *strides, b, t, nh, hs, causal)
    call_with_workspace("ironwarp_attention_backward", args, q.device)
    memory.finish()
    return tuple(gradients)


@attention_backward.register_fake
def _(dout, q, k, v, out, lse, causal):
    return like_heads(q), like_heads(k), like_heads(v)


def _attention_setup(ctx, inputs, output):
    q, k, v, ctx.causal = inputs
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(q, k, v, out, lse)


def _attention_gradient(ctx, dout, _dlse):
    q, k, v, out, lse = ctx.saved_tensors
    return *attention_backward(dout, q, k, v, out, lse, ctx.causal), None


attention_forward.register_autograd(_attention_gradient, setup_context=_attention_setup)


def attention(q, k, v, causal=True):
    """scaled_dot_product_attention(q, k, v, is_causal=causal) of (B, NH, T, HS) bf16 tensors."""
    return attention_forward(q, k, v, causal)[0]


@torch.library.custom_op("ironwarp::mlp_forward", mutates_args=())
def mlp_forward(
    x: torch.Tensor, w1: torch.Tensor, b1: torch.Tensor, w2: torch.Tensor, b2: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output (N, C), pre-activation and activation (N, H) of an MLP. GELU is fused into the first matmul."""
    (n, c), hidden, oc = x.shape, w1.shape[0], w2.shape[0]
    require(x=(x, (n, c)), w1=(w1, (hidden, c)), b1=(b1, (hidden,)), w2=(w2, (oc, hidden)), b2=(b2, (oc,)))
    x, w1, b1, w2, b2 = (tensor.contiguous() for tensor in (x, w1, b1, w2, b2))
    pre, activation = (torch.empty(n, hidden, dtype=x.dtype, device=x.device) for _ in range(2))
    out = torch.empty(n, oc, dtype=x.dtype, device=x.device)
    p = memory.pointer
    first = MatmulForward(p(x), p(w1), p(b1), None, p(pre), p(activation), n, c, hidden, EPILOGUE_BIAS_GELU)
    call("ironwarp_matmul_forward", first, x.device)
    second = MatmulForward(p(activation), p(w2), p(b2), None, None, p(out), n, hidden, oc, EPILOGUE_BIAS)
    call("ironwarp_matmul_forward", second, x.device)
    memory.finish()
    return out, pre, activation


@mlp_forward.register_fake
def _(x, w1, b1, w2, b2):
    hidden = x.new_empty(x.shape[0], w1.shape[0])
    return x.new_empty(x.shape[0], w2.shape[0]), hidden, torch.empty_like(hidden)


@torch.library.custom_op("ironwarp::mlp_backward", mutates_args=())
def mlp_backward(
    dout: torch.Tensor,
    x: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    pre: torch.Tensor,
    activation: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    (n, c), hidden, oc = x.shape, w1.shape[0], w2.shape[0]
    dout, x, w1, w2 = (tensor.contiguous() for tensor in (dout, x, w1, w2))
    dpre, dx = torch.empty_like(pre), torch.empty_like(x)
    # The kernels sum the gradients of parameters in f32.
    dw1, dw2 = (torch.empty(w.shape, dtype=torch.float32, device=x.device) for w in (w1, w2))
    db1, db2 = (torch.empty(w.shape[0], dtype=torch.float32, device=x.device) for w in (w1, w2))
    p = memory.pointer
    wgrad = MatmulWgrad(p(dout), p(activation), p(dw2), p(db2), n, hidden, oc, 0)
    call_with_workspace("ironwarp_matmul_wgrad", wgrad, x.device)
    call("ironwarp_matmul_dgrad", MatmulDgrad(p(dout), p(w2), p(pre), p(dpre), n, hidden, oc), x.device)
    wgrad = MatmulWgrad(p(dpre), p(x), p(dw1), p(db1), n, c, hidden, 0)
    call_with_workspace("ironwarp_matmul_wgrad", wgrad, x.device)
    call("ironwarp_matmul_dgrad", MatmulDgrad(p(dpre), p(w1), None, p(dx), n, c, hidden), x.device)
    memory.finish()
    return dx, dw1, db1, dw2, db2


@mlp_backward.register_fake
def _(dout, x, w1, w2, pre, activation):
    parameters = (torch.empty(s, dtype=torch.float32, device=x.device) for w in (w1, w2) for s in (w.shape, w.shape[:1]))
    return x.new_empty(x.shape), *parameters


def _mlp_setup(ctx, inputs, output):
    x, w1, _, w2, _ = inputs
    _, pre, activation = output
    ctx.mark_non_differentiable(pre, activation)
    ctx.save_for_backward(x, w1, w2, pre, activation)


def _mlp_gradient(ctx, dout, _dpre, _dactivation):
    dx, *parameters = mlp_backward(dout, *ctx.saved_tensors)
    return dx, *(gradient.to(dx.dtype) for gradient in parameters)


mlp_forward.register_autograd(_mlp_gradient, setup_context=_mlp_setup)


def mlp(x, w1, b1, w2, b2):
    """linear(gelu(linear(x, w1, b1), approximate="tanh"), w2, b2) of an (N, C) bf16 tensor."""
    return mlp_forward(x, w1, b1, w2, b2)[0]


def reference_attention(q, k, v, causal):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)


def reference_mlp(x, w1, b1, w2, b2):
    linear, gelu = torch.nn.functional.linear, torch.nn.functional.gelu
    return linear(gelu(linear(x, w1, b1), approximate="tanh"), w2, b2)


def with_gradients(function, inputs, dtype, *settings):
    """The output of a function and the gradients of the sum of its squares, as f64, computed in `dtype`."""
    inputs = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
    out = function(*inputs, *settings)
    out.square().sum().backward()
    return [tensor.detach().double().cpu() for tensor in (out, *(tensor.grad for tensor in inputs))]


def ulps(found, exact):
    """The largest error in bf16 ulps. Numbers below the tensor's RMS count with the ulp of the RMS."""
    scale = torch.maximum(exact.abs(), exact.square().mean().sqrt())
    return ((found - exact).abs() / torch.exp2(torch.floor(torch.log2(scale)) - 7)).max().item()


def compare(device):
    """Compares both operators and their gradients with PyTorch in f64, and prints the errors of Ironwarp and of PyTorch in
    bf16 in two columns. Fails if an error of Ironwarp is above one ulp and more than twice that of PyTorch."""
    generator = torch.Generator().manual_seed(1)

    def numbers(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=generator)).bfloat16().to(device)

    heads = [numbers(2, 3, 80, 64) for _ in range(3)]
    packed = list(numbers(2, 80, 3, 3, 64).permute(2, 0, 3, 1, 4))
    layers = [numbers(96, 64), numbers(256, 64, scale=0.1), numbers(256), numbers(64, 256, scale=0.1), numbers(64)]
    cases = [
        ("attention, causal", attention, reference_attention, heads, (True,), "out dq dk dv"),
        ("attention, causal, packed QKV", attention, reference_attention, packed, (True,), "out dq dk dv"),
        ("attention, all tokens", attention, reference_attention, heads, (False,), "out dq dk dv"),
        ("mlp", mlp, reference_mlp, layers, (), "out dx dw1 db1 dw2 db2"),
    ]
    worst = 0.0
    print(f"{'largest error in bf16 ulps':36}{'ironwarp':>10}{'pytorch':>10}")
    for title, ours, theirs, inputs, settings, names in cases:
        exact = with_gradients(theirs, inputs, torch.float64, *settings)
        found = with_gradients(ours, inputs, torch.bfloat16, *settings)
        pytorch = with_gradients(theirs, inputs, torch.bfloat16, *settings)
        for name, f, p, e in zip(names.split(), found, pytorch, exact):
            of_ours, of_pytorch = ulps(f, e), ulps(p, e)
            worst = max(worst, of_ours / max(2 * of_pytorch, 1.0))
            print(f"{title + ': ' + name:36}{of_ours:10.2f}{of_pytorch:10.2f}")
    if worst > 1.0:
        raise SystemExit(f"an error is {worst:.2f} times its limit")


if __name__ == "__main__":
    compare("cuda")
