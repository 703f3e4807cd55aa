// Attention over the paged cache: k and v (blocks, kv heads, block length, D). A span is the rows
// of one sequence in a step: rows starts[s]..starts[s + 1] at the last positions of a context of
// contexts[s] tokens, whose blocks are list[block_starts[s]..block_starts[s + 1]].
#pragma once
#include "common.cuh"

struct AttentionArguments {
    const float* q;
    const void* k;
    const void* v;
    const unsigned* starts;
    const unsigned* contexts;
    const unsigned* block_starts;
    const unsigned* list;
    float* partial;
    void* out;
    unsigned q_stride, out_stride, spans, heads, kv_heads, block_len, pool_blocks, splits, window;
    float scale;
    int out_kind;
};

constexpr unsigned SPLIT = 256; // positions of a split: fixed, so that a row's sums are

// Where the D elements of one key of a span start; a block outside of the pool reads its last.
DEVICE size_t key_offset(const AttentionArguments& a, const unsigned* blocks, unsigned position, unsigned kv_head, unsigned head_dim) {
    const unsigned block = min(blocks[position / a.block_len], a.pool_blocks - 1);
    return ((static_cast<size_t>(block) * a.kv_heads + kv_head) * a.block_len + position % a.block_len) * head_dim;
}

// The span that holds a row: the last that starts at or before it.
DEVICE unsigned span_of(const AttentionArguments& a, unsigned row) {
    unsigned low = 0, high = a.spans;
    while (low + 1 < high) {
        const unsigned middle = (low + high) / 2;
        if (a.starts[middle] <= row) low = middle;
        else high = middle;
    }
    return low;
}

// Where a block's part of the result goes: to out if nothing is split, else beside the largest
// score and the sum of the weights for `combine_splits`.
template <int D> DEVICE void write_part(const AttentionArguments& a, unsigned head, unsigned d, float sum, float largest, float total) {
    const unsigned index = blockIdx.z, row = a.starts[0] + index;
    if (a.splits == 1) {
        store(a.out, static_cast<size_t>(row) * a.out_stride + head * D + d, total > 0.0f || total != total ? sum / total : 0.0f, a.out_kind);
        return;
    }
    float* part = a.partial + ((static_cast<size_t>(index) * a.heads + head) * a.splits + blockIdx.x) * (D + 2);
    part[d] = sum;
    if (d == 0) part[D] = largest, part[D + 1] = total;
}

// One row, one split of its context, up to HEADS query heads of one KV head: eight threads share a
// key, 16 keys are under way at once. Works for any rows; made for one row per sequence.
template <class T, int D, int HEADS> struct RowAttention {
    static constexpr int PART = D / 8;
    const AttentionArguments& a;
    float* scores; // (HEADS, SPLIT), then weights
    float* sums;   // (4 warps, HEADS, D)
    float* stats;  // (HEADS, 2): largest score, sum of weights
    const unsigned* blocks;
    unsigned row, first_head, heads, kv_head, low, high;

    DEVICE_MEMBER bool place() {
        const unsigned group = a.heads / a.kv_heads, chunks = (group + HEADS - 1) / HEADS;
        kv_head = blockIdx.y / chunks;
        const unsigned chunk = blockIdx.y % chunks;
        first_head = kv_head * group + chunk * HEADS;
        heads = min(group - chunk * HEADS, static_cast<unsigned>(HEADS));
        row = a.starts[0] + blockIdx.z;
        if (row >= a.starts[a.spans]) return false;
        const unsigned span = span_of(a, row);
        blocks = a.list + a.block_starts[span];
        const unsigned visible = a.contexts[span] - (a.starts[span + 1] - 1 - row);
        low = a.window != 0 && visible > a.window ? visible - a.window : 0;
        low = max(low, blockIdx.x * SPLIT), high = min(visible, (blockIdx.x + 1) * SPLIT);
        // More context than splits: say so loudly.
        if (blockIdx.x + 1 == a.splits && visible > a.splits * SPLIT) high = NONE;
        return true;
    }

    DEVICE_MEMBER void score() {
        const unsigned part = threadIdx.x % 8, group = threadIdx.x / 8;
        float q[HEADS][PART];
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            const unsigned head = first_head + min(static_cast<unsigned>(h), heads - 1);
#pragma unroll
            for (int i = 0; i < PART; i++) q[h][i] = a.q[static_cast<size_t>(row) * a.q_stride + head * D + part * PART + i] * a.scale;
        }
#pragma unroll 2
        for (unsigned at = 0; at < SPLIT; at += 16) {
            const unsigned key = blockIdx.x * SPLIT + at + group;
            const bool seen = key >= low && key < high;
            float dots[HEADS] = {};
            if (seen) {
                float k[PART];
                load_run(static_cast<const T*>(a.k) + key_offset(a, blocks, key, kv_head, D) + part * PART, k);
#pragma unroll
                for (int h = 0; h < HEADS; h++)
#pragma unroll
                    for (int i = 0; i < PART; i++) dots[h] = fmaf(q[h][i], k[i], dots[h]);
            }
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
#pragma unroll
                for (int step = 4; step > 0; step /= 2) dots[h] += __shfl_xor_sync(WHOLE_WARP, dots[h], step);
                if (part == 0) scores[h * SPLIT + at + group] = seen ? dots[h] : -INFINITE;
            }
        }
    }

    DEVICE_MEMBER void weigh() {
        const unsigned lane = threadIdx.x % 32;
        for (int h = threadIdx.x / 32; h < HEADS; h += 4) {
            float largest = -INFINITE, total = 0.0f;
            for (unsigned i = lane; i < SPLIT; i += 32) largest = fmaxf(largest, scores[h * SPLIT + i]);
            largest = warp_max(largest);
            for (unsigned i = lane; i < SPLIT; i += 32) {
                const float weight = expf(scores[h * SPLIT + i] - largest);
                scores[h * SPLIT + i] = weight;
                total += weight;
            }
            total = warp_sum(total);
            if (lane == 0) stats[2 * h] = largest, stats[2 * h + 1] = total;
        }
    }

    DEVICE_MEMBER void gather() {
        const unsigned part = threadIdx.x % 8, group = threadIdx.x / 8;
        float out[HEADS][PART] = {};
#pragma unroll 2
        for (unsigned at = 0; at < SPLIT; at += 16) {
            const unsigned key = blockIdx.x * SPLIT + at + group;
            if (key < low || key >= high) continue;
            float v[PART];
            load_run(static_cast<const T*>(a.v) + key_offset(a, blocks, key, kv_head, D) + part * PART, v);
#pragma unroll
            for (int h = 0; h < HEADS; h++)
#pragma unroll
                for (int i = 0; i < PART; i++) out[h][i] = fmaf(scores[h * SPLIT + at + group], v[i], out[h][i]);
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++)
#pragma unroll
            for (int i = 0; i < PART; i++) {
                out[h][i] += __shfl_xor_sync(WHOLE_WARP, out[h][i], 8);
                out[h][i] += __shfl_xor_sync(WHOLE_WARP, out[h][i], 16);
                if (threadIdx.x % 32 < 8) sums[(threadIdx.x / 32 * HEADS + h) * D + part * PART + i] = out[h][i];
            }
    }

    DEVICE_MEMBER void run() {
        if (!place()) return;
        if (low >= high || high == NONE) {
            const float nothing = high == NONE ? INFINITE - INFINITE : 0.0f;
            for (unsigned i = threadIdx.x; i < heads * D; i += 128) write_part<D>(a, first_head + i / D, i % D, nothing, -INFINITE, nothing);
            return;
        }
        score();
        __syncthreads();
        weigh();
        __syncthreads();
        gather();
        __syncthreads();
        for (unsigned i = threadIdx.x; i < heads * D; i += 128) {
            float sum = 0.0f;
            for (int warp = 0; warp < 4; warp++) sum += sums[(warp * HEADS + i / D) * D + i % D];
            write_part<D>(a, first_head + i / D, i % D, sum, stats[i / D * 2], stats[i / D * 2 + 1]);
        }
    }
};

#define ATTEND_ROWS(NAME, T, D, HEADS)                                    \
    KERNEL(attend_rows_##NAME##_##D##_##HEADS, 128, (AttentionArguments a)) { \
        SHARED(float, scores, HEADS * SPLIT);                              \
        SHARED(float, sums, 4 * HEADS * D);                                \
        SHARED(float, stats, 2 * HEADS);                                   \
        RowAttention<T, D, HEADS>{a, scores, sums, stats}.run();           \
    }
#define ATTEND_ROWS_OF(NAME, T)                                                                 \
    ATTEND_ROWS(NAME, T, 16, 1) ATTEND_ROWS(NAME, T, 32, 1) ATTEND_ROWS(NAME, T, 64, 1)           \
    ATTEND_ROWS(NAME, T, 96, 1) ATTEND_ROWS(NAME, T, 128, 1) ATTEND_ROWS(NAME, T, 16, 4)          \
    ATTEND_ROWS(NAME, T, 32, 4) ATTEND_ROWS(NAME, T, 64, 4) ATTEND_ROWS(NAME, T, 96, 4)           \
    ATTEND_ROWS(NAME, T, 128, 4)
ATTEND_ROWS_OF(f32, float)
ATTEND_ROWS_OF(f16, f16)
ATTEND_ROWS_OF(bf16, bf16)
ATTEND_ROWS_OF(f8, f8)

// Puts the splits of every row and head together, in their order.
KERNEL(combine_splits, 128, (AttentionArguments a, unsigned head_dim)) {
    const unsigned head = blockIdx.y, index = blockIdx.z, row = a.starts[0] + index;
    if (row >= a.starts[a.spans]) return;
    const float* parts = a.partial + (static_cast<size_t>(index) * a.heads + head) * a.splits * (head_dim + 2);
    float largest = -INFINITE;
    for (unsigned s = 0; s < a.splits; s++) largest = fmaxf(largest, parts[s * (head_dim + 2) + head_dim]);
    for (unsigned d = threadIdx.x; d < head_dim; d += blockDim.x) {
        float sum = 0.0f, total = 0.0f;
        for (unsigned s = 0; s < a.splits; s++) {
            const float* part = parts + s * (head_dim + 2);
            if (part[head_dim + 1] == 0.0f) continue;
            const float factor = expf(part[head_dim] - largest);
            sum = fmaf(part[d], factor, sum), total = fmaf(part[head_dim + 1], factor, total);
        }
        store(a.out, static_cast<size_t>(row) * a.out_stride + head * head_dim + d, total > 0.0f || total != total ? sum / total : 0.0f, a.out_kind);
    }
}

// 64 rows of one span and one query head on tensor cores: 16 rows a warp, 64 keys a step, aligned
// to 64 so that a row's sums do not depend on how a prompt was cut. Weights are rounded to bf16.
template <class T, int D> struct TileAttention {
    static constexpr int KEYS = 64, KV_STRIDE = D + 8, SCORE_STRIDE = 68, WEIGHT_STRIDE = 72;
    static constexpr int CHUNK = D < 64 ? D : 64; // columns of the result that pass through the scores' memory at once
    using Accumulator = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float>;
    using Left = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, __nv_bfloat16, nvcuda::wmma::row_major>;
    const AttentionArguments& a;
    __nv_bfloat16* kv;      // (KEYS, KV_STRIDE)
    float* scores;          // (64, SCORE_STRIDE)
    __nv_bfloat16* weights; // (64, WEIGHT_STRIDE)
    const unsigned* blocks;
    unsigned first_row, rows, first_position, head, kv_head, warp, lane;
    Left q[D / 16];
    Accumulator out[D / 16];
    float largest, total; // of row lane / 2 of the warp, in both its lanes

    DEVICE_MEMBER bool place() {
        const unsigned span = blockIdx.z, length = a.starts[span + 1] - a.starts[span];
        if (blockIdx.x * 64 >= length) return false;
        first_row = a.starts[span] + blockIdx.x * 64;
        rows = min(length - blockIdx.x * 64, 64u);
        first_position = a.contexts[span] - length + blockIdx.x * 64;
        blocks = a.list + a.block_starts[span];
        head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
        warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        return true;
    }

    DEVICE_MEMBER void load_queries() {
        unsigned short* bits = reinterpret_cast<unsigned short*>(kv);
        for (unsigned i = threadIdx.x; i < 64 * D; i += 128) {
            const unsigned row = i / D, d = i % D;
            const float x = row < rows ? a.q[static_cast<size_t>(first_row + row) * a.q_stride + head * D + d] : 0.0f;
            bits[row * KV_STRIDE + d] = float_to_bf16_bits(x);
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < D / 16; i++) nvcuda::wmma::load_matrix_sync(q[i], kv + warp * 16 * KV_STRIDE + i * 16, KV_STRIDE);
        __syncthreads();
    }

    // Keys or values of the positions first..first + 64; zeros outside of begin..end.
    DEVICE_MEMBER void load_tile(const void* cache, unsigned first, unsigned begin, unsigned end) {
        for (unsigned i = threadIdx.x; i < KEYS * (D / 8); i += 128) {
            const unsigned key = i / (D / 8), d = i % (D / 8) * 8;
            uint4 words = {0, 0, 0, 0};
            if (first + key >= begin && first + key < end) {
                const T* from = static_cast<const T*>(cache) + key_offset(a, blocks, first + key, kv_head, D) + d;
                if constexpr (SAME_TYPE(T, bf16)) {
                    words = *reinterpret_cast<const uint4*>(from);
                } else {
                    float x[8];
                    load_run(from, x);
                    words.x = pair(x[0], x[1]), words.y = pair(x[2], x[3]), words.z = pair(x[4], x[5]), words.w = pair(x[6], x[7]);
                }
            }
            *reinterpret_cast<uint4*>(kv + key * KV_STRIDE + d) = words;
        }
    }
    DEVICE_MEMBER unsigned pair(float low, float high) {
        return float_to_bf16_bits(low) | static_cast<unsigned>(float_to_bf16_bits(high)) << 16;
    }

    DEVICE_MEMBER void score() {
#pragma unroll
        for (int n = 0; n < KEYS; n += 16) {
            Accumulator sum;
            nvcuda::wmma::fill_fragment(sum, 0.0f);
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, __nv_bfloat16, nvcuda::wmma::col_major> key;
                nvcuda::wmma::load_matrix_sync(key, kv + n * KV_STRIDE + i * 16, KV_STRIDE);
                nvcuda::wmma::mma_sync(sum, q[i], key, sum);
            }
            nvcuda::wmma::store_matrix_sync(scores + warp * 16 * SCORE_STRIDE + n, sum, SCORE_STRIDE, nvcuda::wmma::mem_row_major);
        }
    }

    // Scores become weights; two lanes share a row. Returns what earlier sums are multiplied with.
    DEVICE_MEMBER float weigh(unsigned first) {
        const unsigned row = warp * 16 + lane / 2, column = lane % 2 * 32, position = first_position + row;
        const float* from = scores + row * SCORE_STRIDE + column;
        unsigned short* to = reinterpret_cast<unsigned short*>(weights) + row * WEIGHT_STRIDE + column;
        // Keys that the row sees: first + column + i for i in low..high.
        const unsigned end = row < rows ? position + 1 : 0;
        const unsigned begin = a.window != 0 && end > a.window ? end - a.window : 0;
        const unsigned low = begin > first + column ? begin - first - column : 0;
        const unsigned high = end > first + column ? end - first - column : 0;
        float top = largest;
        for (unsigned i = 0; i < 32; i++)
            if (i >= low && i < high) top = fmaxf(top, from[i] * a.scale);
        top = fmaxf(top, __shfl_xor_sync(WHOLE_WARP, top, 1));
        const float factor = largest == top || total == 0.0f ? 1.0f : expf(largest - top);
        float sum = 0.0f;
        for (unsigned i = 0; i < 32; i++) {
            bf16 weight;
            from_float(i >= low && i < high ? expf(from[i] * a.scale - top) : 0.0f, weight);
            to[i] = weight.bits;
            sum += to_float(weight);
        }
        sum += __shfl_xor_sync(WHOLE_WARP, sum, 1);
        total = fmaf(total, factor, sum), largest = top;
        return factor;
    }

    // Multiplies every row of the result with its factor, or hands it to `write`: a fragment's
    // layout is unknown, so it goes through the warp's own part of the scores' memory.
    DEVICE_MEMBER void scale_rows(float factor, bool write) {
        float* own = scores + warp * 16 * SCORE_STRIDE;
#pragma unroll
        for (int chunk = 0; chunk < D; chunk += CHUNK) {
            __syncwarp();
#pragma unroll
            for (int n = 0; n < CHUNK; n += 16)
                if (chunk + n < D) nvcuda::wmma::store_matrix_sync(own + n, out[(chunk + n) / 16], SCORE_STRIDE, nvcuda::wmma::mem_row_major);
            __syncwarp();
            const unsigned row = lane / 2, half = CHUNK / 2;
            for (unsigned i = 0; i < half; i++) {
                const unsigned column = lane % 2 * half + i;
                const float x = own[row * SCORE_STRIDE + column] * factor;
                if (!write) own[row * SCORE_STRIDE + column] = x;
                else if (warp * 16 + row < rows && chunk + column < D)
                    store(a.out, static_cast<size_t>(first_row + warp * 16 + row) * a.out_stride + head * D + chunk + column, x, a.out_kind);
            }
            __syncwarp();
            if (write) continue;
#pragma unroll
            for (int n = 0; n < CHUNK; n += 16)
                if (chunk + n < D) nvcuda::wmma::load_matrix_sync(out[(chunk + n) / 16], own + n, SCORE_STRIDE, nvcuda::wmma::mem_row_major);
        }
        __syncwarp();
    }

    DEVICE_MEMBER void gather() {
        Left weight[KEYS / 16];
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) nvcuda::wmma::load_matrix_sync(weight[k], weights + warp * 16 * WEIGHT_STRIDE + k * 16, WEIGHT_STRIDE);
#pragma unroll
        for (int n = 0; n < D / 16; n++)
#pragma unroll
            for (int k = 0; k < KEYS / 16; k++) {
                nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, __nv_bfloat16, nvcuda::wmma::row_major> value;
                nvcuda::wmma::load_matrix_sync(value, kv + k * 16 * KV_STRIDE + n * 16, KV_STRIDE);
                nvcuda::wmma::mma_sync(out[n], weight[k], value, out[n]);
            }
    }

    DEVICE_MEMBER void run() {
        if (!place()) return;
        load_queries();
        largest = -INFINITE, total = 0.0f;
#pragma unroll
        for (int i = 0; i < D / 16; i++) nvcuda::wmma::fill_fragment(out[i], 0.0f);
        const unsigned end = first_position + rows;
        const unsigned begin = a.window != 0 && first_position + 1 > a.window ? first_position + 1 - a.window : 0;
        for (unsigned first = begin / KEYS * KEYS; first < end; first += KEYS) {
            load_tile(a.k, first, begin, end);
            __syncthreads();
            score();
            __syncthreads();
            load_tile(a.v, first, begin, end);
            const float factor = weigh(first);
            if (__any_sync(WHOLE_WARP, factor != 1.0f)) scale_rows(factor, false);
            __syncthreads();
            gather();
            __syncthreads();
        }
        scale_rows(total > 0.0f ? 1.0f / total : 0.0f, true);
    }
};

#define ATTEND_TILES(NAME, T, D)                                              \
    KERNEL(attend_tiles_##NAME##_##D, 128, (AttentionArguments a)) {           \
        SHARED(__nv_bfloat16, kv, 64 * (D + 8));                               \
        SHARED(float, scores, 64 * 68);                                        \
        SHARED(__nv_bfloat16, weights, 64 * 72);                               \
        TileAttention<T, D>{a, kv, scores, weights}.run();                     \
    }
#define ATTEND_TILES_OF(NAME, T)                                                           \
    ATTEND_TILES(NAME, T, 16) ATTEND_TILES(NAME, T, 32) ATTEND_TILES(NAME, T, 64)            \
    ATTEND_TILES(NAME, T, 96) ATTEND_TILES(NAME, T, 128)
ATTEND_TILES_OF(bf16, bf16)
ATTEND_TILES_OF(f16, f16)
ATTEND_TILES_OF(f8, f8)
