// CUDA's device code as host code: enough of it for the kernels of this directory, and strict.
// A block's threads are fibers that run one after another and change at barriers, shuffles and
// votes; blocks run one after another. Shared memory and the memory of buffers start as garbage
// and have guards around them, checked when a block (a buffer) ends. A barrier that not every
// thread of the block reaches, or that threads reach on different lines, is an error.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __device__
#define __host__
#define __restrict__
#define __forceinline__ inline
#define DEVICE static inline
#define DEVICE_MEMBER inline
#define __launch_bounds__(x)

namespace emulator {

struct Index { unsigned x, y, z; };

struct Lane {
    Index thread;
    unsigned flat;
};

struct Geometry { Index grid, threads, block; unsigned shared_bytes; };

extern thread_local Lane* lane;
extern thread_local Geometry geometry;

void block_barrier(int line);
void warp_barrier(unsigned mask, int line);
uint64_t exchange(uint64_t value, unsigned source, int line);
unsigned ballot(bool value, int line);
void* shared(int id, size_t bytes);
void* dynamic_shared();
[[noreturn]] void fail(const char* what, int line);

float half_to_float(unsigned short bits);
unsigned short float_to_half(float x);
inline unsigned short float_to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Kernels by name: each is called with an array of pointers to its arguments, as the driver does.
using Call = void (*)(void** arguments);
void add_kernel(const char* name, unsigned threads_max, Call call);

template <auto KERNEL_FUNCTION> struct Thunk;
template <class... A, void (*KERNEL_FUNCTION)(A...)> struct Thunk<KERNEL_FUNCTION> {
    template <size_t... I> static void spread(void** arguments, std::index_sequence<I...>) {
        KERNEL_FUNCTION(*static_cast<A*>(arguments[I])...);
    }
    static void call(void** arguments) { spread(arguments, std::index_sequence_for<A...>{}); }
};
struct Registration {
    Registration(const char* name, unsigned threads_max, Call call) { add_kernel(name, threads_max, call); }
};

template <class T> T shuffle(T value, unsigned source, int line) {
    static_assert(sizeof(T) <= 8, "what a shuffle can carry");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = exchange(bits, source, line);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}
inline unsigned own_lane() { return lane->flat % 32; }

} // namespace emulator

#define KERNEL(NAME, THREADS, PARAMETERS)                                                                                 \
    static void NAME PARAMETERS;                                                                                          \
    static emulator::Registration NAME##_registration(#NAME, THREADS, &emulator::Thunk<&NAME>::call);                    \
    static void NAME PARAMETERS
#define SHARED(TYPE, NAME, COUNT) TYPE* NAME = static_cast<TYPE*>(emulator::shared(__COUNTER__, sizeof(TYPE) * (COUNT)))

#define threadIdx (emulator::lane->thread)
#define blockIdx (emulator::geometry.block)
#define blockDim (emulator::geometry.threads)
#define gridDim (emulator::geometry.grid)

#define __syncthreads() emulator::block_barrier(__LINE__)
#define __syncwarp() emulator::warp_barrier(0xffffffffu, __LINE__)
#define __shfl_sync(MASK, VALUE, SOURCE) emulator::shuffle(VALUE, (SOURCE), __LINE__)
#define __shfl_xor_sync(MASK, VALUE, STEP) emulator::shuffle(VALUE, emulator::own_lane() ^ (STEP), __LINE__)
#define __shfl_down_sync(MASK, VALUE, STEP) \
    emulator::shuffle(VALUE, emulator::own_lane() + (STEP) < 32 ? emulator::own_lane() + (STEP) : emulator::own_lane(), __LINE__)
#define __shfl_up_sync(MASK, VALUE, STEP) \
    emulator::shuffle(VALUE, emulator::own_lane() >= (STEP) ? emulator::own_lane() - (STEP) : emulator::own_lane(), __LINE__)
#define __ballot_sync(MASK, VALUE) emulator::ballot((VALUE) != 0, __LINE__)
#define __any_sync(MASK, VALUE) (emulator::ballot((VALUE) != 0, __LINE__) != 0)
#define __all_sync(MASK, VALUE) (emulator::ballot((VALUE) != 0, __LINE__) == 0xffffffffu)

struct float4 { float x, y, z, w; } __attribute__((aligned(16)));
struct uint2 { unsigned x, y; } __attribute__((aligned(8)));
struct uint4 { unsigned x, y, z, w; } __attribute__((aligned(16)));

inline float __uint_as_float(unsigned bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline unsigned __float_as_uint(float x) { unsigned bits; std::memcpy(&bits, &x, 4); return bits; }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }
// The compiler is told not to contract (-ffp-contract=off), so these are what they say.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
inline int __clz(unsigned x) { return x == 0 ? 32 : __builtin_clz(x); }

template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }

// One host thread runs a block: atomics are plain.
template <class T> T atomicAdd(T* at, T value) { T old = *at; *at = old + value; return old; }
template <class T> T atomicMax(T* at, T value) { T old = *at; if (old < value) *at = value; return old; }
template <class T> T atomicMin(T* at, T value) { T old = *at; if (value < old) *at = value; return old; }

struct __nv_bfloat16 { unsigned short bits; };

// Tiles of 16 x 16 x 16. A lane holds what it needs to make its own eight elements of the
// product (row lane / 2, columns lane % 2 * 8 and on): no other lane is asked.
namespace nvcuda {
namespace wmma {
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };
template <class USE, int M, int N, int K, class T, class LAYOUT = void> struct fragment {
    static_assert(M == 16 && N == 16 && K == 16, "the only tile known here");
    static constexpr int num_elements = std::is_same<USE, matrix_a>::value ? 16 : std::is_same<USE, matrix_b>::value ? 128 : 8;
    union {
        float values[num_elements];
        float x[num_elements]; // what CUDA calls them
    };
};
inline float widen(__nv_bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
template <class F, class T> void aligned(const T* from, unsigned stride) {
    if (reinterpret_cast<uintptr_t>(from) % 32 != 0 || stride * sizeof(T) % 16 != 0) emulator::fail("a tile that is not aligned", 0);
}
template <class LAYOUT>
void load_matrix_sync(fragment<matrix_a, 16, 16, 16, __nv_bfloat16, LAYOUT>& tile, const __nv_bfloat16* from, unsigned stride) {
    aligned<LAYOUT>(from, stride);
    const unsigned row = emulator::own_lane() / 2;
    for (unsigned k = 0; k < 16; k++)
        tile.values[k] = widen(std::is_same<LAYOUT, row_major>::value ? from[row * stride + k] : from[k * stride + row]);
}
template <class LAYOUT>
void load_matrix_sync(fragment<matrix_b, 16, 16, 16, __nv_bfloat16, LAYOUT>& tile, const __nv_bfloat16* from, unsigned stride) {
    aligned<LAYOUT>(from, stride);
    const unsigned first = emulator::own_lane() % 2 * 8;
    for (unsigned k = 0; k < 16; k++)
        for (unsigned j = 0; j < 8; j++)
            tile.values[k * 8 + j] = widen(std::is_same<LAYOUT, row_major>::value ? from[k * stride + first + j] : from[(first + j) * stride + k]);
}
inline void load_matrix_sync(fragment<accumulator, 16, 16, 16, float>& tile, const float* from, unsigned stride, layout_t layout) {
    aligned<float>(from, stride);
    if (layout != mem_row_major) emulator::fail("a layout that nothing uses", 0);
    for (unsigned j = 0; j < 8; j++) tile.values[j] = from[emulator::own_lane() / 2 * stride + emulator::own_lane() % 2 * 8 + j];
}
inline void store_matrix_sync(float* to, const fragment<accumulator, 16, 16, 16, float>& tile, unsigned stride, layout_t layout) {
    aligned<float>(to, stride);
    if (layout != mem_row_major) emulator::fail("a layout that nothing uses", 0);
    for (unsigned j = 0; j < 8; j++) to[emulator::own_lane() / 2 * stride + emulator::own_lane() % 2 * 8 + j] = tile.values[j];
}
inline void fill_fragment(fragment<accumulator, 16, 16, 16, float>& tile, float value) {
    for (float& x : tile.values) x = value;
}
template <class A, class B>
void mma_sync(fragment<accumulator, 16, 16, 16, float>& out, const fragment<matrix_a, 16, 16, 16, __nv_bfloat16, A>& a,
              const fragment<matrix_b, 16, 16, 16, __nv_bfloat16, B>& b, const fragment<accumulator, 16, 16, 16, float>& c) {
    float sums[8];
    for (int j = 0; j < 8; j++) sums[j] = c.values[j];
    for (int k = 0; k < 16; k++)
        for (int j = 0; j < 8; j++) sums[j] += a.values[k] * b.values[k * 8 + j];
    for (int j = 0; j < 8; j++) out.values[j] = sums[j];
}
} // namespace wmma
} // namespace nvcuda
