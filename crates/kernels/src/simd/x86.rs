//! AVX-512 and AVX2. A value of [`Avx512`] or [`Avx2`] proves that the machine has the
//! instructions: `detect` is the only way to one.

use super::{Kernel, LANES, Simd};
use half::f16;
use std::arch::x86_64::*;

/// Proof that AVX-512 F, BW, DQ, VL, AVX2, FMA and F16C are there.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// `Some` where the machine has the instructions.
    #[inline(always)]
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && Avx2::detect().is_some();
        found.then_some(Self(()))
    }
}

/// Proof that AVX2, FMA and F16C are there.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// `Some` where the machine has the instructions.
    #[inline(always)]
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }
}

/// Runs a kernel compiled for AVX-512.
///
/// # Safety
/// The machine has the features (a value of [`Avx512`] says so).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(crate) unsafe fn run_avx512<K: Kernel>(kernel: K, simd: Avx512) -> K::Output {
    kernel.run(simd)
}

/// Runs a kernel compiled for AVX2.
///
/// # Safety
/// The machine has the features (a value of [`Avx2`] says so).
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn run_avx2<K: Kernel>(kernel: K, simd: Avx2) -> K::Output {
    kernel.run(simd)
}

impl Simd for Avx512 {
    type F = __m512;
    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    fn load(self, data: &[f32; LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512; sixteen floats are readable; no alignment is asked.
        unsafe { _mm512_loadu_ps(data.as_ptr()) }
    }
    #[inline(always)]
    fn load_f16(self, data: &[f16; LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512; 32 bytes are readable; no alignment is asked.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(data.as_ptr().cast())) }
    }
    #[inline(always)]
    fn store(self, x: __m512, out: &mut [f32; LANES]) {
        // SAFETY: `self` proves AVX-512; sixteen floats are writable; no alignment is asked.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn store_f16(self, x: __m512, out: &mut [f16; LANES]) {
        // SAFETY: `self` proves AVX-512; 32 bytes are writable; no alignment is asked.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtps_ph::<0x08>(x)) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn round(self, x: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_roundscale_ps::<0x08>(x) }
    }
    #[inline(always)]
    fn exp2_int(self, n: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
    }
    #[inline(always)]
    fn select_lt(self, (a, b): (__m512, __m512), then: __m512, otherwise: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), otherwise, then) }
    }
    #[inline(always)]
    fn max_lane(self, x: __m512) -> f32 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_reduce_max_ps(x) }
    }
    #[inline(always)]
    fn mask_lt(self, a: __m512, b: __m512) -> u16 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }
    #[inline(always)]
    fn splat_quarter(self, quarter: &[f32; 4]) -> __m512 {
        // SAFETY: `self` proves AVX-512; four floats are readable; no alignment is asked.
        unsafe { _mm512_broadcast_f32x4(_mm_loadu_ps(quarter.as_ptr())) }
    }
    #[inline(always)]
    fn transpose_quarters(self, [a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let low_ab = _mm512_shuffle_f32x4::<0x44>(a, b);
            let high_ab = _mm512_shuffle_f32x4::<0xEE>(a, b);
            let low_cd = _mm512_shuffle_f32x4::<0x44>(c, d);
            let high_cd = _mm512_shuffle_f32x4::<0xEE>(c, d);
            [
                _mm512_shuffle_f32x4::<0x88>(low_ab, low_cd),
                _mm512_shuffle_f32x4::<0xDD>(low_ab, low_cd),
                _mm512_shuffle_f32x4::<0x88>(high_ab, high_cd),
                _mm512_shuffle_f32x4::<0xDD>(high_ab, high_cd),
            ]
        }
    }
    #[inline(always)]
    fn sum_quarters(self, [a, b, c, d]: [__m512; 4]) -> __m512 {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            let (even, odd) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
            _mm512_add_ps(_mm512_castpd_ps(even), _mm512_castpd_ps(odd))
        }
    }
    #[inline(always)]
    fn prefetch<T>(self, data: &[T]) {
        prefetch(data);
    }
}

/// Asks for every cache line of `data`.
#[inline(always)]
fn prefetch<T>(data: &[T]) {
    const LINE: usize = 64;
    let start: *const i8 = data.as_ptr().cast();
    for offset in (0..size_of_val(data)).step_by(LINE) {
        // SAFETY: every x86-64 has the instruction, and the address is inside of `data`.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(offset)) }
    }
}

/// Both halves of a vector through one AVX2 instruction.
macro_rules! halves {
    ($op:expr, $($x:expr),+) => {{
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { [$op($($x[0]),+), $op($($x[1]),+)] }
    }};
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_set1_ps(value); 2] }
    }
    #[inline(always)]
    fn load(self, data: &[f32; LANES]) -> Self::F {
        // SAFETY: `self` proves AVX2; sixteen floats are readable; no alignment is asked.
        unsafe {
            [
                _mm256_loadu_ps(data.as_ptr()),
                _mm256_loadu_ps(data[8..].as_ptr()),
            ]
        }
    }
    #[inline(always)]
    fn load_f16(self, data: &[f16; LANES]) -> Self::F {
        // SAFETY: `self` proves F16C; 2 x 16 bytes are readable; no alignment is asked.
        unsafe {
            let low = _mm_loadu_si128(data.as_ptr().cast());
            let high = _mm_loadu_si128(data[8..].as_ptr().cast());
            [_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)]
        }
    }
    #[inline(always)]
    fn store(self, x: Self::F, out: &mut [f32; LANES]) {
        // SAFETY: `self` proves AVX2; sixteen floats are writable; no alignment is asked.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(out[8..].as_mut_ptr(), x[1]);
        }
    }
    #[inline(always)]
    fn store_f16(self, x: Self::F, out: &mut [f16; LANES]) {
        // SAFETY: `self` proves F16C; 2 x 16 bytes are writable; no alignment is asked.
        unsafe {
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_cvtps_ph::<0x00>(x[0]));
            _mm_storeu_si128(out[8..].as_mut_ptr().cast(), _mm256_cvtps_ph::<0x00>(x[1]));
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        halves!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        halves!(_mm256_round_ps::<0x08>, x)
    }
    #[inline(always)]
    fn exp2_int(self, n: Self::F) -> Self::F {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias);
            let high = _mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias);
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(high)),
            ]
        }
    }
    #[inline(always)]
    fn select_lt(self, (a, b): (Self::F, Self::F), then: Self::F, otherwise: Self::F) -> Self::F {
        let mask = halves!(_mm256_cmp_ps::<_CMP_LT_OQ>, a, b);
        halves!(_mm256_blendv_ps, otherwise, then, mask)
    }
    #[inline(always)]
    fn mask_lt(self, a: Self::F, b: Self::F) -> u16 {
        let [low, high] = halves!(_mm256_cmp_ps::<_CMP_LT_OQ>, a, b);
        // SAFETY: `self` proves AVX2.
        unsafe { (_mm256_movemask_ps(low) | _mm256_movemask_ps(high) << 8) as u16 }
    }
    #[inline(always)]
    fn splat_quarter(self, quarter: &[f32; 4]) -> Self::F {
        // SAFETY: `self` proves AVX2; four floats are readable; no alignment is asked.
        unsafe {
            [_mm256_set_m128(
                _mm_loadu_ps(quarter.as_ptr()),
                _mm_loadu_ps(quarter.as_ptr()),
            ); 2]
        }
    }
    #[inline(always)]
    fn transpose_quarters(self, [a, b, c, d]: [Self::F; 4]) -> [Self::F; 4] {
        let (ac, bd) = ([a[0], c[0]], [b[0], d[0]]);
        let first = halves!(_mm256_permute2f128_ps::<0x20>, ac, bd);
        let second = halves!(_mm256_permute2f128_ps::<0x31>, ac, bd);
        let (ac, bd) = ([a[1], c[1]], [b[1], d[1]]);
        let third = halves!(_mm256_permute2f128_ps::<0x20>, ac, bd);
        let fourth = halves!(_mm256_permute2f128_ps::<0x31>, ac, bd);
        [first, second, third, fourth]
    }
    #[inline(always)]
    fn sum_quarters(self, [a, b, c, d]: [Self::F; 4]) -> Self::F {
        let low = halves!(_mm256_unpacklo_ps, a, b);
        let ab = self.add(low, halves!(_mm256_unpackhi_ps, a, b));
        let low = halves!(_mm256_unpacklo_ps, c, d);
        let cd = self.add(low, halves!(_mm256_unpackhi_ps, c, d));
        let (ab, cd) = (halves!(_mm256_castps_pd, ab), halves!(_mm256_castps_pd, cd));
        let even = halves!(_mm256_unpacklo_pd, ab, cd);
        let odd = halves!(_mm256_unpackhi_pd, ab, cd);
        self.add(
            halves!(_mm256_castpd_ps, even),
            halves!(_mm256_castpd_ps, odd),
        )
    }
    #[inline(always)]
    fn prefetch<T>(self, data: &[T]) {
        prefetch(data);
    }
}
