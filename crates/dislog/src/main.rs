//! The `dislog` program: see the library of this package.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Keeps memory that was freed: the system's allocator gives large buffers back and pays for every
/// page again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dislog::main()
}
