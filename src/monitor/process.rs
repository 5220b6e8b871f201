//! This process as the operating system sees it. Linux only; elsewhere the figures are 0.

use std::time::Duration;

/// Resident memory in bytes.
pub fn memory_bytes() -> u64 {
    // procfs is memory, not a disk: reading it does not block.
    let Ok(status) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    status.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).map_or(0, |pages| pages * 4096)
}

/// Processors this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Average processor use since the start, in percent of one core.
pub fn cpu_percent(uptime: Duration) -> f64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return 0.0 };
    cpu_ticks(&stat).map_or(0.0, |ticks| {
        let seconds = ticks as f64 / 100.0;
        (1000.0 * seconds / uptime.as_secs_f64().max(0.01)).round() / 10.0
    })
}

/// User and system time in ticks of 1/100 s. The program's name may hold spaces, so counting starts behind it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_with_spaces_does_not_shift_the_fields() {
        let stat = "7 (na )me) S 1 7 7 0 -1 4194560 300 0 0 0 25 17 0 0 20 0 1 0 100 200 300";
        assert_eq!(super::cpu_ticks(stat), Some(42));
    }
}
