#!/usr/bin/env python3
"""Time PyTorch's implementations of our operations, standalone or as the child process of a benchmark (--serve).

    python scripts/peers.py [OP ...] [--device cpu|cuda[:i]] [--model gpt2-124M] [--tokens N] [--ms 200]
                            [--shape n=1024,c=768,variant=bias] [--threads N] [--no-compile] [--json]
    python scripts/peers.py --serve --device cuda
    python scripts/peers.py --self-test [OP ...]

Needs PyTorch and, for the compiled peers, what torch.compile needs: Triton on a GPU, a C++ compiler on the CPU. The
peers are defined in peer_operations.py in the same folder. Standalone, it prints one row per peer at GPT-2's shapes;
training_step is measured on the CPU only if it is named. --self-test compares every peer with a formula in float64.

With --serve, it speaks JSON lines. The first line of output is {"ready": true, "torch", "device", "cuda", "threads"},
or {"ready": false, "why"}. Each line of input is a request {"op", "shape", "ms"}. The response is one line {"op",
"shape", "peer", "median_us", "p10_us", "p90_us", "samples"} or {"op", "shape", "peer", "absent": "why"} per peer, or
one {"error"}, and then {"done": true}. Inputs and compiled peers are kept for the next request, which reuses them if
it has the same shape.

How times are measured:
  - GPU: between two events, after overwriting L2. Enough work is enqueued before the first event to hide Python's
    launch overhead, up to about a millisecond. CPU: wall time, with warm caches.
  - Activations and weights are bf16 on a GPU and f32 on the CPU; losses, weight gradients and the optimizer are f32.
  - Consecutive runs use different inputs on a GPU, the same inputs on the CPU. Compilation and warm-up are not
    counted.
"""

import argparse
import ctypes
import gc
import json
import math
import os
import signal
import statistics
import sys
import time
from types import SimpleNamespace

WARM_UP_RUNS, WARM_UP_S, MAX_SAMPLES, MAX_SETS, MAX_FILLS = 3, 0.025, 1000, 8, 32
NO_PYTORCH = 3
VOCAB, POSITIONS = 50257, 1024
MODELS = {"gpt2-124M": (768, 12, 12), "gpt2-355M": (1024, 16, 24), "gpt2-774M": (1280, 20, 36),
          "gpt2-1558M": (1600, 25, 48)}  # fmt: skip
TOKENS = {"gpt2-124M": 65536, "gpt2-355M": 32768, "gpt2-774M": 16384, "gpt2-1558M": 16384}  # on a GPU
CPU_TOKENS = 256
TINY = dict(b=2, t=7, nh=2, hs=8, c=16, oc=24, n=5, v=50, l=2, p=1000)

torch = operations = None  # imported by load(), so that a machine without PyTorch gets a one-line message


class Absent(Exception):
    """PyTorch cannot be used; the message says why."""


class BadRequest(Exception):
    pass


# Timing


class Cpu:
    min_samples, min_sets, cache_bytes = 3, 1, 0

    def sample(self, run, inputs, hidden_s):
        start = time.perf_counter()
        run(*inputs)
        return (time.perf_counter() - start) * 1e6

    def wait(self):
        pass


class Gpu:
    min_samples, min_sets = 10, 2

    def __init__(self, device):
        self.cache_bytes = 2 * torch.cuda.get_device_properties(device).L2_cache_size
        self.flush = torch.empty(self.cache_bytes, dtype=torch.uint8, device=device)
        self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        fill = lambda: self.flush.fill_(1)
        self.fill_s = 1e-6 * statistics.median(self.sample(fill, (), 0.0) for _ in range(10))

    def sample(self, run, inputs, hidden_s):
        """Microseconds of one run. Fills of L2 that take `hidden_s` precede it; meanwhile Python enqueues the run."""
        for _ in range(min(1 + math.ceil(hidden_s / self.fill_s) if hidden_s else 1, MAX_FILLS)):
            self.flush.fill_(1)
        self.start.record()
        run(*inputs)
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end) * 1e3

    def wait(self):
        torch.cuda.synchronize()


def size_of(inputs):
    return sum(x.nbytes for x in inputs if isinstance(x, torch.Tensor))


def input_sets(case, clock):
    """Sets of inputs to use in rotation, so that a set has left L2 before its reuse; fewer if memory runs out."""
    sets = [case.inputs()]
    count = clock.cache_bytes // max(size_of(sets[0]), 1)
    try:
        while len(sets) < min(max(count, clock.min_sets), MAX_SETS):
            sets.append(case.inputs())
    except torch.cuda.OutOfMemoryError:
        pass
    return sets


def measure(peer, run, sets, clock, ms):
    """Microseconds of each sample."""
    prepared = [peer.prepare(*inputs) for inputs in sets]
    run(*prepared[0])  # the first run compiles
    start, runs, queueing = time.perf_counter(), 0, []
    while runs < WARM_UP_RUNS or time.perf_counter() - start < WARM_UP_S:
        clock.wait()
        before = time.perf_counter()
        run(*prepared[runs % len(sets)])
        queueing.append(time.perf_counter() - before)
        runs += 1
    clock.wait()
    hidden_s, samples, start = 1.5 * statistics.median(queueing), [], time.perf_counter()
    while len(samples) < MAX_SAMPLES:
        samples.append(clock.sample(run, prepared[(runs + len(samples)) % len(sets)], hidden_s))
        if len(samples) >= clock.min_samples and time.perf_counter() - start >= ms / 1e3:
            break
    return samples


def one_line(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:240]


class Bench:
    """Measures peers; keeps the inputs and the compiled peers of the last request."""

    def __init__(self, device, with_compiled=True):
        self.clock = Gpu(device) if device.type == "cuda" else Cpu()
        self.with_compiled = with_compiled
        self.forget()

    def forget(self):
        self.key = self.case = self.sets = None
        self.runs = {}
        collect()
        torch.compiler.reset()

    def build(self, op, shape):
        """Create the case and its inputs, unless it is the last one. Returns an error message, or None."""
        key = (op, tuple(sorted(shape.items())))
        if key == self.key:
            return None
        self.forget()
        torch.manual_seed(0)
        try:
            self.case = operations.OPERATIONS[op].case(SimpleNamespace(**shape))
            self.sets = input_sets(self.case, self.clock)
        except Exception as error:
            why = one_line(error)  # not the exception, which would keep tensors alive
        else:
            self.key, why = key, None
        return why

    def times(self, peer, ms):
        if peer.name not in self.runs:
            self.runs[peer.name] = peer.make()
        try:
            return measure(peer, self.runs[peer.name], self.sets, self.clock, ms)
        except torch.cuda.OutOfMemoryError:
            if len(self.sets) == 1:
                raise
        del self.sets[1:]
        collect()
        return measure(peer, self.runs[peer.name], self.sets, self.clock, ms)

    def rows(self, op, shape, ms):
        """Yields one row per peer. An exception of a peer becomes a row with `absent`."""
        header = dict(op=op, shape=shape)
        if op not in operations.OPERATIONS:
            yield dict(header, peer="torch", absent=f"no peer for {op}")
            return
        absent = self.build(op, shape)
        if absent:
            yield dict(header, peer="torch", absent=absent)
            return
        for peer in self.case.peers:
            if peer.name.startswith("torch.compile") and not self.with_compiled:
                continue
            try:
                samples = self.times(peer, ms)
                row = dict(summary(samples), samples=len(samples))
            except Exception as error:
                row = dict(absent=one_line(error))
            collect()
            yield dict(header, peer=peer.name, **row)


def summary(samples):
    tenths = statistics.quantiles(samples, n=10, method="inclusive")
    values = dict(median_us=statistics.median(samples), p10_us=tenths[0], p90_us=tenths[8])
    return {name: round(value, 3) for name, value in values.items()}


def collect():
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# Requests


def checked_shape(op, shape):
    """Check a shape of `op`, and add the default variant. An unknown operation is no error here: it gets a row."""
    if not isinstance(shape, dict):
        raise BadRequest(f"{op}: shape is not an object: {shape!r}")
    if op not in operations.OPERATIONS:
        return shape
    sizes, variants = operations.OPERATIONS[op].sizes, operations.OPERATIONS[op].variants
    shape = dict(shape)
    variant = shape.pop("variant", variants[0] if variants else None)
    if variant is not None and variant not in variants:
        raise BadRequest(f"{op}: unknown variant {variant!r}; expected one of: {', '.join(variants) or 'none'}")
    if set(shape) != set(sizes):
        raise BadRequest(f"{op}: expected the sizes {', '.join(sizes)}, got {', '.join(shape) or 'none'}")
    for name, size in shape.items():
        if type(size) is not int or size < 1:
            raise BadRequest(f"{op}: {name} = {size!r} is not a positive integer")
    return dict(shape, variant=variant) if variants else shape


def reject_constant(name):
    raise ValueError(f"{name} is not a number")


def parse_request(line):
    try:
        request = json.loads(line, parse_constant=reject_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"not JSON: {error}")
    if not isinstance(request, dict) or not isinstance(request.get("op"), str):
        raise BadRequest('not a request: expected an object with "op", "shape" and "ms"')
    ms = request.get("ms", 200)
    if type(ms) not in (int, float) or not 0 <= ms < math.inf:
        raise BadRequest(f"{request['op']}: ms = {ms!r} is not a duration")
    return request["op"], checked_shape(request["op"], request.get("shape")), ms


def exclusive_stdout():
    """Returns stdout for results only, and redirects what compilers and libraries print to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


def serve(args):
    out = exclusive_stdout()

    def say(**message):
        print(json.dumps(message), file=out, flush=True)

    try:
        device = load(args)
        bench = Bench(device)
    except Exception as error:
        say(ready=False, why=str(error) if isinstance(error, Absent) else one_line(error))
        return
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    threads = torch.get_num_threads()
    say(ready=True, torch=torch.__version__, device=name, cuda=torch.version.cuda, threads=threads)
    sys.stdin.reconfigure(errors="replace")
    for line in sys.stdin:
        try:
            for row in bench.rows(*parse_request(line)):
                say(**row)
        except BadRequest as error:
            say(error=str(error))
        say(done=True)


# Standalone


def load(args):
    """Import PyTorch and return the device."""
    global torch, operations
    try:
        import torch
    except Exception as error:
        raise Absent(f"PyTorch cannot be imported: {one_line(error)}")
    try:
        device = torch.device(args.device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise Absent(f"no device {args.device}: {one_line(error)}")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        device = torch.device("cuda", device.index or 0)
        if device.index >= count:
            raise Absent(f"torch {torch.__version__} has no {device}: it sees {count} GPUs")
        torch.cuda.set_device(device)
    elif device.type == "cpu":
        keep_freed_memory()
    else:
        raise Absent(f"no peers on {device}: cpu and cuda have them")
    if args.threads:
        torch.set_num_threads(args.threads)
    import peer_operations as operations

    operations.use(device)
    return device


def keep_freed_memory():
    """Make glibc reuse large blocks. Otherwise each run maps new pages for its results, which our backend does not."""
    m_trim_threshold, m_mmap_max = -1, -4
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return  # not glibc
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, -1)


def gpt2_shapes(model, tokens):
    """The shapes of each operation in a model."""
    c, nh, l = MODELS[model]
    t = min(POSITIONS, tokens)
    b, hs, v = tokens // t, c // nh, VOCAB
    n, vp, few = b * t, operations.padded(VOCAB), min(b, 8)
    p = vp * c + POSITIONS * c + l * (12 * c * c + 13 * c) + 2 * c
    matmuls = dict(qkv=(c, 3 * c), proj=(c, c), fc=(c, 4 * c), fc_proj=(4 * c, c), head=(c, vp))
    epilogues = dict(qkv="bias", proj="bias_residual", fc="bias_gelu", fc_proj="bias_residual")

    def matmul_shapes(variant_of):
        return [dict(n=n, c=i, oc=o, variant=variant_of(name)) for name, (i, o) in matmuls.items()]

    embedding, rows = [dict(b=b, t=t, c=c, v=v)], [dict(n=n, c=c)]
    heads, loss = [dict(b=b, t=t, nh=nh, hs=hs)], [dict(n=n, v=v)]
    few_heads = [dict(b=few, t=t, nh=nh, hs=hs)]
    return dict(
        embedding_forward=embedding, embedding_backward=embedding,
        layernorm_forward=rows, residual_layernorm_forward=rows,
        layernorm_backward=[dict(rows[0], variant=variant) for variant in ("overwrite", "accumulate")],
        gelu_forward=[dict(n=n, c=4 * c)],
        matmul_forward=matmul_shapes(lambda name: epilogues.get(name, "none")),
        matmul_dgrad=matmul_shapes(lambda name: "dgelu" if name == "fc_proj" else "none"),
        matmul_wgrad=matmul_shapes(lambda name: "none" if name == "head" else "bias"),
        attention_forward=heads, attention_backward=heads,
        kv_cache_store=few_heads, attention_decode=few_heads,
        cross_entropy_forward=loss, cross_entropy_backward=loss, loss_sum=[dict(n=n)],
        grad_norm=[dict(p=p)], adamw=[dict(p=p)], sample=[dict(b=few, v=v)],
        training_step=[dict(b=b, t=t, l=l, c=c, nh=nh, v=v)],
    )  # fmt: skip


def text(shape):
    return ",".join(f"{name}={size}" for name, size in shape.items())


def parse_shape(given):
    pairs = [pair.partition("=") for pair in given.split(",")]
    return {name.strip(): int(size) if size.strip().isdecimal() else size.strip() for name, _, size in pairs}


def print_table(args, device):
    if device.type == "cpu" and os.getloadavg()[0] > 0.5:
        print(f"warning: load average is {os.getloadavg()[0]:.2f}; other work slows what is measured", file=sys.stderr)
    bench = Bench(device, not args.no_compile)
    ops = args.ops or [op for op in operations.OPERATIONS if (op, device.type) != ("training_step", "cpu")]
    tokens = args.tokens or (CPU_TOKENS if device.type == "cpu" else TOKENS[args.model])
    shapes = gpt2_shapes(args.model, tokens)
    if args.shape:
        shapes = {op: [checked_shape(op, parse_shape(args.shape))] for op in ops}
    out = exclusive_stdout()
    if not args.json:
        print(f"{'op':26} {'shape':46} {'peer':44} {'median µs':>12}  p10–p90", file=out, flush=True)
    for op in ops:
        for row in (row for shape in shapes[op] for row in bench.rows(op, shape, args.ms)):
            if args.json:
                print(json.dumps(row), file=out, flush=True)
                continue
            result = f"{'absent':>12}  {row['absent']}" if "absent" in row else (
                f"{row['median_us']:12,.1f}  {row['p10_us']:,.1f}–{row['p90_us']:,.1f}")  # fmt: skip
            print(f"{op:26} {text(row['shape']):46} {row['peer']:44} {result}", file=out, flush=True)


# Self-test


def self_test(args):
    """Compare every peer with its formula at a tiny shape. Returns the number of failures."""
    failures = 0
    for op in args.ops or operations.OPERATIONS:
        _, sizes, variants = operations.OPERATIONS[op]
        for variant in variants or (None,):
            shape = {name: TINY[name] for name in sizes} | ({"variant": variant} if variants else {})
            if op == "sample":
                shape["b"] = 4096  # enough random draws
            count = len(operations.OPERATIONS[op].case(SimpleNamespace(**shape)).peers)
            for i in range(count):
                failures += not peer_agrees(op, shape, i, not args.no_compile)
                torch.compiler.reset()
    return failures


def peer_agrees(op, shape, i, with_compiled):
    torch.manual_seed(1)
    case = operations.OPERATIONS[op].case(SimpleNamespace(**shape))
    peer = case.peers[i]
    if peer.name.startswith("torch.compile") and not with_compiled:
        return True
    inputs = case.inputs()
    exact = lambda x: x.double().clone() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
    # The formula is computed first, because peers may write to their inputs.
    expected = case.formula(*map(exact, inputs))
    tolerance = case.tolerance or (2e-5 if operations.COMPUTE == torch.float32 else 2e-2)
    try:
        outputs = peer.view(peer.make()(*peer.prepare(*inputs)), inputs)
        if len(outputs) != len(expected):
            raise ValueError(f"{len(outputs)} outputs, expected {len(expected)}")
        error = max(relative_error(got, want) for got, want in zip(outputs, expected) if want is not None)
    except Exception as error:
        print(f"FAILED {op} {text(shape)} {peer.name}: {one_line(error)}")
        return False
    agrees = error <= tolerance
    result = "ok    " if agrees else "FAILED"
    print(f"{result} {op} {text(shape)} {peer.name}: error {error:.1e}, tolerance {tolerance:.1e}")
    return agrees


def relative_error(got, want):
    """Relative error in the L2 norm; infinite if there is a NaN or the shapes differ."""
    if got.shape != want.shape:
        return math.inf
    error = ((got.double() - want).norm() / want.norm()).item()
    return error if math.isfinite(error) else math.inf


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ops", nargs="*", metavar="OP", help="operations (default: all)")
    parser.add_argument("--serve", action="store_true", help="answer requests in JSON lines")
    parser.add_argument("--self-test", action="store_true", help="compare every peer with a formula in float64")
    parser.add_argument("--device", help="cpu, cuda or cuda:i (default: a GPU if available)")
    parser.add_argument("--model", choices=MODELS, default="gpt2-124M", help="model whose shapes to time")
    parser.add_argument("--tokens", type=int, help="B·T of those shapes")
    parser.add_argument("--ms", type=float, default=200, help="milliseconds to sample for")
    parser.add_argument("--shape", help="time this shape of the named operations, as n=1024,c=768")
    parser.add_argument("--threads", type=int, help="PyTorch's threads on the CPU")
    parser.add_argument("--no-compile", action="store_true", help="skip the peers that use torch.compile")
    parser.add_argument("--json", action="store_true", help="print JSON rows instead of a table")
    args = parser.parse_args()
    if args.shape and not args.ops:
        parser.error("--shape requires the names of operations")
    for name in ("tokens", "threads"):
        if (getattr(args, name) or 1) < 1:
            parser.error(f"--{name} must be positive")
    if not 0 <= args.ms < math.inf:
        parser.error("--ms must be a non-negative number")
    return args


def main():
    args = parse_arguments()
    if args.serve:
        return serve(args)
    if args.self_test:
        args.device = args.device or "cpu"
    try:
        device = load(args)
        unknown = [op for op in args.ops if op not in operations.OPERATIONS]
        if unknown:
            sys.exit(f"peers: no peer for {', '.join(unknown)}; expected one of: {', '.join(operations.OPERATIONS)}")
        if args.self_test:
            sys.exit(1 if self_test(args) else 0)
        print_table(args, device)
    except (Absent, BadRequest) as error:
        print(f"peers: {error}", file=sys.stderr)
        sys.exit(NO_PYTORCH if isinstance(error, Absent) else 2)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)
    except BrokenPipeError:
        os._exit(0)  # the reader has closed the pipe
