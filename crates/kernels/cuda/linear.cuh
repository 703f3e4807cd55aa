// Products with weights in any format: y (rows, outputs) = x (rows, columns) times w transposed.
#pragma once
#include "quant.cuh"

struct ProductArguments {
    const unsigned char* weights;
    const float* bias; // or null
    const void* x;
    float* y;
    unsigned x_stride, y_stride, rows, columns, outputs;
    int x_kind;
    int x_aligned; // whether x can be read 16 bytes at a time
};

// Sixteen activations: eight from the column `first`, eight from `second`.
DEVICE void activation_unit(const ProductArguments& a, size_t row, unsigned first, unsigned second, float (&out)[16]) {
    const size_t start = row * a.x_stride;
    if (!a.x_aligned) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            out[i] = first + i < a.columns ? load(a.x, start + first + i, a.x_kind) : 0.0f;
            out[i + 8] = second + i < a.columns ? load(a.x, start + second + i, a.x_kind) : 0.0f;
        }
        return;
    }
    float left[8], right[8];
    if (a.x_kind == KIND_F32) {
        load_run(static_cast<const float*>(a.x) + start + first, left);
        load_run(static_cast<const float*>(a.x) + start + second, right);
    } else {
        load_run(static_cast<const bf16*>(a.x) + start + first, left);
        load_run(static_cast<const bf16*>(a.x) + start + second, right);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = left[i], out[i + 8] = right[i];
}

// Few rows: a warp reads FEATURES rows of the weights once for ROWS rows of x. The sum of an
// output is in the same order for any number of rows.
template <int FORMAT, int ROWS, int FEATURES> DEVICE void product_of_few(const ProductArguments& a) {
    const unsigned warp = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    const unsigned feature = warp * FEATURES, first_row = blockIdx.y * ROWS;
    if (feature >= a.outputs) return;
    const size_t values = static_cast<size_t>(a.outputs) * a.columns;
    float sums[FEATURES][ROWS] = {};
    const unsigned units = (a.columns + 15) / 16;
    for (unsigned unit = lane; unit < units; unit += 32) {
        unsigned first, second;
        unit_columns<FORMAT>(unit, first, second);
        float w[FEATURES][16];
#pragma unroll
        for (int f = 0; f < FEATURES; f++) {
            const size_t row = min(feature + f, a.outputs - 1);
            weight_unit<FORMAT>(a.weights, values, row * a.columns, a.columns, unit, w[f]);
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (first_row + r >= a.rows) break;
            float x[16];
            activation_unit(a, first_row + r, first, second, x);
#pragma unroll
            for (int f = 0; f < FEATURES; f++)
#pragma unroll
                for (int i = 0; i < 16; i++) sums[f][r] = fmaf(w[f][i], x[i], sums[f][r]);
        }
    }
#pragma unroll
    for (int f = 0; f < FEATURES; f++) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const float sum = warp_sum(sums[f][r]);
            if (lane == 0 && feature + f < a.outputs && first_row + r < a.rows)
                a.y[static_cast<size_t>(first_row + r) * a.y_stride + feature + f] = sum + (a.bias != nullptr ? a.bias[feature + f] : 0.0f);
        }
    }
}

#define FEW(NAME, FORMAT)                                                                        \
    KERNEL(few_##NAME##_1, 128, (ProductArguments a)) { product_of_few<FORMAT, 1, 2>(a); }        \
    KERNEL(few_##NAME##_2, 128, (ProductArguments a)) { product_of_few<FORMAT, 2, 2>(a); }        \
    KERNEL(few_##NAME##_4, 128, (ProductArguments a)) { product_of_few<FORMAT, 4, 4>(a); }        \
    KERNEL(few_##NAME##_8, 128, (ProductArguments a)) { product_of_few<FORMAT, 8, 4>(a); }
FEW(f32, FORMAT_F32)
FEW(f16, FORMAT_F16)
FEW(bf16, FORMAT_BF16)
FEW(q8_0, FORMAT_Q8_0)
FEW(q4_k, FORMAT_Q4_K)
FEW(q6_k, FORMAT_Q6_K)
#undef FEW

constexpr int TILE = 64;          // rows, outputs and columns of a step of a tile
constexpr int TILE_STRIDE = 72;   // bf16 elements between rows: shifts the banks
constexpr int RESULT_STRIDE = 68; // floats between rows of the results

DEVICE void store_unit(__nv_bfloat16* row, unsigned first, unsigned second, const float (&x)[16]) {
    unsigned short* bits = reinterpret_cast<unsigned short*>(row);
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        *reinterpret_cast<unsigned*>(bits + first + i) = float_to_bf16_bits(x[i]) | static_cast<unsigned>(float_to_bf16_bits(x[i + 1])) << 16;
        *reinterpret_cast<unsigned*>(bits + second + i) = float_to_bf16_bits(x[i + 8]) | static_cast<unsigned>(float_to_bf16_bits(x[i + 9])) << 16;
    }
}

// 64 rows by 64 outputs on tensor cores, in steps of 64 columns: both sides as bf16 in shared
// memory, sums in f32. Four warps make a quarter each. An output's sum is in the order of the
// columns wherever its row lies and however many rows there are.
template <int FORMAT> DEVICE void product_tile(const ProductArguments& a, float* memory) {
    using namespace nvcuda;
    __nv_bfloat16* xs = reinterpret_cast<__nv_bfloat16*>(memory);
    __nv_bfloat16* ws = xs + TILE * TILE_STRIDE;
    const unsigned first_row = blockIdx.y * TILE, first_output = blockIdx.x * TILE;
    const unsigned warp = threadIdx.x / 32, down = warp / 2 * 32, right = warp % 2 * 32;
    const size_t values = static_cast<size_t>(a.outputs) * a.columns;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums[2][2];
    for (int i = 0; i < 4; i++) wmma::fill_fragment(sums[i / 2][i % 2], 0.0f);
    for (unsigned step = 0; step < a.columns; step += TILE) {
        __syncthreads();
#pragma unroll
        for (unsigned i = threadIdx.x; i < TILE * 4; i += 128) {
            const unsigned line = i / 4, part = i % 4, unit = step / 16 + part;
            float x[16] = {};
            if (first_row + line < a.rows && unit * 16 < a.columns) activation_unit(a, first_row + line, unit * 16, unit * 16 + 8, x);
            store_unit(xs + line * TILE_STRIDE, part * 16, part * 16 + 8, x);
            float w[16] = {};
            const size_t output = first_output + line;
            if (output < a.outputs && unit * 16 < a.columns) weight_unit<FORMAT>(a.weights, values, output * a.columns, a.columns, unit, w);
            unsigned first, second;
            unit_columns<FORMAT>(part, first, second);
            store_unit(ws + line * TILE_STRIDE, first, second, w);
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < TILE; k += 16) {
            wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> left[2];
            wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::col_major> other[2];
            for (int i = 0; i < 2; i++) {
                wmma::load_matrix_sync(left[i], xs + (down + 16 * i) * TILE_STRIDE + k, TILE_STRIDE);
                wmma::load_matrix_sync(other[i], ws + (right + 16 * i) * TILE_STRIDE + k, TILE_STRIDE);
            }
            for (int i = 0; i < 4; i++) wmma::mma_sync(sums[i / 2][i % 2], left[i / 2], other[i % 2], sums[i / 2][i % 2]);
        }
    }
    __syncthreads();
    for (int i = 0; i < 4; i++)
        wmma::store_matrix_sync(memory + (down + i / 2 * 16) * RESULT_STRIDE + right + i % 2 * 16, sums[i / 2][i % 2], RESULT_STRIDE, wmma::mem_row_major);
    __syncthreads();
    for (unsigned i = threadIdx.x; i < TILE * TILE; i += 128) {
        const unsigned row = first_row + i / TILE, output = first_output + i % TILE;
        if (row < a.rows && output < a.outputs)
            a.y[static_cast<size_t>(row) * a.y_stride + output] = memory[i / TILE * RESULT_STRIDE + i % TILE] + (a.bias != nullptr ? a.bias[output] : 0.0f);
    }
}

#define TILED(NAME, FORMAT)                           \
    KERNEL(tile_##NAME, 128, (ProductArguments a)) {   \
        SHARED(float, memory, TILE * TILE_STRIDE);     \
        product_tile<FORMAT>(a, memory);               \
    }
TILED(f16, FORMAT_F16)
TILED(bf16, FORMAT_BF16)
TILED(q8_0, FORMAT_Q8_0)
TILED(q4_k, FORMAT_Q4_K)
TILED(q6_k, FORMAT_Q6_K)
#undef TILED

// `count` rows of weights from `first_row` on, for a product by cuBLAS: a thread unpacks a unit.
// `weight_rows`: of the whole matrix. Columns are a multiple of 16; out is bf16 or f32.
struct UnpackArguments {
    const unsigned char* weights;
    void* out;
    unsigned weight_rows, columns, first_row, count, stride;
    int kind;
};

template <int FORMAT> DEVICE void unpack_weights(const UnpackArguments& a) {
    const unsigned units = a.columns / 16;
    const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x, row = at / units;
    if (row >= a.count) return;
    const unsigned unit = static_cast<unsigned>(at % units);
    unsigned first, second;
    unit_columns<FORMAT>(unit, first, second);
    float w[16];
    weight_unit<FORMAT>(a.weights, static_cast<size_t>(a.weight_rows) * a.columns, (a.first_row + row) * a.columns, a.columns, unit, w);
    if (a.kind == KIND_BF16 && a.stride % 2 == 0 && reinterpret_cast<size_t>(a.out) % 4 == 0) {
        store_unit(static_cast<__nv_bfloat16*>(a.out) + row * a.stride, first, second, w);
        return;
    }
#pragma unroll
    for (int i = 0; i < 16; i++) store(a.out, row * a.stride + (i < 8 ? first + i : second + i - 8), w[i], a.kind);
}

#define UNPACK(NAME, FORMAT) \
    KERNEL(unpack_##NAME, 256, (UnpackArguments a)) { unpack_weights<FORMAT>(a); }
UNPACK(f16, FORMAT_F16)
UNPACK(q8_0, FORMAT_Q8_0)
UNPACK(q4_k, FORMAT_Q4_K)
UNPACK(q6_k, FORMAT_Q6_K)
#undef UNPACK
