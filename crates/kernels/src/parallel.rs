//! Spreading work over candle's thread pool (one pool for everything, so that kernels and
//! products do not fight for cores). Knows no kernel.
#![expect(unsafe_code, reason = "threads write disjoint parts of one output")]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Work of fewer elements than this stays on the calling thread: waking the pool costs
/// about as much as touching this many floats.
const ELEMENTS_PER_WAKEUP: usize = 16 * 1024;

/// Runs `work` on sub-ranges that cover `0..items`, on the pool if the whole touches
/// enough elements.
pub(crate) fn ranges(items: usize, elements: usize, work: impl Fn(Range<usize>) + Sync) {
    if items > 1 && elements >= ELEMENTS_PER_WAKEUP {
        candle_core::utils::barrier_pool().execute_chunked(items, work);
    } else if items > 0 {
        work(0..items);
    }
}

/// Like [`ranges`], the whole being so many multiply-adds of a product: an instruction does
/// about 32 of them.
pub(crate) fn product_ranges(items: usize, macs: usize, work: impl Fn(Range<usize>) + Sync) {
    ranges(items, macs / 32, work);
}

/// Runs `work(i, chunk)` for every chunk of `len` elements of `out` (the last may be shorter).
pub(crate) fn chunks<T: Send>(out: &mut [T], len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let total = out.len();
    if len == 0 || total == 0 {
        return;
    }
    let out = Shared::new(out);
    ranges(total.div_ceil(len), total, |range| {
        for i in range {
            let span = i * len..total.min((i + 1) * len);
            // SAFETY: `ranges` hands every `i` out once, and spans of different `i` are disjoint.
            let chunk = unsafe { out.slice(span) };
            work(i, chunk);
        }
    });
}

/// Runs `work` on every item; each is taken to be worth waking the pool for.
pub(crate) fn each<T: Send>(items: &mut [T], work: impl Fn(&mut T) + Sync) {
    let len = items.len();
    let items = Shared::new(items);
    ranges(len, len * ELEMENTS_PER_WAKEUP, |range| {
        // SAFETY: `ranges` hands every index out once.
        let part = unsafe { items.slice(range) };
        part.iter_mut().for_each(&work);
    });
}

/// Runs `work` on every index below `items`, each taken by the next thread that is free: for
/// items of very different size.
pub(crate) fn queue(items: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = candle_core::utils::get_num_threads().min(items);
    ranges(threads, threads * ELEMENTS_PER_WAKEUP, |range| {
        for _ in range {
            loop {
                let item = next.fetch_add(1, Ordering::Relaxed);
                if item >= items {
                    break;
                }
                work(item);
            }
        }
    });
}

/// Like [`chunks`] over two outputs of equal length at once.
pub(crate) fn chunks2<T: Send>(
    (a, b): (&mut [T], &mut [T]),
    len: usize,
    work: impl Fn(usize, &mut [T], &mut [T]) + Sync,
) {
    assert_eq!(a.len(), b.len(), "outputs of different lengths");
    let total = b.len();
    let b = Shared::new(b);
    chunks(a, len, |i, chunk| {
        let span = i * len..total.min((i + 1) * len);
        // SAFETY: `chunks` hands every `i` out once, and spans of different `i` are disjoint.
        let other = unsafe { b.slice(span) };
        work(i, chunk, other);
    });
}

/// A mutable slice that several threads write, each its own part.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the parts are handed out by an unsafe function whose caller keeps them disjoint,
// so that sending a `Shared` sends nothing but `&mut [T]`.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Wraps `data` for the length of its borrow.
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self {
            start: data.as_mut_ptr(),
            len: data.len(),
            _borrow: PhantomData,
        }
    }

    /// The part of the slice at `range`.
    ///
    /// # Safety
    /// No two parts that are alive at the same time overlap.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps the parts disjoint")]
    #[inline(always)]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "part outside of the slice"
        );
        // SAFETY: inside of the borrowed slice (checked above), disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
