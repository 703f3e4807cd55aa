// What every kernel needs. Compiled by nvcc for devices and by the C++ compiler with
// emulator/emulator.h for the host: nothing here may use what only one of them knows.
#pragma once

#ifdef EMULATOR
#include "emulator/emulator.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <mma.h>
// A kernel of at most THREADS threads in a block, under its plain name.
#define KERNEL(NAME, THREADS, PARAMETERS) \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME PARAMETERS
// COUNT elements that the threads of a block share.
#define SHARED(TYPE, NAME, COUNT) __shared__ __align__(128) TYPE NAME[COUNT]
#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#endif

template <class A, class B> struct SameType { static constexpr bool value = false; };
template <class A> struct SameType<A, A> { static constexpr bool value = true; };
#define SAME_TYPE(A, B) (SameType<A, B>::value)

// Element types as the host names them (`Kind` in src/cuda/buffer.rs).
enum Kind { KIND_F32 = 0, KIND_F16 = 1, KIND_BF16 = 2, KIND_F8 = 3 };

// How weights are stored on the device (`Layout` in src/cuda/linear.rs).
enum Format { FORMAT_F32 = 0, FORMAT_F16 = 1, FORMAT_BF16 = 2, FORMAT_Q8_0 = 3, FORMAT_Q4_K = 4, FORMAT_Q6_K = 5 };

struct bf16 { unsigned short bits; };
struct f16 { unsigned short bits; };
struct f8 { unsigned char bits; }; // E4M3: no infinities, 448 is the largest

constexpr float INFINITE = __builtin_huge_valf();
constexpr unsigned WHOLE_WARP = 0xffffffffu;
constexpr unsigned NONE = 0xffffffffu;

#ifdef EMULATOR
DEVICE float half_bits_to_float(unsigned short bits) { return emulator::half_to_float(bits); }
DEVICE unsigned short float_to_half_bits(float x) { return emulator::float_to_half(x); }
DEVICE unsigned short float_to_bf16_bits(float x) { return emulator::float_to_bf16(x); }
DEVICE float f8_bits_to_float(unsigned char bits) { return emulator::f8_to_float(bits); }
DEVICE unsigned char float_to_f8_bits(float x) { return emulator::float_to_f8(x); }
#else
DEVICE float half_bits_to_float(unsigned short bits) { return __half2float(__ushort_as_half(bits)); }
DEVICE unsigned short float_to_half_bits(float x) { return __half_as_ushort(__float2half_rn(x)); }
DEVICE unsigned short float_to_bf16_bits(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
DEVICE float f8_bits_to_float(unsigned char bits) { return __half2float(__half(__nv_cvt_fp8_to_halfraw(bits, __NV_E4M3))); }
DEVICE unsigned char float_to_f8_bits(float x) { return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3); }
#endif

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(f16 x) { return half_bits_to_float(x.bits); }
DEVICE float to_float(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
DEVICE float to_float(f8 x) { return f8_bits_to_float(x.bits); }
DEVICE void from_float(float x, float& out) { out = x; }
DEVICE void from_float(float x, f16& out) { out.bits = float_to_half_bits(x); }
DEVICE void from_float(float x, bf16& out) { out.bits = float_to_bf16_bits(x); }
DEVICE void from_float(float x, f8& out) { out.bits = float_to_f8_bits(x); }

// Element `i` of an array whose type is known when the kernel is started.
DEVICE float load(const void* data, size_t i, int kind) {
    if (kind == KIND_F32) return static_cast<const float*>(data)[i];
    if (kind == KIND_F16) return to_float(static_cast<const f16*>(data)[i]);
    if (kind == KIND_F8) return to_float(static_cast<const f8*>(data)[i]);
    return to_float(static_cast<const bf16*>(data)[i]);
}
DEVICE void store(void* data, size_t i, float x, int kind) {
    if (kind == KIND_F32) static_cast<float*>(data)[i] = x;
    else if (kind == KIND_F16) from_float(x, static_cast<f16*>(data)[i]);
    else if (kind == KIND_F8) from_float(x, static_cast<f8*>(data)[i]);
    else from_float(x, static_cast<bf16*>(data)[i]);
}

// COUNT elements in a row as floats; they are aligned to the largest power of two of bytes, up
// to 16, that divides their size.
template <int COUNT> DEVICE void load_run(const float* data, float (&out)[COUNT]) {
    if constexpr (COUNT % 4 == 0) {
#pragma unroll
        for (int i = 0; i < COUNT; i += 4) {
            const float4 four = *reinterpret_cast<const float4*>(data + i);
            out[i] = four.x, out[i + 1] = four.y, out[i + 2] = four.z, out[i + 3] = four.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i++) out[i] = data[i];
    }
}
template <class T> DEVICE void unpack(unsigned word, float& low, float& high) {
    T pair[2] = {{static_cast<unsigned short>(word)}, {static_cast<unsigned short>(word >> 16)}};
    low = to_float(pair[0]), high = to_float(pair[1]);
}
template <class T, int COUNT> DEVICE void load_run(const T* data, float (&out)[COUNT]) {
    static_assert(sizeof(T) == 2, "two-byte elements");
    if constexpr (COUNT % 8 == 0) {
#pragma unroll
        for (int i = 0; i < COUNT; i += 8) {
            const uint4 words = *reinterpret_cast<const uint4*>(data + i);
            unpack<T>(words.x, out[i], out[i + 1]), unpack<T>(words.y, out[i + 2], out[i + 3]);
            unpack<T>(words.z, out[i + 4], out[i + 5]), unpack<T>(words.w, out[i + 6], out[i + 7]);
        }
    } else if constexpr (COUNT % 4 == 0) {
#pragma unroll
        for (int i = 0; i < COUNT; i += 4) {
            const uint2 words = *reinterpret_cast<const uint2*>(data + i);
            unpack<T>(words.x, out[i], out[i + 1]), unpack<T>(words.y, out[i + 2], out[i + 3]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i++) out[i] = to_float(data[i]);
    }
}
DEVICE void unpack_four(unsigned word, float* out) {
#pragma unroll
    for (int i = 0; i < 4; i++) out[i] = f8_bits_to_float(static_cast<unsigned char>(word >> 8 * i));
}
template <int COUNT> DEVICE void load_run(const f8* data, float (&out)[COUNT]) {
    if constexpr (COUNT % 16 == 0) {
#pragma unroll
        for (int i = 0; i < COUNT; i += 16) {
            const uint4 words = *reinterpret_cast<const uint4*>(data + i);
            unpack_four(words.x, out + i), unpack_four(words.y, out + i + 4);
            unpack_four(words.z, out + i + 8), unpack_four(words.w, out + i + 12);
        }
    } else if constexpr (COUNT % 4 == 0) {
#pragma unroll
        for (int i = 0; i < COUNT; i += 4) unpack_four(*reinterpret_cast<const unsigned*>(data + i), out + i);
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i++) out[i] = to_float(data[i]);
    }
}

DEVICE float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(WHOLE_WARP, x, step);
    return x;
}
DEVICE float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(WHOLE_WARP, x, step));
    return x;
}

// The sum over all threads, for all threads. `scratch`: 32 floats of the block. Blocks are whole warps.
DEVICE float block_sum(float x, float* scratch) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    float total = 0.0f;
    for (int i = 0; i < warps; i++) total += scratch[i];
    return total;
}
