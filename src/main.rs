use std::process::ExitCode;

fn main() -> ExitCode {
    return_large_blocks();
    natterjack::cli::main(std::env::args_os())
}

/// What is freed goes back to the system: glibc keeps blocks of up to 32 MiB once some of that size were freed, so that a
/// flood of large messages would leave the process twice as large as what it holds.
fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets two numbers of the allocator, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 8 << 20);
    }
}
