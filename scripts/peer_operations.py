"""PyTorch's implementations of our operations: inputs, peers, and the formulas for peers.py --self-test.

A peer computes the complete operation with PyTorch's functions. Its memory traffic may differ from ours: layernorm's
weight gradients are bf16, token ids are 64-bit, results are new tensors where ours are written in place, and dqkv is
concatenated after the backward kernel (not so in the peers named "separate").
"""

import functools
import math
from typing import Callable, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import nn

aten = torch.ops.aten
DEVICE, COMPUTE = torch.device("cpu"), torch.float32  # of activations and weights; use() sets both

EPS, BETAS, ADAM_EPS, LR, DECAY = 1e-5, (0.9, 0.95), 1e-8, 1e-3, 0.1
POSITIONS = 1024
TENSORS = 148  # gpt2-124M's parameters


def use(device):
    global DEVICE, COMPUTE
    DEVICE, COMPUTE = device, torch.float32 if device.type == "cpu" else torch.bfloat16


class Peer(NamedTuple):
    name: str
    make: Callable  # () -> run(*prepared); a compiled peer is compiled here
    prepare: Callable = lambda *inputs: inputs  # work that is not timed
    view: Callable = lambda outputs, inputs: outputs  # converts outputs to those of the formula


class Case(NamedTuple):
    """An operation with one shape."""

    inputs: Callable  # () -> a new set of input tensors
    peers: list
    formula: Callable  # inputs in float64 -> outputs
    tolerance: Optional[float] = None


class Operation(NamedTuple):
    case: Callable
    sizes: tuple
    variants: tuple


OPERATIONS = {}


def operation(sizes, variants=""):
    def register(case):
        OPERATIONS[case.__name__] = Operation(case, tuple(sizes.split()), tuple(variants.split()))
        return case

    return register


def normal(*shape, dtype=None):
    return torch.randn(shape, device=DEVICE, dtype=dtype or COMPUTE)


def f32(*shape):
    return normal(*shape, dtype=torch.float32)


def integers(high, *shape):
    return torch.randint(high, shape, device=DEVICE)


def eager(name, run, **more):
    return Peer(f"torch {name}", lambda: run, **more)


def compiled(name, run, **more):
    return Peer(f"torch.compile {name}", lambda: compile_(run), **more)


def compile_(run):
    return torch.compile(run, dynamic=False, fullgraph=True)


def both(name, run):
    return [eager(name, run), compiled(name, run)]


def padded(v):
    return -(-v // 128) * 128


def weight_decay_groups(params, decay):
    """Parameter groups for AdamW: `decay` applies to tensors of two dimensions or more, and not to the others."""
    return [dict(params=[p for p in params if p.dim() >= 2], weight_decay=decay),
            dict(params=[p for p in params if p.dim() < 2], weight_decay=0.0)]  # fmt: skip


@operation("b t c v")
def embedding_forward(s):
    def run(tokens, wte, wpe):
        return (F.embedding(tokens, wte) + wpe,)

    inputs = lambda: (integers(s.v, s.b, s.t), normal(s.v, s.c), normal(s.t, s.c))
    return Case(inputs, both("embedding", run), lambda tokens, wte, wpe: (wte[tokens] + wpe,))


@operation("b t c v")
def embedding_backward(s):
    def index_add(tokens, dout, dwte, dwpe):
        dwte.index_add_(0, tokens.flatten(), dout.flatten(0, 1).float())
        return dwte, dwpe.add_(dout.sum(0, dtype=dwpe.dtype))

    def dense(tokens, dout, dwte, dwpe):
        dwte.add_(aten.embedding_dense_backward(dout.float(), tokens, s.v, -1, False))
        return dwte, dwpe.add_(dout.sum(0, dtype=dwpe.dtype))

    def formula(tokens, dout, dwte, dwpe):
        return dwte + F.one_hot(tokens.flatten(), s.v).double().T @ dout.flatten(0, 1), dwpe + dout.sum(0)

    inputs = lambda: (integers(s.v, s.b, s.t), normal(s.b, s.t, s.c), f32(s.v, s.c), f32(s.t, s.c))
    return Case(inputs, both("index_add_", index_add) + [eager("embedding_dense_backward", dense)], formula)


def layernorm_formula(x, weight, bias):
    mean = x.mean(-1, keepdim=True)
    rstd = ((x - mean).square().mean(-1, keepdim=True) + EPS).rsqrt()
    return (x - mean) * rstd * weight + bias, mean, rstd


@operation("n c")
def layernorm_forward(s):
    run = lambda x, weight, bias: aten.native_layer_norm(x, (s.c,), weight, bias, EPS)
    return Case(lambda: (normal(s.n, s.c), normal(s.c), normal(s.c)), both("layer_norm", run), layernorm_formula)


@operation("n c")
def residual_layernorm_forward(s):
    def run(x, residual, weight, bias):
        total = x + residual
        return (total, *aten.native_layer_norm(total, (s.c,), weight, bias, EPS))

    formula = lambda x, residual, *affine: (x + residual, *layernorm_formula(x + residual, *affine))
    inputs = lambda: (normal(s.n, s.c), normal(s.n, s.c), normal(s.c), normal(s.c))
    return Case(inputs, both("add, layer_norm", run), formula)


@operation("n c", "overwrite accumulate")
def layernorm_backward(s):
    def inputs():
        x, weight, bias = normal(s.n, s.c), normal(s.c), normal(s.c)
        _, mean, rstd = aten.native_layer_norm(x, (s.c,), weight, bias, EPS)
        return normal(s.n, s.c), x, weight, bias, mean, rstd, normal(s.n, s.c)

    def run(dout, x, weight, bias, mean, rstd, dx):
        grads = aten.native_layer_norm_backward(dout, x, (s.c,), mean, rstd, weight, bias, (True, True, True))
        return grads if s.variant == "overwrite" else (dx.add_(grads[0]), *grads[1:])

    def formula(dout, x, weight, bias, mean, rstd, dx):
        xhat, g = (x - mean) * rstd, dout * weight
        new = rstd * (g - g.mean(-1, keepdim=True) - xhat * (g * xhat).mean(-1, keepdim=True))
        return new if s.variant == "overwrite" else dx + new, (dout * xhat).sum(0), dout.sum(0)

    return Case(inputs, both("layer_norm backward", run), formula)


def gelu_formula(x):
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


def dgelu_formula(x):
    k, tanh = math.sqrt(2 / math.pi), (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh()
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * k * (1 + 3 * 0.044715 * x**2)


@operation("n c")
def gelu_forward(s):
    run = lambda x: (F.gelu(x, approximate="tanh"),)
    return Case(lambda: (normal(s.n, s.c),), both("gelu", run), lambda x: (gelu_formula(x),))


@operation("n c oc", "none bias bias_gelu bias_residual")
def matmul_forward(s):
    def run(x, weight, bias, residual):
        y = F.linear(x, weight, bias)
        if s.variant == "bias_gelu":
            return y, F.gelu(y, approximate="tanh")
        return (y if residual is None else residual + y,)

    def formula(x, weight, bias, residual):
        y = x @ weight.T + sum(x for x in (bias, residual) if x is not None)
        return (y, gelu_formula(y)) if s.variant == "bias_gelu" else (y,)

    def inputs():
        bias = None if s.variant == "none" else normal(s.oc)
        residual = normal(s.n, s.oc) if s.variant == "bias_residual" else None
        return normal(s.n, s.c), normal(s.oc, s.c) / math.sqrt(s.c), bias, residual

    return Case(inputs, both("linear", run), formula)


@operation("n c oc", "none dgelu")
def matmul_dgrad(s):
    def run(dout, weight, pre):
        dx = dout @ weight
        return (dx if pre is None else aten.gelu_backward(dx, pre, approximate="tanh"),)

    formula = lambda dout, weight, pre: (dout @ weight * (1 if pre is None else dgelu_formula(pre)),)
    pre = lambda: normal(s.n, s.c) if s.variant == "dgelu" else None
    inputs = lambda: (normal(s.n, s.oc), normal(s.oc, s.c) / math.sqrt(s.oc), pre())
    return Case(inputs, both("matmul", run), formula)


@operation("n c oc", "none bias")
def matmul_wgrad(s):
    def wgrad(add):
        def run(dout, x, dweight, dbias):
            add(dweight, dout.T, x)
            return dweight, dbias.add_(dout.sum(0, dtype=dbias.dtype)) if s.variant == "bias" else dbias

        return run

    def f32_sum(dweight, a, b):  # one GEMM with f32 accumulation into dweight
        if COMPUTE == torch.float32:
            return dweight.addmm_(a, b)
        return torch.addmm(dweight, a, b, out_dtype=torch.float32, out=dweight)

    def bf16_product(dweight, a, b):  # as autograd: a gradient of the weight's type, then the addition
        return dweight.add_(a @ b)

    def formula(dout, x, dweight, dbias):
        return dweight + dout.T @ x, dbias + dout.sum(0) if s.variant == "bias" else dbias

    inputs = lambda: (normal(s.n, s.oc), normal(s.n, s.c), f32(s.oc, s.c), f32(s.oc))
    return Case(inputs, [eager("addmm to f32", wgrad(f32_sum))] + both("matmul, add", wgrad(bf16_product)), formula)


def backends():
    return ("flash", "math") if DEVICE.type == "cpu" else ("flash", "cudnn", "efficient")


def attend(backend, q, k, v, causal=True):
    """SDPA of (B, T, NH, HS) with one backend; (B, T, C)."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    kinds = dict(flash="FLASH_ATTENTION", cudnn="CUDNN_ATTENTION", efficient="EFFICIENT_ATTENTION", math="MATH")
    with sdpa_kernel(getattr(SDPBackend, kinds[backend])):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


def attention_formula(q, k, v, causal=True):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    p = (scores.masked_fill(future, -math.inf) if causal else scores).exp()
    return (p / p.sum(-1, keepdim=True) @ v).transpose(1, 2).flatten(2)


@operation("b t nh hs")
def attention_forward(s):
    split = lambda qkv: qkv.view(s.b, s.t, 3, s.nh, s.hs).unbind(2)
    peers = [eager(f"sdpa {name}", lambda qkv, name=name: (attend(name, *split(qkv)),)) for name in backends()]
    return Case(lambda: (normal(s.b, s.t, 3 * s.nh * s.hs),), peers, lambda qkv: (attention_formula(*split(qkv)),))


@operation("b t nh hs")
def attention_backward(s):
    split = lambda qkv: qkv.view(s.b, s.t, 3, s.nh, s.hs).unbind(2)

    def packed(backend, qkv, dout):
        qkv = qkv.detach().requires_grad_()
        return attend(backend, *split(qkv)), (qkv,), dout

    def separate(backend, qkv, dout):
        leaves = [x.detach().requires_grad_() for x in split(qkv)]
        return attend(backend, *leaves), leaves, dout

    formula = lambda qkv, dout: torch.autograd.grad(attention_formula(*split(qkv.requires_grad_())), qkv, dout)
    run = lambda out, leaves, dout: torch.autograd.grad(out, leaves, dout, retain_graph=True)
    cat = lambda grads, inputs: (torch.stack(grads, 2).flatten(2),)
    peers = []
    for name in backends():
        peers.append(eager(f"sdpa {name} backward", run, prepare=functools.partial(packed, name)))
        peers.append(eager(f"sdpa {name} backward, separate", run, prepare=functools.partial(separate, name), view=cat))
    c = s.nh * s.hs
    return Case(lambda: (normal(s.b, s.t, 3 * c), normal(s.b, s.t, c)), peers, formula)


@operation("b t nh hs")
def kv_cache_store(s):
    c, positions = s.nh * s.hs, max(s.t, POSITIONS)

    def run(qkv, k_cache, v_cache):
        _, k, v = qkv.split(c, 2)
        k_cache[:, positions - s.t :], v_cache[:, positions - s.t :] = k, v
        return k_cache, v_cache

    def formula(qkv, *caches):
        return [torch.cat((cache[:, : positions - s.t], new), 1) for cache, new in zip(caches, qkv.split(c, 2)[1:])]

    inputs = lambda: (normal(s.b, s.t, 3 * c), normal(s.b, positions, c), normal(s.b, positions, c))
    return Case(inputs, both("slice copies", run), formula)


@operation("b t nh hs")
def attention_decode(s):
    c = s.nh * s.hs
    heads = lambda x: x.unflatten(2, (s.nh, s.hs))

    def run(backend, qkv, k_cache, v_cache):
        q, k, v = qkv.split(c, 2)
        k_cache[:, -1:], v_cache[:, -1:] = k, v
        return (attend(backend, heads(q), heads(k_cache), heads(v_cache), causal=False),)

    def formula(qkv, k_cache, v_cache):
        q, k, v = qkv.split(c, 2)
        k, v = torch.cat((k_cache[:, :-1], k), 1), torch.cat((v_cache[:, :-1], v), 1)
        return (attention_formula(heads(q), heads(k), heads(v), causal=False),)

    inputs = lambda: (normal(s.b, 1, 3 * c), normal(s.b, s.t, c), normal(s.b, s.t, c))
    return Case(inputs, [eager(f"sdpa {name}", functools.partial(run, name)) for name in backends()], formula)


def loss_inputs(s):
    return normal(s.n, padded(s.v)), integers(s.v, s.n)


def losses_formula(s, logits, targets):
    return logits[:, : s.v].exp().sum(1).log() - logits.gather(1, targets[:, None])[:, 0]


@operation("n v")
def cross_entropy_forward(s):
    run = lambda logits, targets: (F.cross_entropy(logits[:, : s.v].float(), targets, reduction="none"),)
    formula = lambda logits, targets: (losses_formula(s, logits, targets),)
    return Case(functools.partial(loss_inputs, s), both("cross_entropy", run), formula)


@operation("n v")
def cross_entropy_backward(s):
    def by_autograd():
        loss = compile_(lambda logits, targets: F.cross_entropy(logits[:, : s.v].float(), targets, reduction="none"))

        def run(logits, targets, scale):
            losses = loss(logits, targets)
            return losses.detach(), torch.autograd.grad(losses, logits, scale)[0]

        return run

    prepare = lambda x, targets: (x.detach().requires_grad_(), targets, torch.full((s.n,), 1 / s.n, device=DEVICE))

    def explicit(logits, targets):
        x = logits[:, : s.v].float()
        lse = x.logsumexp(1, keepdim=True)
        hit = torch.arange(s.v, device=x.device) == targets[:, None]
        dlogits = ((x - lse).exp() - hit.float()) / s.n
        return lse[:, 0] - x.gather(1, targets[:, None])[:, 0], F.pad(dlogits, (0, padded(s.v) - s.v)).to(logits.dtype)

    def formula(logits, targets):
        p = logits[:, : s.v].exp()
        dlogits = (p / p.sum(1, keepdim=True) - F.one_hot(targets, s.v)) / s.n
        return losses_formula(s, logits, targets), F.pad(dlogits, (0, padded(s.v) - s.v))

    autograd = Peer("torch.compile cross_entropy, autograd", by_autograd, prepare)
    return Case(functools.partial(loss_inputs, s), [autograd, compiled("softmax - one_hot", explicit)], formula)


@operation("n")
def loss_sum(s):
    run = lambda losses, total: (total.add_(losses.sum() / s.n),)
    formula = lambda losses, total: (total + losses.sum() / s.n,)
    return Case(lambda: (f32(s.n).square(), f32(1)), both("sum", run), formula)


@operation("b v")
def sample(s):
    softmax = lambda logits: logits[:, : s.v].float().softmax(1)
    draw = lambda logits: (torch.multinomial(softmax(logits), 1),)

    def race(logits):  # the index of the smallest exponential variate, with the probabilities as rates
        p = softmax(logits)
        return ((p / torch.empty_like(p).exponential_()).argmax(1, keepdim=True),)

    mean = lambda outputs, inputs: (inputs[0].double().gather(1, outputs[0]).mean(),)  # mean of the sampled logits
    formula = lambda logits: ((logits[:, : s.v].softmax(1) * logits[:, : s.v]).sum(1).mean(),)
    peers = [eager("softmax, multinomial", draw, view=mean), compiled("softmax, exponential race", race, view=mean)]
    return Case(lambda: (normal(s.b, padded(s.v)),), peers, formula, tolerance=5 / math.sqrt(s.b))


def pieces(flat):
    """Split into about as many tensors as a model has, each aligned to 512 bytes."""
    return flat.split(padded(-(-len(flat) // TENSORS)))


@operation("p")
def grad_norm(s):
    flat = lambda grad: (torch.linalg.vector_norm(grad),)
    many = lambda *grads: (torch.nn.utils.get_total_norm(grads),)
    peers = both("vector_norm, one tensor", flat)
    peers.append(eager(f"get_total_norm, {TENSORS} tensors", many, prepare=pieces))
    return Case(lambda: (f32(s.p),), peers, lambda grad: (grad.square().sum().sqrt(),))


@operation("p")
def adamw(s):
    def prepare(split, params, grads, weights):
        leaves = [torch.nn.Parameter(x) for x in split(params)]
        for leaf, grad in zip(leaves, split(grads)):
            leaf.grad = grad
        return torch.optim.AdamW(leaves, LR, BETAS, ADAM_EPS, DECAY, fused=True), params, weights

    def run(optimizer, params, weights):
        optimizer.step()
        return params, weights.copy_(params)

    def formula(params, grads, weights):
        new = params * (1 - LR * DECAY) - LR * grads / (grads.abs() + ADAM_EPS)  # the first step, with moments g and g²
        return new, new

    peers = [eager("fused AdamW, one tensor", run, prepare=functools.partial(prepare, lambda x: [x])),
             eager(f"fused AdamW, {TENSORS} tensors", run, prepare=functools.partial(prepare, pieces))]  # fmt: skip
    return Case(lambda: (f32(s.p), f32(s.p), normal(s.p)), peers, formula)


def gpt2(s, rows, vocab=None):
    """The model, with `rows` rows in the token table. Its loss is over the first `vocab` logits (default: all)."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(s.c), nn.LayerNorm(s.c)
            self.qkv, self.attn_proj = nn.Linear(s.c, 3 * s.c), nn.Linear(s.c, s.c)
            self.fc, self.fc_proj = nn.Linear(s.c, 4 * s.c), nn.Linear(4 * s.c, s.c)

        def forward(self, x):
            b, t, c = x.shape
            q, k, v = self.qkv(self.ln_1(x)).view(b, t, 3, s.nh, c // s.nh).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.attn_proj(attended.transpose(1, 2).reshape(b, t, c))
            return x + self.fc_proj(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))

    class Gpt2(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(rows, s.c), nn.Embedding(max(s.t, POSITIONS), s.c)
            self.blocks = nn.Sequential(*(Block() for _ in range(s.l)))
            self.ln_f = nn.LayerNorm(s.c)
            for p in self.parameters():
                if p.dim() == 2:
                    nn.init.normal_(p, std=0.02)

        def forward(self, tokens, targets):
            x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
            logits = F.linear(self.ln_f(self.blocks(x)), self.wte.weight)[..., :vocab]
            return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return Gpt2().to(DEVICE)


def gpt2_formula(s, w, tokens, targets):
    """The loss of the model with the weights `w`, a dictionary by name."""
    linear = lambda x, name: x @ w[name + ".weight"].T + w[name + ".bias"]
    norm = lambda x, name: layernorm_formula(x, w[name + ".weight"], w[name + ".bias"])[0]
    x = w["wte.weight"][tokens] + w["wpe.weight"][: s.t]
    for i in range(s.l):
        block = f"blocks.{i}."
        qkv = linear(norm(x, block + "ln_1"), block + "qkv").view(s.b, s.t, 3, s.nh, s.c // s.nh)
        x = x + linear(attention_formula(*qkv.unbind(2)), block + "attn_proj")
        x = x + linear(gelu_formula(linear(norm(x, block + "ln_2"), block + "fc")), block + "fc_proj")
    logits = norm(x, "ln_f") @ w["wte.weight"].T  # the loss is over all logits, as the model's
    return (logits.exp().sum(-1).log() - logits.gather(2, targets[..., None])[..., 0]).mean()


@operation("b t l c nh v")
def training_step(s):
    model = gpt2(s, padded(s.v))
    params = list(model.parameters())
    optimizer = torch.optim.AdamW(weight_decay_groups(params, DECAY), LR, BETAS, ADAM_EPS, fused=True)

    def step(loss_of, tokens, targets):
        with torch.autocast("cuda", torch.bfloat16, enabled=DEVICE.type == "cuda"):
            loss = loss_of(tokens, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        return loss.detach(), *(p.detach() for p in params)

    def formula(tokens, targets):
        w = {name: p.detach().double().requires_grad_() for name, p in model.named_parameters()}
        loss = gpt2_formula(s, w, tokens, targets)
        grads = torch.autograd.grad(loss, tuple(w.values()))
        clip = min(1.0, 1 / (math.sqrt(sum(g.square().sum().item() for g in grads)) + 1e-6))
        shrink = lambda p: 1 - LR * DECAY * (p.dim() >= 2)
        return loss, *(p * shrink(p) - LR * clip * g / (clip * g.abs() + ADAM_EPS) for p, g in zip(w.values(), grads))

    peers = [eager("step", functools.partial(step, model)),
             Peer("torch.compile step", lambda: functools.partial(step, compile_(model)))]  # fmt: skip
    return Case(lambda: (integers(s.v, s.b, s.t), integers(s.v, s.b, s.t)), peers, formula)
