#!/usr/bin/env python3
"""Packs every crate of the workspace as for crates.io, and uses the packed library from another project.

    scripts/check-package.py

1. `cargo package` packs the crates, with the uncommitted changes of the working tree.
2. Each package has a README whose relative links lead to files of the package, and no tests.
3. A crate outside of the workspace depends on the packed library with the feature `cuda` only. Built with DOCS_RS set
   and without an nvcc, as on docs.rs, it type-checks and its launch fails with a message. Built with nvcc, it computes
   GELU on the emulated GPU, which `make emulator` must have built.

The project stays in <target>/package/user. Its dependencies have the versions of Cargo.lock.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / (os.environ.get("CARGO_TARGET_DIR") or "target")
PACKAGES = TARGET / "package"

MANIFEST = """\
[package]
name = "user"
version = "0.1.0"
edition = "2024"
publish = false

[dependencies]
half = "2"
ironwarp = {{ path = "{packages}/ironwarp-{version}", default-features = false, features = ["cuda"] }}

# Not needed once these crates are on crates.io.
[patch.crates-io]
emulator-counts = {{ path = "{packages}/emulator-counts-{version}" }}
ironwarp-nvcc = {{ path = "{packages}/ironwarp-nvcc-{version}" }}

[profile.dev]
debug = false

[workspace]
"""


def run(command, fails=False, **options):
    """Runs a command, which must succeed, or fail if `fails`, and returns its output."""
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, **options)
    if (result.returncode != 0) != fails:
        sys.exit(f"check-package: {' '.join(map(str, command))}: status {result.returncode}\n{result.stdout}")
    return result.stdout


def unpack(crate):
    """Unpacks a package next to its file, and returns the folder."""
    run(["tar", "-xzf", crate, "-C", PACKAGES])
    return PACKAGES / crate.name.removesuffix(".crate")


def problems(folder):
    """What is wrong with the content of a package."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    yield from (f"{name} is a test" for name in names if name.startswith("tests/"))
    if "README.md" not in names:
        yield "no README.md"
        return
    text = re.sub(r"```.*?```", "", (folder / "README.md").read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        if link not in names:
            yield f"README.md links to {link}, which is not in the package"


def readme_example():
    """The program of README.md."""
    programs = re.findall(r"```rust\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    [program] = [program for program in programs if "Cuda::emulated" in program]
    return program


def main():
    shutil.rmtree(PACKAGES, ignore_errors=True)
    # Its notes that tests are left out are meant for packages that hold tests.
    run(["cargo", "package", "--quiet", "--locked", "--workspace", "--no-verify", "--allow-dirty"], cwd=ROOT)
    found = []
    for crate in sorted(PACKAGES.glob("*.crate")):
        folder = unpack(crate)
        if "publish = false" in (folder / "Cargo.toml").read_text():
            continue
        print(f"check-package: {crate.name}: {crate.stat().st_size >> 10} KiB")
        found += [f"{crate.name}: {problem}" for problem in problems(folder)]
    if found:
        sys.exit("check-package: " + "\n               ".join(found))

    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), flags=re.M).group(1)
    user = PACKAGES / "user"
    (user / "src").mkdir(parents=True)
    (user / "Cargo.toml").write_text(MANIFEST.format(packages=PACKAGES, version=version))
    (user / "src/main.rs").write_text(readme_example())
    shutil.copy(ROOT / "Cargo.lock", user)
    emulator = TARGET / "release/libcuda_emulator.so"
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET / "package-user"), "IRONWARP_EMULATOR": str(emulator)}

    without_nvcc = {**environment, "DOCS_RS": "1", "NVCC": "/no/nvcc"}
    output = run(["cargo", "run", "--quiet"], fails=True, cwd=user, env=without_nvcc, stderr=subprocess.STDOUT)
    if "because DOCS_RS was set" not in output:
        sys.exit(f"check-package: with DOCS_RS set, the launch failed otherwise:\n{output}")
    nvcc = run([ROOT / "scripts/cuda-toolkit.sh"]).strip().splitlines()[-1]
    # One architecture: that every architecture compiles is what the build of the workspace shows.
    with_nvcc = {**environment, "NVCC": nvcc, "IRONWARP_ARCHS": "80"}
    output = run(["cargo", "run", "--quiet"], cwd=user, env=with_nvcc)
    if output.count("0.83984375") != 16:  # gelu(1) = 0.8412, in bf16
        sys.exit(f"check-package: unexpected output of the program of README.md:\n{output}")
    print(f"check-package: the program of README.md, built from the packages, printed {output}", end="")


if __name__ == "__main__":
    main()
