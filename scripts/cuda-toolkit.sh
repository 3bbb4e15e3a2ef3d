#!/usr/bin/env bash
# Finds an nvcc that can compile the kernels, or installs one; the last line on stdout is its path.
#
#   scripts/cuda-toolkit.sh                  nvcc
#   scripts/cuda-toolkit.sh --libclang       the folder of a libclang, with which bindgen reads kernels/params.h
#   scripts/cuda-toolkit.sh --clang-format   the clang-format that lays out the CUDA sources
#
# Locations searched, in order: NVCC, CUDA_HOME, CUDA_PATH, PATH, <target>/cuda-toolkit. If none has a usable nvcc,
# pinned versions from PyPI are installed in the last one. Nothing is written outside the target folder.
# nvcc/src/locate.rs searches the same locations, and nvcc/tests/locate.rs tests that both find the same nvcc.
set -euo pipefail

oldest=13.0
# nvcc is pinned because its version determines the machine code of the kernels. cuobjdump and nvdisasm, which read the
# machine code, are not on PyPI before 13.2.
toolkit=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85 nvidia-cuda-cuobjdump==13.2.86 nvidia-cuda-nvdisasm==13.2.86)
libclang=(libclang==18.1.1)
# Another version would lay out the same sources differently.
clang_format=(clang-format==20.1.8)

say() { printf 'cuda-toolkit: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

cd "$(dirname "$0")/.."
mkdir -p "${CARGO_TARGET_DIR:-target}"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)

# Sets `reason` to why the nvcc $1 cannot be used, or to the empty string.
check() {
    local text release
    if ! command -v "$1" >/dev/null; then
        reason='not found'
    elif ! text=$("$1" --version 2>&1); then
        reason='nvcc --version failed'
    else
        release=$(sed -n 's/.*release \([0-9]*\.[0-9]*\),.*/\1/p' <<<"$text")
        if [[ -z $release ]]; then
            reason='nvcc --version names no release'
        elif ((${release%.*} < ${oldest%.*} || (${release%.*} == ${oldest%.*} && ${release#*.} < ${oldest#*.}))); then
            reason="too old: release $release"
        else
            reason=
        fi
    fi
}

# Installs packages $2... into <target>/$1, completely or not at all. Does nothing if they are already installed.
install() {
    local name=$1 folder=$target/$1 part pip
    shift
    # The operating system releases the lock when this process ends, even if it is killed.
    exec 9>"$target/.$name.lock"
    flock 9
    if [[ -f $folder/packages && $(cat "$folder/packages") == "$*" ]]; then
        return
    fi
    pip=$(find_pip)
    say "installing into $folder: $*"
    # Removes what an interrupted run has left.
    rm -rf "$target/$name".part.*
    part=$target/$name.part.$$
    # One run installs all packages, because they share folders. $pip is split into words on purpose (python3 -m pip).
    # PIP_USER=0, because --user in a configuration file conflicts with --target.
    # shellcheck disable=SC2086
    PIP_USER=0 PIP_ROOT_USER_ACTION=ignore $pip install --disable-pip-version-check --no-deps \
        --only-binary=:all: --no-compile --target "$part" "$@" >&2 ||
        die "pip failed. It needs access to PyPI; without it, set CUDA_HOME to a CUDA toolkit $oldest or newer"
    printf '%s' "$*" >"$part/packages"
    rm -rf "$folder"
    mv "$part" "$folder"
}

find_pip() {
    local pip
    for pip in 'python3 -m pip' pip3 'python -m pip' pip; do
        if $pip --version >/dev/null 2>&1; then
            echo "$pip"
            return
        fi
    done
    die "needs Python's pip to install from PyPI (Debian, Ubuntu: apt-get install python3-pip), or CUDA_HOME set \
to a CUDA toolkit $oldest or newer"
}

# Prints the nvcc that was found, and exits.
found() {
    echo "$1"
    exit
}

if [[ ${1:-} == --libclang ]]; then
    install libclang "${libclang[@]}"
    echo "$target/libclang/clang/native"
    exit
elif [[ ${1:-} == --clang-format ]]; then
    install clang-format "${clang_format[@]}"
    echo "$target/clang-format/clang_format/data/bin/clang-format"
    exit
elif (($# > 0)); then
    die "unknown option $1; see the top of $0"
fi

if [[ -z ${NVCC_CCBIN:-} ]] && ! command -v g++ >/dev/null; then
    die "nvcc needs a host compiler, and there is no g++ in PATH. Install one (Debian, Ubuntu: apt-get install g++) or \
name another in NVCC_CCBIN"
fi
if [[ -n ${NVCC:-} ]]; then
    check "$NVCC"
    # An explicitly named nvcc must not be replaced by another one.
    [[ -z $reason ]] || die "NVCC: $NVCC: $reason; CUDA $oldest or newer is needed"
    found "$(command -v "$NVCC")"
fi
for nvcc in ${CUDA_HOME:+"$CUDA_HOME/bin/nvcc"} ${CUDA_PATH:+"$CUDA_PATH/bin/nvcc"} "$(command -v nvcc || true)"; do
    [[ -n $nvcc ]] || continue
    check "$nvcc"
    [[ -n $reason ]] || found "$nvcc"
    say "skipped $nvcc: $reason"
done

install cuda-toolkit "${toolkit[@]}"
nvcc=$target/cuda-toolkit/nvidia/cu13/bin/nvcc
check "$nvcc"
[[ -z $reason ]] || die "$nvcc: $reason, though installed from PyPI"
found "$nvcc"
