// Causal attention inside the segments of a pack, forward and backward, on tensor cores: operands
// are rounded to bf16 when they come into shared memory, sums are f32. Probabilities exist for a
// tile at a time; the backward pass makes them again from the log-sum-exp of each row. Tiles are
// counted from the beginning of a segment and summed in order: bits depend on a segment alone.
#pragma once
#include "common.cuh"

struct SegmentArguments {
    const float* q;
    const float* k;
    const float* v;
    const unsigned* starts;
    unsigned q_stride, k_stride, v_stride, rows, heads, kv_heads, window;
    float scale;
    float* mixed;
    float* lse; // (heads, rows)
    const float* gradient;
    float* sums; // (heads, rows): gradient times mixed, summed over a head
    float* dq;
    float* dk;
    float* dv;
    unsigned mixed_stride, gradient_stride, dq_stride, dk_stride, dv_stride;
};

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.69314718f;
constexpr int STAGE_STRIDE = 24; // elements between rows of a 16 x 16 tile: shifts the banks
constexpr int STAGE_LEN = 16 * STAGE_STRIDE;
constexpr int SEGMENT_TILE = 64; // rows that a block owns

using TileSum = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float>;
using TileLeft = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, __nv_bfloat16, nvcuda::wmma::row_major>;
using TileRight = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, __nv_bfloat16, nvcuda::wmma::row_major>;
using TileRightTurned = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, __nv_bfloat16, nvcuda::wmma::col_major>;

DEVICE unsigned pack_bf16(float low, float high) {
#ifdef EMULATOR
    return float_to_bf16_bits(low) | static_cast<unsigned>(float_to_bf16_bits(high)) << 16;
#else
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&pair);
#endif
}

DEVICE uint2 pack_bf16(float4 x) { return {pack_bf16(x.x, x.y), pack_bf16(x.z, x.w)}; }

// ROWS rows of D values as bf16 in shared memory, D + 8 apart; zeros from the row `valid` on.
template <int D, int ROWS> DEVICE void load_rows(const float* from, unsigned stride, unsigned valid, __nv_bfloat16* to) {
    constexpr unsigned QUADS = D / 4;
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < ROWS * QUADS; i += 128) {
        const unsigned row = i / QUADS, d = i % QUADS * 4;
        float4 x = {0.0f, 0.0f, 0.0f, 0.0f};
        if (row < valid) x = *reinterpret_cast<const float4*>(from + static_cast<size_t>(row) * stride + d);
        *reinterpret_cast<uint2*>(reinterpret_cast<unsigned short*>(to) + row * (D + 8) + d) = pack_bf16(x);
    }
}

// The tiles of D columns of 16 rows, as left sides.
template <int D> DEVICE void load_left(const __nv_bfloat16* rows, TileLeft (&out)[D / 16]) {
#pragma unroll
    for (int i = 0; i < D / 16; i++) nvcuda::wmma::load_matrix_sync(out[i], rows + i * 16, D + 8);
}

// sum += left times the transpose of the 16 rows.
template <int D> DEVICE void multiply_turned(TileSum& sum, const TileLeft (&left)[D / 16], const __nv_bfloat16* rows) {
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        TileRightTurned right;
        nvcuda::wmma::load_matrix_sync(right, rows + i * 16, D + 8);
        nvcuda::wmma::mma_sync(sum, left[i], right, sum);
    }
}

// sums += left times the 16 rows.
template <int D> DEVICE void multiply_rows(TileSum (&sums)[D / 16], const TileLeft& left, const __nv_bfloat16* rows) {
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        TileRight right;
        nvcuda::wmma::load_matrix_sync(right, rows + i * 16, D + 8);
        nvcuda::wmma::mma_sync(sums[i], left, right, sums[i]);
    }
}

template <int COUNT> DEVICE void clear(TileSum (&sums)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) nvcuda::wmma::fill_fragment(sums[i], 0.0f);
}

// A tile of sums in shared memory becomes one of bf16: a lane takes columns that no other lane of
// its quarter of the warp has in the same bank.
DEVICE void round_tile(const float* from, __nv_bfloat16* to) {
    const unsigned lane = threadIdx.x % 32, at = lane / 2 * STAGE_STRIDE + lane % 2 * 4;
    unsigned short* bits = reinterpret_cast<unsigned short*>(to);
    *reinterpret_cast<uint2*>(bits + at) = pack_bf16(*reinterpret_cast<const float4*>(from + at));
    *reinterpret_cast<uint2*>(bits + at + 8) = pack_bf16(*reinterpret_cast<const float4*>(from + at + 8));
}

// The fragment whose rows hold one value each: that of lane 2 * row.
DEVICE void spread_rows(float value, float* stage, TileSum& out) {
    const unsigned lane = threadIdx.x % 32;
    float* at = stage + lane / 2 * STAGE_STRIDE + lane % 2 * 8;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 8; i++) at[i] = value;
    __syncwarp();
    nvcuda::wmma::load_matrix_sync(out, stage, STAGE_STRIDE, nvcuda::wmma::mem_row_major);
    __syncwarp();
}

// Sixteen rows of D sums times a factor into `valid` rows of out.
template <int D> DEVICE void write_rows(TileSum (&sums)[D / 16], float factor, float* stage, float* out, unsigned stride, unsigned valid) {
    const unsigned lane = threadIdx.x % 32, row = lane / 2, column = lane % 2 * 4;
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
#pragma unroll
        for (int e = 0; e < sums[i].num_elements; e++) sums[i].x[e] *= factor;
        __syncwarp();
        nvcuda::wmma::store_matrix_sync(stage, sums[i], STAGE_STRIDE, nvcuda::wmma::mem_row_major);
        __syncwarp();
        if (row >= valid) continue;
        const float* from = stage + row * STAGE_STRIDE + column;
        float* to = out + static_cast<size_t>(row) * stride + i * 16 + column;
        *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
        *reinterpret_cast<float4*>(to + 8) = *reinterpret_cast<const float4*>(from + 8);
    }
    __syncwarp();
}

// column - row of every place of a tile.
DEVICE void fill_offsets(float* offsets) {
    for (unsigned i = threadIdx.x; i < 256; i += 128)
        offsets[i] = static_cast<float>(static_cast<int>(i % 16)) - static_cast<float>(static_cast<int>(i / 16));
}

// A segment, and which of its rows a block owns.
struct SegmentPlace {
    unsigned start, length, first, valid;
    int window;

    // False where there is no such row.
    DEVICE_MEMBER bool find(const SegmentArguments& a, unsigned tile) {
        start = min(a.starts[blockIdx.z], a.rows);
        length = max(min(a.starts[blockIdx.z + 1], a.rows), start) - start;
        first = tile * SEGMENT_TILE;
        if (first >= length) return false;
        valid = min(length - first, static_cast<unsigned>(SEGMENT_TILE));
        window = static_cast<int>(min(a.window, 1u << 30));
        return true;
    }
    // Of the 16 rows of a warp, how many there are.
    DEVICE_MEMBER unsigned valid_of(unsigned warp) const { return valid > warp * 16 ? min(valid - warp * 16, 16u) : 0u; }
    // Whether a tile whose queries and keys are `distance` apart at its first place has anything to
    // see, and whether all of it is seen.
    DEVICE_MEMBER bool sees_some(int distance) const { return distance + 15 >= 0 && distance - 15 < window; }
    DEVICE_MEMBER bool sees_all(int distance) const { return distance - 15 >= 0 && distance + 15 < window; }
    // The first key, rounded down to a tile, that a query sees.
    DEVICE_MEMBER unsigned first_key() const {
        const unsigned reach = static_cast<unsigned>(window);
        return first + 1 > reach ? (first + 1 - reach) / SEGMENT_TILE * SEGMENT_TILE : 0;
    }
};

// Probabilities from scores that start at -lse / scale: e^(scale * score), 0 for what is not seen.
// `direction`: 1 where keys are rows, -1 where queries are.
DEVICE void make_probabilities(TileSum& tile, const SegmentPlace& place, float factor, int distance, float direction, const float* offsets) {
#pragma unroll
    for (int e = 0; e < tile.num_elements; e++) tile.x[e] = exp2f(tile.x[e] * factor);
    if (place.sees_all(distance)) return;
    TileSum offset;
    nvcuda::wmma::load_matrix_sync(offset, offsets, 16, nvcuda::wmma::mem_row_major);
    const float reach = static_cast<float>(place.window);
#pragma unroll
    for (int e = 0; e < tile.num_elements; e++) {
        const float apart = fmaf(offset.x[e], direction, static_cast<float>(distance));
        if (apart < 0.0f || apart >= reach) tile.x[e] = 0.0f;
    }
}

// 64 queries of one head: a warp has 16 of them, a step 64 keys. Weights are relative to a largest
// score that is raised only when a score exceeds it by 2^8: sums are seldom scaled.
template <int D> struct SegmentForward {
    static constexpr int STRIDE = D + 8, SCORE_STRIDE = 72, WEIGHT_STRIDE = 72;
    static constexpr float SLACK = 8.0f;
    const SegmentArguments& a;
    __nv_bfloat16* kv;      // (64, STRIDE)
    float* scores;          // (64, SCORE_STRIDE): a warp's rows are its own
    __nv_bfloat16* weights; // (64, WEIGHT_STRIDE)
    SegmentPlace place;
    unsigned warp, lane;
    TileLeft q[D / 16];
    TileSum out[D / 16];
    // Of row lane / 2 of the warp, in both its lanes: in powers of two; the sum of the weights, and
    // of the weights as they are rounded.
    float largest, total, rounded;

    DEVICE_MEMBER void score() {
#pragma unroll
        for (int n = 0; n < 4; n++) {
            TileSum sum;
            nvcuda::wmma::fill_fragment(sum, 0.0f);
            multiply_turned<D>(sum, q, kv + n * 16 * STRIDE);
            nvcuda::wmma::store_matrix_sync(scores + warp * 16 * SCORE_STRIDE + n * 16, sum, SCORE_STRIDE, nvcuda::wmma::mem_row_major);
        }
        __syncwarp();
    }

    // Scores become weights; two lanes share a row. Returns what earlier sums are multiplied with.
    DEVICE_MEMBER float weigh(unsigned first_key) {
        const unsigned row = warp * 16 + lane / 2, column = lane % 2 * 4, query = place.first + row;
        const unsigned end = row < place.valid ? query + 1 : 0, reach = static_cast<unsigned>(place.window);
        const unsigned begin = end > reach ? end - reach : 0;
        const float* from = scores + row * SCORE_STRIDE + column;
        unsigned short* to = reinterpret_cast<unsigned short*>(weights) + row * WEIGHT_STRIDE + column;
        const float scale = a.scale * LOG2_E;
        float x[32], top = -INFINITE;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float4 four = *reinterpret_cast<const float4*>(from + j * 8);
            x[4 * j] = four.x, x[4 * j + 1] = four.y, x[4 * j + 2] = four.z, x[4 * j + 3] = four.w;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const unsigned key = first_key + column + j * 8 + i;
                x[4 * j + i] = key >= begin && key < end ? x[4 * j + i] * scale : -INFINITE;
                top = fmaxf(top, x[4 * j + i]);
            }
        }
        top = fmaxf(top, __shfl_xor_sync(WHOLE_WARP, top, 1));
        float factor = 1.0f;
        if (top > largest + SLACK) factor = exp2f(largest - top), largest = top;
        float sum = 0.0f, rounded_sum = 0.0f;
#pragma unroll
        for (int j = 0; j < 8; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                x[4 * j + i] = x[4 * j + i] == -INFINITE ? 0.0f : exp2f(x[4 * j + i] - largest);
                sum += x[4 * j + i];
            }
            const uint2 words = pack_bf16(float4{x[4 * j], x[4 * j + 1], x[4 * j + 2], x[4 * j + 3]});
            *reinterpret_cast<uint2*>(to + j * 8) = words;
            rounded_sum += __uint_as_float(words.x << 16) + __uint_as_float(words.x & 0xffff0000u);
            rounded_sum += __uint_as_float(words.y << 16) + __uint_as_float(words.y & 0xffff0000u);
        }
        sum += __shfl_xor_sync(WHOLE_WARP, sum, 1);
        rounded_sum += __shfl_xor_sync(WHOLE_WARP, rounded_sum, 1);
        total = fmaf(total, factor, sum), rounded = fmaf(rounded, factor, rounded_sum);
        return factor;
    }

    // Multiplies every row of the result with its factor.
    DEVICE_MEMBER void scale_sums(float factor) {
        TileSum factors;
        spread_rows(factor, scores + warp * 16 * SCORE_STRIDE, factors);
#pragma unroll
        for (int i = 0; i < D / 16; i++)
#pragma unroll
            for (int e = 0; e < factors.num_elements; e++) out[i].x[e] *= factors.x[e];
    }

    DEVICE_MEMBER void gather() {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            TileLeft weight;
            nvcuda::wmma::load_matrix_sync(weight, weights + warp * 16 * WEIGHT_STRIDE + k * 16, WEIGHT_STRIDE);
            multiply_rows<D>(out, weight, kv + k * 16 * STRIDE);
        }
    }

    DEVICE_MEMBER void finish(unsigned head) {
        scale_sums(rounded > 0.0f ? 1.0f / rounded : rounded);
        const unsigned row = place.start + place.first + warp * 16;
        float* to = a.mixed + static_cast<size_t>(row) * a.mixed_stride + head * D;
        write_rows<D>(out, 1.0f, scores + warp * 16 * SCORE_STRIDE, to, a.mixed_stride, place.valid_of(warp));
        if (lane % 2 == 0 && lane / 2 < place.valid_of(warp))
            a.lse[static_cast<size_t>(head) * a.rows + row + lane / 2] = (largest + log2f(total)) * LN_2;
    }

    DEVICE_MEMBER void run() {
        // The last rows, which see the most, begin first.
        if (!place.find(a, gridDim.x - 1 - blockIdx.x)) return;
        warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const unsigned head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
        const float* queries = a.q + static_cast<size_t>(place.start + place.first) * a.q_stride + head * D;
        load_rows<D, SEGMENT_TILE>(queries, a.q_stride, place.valid, kv);
        __syncthreads();
        load_left<D>(kv + warp * 16 * STRIDE, q);
        clear(out);
        largest = -INFINITE, total = 0.0f, rounded = 0.0f;
        for (unsigned key = place.first_key(); key < place.first + place.valid; key += SEGMENT_TILE) {
            const size_t row = place.start + key;
            __syncthreads();
            load_rows<D, SEGMENT_TILE>(a.k + row * a.k_stride + kv_head * D, a.k_stride, place.length - key, kv);
            __syncthreads();
            score();
            __syncthreads();
            load_rows<D, SEGMENT_TILE>(a.v + row * a.v_stride + kv_head * D, a.v_stride, place.length - key, kv);
            const float factor = weigh(key);
            if (__any_sync(WHOLE_WARP, factor != 1.0f)) scale_sums(factor);
            __syncthreads();
            gather();
        }
        finish(head);
    }
};

#define SEGMENT_FORWARD(D)                                         \
    KERNEL(segment_forward_##D, 128, (SegmentArguments a)) {        \
        SHARED(__nv_bfloat16, kv, 64 * (D + 8));                    \
        SHARED(float, scores, 64 * 72);                             \
        SHARED(__nv_bfloat16, weights, 64 * 72);                    \
        SegmentForward<D>{a, kv, scores, weights}.run();            \
    }
SEGMENT_FORWARD(16)
SEGMENT_FORWARD(32)
SEGMENT_FORWARD(64)
SEGMENT_FORWARD(96)
SEGMENT_FORWARD(128)

// sums (heads, rows) = gradient times mixed, summed over a head: a warp for each. The gradient is
// rounded as the tiles round it: what is taken from the gradients of probabilities must be their mean.
KERNEL(segment_row_sums, 256, (SegmentArguments a, unsigned head_dim)) {
    const unsigned row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y;
    if (row >= a.rows) return;
    const float* mixed = a.mixed + static_cast<size_t>(row) * a.mixed_stride + head * head_dim;
    const float* gradient = a.gradient + static_cast<size_t>(row) * a.gradient_stride + head * head_dim;
    float sum = 0.0f;
    for (unsigned i = lane; i < head_dim; i += 32) {
        bf16 rounded;
        from_float(gradient[i], rounded);
        sum = fmaf(mixed[i], to_float(rounded), sum);
    }
    sum = warp_sum(sum);
    if (lane == 0) a.sums[static_cast<size_t>(head) * a.rows + row] = sum;
}

// Gradients of 64 keys and their values of one KV head: a warp has 16 of them and keeps their sums,
// a step is 32 queries of one of the heads that share it. Scores are transposed here: keys are rows.
template <int D> struct SegmentKeys {
    static constexpr int STRIDE = D + 8, QUERIES = 32, LINE = 40;
    const SegmentArguments& a;
    __nv_bfloat16* tiles;   // (2, QUERIES, STRIDE): of q, of the gradient; before, 64 keys
    float* lines;           // (2, 16, LINE): -lse / scale and -sums of the queries, all rows alike
    float* stage;           // (4 warps, 2, 16, STAGE_STRIDE)
    __nv_bfloat16* turned;  // (4 warps, 2, 16, STAGE_STRIDE)
    const float* offsets;   // (16, 16)
    SegmentPlace place;
    unsigned warp;
    TileLeft k[D / 16], v[D / 16];
    TileSum dk[D / 16], dv[D / 16];

    DEVICE_MEMBER void load_keys(const float* from, unsigned stride, TileLeft (&out)[D / 16]) {
        load_rows<D, SEGMENT_TILE>(from, stride, place.valid, tiles);
        __syncthreads();
        load_left<D>(tiles + warp * 16 * STRIDE, out);
        __syncthreads();
    }

    DEVICE_MEMBER void load_queries(unsigned head, unsigned query) {
        const size_t row = place.start + query;
        const unsigned valid = place.length - query;
        load_rows<D, QUERIES>(a.q + row * a.q_stride + head * D, a.q_stride, valid, tiles);
        load_rows<D, QUERIES>(a.gradient + row * a.gradient_stride + head * D, a.gradient_stride, valid, tiles + QUERIES * STRIDE);
        const unsigned column = threadIdx.x % QUERIES;
        // A query that is none has no probability: e to the power of something very small.
        float lse = -1e30f, sum = 0.0f;
        if (column < valid) {
            lse = -a.lse[static_cast<size_t>(head) * a.rows + row + column] / a.scale;
            sum = -a.sums[static_cast<size_t>(head) * a.rows + row + column];
        }
#pragma unroll
        for (unsigned line = threadIdx.x / QUERIES; line < 16; line += 128 / QUERIES)
            lines[line * LINE + column] = lse, lines[(16 + line) * LINE + column] = sum;
    }

    // Sixteen queries of the step.
    DEVICE_MEMBER void add_queries(unsigned n, int distance) {
        const __nv_bfloat16* q = tiles + n * 16 * STRIDE;
        const __nv_bfloat16* gradient = q + QUERIES * STRIDE;
        float* own = stage + warp * 2 * STAGE_LEN;
        __nv_bfloat16* own_turned = turned + warp * 2 * STAGE_LEN;
        TileSum p, ds;
        nvcuda::wmma::load_matrix_sync(p, lines + n * 16, LINE, nvcuda::wmma::mem_row_major);
        multiply_turned<D>(p, k, q);
        make_probabilities(p, place, a.scale * LOG2_E, distance, 1.0f, offsets);
        nvcuda::wmma::store_matrix_sync(own, p, STAGE_STRIDE, nvcuda::wmma::mem_row_major);
        nvcuda::wmma::load_matrix_sync(ds, lines + 16 * LINE + n * 16, LINE, nvcuda::wmma::mem_row_major);
        multiply_turned<D>(ds, v, gradient);
#pragma unroll
        for (int e = 0; e < ds.num_elements; e++) ds.x[e] *= p.x[e];
        nvcuda::wmma::store_matrix_sync(own + STAGE_LEN, ds, STAGE_STRIDE, nvcuda::wmma::mem_row_major);
        __syncwarp();
        round_tile(own, own_turned);
        round_tile(own + STAGE_LEN, own_turned + STAGE_LEN);
        __syncwarp();
        TileLeft left;
        nvcuda::wmma::load_matrix_sync(left, own_turned, STAGE_STRIDE);
        multiply_rows<D>(dv, left, gradient);
        nvcuda::wmma::load_matrix_sync(left, own_turned + STAGE_LEN, STAGE_STRIDE);
        multiply_rows<D>(dk, left, q);
    }

    DEVICE_MEMBER void run() {
        // The first keys, which are seen by the most, begin first.
        if (!place.find(a, blockIdx.x)) return;
        warp = threadIdx.x / 32;
        const unsigned group = a.heads / a.kv_heads, column = blockIdx.y * D;
        const size_t row = place.start + place.first;
        load_keys(a.k + row * a.k_stride + column, a.k_stride, k);
        load_keys(a.v + row * a.v_stride + column, a.v_stride, v);
        clear(dk), clear(dv);
        const unsigned last = place.first + place.valid - 1; // the last key
        const unsigned end = min(place.length, last + static_cast<unsigned>(place.window));
        for (unsigned head = blockIdx.y * group; head < (blockIdx.y + 1) * group; head++)
            for (unsigned query = place.first; query < end; query += QUERIES) {
                __syncthreads();
                load_queries(head, query);
                __syncthreads();
#pragma unroll 1
                for (unsigned n = 0; n < QUERIES / 16; n++) {
                    const int distance = static_cast<int>(query + n * 16) - static_cast<int>(place.first + warp * 16);
                    if (place.sees_some(distance)) add_queries(n, distance);
                }
            }
        const size_t own = row + warp * 16;
        float* memory = stage + warp * 2 * STAGE_LEN;
        write_rows<D>(dk, a.scale, memory, a.dk + own * a.dk_stride + column, a.dk_stride, place.valid_of(warp));
        write_rows<D>(dv, 1.0f, memory, a.dv + own * a.dv_stride + column, a.dv_stride, place.valid_of(warp));
    }
};

#define SEGMENT_KEYS(D)                                                        \
    KERNEL(segment_keys_##D, 128, (SegmentArguments a)) {                       \
        SHARED(__nv_bfloat16, tiles, 64 * (D + 8));                             \
        SHARED(float, lines, 2 * 16 * 40);                                      \
        SHARED(float, stage, 4 * 2 * STAGE_LEN);                                \
        SHARED(__nv_bfloat16, turned, 4 * 2 * STAGE_LEN);                       \
        SHARED(float, offsets, 256);                                            \
        fill_offsets(offsets);                                                  \
        SegmentKeys<D>{a, tiles, lines, stage, turned, offsets}.run();          \
    }
SEGMENT_KEYS(16)
SEGMENT_KEYS(32)
SEGMENT_KEYS(64)
SEGMENT_KEYS(96)
SEGMENT_KEYS(128)

// Gradients of 64 queries of one head: a warp has 16 of them, a step 64 keys.
template <int D> struct SegmentQueries {
    static constexpr int STRIDE = D + 8;
    const SegmentArguments& a;
    __nv_bfloat16* keys;   // (64, STRIDE); before, the queries
    __nv_bfloat16* values; // (64, STRIDE); before, the gradient
    float* stage;          // (4 warps, 16, STAGE_STRIDE)
    __nv_bfloat16* turned; // (4 warps, 16, STAGE_STRIDE)
    const float* offsets;  // (16, 16)
    SegmentPlace place;
    unsigned warp;
    TileLeft q[D / 16], gradient[D / 16];
    TileSum lse, sums; // rows of -lse / scale and of -sums
    TileSum dq[D / 16];

    DEVICE_MEMBER void load_queries(unsigned head) {
        const size_t row = place.start + place.first;
        load_rows<D, SEGMENT_TILE>(a.q + row * a.q_stride + head * D, a.q_stride, place.valid, keys);
        load_rows<D, SEGMENT_TILE>(a.gradient + row * a.gradient_stride + head * D, a.gradient_stride, place.valid, values);
        const unsigned own = threadIdx.x / 2; // the row of this lane
        float own_lse = -1e30f, own_sum = 0.0f;
        if (own < place.valid) {
            own_lse = -a.lse[static_cast<size_t>(head) * a.rows + row + own] / a.scale;
            own_sum = -a.sums[static_cast<size_t>(head) * a.rows + row + own];
        }
        spread_rows(own_lse, stage + warp * STAGE_LEN, lse);
        spread_rows(own_sum, stage + warp * STAGE_LEN, sums);
        __syncthreads();
        load_left<D>(keys + warp * 16 * STRIDE, q);
        load_left<D>(values + warp * 16 * STRIDE, gradient);
    }

    // Sixteen keys of the step.
    DEVICE_MEMBER void add_keys(unsigned n, int distance) {
        float* own = stage + warp * STAGE_LEN;
        __nv_bfloat16* own_turned = turned + warp * STAGE_LEN;
        TileSum p = lse, ds = sums;
        multiply_turned<D>(p, q, keys + n * 16 * STRIDE);
        make_probabilities(p, place, a.scale * LOG2_E, distance, -1.0f, offsets);
        multiply_turned<D>(ds, gradient, values + n * 16 * STRIDE);
#pragma unroll
        for (int e = 0; e < ds.num_elements; e++) ds.x[e] *= p.x[e];
        nvcuda::wmma::store_matrix_sync(own, ds, STAGE_STRIDE, nvcuda::wmma::mem_row_major);
        __syncwarp();
        round_tile(own, own_turned);
        __syncwarp();
        TileLeft left;
        nvcuda::wmma::load_matrix_sync(left, own_turned, STAGE_STRIDE);
        multiply_rows<D>(dq, left, keys + n * 16 * STRIDE);
    }

    DEVICE_MEMBER void run() {
        if (!place.find(a, gridDim.x - 1 - blockIdx.x)) return;
        warp = threadIdx.x / 32;
        const unsigned head = blockIdx.y, column = head / (a.heads / a.kv_heads) * D;
        load_queries(head);
        clear(dq);
        for (unsigned key = place.first_key(); key < place.first + place.valid; key += SEGMENT_TILE) {
            const size_t row = place.start + key;
            __syncthreads();
            load_rows<D, SEGMENT_TILE>(a.k + row * a.k_stride + column, a.k_stride, place.length - key, keys);
            load_rows<D, SEGMENT_TILE>(a.v + row * a.v_stride + column, a.v_stride, place.length - key, values);
            __syncthreads();
#pragma unroll 1
            for (unsigned n = 0; n < SEGMENT_TILE / 16; n++) {
                const int distance = static_cast<int>(place.first + warp * 16) - static_cast<int>(key + n * 16);
                if (place.sees_some(distance)) add_keys(n, distance);
            }
        }
        const size_t own = place.start + place.first + warp * 16;
        float* to = a.dq + own * a.dq_stride + head * D;
        write_rows<D>(dq, a.scale, stage + warp * STAGE_LEN, to, a.dq_stride, place.valid_of(warp));
    }
};

#define SEGMENT_QUERIES(D)                                                     \
    KERNEL(segment_queries_##D, 128, (SegmentArguments a)) {                    \
        SHARED(__nv_bfloat16, keys, 64 * (D + 8));                              \
        SHARED(__nv_bfloat16, values, 64 * (D + 8));                            \
        SHARED(float, stage, 4 * STAGE_LEN);                                    \
        SHARED(__nv_bfloat16, turned, 4 * STAGE_LEN);                           \
        SHARED(float, offsets, 256);                                            \
        fill_offsets(offsets);                                                  \
        SegmentQueries<D>{a, keys, values, stage, turned, offsets}.run();       \
    }
SEGMENT_QUERIES(16)
SEGMENT_QUERIES(32)
SEGMENT_QUERIES(64)
SEGMENT_QUERIES(96)
SEGMENT_QUERIES(128)
