//! The `drawbridge` binary: the allocator and the library's command line.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    drawbridge::cli::main(collect)
}

/// Returns what the allocator keeps for the calling thread to the system.
#[allow(unsafe_code, reason = "a function of the allocator")]
fn collect() {
    // SAFETY: it has no precondition, and concerns free memory only.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
