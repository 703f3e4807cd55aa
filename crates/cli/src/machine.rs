//! What the machine has: processor features, threads, memory, read bandwidth.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Memory in bytes; `None` where the system does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: Option<u64>,
    pub(crate) available: Option<u64>,
}

/// Vector extensions that the kernels can use and this processor has.
pub(crate) fn cpu_features() -> Vec<&'static str> {
    let mut features = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! probe {
            ($($name:tt),*) => {$(
                if std::arch::is_x86_feature_detected!($name) {
                    features.push($name);
                }
            )*};
        }
        probe!("avx2", "fma", "f16c", "avx512f", "avx512vnni", "avx512bf16");
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! probe {
            ($($name:tt),*) => {$(
                if std::arch::is_aarch64_feature_detected!($name) {
                    features.push($name);
                }
            )*};
        }
        probe!("neon", "dotprod", "i8mm", "fp16", "bf16");
    }
    features
}

/// The processor's name, where the system tells it.
pub(crate) fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}

/// Threads that this process may use.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The memory of the machine, or of the control group the process runs in if that is less.
pub(crate) fn memory() -> Memory {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let meminfo = read("/proc/meminfo");
    limited(
        Memory {
            total: kib_field(&meminfo, "MemTotal"),
            available: kib_field(&meminfo, "MemAvailable"),
        },
        read("/sys/fs/cgroup/memory.max").trim().parse().ok(),
        read("/sys/fs/cgroup/memory.current").trim().parse().ok(),
    )
}

/// The most memory this process has had resident, in bytes.
pub(crate) fn peak_resident() -> Option<u64> {
    kib_field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

/// Bytes per second that all threads together read from memory: the best of several passes
/// over a buffer far larger than any cache.
pub(crate) fn read_bandwidth(threads: usize) -> f64 {
    const WORDS: usize = 64 * 1024 * 1024; // 512 MiB
    const PASSES: usize = 4;
    let buffer = vec![1u64; WORDS];
    let share = WORDS.div_ceil(threads.max(1));
    let pass = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in buffer.chunks(share) {
                scope.spawn(move || black_box(sum(part)));
            }
        });
        start.elapsed()
    };
    let best = (0..PASSES).map(|_| pass()).min().unwrap_or(Duration::MAX);
    (WORDS * size_of::<u64>()) as f64 / best.as_secs_f64()
}

/// Eight independent sums, so that the additions never wait for each other.
fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0u64; 32];
    let chunks = words.chunks_exact(lanes.len());
    let rest: u64 = chunks
        .remainder()
        .iter()
        .fold(0, |sum, word| sum.wrapping_add(*word));
    for chunk in chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.iter().fold(rest, |sum, lane| sum.wrapping_add(*lane))
}

fn kib_field(text: &str, name: &str) -> Option<u64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn limited(memory: Memory, limit: Option<u64>, used: Option<u64>) -> Memory {
    let Some(limit) = limit.filter(|limit| memory.total.is_none_or(|total| *limit < total)) else {
        return memory;
    };
    let free = limit.saturating_sub(used.unwrap_or(0));
    Memory {
        total: Some(limit),
        available: Some(
            memory
                .available
                .map_or(free, |available| available.min(free)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_files() {
        let text =
            "MemTotal:       16 kB\nMemAvailable: 8 kB\nBad: x kB\nHuge: 18446744073709551615 kB\n";
        for (name, expected) in [
            ("MemTotal", Some(16384)),
            ("MemAvailable", Some(8192)),
            ("Bad", None),
            ("Mem", None),
            ("Huge", None),
        ] {
            assert_eq!(kib_field(text, name), expected, "{name}");
        }
    }

    #[test]
    fn a_control_group_lowers_both() {
        let whole = Memory {
            total: Some(100),
            available: Some(90),
        };
        let check = |limit, used, expected| assert_eq!(limited(whole, limit, used), expected);
        check(None, Some(5), whole);
        check(Some(1000), Some(5), whole);
        check(
            Some(50),
            Some(20),
            Memory {
                total: Some(50),
                available: Some(30),
            },
        );
        check(
            Some(50),
            Some(60),
            Memory {
                total: Some(50),
                available: Some(0),
            },
        );
    }

    #[test]
    fn sums_are_whole() {
        for len in [0, 1, 31, 32, 33, 1000] {
            let words: Vec<u64> = (0..len).collect();
            assert_eq!(sum(&words), words.iter().sum::<u64>());
        }
    }
}
