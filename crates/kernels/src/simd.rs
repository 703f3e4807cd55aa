//! Sixteen floats at a time: AVX-512, AVX2 (two halves) and portable code behind one trait.
//!
//! A kernel is written once, generic over [`Simd`], and compiled for each instruction set;
//! [`dispatch`] picks the best at run time. Sixteen lanes everywhere and a fixed order of
//! every reduction make AVX-512 and AVX2 agree bit for bit; portable code differs in that a
//! multiply-add is rounded twice.
#![expect(unsafe_code, reason = "vector instructions")]

use half::f16;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen floats on their own cache line.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lanes(pub(crate) [f32; LANES]);

impl Lanes {
    /// Sixteen zeros.
    pub(crate) const ZERO: Self = Self([0.0; LANES]);
}

/// Work that is compiled once for each instruction set. `run` and all that it calls must be
/// `#[inline(always)]`, for only code inlined into the dispatcher uses the wide instructions.
pub(crate) trait Kernel {
    /// What the work gives.
    type Output;
    /// Does the work.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `kernel` on the widest instruction set this machine has.
#[inline]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = x86::Avx512::detect() {
            // SAFETY: `simd` exists only where the features do.
            return unsafe { x86::run_avx512(kernel, simd) };
        }
        if let Some(simd) = x86::Avx2::detect() {
            // SAFETY: `simd` exists only where the features do.
            return unsafe { x86::run_avx2(kernel, simd) };
        }
    }
    kernel.run(Portable)
}

/// Element types of the KV cache.
pub(crate) trait Stored: Copy + Send + Sync + 'static {
    /// The value 0.
    const ZERO: Self;
    /// Sixteen elements as floats.
    fn load<S: Simd>(simd: S, data: &[Self; LANES]) -> S::F;
    /// Sixteen floats rounded to nearest, ties to even.
    fn store<S: Simd>(simd: S, x: S::F, out: &mut [Self; LANES]);
}

impl Stored for f32 {
    const ZERO: Self = 0.0;
    #[inline(always)]
    fn load<S: Simd>(simd: S, data: &[Self; LANES]) -> S::F {
        simd.load(data)
    }
    #[inline(always)]
    fn store<S: Simd>(simd: S, x: S::F, out: &mut [Self; LANES]) {
        simd.store(x, out);
    }
}

impl Stored for f16 {
    const ZERO: Self = f16::ZERO;
    #[inline(always)]
    fn load<S: Simd>(simd: S, data: &[Self; LANES]) -> S::F {
        simd.load_f16(data)
    }
    #[inline(always)]
    fn store<S: Simd>(simd: S, x: S::F, out: &mut [Self; LANES]) {
        simd.store_f16(x, out);
    }
}

/// The instructions that the kernels need. Methods are lane by lane unless they say otherwise.
pub(crate) trait Simd: Copy {
    /// Sixteen floats.
    type F: Copy;
    /// The same value in every lane.
    fn splat(self, value: f32) -> Self::F;
    /// Sixteen floats from memory.
    fn load(self, data: &[f32; LANES]) -> Self::F;
    /// Sixteen half floats from memory, widened.
    fn load_f16(self, data: &[f16; LANES]) -> Self::F;
    /// To memory.
    fn store(self, x: Self::F, out: &mut [f32; LANES]);
    /// To memory as half floats, rounded to nearest, ties to even.
    fn store_f16(self, x: Self::F, out: &mut [f16; LANES]);
    /// a + b
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// a - b
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a / b
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; `b` if either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` if either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The nearest integer, ties to even; for |x| < 2^22.
    fn round(self, x: Self::F) -> Self::F;
    /// 2^n for integers n in -126..=127.
    fn exp2_int(self, n: Self::F) -> Self::F;
    /// `then` where the pair's first is below its second, else `otherwise` (also for NaN).
    fn select_lt(self, pair: (Self::F, Self::F), then: Self::F, otherwise: Self::F) -> Self::F;

    /// One bit for each lane, the lowest for the first: whether `a` is below `b`.
    fn mask_lt(self, a: Self::F, b: Self::F) -> u16;

    /// The same four floats in every quarter.
    #[inline(always)]
    fn splat_quarter(self, quarter: &[f32; 4]) -> Self::F {
        let full: [f32; LANES] = std::array::from_fn(|i| quarter[i % 4]);
        self.load(&full)
    }

    /// A 4 x 4 transpose of quarters: quarter `i` of result `j` is quarter `j` of `m[i]`.
    #[inline(always)]
    fn transpose_quarters(self, m: [Self::F; 4]) -> [Self::F; 4] {
        let mut rows = [[0.0; LANES]; 4];
        for (row, x) in rows.iter_mut().zip(m) {
            self.store(x, row);
        }
        let mut out = m;
        for (j, out) in out.iter_mut().enumerate() {
            let column: [f32; LANES] = std::array::from_fn(|i| rows[i / 4][4 * j + i % 4]);
            *out = self.load(&column);
        }
        out
    }

    /// Lane `4 * i + j` is the sum of quarter `i` of `m[j]`, as (0 + 2) + (1 + 3).
    #[inline(always)]
    fn sum_quarters(self, m: [Self::F; 4]) -> Self::F {
        let mut rows = [[0.0; LANES]; 4];
        for (row, x) in rows.iter_mut().zip(m) {
            self.store(x, row);
        }
        let sums: [f32; LANES] = std::array::from_fn(|lane| {
            let (row, at) = (&rows[lane % 4], lane / 4 * 4);
            (row[at] + row[at + 2]) + (row[at + 1] + row[at + 3])
        });
        self.load(&sums)
    }

    /// Asks for what lies there to be brought to the cache; changes nothing.
    #[inline(always)]
    fn prefetch<T>(self, _: &[T]) {}

    /// Fewer than sixteen floats; the other lanes are zero.
    #[inline(always)]
    fn load_part(self, data: &[f32]) -> Self::F {
        let mut full = [0.0; LANES];
        full[..data.len()].copy_from_slice(data);
        self.load(&full)
    }

    /// The first `out.len()` lanes.
    #[inline(always)]
    fn store_part(self, x: Self::F, out: &mut [f32]) {
        let mut full = [0.0; LANES];
        self.store(x, &mut full);
        out.copy_from_slice(&full[..out.len()]);
    }

    /// The sum of all lanes, always in the order of one tree: halves, quarters, pairs.
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        let mut v = [0.0; LANES];
        self.store(x, &mut v);
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                v[i] += v[i + width];
            }
            width /= 2;
        }
        v[0]
    }

    /// The largest lane; unspecified if one is NaN.
    #[inline(always)]
    fn max_lane(self, x: Self::F) -> f32 {
        let mut v = [0.0; LANES];
        self.store(x, &mut v);
        v.iter()
            .fold(f32::NEG_INFINITY, |a, &b| if a > b { a } else { b })
    }

    /// e^x, within 1.1 units in the last place (measured on a million floats);
    /// 0 below -87.33 (where the result would be subnormal), infinity above 88.37,
    /// NaN for NaN. The one exponential of all kernels.
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        let (lowest, highest) = (self.splat(-87.33), self.splat(88.37));
        // In this order of operands NaN passes through both.
        let clamped = self.min(highest, self.max(lowest, x));
        let n = self.round(self.mul(clamped, self.splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts, the first with so few bits that n * LN2_HIGH is exact.
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let r = self.mul_add(n, self.splat(-LN2_HIGH), clamped);
        let r = self.mul_add(n, self.splat(-LN2_LOW), r);
        // Taylor's series to r^7: |r| <= ln(2) / 2, so that what is left out is below 6e-9.
        let mut p = self.splat(1.0 / 5040.0);
        for c in [
            1.0 / 720.0,
            1.0 / 120.0,
            1.0 / 24.0,
            1.0 / 6.0,
            0.5,
            1.0,
            1.0,
        ] {
            p = self.mul_add(p, r, self.splat(c));
        }
        let y = self.mul(p, self.exp2_int(n));
        let y = self.select_lt((x, lowest), self.splat(0.0), y);
        self.select_lt((highest, x), self.splat(f32::INFINITY), y)
    }
}

/// Plain Rust, for machines without the instructions below and as their twin in tests.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type F = [f32; LANES];
    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [value; LANES]
    }
    #[inline(always)]
    fn load(self, data: &[f32; LANES]) -> Self::F {
        *data
    }
    #[inline(always)]
    fn load_f16(self, data: &[f16; LANES]) -> Self::F {
        std::array::from_fn(|i| data[i].to_f32())
    }
    #[inline(always)]
    fn store(self, x: Self::F, out: &mut [f32; LANES]) {
        *out = x;
    }
    #[inline(always)]
    fn store_f16(self, x: Self::F, out: &mut [f16; LANES]) {
        *out = x.map(f16::from_f32);
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        // Adding 1.5 * 2^23 leaves no bits for the fraction.
        const SHIFT: f32 = 12_582_912.0;
        std::array::from_fn(|i| (x[i] + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn exp2_int(self, n: Self::F) -> Self::F {
        std::array::from_fn(|i| f32::from_bits(((n[i] as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    fn select_lt(self, (a, b): (Self::F, Self::F), then: Self::F, otherwise: Self::F) -> Self::F {
        std::array::from_fn(|i| if a[i] < b[i] { then[i] } else { otherwise[i] })
    }
    #[inline(always)]
    fn mask_lt(self, a: Self::F, b: Self::F) -> u16 {
        (0..LANES).fold(0, |mask, i| mask | u16::from(a[i] < b[i]) << i)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation on fixed inputs, results one after another.
    struct Everything;

    impl Kernel for Everything {
        type Output = Vec<[f32; LANES]>;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Self::Output {
            let a: [f32; LANES] = std::array::from_fn(|i| i as f32 * 1.25 - 7.5);
            let b: [f32; LANES] = std::array::from_fn(|i| 3.0 - i as f32 * 0.5);
            let halves: [f16; LANES] = a.map(f16::from_f32);
            let mut nan = a;
            nan[3] = f32::NAN;
            let (x, y, n) = (simd.load(&a), simd.load(&b), simd.load(&nan));
            let mut results = vec![
                simd.add(x, y),
                simd.sub(x, y),
                simd.mul(x, y),
                simd.div(x, y),
                simd.max(n, y),
                simd.max(y, n),
                simd.min(n, y),
                simd.min(y, n),
                simd.round(x),
                simd.exp2_int(simd.round(x)),
                simd.select_lt((n, y), x, y),
                simd.select_lt((y, n), x, y),
                simd.load_f16(&halves),
                simd.load_part(&a[..5]),
                simd.splat(simd.sum(x)),
                simd.splat(simd.max_lane(y)),
                simd.mul_add(simd.round(x), simd.round(y), y),
            ];
            results
                .extend([simd.mask_lt(x, y), simd.mask_lt(n, y)].map(|m| simd.splat(f32::from(m))));
            results.push(simd.splat_quarter(&[0.5, 1.5, -2.5, 4.0]));
            let four = [x, y, simd.mul(x, y), simd.add(x, y)];
            results.extend(simd.transpose_quarters(four));
            results.push(simd.sum_quarters(four));
            let mut back = [f16::ZERO; LANES];
            simd.store_f16(simd.mul(x, simd.splat(0.1)), &mut back);
            results.push(simd.load_f16(&back));
            let store = |x: &S::F| {
                let mut out = [0.0; LANES];
                simd.store(*x, &mut out);
                out
            };
            results.iter().map(store).collect()
        }
    }

    struct Exp<'a>(&'a [f32; LANES]);

    impl Kernel for Exp<'_> {
        type Output = [f32; LANES];

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> [f32; LANES] {
            let mut out = [0.0; LANES];
            simd.store(simd.exp(simd.load(self.0)), &mut out);
            out
        }
    }

    /// The kernel on every instruction set of this machine; the first is portable.
    macro_rules! on_all {
        ($kernel:expr) => {{
            let mut results = vec![$kernel.run(Portable)];
            #[cfg(target_arch = "x86_64")]
            {
                if let Some(simd) = x86::Avx2::detect() {
                    // SAFETY: `simd` exists only where the features do.
                    results.push(unsafe { x86::run_avx2($kernel, simd) });
                }
                if let Some(simd) = x86::Avx512::detect() {
                    // SAFETY: `simd` exists only where the features do.
                    results.push(unsafe { x86::run_avx512($kernel, simd) });
                }
            }
            results
        }};
    }

    #[test]
    fn instruction_sets_agree() {
        let bits = |rows: &Vec<[f32; LANES]>| -> Vec<[u32; LANES]> {
            rows.iter()
                .map(|row| row.map(|x| if x.is_nan() { 1 } else { x.to_bits() }))
                .collect()
        };
        let results = on_all!(Everything);
        for result in &results[1..] {
            assert_eq!(bits(result), bits(&results[0]));
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for first in (0..u32::MAX).step_by(4096 * LANES + 16) {
            let x: [f32; LANES] =
                std::array::from_fn(|i| f32::from_bits(first.wrapping_add(4099 * i as u32)));
            let results = on_all!(Exp(&x));
            if let [_, avx2, avx512] = &results[..] {
                assert_eq!(avx2.map(f32::to_bits), avx512.map(f32::to_bits));
            }
            let pairs = results.iter().flat_map(|result| x.iter().zip(result));
            for (&x, &y) in pairs {
                let exact = f64::from(x).exp();
                if x.is_nan() {
                    assert!(y.is_nan());
                } else if x < -87.33 {
                    assert_eq!(y, 0.0);
                } else if x > 88.37 {
                    assert_eq!(y, f32::INFINITY);
                } else {
                    let unit = f64::from((exact as f32).next_up()) - f64::from(exact as f32);
                    worst = worst.max((f64::from(y) - exact).abs() / unit);
                }
            }
        }
        println!("worst error {worst} units in the last place");
        assert!(worst < 2.0, "{worst}");
    }
}
