# Each target sets up what it needs on a machine with Rust, g++ and Python's pip.

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

.PHONY: train test bench profile counts toolkit emulator gpu-bundle params check-params lint docs

# With the kernels where there is a GPU to run them.
GPU := $(shell command -v nvidia-smi)

# About a minute of training on two cores, on the project's own sources.
train: $(if $(GPU),toolkit)
	cargo run --release --locked $(if $(GPU),--features cuda) -- train --model tiny --out runs/make-train --overwrite $(TRAIN_FLAGS)

TRAIN_FLAGS = --steps 2400 --batch 4 --lr 2e-3 --warmup 100 --val-every 400

# Kernels are compiled, and run on the emulated driver.
test: toolkit emulator
	cargo test --locked --workspace --features ironwarp/cuda

# What the sources of a benchmark or a profile were.
export IRONWARP_COMMIT := $(shell git describe --always --dirty --abbrev=12 2>/dev/null)

# Times of all operations: on a GPU beside its limits and other libraries, without one those of the CPU backend.
bench: toolkit
	cargo run --release --locked --features cuda -- bench $(BENCH_FLAGS) || \
		cargo run --release --locked --features cuda -- bench --device cpu $(BENCH_FLAGS)

# What all operations do on the emulated GPU, beside the least that they could, as a page.
profile: toolkit emulator
	cargo run --release --locked --features cuda -- profile --html $(TARGET)/profile.html $(PROFILE_FLAGS)
	@echo $(TARGET)/profile.html

# The counts that tests/profile.rs holds every operation to.
counts: toolkit emulator
	cargo run --locked --features cuda -- profile --save benches/counts/sm_80.json

# An nvcc: the machine's, or one from PyPI in the target folder.
toolkit:
	@scripts/cuda-toolkit.sh

# The emulated CUDA driver, and a folder of the names that programs look for it by: with it in LD_LIBRARY_PATH, any
# program that uses the driver API runs on it.
emulator:
	cargo build --release --locked --package cuda-emulator
	@mkdir -p $(TARGET)/emulator
	@ln -sfn ../release/libcuda_emulator.so $(TARGET)/emulator/libcuda.so
	@ln -sfn ../release/libcuda_emulator.so $(TARGET)/emulator/libcuda.so.1

# An archive that runs tests and benchmarks on a machine with a GPU and without Rust: docs/gpu-bundle.md.
gpu-bundle: toolkit
	scripts/gpu-bundle.sh

# src/cuda/params.rs, of kernels/params.h. The libclang from PyPI comes without the compiler's own headers.
params:
	LIBCLANG_PATH="$${LIBCLANG_PATH:-$$(scripts/cuda-toolkit.sh --libclang)}" \
	BINDGEN_EXTRA_CLANG_ARGS="$${BINDGEN_EXTRA_CLANG_ARGS:--isystem $$(g++ -print-file-name=include)}" \
	cargo check --locked --features bindgen

# Fails when it was not made again after a change.
check-params:
	@cp src/cuda/params.rs $(TARGET)/params-before.rs
	$(MAKE) params
	diff -u $(TARGET)/params-before.rs src/cuda/params.rs

lint: toolkit
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --workspace --all-targets --features ironwarp/cuda -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --features ironwarp/cuda --no-deps --document-private-items
	scripts/readme-table.py --check

# The book; needs mdbook (cargo install mdbook).
docs:
	mdbook build docs
