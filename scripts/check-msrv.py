#!/usr/bin/env python3
"""Fails if a locked dependency needs a newer Rust than the workspace promises (`rust-version` in Cargo.toml)."""

import json
import subprocess
import sys


def version(text):
    """'1.89' and '1.89.0' as the same tuple."""
    numbers = [int(number) for number in text.split(".")]
    return tuple(numbers + [0] * (3 - len(numbers)))


metadata = json.loads(
    subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1", "--all-features"],
        check=True, capture_output=True, text=True,
    ).stdout
)
packages = {package["id"]: package for package in metadata["packages"]}
members = [packages[member] for member in metadata["workspace_members"]]
promises = {member["rust_version"] for member in members}
if len(promises) != 1 or None in promises:
    sys.exit("check-msrv: the workspace's packages differ in rust-version: "
             + ", ".join(f"{member['name']} {member['rust_version']}" for member in members))
promised = promises.pop()
too_new = [
    f"{package['name']} {package['version']} needs Rust {package['rust_version']}"
    for package in packages.values()
    if package["rust_version"] and version(package["rust_version"]) > version(promised)
]
if too_new:
    sys.exit(f"check-msrv: Cargo.toml promises Rust {promised}, but " + "; ".join(sorted(too_new)))
print(f"check-msrv: {len(packages)} packages build with Rust {promised}")
