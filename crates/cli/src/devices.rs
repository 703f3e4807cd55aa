//! Where models compute: the processor, or GPUs; several of a kind are replicas of one model
//! behind one queue, but for Metal, where there is one.

use crate::config::Config;
use crate::error::Failure;
use anyhow::Result;

/// The configured devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Devices {
    /// The processor; replicas share the weights and the threads, and have a KV pool each.
    Cpu {
        /// At least 1.
        replicas: usize,
    },
    /// GPUs by number, at least one; each holds the weights.
    Cuda(Vec<usize>),
    /// An Apple machine's GPU.
    Metal,
}

/// Whether rows on a GPU may have other bits in other batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Determinism {
    /// They may: faster.
    Loose,
    /// A row's bits depend on the row alone, as they do on the processor.
    Strict,
}

impl Devices {
    /// Those of `engine.devices`.
    ///
    /// # Errors
    /// A device that has no such name; devices that cannot be replicas of each other.
    pub(crate) fn of(config: &Config) -> Result<Self> {
        Self::parse(config.text("engine.devices").unwrap_or("cpu"))
    }

    /// Reads `metal`; `cpu`, `cuda`, `cuda:1`, or several with commas between them.
    fn parse(text: &str) -> Result<Self> {
        let wrong = |why: String| Failure::usage(format!("--device {text}: {why}"));
        if text.trim() == "metal" {
            return Ok(Self::Metal);
        }
        let (mut cpus, mut gpus) = (0, Vec::new());
        for name in text.split(',').map(str::trim) {
            let number = match (name, name.strip_prefix("cuda:")) {
                ("cpu", _) => {
                    cpus += 1;
                    continue;
                }
                ("cuda", _) => Some(0),
                (_, Some(number)) => number.parse::<u16>().ok().map(usize::from),
                _ => None,
            };
            let Some(number) = number else {
                let expected = "metal, or cpu, cuda or cuda:N, or several of these three with commas between them";
                return Err(wrong(format!("`{name}` is none of {expected}")));
            };
            if gpus.contains(&number) {
                return Err(wrong(format!("cuda:{number} is named twice")));
            }
            gpus.push(number);
        }
        match (cpus, gpus.is_empty()) {
            (0, false) => Ok(Self::Cuda(gpus)),
            (replicas, true) => Ok(Self::Cpu { replicas }),
            _ => Err(wrong(
                "a processor and a GPU compute different bits, so they cannot be replicas of one model".into(),
            )),
        }
    }

    /// What of the devices shows in what a model writes; nothing for the processor.
    pub(crate) fn identity(&self, determinism: Determinism) -> Option<&'static str> {
        match (self, determinism) {
            (Self::Cpu { .. }, _) => None,
            (Self::Cuda(_), Determinism::Loose) => Some("cuda"),
            (Self::Cuda(_), Determinism::Strict) => Some("cuda, deterministic"),
            (Self::Metal, _) => Some("metal"),
        }
    }

    /// Fails where several devices are asked for.
    ///
    /// # Errors
    /// Replicas are configured for what computes in one place.
    pub(crate) fn only_one(config: &Config, what: &str) -> Result<()> {
        let count = match Self::of(config)? {
            Self::Cpu { replicas } => replicas,
            Self::Cuda(numbers) => numbers.len(),
            Self::Metal => 1,
        };
        match count {
            1 => Ok(()),
            _ => Err(Failure::usage(format!(
                "--device: {what} runs on one device, {count} are named"
            ))),
        }
    }
}

impl Determinism {
    /// That of `engine.deterministic`.
    pub(crate) fn of(config: &Config) -> Self {
        match config.text("engine.deterministic") {
            Some("on") => Self::Strict,
            _ => Self::Loose,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        let cuda = |numbers: &[usize]| Devices::Cuda(numbers.to_vec());
        for (text, expected) in [
            ("cpu", Some(Devices::Cpu { replicas: 1 })),
            ("cpu,cpu", Some(Devices::Cpu { replicas: 2 })),
            ("cuda", Some(cuda(&[0]))),
            ("cuda:3", Some(cuda(&[3]))),
            ("cuda:0, cuda:1", Some(cuda(&[0, 1]))),
            ("metal", Some(Devices::Metal)),
            ("metal,cpu", None),
            ("metal,metal", None),
            ("cuda:1,cuda:1", None),
            ("cuda,cuda:0", None),
            ("cpu,cuda:0", None),
            ("", None),
            ("cuda:", None),
            ("cuda:-1", None),
            ("gpu", None),
            ("cpu,", None),
        ] {
            assert_eq!(Devices::parse(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_processor_leaves_no_trace_in_the_identity() {
        let cpu = Devices::Cpu { replicas: 2 };
        assert_eq!(cpu.identity(Determinism::Strict), None);
        let gpu = Devices::Cuda(vec![1]);
        assert_ne!(
            gpu.identity(Determinism::Strict),
            gpu.identity(Determinism::Loose)
        );
    }
}
