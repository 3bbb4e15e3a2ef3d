# Every target sets up what it needs on a machine with Rust, g++ and Python's pip. `make help` lists the targets.

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

.DEFAULT_GOAL := help
.PHONY: help train test test-thorough bench profile counts toolkit emulator gpu-bundle params check-params format lint \
	assemble mutant-tests other-tests msrv features header check-torch api check-api package docs

help: ## Print this list
	@echo "Usage: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# NVIDIA's driver creates the first of these files, WSL's the second. Without either there is no GPU to train on, and
# neither the toolkit nor the kernels are needed.
GPU := $(wildcard /dev/nvidiactl /dev/dxg)

# Also with CUDA where the toolkit is installed already: otherwise this target would replace a program that was built with
# CUDA by one without.
TRAIN_CUDA := $(or $(GPU),$(wildcard $(TARGET)/cuda-toolkit),$(shell command -v nvcc))

train: $(if $(TRAIN_CUDA),toolkit) ## Train a small GPT-2 on this project's sources: about a minute on two cores, and the build
	cargo run --release --locked $(if $(TRAIN_CUDA),--features cuda) -- train --out runs/make-train --overwrite $(TRAIN_FLAGS)

test: toolkit emulator ## Run every test, the kernels on the emulated GPU with a sample of schedules and mutants
	$(TEST) --no-run
	$(MAKE) --jobs=2 mutant-tests other-tests

test-thorough: export IRONWARP_THOROUGH = 1
test-thorough: test ## Run every test with all schedules, mutants and driver faults, as CI does

# What the tests and the lints are built with: one set, so that they share their builds.
FEATURES = --features ironwarp/cuda,ironwarp/parquet

TEST = cargo test --locked --workspace $(FEATURES)

assemble: toolkit ## Assemble the embedded PTX for every architecture since Ampere: no spill, no warning; TABLE=1 prints registers
	$(TEST) --test assemble $(if $(TABLE),-- --nocapture)

# The mutants of a kernel run one after another and take the emulated GPU for themselves. A process of their own lets the
# other tests use the second core meanwhile.
mutant-tests:
	$(TEST) -- mutants_are_killed

other-tests:
	$(TEST) -- --skip mutants_are_killed

# The commit that the results of a benchmark or a profile name; the program reads it when it runs.
export IRONWARP_COMMIT := $(shell git describe --always --dirty --abbrev=12 2>/dev/null)

bench: toolkit ## Time every operation: on a GPU next to its limits and other libraries, else on the CPU backend
	cargo run --release --locked --features cuda -- bench $(BENCH_FLAGS) || \
		cargo run --release --locked --features cuda -- bench --device cpu $(BENCH_FLAGS)

profile: toolkit emulator ## Count what every operation does on the emulated GPU, as an HTML page
	cargo run --release --locked --features cuda -- profile --html $(TARGET)/profile.html $(PROFILE_FLAGS)
	@echo $(TARGET)/profile.html

counts: toolkit emulator ## Regenerate benches/counts/sm_80.json, with which tests/profile.rs compares every operation
	cargo run --locked --features cuda -- profile --save benches/counts/sm_80.json

toolkit: ## Find nvcc, or install it from PyPI in the target folder
	@scripts/cuda-toolkit.sh

# Programs look for the driver by the names of these links. With the folder in LD_LIBRARY_PATH, any program that uses the
# driver API runs on the emulated GPU.
emulator: ## Build the emulated CUDA driver, target/emulator/libcuda.so.1
	cargo build --release --locked --package cuda-emulator
	@mkdir -p $(TARGET)/emulator
	@ln -sfn ../release/libcuda_emulator.so $(TARGET)/emulator/libcuda.so
	@ln -sfn ../release/libcuda_emulator.so $(TARGET)/emulator/libcuda.so.1

gpu-bundle: toolkit ## Pack tests and benchmarks for a machine that has a GPU and no Rust: docs/gpu-bundle.md
	scripts/gpu-bundle.sh

# The libclang from PyPI comes without the compiler's own headers, so bindgen reads those of g++.
params: ## Regenerate the Rust side of kernels/params.h with bindgen
	LIBCLANG_PATH="$${LIBCLANG_PATH:-$$(scripts/cuda-toolkit.sh --libclang)}" \
	BINDGEN_EXTRA_CLANG_ARGS="$${BINDGEN_EXTRA_CLANG_ARGS:--isystem $$(g++ -print-file-name=include)}" \
	cargo check --locked --no-default-features --features bindgen

PARAMS = src/cuda/launch/params.rs

check-params: ## Fail if the Rust side of kernels/params.h is not what bindgen generates
	@cp $(PARAMS) $(TARGET)/params-before.rs
	$(MAKE) params
	diff -u $(TARGET)/params-before.rs $(PARAMS)

header: toolkit ## Regenerate capi/include/ironwarp.h with cbindgen; a test compares it
	IRONWARP_WRITE_HEADER=1 cargo test --locked --package ironwarp-capi --test header

# PyTorch for the CPU is 3 GB of packages, so CI does not run this.
PYTHON = $(TARGET)/python/bin/python3

$(PYTHON):
	python3 -m venv $(TARGET)/python
	$(TARGET)/python/bin/pip install --quiet torch numpy "cuda-bindings==13.0.*"

check-torch: toolkit emulator $(PYTHON) ## Compare examples/torch_ops.py with PyTorch on the emulated GPU; downloads PyTorch
	cargo build --release --locked --package ironwarp-capi
	LD_LIBRARY_PATH=$(TARGET)/emulator $(PYTHON) scripts/check-torch-ops.py

# Crates whose public API is listed in docs/api, with all features.
API_CRATES = ironwarp ironwarp-nvcc emulator-counts ptx-emulator

api: toolkit ## Regenerate docs/api, the list of the public API of each library
	cargo doc --quiet --locked --workspace $(FEATURES) --no-deps
	for crate in $(API_CRATES); do scripts/public-api.py $(TARGET)/doc $$crate > docs/api/$$crate.txt || exit 1; done

check-api: ## Fail if the public API is not the one that docs/api lists
	@rm -rf $(TARGET)/api-before && cp -r docs/api $(TARGET)/api-before
	$(MAKE) api
	diff -ru $(TARGET)/api-before docs/api

package: toolkit emulator ## Pack all crates as for crates.io, and use the packed library from another project
	scripts/check-package.py

CUDA_SOURCES = $(shell find kernels emulator/trials/kernels examples -name '*.cu' -o -name '*.cuh' -o -name '*.h')

format: ## Format the Rust and the CUDA sources
	cargo fmt --all
	"$$(scripts/cuda-toolkit.sh --clang-format)" -i $(CUDA_SOURCES)

lint: toolkit msrv ## Check formatting, clippy's lints, every set of features, the API documentation and generated text
	cargo fmt --all --check
	"$$(scripts/cuda-toolkit.sh --clang-format)" --dry-run --Werror $(CUDA_SOURCES)
	cargo clippy --locked --workspace --all-targets $(FEATURES) -- -D warnings
	$(MAKE) features
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace $(FEATURES) --no-deps --document-private-items
	scripts/readme-table.py --check

# DOCS_RS: the build script embeds no kernels, which the lints do not need.
CLIPPY_SETS = cuda train train,cuda bench,cuda
MAX_CRATES = 40
LIBRARY_CRATES = cargo tree --locked --edges normal --no-default-features --features cuda --prefix none --no-dedupe | sort -u

features: ## Check that the crate compiles without warnings with every set of features, and that the library stays small
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --no-default-features -- -D warnings
	for set in $(CLIPPY_SETS); do \
		DOCS_RS=1 cargo clippy --locked --no-default-features --features $$set -- -D warnings || exit 1; \
	done
	@crates=$$($(LIBRARY_CRATES) | wc -l); echo "the library with the feature cuda: $$crates crates"; \
		test $$crates -le $(MAX_CRATES) || { $(LIBRARY_CRATES); echo "more than $(MAX_CRATES) crates"; exit 1; }

# Clippy's `incompatible_msrv`, part of `make lint`, checks our own calls of the standard library.
msrv: ## Check that no dependency needs a newer Rust than Cargo.toml's rust-version
	scripts/check-msrv.py

MDBOOK_VERSION = 0.5.4
MDBOOK = $(TARGET)/mdbook/bin/mdbook

# Unoptimised: it compiles in a third of the time, and the book takes 0.2 s either way.
$(MDBOOK):
	CARGO_PROFILE_DEV_DEBUG=none cargo install mdbook --version $(MDBOOK_VERSION) --locked --no-default-features --debug \
		--root $(TARGET)/mdbook

# mdbook reports a broken page as a warning and succeeds.
docs: $(MDBOOK) ## Build the book, target/book/index.html; fails on a warning
	$(MDBOOK) build docs --dest-dir $(TARGET)/book 2>&1 | tee $(TARGET)/mdbook.log
	@! grep -qE 'WARN|ERROR' $(TARGET)/mdbook.log
