#!/usr/bin/env bash
# Packs what a machine with a GPU, and without Rust, needs to run the tests and benchmarks on it.
#
#   scripts/gpu-bundle.sh    writes <target>/gpu-bundle.tar.xz; docs/gpu-bundle.md says what is inside and how to run it
#
# The same programs give the same bytes: nothing in the archive has a date or an owner of its own. That programs built twice are
# the same is not promised.
set -euo pipefail

most_bytes=60000000
# Test programs of the main package. `cli` and `inventory` say nothing of a GPU; the second reads the sources.
tests=(contract cuda driver_faults gpt2 no_driver ops)
# Read at run time: by tests, and by the emulator's findings and the mutants' reasons, which name source lines.
data=(docs/kernels.md kernels tests/fixtures)

say() { printf 'gpu-bundle: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

cd "$(dirname "$0")/.."
mkdir -p "${CARGO_TARGET_DIR:-target}"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
name=ironwarp-gpu
stage=$target/gpu-bundle/$name
archive=$target/gpu-bundle.tar.xz

# Runs cargo with arguments $2..., and copies each program of kind $1 that it has made into bin/, by its target's name after
# a prefix in $prefix.
programs() {
    local kind=$1 messages
    shift
    say "cargo $*"
    messages=$(cargo "$@" --locked --message-format=json-render-diagnostics)
    sed -n 's/.*"target":{"kind":\["'"$kind"'"\][^}]*"name":"\([^"]*\)".*"executable":"\([^"]*\)".*/\1 \2/p' <<<"$messages" |
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
    printf 'archs   %s\n' "${IRONWARP_ARCHS:-$(sed -n 's/.*DEFAULT: &str = "\(.*\)";/\1/p' nvcc/src/arch.rs)}"
    # What the loader of the other machine must have.
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
# Whatever benchmarks there are, as a pattern finds them.
prefix=bench-
programs bench bench --no-run --features cuda --bench '*'
say 'cargo build --release --package cuda-emulator'
cargo build --release --locked --package cuda-emulator
strip -o "$stage/bin/libcuda_emulator.so" "$target/release/libcuda_emulator.so"
for program in ironwarp "${tests[@]}" instructions; do
    [[ -x $stage/bin/$program ]] || die "cargo made no $program"
done

# Tracked files alone: what lies beside them is not of the commit.
git ls-files -z -- "${data[@]}" 'scripts/peer*.py' scripts/compare-curves.py 'emulator/ptx/tests/instructions/*.ptx' |
    xargs -0 cp --parents --target-directory="$stage"
# A text to train on: the project's own.
mkdir -p "$stage/text"
git ls-files -z -- '*.rs' '*.cu' '*.cuh' '*.md' | xargs -0 cat >"$stage/text/sources.txt"
# The instruction files' test looks for them beside its own package.
mkdir -p "$stage/emulator/driver"
cp scripts/gpu-run-all.sh "$stage/run-all"
cp docs/gpu-bundle.md "$stage/README.md"
chmod -R u=rwX,go=rX "$stage"

commit=$(git rev-parse HEAD)
# An archive of other sources than the commit's must say so.
[[ -z $(git status --porcelain --untracked-files=no) ]] || commit="$commit with changes"
manifest "$commit" >"$target/gpu-bundle/MANIFEST"
mv "$target/gpu-bundle/MANIFEST" "$stage/MANIFEST"
chmod 644 "$stage/MANIFEST"

# One window over everything: test programs have the library and the kernels in common. One thread, as blocks would part
# them, and their number change the bytes.
tar --create --directory="$target/gpu-bundle" --sort=name --format=gnu --owner=0 --group=0 --numeric-owner \
    --mtime="@$(git log -1 --format=%ct)" "$name" |
    xz -9 --threads=1 >"$archive.part"
mv "$archive.part" "$archive"
size=$(stat --format=%s "$archive")
say "$archive: $size bytes, $(du -sb "$stage" | cut -f1) unpacked"
((size <= most_bytes)) || die "more than $most_bytes bytes"
