#!/usr/bin/env python3
"""Compare the losses of two training runs step by step, and fail if they differ by more than rounding explains.

    scripts/compare-curves.py OURS.jsonl THEIRS.jsonl [--again THEIRS.jsonl] [--names ironwarp PyTorch] [--skip 10]
                              [--out DIR]

The files are the output of `ironwarp train --json`: one object per step, with step, loss and tokens_per_second.
Prints a table in Markdown; with --out, writes it to DIR/curves.md, and both curves to DIR/curves.svg. Speeds are
medians over the steps after the first --skip, which include warm-up and graph capture; losses are compared for all
steps. --again is a repetition of THEIRS with different rounding: the bounds are then at least three times the
difference of those two runs.

Exit status: 0 within the bounds, 1 outside, 2 if there is nothing to compare. BOUNDS explains the bounds;
docs/training.md has the measurements.
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

LAST = 50  # number of last steps whose mean loss is compared

# Bounds of relative differences. Before the first update, rounding to bf16 changes the loss by 1e-5 to 1e-4; different
# weights, batches or forward passes change it by more. Every update amplifies differences. PyTorch in f32 and under
# bf16 autocast differ by 8e-4 in the worst of 200 steps of `tiny`, and by 6e-6 in the mean of the last 50; the errors
# that docs/training.md lists cause 9e-4 to 3e-1 and 2e-4 to 5e-2.
BOUNDS = {"first": 5e-4, "any": 5e-3, "last": 2e-4}
NOISE = 3  # safety factor for the difference between two runs of the same training, which is a single sample

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 800, 500, 64, 16, 16, 48
COLOURS = ("#b33f1f", "#7fa8d1")  # distinguishable for the colour-blind and in greyscale


class NothingToCompare(Exception):
    pass


def read(path):
    """The records by step."""
    records = {}
    try:
        for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
            record = json.loads(line)
            records[record["step"]] = {name: record[name] for name in ("loss", "tokens_per_second")}
    except (OSError, UnicodeDecodeError) as error:
        raise NothingToCompare(f"{path}: {error}")
    except (ValueError, KeyError, TypeError) as error:
        raise NothingToCompare(f"{path}: line {number} is not a training step: {type(error).__name__}: {error}")
    return records


class Comparison:
    def __init__(self, ours, theirs, skip):
        self.steps = sorted(ours.keys() & theirs.keys())
        if not self.steps:
            raise NothingToCompare("no step is in both files")
        self.bounds = dict(BOUNDS)
        self.left_out = len(ours.keys() ^ theirs.keys())
        self.losses = [[records[step]["loss"] for step in self.steps] for records in (ours, theirs)]
        timed = self.steps[skip:] or self.steps
        speeds = ([records[step]["tokens_per_second"] for step in timed] for records in (ours, theirs))
        self.speeds = [statistics.median(values) for values in speeds]
        self.bad = next((step for step, *pair in zip(self.steps, *self.losses) if None in pair), None)
        if self.bad is not None:
            return
        differences = [abs(a - b) / abs(b) for a, b in zip(*self.losses)]
        self.means = [statistics.fmean(losses[-LAST:]) for losses in self.losses]
        worst = max(range(len(differences)), key=differences.__getitem__)
        self.worst_step = self.steps[worst]
        last = abs(self.means[0] - self.means[1]) / abs(self.means[1])
        self.differences = {"first": differences[0], "any": differences[worst], "last": last}

    def allow(self, noise):
        """Widens the bounds according to `noise`, a comparison of two runs of the same training."""
        if noise.bad is None:
            for name in ("any", "last"):
                self.bounds[name] = max(self.bounds[name], NOISE * noise.differences[name])

    def violations(self):
        """A text for each difference that exceeds its bound."""
        if self.bad is not None:
            return [f"the loss of step {self.bad} is not finite"]
        names = {"first": f"step {self.steps[0]}", "any": f"step {self.worst_step}",
                 "last": f"the last {min(LAST, len(self.steps))} steps"}  # fmt: skip
        return [f"the loss of {names[name]} differs by {difference:.1e}, more than {self.bounds[name]:.0e}"
                for name, difference in self.differences.items() if not difference <= self.bounds[name]]  # fmt: skip

    def table(self, names):
        (first, other), (ours, theirs) = names, self.losses
        speed = self.speeds[0] / self.speeds[1]
        lines = [f"| {len(self.steps)} steps | {first} | {other} | difference | bound |", "|---|--:|--:|--:|--:|"]
        if self.bad is None:
            bound = lambda name: f"{self.differences[name]:.1e} | {self.bounds[name]:.0e}"
            row = lambda what, a, b, name: f"| {what} | {a:.4f} | {b:.4f} | {bound(name)} |"
            worst = self.steps.index(self.worst_step)
            lines.append(row(f"loss of step {self.steps[0]}", ours[0], theirs[0], "first"))
            what = f"loss of step {self.worst_step}, the largest difference"
            lines.append(row(what, ours[worst], theirs[worst], "any"))
            lines.append(row(f"mean loss of the last {min(LAST, len(self.steps))}", *self.means, "last"))
        lines.append(f"| tokens/s, median | {self.speeds[0]:,.0f} | {self.speeds[1]:,.0f} | {speed:.3f} × | |")
        violations = self.violations()
        lines += ["", "Outside the bounds: " + "; ".join(violations) + "." if violations else "Within the bounds."]
        if self.left_out:
            lines.append(f"{self.left_out} steps are in only one of the files.")
        return "\n".join(lines) + "\n"


def ticks(low, high, count):
    """Round numbers from `low` to `high`, about `count`."""
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    unit *= next(factor for factor in (1, 2, 5, 10) if factor * unit >= rough)
    return [unit * i for i in range(math.ceil(low / unit), math.floor(high / unit) + 1)]


def drawing(steps, losses, names):
    """Both curves as SVG, with gaps where losses are not finite."""
    known = [loss for curve in losses for loss in curve if loss is not None] or [0.0]
    low, high = min(known), max(known)
    margin = 0.05 * (high - low) or 0.5
    low, high, last = low - margin, high + margin, max(steps[-1], 1)
    x = lambda step: LEFT + (WIDTH - LEFT - RIGHT) * step / last
    y = lambda loss: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (loss - low) / (high - low)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    parts = [head + ' font-family="sans-serif" font-size="13">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']  # fmt: skip
    for tick in ticks(low, high, 6):
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in ticks(0, last, 8):
        parts.append(f'<path d="M{x(tick):.1f} {bottom}v5" stroke="black"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 20}" text-anchor="middle">{tick:.4g}</text>')
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" stroke="black" fill="none"/>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">step</text>')
    middle = (TOP + bottom) / 2
    turned = f'transform="translate(16 {middle}) rotate(-90)"'
    parts.append(f'<text {turned} text-anchor="middle">loss (nats a token)</text>')
    # OURS is drawn as a thin line on top of a thick one, so that both are visible where they agree.
    for i in (1, 0):
        path, pen = [], "M"
        for step, loss in zip(steps, losses[i]):
            if loss is not None:
                path.append(f"{pen}{x(step):.1f} {y(loss):.1f}")
            pen = "M" if loss is None else "L"
        stroke = f'stroke="{COLOURS[i]}" stroke-width="{1 + 3 * i}"'
        parts.append(f'<path d="{"".join(path)}" fill="none" {stroke}/>')
        at = TOP + 20 * (i + 1)
        parts.append(f'<path d="M{right - 150} {at}h24" {stroke}/>')
        parts.append(f'<text x="{right - 118}" y="{at + 4}">{escaped(names[i])}</text>')
    return "\n".join(parts + ["</svg>", ""])


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ours", metavar="OURS")
    parser.add_argument("theirs", metavar="THEIRS")
    parser.add_argument("--again", metavar="THEIRS", help="THEIRS repeated with different rounding, for its noise")
    parser.add_argument("--names", nargs=2, default=("ironwarp", "PyTorch"), metavar="NAME")
    parser.add_argument("--skip", type=int, default=10, help="number of first steps that the speeds leave out")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for curves.md and curves.svg")
    args = parser.parse_args()
    if args.skip < 0:
        parser.error("--skip is negative")
    try:
        theirs = read(args.theirs)
        comparison = Comparison(read(args.ours), theirs, args.skip)
        if args.again:
            comparison.allow(Comparison(read(args.again), theirs, args.skip))
    except NothingToCompare as error:
        print(f"compare-curves: {error}", file=sys.stderr)
        sys.exit(2)
    table = comparison.table(args.names)
    print(table, end="")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "curves.md").write_text(table, "utf-8")
        (args.out / "curves.svg").write_text(drawing(comparison.steps, comparison.losses, args.names), "utf-8")
    sys.exit(1 if comparison.violations() else 0)


if __name__ == "__main__":
    main()
