//! The command, run as its users run it: on small models, with kills, full disks and files of every wrong kind.

mod bad_input;
mod bad_models;
mod bench;
#[cfg(feature = "cuda")]
mod devices;
#[path = "../common/environment.rs"]
mod environment;
mod eval;
mod faults;
mod folder;
mod fuzz;
mod generate;
mod kill;
mod resume;
mod signals;
mod support;
mod train;
