//! A file that appears under its name when it is whole, or not at all.

use crate::ModelError;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// The file on its way, under a name of its own until it is finished. Dropped before, it is
/// removed.
#[derive(Debug)]
pub(super) struct Output {
    target: PathBuf,
    beside: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
}

impl Output {
    /// # Errors
    /// The file exists already, or the folder cannot be written to.
    pub(super) fn create(target: &Path) -> Result<Self, ModelError> {
        refuse_existing(target)?;
        let mut name = target.as_os_str().to_owned();
        name.push(".partial");
        let beside = PathBuf::from(name);
        let file =
            File::create(&beside).map_err(|source| ModelError::io(&beside, "write", source))?;
        Ok(Self {
            target: target.into(),
            beside,
            file: BufWriter::with_capacity(1 << 20, file),
            bytes: 0,
        })
    }

    fn failed(&self, source: io::Error) -> ModelError {
        ModelError::io(&self.target, "write", source)
    }

    /// # Errors
    /// The system's, a full disk for one; it names the file asked for.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        self.file
            .write_all(bytes)
            .map_err(|source| ModelError::io(&self.target, "write", source))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Gives the file its name; how many bytes it has.
    ///
    /// # Errors
    /// As [`Output::write`], and a file that has appeared under the name meanwhile.
    pub(super) fn finish(mut self) -> Result<u64, ModelError> {
        self.file.flush().map_err(|source| self.failed(source))?;
        let synced = self.file.get_ref().sync_all();
        synced.map_err(|source| self.failed(source))?;
        refuse_existing(&self.target)?;
        fs::rename(&self.beside, &self.target).map_err(|source| self.failed(source))?;
        Ok(self.bytes)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Gone already if it was finished; the error that led here matters more than this one's.
        drop(fs::remove_file(&self.beside));
    }
}

fn refuse_existing(target: &Path) -> Result<(), ModelError> {
    match target.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ModelError::io(target, "write", source)),
        Ok(_) => Err(ModelError::io(
            target,
            "write",
            io::ErrorKind::AlreadyExists.into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("m.gguf");
        let count = || fs::read_dir(folder.path()).unwrap().count();
        let mut output = Output::create(&target).unwrap();
        output.write(b"half").unwrap();
        assert!(!target.exists());
        drop(output);
        assert_eq!(count(), 0);
        let mut output = Output::create(&target).unwrap();
        output.write(b"who").unwrap();
        output.write(b"le").unwrap();
        assert_eq!(output.finish().unwrap(), 5);
        assert_eq!(
            (fs::read(&target).unwrap(), count()),
            (b"whole".to_vec(), 1)
        );
        let refused = Output::create(&target).unwrap_err().to_string();
        assert!(
            refused.contains("m.gguf") && refused.contains("exists"),
            "{refused}"
        );
        assert_eq!(fs::read(&target).unwrap(), b"whole");
    }

    #[test]
    fn a_full_disk_is_named() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            eprintln!("skipped: this system has no /dev/full");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("m.gguf");
        let mut output = Output::create(&target).unwrap();
        output.file = BufWriter::new(File::options().write(true).open(full).unwrap());
        output.write(&[0; 100]).unwrap();
        let error = output.finish().unwrap_err().to_string();
        assert!(
            error.contains("m.gguf") && error.contains("space"),
            "{error}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
