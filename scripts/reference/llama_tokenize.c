// Token ids that llama.cpp gives to texts.
//
//     llama_tokenize FILE.gguf < TEXTS
//
// TEXTS holds, for each text, its length in bytes on a line of its own, then the bytes. Prints a
// line of ids for each: once with nothing read as a control token and no BOS, once with control
// tokens read and BOS as the file says.
#include "llama.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void) data;
    if (level >= GGML_LOG_LEVEL_WARN) fputs(text, stderr);
}

static void show(const struct llama_vocab *vocab, const char *text, int length, bool special) {
    int room = length + 16;
    llama_token *ids = malloc(room * sizeof *ids);
    int count = llama_tokenize(vocab, text, length, ids, room, special, special);
    for (int i = 0; i < count; i++) printf(i ? " %d" : "%d", ids[i]);
    printf("\n");
    free(ids);
}

int main(int argc, char **argv) {
    if (argc != 2) { fprintf(stderr, "usage: llama_tokenize FILE < TEXTS\n"); return 2; }
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    struct llama_model *model = llama_model_load_from_file(argv[1], params);
    if (!model) return 1;
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    int length;
    while (scanf("%d", &length) == 1 && length >= 0 && getchar() == '\n') {
        char *text = malloc(length + 1);
        if (fread(text, 1, length, stdin) != (size_t) length) return 1;
        show(vocab, text, length, false);
        show(vocab, text, length, true);
        free(text);
    }
    return 0;
}
