#!/usr/bin/env bash
# Packs the tests and benchmarks for a machine with a GPU and without Rust.
#
#   scripts/gpu-bundle.sh writes <target>/gpu-bundle.tar.xz; docs/gpu-bundle.md describes the content and how to run it
#
# The archive is reproducible: the same programs give the same bytes, because all files have the same date and owner.
# Builds of the programs are not guaranteed to be reproducible.
set -euo pipefail

max_bytes=60000000
# Test programs of the main package. `cli` and `inventory` are left out: they do not test a GPU, and `inventory` reads
# the sources.
tests=(contract cuda driver_faults gpt2 no_driver ops)
# Files that are read at run time: by tests, and to print source lines in the emulator's findings and the mutants'
# reasons.
data=(docs/kernels.md kernels tests/fixtures)

say() { printf 'gpu-bundle: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

cd "$(dirname "$0")/.."
# The machine that runs the bundle is not known: machine code for all architectures.
: "${IRONWARP_ARCHS:=$(sed -n 's/.* ALL: &str = "\(.*\)";/\1/p' nvcc/src/arch.rs)}"
export IRONWARP_ARCHS
mkdir -p "${CARGO_TARGET_DIR:-target}"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
name=ironwarp-gpu
stage=$target/gpu-bundle/$name
archive=$target/gpu-bundle.tar.xz

# Runs cargo with arguments $2..., and copies each program of kind $1 that it has built to bin/, named $prefix and the
# name of its target.
programs() {
    local kind=$1 messages
    shift
    say "cargo $*"
    messages=$(cargo "$@" --locked --message-format=json-render-diagnostics)
    local pattern='"target":{"kind":\["'"$kind"'"\][^}]*"name":"\([^"]*\)"'
    sed -n "s/.*$pattern"'.*"executable":"\([^"]*\)".*/\1 \2/p' <<<"$messages" |
        while read -r program path; do
            strip -o "$stage/bin/$prefix$program" "$path"
        done
}

manifest() {
    local nvcc commit=$1
    nvcc=$(scripts/cuda-toolkit.sh)
    printf 'commit  %s\n' "$commit"
    printf 'rustc   %s\n' "$(rustc --version)"
    printf 'nvcc    %s\n' "$("$nvcc" --version | sed -n 's/.*release [0-9.]*, V//p')"
    printf 'archs   %s\n' "$IRONWARP_ARCHS"
    # The oldest glibc that the programs run with.
    printf 'glibc   %s\n' "$(readelf -V "$stage"/bin/* | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1 | cut -d_ -f2)"
    printf '\n'
    (cd "$stage" && find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum)
}

rm -rf "$stage"
mkdir -p "$stage/bin" "$stage/scripts"
prefix=
programs bin build --release --features cuda --bin ironwarp
programs test test --no-run --features cuda "${tests[@]/#/--test=}"
programs test test --no-run --package cuda-emulator --test instructions
# All benchmarks.
prefix=bench-
programs bench bench --no-run --features cuda --bench '*'
say 'cargo build --release --package cuda-emulator'
cargo build --release --locked --package cuda-emulator
strip -o "$stage/bin/libcuda_emulator.so" "$target/release/libcuda_emulator.so"
for program in ironwarp "${tests[@]}" instructions; do
    [[ -x $stage/bin/$program ]] || die "cargo did not build $program"
done

# Only tracked files: other files do not belong to the commit.
git ls-files -z -- "${data[@]}" 'scripts/peer*.py' scripts/compare-curves.py 'emulator/ptx/tests/instructions/*.toml' |
    xargs -0 cp --parents --target-directory="$stage"
# A text to train on: the project's sources.
mkdir -p "$stage/text"
git ls-files -z -- '*.rs' '*.cu' '*.cuh' '*.md' | xargs -0 cat >"$stage/text/sources.txt"
# The test of the instruction forms reads them relative to the folder of its package.
mkdir -p "$stage/emulator/driver"
cp scripts/gpu-run-all.sh "$stage/run-all"
cp docs/gpu-bundle.md "$stage/README.md"
chmod -R u=rwX,go=rX "$stage"

commit=$(git rev-parse HEAD)
# The manifest must say if the sources differ from the commit's.
[[ -z $(git status --porcelain --untracked-files=no) ]] || commit="$commit with changes"
manifest "$commit" >"$target/gpu-bundle/MANIFEST"
mv "$target/gpu-bundle/MANIFEST" "$stage/MANIFEST"
chmod 644 "$stage/MANIFEST"

# All programs contain the library and the kernels, which take about 95 MB for six architectures. The dictionary spans
# two programs, so that each is compressed against the previous one; unpacking takes as much memory. One thread, because several would compress independent blocks, and their number would change the bytes.
tar --create --directory="$target/gpu-bundle" --sort=name --format=gnu --owner=0 --group=0 --numeric-owner \
    --mtime="@$(git log -1 --format=%ct)" "$name" |
    xz --lzma2=preset=9,dict=256MiB --threads=1 >"$archive.part"
mv "$archive.part" "$archive"
size=$(stat --format=%s "$archive")
say "$archive: $size bytes, $(du -sb "$stage" | cut -f1) unpacked"
((size <= max_bytes)) || die "the archive is larger than $max_bytes bytes"
