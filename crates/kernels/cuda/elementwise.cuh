// Embedding, norms, gate, casts, rotary embedding with the write to the cache, block copies.
#pragma once
#include "quant.cuh"

// Row `tokens[row]` of the table into row `row` of out. Tokens outside of the table give zeros.
KERNEL(embed, 256, (const unsigned char* table, int format, unsigned table_rows, unsigned hidden,
                    const unsigned* tokens, float* out, unsigned stride)) {
    const unsigned row = blockIdx.x, token = tokens[row];
    const size_t values = static_cast<size_t>(table_rows) * hidden;
    for (unsigned i = threadIdx.x; i < hidden; i += blockDim.x) {
        float x = 0.0f;
        if (token < table_rows) x = weight_at(table, format, values, static_cast<size_t>(token) * hidden + i);
        out[static_cast<size_t>(row) * stride + i] = x;
    }
}

// Row `index[row]` of x into row `row` of out.
KERNEL(gather_rows, 256, (const float* x, unsigned x_stride, unsigned x_rows, const unsigned* index, unsigned columns,
                          void* out, unsigned stride, int kind)) {
    const unsigned row = blockIdx.x, from = index[row];
    for (unsigned i = threadIdx.x; i < columns; i += blockDim.x)
        store(out, static_cast<size_t>(row) * stride + i, from < x_rows ? x[static_cast<size_t>(from) * x_stride + i] : 0.0f, kind);
}

// out = x in another type.
KERNEL(cast, 256, (const void* x, unsigned x_stride, int x_kind, unsigned columns, void* out, unsigned stride, int kind)) {
    const size_t row = blockIdx.y;
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < columns) store(out, row * stride + i, load(x, row * x_stride + i, x_kind), kind);
}

// Every row of y = the bias: before a product that adds to y.
KERNEL(broadcast_bias, 256, (const float* bias, unsigned columns, float* y, unsigned stride)) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < columns) y[static_cast<size_t>(blockIdx.y) * stride + i] = bias[i];
}

// out = x / rms(x) * weight. With a residual: residual += x first, and the norm is of that.
KERNEL(rms_norm, 256, (const float* x, unsigned x_stride, float* residual, unsigned residual_stride, const float* weight,
                       float eps, unsigned hidden, void* out, unsigned stride, int kind)) {
    SHARED(float, scratch, 32);
    const size_t row = blockIdx.x;
    const float* from = x + row * x_stride;
    float squares = 0.0f;
    if (residual != nullptr) {
        float* sum = residual + row * residual_stride;
        for (unsigned i = threadIdx.x; i < hidden; i += blockDim.x) {
            const float value = from[i] + sum[i];
            sum[i] = value;
            squares = fmaf(value, value, squares);
        }
        from = sum;
    } else {
        for (unsigned i = threadIdx.x; i < hidden; i += blockDim.x) squares = fmaf(from[i], from[i], squares);
    }
    const float scale = 1.0f / sqrtf(block_sum(squares, scratch) / static_cast<float>(hidden) + eps);
    // Every thread reads what it wrote itself: no barrier is needed for the residual.
    for (unsigned i = threadIdx.x; i < hidden; i += blockDim.x) store(out, row * stride + i, from[i] * scale * weight[i], kind);
}

// out = silu(gate) * up.
KERNEL(swiglu, 256, (const float* gate, unsigned gate_stride, const float* up, unsigned up_stride, unsigned columns, void* out,
                     unsigned stride, int kind)) {
    const size_t row = blockIdx.y;
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= columns) return;
    const float g = gate[row * gate_stride + i];
    store(out, row * stride + i, g / (1.0f + expf(-g)) * up[row * up_stride + i], kind);
}

// y += x.
KERNEL(add_to, 256, (const float* x, unsigned x_stride, unsigned columns, float* y, unsigned stride)) {
    const size_t row = blockIdx.y;
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < columns) y[row * stride + i] += x[row * x_stride + i];
}

// Where q, k and v of a row lie and where they go.
struct RopeArguments {
    float* q;
    const float* k;
    const float* v;
    const float* cosines;
    const float* sines;
    const unsigned* positions;
    const unsigned* slots;
    const float* q_norm;
    const float* k_norm;
    void* k_cache;
    void* v_cache;
    unsigned q_stride, k_stride, v_stride;
    unsigned q_heads, kv_heads, head_dim, block_len, blocks, table_rows;
    float q_eps, k_eps;
    int interleaved, kind;
};

// 1 / rms of a head, over the lanes of a warp; 1 without a norm.
DEVICE float head_scale(const float* head, const float* norm, float eps, unsigned head_dim) {
    if (norm == nullptr) return 1.0f;
    float squares = 0.0f;
    for (unsigned i = threadIdx.x % 32; i < head_dim; i += 32) squares = fmaf(head[i], head[i], squares);
    return 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(head_dim) + eps);
}

// Norms (where there is one) and rotates q in place and k into its slot, copies v to its slot.
// A block for a row, a warp for a head. A slot of NONE writes nothing (a row that pads a batch).
KERNEL(rope_and_cache, 256, (RopeArguments a)) {
    const size_t row = blockIdx.x;
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const unsigned half = a.head_dim / 2, slot = a.slots[row];
    const unsigned position = min(a.positions[row], a.table_rows - 1);
    const float* cosines = a.cosines + static_cast<size_t>(position) * half;
    const float* sines = a.sines + static_cast<size_t>(position) * half;
    const bool cached = slot < a.blocks * a.block_len;
    for (unsigned head = warp; head < a.q_heads + 2 * a.kv_heads; head += warps) {
        const bool is_q = head < a.q_heads, is_k = !is_q && head < a.q_heads + a.kv_heads;
        const unsigned kv_head = is_q ? 0 : (head - a.q_heads) % a.kv_heads;
        const size_t target = ((static_cast<size_t>(slot / a.block_len) * a.kv_heads + kv_head) * a.block_len + slot % a.block_len) * a.head_dim;
        if (!is_q && !is_k) {
            const float* v = a.v + row * a.v_stride + kv_head * a.head_dim;
            for (unsigned i = lane; i < a.head_dim; i += 32)
                if (cached) store(a.v_cache, target + i, v[i], a.kind);
            continue;
        }
        const float* x = is_q ? a.q + row * a.q_stride + head * a.head_dim : a.k + row * a.k_stride + kv_head * a.head_dim;
        const float* norm = is_q ? a.q_norm : a.k_norm;
        const float scale = head_scale(x, norm, is_q ? a.q_eps : a.k_eps, a.head_dim);
        for (unsigned i = lane; i < half; i += 32) {
            const unsigned first = a.interleaved ? 2 * i : i, second = a.interleaved ? 2 * i + 1 : i + half;
            float left = x[first], right = x[second];
            if (norm != nullptr) left *= scale * norm[first], right *= scale * norm[second];
            const float c = cosines[i], s = sines[i];
            const float turned_left = left * c - right * s, turned_right = right * c + left * s;
            if (is_q) {
                float* q = a.q + row * a.q_stride + head * a.head_dim;
                q[first] = turned_left, q[second] = turned_right;
            } else if (cached) {
                store(a.k_cache, target + first, turned_left, a.kind);
                store(a.k_cache, target + second, turned_right, a.kind);
            }
        }
    }
}

// Copies blocks of `bytes` (a multiple of 16) from the first to the second of each pair, in the
// order of the pairs: a thread does the same 16 bytes of all of them.
KERNEL(copy_blocks, 256, (unsigned char* k, unsigned char* v, unsigned long long bytes, unsigned blocks, const unsigned* pairs,
                          unsigned count)) {
    const size_t at = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 16;
    if (at >= bytes) return;
    unsigned char* data = blockIdx.y == 0 ? k : v;
    for (unsigned i = 0; i < count; i++) {
        const unsigned from = pairs[2 * i], to = pairs[2 * i + 1];
        if (from >= blocks || to >= blocks) continue;
        *reinterpret_cast<uint4*>(data + to * bytes + at) = *reinterpret_cast<const uint4*>(data + from * bytes + at);
    }
}

// Reads `words` of 16 bytes and writes them elsewhere: what a device can move.
KERNEL(stream_copy, 256, (const uint4* from, uint4* to, unsigned long long words)) {
    const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
    for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < words; i += step) to[i] = from[i];
}
