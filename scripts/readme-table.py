#!/usr/bin/env python3
"""Write the table of README.md between <!-- performance --> and <!-- /performance --> from the newest results.

    scripts/readme-table.py [--check] [--results benches/results] [--readme README.md]

Results are the files that `ironwarp bench --save` writes. The newest has the latest `facts.date`; files without a date
count as older, and among equals the last by name is used. --check writes nothing, and fails if the README is not up to
date.
"""

import argparse
import difflib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPEN, CLOSE = "<!-- performance -->", "<!-- /performance -->"
NOTHING = """\
No kernel has been timed on a GPU yet. [docs/kernels.md](docs/kernels.md) has the figures that need
no GPU: bytes, sectors, bank conflicts, registers and occupancy of every operation, compared with
its floor. [docs/measured.md](docs/measured.md#kernels-on-a-gpu) has predicted times."""


class Unreadable(Exception):
    """A file does not have the format of `ironwarp bench --save`; the message names it."""


def newest(folder):
    """Path and content of the newest results; None if there are none."""
    read = {}
    for path in folder.glob("*.json"):
        try:
            read[path] = json.loads(path.read_text("utf-8"))
            read[path]["facts"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unreadable(f"{path}: {error!r}") from error
    return max(read.items(), key=lambda item: (item[1]["facts"].get("date", ""), item[0].name), default=None)


def figures(value):
    """Three significant digits, and all digits before the decimal point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def problem(row):
    sizes = (value if key == "variant" else f"{key}={value}" for key, value in row["shape"].items())
    return " ".join([f"`{row['op']}`", *map(str, sizes)])


def rate(row):
    gigabytes = row["bound"] == "memory"
    return f"{figures(row['gb_per_s'])} GB/s" if gigabytes else f"{figures(row['tflop_per_s'])} TFLOP/s"


def best_peer(row):
    """The fastest peer, and its time divided by ours."""
    timed = [peer for peer in row["peers"] if "median_us" in peer]
    if not timed:
        return "–"
    peer = min(timed, key=lambda peer: peer["median_us"])
    return f"{peer['peer']}, {peer['ratio']:.2f}×".replace("|", "\\|")


def caption(results, name):
    facts, ceilings = results["facts"], results["ceilings"]
    where = [facts["device"], f"commit {facts['commit']}"]
    where += [f"{key} {facts[key]}" for key in ("driver", "date") if key in facts]
    return [
        f"{', '.join(where)}; medians, from `{name}`.",
        f"100 % of the floor is {figures(ceilings['copy_gb_per_s'])} GB/s (a copy), or"
        f" {figures(ceilings['compute_tflop_per_s'])} TFLOP/s (matrix multiplication), measured in the same run.",
        "The last column is the fastest peer and its time divided by ours: above 1, ours is faster.",
    ]


def table(results, name):
    measured = [row for row in results["rows"] if "median_us" in row]
    lines = [*caption(results, name), "", "| Operation and shape | µs | Rate | % of floor | Best peer |"]
    lines.append("|---|---:|---:|---:|---|")
    for row in measured:
        share = f"{100 * row['share_of_floor']:.1f}"
        lines.append(f"| {problem(row)} | {figures(row['median_us'])} | {rate(row)} | {share} | {best_peer(row)} |")
    names = {row["op"] for row in measured}
    absent = {}
    for row in results["rows"]:
        if "median_us" not in row:
            # An operation without any measurement is named once, without its shapes.
            absent.setdefault(row["absent"], {})[problem(row) if row["op"] in names else f"`{row['op']}`"] = None
    for why, problems in absent.items():
        lines += ["", f"Not in the table, {why}: {', '.join(problems)}."]
    return "\n".join(lines)


def section(folder):
    """The text between the markers."""
    found = newest(folder)
    if not found:
        return NOTHING
    path, results = found
    path = path.resolve()
    try:
        return table(results, path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name)
    except (KeyError, TypeError) as error:
        raise Unreadable(f"{path}: {error!r}") from error


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=ROOT / "benches/results")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    args = parser.parse_args()
    old = args.readme.read_text("utf-8")
    markers = re.findall(f"{re.escape(OPEN)}|{re.escape(CLOSE)}", old)
    if markers != [OPEN, CLOSE]:
        sys.exit(f"readme-table: {args.readme} must have {OPEN} and then {CLOSE}, once each")
    try:
        text = section(args.results)
    except Unreadable as error:
        sys.exit(f"readme-table: not the format of `ironwarp bench --save`: {error}")
    before, rest = old.split(OPEN)
    new = f"{before}{OPEN}\n{text}\n{CLOSE}{rest.split(CLOSE)[1]}"
    if not args.check:
        args.readme.write_text(new, "utf-8")
    elif new != old:
        sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), new.splitlines(True), "is", "should be"))
        sys.exit(f"readme-table: {args.readme} is not up to date: run scripts/readme-table.py")


if __name__ == "__main__":
    main()
