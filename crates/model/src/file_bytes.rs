//! The bytes of a model file: mapped, compiled into the program, or owned.
//!
//! Holds the crate's only `unsafe`: mapping a file and giving mapped pages back.

use crate::ModelError;
use memmap2::Mmap;
use std::ops::Range;
use std::path::Path;

/// Bytes of one file that live as long as this value.
#[derive(Debug)]
pub(crate) enum FileBytes {
    Mapped(Mmap),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

impl FileBytes {
    /// Maps a file read-only.
    ///
    /// # Errors
    /// The file cannot be opened or mapped.
    #[expect(
        unsafe_code,
        reason = "mapping a file is unsafe because another process may change it"
    )]
    pub(crate) fn map(path: &Path) -> Result<Self, ModelError> {
        let file =
            std::fs::File::open(path).map_err(|source| ModelError::io(path, "open", source))?;
        // SAFETY: the mapping is read-only and private to this value; as with every mapped
        // model file, whoever shrinks or rewrites it while it is in use breaks the run.
        let map = unsafe { Mmap::map(&file) };
        map.map(Self::Mapped)
            .map_err(|source| ModelError::io(path, "map", source))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    /// Tells the system that the pages wholly inside `range` are not needed for now, so that
    /// they stop counting as resident; reading them again fetches them from the file. A hint:
    /// nothing happens for bytes that are not mapped, or where the system has no such call.
    #[cfg(unix)]
    #[expect(
        unsafe_code,
        reason = "memmap2 cannot know that the mapping is backed by a file"
    )]
    pub(crate) fn release(&self, range: Range<usize>) {
        const PAGE: usize = 64 * 1024; // a multiple of every page size in use
        let Self::Mapped(map) = self else { return };
        let start = range.start.next_multiple_of(PAGE);
        let end = range.end.min(map.len()) / PAGE * PAGE;
        if start >= end {
            return;
        }
        // SAFETY: the pages are an unmodified read-only mapping of a file, so a later read,
        // through any reference, sees the same bytes again.
        let advised = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
        };
        if let Err(error) = advised {
            tracing::debug!(%error, "pages were not released");
        }
    }

    /// No such hint on this system.
    #[cfg(not(unix))]
    pub(crate) fn release(&self, _range: Range<usize>) {}
}
