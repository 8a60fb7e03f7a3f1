//! The `ringlog` program: arguments to configuration to run.

use std::process::ExitCode;

// Freed memory stays with the process for a second (mimalloc's purge delay) before the kernel gets it back: under load
// it is used again before that, and no page is touched for the first time twice.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringlog::cli::main()
}
