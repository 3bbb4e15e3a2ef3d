#!/usr/bin/env python3
"""Time a PyTorch f32 training step of GPT-2 124M on the CPU: the peer of `ironwarp train --device cpu`.

    python scripts/peer_cpu.py [--batch 4] [--context 64] [--steps 10] [--threads 2] [--compile] [--json]

A step is what ours is: forward, mean cross-entropy over the full vocabulary, backward, gradient clipping to norm 1 and
AdamW, all f32, from random weights on random tokens. Prints seconds and tokens per second for each step, the median
and the peak resident memory. Run it on an otherwise idle machine: it warns when the load says that it is not.

The model is a plain module over `F.scaled_dot_product_attention`, with PyTorch's fused AdamW; --adamw foreach and
--compile (torch.compile, which needs a C++ compiler) are there to see that the peer is not held back.
"""

import argparse
import ctypes
import json
import os
import resource
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

VOCABULARY, CONTEXT, LAYERS, HEADS, CHANNELS = 50257, 1024, 12, 12, 768
WARM_UP = 3


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(CHANNELS), nn.LayerNorm(CHANNELS)
        self.qkv, self.attn_proj = nn.Linear(CHANNELS, 3 * CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.fc, self.fc_proj = nn.Linear(CHANNELS, 4 * CHANNELS), nn.Linear(4 * CHANNELS, CHANNELS)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(b, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_proj(attended.transpose(1, 2).reshape(b, t, c))
        return x + self.fc_proj(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, CHANNELS), nn.Embedding(CONTEXT, CHANNELS)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.ln_f = nn.LayerNorm(CHANNELS)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens, targets):
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        logits = F.linear(self.ln_f(self.blocks(x)), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def make_optimizer(model, kind):
    params = list(model.parameters())
    groups = [dict(params=[p for p in params if p.dim() >= 2], weight_decay=0.1),
              dict(params=[p for p in params if p.dim() < 2], weight_decay=0.0)]  # fmt: skip
    return torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), **{kind: True})


def measure(args):
    """Seconds of each timed step."""
    torch.manual_seed(0)
    model = Gpt2()
    optimizer = make_optimizer(model, args.adamw)
    loss_of = torch.compile(model) if args.compile else model
    seconds = []
    for _ in range(WARM_UP + args.steps):
        tokens, targets = torch.randint(VOCABULARY, (2, args.batch, args.context))
        start = time.perf_counter()
        loss = loss_of(tokens, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def keep_freed_memory():
    """Tell glibc to reuse large blocks: else each step maps and faults in its logits and gradients anew, a few percent."""
    m_trim_threshold, m_mmap_max = -1, -4
    libc = ctypes.CDLL(None)
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, -1)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4, help="sequences a step")
    parser.add_argument("--context", type=int, default=64, help="tokens a sequence, at most 1024")
    parser.add_argument("--steps", type=int, default=10, help=f"timed steps, after {WARM_UP} to warm up")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's threads")
    parser.add_argument("--adamw", choices=("fused", "foreach"), default="fused", help="PyTorch's AdamW to use")
    parser.add_argument("--compile", action="store_true", help="compile the model with torch.compile")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: load average is {load:.2f}; other work slows what is measured", file=sys.stderr)
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    seconds = measure(args)
    rates = [args.batch * args.context / s for s in seconds]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if args.json:
        result = vars(args) | dict(torch=torch.__version__, load=load, seconds=seconds, peak_rss_bytes=peak)
        result |= dict(median_seconds=statistics.median(seconds), median_tokens_per_second=statistics.median(rates))
        print(json.dumps(result))
        return
    for i, (s, rate) in enumerate(zip(seconds, rates)):
        print(f"step {i}: {s * 1e3:8.1f} ms  {rate:7.1f} tokens/s")
    print(f"median: {statistics.median(seconds) * 1e3:6.1f} ms  {statistics.median(rates):7.1f} tokens/s, "
          f"peak RSS {peak / 2**20:,.0f} MiB, torch {torch.__version__}, {args.threads} threads")  # fmt: skip


if __name__ == "__main__":
    main()
