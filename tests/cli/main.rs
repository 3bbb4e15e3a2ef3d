//! End-to-end tests of the command, on small models: normal use, kills, full disks and invalid files.

mod bad_input;
mod bad_models;
mod bench;
mod data;
#[cfg(feature = "cuda")]
mod devices;
#[path = "../common/environment.rs"]
mod environment;
mod eval;
mod faults;
mod folder;
mod fuzz;
mod generate;
mod hostile;
mod kill;
mod next;
mod resume;
mod signals;
mod support;
mod terminal;
mod token_files;
mod tokenizers;
mod train;
