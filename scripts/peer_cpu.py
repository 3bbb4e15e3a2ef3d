#!/usr/bin/env python3
"""Time a PyTorch f32 training step of GPT-2 on the CPU: the peer of `ironwarp train --device cpu`.

    python scripts/peer_cpu.py [--model gpt2-124M] [--batch 4] [--context 64] [--steps 10] [--compile] [--json]
    python scripts/peer_cpu.py --model tiny --steps 300 --rounds 5 --ironwarp target/release/ironwarp

A step is the same as ours: forward, mean cross-entropy over the full vocabulary, backward, gradient clipping to norm
1 and AdamW, all f32, from random weights on random tokens. Prints milliseconds and tokens per second for each step,
the median and the peak resident memory. Run it on an otherwise idle machine: it warns if the load average is above
0.5.

With --ironwarp, every round runs our program, eager PyTorch and compiled PyTorch one after another, with the same
shapes and number of threads. The table has the median of each round and the median of the rounds' ratios.

The model is that of peer_operations.py, a plain module that uses `F.scaled_dot_product_attention`, with PyTorch's
fused AdamW. --adamw foreach and --compile (torch.compile, which needs a C++ compiler) show whether other settings
would be faster.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import torch

import peer_operations
import peers

# Shape and vocabulary size of a preset.
MODELS = {
    "tiny": (SimpleNamespace(t=64, l=4, nh=4, c=128), 257),
    "gpt2-124M": (SimpleNamespace(t=1024, l=12, nh=12, c=768), 50257),
}
WARM_UP = 3
PAUSE = 1  # seconds between programs, in which PyTorch's threads fall asleep


def make_step(args, compiled):
    """A function that performs a step and returns its time in seconds."""
    shape, vocabulary = MODELS[args.model]
    peer_operations.POSITIONS = shape.t
    torch.manual_seed(0)
    model = peer_operations.gpt2(shape, vocabulary)
    groups = peer_operations.weight_decay_groups(list(model.parameters()), 0.1)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), **{args.adamw: True})
    loss_of = torch.compile(model) if compiled else model

    def step():
        tokens, targets = torch.randint(vocabulary, (2, args.batch, args.context))
        start = time.perf_counter()
        loss = loss_of(tokens, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        return time.perf_counter() - start

    return step


def measure(args, step):
    """Seconds of each timed step."""
    return [step() for _ in range(WARM_UP + args.steps)][WARM_UP:]


def measure_ours(args):
    """Seconds of each step of our program, without the first ones."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--model", args.model, "--batch", args.batch, "--context", args.context, "--threads", args.threads]
        flags += ["--steps", WARM_UP + args.steps, "--val-every", 0, "--save-every", 0, "--out", folder + "/run"]
        command = [args.ironwarp, "train", "--device", "cpu", "--json", *map(str, flags)]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    rates = [json.loads(line)["tokens_per_second"] for line in out.splitlines()]
    return [args.batch * args.context / rate for rate in rates[WARM_UP:]]


def take_turns(args):
    """Compares the three programs."""
    eager, compiled = make_step(args, False), make_step(args, True)
    measure(args, compiled)  # compiles, which takes a minute
    programs = {
        "ironwarp": lambda: measure_ours(args),
        "PyTorch eager": lambda: measure(args, eager),
        "torch.compile": lambda: measure(args, compiled),
    }
    rates = {name: [] for name in programs}
    for _ in range(args.rounds):
        for name, run in programs.items():
            time.sleep(PAUSE)
            rates[name].append(args.batch * args.context / statistics.median(run()))
    tokens = args.batch * args.context
    print(f"{args.model}, B = {args.batch}, T = {args.context} ({tokens} tokens), {args.threads} threads, torch "
          f"{torch.__version__}: median tokens/s of {args.steps} steps in each of {args.rounds} rounds")  # fmt: skip
    for name, values in rates.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates["ironwarp"], values))
        print(f"{name:14} {'  '.join(f'{value:8.0f}' for value in values)}   ironwarp is {ratio:.2f} times as fast")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="gpt2-124M", help="preset")
    parser.add_argument("--batch", type=int, default=4, help="sequences per step")
    parser.add_argument("--context", type=int, default=64, help="tokens per sequence, at most those of the preset")
    parser.add_argument("--steps", type=int, default=10, help=f"timed steps, after {WARM_UP} warm-up steps")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's threads")
    parser.add_argument("--adamw", choices=("fused", "foreach"), default="fused", help="implementation of AdamW")
    parser.add_argument("--compile", action="store_true", help="compile the model with torch.compile")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--ironwarp", metavar="PROGRAM", help="program to run in every round before PyTorch")
    parser.add_argument("--rounds", type=int, default=3, help="rounds with --ironwarp")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: load average is {load:.2f}; other work slows what is measured", file=sys.stderr)
    peers.keep_freed_memory()
    torch.set_num_threads(args.threads)
    if args.ironwarp:
        take_turns(args)
        return
    seconds = measure(args, make_step(args, args.compile))
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
