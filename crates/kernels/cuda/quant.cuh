// Weights of any format as floats. Q8_0 and Q6_K lie in planes (the host takes the blocks of a
// file apart) so that loads are aligned: scales behind all integers. Q4_K lies as in a file.
#pragma once
#include "common.cuh"

// Scale and minimum of the sub-block `i` of a Q4_K block: six bits each, packed in 12 bytes.
DEVICE void q4_k_scale(const unsigned char* packed, int i, float& scale, float& minimum) {
    int s, m;
    if (i < 4) {
        s = packed[i] & 63, m = packed[i + 4] & 63;
    } else {
        s = (packed[i + 4] & 15) | (packed[i - 4] >> 6) << 4;
        m = packed[i + 4] >> 4 | (packed[i] >> 6) << 4;
    }
    scale = static_cast<float>(s), minimum = static_cast<float>(m);
}

DEVICE unsigned short load_u16(const unsigned char* at) { return *reinterpret_cast<const unsigned short*>(at); }

DEVICE float q8_0_at(const unsigned char* base, size_t values, size_t i) {
    const float scale = half_bits_to_float(load_u16(base + values + i / 32 * 2));
    return scale * static_cast<float>(static_cast<signed char>(base[i]));
}

DEVICE float q4_k_at(const unsigned char* base, size_t i) {
    const unsigned char* block = base + i / 256 * 144;
    const int within = i % 256, sub = within / 32;
    float scale, minimum;
    q4_k_scale(block + 4, sub, scale, minimum);
    const int byte = block[16 + within / 64 * 32 + within % 32], q = sub % 2 == 0 ? byte & 15 : byte >> 4;
    return half_bits_to_float(load_u16(block)) * scale * static_cast<float>(q) - half_bits_to_float(load_u16(block + 2)) * minimum;
}

// The planes of Q6_K: low four bits (128 bytes a block), high two (64), scales (16), then d.
DEVICE float q6_k_at(const unsigned char* base, size_t values, size_t i) {
    const size_t blocks = values / 256, block = i / 256;
    const int within = i % 256, half = within / 128, quarter = within % 128 / 32, l = within % 32;
    const int low = base[block * 128 + half * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
    const int high = base[blocks * 128 + block * 64 + half * 32 + l] >> (quarter * 2) & 3;
    const float scale = static_cast<float>(static_cast<signed char>(base[blocks * 192 + block * 16 + within / 16]));
    const float d = half_bits_to_float(load_u16(base + blocks * 208 + block * 2));
    return d * scale * static_cast<float>((low | high << 4) - 32);
}

// One weight, in any format; `values`: how many the whole matrix has.
DEVICE float weight_at(const unsigned char* base, int format, size_t values, size_t i) {
    switch (format) {
    case FORMAT_F32: return reinterpret_cast<const float*>(base)[i];
    case FORMAT_F16: return to_float(reinterpret_cast<const f16*>(base)[i]);
    case FORMAT_BF16: return to_float(reinterpret_cast<const bf16*>(base)[i]);
    case FORMAT_Q8_0: return q8_0_at(base, values, i);
    case FORMAT_Q4_K: return q4_k_at(base, i);
    default: return q6_k_at(base, values, i);
    }
}

// A unit is 16 weights of a row that are cheap to unpack together: two runs of eight columns.
template <int FORMAT> DEVICE void unit_columns(unsigned unit, unsigned& first, unsigned& second) {
    if constexpr (FORMAT == FORMAT_Q4_K) {
        first = unit / 4 * 64 + unit % 4 * 8, second = first + 32;
    } else {
        first = unit * 16, second = first + 8;
    }
}

DEVICE void bytes_of(uint2 words, unsigned char (&out)[8]) {
#pragma unroll
    for (int i = 0; i < 4; i++) out[i] = words.x >> (8 * i) & 255, out[i + 4] = words.y >> (8 * i) & 255;
}
DEVICE void bytes_of(uint4 words, unsigned char (&out)[16]) {
    const unsigned word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 16; i++) out[i] = word[i / 4] >> (i % 4 * 8) & 255;
}

DEVICE void q8_0_unit(const unsigned char* base, size_t values, size_t row_start, unsigned unit, float (&out)[16]) {
    const size_t at = row_start + unit * 16;
    unsigned char q[16];
    bytes_of(*reinterpret_cast<const uint4*>(base + at), q);
    const float scale = half_bits_to_float(load_u16(base + values + at / 32 * 2));
#pragma unroll
    for (int i = 0; i < 16; i++) out[i] = scale * static_cast<float>(static_cast<signed char>(q[i]));
}

DEVICE void q4_k_unit(const unsigned char* base, size_t row_start, unsigned unit, float (&out)[16]) {
    const unsigned char* block = base + (row_start / 256 + unit / 16) * 144;
    const int chunk = unit % 16 / 4;
    float scale[2], minimum[2];
    q4_k_scale(block + 4, 2 * chunk, scale[0], minimum[0]);
    q4_k_scale(block + 4, 2 * chunk + 1, scale[1], minimum[1]);
    const float d = half_bits_to_float(load_u16(block)), least = half_bits_to_float(load_u16(block + 2));
    unsigned char q[8];
    bytes_of(*reinterpret_cast<const uint2*>(block + 16 + chunk * 32 + unit % 4 * 8), q);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        out[i] = d * scale[0] * static_cast<float>(q[i] & 15) - least * minimum[0];
        out[i + 8] = d * scale[1] * static_cast<float>(q[i] >> 4) - least * minimum[1];
    }
}

DEVICE void q6_k_unit(const unsigned char* base, size_t values, size_t row_start, unsigned unit, float (&out)[16]) {
    const size_t blocks = values / 256, block = row_start / 256 + unit / 16;
    const int within = unit % 16 * 16, half = within / 128, quarter = within % 128 / 32, l = within % 32;
    unsigned char low[16], high[16];
    bytes_of(*reinterpret_cast<const uint4*>(base + block * 128 + half * 64 + quarter % 2 * 32 + l), low);
    bytes_of(*reinterpret_cast<const uint4*>(base + blocks * 128 + block * 64 + half * 32 + l), high);
    const float scale = static_cast<float>(static_cast<signed char>(base[blocks * 192 + block * 16 + within / 16]));
    const float d = half_bits_to_float(load_u16(base + blocks * 208 + block * 2)) * scale;
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int q = (low[i] >> (quarter / 2 * 4) & 15) | (high[i] >> (quarter * 2) & 3) << 4;
        out[i] = d * static_cast<float>(q - 32);
    }
}

template <class T> DEVICE void dense_unit(const T* row, unsigned columns, unsigned unit, float (&out)[16]) {
    // Rows whose length is not a multiple of 16 are not aligned, and their last unit is cut.
    if (columns % 16 == 0) {
        load_run(row + unit * 16, out);
    } else {
#pragma unroll
        for (int i = 0; i < 16; i++) out[i] = unit * 16 + i < columns ? to_float(row[unit * 16 + i]) : 0.0f;
    }
}

// Unit `unit` of the row that starts at the value `row_start` of a matrix of `values`.
template <int FORMAT>
DEVICE void weight_unit(const unsigned char* base, size_t values, size_t row_start, unsigned columns, unsigned unit, float (&out)[16]) {
    if constexpr (FORMAT == FORMAT_F32) dense_unit(reinterpret_cast<const float*>(base) + row_start, columns, unit, out);
    if constexpr (FORMAT == FORMAT_F16) dense_unit(reinterpret_cast<const f16*>(base) + row_start, columns, unit, out);
    if constexpr (FORMAT == FORMAT_BF16) dense_unit(reinterpret_cast<const bf16*>(base) + row_start, columns, unit, out);
    if constexpr (FORMAT == FORMAT_Q8_0) q8_0_unit(base, values, row_start, unit, out);
    if constexpr (FORMAT == FORMAT_Q4_K) q4_k_unit(base, row_start, unit, out);
    if constexpr (FORMAT == FORMAT_Q6_K) q6_k_unit(base, values, row_start, unit, out);
}
