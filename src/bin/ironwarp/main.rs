//! The `ironwarp` command.

fn main() {}
