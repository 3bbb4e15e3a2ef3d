#!/usr/bin/env python3
"""Repeat a run of `ironwarp train` in PyTorch, with the same initial weights, batches, schedule and optimizer.

    ironwarp tokenize TEXT --out DATA
    ironwarp train --data DATA/TEXT_train_000000.bin --order sequential --save-every 0 --out RUN --steps 0 ...
    ironwarp train --resume --out RUN --steps 200
    python scripts/peer_training.py RUN --out torch.jsonl [--device cpu|cuda[:i]] [--precision f32|bf16]
                                    [--micro-batch N] [--threads N] [--no-compile]
    python scripts/compare-curves.py RUN/metrics.jsonl torch.jsonl

The initial weights are those of RUN's checkpoint of step 0; all settings are those of its newest checkpoint. Writes the
same format as `ironwarp train --json`: one JSON object per step with step, loss, lr, grad_norm, tokens_per_second.

The model is that of peer_operations.py: f32 weights, on a GPU with bf16 autocast, with torch.compile if it works, and
with fused AdamW. A micro-batch that does not fit in memory is halved; the gradients are still those of the whole batch.
Compilation precedes the first step. Exit status: 0 success, 1 failure, 2 the run cannot be repeated, 3 no PyTorch.
"""

import argparse
import json
import math
import mmap
import struct
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import peers

SHARD_MAGIC, SHARD_VERSION, SHARD_HEADER = 20240520, 1, 1024

torch = operations = None  # set by main() after peers.load() has imported PyTorch


class BadRun(Exception):
    """The run cannot be repeated; the message says why."""


# The run


def read_json(path):
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadRun(f"{path}: {error}")


def read_run(run):
    """The folder of the first checkpoint, and the state of the newest one."""
    steps = sorted((run / "checkpoints").glob("step-*"))
    first = run / "checkpoints" / "step-00000000"
    if first not in steps:
        raise BadRun(f"{run}: no checkpoint of step 0: start it with --steps 0, continue it with --resume --steps N")
    state = read_json(steps[-1] / "state.json")
    settings, optimizer = state["settings"], state["settings"]["optimizer"]
    data = settings["data"]
    if settings["order"] != "sequential" or len(data) != 1 or not data[0].endswith(".bin"):
        raise BadRun(f"{run}: only runs with --order sequential and --data of one token shard can be repeated, not "
                     f"{settings['order']} of {data}")  # fmt: skip
    for name in ("skip_loss_z", "skip_norm_z"):
        if optimizer[name] != 0:
            raise BadRun(f"{run}: skipping of steps is not supported: {name} = {optimizer[name]}")
    return first, state


def read_shard(path, count):
    """The first `count` tokens of a shard, which are the training tokens."""
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        raise BadRun(f"{path}: {error}")
    magic, version, length = struct.unpack_from("<3i", data)
    if (magic, version) != (SHARD_MAGIC, SHARD_VERSION) or len(data) != SHARD_HEADER + 2 * length or count > length:
        raise BadRun(f"{path}: not a shard of at least {count} tokens")
    return torch.frombuffer(data, dtype=torch.uint16, count=count, offset=SHARD_HEADER)


def read_weights(path):
    """The tensors of an f32 safetensors file, by our names."""
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", data)
    header, start = json.loads(data[8 : 8 + length]), 8 + length
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise BadRun(f"{path}: {name} is {entry['dtype']}, not F32")
        count, offset = math.prod(entry["shape"]), start + entry["data_offsets"][0]
        tensors[name] = torch.frombuffer(data, dtype=torch.float32, count=count, offset=offset).view(entry["shape"])
    return tensors


def our_name(name):
    """Our tensor's name for a parameter, and its block or None: `blocks.3.ln_1.weight` is block 3 of ln1_weight."""
    *block, module, kind = name.split(".")
    if module in ("wte", "wpe"):
        return module, None
    module = {"ln_1": "ln1", "ln_2": "ln2", "ln_f": "lnf"}.get(module, module)
    return f"{module}_{kind}", int(block[1]) if block else None


def load_weights(model, tensors):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            ours, block = our_name(name)
            value = tensors[ours] if block is None else tensors[ours][block]
            # The model may have more positions than the run; they are not used.
            parameter[: len(value)].copy_(value)


def make_batches(tokens, settings, device):
    """Inputs and targets of each step's micro-batches: B·T consecutive tokens, without the last few of an epoch."""
    b, t = settings["batch"], settings["context"]
    position = 0
    while True:
        batches = []
        for _ in range(settings["accumulate"]):
            if len(tokens) - position < b * t + 1:
                position = 0
            window = tokens[position : position + b * t + 1].to(torch.int64)
            if device.type == "cuda":
                window = window.pin_memory().to(device, non_blocking=True)
            batches.append((window[:-1].view(b, t), window[1:].view(b, t)))
            position += b * t
        yield batches


def learning_rate(schedule, step):
    """The schedule of src/train/schedule.rs; `step` counts from 0."""
    warmup, steps = schedule["warmup"], schedule["steps"]
    if step < warmup:
        return schedule["peak"] * (step + 1) / warmup
    past, span = step - warmup, max(steps - warmup, 1)
    x = min(past / span, 1.0)
    decay_steps = min(max(steps * schedule["wsd_fraction"], 1.0), span)
    left = dict(
        constant=1.0,
        linear=1.0 - x,
        cosine=0.5 * (1.0 + math.cos(math.pi * x)),
        wsd=1.0 - math.sqrt(min(max(past - (span - decay_steps), 0.0), decay_steps) / decay_steps),
    )[schedule["decay"]]
    return schedule["peak"] * (schedule["final_fraction"] + (1.0 - schedule["final_fraction"]) * left)


# The training


class Training:
    def __init__(self, state, tensors, device, args):
        self.settings = settings = state["settings"]
        self.device = device
        self.bf16 = (args.precision or ("bf16" if device.type == "cuda" else "f32")) == "bf16"
        self.rows = min(args.micro_batch or settings["batch"], settings["batch"])
        sizes, optimizer = settings["model"], settings["optimizer"]
        shape = dict(t=sizes["context"], v=sizes["vocab"], l=sizes["layers"], nh=sizes["heads"], c=sizes["channels"])
        self.model = operations.gpt2(SimpleNamespace(**shape), operations.padded(sizes["vocab"]), sizes["vocab"])
        load_weights(self.model, tensors)
        self.loss_of = self.model if args.no_compile else operations.compile_(self.model)
        self.params = list(self.model.parameters())
        groups = operations.weight_decay_groups(self.params, optimizer["weight_decay"])
        betas = optimizer["beta1"], optimizer["beta2"]
        self.optimizer = torch.optim.AdamW(groups, 0.0, betas, optimizer["eps"], fused=True)

    def gradients(self, batches):
        """Computes the gradients of the mean loss. Returns the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        count = len(batches) * self.settings["batch"]
        for tokens, targets in batches:
            for inputs, outputs in zip(tokens.split(self.rows), targets.split(self.rows)):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    loss = self.loss_of(inputs, outputs) * (len(inputs) / count)
                loss.backward()
                total += loss.detach()
        return total

    def prepare(self, batches):
        """Compiles the model, and finds the largest micro-batch that fits in memory."""
        while True:
            try:
                self.gradients(batches)
                return
            except torch.cuda.OutOfMemoryError as error:
                if self.rows == 1:
                    raise
                self.rows, why = self.rows // 2, peers.one_line(error)
                print(f"peer_training: {self.rows} sequences at a time: {why}", file=sys.stderr)
            except Exception as error:
                if self.loss_of is self.model:
                    raise
                self.loss_of, why = self.model, peers.one_line(error)
                print(f"peer_training: without torch.compile: {why}", file=sys.stderr)
            self.optimizer.zero_grad(set_to_none=True)
            peers.collect()

    def step(self, batches, rate):
        """Loss and gradient norm."""
        loss = self.gradients(batches)
        clip = self.settings["optimizer"]["grad_clip"] or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.params, clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return loss.item(), norm.item()  # waits for the device

    def run(self, tokens, out):
        settings, schedule = self.settings, self.settings["schedule"]
        self.prepare(next(make_batches(tokens, settings, self.device)))
        batches = make_batches(tokens, settings, self.device)
        step_tokens = settings["batch"] * settings["context"] * settings["accumulate"]
        finite = lambda x: x if math.isfinite(x) else None
        for step in range(schedule["steps"]):
            start, rate = time.perf_counter(), learning_rate(schedule, step)
            loss, norm = self.step(next(batches), rate)
            speed = step_tokens / (time.perf_counter() - start)
            record = dict(step=step + 1, loss=finite(loss), lr=rate, grad_norm=finite(norm), tokens_per_second=speed)
            print(json.dumps(record), file=out, flush=True)

    def __str__(self):
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        how = "compiled" if self.loss_of is not self.model else "not compiled"
        what = "bf16 autocast" if self.bf16 else "f32"
        return f"torch {torch.__version__} on {where}, {what}, {how}, {self.rows} sequences at a time"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run that was started with --steps 0")
    parser.add_argument("--out", type=Path, help="file for the steps (default: stdout)")
    parser.add_argument("--device", help="cpu, cuda or cuda:i (default: a GPU if available)")
    parser.add_argument("--precision", choices=("f32", "bf16"), help="f32 or bf16 autocast (default: bf16 on a GPU)")
    parser.add_argument("--steps", type=int, help="steps of the whole run, if its checkpoints do not say")
    parser.add_argument("--micro-batch", type=int, help="sequences at a time, at most those of the run")
    parser.add_argument("--threads", type=int, help="PyTorch's threads on the CPU")
    parser.add_argument("--no-compile", action="store_true", help="do not use torch.compile")
    args = parser.parse_args()
    for name in ("steps", "micro_batch", "threads"):
        if (getattr(args, name) or 1) < 1:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    return args


def main():
    global torch, operations
    args = parse_arguments()
    out = peers.exclusive_stdout()
    try:
        device = peers.load(args)
        torch, operations = peers.torch, peers.operations
        first, state = read_run(args.run)
        if args.steps:
            # An interrupted run may not have saved a checkpoint after step 0.
            state["settings"]["schedule"]["steps"] = args.steps
        tokens = read_shard(state["settings"]["data"][0], state["data_tokens"])
        training = Training(state, read_weights(first / "model.safetensors"), device, args)
        with open(args.out, "w") if args.out else out as file:
            training.run(tokens, file)
        print(f"peer_training: {training}", file=sys.stderr)
    except (peers.Absent, BadRun) as error:
        print(f"peer_training: {error}", file=sys.stderr)
        sys.exit(peers.NO_PYTORCH if isinstance(error, peers.Absent) else 2)
    except (OSError, RuntimeError, KeyError, ValueError, struct.error) as error:
        sys.exit(f"peer_training: {peers.one_line(error)}")


if __name__ == "__main__":
    main()
