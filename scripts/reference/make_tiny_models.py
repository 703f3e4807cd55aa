"""Writes the tiny random models the model crate is tested against, with the logits
HF transformers computes for them.

    pip install -r scripts/reference/requirements.txt
    python scripts/reference/make_tiny_models.py crates/model/tests/fixtures

Each folder holds config.json and model.safetensors as `save_pretrained` writes them, and
golden.safetensors: `tokens.<n>` (n) u32 and `logits.<n>` (n, V) f32 for prompts of n tokens.
Weights are stored in two bytes (f16 or bf16); `logits.*` come from those same values
widened to f32, `logits_bf16.*` from the bf16 model itself.
The random weights are larger than a trained model's, so that attention is far from
uniform, norms and biases matter and a wrong position shows in every logit.
"""

import json
import pathlib
import shutil
import sys

import peft
import torch
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

PROMPT_LENGTHS = (1, 7, 33, 300)
VOCAB = 64
BASE = dict(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
    tie_word_embeddings=False,
)
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
    rope_theta=5e5,
)
DEFAULT_ROPE = dict(rope_type="default", rope_theta=1e4)

# name: (model class, config class, overrides, dtype on disk, shards)
MODELS = {
    "llama2": (LlamaForCausalLM, LlamaConfig,
               dict(num_key_value_heads=4, rms_norm_eps=1e-5, rope_parameters=DEFAULT_ROPE), torch.float16, 1),
    "llama3_1": (LlamaForCausalLM, LlamaConfig,
                 dict(rms_norm_eps=1e-5, rope_parameters=LLAMA3, eos_token_id=[2, 3, 4]), torch.bfloat16, 1),
    "llama3_2": (LlamaForCausalLM, LlamaConfig,
                 dict(rms_norm_eps=1e-5, tie_word_embeddings=True, rope_parameters=dict(LLAMA3, factor=32.0)), torch.float16, 1),
    "llama_linear": (LlamaForCausalLM, LlamaConfig,
                     dict(num_hidden_layers=3, rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=1e4)),
                     torch.float16, 2),
    "smollm": (LlamaForCausalLM, LlamaConfig,
               dict(hidden_size=96, num_attention_heads=6, rms_norm_eps=1e-5, tie_word_embeddings=True,
                    rope_parameters=dict(rope_type="default", rope_theta=1e5)), torch.bfloat16, 1),
    "mistral": (MistralForCausalLM, MistralConfig,
                dict(head_dim=16, sliding_window=48, rope_parameters=DEFAULT_ROPE), torch.float16, 1),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, dict(rope_parameters=dict(rope_type="default", rope_theta=1e6)), torch.float16, 1),
    "qwen2_5": (Qwen2ForCausalLM, Qwen2Config,
                dict(tie_word_embeddings=True, use_sliding_window=False, sliding_window=32, max_window_layers=2,
                     rope_parameters=dict(rope_type="default", rope_theta=1e6)), torch.bfloat16, 1),
    "qwen2_window": (Qwen2ForCausalLM, Qwen2Config,
                     dict(use_sliding_window=True, sliding_window=40, max_window_layers=1, rope_parameters=DEFAULT_ROPE),
                     torch.float16, 1),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config,
              dict(head_dim=32, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1e6)),
              torch.bfloat16, 1),
}
BF16_GOLDEN = ("llama3_1", "qwen3")


def randomise(model, generator):
    """Weights of standard deviation 1.25 / sqrt(inputs), biases 0.5, norms 1 +- 0.3."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                parameter.copy_(0.5 * noise)
            elif "norm" in name:
                parameter.copy_(1.0 + 0.3 * noise)
            elif "embed_tokens" in name:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(1.25 / parameter.shape[1] ** 0.5 * noise)


def logits_of(model, tokens):
    with torch.no_grad():
        return model(tokens.long()[None], use_cache=False).logits[0].float().contiguous()


def prompts(generator):
    return {n: torch.randint(0, VOCAB, (n,), generator=generator, dtype=torch.int32) for n in PROMPT_LENGTHS}


def load(model_class, folder, dtype):
    model = model_class.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    return model


def write_model(root, name):
    model_class, config_class, overrides, dtype, shards = MODELS[name]
    generator = torch.Generator().manual_seed(sum(name.encode()) * 1000 + len(name))
    config = config_class(**{**BASE, **overrides})
    config._attn_implementation = "eager"
    model = model_class(config).eval()
    randomise(model, generator)
    model = model.to(dtype)
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    size = "10GB" if shards == 1 else "150KB"
    model.save_pretrained(folder, max_shard_size=size)
    (folder / "generation_config.json").unlink(missing_ok=True)
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) == shards, files

    # Read back from disk: `model.to(dtype)` has rounded the rotary frequencies as well, which
    # loading does not do.
    golden = {}
    ids = prompts(generator)
    if name in BF16_GOLDEN:
        model = load(model_class, folder, torch.bfloat16)
        for n, tokens in ids.items():
            golden[f"logits_bf16.{n}"] = logits_of(model, tokens)
    model = load(model_class, folder, torch.float32)
    for n, tokens in ids.items():
        golden[f"tokens.{n}"] = tokens.to(torch.uint32)
        golden[f"logits.{n}"] = logits_of(model, tokens)
    save_file(golden, folder / "golden.safetensors")
    return model, generator


def write_adapter(root, base_name, model, generator, name, **settings):
    """A PEFT adapter whose A and B are both random, and its logits for prompts of 7 and 33 tokens."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings)
    adapted = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))
    folder = root / base_name / name
    shutil.rmtree(folder, ignore_errors=True)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    written = json.loads(path.read_text())
    written["base_model_name_or_path"] = base_name
    written["target_modules"].sort()  # a set in peft, in the order of this process's hashes
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    golden = {}
    for n, tokens in prompts(generator).items():
        if n in (7, 33):
            golden[f"tokens.{n}"] = tokens.to(torch.uint32)
            golden[f"logits.{n}"] = logits_of(adapted, tokens)
    save_file(golden, folder / "golden.safetensors")
    return adapted.unload()


def main():
    root = pathlib.Path(sys.argv[1])
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    for name in MODELS:
        model, generator = write_model(root, name)
        if name == "llama3_1":
            model = write_adapter(root, name, model, generator, "adapter", r=4, lora_alpha=8,
                                  target_modules=["q_proj", "k_proj", "v_proj", "o_proj",
                                                  "gate_proj", "up_proj", "down_proj"])
            write_adapter(root, name, model, generator, "adapter_rslora", r=2, lora_alpha=3, use_rslora=True,
                          target_modules=["q_proj", "down_proj"],
                          rank_pattern={"layers.1.self_attn.q_proj": 3}, alpha_pattern={"down_proj": 5})
    total = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    print(f"{total} bytes in {root}")


main()
