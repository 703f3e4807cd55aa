//! What a model is, as a digest: equal digests give equal texts for equal requests.
//!
//! The digest covers the weights, the text side (tokenizer, template, its date and
//! variables), what the weights and the KV cache are held as, and the adapter. Weights of
//! many gigabytes are not read whole: of a file larger than [`WHOLE_FILE_BYTES`] the size,
//! both ends (all headers are there) and [`SAMPLES`] pieces spread evenly are taken.

use crate::args::ModelArgs;
use crate::config::Config;
use crate::devices::{Determinism, Devices};
use crate::embedded;
use crate::session::{EMBEDDED, Located};
use anyhow::{Context, Result};
use model::GgufFile;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Files up to this size are read whole.
const WHOLE_FILE_BYTES: u64 = 64 << 20;
/// Pieces taken of a larger file, both ends among them.
const SAMPLES: u64 = 64;
/// Size of a piece.
const SAMPLE_BYTES: u64 = 256 << 10;

/// Configuration keys that change what a model writes.
const KEYS: [&str; 2] = ["engine.quant", "engine.kv_dtype"];

/// Digest of a model as it is configured, without adapters; 32 hexadecimal digits.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn of_model(located: &Located, args: &ModelArgs, config: &Config) -> Result<String> {
    let mut digest = Digest::new("model");
    for path in weight_files(located)? {
        digest.file(&path)?;
    }
    if located.name == EMBEDDED {
        digest.field("embedded", embedded::GGUF);
    }
    if located.shape().is_some() {
        digest.field("shape", located.name.as_bytes());
    }
    for key in KEYS {
        let value = config.value_as_text(key).unwrap_or_default();
        digest.field(key, value.as_bytes());
    }
    if let Some(device) = Devices::of(config)?.identity(Determinism::of(config)) {
        digest.field("device", device.as_bytes());
    }
    for (name, path) in [
        ("tokenizer", &args.tokenizer),
        ("chat_template", &args.chat_template),
    ] {
        if let Some(path) = path {
            digest.field(name, b"");
            digest.file(path)?;
        }
    }
    digest.field("date", args.date.as_deref().unwrap_or_default().as_bytes());
    for (name, value) in &args.template_var {
        digest.field(name, value.as_bytes());
    }
    Ok(digest.finish())
}

/// Digest of a model with the adapter in `folder` above it.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn with_adapter(model: &str, folder: &Path) -> Result<String> {
    let mut digest = Digest::new("adapter");
    digest.field("model", model.as_bytes());
    for path in files_of(folder)? {
        digest.file(&path)?;
    }
    Ok(digest.finish())
}

/// Every file that belongs to the model, in a fixed order.
fn weight_files(located: &Located) -> Result<Vec<PathBuf>> {
    if located.name == EMBEDDED || located.shape().is_some() {
        return Ok(Vec::new());
    }
    let path = located.files.path();
    if path.is_dir() {
        return files_of(path);
    }
    Ok(GgufFile::open(path)?.paths().map(Path::to_owned).collect())
}

/// The files of a folder that say what a model or an adapter is, by name.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read {}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let matters = path.extension().is_some_and(|end| {
            end == "safetensors" || end == "json" || end == "jinja" || end == "model"
        });
        if matters && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A hash of named fields that cannot run into each other.
struct Digest(blake3::Hasher);

impl Digest {
    fn new(kind: &str) -> Self {
        let mut digest = Self(blake3::Hasher::new());
        digest.field("kind", kind.as_bytes());
        digest
    }

    fn field(&mut self, name: &str, value: &[u8]) {
        for bytes in [name.as_bytes(), value] {
            self.0.update(&(bytes.len() as u64).to_le_bytes());
            self.0.update(bytes);
        }
    }

    /// Size and content, or pieces of it; where it lies does not matter.
    fn file(&mut self, path: &Path) -> Result<()> {
        let cannot = || format!("cannot read {}", path.display());
        let mut file = File::open(path).with_context(cannot)?;
        let size = file.metadata().with_context(cannot)?.len();
        self.field("file", &size.to_le_bytes());
        if size <= WHOLE_FILE_BYTES {
            self.0.update_reader(file).with_context(cannot)?;
            return Ok(());
        }
        let mut piece = vec![0; SAMPLE_BYTES as usize];
        for sample in 0..SAMPLES {
            let at = (size - SAMPLE_BYTES) / (SAMPLES - 1) * sample;
            file.seek(SeekFrom::Start(at)).with_context(cannot)?;
            file.read_exact(&mut piece).with_context(cannot)?;
            self.0.update(&piece);
        }
        file.seek(SeekFrom::Start(size - SAMPLE_BYTES))
            .with_context(cannot)?;
        file.read_exact(&mut piece).with_context(cannot)?;
        self.0.update(&piece);
        Ok(())
    }

    fn finish(self) -> String {
        self.0.finalize().to_hex()[..32].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(path: &Path) -> String {
        let mut digest = Digest::new("test");
        digest.file(path).unwrap();
        digest.finish()
    }

    #[test]
    fn content_counts_and_name_and_time_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.json"), folder.path().join("b.json"));
        std::fs::write(&a, "one").unwrap();
        let first = digest_of(&a);
        std::fs::write(&a, "one").unwrap();
        assert_eq!(digest_of(&a), first);
        std::fs::write(&a, "two").unwrap();
        assert_ne!(digest_of(&a), first);
        std::fs::write(&b, "one").unwrap();
        assert_eq!(digest_of(&b), first);
    }

    #[test]
    fn both_ends_of_a_large_file_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.safetensors");
        let file = File::create(&path).unwrap();
        file.set_len(WHOLE_FILE_BYTES + 12_345).unwrap();
        let blank = digest_of(&path);
        for at in [0, WHOLE_FILE_BYTES + 12_344] {
            use std::os::unix::fs::FileExt;
            file.write_all_at(b"x", at).unwrap();
            assert_ne!(digest_of(&path), blank, "byte {at}");
            file.write_all_at(b"\0", at).unwrap();
        }
        assert_eq!(digest_of(&path), blank);
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let of = |fields: &[(&str, &[u8])]| {
            let mut digest = Digest::new("test");
            fields
                .iter()
                .for_each(|(name, value)| digest.field(name, value));
            digest.finish()
        };
        assert_ne!(of(&[("ab", b"c")]), of(&[("a", b"bc")]));
        assert_ne!(of(&[("a", b""), ("b", b"")]), of(&[("a", b"b")]));
    }
}
