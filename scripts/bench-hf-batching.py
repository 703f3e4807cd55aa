#!/usr/bin/env python3
"""Output tokens per second of transformers' continuous batching on random weights.

    bench-hf-batching.py [--shape llama-3.1-8b|tiny] [--device cuda:0|cpu] [--instructions 200]

The same work as `autodidact bench engine --mix ultraif`: prompts of 310 tokens that begin alike,
400 tokens written, 5 samples of each, no end-of-sequence token. Prints one line of JSON:
{"tok_per_s": ...}, or {"skipped": "why"} where torch, transformers or the device is not there.
"""
import argparse
import json
import random
import sys
import time

SHAPES = {
    "llama-3.1-8b": dict(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, vocab_size=128256, max_position_embeddings=131072,
        rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters=dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
                             high_freq_factor=4.0, original_max_position_embeddings=8192),
    ),
    "tiny": dict(
        hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=2, head_dim=32, vocab_size=2048, max_position_embeddings=2048,
        rms_norm_eps=1e-5, tie_word_embeddings=True,
    ),
}


def skip(why):
    print(json.dumps({"skipped": why}))
    sys.exit(0)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--instructions", type=int, default=200)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=310)
    parser.add_argument("--written", type=int, default=400)
    parser.add_argument("--attention", default=None, help="attn_implementation; default: the first that works")
    return parser.parse_args()


def load(args, torch, transformers, attention):
    config = transformers.LlamaConfig(**SHAPES[args.shape], attention_bias=False)
    config._attn_implementation = attention
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(args.device):
            model = transformers.LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval()


def prompts(args):
    draw = random.Random(7)
    vocab = SHAPES[args.shape]["vocab_size"]
    head = [draw.randrange(vocab) for _ in range(min(85, args.prompt - 1))]
    own = args.prompt - len(head)
    return [head + [draw.randrange(vocab) for _ in range(own)] for _ in range(args.instructions)]


def run(args, torch, transformers, model, inputs):
    generation = transformers.GenerationConfig(
        max_new_tokens=args.written, do_sample=True, top_p=0.95, top_k=0, temperature=1.0,
        eos_token_id=-1, pad_token_id=0, num_return_sequences=args.samples, use_cache=True,
    )
    cuda = args.device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    # Not in inference mode: it works in a thread of its own, which is not.
    outputs = model.generate_batch(inputs, generation_config=generation, progress_bar=False)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    written = sum(len(one.generated_tokens) for one in outputs.values())
    expected = args.instructions * args.samples * args.written
    if written < 0.98 * expected:
        failed = next((one.error for one in outputs.values() if one.error), "no error given")
        raise RuntimeError(f"{written} of {expected} tokens were written: {failed}")
    return written, seconds


def main():
    args = arguments()
    try:
        import torch
        import transformers
    except ImportError as error:
        skip(f"{error.name} is not installed")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        skip("torch sees no GPU")
    if not hasattr(transformers.LlamaForCausalLM, "generate_batch"):
        skip(f"transformers {transformers.__version__} has no continuous batching")
    errors = {}
    candidates = [args.attention] if args.attention else ["flash_attention_2", "sdpa", "eager"]
    for attention in candidates:
        try:
            model = load(args, torch, transformers, attention)
            few = argparse.Namespace(**{**vars(args), "instructions": 2, "written": 8})
            run(few, torch, transformers, model, prompts(few))  # kernels compile, caches fill
            written, seconds = run(args, torch, transformers, model, prompts(args))
        except Exception as error:  # another implementation may still work
            errors[attention] = f"{type(error).__name__}: {error}"[:300]
            continue
        print(json.dumps({
            "tok_per_s": written / seconds, "written": written, "seconds": seconds,
            "attention": attention, "torch": torch.__version__, "transformers": transformers.__version__,
            "device": torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else "cpu",
            "shape": args.shape, "instructions": args.instructions, "samples": args.samples, "tried": errors,
        }))
        return
    skip(f"continuous batching failed: {errors}")


if __name__ == "__main__":
    main()
