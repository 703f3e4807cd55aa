// Low-rank adapters beside the base product, several in one batch: every row names its adapter.
#pragma once
#include "common.cuh"

// One adapter's two matrices for one product; lies in device memory.
struct Adapter {
    const float* a; // (rank, inputs)
    const float* b; // (outputs, rank)
    unsigned rank;
    float scale;
};

// hidden (rows, rank_max) = a x, a warp for a row and a rank.
KERNEL(lora_down, 256, (const void* x, unsigned x_stride, int x_kind, unsigned inputs, const Adapter* adapters, unsigned adapter_count,
                        const unsigned* adapter_of_row, float* hidden, unsigned rank_max)) {
    const size_t row = blockIdx.x;
    const unsigned which = adapter_of_row[row], rank = blockIdx.y * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (which >= adapter_count || rank >= adapters[which].rank) return;
    const float* a = adapters[which].a + static_cast<size_t>(rank) * inputs;
    float sum = 0.0f;
    for (unsigned i = lane; i < inputs; i += 32) sum = fmaf(a[i], load(x, row * x_stride + i, x_kind), sum);
    sum = warp_sum(sum);
    if (lane == 0) hidden[row * rank_max + rank] = sum;
}

// y += scale * b hidden, a thread for an output.
KERNEL(lora_up, 256, (const float* hidden, unsigned rank_max, const Adapter* adapters, unsigned adapter_count, const unsigned* adapter_of_row,
                      float* y, unsigned y_stride, unsigned outputs)) {
    const size_t row = blockIdx.y;
    const unsigned which = adapter_of_row[row], output = blockIdx.x * blockDim.x + threadIdx.x;
    if (which >= adapter_count || output >= outputs) return;
    const Adapter adapter = adapters[which];
    const float* b = adapter.b + static_cast<size_t>(output) * adapter.rank;
    float sum = 0.0f;
    for (unsigned i = 0; i < adapter.rank; i++) sum = fmaf(b[i], hidden[row * rank_max + i], sum);
    y[row * y_stride + output] += adapter.scale * sum;
}
