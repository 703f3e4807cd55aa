// Draws tokens from rows of logits, a block for a question, as the host's sampler does: the same
// filters, the same order of sums where it decides a draw, so that the same logits and the same
// uniform number give the same token. See src/sampling.rs for the rules.
#pragma once
#include "common.cuh"

// What is asked of one row; packed by the host (`Packed` in src/cuda/sampler.rs).
struct Question {
    unsigned row, edited; // `edited`: which row of the scratch memory holds the edited logits, or NONE
    float temperature;
    unsigned top_k;
    float top_p, min_p;
    float repetition, presence, frequency;
    unsigned bias_start, bias_end, seen_start, seen_end;
    unsigned mask; // which mask, or NONE
    unsigned top;  // how many of the likeliest tokens to report
    unsigned asked_start, asked_end;
    unsigned draw; // 0: only report
    double uniform;
};

struct Answer {
    unsigned status, raw_status; // STATUS_...
    unsigned token;              // drawn, or where the first NaN or infinity is
    unsigned allowed;            // tokens that the mask allows
    float sampled_logprob, raw_logprob; // or the value of the first NaN or infinity, drawn from and raw
    unsigned top_count, raw_token;
};
enum Status { STATUS_OK = 0, STATUS_NOT_A_NUMBER = 1, STATUS_NOTHING_ALLOWED = 2, STATUS_NONE = 3 };

struct SampleArguments {
    const float* logits;
    const Question* questions;
    Answer* answers;
    float* edited;                // (concurrent, vocabulary)
    unsigned* candidates;         // (concurrent, vocabulary)
    float* run_max;               // (concurrent, runs)
    const unsigned* bias_tokens;
    const float* bias_values;
    const unsigned* seen_tokens;
    const unsigned* seen_counts;
    const unsigned* masks;
    const unsigned* asked_tokens;
    float* asked_logprobs;
    unsigned* top_tokens;         // (questions, top_max)
    float* top_logprobs;
    unsigned vocabulary, stride, mask_words, top_max, first_question;
};

constexpr unsigned SAMPLE_THREADS = 1024;
constexpr unsigned RUN = 64;          // logits whose maximum is kept
constexpr unsigned SUM_BLOCK = 256;   // logits whose weights are summed in f32, 16 lanes apart
constexpr unsigned SUM_BLOCKS_MAX = 2048;
constexpr unsigned TOP_MAX = 256;
constexpr float LOWEST = -3.402823466e38f;
constexpr double FIXED_POINT = 17592186044416.0; // 2^44: weights as integers, whose sums have no order

// e^x, bit for bit what the host computes.
DEVICE float sampling_exp(float x) {
    const float lowest = -87.33f, highest = 88.37f;
    const float clamped = fminf(highest, fmaxf(lowest, x));
    const float n = rintf(__fmul_rn(clamped, 1.44269504088896341f));
    float r = fmaf(n, -0.693359375f, clamped);
    r = fmaf(n, 2.1219444e-4f, r);
    float p = 1.0f / 5040.0f;
    p = fmaf(p, r, 1.0f / 720.0f);
    p = fmaf(p, r, 1.0f / 120.0f);
    p = fmaf(p, r, 1.0f / 24.0f);
    p = fmaf(p, r, 1.0f / 6.0f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    const float y = __fmul_rn(p, __int_as_float((static_cast<int>(n) + 127) << 23));
    if (x < lowest) return 0.0f;
    return highest < x ? INFINITE : y;
}

// Integers in the order of the logits; the two zeros are equal.
DEVICE unsigned order_key(float logit) {
    const unsigned bits = __float_as_uint(logit == 0.0f ? 0.0f : logit);
    return bits >> 31 == 1 ? ~bits : bits | 0x80000000u;
}
DEVICE float key_logit(unsigned key) { return __uint_as_float(key >> 31 == 1 ? key & 0x7fffffffu : ~key); }

constexpr unsigned FIRST_FINITE_KEY = 0x00800000u; // that of the lowest finite number

// Memory that the threads of a block share.
struct SampleMemory {
    double sums[SUM_BLOCKS_MAX];
    double parts[SAMPLE_THREADS];
    unsigned long long weights[256];
    unsigned counts[256];
    unsigned part_counts[SAMPLE_THREADS];
    unsigned top_tokens[TOP_MAX];
    float top_logits[TOP_MAX];
    float scratch[32];
    double total, rest;
    unsigned word, other;
    unsigned long long before;
};

// One row of logits in the hands of a block. Members are the same in every thread.
struct RowSampler {
    const float* logits;
    unsigned count; // (V)
    float* run_max;
    unsigned* candidates;
    SampleMemory& memory;
    float max, inverse;
    // Tokens that are still in: a key above `least`, or equal and an id of at most `last`, and a
    // weight of at least `lightest`.
    unsigned least, last;
    float lightest;
    unsigned listed; // candidates in the list

    DEVICE_MEMBER float weight(unsigned token) const { return sampling_exp(__fmul_rn(__fsub_rn(logits[token], max), inverse)); }
    DEVICE_MEMBER bool in(unsigned token) const {
        const unsigned key = order_key(logits[token]);
        return key > least || (key == least && token <= last);
    }
    DEVICE_MEMBER float kept_weight(unsigned token) const {
        if (!in(token)) return 0.0f;
        const float w = weight(token);
        return w < lightest ? 0.0f : w;
    }
    DEVICE_MEMBER unsigned runs() const { return (count + RUN - 1) / RUN; }

    // Maxima of runs and of the row. False if a logit is NaN or plus infinity (memory.word is
    // then the first such token) or none is finite (memory.word is NONE).
    DEVICE_MEMBER bool scan() {
        const unsigned lane = threadIdx.x % 32;
        if (threadIdx.x == 0) memory.word = NONE;
        __syncthreads();
        float largest = -INFINITE;
        for (unsigned run = threadIdx.x / 32; run < runs(); run += blockDim.x / 32) {
            float top = -INFINITE;
            for (unsigned i = run * RUN + lane; i < count && i < (run + 1) * RUN; i += 32) {
                const float x = logits[i];
                if (!(x < INFINITE)) atomicMin(&memory.word, i);
                top = fmaxf(top, x);
            }
            top = warp_max(top);
            if (lane == 0) run_max[run] = top;
            largest = fmaxf(largest, top);
        }
        if (lane == 0) memory.scratch[threadIdx.x / 32] = largest;
        __syncthreads();
        max = -INFINITE;
        for (unsigned i = 0; i < blockDim.x / 32; i++) max = fmaxf(max, memory.scratch[i]);
        const unsigned bad = memory.word;
        __syncthreads();
        least = FIRST_FINITE_KEY, last = NONE, lightest = 0.0f, listed = 0;
        return bad == NONE && max > -INFINITE;
    }

    // The first token with the largest logit.
    DEVICE_MEMBER unsigned likeliest() {
        if (threadIdx.x == 0) memory.word = NONE;
        __syncthreads();
        for (unsigned i = threadIdx.x; i < count; i += blockDim.x)
            if (logits[i] == max) atomicMin(&memory.word, i);
        __syncthreads();
        const unsigned token = memory.word;
        __syncthreads();
        return token;
    }

    // memory.sums[b] = the weights that are in, of each block of 256, and their sum, in the
    // host's order: 16 lanes apart in f32, then a tree, then f64. The last few logits of a row
    // that do not fill 16 lanes go into the f64 sum (`tail_apart`) or into their lanes.
    DEVICE_MEMBER double block_sums(bool tail_apart, bool all) {
        const unsigned lane = threadIdx.x % 16, blocks = (count + SUM_BLOCK - 1) / SUM_BLOCK;
        const unsigned steps = (blocks + blockDim.x / 16 - 1) / (blockDim.x / 16);
        for (unsigned step = 0; step < steps; step++) {
            const unsigned block = step * (blockDim.x / 16) + threadIdx.x / 16, start = block * SUM_BLOCK;
            const unsigned end = min(count, start + SUM_BLOCK), whole = tail_apart && end > start ? start + (end - start) / 16 * 16 : end;
            float sum = 0.0f;
            if (block < blocks)
                for (unsigned i = start + lane; i < whole; i += 16) sum = __fadd_rn(sum, all ? weight(i) : kept_weight(i));
#pragma unroll
            for (int width = 8; width > 0; width /= 2) sum = __fadd_rn(sum, __shfl_xor_sync(WHOLE_WARP, sum, width));
            if (lane == 0 && block < blocks) {
                double tail = 0.0;
                for (unsigned i = whole; i < end; i++) tail = __dadd_rn(tail, static_cast<double>(weight(i)));
                memory.sums[block] = whole == end ? static_cast<double>(sum) : __dadd_rn(static_cast<double>(sum), tail);
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            double total = 0.0;
            for (unsigned i = 0; i < blocks; i++) total = __dadd_rn(total, memory.sums[i]);
            memory.total = total;
        }
        __syncthreads();
        return memory.total;
    }

    // Draws by memory.sums: the token, and its weight in memory.scratch[0].
    DEVICE_MEMBER unsigned draw_by_blocks(double target, bool all) {
        const unsigned blocks = (count + SUM_BLOCK - 1) / SUM_BLOCK;
        if (threadIdx.x == 0) {
            double rest = target;
            unsigned chosen = 0;
            for (unsigned i = 0; i < blocks; i++) {
                if (!(memory.sums[i] > 0.0)) continue;
                chosen = i;
                if (rest < memory.sums[i]) break;
                rest -= memory.sums[i];
            }
            memory.rest = rest, memory.word = chosen;
        }
        __syncthreads();
        const unsigned start = memory.word * SUM_BLOCK, end = min(count, start + SUM_BLOCK);
        for (unsigned i = start + threadIdx.x; i < end; i += blockDim.x) memory.parts[i - start] = all ? weight(i) : kept_weight(i);
        __syncthreads();
        if (threadIdx.x == 0) {
            double cumulative = 0.0;
            unsigned chosen = start;
            float weight = 0.0f;
            for (unsigned i = start; i < end; i++) {
                const double w = memory.parts[i - start];
                if (!(w > 0.0)) continue;
                chosen = i, weight = static_cast<float>(w);
                cumulative += w;
                if (cumulative > memory.rest) break;
            }
            memory.word = chosen, memory.scratch[0] = weight;
        }
        __syncthreads();
        const unsigned token = memory.word;
        __syncthreads();
        return token;
    }

    // Writes the tokens with a finite logit of at least `bound` to the list, in order.
    DEVICE_MEMBER void list(float bound) {
        bound = fmaxf(bound, LOWEST);
        const unsigned warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const unsigned share = (runs() + warps - 1) / warps, first = min(runs(), warp * share), end = min(runs(), first + share);
        unsigned found = 0;
        for (unsigned run = first; run < end; run++) {
            if (run_max[run] < bound) continue;
            for (unsigned half = 0; half < RUN; half += 32) {
                const unsigned i = run * RUN + half + lane;
                found += __popc(__ballot_sync(WHOLE_WARP, i < count && logits[min(i, count - 1)] >= bound));
            }
        }
        if (lane == 0) memory.part_counts[warp] = found;
        __syncthreads();
        unsigned at = 0, total = 0;
        for (unsigned i = 0; i < warps; i++) {
            if (i == warp) at = total;
            total += memory.part_counts[i];
        }
        for (unsigned run = first; run < end; run++) {
            if (run_max[run] < bound) continue;
            for (unsigned half = 0; half < RUN; half += 32) {
                const unsigned i = run * RUN + half + lane;
                const bool here = i < count && logits[min(i, count - 1)] >= bound;
                const unsigned votes = __ballot_sync(WHOLE_WARP, here);
                if (here) candidates[at + __popc(votes & ((1u << lane) - 1))] = i;
                at += __popc(votes);
            }
        }
        listed = total;
        __syncthreads();
    }

    // One round of the radix search: sums of the listed tokens that agree with `prefix` above
    // `shift`, by their next eight bits. Over run maxima instead of tokens if `of_runs`.
    DEVICE_MEMBER void histogram(unsigned prefix, int shift, bool by_weight, bool of_runs) {
        for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) memory.weights[i] = 0, memory.counts[i] = 0;
        __syncthreads();
        const unsigned end = of_runs ? runs() : listed;
        for (unsigned i = threadIdx.x; i < end; i += blockDim.x) {
            const unsigned token = of_runs ? i : candidates[i];
            const unsigned key = order_key(of_runs ? run_max[i] : logits[token]);
            if (shift < 24 && key >> (shift + 8) != prefix >> (shift + 8)) continue;
            if (!of_runs && !in(token)) continue;
            const unsigned bucket = key >> shift & 255;
            atomicAdd(&memory.counts[bucket], 1u);
            if (by_weight) atomicAdd(&memory.weights[bucket], static_cast<unsigned long long>(static_cast<double>(weight(token)) * FIXED_POINT));
        }
        __syncthreads();
    }

    // The key at which the measure of the first tokens reaches `goal`: memory.before is what those
    // above it have, memory.other how many have exactly this key. The lowest if it never does.
    DEVICE_MEMBER unsigned threshold(double goal, bool by_weight, bool of_runs) {
        unsigned prefix = 0;
        if (threadIdx.x == 0) memory.before = 0;
        for (int shift = 24; shift >= 0; shift -= 8) {
            histogram(prefix, shift, by_weight, of_runs);
            if (threadIdx.x == 0) {
                unsigned long long before = memory.before, last_sum = 0;
                unsigned chosen = NONE;
                const double unit = by_weight ? 1.0 / FIXED_POINT : 1.0;
                for (int bucket = 255; bucket >= 0; bucket--) {
                    if (memory.counts[bucket] == 0) continue;
                    if (chosen != NONE) before += last_sum;
                    chosen = static_cast<unsigned>(bucket);
                    last_sum = by_weight ? memory.weights[bucket] : memory.counts[bucket];
                    if (static_cast<double>(before + last_sum) * unit >= goal) break;
                }
                memory.before = before;
                memory.word = chosen == NONE ? 0 : chosen, memory.other = chosen == NONE ? 0 : memory.counts[chosen];
            }
            __syncthreads();
            prefix |= memory.word << shift;
            __syncthreads();
        }
        return prefix;
    }

    // Keeps the shortest run of first listed tokens whose measure reaches `goal`, at least one.
    DEVICE_MEMBER void cut(double goal, bool by_weight) {
        const unsigned key = threshold(goal, by_weight, false), ties = memory.other;
        double unit = 1.0, before = static_cast<double>(memory.before);
        if (by_weight) {
            unit = static_cast<double>(sampling_exp(__fmul_rn(__fsub_rn(key_logit(key), max), inverse)));
            before /= FIXED_POINT;
        }
        // The first `wanted` of the ties, which all weigh the same, reach it.
        const double needed = unit > 0.0 ? ceil((goal - before) / unit) : static_cast<double>(ties);
        const unsigned wanted = needed < 1.0 ? 1 : needed < static_cast<double>(ties) ? static_cast<unsigned>(needed) : ties;
        unsigned end = NONE;
        if (wanted < ties) end = nth_tie(key, wanted);
        else if (key == least) end = last;
        __syncthreads();
        least = key, last = end;
    }

    // The id of the n-th listed token with this key that is in.
    DEVICE_MEMBER unsigned nth_tie(unsigned key, unsigned n) {
        const unsigned share = (listed + blockDim.x - 1) / blockDim.x, first = min(listed, threadIdx.x * share), end = min(listed, first + share);
        unsigned found = 0;
        for (unsigned i = first; i < end; i++) found += order_key(logits[candidates[i]]) == key && in(candidates[i]);
        memory.part_counts[threadIdx.x] = found;
        __syncthreads();
        if (threadIdx.x == 0) {
            unsigned left = n, part = 0;
            while (memory.part_counts[part] < left) left -= memory.part_counts[part++];
            for (unsigned i = part * share; left > 0; i++)
                if (order_key(logits[candidates[i]]) == key && in(candidates[i]) && --left == 0) memory.word = candidates[i];
        }
        __syncthreads();
        return memory.word;
    }

    // Draws from the listed tokens that are in: f64 sums in the order of ids. As draw_by_blocks;
    // the sum of all weights is in memory.total.
    DEVICE_MEMBER double list_total() {
        const unsigned share = (listed + blockDim.x - 1) / blockDim.x, first = min(listed, threadIdx.x * share), end = min(listed, first + share);
        double sum = 0.0;
        for (unsigned i = first; i < end; i++) sum += static_cast<double>(kept_weight(candidates[i]));
        memory.parts[threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.x == 0) {
            double total = 0.0;
            for (unsigned i = 0; i < blockDim.x; i++) total += memory.parts[i];
            memory.total = total;
        }
        __syncthreads();
        return memory.total;
    }
    DEVICE_MEMBER unsigned draw_by_list(double uniform) {
        const double target = __dmul_rn(list_total(), uniform);
        if (threadIdx.x == 0) {
            const unsigned share = (listed + blockDim.x - 1) / blockDim.x;
            double rest = target;
            unsigned part = 0;
            for (unsigned i = 0; i < blockDim.x; i++) {
                if (!(memory.parts[i] > 0.0)) continue;
                part = i;
                if (rest < memory.parts[i]) break;
                rest -= memory.parts[i];
            }
            double cumulative = 0.0;
            for (unsigned i = part * share; i < listed && i < (part + 1) * share; i++) {
                const float w = kept_weight(candidates[i]);
                if (!(w > 0.0f)) continue;
                memory.word = candidates[i], memory.scratch[0] = w;
                cumulative += static_cast<double>(w);
                if (cumulative > rest) break;
            }
        }
        __syncthreads();
        const unsigned token = memory.word;
        __syncthreads();
        return token;
    }

    // A logit below which none of the first `k` tokens lies.
    DEVICE_MEMBER float bound_by_k(unsigned k) {
        if (k == 0 || k > runs()) return -INFINITE;
        return key_logit(threshold(static_cast<double>(k), false, true));
    }
    // A logit so low that tokens from there on weigh more than `p` of the row's `total`.
    DEVICE_MEMBER float bound_by_p(double p, double total) const {
        const double lightest_wanted = (1.0 - p) * total / (2.0 * static_cast<double>(count));
        return lowered(log(lightest_wanted));
    }
    DEVICE_MEMBER float lowered(double log_weight) const {
        const float bound = static_cast<float>(static_cast<double>(max) + log_weight / static_cast<double>(inverse));
        return __fsub_rn(bound, __fmul_rn(fabsf(bound), 1.1920929e-7f));
    }
    // Whether a quarter of the runs at most reach what `min_p` asks for; the host then looks at
    // these alone.
    DEVICE_MEMBER bool few_are_heavy(float bound) {
        if (threadIdx.x == 0) memory.word = 0;
        __syncthreads();
        for (unsigned i = threadIdx.x; i < runs(); i += blockDim.x)
            if (run_max[i] >= bound) atomicAdd(&memory.word, 1u);
        __syncthreads();
        const unsigned reached = memory.word;
        __syncthreads();
        return reached <= runs() / 4;
    }

    // Draws after all filters: the token; its probability in memory.rest.
    DEVICE_MEMBER unsigned draw(const Question& asked) {
        inverse = fminf(__fdiv_rn(1.0f, asked.temperature), -LOWEST);
        const bool by_k = asked.top_k > 0 && asked.top_k < count, by_p = asked.top_p < 1.0f, by_min = asked.min_p > 0.0f;
        const double p = static_cast<double>(asked.top_p);
        bool sparse = false;
        if (by_k) {
            list(bound_by_k(asked.top_k));
            cut(static_cast<double>(asked.top_k), false);
            sparse = asked.top_k <= runs() / 4;
            if (by_p) cut(p * (sparse ? list_total() : block_sums(false, false)), true);
        } else if (by_p) {
            const double total = block_sums(false, true);
            list(bound_by_p(p, total));
            cut(p * total, true);
        } else if (by_min) {
            const float bound = lowered(log(static_cast<double>(asked.min_p) * 0.99));
            sparse = few_are_heavy(bound);
            if (sparse) list(bound);
        }
        if (by_min) lightest = asked.min_p;
        unsigned token;
        if (sparse) {
            token = draw_by_list(asked.uniform);
        } else {
            const bool all = !by_k && !by_p && !by_min;
            const double total = block_sums(all, all);
            token = draw_by_blocks(__dmul_rn(asked.uniform, total), all);
        }
        if (threadIdx.x == 0) memory.rest = static_cast<double>(memory.scratch[0]) / memory.total;
        __syncthreads();
        return token;
    }

    // ln of the sum of e^logit.
    DEVICE_MEMBER double log_sum_exp() {
        inverse = 1.0f;
        return static_cast<double>(max) + log(block_sums(true, true));
    }

    // The first `k` tokens with the log of their probabilities; how many there are.
    DEVICE_MEMBER unsigned top(unsigned k, double log_total, unsigned* tokens, float* logprobs) {
        list(bound_by_k(k));
        if (listed > k) cut(static_cast<double>(k), false);
        if (threadIdx.x == 0) memory.word = 0;
        __syncthreads();
        for (unsigned i = threadIdx.x; i < listed; i += blockDim.x)
            if (in(candidates[i])) {
                const unsigned at = atomicAdd(&memory.word, 1u);
                memory.top_tokens[at] = candidates[i], memory.top_logits[at] = logits[candidates[i]];
            }
        __syncthreads();
        const unsigned found = memory.word;
        for (unsigned i = threadIdx.x; i < found; i += blockDim.x) {
            const unsigned token = memory.top_tokens[i], key = order_key(memory.top_logits[i]);
            unsigned rank = 0;
            for (unsigned j = 0; j < found; j++) {
                const unsigned other = order_key(memory.top_logits[j]);
                rank += other > key || (other == key && memory.top_tokens[j] < token);
            }
            tokens[rank] = token;
            logprobs[rank] = static_cast<float>(static_cast<double>(memory.top_logits[i]) - log_total);
        }
        __syncthreads();
        return found;
    }
};

// Copies a question's row and edits it: bias, penalties, mask. Each list names a token once.
KERNEL(sample_edit, 1024, (SampleArguments a)) {
    SHARED(unsigned, allowed, 1);
    const unsigned index = a.first_question + blockIdx.x;
    const Question asked = a.questions[index];
    if (asked.edited == NONE) return;
    const float* from = a.logits + static_cast<size_t>(asked.row) * a.stride;
    float* to = a.edited + static_cast<size_t>(asked.edited) * a.vocabulary;
    for (unsigned i = threadIdx.x; i < a.vocabulary; i += blockDim.x) to[i] = from[i];
    if (threadIdx.x == 0) allowed[0] = 0;
    __syncthreads();
    for (unsigned i = asked.bias_start + threadIdx.x; i < asked.bias_end; i += blockDim.x)
        if (a.bias_tokens[i] < a.vocabulary) to[a.bias_tokens[i]] = __fadd_rn(to[a.bias_tokens[i]], a.bias_values[i]);
    __syncthreads();
    for (unsigned i = asked.seen_start + threadIdx.x; i < asked.seen_end; i += blockDim.x) {
        const unsigned token = a.seen_tokens[i], output = a.seen_counts[i];
        if (token >= a.vocabulary) continue;
        float x = to[token];
        x = x > 0.0f ? __fdiv_rn(x, asked.repetition) : __fmul_rn(x, asked.repetition);
        if (output > 0) x = __fsub_rn(x, __fadd_rn(asked.presence, __fmul_rn(asked.frequency, static_cast<float>(output))));
        to[token] = x;
    }
    if (asked.mask == NONE) return;
    __syncthreads();
    const unsigned* mask = a.masks + static_cast<size_t>(asked.mask) * a.mask_words;
    unsigned count = 0;
    for (unsigned i = threadIdx.x; i < a.vocabulary; i += blockDim.x) {
        if (mask[i / 32] >> (i % 32) & 1) count++;
        else to[i] = -INFINITE;
    }
    atomicAdd(&allowed[0], count);
    __syncthreads();
    if (threadIdx.x == 0) a.answers[index].allowed = allowed[0];
}

// Draws a token for each question and reports raw log-probabilities.
KERNEL(sample, 1024, (SampleArguments a)) {
    SHARED(SampleMemory, shared, 1);
    const unsigned index = a.first_question + blockIdx.x;
    const Question asked = a.questions[index];
    Answer* answer = a.answers + index;
    const float* raw = a.logits + static_cast<size_t>(asked.row) * a.stride;
    const unsigned run_count = (a.vocabulary + RUN - 1) / RUN;
    RowSampler row{raw, a.vocabulary, a.run_max + static_cast<size_t>(blockIdx.x) * run_count,
                   a.candidates + static_cast<size_t>(blockIdx.x) * a.vocabulary, shared[0]};
    unsigned status = STATUS_NONE, token = NONE;
    double probability = 1.0;
    float bad_value = 0.0f;
    if (asked.draw != 0) {
        if (asked.edited != NONE) row.logits = a.edited + static_cast<size_t>(asked.edited) * a.vocabulary;
        if (!row.scan()) {
            token = row.memory.word;
            status = token == NONE ? STATUS_NOTHING_ALLOWED : STATUS_NOT_A_NUMBER;
            if (token != NONE) bad_value = row.logits[token];
        } else {
            status = STATUS_OK;
            token = asked.temperature == 0.0f ? row.likeliest() : row.draw(asked);
            if (asked.temperature != 0.0f) probability = row.memory.rest;
        }
        __syncthreads();
    }
    row.logits = raw;
    const bool readable = row.scan();
    const unsigned bad = row.memory.word;
    __syncthreads();
    const double log_total = readable ? row.log_sum_exp() : 0.0;
    if (threadIdx.x == 0) {
        answer->status = status, answer->token = token;
        answer->raw_status = readable ? STATUS_OK : bad == NONE ? STATUS_NOTHING_ALLOWED : STATUS_NOT_A_NUMBER;
        answer->raw_token = bad;
        answer->sampled_logprob = status == STATUS_NOT_A_NUMBER ? bad_value : static_cast<float>(log(probability));
        answer->raw_logprob = readable && status == STATUS_OK ? static_cast<float>(static_cast<double>(raw[token]) - log_total) : INFINITE - INFINITE;
        if (bad != NONE) answer->raw_logprob = raw[bad];
    }
    for (unsigned i = asked.asked_start + threadIdx.x; i < asked.asked_end; i += blockDim.x) {
        const unsigned which = a.asked_tokens[i];
        const bool known = readable && which < a.vocabulary;
        a.asked_logprobs[i] = known ? static_cast<float>(static_cast<double>(raw[which]) - log_total) : INFINITE - INFINITE;
    }
    unsigned found = 0;
    if (readable && asked.top > 0) {
        const size_t at = static_cast<size_t>(index) * a.top_max;
        found = row.top(min(asked.top, a.top_max), log_total, a.top_tokens + at, a.top_logprobs + at);
    }
    if (threadIdx.x == 0) answer->top_count = found;
}

// Rows that compute what was just drawn take it from there: `index[row]` is the question that drew
// it; rows whose index is no question have their token already.
KERNEL(take_drawn, 256, (const Answer* answers, unsigned questions, const unsigned* index, unsigned* tokens, unsigned rows)) {
    const unsigned row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row < rows && index[row] < questions) tokens[row] = answers[index[row]].token;
}
