//! The files of the data: written beside, renamed when whole.

use crate::call_log::LoggedRow;
use crate::error::PipelineError;
use data::Verdict;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Rows that were not accepted.
pub const REJECTED_FILE: &str = "rejected.jsonl";

/// Open files of one export.
pub(crate) struct Writers {
    folder: PathBuf,
    files: BTreeMap<String, BufWriter<File>>,
}

impl Writers {
    pub(crate) fn open(folder: PathBuf, files: &[&str]) -> Result<Self, PipelineError> {
        fs::create_dir_all(&folder).map_err(PipelineError::io("make", &folder))?;
        let mut writers = Self {
            folder,
            files: BTreeMap::new(),
        };
        for name in files.iter().copied().chain([REJECTED_FILE]) {
            writers.file(name)?;
        }
        Ok(writers)
    }

    /// Writes the records of a row, and its rejection.
    pub(crate) fn write(&mut self, row: &LoggedRow) -> Result<(), PipelineError> {
        for record in &row.outcome.records {
            self.line(&record.file, &record.value)?;
        }
        let Verdict::Rejected(rejection) = &row.outcome.verdict else {
            return Ok(());
        };
        let line = json!({
            "id": row.id, "stage": rejection.stage, "reason": rejection.reason,
            "detail": rejection.detail,
        });
        self.line(REJECTED_FILE, &line)
    }

    /// Makes every file whole and gives it its name.
    pub(crate) fn finish(self) -> Result<(), PipelineError> {
        for (name, file) in self.files {
            let (partial, path) = (partial(&self.folder, &name), self.folder.join(&name));
            let file = file
                .into_inner()
                .map_err(std::io::IntoInnerError::into_error)
                .map_err(PipelineError::io("write", &partial))?;
            file.sync_all()
                .map_err(PipelineError::io("write", &partial))?;
            fs::rename(&partial, &path).map_err(PipelineError::io("write", &path))?;
        }
        Ok(())
    }

    fn line(&mut self, name: &str, value: &impl Serialize) -> Result<(), PipelineError> {
        let path = partial(&self.folder, name);
        let file = self.file(name)?;
        let written = serde_json::to_writer(&mut *file, value)
            .map_err(std::io::Error::from)
            .and_then(|()| file.write_all(b"\n"));
        written.map_err(PipelineError::io("write", &path))
    }

    fn file(&mut self, name: &str) -> Result<&mut BufWriter<File>, PipelineError> {
        if !self.files.contains_key(name) {
            let path = partial(&self.folder, name);
            let file = File::create(&path).map_err(PipelineError::io("write", &path))?;
            self.files.insert(name.to_owned(), BufWriter::new(file));
        }
        Ok(self.files.get_mut(name).expect("inserted above"))
    }
}

fn partial(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.partial"))
}
