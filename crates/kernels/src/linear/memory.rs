//! Aligned buffers.
#![expect(unsafe_code, reason = "huge pages are asked of the kernel")]

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
