use std::process::ExitCode;

fn main() -> ExitCode {
    return_large_blocks();
    natterjack::cli::main(std::env::args_os(), let_go_of_start_up)
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

/// The pages of the program's code that starting up has touched, and those around them, leave the process: a server at rest
/// needs few of them, and each comes back from the page cache when it runs again.
fn let_go_of_start_up() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let (Ok(maps), Ok(program)) = (std::fs::read_to_string("/proc/self/maps"), std::env::current_exe()) else {
            return;
        };
        for line in maps.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (Some(range), Some("r-xp"), Some(path)) = (fields.next(), fields.next(), fields.nth(3)) else {
                continue;
            };
            let Some((from, to)) = range.split_once('-') else { continue };
            let address = |text| usize::from_str_radix(text, 16);
            if let (Ok(from), Ok(to), true) = (address(from), address(to), program == std::path::Path::new(path)) {
                // SAFETY: the range is mapped and holds only code, which nothing writes to: what is read next is the same.
                unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
            }
        }
    }
}
