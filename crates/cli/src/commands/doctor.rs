//! `doctor`: what this machine is, which models it has, and which of them fit.

use crate::args::DoctorArgs;
use crate::commands::models::shortened;
use crate::config::Config;
use crate::cuda::{self, Gpu};
use crate::footprint;
use crate::machine::{self, Memory};
use crate::output;
use crate::session;
use anyhow::Result;
use model::{CachedModel, KvPool, KvType, LoadAs, ModelConfig, ModelFiles};
use serde::Serialize;
use serde_json::json;

/// Memory left to the rest of the program and the system.
const SPARE_BYTES: u64 = 512 * 1024 * 1024;

/// One model as found.
#[derive(Debug, Serialize)]
struct Finding {
    id: String,
    size_bytes: u64,
    missing: Vec<String>,
    /// Why the model cannot be used though its files are there.
    problem: Option<String>,
    /// Ways to hold it in the memory that is free now; empty if there is none.
    fits: Vec<Fit>,
    /// The same for each GPU, by number.
    fits_on_gpu: Vec<Vec<Fit>>,
}

/// A precision and the context that remains beside it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Fit {
    weights: &'static str,
    weight_bytes: u64,
    /// Tokens of an f16 KV cache in the rest of the memory.
    kv_tokens: u64,
}

/// Runs the command.
pub(crate) fn run(config: &Config, args: &DoctorArgs) -> Result<()> {
    let memory = machine::memory();
    let gpus = cuda::gpus();
    let known_gpus: &[Gpu] = gpus.as_deref().unwrap_or_default();
    let cache = session::hub_cache();
    let mut findings: Vec<Finding> = cache
        .list()
        .into_iter()
        .map(|one| examine(one, memory, known_gpus))
        .collect();
    for shape in &args.shape {
        findings.push(examine_shape(shape, memory, known_gpus)?);
    }
    let aliases: Vec<(&String, Result<(), String>)> = config
        .aliases()
        .keys()
        .map(|alias| {
            (
                alias,
                session::locate(alias, config)
                    .map(drop)
                    .map_err(|error| error.to_string()),
            )
        })
        .collect();
    let report = Report {
        memory,
        gpus,
        no_metal: model::metal_device().err().map(|why| why.to_string()),
        cache: cache.root().display().to_string(),
        findings,
        num_shapes: args.shape.len(),
        aliases,
    };
    match args.json {
        true => report.print_json(),
        false => report.print(),
    }
}

/// Everything that was found out.
struct Report<'a> {
    memory: Memory,
    gpus: Result<Vec<Gpu>, String>,
    /// Why there is no Metal.
    no_metal: Option<String>,
    /// Folder of the models.
    cache: String,
    /// Models of the cache, then shapes.
    findings: Vec<Finding>,
    num_shapes: usize,
    aliases: Vec<(&'a String, Result<(), String>)>,
}

impl Report<'_> {
    fn print_json(&self) -> Result<()> {
        let broken: Vec<_> = self
            .aliases
            .iter()
            .filter_map(|(alias, result)| Some((alias, result.as_ref().err()?)))
            .collect();
        output::print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"), "cpu": machine::cpu_name(),
            "cpu_features": machine::cpu_features(), "threads": machine::threads(),
            "memory_bytes": self.memory.total, "memory_available_bytes": self.memory.available,
            "gpus": self.gpus.as_deref().unwrap_or_default(), "no_gpu_because": self.gpus.as_ref().err(),
            "no_metal_because": self.no_metal,
            "cache": self.cache, "models": self.findings, "broken_aliases": broken,
        }))
    }

    fn print(&self) -> Result<()> {
        let known = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), output::bytes);
        let features = match machine::cpu_features() {
            none if none.is_empty() => "no vector extensions".into(),
            some => some.join(" "),
        };
        let cpu = machine::cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let mut lines = vec![
            format!("autodidact {}  no network code", env!("CARGO_PKG_VERSION")),
            format!("cpu     {cpu}"),
            format!("        {} threads, {features}", machine::threads()),
            format!(
                "memory  {} free of {}",
                known(self.memory.available),
                known(self.memory.total)
            ),
        ];
        lines.extend(gpu_lines(&self.gpus));
        lines.extend(match &self.no_metal {
            None => Some("metal   usable, but nobody has tried it yet: --device metal".to_owned()),
            // Elsewhere nobody would look for it.
            Some(why) if cfg!(target_vendor = "apple") => Some(format!("metal   {why}")),
            Some(_) => None,
        });
        let in_cache = self.findings.len() - self.num_shapes;
        lines.push(format!("models  {in_cache} in {}", self.cache));
        let findings = self.findings.iter();
        lines.extend(findings.map(|finding| format!("  {}", told(finding))));
        for (alias, result) in &self.aliases {
            lines.push(match result {
                Ok(()) => format!("  {alias}  alias, found"),
                Err(error) => format!("  {alias}  alias, broken: {error}"),
            });
        }
        Ok(output::print_line(&lines.join("\n"))?)
    }
}

fn gpu_lines(gpus: &Result<Vec<Gpu>, String>) -> Vec<String> {
    match gpus {
        Err(why) => vec![format!("gpu     none: {why}")],
        Ok(gpus) => {
            let line = |gpu: &Gpu| {
                format!(
                    "cuda:{}  {}, compute capability {}, CUDA {} by its driver, {} free of {}",
                    gpu.number,
                    gpu.name,
                    gpu.compute_capability,
                    gpu.driver,
                    output::bytes(gpu.free_bytes),
                    output::bytes(gpu.memory_bytes),
                )
            };
            gpus.iter().map(line).collect()
        }
    }
}

/// What a model of a known shape would take, stored in 16 bits.
fn examine_shape(name: &str, memory: Memory, gpus: &[Gpu]) -> Result<Finding> {
    let located = session::locate_shape(name)?;
    let size_bytes = located.size_in_bytes()?;
    let mut finding = Finding {
        id: format!("shape {name}"),
        size_bytes,
        missing: Vec::new(),
        problem: None,
        fits: Vec::new(),
        fits_on_gpu: Vec::new(),
    };
    finding.fit(&located.model, memory, gpus);
    Ok(finding)
}

impl Finding {
    /// Finds the precisions in which a model of this config fits.
    fn fit(&mut self, config: &ModelConfig, memory: Memory, gpus: &[Gpu]) {
        let kv_bytes = KvPool::bytes_per_token(config, KvType::F16) as u64;
        let size = |load_as| footprint::weights(config, self.size_bytes, load_as).total_bytes;
        let sizes = [
            ("stored", LoadAs::Stored),
            ("q8_0", LoadAs::Q8_0),
            ("q4_k", LoadAs::Q4K),
        ]
        .map(|(name, load_as)| (name, size(load_as)));
        self.fits = fits(&sizes, kv_bytes, memory.available, SPARE_BYTES);
        let workspace = footprint::gpu_workspace_bytes(config, cuda::STEP_TOKENS, cuda::STEP_ROWS);
        let spare = workspace + footprint::GPU_SPARE_BYTES;
        let on_gpu = |gpu: &Gpu| fits(&sizes, kv_bytes, Some(gpu.free_bytes), spare);
        self.fits_on_gpu = gpus.iter().map(on_gpu).collect();
    }
}

fn examine(model: CachedModel, memory: Memory, gpus: &[Gpu]) -> Finding {
    let CachedModel {
        id,
        path,
        size_in_bytes,
        missing,
        ..
    } = model;
    let mut finding = Finding {
        id,
        size_bytes: size_in_bytes,
        missing,
        problem: None,
        fits: Vec::new(),
        fits_on_gpu: Vec::new(),
    };
    if !finding.missing.is_empty() || !path.join("config.json").exists() {
        return finding;
    }
    match ModelFiles::open(&path).and_then(|files| files.config()) {
        Err(error) => finding.problem = Some(error.to_string()),
        Ok(config) => finding.fit(&config, memory, gpus),
    }
    finding
}

/// The precisions that leave room for a KV cache; each smaller than the one before.
fn fits(
    sizes: &[(&'static str, u64)],
    kv_bytes_per_token: u64,
    available: Option<u64>,
    spare_bytes: u64,
) -> Vec<Fit> {
    let Some(available) = available else {
        return Vec::new();
    };
    let mut fits: Vec<Fit> = Vec::new();
    for &(weights, weight_bytes) in sizes {
        let rest = available
            .saturating_sub(weight_bytes)
            .saturating_sub(spare_bytes);
        let kv_tokens = rest / kv_bytes_per_token.max(1);
        let is_smaller = fits
            .last()
            .is_none_or(|last| weight_bytes < last.weight_bytes);
        if kv_tokens > 0 && is_smaller {
            fits.push(Fit {
                weights,
                weight_bytes,
                kv_tokens,
            });
        }
    }
    fits
}

fn told(finding: &Finding) -> String {
    let state = if !finding.missing.is_empty() {
        format!(
            "{} missing: {}",
            finding.missing.len(),
            shortened(&finding.missing)
        )
    } else if let Some(problem) = &finding.problem {
        format!("cannot be used: {problem}")
    } else if finding.fits.is_empty() {
        "complete, does not fit in the free memory".to_owned()
    } else {
        format!("complete, fits: {}", ways(&finding.fits))
    };
    let on_gpus = finding.fits_on_gpu.iter().enumerate().map(|(gpu, fits)| {
        let ways = match fits.is_empty() {
            true => "does not fit".to_owned(),
            false => format!("fits: {}", ways(fits)),
        };
        format!("; cuda:{gpu} {ways}")
    });
    format!(
        "{}  {}  {state}{}",
        finding.id,
        output::bytes(finding.size_bytes),
        on_gpus.collect::<String>()
    )
}

fn ways(fits: &[Fit]) -> String {
    let way = |fit: &Fit| {
        let tokens = fit.kv_tokens / 1000;
        format!("{} with {tokens}k tokens of cache", fit.weights)
    };
    fits.iter().map(way).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leaves_room_fits() {
        let sizes = [
            ("stored", 16_000_000_000),
            ("q8_0", 8_000_000_000),
            ("q4_k", 8_000_000_000),
        ];
        let names = |available| {
            fits(&sizes, 100_000, available, SPARE_BYTES)
                .iter()
                .map(|fit| fit.weights)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(Some(32_000_000_000)), ["stored", "q8_0"]);
        assert_eq!(names(Some(10_000_000_000)), ["q8_0"]);
        assert!(names(Some(8_000_000_000)).is_empty());
        assert!(names(None).is_empty());
    }

    /// What the numbers of `footprint` come to on cards that people have.
    #[test]
    fn an_8b_on_known_cards() {
        let on = |free_gib: u64| {
            let gpu = Gpu {
                number: 0,
                name: "card".into(),
                compute_capability: "9.0".into(),
                driver: "13.0".into(),
                memory_bytes: free_gib << 30,
                free_bytes: free_gib << 30,
            };
            let memory = Memory::default();
            let finding = examine_shape("llama-3.1-8b", memory, &[gpu]).unwrap();
            let fits = finding.fits_on_gpu[0].iter();
            fits.map(|fit| (fit.weights, fit.kv_tokens / 1000))
                .collect::<Vec<_>>()
        };
        // 78 GiB: 83.75 GB - 16.06 - 1.07 - 0.71 leave 65.9 GB of 131,072 bytes a token.
        assert_eq!(on(78)[0], ("stored", 502));
        // 24 GiB: 25.77 GB - 16.06 - 1.07 - 0.71 leave 7.9 GB.
        assert_eq!(on(24)[0], ("stored", 60));
        let small: Vec<_> = on(12).iter().map(|way| way.0).collect();
        assert_eq!(small, ["q8_0", "q4_k"]);
        assert!(on(4).is_empty());
    }
}
