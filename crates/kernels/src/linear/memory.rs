//! Aligned buffers and the pointer through which threads write disjoint parts of one buffer.
#![expect(
    unsafe_code,
    reason = "huge pages are asked of the kernel, threads write disjoint parts"
)]

use std::marker::PhantomData;

/// One cache line of packed bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u8; 64]);

impl Line {
    pub(super) const ZERO: Self = Self([0; 64]);
}

/// `len` copies of `fill`, on huge pages where the system grants them: weights are read end to
/// end, and the processor's prefetchers stop at page boundaries.
pub(super) fn huge_vec<T: Copy>(len: usize, fill: T) -> Vec<T> {
    let mut buffer: Vec<T> = Vec::with_capacity(len);
    advise_huge(&buffer);
    buffer.resize(len, fill);
    buffer
}

#[cfg(target_os = "linux")]
fn advise_huge<T>(buffer: &Vec<T>) {
    const PAGE: usize = 4096;
    let bytes = buffer.capacity() * size_of::<T>();
    if bytes < 4 << 20 {
        return;
    }
    let start = (buffer.as_ptr() as usize).next_multiple_of(PAGE);
    let end = (buffer.as_ptr() as usize + bytes) / PAGE * PAGE;
    // SAFETY: the range lies inside an allocation we own; the advice does not change its contents.
    // A refusal is harmless, so the result is not looked at.
    unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge<T>(_buffer: &Vec<T>) {}

/// A slice that several threads write at once, each its own elements.
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `slice`, whose callers promise that no two threads overlap.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above; the pointer carries no thread-bound state.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            owner: PhantomData,
        }
    }

    /// The elements `at .. at + len`.
    ///
    /// # Safety
    /// No other live slice of this buffer, on any thread, may overlap the range.
    #[expect(
        clippy::mut_from_ref,
        reason = "that is the point; the caller keeps ranges disjoint"
    )]
    pub(super) unsafe fn slice(&self, at: usize, len: usize) -> &mut [T] {
        assert!(
            at <= self.len && len <= self.len - at,
            "{at}+{len} of {}",
            self.len
        );
        // SAFETY: the range was just checked; the caller promises that nobody else holds it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}
