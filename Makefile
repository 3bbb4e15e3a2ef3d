# Each target sets up what it needs on a machine with Rust and a C compiler.

.PHONY: train test bench lint docs

# About a minute of training on two cores, on the project's own sources.
train:
	cargo run --release --locked -- train --model tiny --out runs/make-train --overwrite $(TRAIN_FLAGS)

TRAIN_FLAGS = --steps 2400 --batch 4 --lr 2e-3 --warmup 100 --val-every 400

test:
	cargo test --locked

# Speed of a training step, of the tokenizer and of loading a model.
bench:
	cargo bench --locked

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# The book; needs mdbook (cargo install mdbook).
docs:
	mdbook build docs
