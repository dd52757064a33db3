//! An estimate of how many cores are idle.

use std::fs::File;
use std::sync::LazyLock;

/// The open file of the kernel's load, and the number of cores. `None` where there is no such file; then every core
/// counts as idle.
static LOAD: LazyLock<Option<(File, usize)>> = LazyLock::new(|| {
    let cores = count_cores(&std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?)?;
    Some((File::open("/proc/loadavg").ok()?, cores))
});

/// Estimates the number of idle cores: cores minus runnable threads, this one included. The estimate may be outdated
/// when it returns. It costs one system call, about a microsecond.
pub(super) fn idle_cores() -> usize {
    // Unit tests share fan-outs on a busy machine, too.
    if cfg!(test) { usize::MAX } else { look() }
}

fn look() -> usize {
    let Some((file, cores)) = &*LOAD else { return usize::MAX };
    let mut text = [0; 128];
    let read = read_from_start(file, &mut text).ok();
    let running = read.and_then(|n| count_running(text.get(..n)?));
    running.map_or(usize::MAX, |running| cores.saturating_sub(running))
}

#[cfg(unix)]
fn read_from_start(file: &File, text: &mut [u8]) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, text, 0)
}

#[cfg(not(unix))]
fn read_from_start(_file: &File, _text: &mut [u8]) -> std::io::Result<usize> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Counts the cores in a list such as `0-3,8`.
fn count_cores(ranges: &str) -> Option<usize> {
    ranges.trim().split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(sum + last.checked_sub(first)? + 1)
    })
}

/// The first number of the fourth field, as in `0.20 0.18 0.12 1/80 11206`.
fn count_running(text: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(text).ok()?;
    text.split(' ').nth(3)?.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        for (list, count) in [("0\n", 1), ("0-1\n", 2), ("0-3,8,10-11", 7)] {
            assert_eq!(count_cores(list), Some(count), "{list}");
        }
        for wrong in ["", "x", "3-1", "0-"] {
            assert_eq!(count_cores(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn running_threads() {
        assert_eq!(count_running(b"0.20 0.18 0.12 3/80 11206\n"), Some(3));
        assert_eq!(count_running(b"0.20 0.18"), None);
        assert_eq!(count_running(b"\xff"), None);
    }

    #[test]
    fn this_thread_runs() {
        if let Some((_, cores)) = &*LOAD {
            assert!(look() < *cores);
        }
    }
}
