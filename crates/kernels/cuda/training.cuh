// Backward rules of norms, gates and rotations, sums over rows, dropout, scores of targets: what
// training needs beside products and attention.
#pragma once
#include "common.cuh"

DEVICE void put(float* out, float x, int add) { *out = add ? *out + x : x; }

// The largest of all threads, for all threads; as `block_sum`.
DEVICE float block_max(float x, float* scratch) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    float top = scratch[0];
    for (int i = 1; i < warps; i++) top = fmaxf(top, scratch[i]);
    return top;
}

// With r = 1 / rms(x): dx (+)= r g w - x r^3 / H sum(g w x); r goes to scales[row] if it is asked
// for. A thread writes only what it has read itself: dx may be x or the gradient.
KERNEL(rms_norm_backward, 256, (const float* x, unsigned x_stride, const float* weight, const float* gradient, unsigned gradient_stride,
                                float eps, unsigned hidden, float* dx, unsigned stride, int add, float* scales)) {
    SHARED(float, scratch, 32);
    const size_t row = blockIdx.x;
    const float* from = x + row * x_stride;
    const float* g = gradient + row * gradient_stride;
    float squares = 0.0f, mixed = 0.0f;
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < hidden; i += blockDim.x) {
        squares = fmaf(from[i], from[i], squares);
        mixed = fmaf(g[i] * weight[i], from[i], mixed);
    }
    squares = block_sum(squares, scratch);
    mixed = block_sum(mixed, scratch);
    const float scale = 1.0f / sqrtf(squares / static_cast<float>(hidden) + eps);
    const float pull = mixed * scale * scale * scale / static_cast<float>(hidden);
    float* out = dx + row * stride;
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < hidden; i += blockDim.x) put(out + i, scale * g[i] * weight[i] - from[i] * pull, add);
    if (scales != nullptr && threadIdx.x == 0) scales[row] = scale;
}

// Row `blockIdx.y` of out (+)= the sum of x, or of x times y times a factor of each row, over the
// rows of the group blockIdx.y. A block has 32 columns; warps take rows in turn and their sums are
// added in order, so that a result depends on nothing else.
KERNEL(sum_columns, 1024, (const float* x, unsigned x_stride, const float* y, unsigned y_stride, const float* factors, unsigned rows,
                           unsigned group, unsigned columns, float* out, unsigned stride, int add)) {
    SHARED(float, sums, 32 * 32);
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    const unsigned first = blockIdx.y * group, end = min(rows, first + group);
    float sum = 0.0f;
    if (column < columns) {
#pragma unroll 4
        for (unsigned row = first + warp; row < end; row += 32) {
            float value = x[static_cast<size_t>(row) * x_stride + column];
            if (y != nullptr) value *= y[static_cast<size_t>(row) * y_stride + column] * factors[row];
            sum += value;
        }
    }
    sums[warp * 32 + lane] = sum;
    __syncthreads();
    if (warp != 0 || column >= columns) return;
    float total = 0.0f;
    for (unsigned i = 0; i < 32; i++) total += sums[i * 32 + lane];
    put(out + static_cast<size_t>(blockIdx.y) * stride + column, total, add);
}

// Turns the heads of every row in place; direction 1 forth, -1 back.
KERNEL(rope_rows, 256, (float* x, unsigned stride, const float* cosines, const float* sines, const unsigned* positions, unsigned table_rows,
                        unsigned columns, unsigned head_dim, int interleaved, float direction)) {
    const size_t row = blockIdx.x;
    const unsigned half = head_dim / 2, position = min(positions[row], table_rows - 1);
    const float* c = cosines + static_cast<size_t>(position) * half;
    const float* s = sines + static_cast<size_t>(position) * half;
    for (unsigned pair = threadIdx.x; pair < columns / 2; pair += blockDim.x) {
        const unsigned i = pair % half;
        float* head = x + row * stride + pair / half * head_dim;
        float* first = head + (interleaved ? 2 * i : i);
        float* second = head + (interleaved ? 2 * i + 1 : i + half);
        const float left = *first, right = *second, sine = s[i] * direction;
        *first = left * c[i] - right * sine;
        *second = right * c[i] + left * sine;
    }
}

// With s = sigmoid(gate): dgate = g up s (1 + gate (1 - s)), dup = g gate s.
KERNEL(swiglu_backward, 256, (const float* gate, unsigned gate_stride, const float* up, unsigned up_stride, const float* gradient,
                              unsigned gradient_stride, unsigned columns, float* dgate, unsigned dgate_stride, float* dup, unsigned dup_stride)) {
    const size_t row = blockIdx.y;
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= columns) return;
    const float x = gate[row * gate_stride + i], u = up[row * up_stride + i], g = gradient[row * gradient_stride + i];
    const float sigmoid = 1.0f / (1.0f + expf(-x));
    dgate[row * dgate_stride + i] = g * u * (sigmoid * fmaf(x, 1.0f - sigmoid, 1.0f));
    dup[row * dup_stride + i] = g * (x * sigmoid);
}

// Four random words for a counter of four and a key of two: Philox 4x32-10 (Salmon et al. 2011).
DEVICE uint4 philox(uint4 counter, unsigned key_low, unsigned key_high) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const unsigned long long a = static_cast<unsigned long long>(counter.x) * 0xD2511F53u;
        const unsigned long long b = static_cast<unsigned long long>(counter.z) * 0xCD9E8D57u;
        counter = {static_cast<unsigned>(b >> 32) ^ counter.y ^ key_low, static_cast<unsigned>(b),
                   static_cast<unsigned>(a >> 32) ^ counter.w ^ key_high, static_cast<unsigned>(a)};
        key_low += 0x9E3779B9u, key_high += 0xBB67AE85u;
    }
    return counter;
}

struct DropoutArguments {
    const float* x;
    float* out;
    unsigned long long key, site;
    unsigned x_stride, stride, columns, first_row, threshold;
    float kept;
    int add;
};

// out (+)= x where the number of (row, column) reaches the threshold, times what makes up for the
// others. Four columns share a draw.
KERNEL(dropout, 256, (DropoutArguments a)) {
    const size_t row = blockIdx.y;
    const unsigned quad = blockIdx.x * blockDim.x + threadIdx.x;
    if (quad * 4 >= a.columns) return;
    const uint4 counter = {a.first_row + blockIdx.y, quad, static_cast<unsigned>(a.site), static_cast<unsigned>(a.site >> 32)};
    const uint4 drawn = philox(counter, static_cast<unsigned>(a.key), static_cast<unsigned>(a.key >> 32));
    const unsigned words[4] = {drawn.x, drawn.y, drawn.z, drawn.w};
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        const unsigned column = quad * 4 + i;
        if (column >= a.columns) break;
        const float x = words[i] < a.threshold ? 0.0f : a.x[row * a.x_stride + column] * a.kept;
        put(a.out + row * a.stride + column, x, a.add);
    }
}

// Row index[i] of to (+)= row i of from; an index outside of it is left out.
KERNEL(scatter_rows, 256, (const float* from, unsigned from_stride, const unsigned* index, unsigned columns, float* to, unsigned stride,
                           unsigned to_rows, int add)) {
    const size_t row = blockIdx.x;
    const unsigned target = index[row];
    if (target >= to_rows) return;
    for (unsigned i = threadIdx.x; i < columns; i += blockDim.x)
        put(to + static_cast<size_t>(target) * stride + i, from[row * from_stride + i], add);
}

// Row tokens[u] of to += the rows order[starts[u]..starts[u + 1]] of from, in this order.
KERNEL(add_rows_by_token, 256, (const float* from, unsigned from_stride, unsigned from_rows, const unsigned* tokens, const unsigned* starts,
                                const unsigned* order, unsigned columns, float* to, unsigned stride, unsigned to_rows)) {
    const unsigned token = tokens[blockIdx.x], begin = min(starts[blockIdx.x], from_rows), end = min(starts[blockIdx.x + 1], from_rows);
    const unsigned column = blockIdx.y * blockDim.x + threadIdx.x;
    if (token >= to_rows || column >= columns) return;
    float* out = to + static_cast<size_t>(token) * stride + column;
    float sum = 0.0f;
#pragma unroll 4
    for (unsigned i = begin; i < end; i++) sum += from[static_cast<size_t>(min(order[i], from_rows - 1)) * from_stride + column];
    *out += sum;
}

// Of a row of logits: log-probability of the target, entropy, mean logit, whether nothing is
// likelier (0 or 1). A target outside of the vocabulary has no probability: NaN.
KERNEL(score_targets, 1024, (const float* logits, unsigned stride, unsigned vocabulary, const unsigned* targets, float* out)) {
    SHARED(float, scratch, 32);
    const size_t row = blockIdx.x;
    const float* x = logits + row * stride;
    float top = -INFINITE, plain = 0.0f;
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < vocabulary; i += blockDim.x) top = fmaxf(top, x[i]), plain += x[i];
    top = block_max(top, scratch);
    plain = block_sum(plain, scratch);
    float total = 0.0f, weighted = 0.0f;
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < vocabulary; i += blockDim.x) {
        const float e = expf(x[i] - top);
        total += e;
        // The smallest finite value in place of an impossible token's -inf: 0 * -inf is NaN.
        weighted = fmaf(e, fmaxf(x[i] - top, -3.402823466e38f), weighted);
    }
    total = block_sum(total, scratch);
    weighted = block_sum(weighted, scratch);
    if (threadIdx.x != 0) return;
    const unsigned target = targets[row];
    const float logit = target < vocabulary ? x[target] : INFINITE - INFINITE, log_total = logf(total);
    out[row * 4] = logit - top - log_total;
    out[row * 4 + 1] = log_total - weighted / total;
    out[row * 4 + 2] = plain / static_cast<float>(vocabulary);
    out[row * 4 + 3] = logit >= top ? 1.0f : 0.0f;
}

// out = coefficient * (one-hot of the target - softmax of the logits), a row at a time. A thread
// writes what it alone has read: out may be the logits.
KERNEL(target_gradient, 1024, (const float* logits, unsigned logits_stride, unsigned vocabulary, const unsigned* targets,
                               const float* coefficients, void* out, unsigned stride, int kind)) {
    SHARED(float, scratch, 32);
    const size_t row = blockIdx.x;
    const float* x = logits + row * logits_stride;
    const unsigned target = targets[row];
    const float coefficient = coefficients[row];
    float top = -INFINITE, total = 0.0f;
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < vocabulary; i += blockDim.x) top = fmaxf(top, x[i]);
    top = block_max(top, scratch);
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < vocabulary; i += blockDim.x) total += expf(x[i] - top);
    const float factor = -coefficient / block_sum(total, scratch);
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < vocabulary; i += blockDim.x)
        store(out, row * stride + i, expf(x[i] - top) * factor + (i == target ? coefficient : 0.0f), kind);
}
