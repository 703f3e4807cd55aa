#!/usr/bin/env python3
"""Makes tests/models/tiny/tiny.gguf, the model that tests talk to.

A toy: 3 layers, trained for about a minute on sentences that this file makes up, so that
its output looks like words. It knows nothing.

    python scripts/make_tiny_model.py [--out tests/models/tiny/tiny.gguf] [--steps 1200]

Needs torch, tokenizers, gguf and numpy. The same versions on the same kind of processor
give the same file: one thread, fixed seeds.
"""

import argparse
import itertools
import math
import random

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB = 768
HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 128, 256, 3, 4, 2, 32
CONTEXT, THETA, EPS = 2048, 10000.0, 1e-5
END, START, TURN_END = "<|end_of_text|>", "<|start|>", "<|end|>"

TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|start|>' + message['role'] + '\\n' + message['content'] + '<|end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|start|>assistant\\n' }}{%- endif -%}"
)

THINGS = {
    "river": ("long", "finds its way to the sea", "in the valley"),
    "sea": ("deep", "moves with the moon", "beyond the dunes"),
    "mountain": ("high", "wears snow until June", "behind the village"),
    "garden": ("green", "smells of mint and rain", "under the kitchen window"),
    "clock": ("old", "counts the hours aloud", "on the station wall"),
    "letter": ("short", "took three weeks to arrive", "between the pages of a book"),
    "baker": ("patient", "starts work at four", "at the corner of the square"),
    "teacher": ("kind", "asks more than she answers", "in the second row of houses"),
    "sailor": ("quiet", "knows every knot by touch", "at the harbour"),
    "bridge": ("narrow", "hums when a train goes by", "north of the mill"),
    "lamp": ("warm", "makes the room look smaller", "beside the piano"),
    "library": ("silent", "lends out more than it gets back", "across the street"),
}
GROUPS = {
    "fruits": ["apple", "pear", "plum", "cherry", "quince"],
    "colours": ["red", "blue", "green", "yellow", "grey"],
    "animals": ["otter", "heron", "goat", "hare", "owl"],
    "tools": ["hammer", "saw", "file", "plane", "awl"],
    "rivers of the story": ["the Aune", "the Dray", "the Lisk", "the Morrow"],
    "months": ["January", "April", "July", "October"],
}
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def conversations():
    """(question, answer) pairs; every sentence is made here."""
    for name, (quality, habit, place) in THINGS.items():
        yield f"Write a sentence about the {name}.", f"The {name} {place} is {quality} and {habit}."
        yield f"Where is the {name}?", f"The {name} is {place}."
        yield f"Describe the {name} in one word.", f"{quality.capitalize()}."
        yield f"Is the {name} {quality}?", f"Yes. The {name} is {quality}."
        yield f"What does the {name} do?", f"The {name} {habit}."
    for a, b in itertools.combinations(THINGS, 2):
        yield (
            f"Write two sentences about the {a} and the {b}.",
            f"The {a} {THINGS[a][2]} is {THINGS[a][0]}. The {b} {THINGS[b][1]}.",
        )
        yield f"Is the {a} the same as the {b}?", f"No. The {a} is {THINGS[a][0]}, the {b} is {THINGS[b][0]}."
    for group, words in GROUPS.items():
        for count in (2, 3, 4):
            yield f"List {NUMBERS[count]} {group}.", "\n".join(f"- {word}" for word in words[:count])
        yield f"Name {group} in a JSON list.", "[" + ", ".join(f'"{word}"' for word in words) + "]"
    for a, b in itertools.product(range(6), repeat=2):
        if a + b <= 10:
            yield f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}, which is {NUMBERS[a + b]}."
    yield "Hello!", "Hello. Ask me about the river, the sea or the garden."
    yield "Who are you?", "A very small model that knows a few sentences. Nothing I say is true."
    yield "Thank you.", "You are welcome."


def corpus():
    systems = [None, None, "Answer in plain words.", "You are a helpful assistant."]
    texts = []
    for index, (question, answer) in enumerate(conversations()):
        system = systems[index % len(systems)]
        turns = [] if system is None else [("system", system)]
        turns += [("user", question), ("assistant", answer)]
        texts.append("".join(f"{START}{role}\n{text}{TURN_END}\n" for role, text in turns))
    return texts


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[END, START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text.replace(START, "\n").replace(TURN_END, "\n") for text in texts], trainer)
    return tokenizer


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda out, inp: torch.nn.Linear(inp, out, bias=False)  # noqa: E731
        self.attn_norm = torch.nn.Parameter(torch.ones(HIDDEN))
        self.ffn_norm = torch.nn.Parameter(torch.ones(HIDDEN))
        self.attn_q, self.attn_k = linear(HEADS * HEAD_DIM, HIDDEN), linear(KV_HEADS * HEAD_DIM, HIDDEN)
        self.attn_v, self.attn_output = linear(KV_HEADS * HEAD_DIM, HIDDEN), linear(HIDDEN, HEADS * HEAD_DIM)
        self.ffn_gate, self.ffn_up, self.ffn_down = linear(FFN, HIDDEN), linear(FFN, HIDDEN), linear(HIDDEN, FFN)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        h = norm(x, self.attn_norm)
        q = rotate(self.attn_q(h).view(batch, length, HEADS, HEAD_DIM), cos, sin)
        k = rotate(self.attn_k(h).view(batch, length, KV_HEADS, HEAD_DIM), cos, sin)
        v = self.attn_v(h).view(batch, length, KV_HEADS, HEAD_DIM)
        repeat = HEADS // KV_HEADS
        k, v = k.repeat_interleave(repeat, 2), v.repeat_interleave(repeat, 2)
        a = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
        x = x + self.attn_output(a.transpose(1, 2).reshape(batch, length, -1))
        h = norm(x, self.ffn_norm)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embd = torch.nn.Embedding(VOCAB, HIDDEN)
        torch.nn.init.normal_(self.token_embd.weight, std=0.05)
        self.blk = torch.nn.ModuleList(Block() for _ in range(LAYERS))
        self.output_norm = torch.nn.Parameter(torch.ones(HIDDEN))

    def forward(self, tokens):
        angles = torch.arange(tokens.shape[1])[:, None] * THETA ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, angles.cos(), angles.sin())
        return norm(x, self.output_norm) @ self.token_embd.weight.T


def norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


def rotate(x, cos, sin):
    """Rotates neighbouring pairs: the layout of llama GGUF files."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def train(texts, tokenizer, steps):
    model = Tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    rows = [tokenizer.encode(text).ids for text in texts]
    shuffled = random.Random(0)
    length = 96
    for step in range(steps):
        batch = []
        for _ in range(12):
            tokens = []
            while len(tokens) < length + 1:
                tokens += shuffled.choice(rows)
                if shuffled.random() < 0.5:
                    tokens.append(0)
            batch.append(tokens[: length + 1])
        batch = torch.tensor(batch)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, step / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {loss.item():.3f}", flush=True)
    return model


def write(path, model, tokenizer):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_description("A toy for tests and for trying out commands; it knows nothing.")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_vocab_size(VOCAB)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(THETA)
    writer.add_layer_norm_rms_eps(EPS)
    add_tokenizer(writer, tokenizer)
    for name, tensor in model.state_dict().items():
        name = name if name.endswith(".weight") else name + ".weight"
        data = tensor.numpy().astype(np.float32)
        if data.ndim == 1:
            writer.add_tensor(name, data)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer, tokenizer):
    import json

    bpe = json.loads(tokenizer.to_str())["model"]
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    assert [index for _, index in by_id] == list(range(VOCAB))
    special = {END, START, TURN_END}
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in by_id])
    writer.add_token_types([control if token in special else normal for token, _ in by_id])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokenizer.token_to_id(END))
    writer.add_eos_token_id(tokenizer.token_to_id(TURN_END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


@torch.no_grad()
def show(model, tokenizer, question):
    prompt = f"{START}user\n{question}{TURN_END}\n{START}assistant\n"
    tokens = tokenizer.encode(prompt).ids
    begin, stop = len(tokens), tokenizer.token_to_id(TURN_END)
    while len(tokens) < begin + 48 and tokens[-1] != stop:
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    print(f"{question!r} -> {tokenizer.decode(tokens[begin:])!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="tests/models/tiny/tiny.gguf")
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    texts = corpus()
    tokenizer = train_tokenizer(texts)
    print(f"{len(texts)} texts, {sum(map(len, texts))} characters, {tokenizer.get_vocab_size()} tokens")
    assert tokenizer.get_vocab_size() == VOCAB, "the corpus is too small for this vocabulary"
    model = train(texts, tokenizer, arguments.steps)
    for question in ("Where is the lamp?", "List three fruits.", "What is 2 plus 3?", "Tell me a secret."):
        show(model, tokenizer, question)
    write(arguments.out, model, tokenizer)


if __name__ == "__main__":
    main()
