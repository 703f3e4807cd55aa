//! Small matrix products on one thread, over strided views of slices.
#![expect(
    unsafe_code,
    reason = "the product takes pointers; views are checked first"
)]

use gemm::Parallelism;

/// A matrix inside a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) data: &'a [f32],
    /// (rows, columns)
    pub(super) shape: (usize, usize),
    /// From one row to the next, and from one column to the next.
    pub(super) strides: (usize, usize),
}

impl<'a> View<'a> {
    /// `rows` rows of `columns` values that start `stride` values apart.
    pub(super) fn rows(data: &'a [f32], shape: (usize, usize), stride: usize) -> Self {
        Self {
            data,
            shape,
            strides: (stride, 1),
        }
    }

    /// Rows become columns.
    pub(super) fn transposed(self) -> Self {
        Self {
            data: self.data,
            shape: (self.shape.1, self.shape.0),
            strides: (self.strides.1, self.strides.0),
        }
    }

    fn check(&self) {
        let ((rows, columns), (down, right)) = (self.shape, self.strides);
        if rows > 0 && columns > 0 {
            let last = (rows - 1) * down + (columns - 1) * right;
            assert!(last < self.data.len(), "a view that leaves its slice");
        }
    }
}

/// What happens to the values that the output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    Overwrite,
    Add,
}

/// `out` (m, n) row-major (plus)= `scale` * a (m, k) * b (k, n).
///
/// # Panics
/// Shapes that do not fit, a view that leaves its slice.
pub(super) fn product(out: &mut [f32], into: Into, scale: f32, a: View<'_>, b: View<'_>) {
    let ((m, k), (k_of_b, n)) = (a.shape, b.shape);
    assert_eq!(k, k_of_b, "inner dimensions");
    assert_eq!(out.len(), m * n, "length of the output");
    a.check();
    b.check();
    if m == 0 || n == 0 {
        return;
    }
    let signed = |stride: usize| isize::try_from(stride).expect("strides of slices fit");
    let (add, alpha) = match into {
        Into::Overwrite => (false, 0.0),
        Into::Add => (true, 1.0),
    };
    // SAFETY: every element of the three views lies inside of its slice (checked above), and
    // `out` is borrowed mutably, so that it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            signed(n),
            add,
            a.data.as_ptr(),
            signed(a.strides.1),
            signed(a.strides.0),
            b.data.as_ptr(),
            signed(b.strides.1),
            signed(b.strides.0),
            alpha,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
