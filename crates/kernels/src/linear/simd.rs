//! Loads of whole lines and the step from block sums to f32 that both integer kernels share.
#![expect(unsafe_code, reason = "vector loads from references of the right size")]

use core::arch::x86_64::*;

use super::memory::Line;
use super::packed::{Halves, TILE};

/// One line of quants.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_line(line: &Line) -> __m512i {
    // SAFETY: a line is 64 bytes on a 64-byte boundary.
    unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
}

/// Writes one line.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn store_line(line: &mut Line, value: __m512i) {
    // SAFETY: a line is 64 bytes on a 64-byte boundary.
    unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), value) }
}

/// 16 halves as floats.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_halves(halves: &Halves) -> __m512 {
    // SAFETY: 32 bytes are readable.
    _mm512_cvtph_ps(unsafe { _mm256_load_si256(halves.0.as_ptr().cast()) })
}

/// 16 bytes, zero-extended to 32 bits.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_u8(bytes: &[u8; TILE]) -> __m512i {
    // SAFETY: 16 bytes are readable.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// 16 bytes, sign-extended to 32 bits.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_i8(bytes: &[i8; TILE]) -> __m512i {
    // SAFETY: 16 bytes are readable.
    _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// 16 pairs of bytes, zero-extended to 16 bits each.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(super) fn load_pairs(bytes: &[[u8; 2]; TILE]) -> __m512i {
    // SAFETY: 32 bytes are readable.
    _mm512_cvtepu8_epi16(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
}

/// 16 words.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_words(words: &[i32; TILE]) -> __m512i {
    // SAFETY: 64 bytes are readable.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// 16 floats.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_floats(floats: &[f32; TILE]) -> __m512 {
    // SAFETY: 64 bytes are readable.
    unsafe { _mm512_loadu_ps(floats.as_ptr()) }
}

/// Writes 16 floats.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn store_floats(floats: &mut [f32; TILE], value: __m512) {
    // SAFETY: 64 bytes are writable.
    unsafe { _mm512_storeu_ps(floats.as_mut_ptr(), value) }
}

/// Q8_0: adds one 32-block, `sum` exact, to the output.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn add_q8(acc: __m512, sum: __m512i, d: __m512, scale: f32) -> __m512 {
    let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), d);
    _mm512_fmadd_ps(product, _mm512_set1_ps(scale), acc)
}

/// Q4_K: adds one 256-block; `total` is the integer sum of scale * quant * activation, rounded
/// once to f32, `mins` that of minimum * activation.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn add_q4(
    acc: __m512,
    total: __m512,
    mins: __m512i,
    d: [__m512; 2],
    scale: f32,
) -> __m512 {
    let product = _mm512_fnmadd_ps(d[1], _mm512_cvtepi32_ps(mins), _mm512_mul_ps(d[0], total));
    _mm512_fmadd_ps(product, _mm512_set1_ps(scale), acc)
}

/// Q6_K: adds one 256-block; `total` is the integer sum of scale * quant * activation.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn add_q6(acc: __m512, total: __m512i, d: __m512, scale: f32) -> __m512 {
    let product = _mm512_mul_ps(d, _mm512_cvtepi32_ps(total));
    _mm512_fmadd_ps(product, _mm512_set1_ps(scale), acc)
}

/// Adds the products of the four words of 16-bit minima and sums.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
pub(super) fn min_sums(mins: &[__m512i; 4], sums: [i32; 4]) -> __m512i {
    let mut total = _mm512_setzero_si512();
    for (&mins, sums) in mins.iter().zip(sums) {
        total = _mm512_dpwssd_epi32(total, mins, _mm512_set1_epi32(sums));
    }
    total
}

/// The two groups of four values that a line of nibbles holds: low, high.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn nibbles(line: __m512i) -> [__m512i; 2] {
    let mask = _mm512_set1_epi32(0x0f0f_0f0f);
    [
        _mm512_and_si512(line, mask),
        _mm512_and_si512(_mm512_srli_epi32::<4>(line), mask),
    ]
}

/// The four groups of four values, 0 ..= 63, of 16 values of Q6_K.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn q6_groups(lines: &[Line; 3]) -> [__m512i; 4] {
    const LOW_OR_MASKED: i32 = 0xf8; // a | (b & c)
    let [g0, g2] = nibbles(load_line(&lines[0]));
    let [g1, g3] = nibbles(load_line(&lines[1]));
    let high = load_line(&lines[2]);
    let mask = _mm512_set1_epi32(0x3030_3030);
    [
        _mm512_ternarylogic_epi32::<LOW_OR_MASKED>(g0, _mm512_slli_epi32::<4>(high), mask),
        _mm512_ternarylogic_epi32::<LOW_OR_MASKED>(g1, _mm512_slli_epi32::<2>(high), mask),
        _mm512_ternarylogic_epi32::<LOW_OR_MASKED>(g2, high, mask),
        _mm512_ternarylogic_epi32::<LOW_OR_MASKED>(g3, _mm512_srli_epi32::<2>(high), mask),
    ]
}
