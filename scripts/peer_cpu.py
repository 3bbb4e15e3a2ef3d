#!/usr/bin/env python3
"""Time a PyTorch f32 training step of GPT-2 124M on the CPU: the peer of `ironwarp train --device cpu`.

    python scripts/peer_cpu.py [--batch 4] [--context 64] [--steps 10] [--threads 2] [--compile] [--json]

A step is the same as ours: forward, mean cross-entropy over the full vocabulary, backward, gradient clipping to norm
1 and AdamW, all f32, from random weights on random tokens. Prints milliseconds and tokens per second for each step,
the median and the peak resident memory. Run it on an otherwise idle machine: it warns if the load average is above
0.5.

The model is that of peer_operations.py, a plain module that uses `F.scaled_dot_product_attention`, with PyTorch's
fused AdamW. --adamw foreach and --compile (torch.compile, which needs a C++ compiler) show whether other settings
would be faster.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from types import SimpleNamespace

import torch

import peer_operations
import peers

SHAPE = SimpleNamespace(t=1024, l=12, nh=12, c=768)
VOCABULARY = 50257
WARM_UP = 3


def measure(args):
    """Seconds of each timed step."""
    torch.manual_seed(0)
    model = peer_operations.gpt2(SHAPE, VOCABULARY)
    groups = peer_operations.weight_decay_groups(list(model.parameters()), 0.1)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), **{args.adamw: True})
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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4, help="sequences per step")
    parser.add_argument("--context", type=int, default=64, help="tokens per sequence, at most 1024")
    parser.add_argument("--steps", type=int, default=10, help=f"timed steps, after {WARM_UP} warm-up steps")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's threads")
    parser.add_argument("--adamw", choices=("fused", "foreach"), default="fused", help="implementation of AdamW")
    parser.add_argument("--compile", action="store_true", help="compile the model with torch.compile")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: load average is {load:.2f}; other work slows what is measured", file=sys.stderr)
    peers.keep_freed_memory()
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
