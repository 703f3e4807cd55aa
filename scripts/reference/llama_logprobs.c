// Log-probabilities that llama.cpp gives to the tokens of a text, and its greedy continuation.
//
//     llama_logprobs FILE.gguf NEW_TOKENS ID ID ID ...
//
// Prints a line per position: next token, its log-probability, likeliest token, and that
// token's log-probability; after the given tokens come the greedy ones. Repacked weights are
// off so that the plain kernels compute.
#include "llama.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int best(const float *logits, int n) {
    int at = 0;
    for (int i = 1; i < n; i++) if (logits[i] > logits[at]) at = i;
    return at;
}

static double log_sum(const float *logits, int n) {
    double max = logits[best(logits, n)], sum = 0;
    for (int i = 0; i < n; i++) sum += exp(logits[i] - max);
    return max + log(sum);
}

int main(int argc, char **argv) {
    if (argc < 4) { fprintf(stderr, "usage: llama_logprobs FILE NEW_TOKENS ID...\n"); return 2; }
    int given = argc - 3, new_tokens = atoi(argv[2]);
    llama_backend_init();
    struct llama_model_params model_params = llama_model_default_params();
    model_params.use_extra_bufts = false;
    struct llama_model *model = llama_model_load_from_file(argv[1], model_params);
    if (!model) return 1;
    int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = given + new_tokens;
    params.n_batch = params.n_ubatch = given;
    params.n_threads = params.n_threads_batch = 2;
    struct llama_context *context = llama_init_from_model(model, params);
    struct llama_batch batch = llama_batch_init(given, 0, 1);
    batch.n_tokens = given;
    for (int i = 0; i < given; i++) {
        batch.token[i] = atoi(argv[3 + i]);
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    if (llama_decode(context, batch)) return 1;
    int next = 0;
    for (int i = 0; i < given + new_tokens; i++) {
        const float *logits = llama_get_logits_ith(context, i < given ? i : 0);
        int top = best(logits, vocab);
        next = i + 1 < given ? atoi(argv[4 + i]) : top;
        double total = log_sum(logits, vocab);
        printf("%d %.6f %d %.6f\n", next, logits[next] - total, top, logits[top] - total);
        if (i + 1 < given) continue;
        if (i + 1 == given + new_tokens) break;
        batch.n_tokens = 1;
        batch.token[0] = next;
        batch.pos[0] = i + 1;
        if (llama_decode(context, batch)) return 1;
    }
    return 0;
}
