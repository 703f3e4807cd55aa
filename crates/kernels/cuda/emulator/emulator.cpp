// The scheduler behind emulator.h, and the functions that the host calls.
#include "emulator.h"
#include "../kernels.cu"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulator {

thread_local Lane* lane = nullptr;
thread_local Geometry geometry;

namespace {

constexpr size_t STACK = 128 * 1024;
constexpr size_t GUARD = 64;
constexpr size_t ARENA = 512 * 1024;
constexpr unsigned char GARBAGE = 0xff; // as f32 and f64 a NaN, as an index far outside
constexpr unsigned char FENCE = 0xa5;

struct Kernel { unsigned threads_max; Call call; };
std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

#if defined(__x86_64__)
struct Context { void* stack_pointer = nullptr; };
extern "C" void emulator_switch(void** save, void* restore);
asm(R"(
.text
.type emulator_switch,@function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch,.-emulator_switch
)");
void change(Context& from, Context& to) { emulator_switch(&from.stack_pointer, to.stack_pointer); }
void prepare(Context& context, char* stack, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + STACK) - 2;
    *top = reinterpret_cast<void*>(entry); // where `ret` goes; the stack is then as after a call
    context.stack_pointer = top - 6;
    std::memset(context.stack_pointer, 0, 6 * sizeof(void*));
}
#else
struct Context { ucontext_t context; };
void change(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
void prepare(Context& context, char* stack, void (*entry)()) {
    getcontext(&context.context);
    context.context.uc_stack.ss_sp = stack, context.context.uc_stack.ss_size = STACK;
    context.context.uc_link = nullptr;
    makecontext(&context.context, entry, 0);
}
#endif

struct Warp {
    unsigned arrived = 0, generation = 0, members = 0;
    int line = 0;
    uint64_t slots[2][32];
};

struct Fiber : Lane {
    Context context;
    const unsigned* waits_for = nullptr; // a generation that must differ from `seen`
    unsigned seen = 0;
    bool done = false;
};

struct Region { size_t start, bytes; };

struct Machine {
    Context scheduler;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    char* stacks = nullptr;
    size_t stack_count = 0;
    std::map<int, Region> regions;
    // One block's shared memory; a device has at most 228 KiB.
    unsigned char* arena = static_cast<unsigned char*>(std::aligned_alloc(128, ARENA));
    size_t arena_used = 0;
    unsigned arrived = 0, generation = 0, alive = 0;
    int line = 0;
    std::string error;
    Call call = nullptr;
    void** arguments = nullptr;

    void grow(size_t count) {
        if (count <= stack_count) return;
        if (stacks != nullptr) munmap(stacks, stack_count * STACK);
        void* memory = mmap(nullptr, count * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) std::abort();
        stacks = static_cast<char*>(memory), stack_count = count;
    }
    ~Machine() {
        if (stacks != nullptr) munmap(stacks, stack_count * STACK);
        std::free(arena);
    }
};
thread_local Machine machine;

Fiber& self() { return *static_cast<Fiber*>(lane); }

void wait(const unsigned& generation, unsigned seen) {
    Fiber& fiber = self();
    fiber.waits_for = &generation, fiber.seen = seen;
    change(fiber.context, machine.scheduler);
}

void start() {
    machine.call(machine.arguments);
    Fiber& fiber = self();
    fiber.done = true;
    machine.alive--;
    if (machine.arrived > 0) machine.error = "a thread ended while others wait at the barrier in line " + std::to_string(machine.line);
    machine.warps[fiber.flat / 32].members &= ~(1u << fiber.flat % 32);
    change(fiber.context, machine.scheduler);
    std::abort();
}

void check_shared() {
    for (const auto& [id, region] : machine.regions)
        for (size_t i = 0; i < GUARD; i++)
            if (machine.arena[region.start + region.bytes + i] != FENCE || machine.arena[region.start - 1 - i] != FENCE)
                machine.error = "a write beside the shared array number " + std::to_string(id);
    machine.regions.clear();
    machine.arena_used = 0;
}

// Runs the threads of a block in an order of its own: what depends on the order differs from block
// to block and, after each barrier, within a block.
void run_block(unsigned number) {
    const Index size = geometry.threads;
    const unsigned count = size.x * size.y * size.z;
    unsigned round = number * 2654435761u;
    machine.grow(count);
    machine.fibers.resize(count);
    machine.warps.assign((count + 31) / 32, Warp());
    machine.arrived = 0, machine.alive = count;
    for (unsigned i = 0; i < count; i++) {
        Fiber& fiber = machine.fibers[i];
        fiber.thread = {i % size.x, i / size.x % size.y, i / size.x / size.y};
        fiber.flat = i, fiber.done = false, fiber.waits_for = nullptr;
        machine.warps[i / 32].members |= 1u << i % 32;
        prepare(fiber.context, machine.stacks + i * STACK, start);
    }
    while (machine.alive > 0 && machine.error.empty()) {
        bool moved = false;
        round = round * 1664525u + 1013904223u;
        // Blocks are powers of two: an odd step reaches every thread.
        const unsigned step = (count & (count - 1)) == 0 ? round >> 8 | 1u : 1u;
        for (unsigned at = 0; at < count && machine.error.empty(); at++) {
            Fiber& fiber = machine.fibers[(at * step + (round >> 20)) % count];
            if (fiber.done || (fiber.waits_for != nullptr && *fiber.waits_for == fiber.seen)) continue;
            fiber.waits_for = nullptr;
            lane = &fiber;
            change(machine.scheduler, fiber.context);
            moved = true;
        }
        if (!moved && machine.error.empty()) machine.error = "no thread can go on: a barrier, shuffle or vote that not all reach";
    }
    if (machine.error.empty()) check_shared();
    machine.regions.clear();
    machine.arena_used = 0;
}

} // namespace

void add_kernel(const char* name, unsigned threads_max, Call call) { kernels()[name] = {threads_max, call}; }

void fail(const char* what, int line) {
    machine.error = std::string(what) + (line > 0 ? " in line " + std::to_string(line) : "");
    change(self().context, machine.scheduler);
    std::abort();
}

void block_barrier(int line) {
    if (machine.arrived > 0 && machine.line != line) fail("threads wait at different barriers, one of them", line);
    if (machine.alive != machine.fibers.size()) fail("a thread has ended before a barrier", line);
    machine.line = line;
    if (++machine.arrived == machine.alive) {
        machine.arrived = 0;
        machine.generation++;
        return;
    }
    wait(machine.generation, machine.generation);
}

void warp_barrier(unsigned mask, int line) {
    Warp& warp = machine.warps[self().flat / 32];
    if (warp.arrived != 0 && warp.line != line) fail("lanes wait in different lines, one of them", line);
    if ((warp.members & mask) != mask && machine.fibers.size() % 32 == 0) fail("a lane has ended before its warp met", line);
    warp.line = line;
    warp.arrived |= 1u << self().flat % 32;
    if (warp.arrived == (warp.members & mask)) {
        warp.arrived = 0;
        warp.generation++;
        return;
    }
    wait(warp.generation, warp.generation);
}

uint64_t exchange(uint64_t value, unsigned source, int line) {
    Warp& warp = machine.warps[self().flat / 32];
    uint64_t* slots = warp.slots[warp.generation & 1];
    slots[self().flat % 32] = value;
    warp_barrier(0xffffffffu, line);
    return slots[source % 32];
}

unsigned ballot(bool value, int line) {
    Warp& warp = machine.warps[self().flat / 32];
    uint64_t* slots = warp.slots[warp.generation & 1];
    const unsigned members = warp.members;
    slots[self().flat % 32] = value;
    warp_barrier(0xffffffffu, line);
    unsigned bits = 0;
    for (unsigned i = 0; i < 32; i++)
        if (members >> i & 1 && slots[i] != 0) bits |= 1u << i;
    return bits;
}

void* shared(int id, size_t bytes) {
    auto found = machine.regions.find(id);
    if (found == machine.regions.end()) {
        const size_t start = (machine.arena_used + GUARD + 127) / 128 * 128, end = start + bytes + GUARD;
        if (end > ARENA) fail("more shared memory than a device has", 0);
        std::memset(machine.arena + machine.arena_used, FENCE, end - machine.arena_used);
        std::memset(machine.arena + start, GARBAGE, bytes);
        machine.arena_used = end;
        found = machine.regions.emplace(id, Region{start, bytes}).first;
    }
    return machine.arena + found->second.start;
}

void* dynamic_shared() { return shared(-1, geometry.shared_bytes); }

float half_to_float(unsigned short bits) {
    const unsigned sign = static_cast<unsigned>(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
    if (exponent != 0) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
    const float small = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -small : small;
}

unsigned short float_to_half(float x) {
    const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<unsigned short>(sign | 0x7fff);
    if (magnitude >= 0x477ff000u) return static_cast<unsigned short>(sign | 0x7c00);
    if (magnitude < 0x38800000u) { // below the smallest normal number: steps of 2^-24
        const float scaled = __uint_as_float(magnitude) * 0x1p24f;
        return static_cast<unsigned short>(sign | static_cast<unsigned>(std::nearbyintf(scaled)));
    }
    const unsigned rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return static_cast<unsigned short>(sign | (rounded - 0x38000000u) >> 13);
}

} // namespace emulator

namespace {
int report(const std::string& error, char* out, size_t capacity) {
    if (error.empty()) return 0;
    std::snprintf(out, capacity, "%s", error.c_str());
    return 1;
}

float widened(const void* data, size_t i, int kind) { return load(data, i, kind); }
} // namespace

// Kernels that break a rule each: what the emulator must notice.
KERNEL(broken_barrier_of_some, 64, (unsigned* out, unsigned)) {
    if (threadIdx.x < 32) __syncthreads();
    out[threadIdx.x % 4] = 1;
}
KERNEL(broken_barriers_in_two_lines, 64, (unsigned*, unsigned)) {
    if (threadIdx.x < 32) __syncthreads();
    else
        __syncthreads();
}
KERNEL(broken_shared_array, 64, (unsigned*, unsigned)) {
    SHARED(unsigned, array, 8);
    array[8 + threadIdx.x % 4] = 1;
}
KERNEL(broken_buffer, 64, (unsigned* out, unsigned count)) { out[count] = 1; }
KERNEL(broken_tile, 32, (unsigned*, unsigned)) {
    SHARED(__nv_bfloat16, tile, 512);
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, __nv_bfloat16, nvcuda::wmma::row_major> a;
    nvcuda::wmma::load_matrix_sync(a, tile + 4, 16);
}
// No error, but garbage: a thread reads what another may not have written yet.
KERNEL(broken_missing_barrier, 64, (unsigned* out, unsigned)) {
    SHARED(unsigned, array, 64);
    array[threadIdx.x] = 1;
    if (array[63 - threadIdx.x] != 1) out[0] = 7;
}

// Runs a kernel; 0, or 1 with a message in `error`.
extern "C" int emulator_launch(const char* name, const unsigned* grid, unsigned threads, unsigned shared_bytes, void** arguments,
                               char* error, size_t capacity) {
    using namespace emulator;
    const auto found = kernels().find(name);
    if (found == kernels().end()) return report("no such kernel", error, capacity);
    if (threads == 0 || threads > found->second.threads_max || grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || grid[1] > 65535 || grid[2] > 65535)
        return report("a grid or block that no device would start", error, capacity);
    machine.error.clear();
    machine.call = found->second.call, machine.arguments = arguments;
    geometry.grid = {grid[0], grid[1], grid[2]}, geometry.threads = {threads, 1, 1}, geometry.shared_bytes = shared_bytes;
    unsigned number = 0;
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                geometry.block = {x, y, z};
                run_block(number++);
                if (!machine.error.empty()) {
                    const std::string where = std::string(name) + ", block " + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + ": ";
                    return report(where + machine.error, error, capacity);
                }
            }
    return 0;
}

// c (m, n) = or += scale * (a times b, each with its rows as they lie or as columns), as cuBLAS
// would. shape: m, n, k; strides: of a, b, c; flags: element type of a and b, a lies (k, m), b lies
// (k, n), add.
extern "C" void emulator_product(const void* a, const void* b, float* c, const size_t* shape, const size_t* strides, float scale,
                                 const int* flags) {
    const size_t m = shape[0], n = shape[1], k = shape[2];
    const auto packed = [&](const void* data, size_t rows, size_t stride, bool columns) {
        std::vector<float> out(rows * k);
        for (size_t row = 0; row < rows; row++)
            for (size_t i = 0; i < k; i++) out[row * k + i] = widened(data, columns ? i * stride + row : row * stride + i, flags[0]);
        return out;
    };
    const std::vector<float> left = packed(a, m, strides[0], flags[1] != 0), right = packed(b, n, strides[1], flags[2] != 0);
    for (size_t column = 0; column < n; column++) {
        const float* w = right.data() + column * k;
        for (size_t row = 0; row < m; row++) {
            const float* x = left.data() + row * k;
            float lanes[16] = {};
            size_t i = 0;
            for (; i + 16 <= k; i += 16)
                for (int j = 0; j < 16; j++) lanes[j] += w[i + j] * x[i + j];
            float sum = 0.0f;
            for (float lane : lanes) sum += lane;
            for (; i < k; i++) sum += w[i] * x[i];
            float& out = c[row * strides[2] + column];
            out = flags[3] != 0 ? out + scale * sum : scale * sum;
        }
    }
}
