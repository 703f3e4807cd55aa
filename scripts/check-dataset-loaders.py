#!/usr/bin/env python3
"""Loads a dataset folder with the loaders of those who will train on it.

    python3 scripts/check-dataset-loaders.py RUN/data

Needs `datasets` and `trl` (with torch and transformers), and for the last part `llamafactory`
(`--no-deps` where its pins disagree with the others). Asks nothing of the network: the model
is a random one of a few thousand weights, the tokenizer is one of bytes. Written against
datasets 5.2, trl 1.16, llamafactory 0.9.5.
"""

import argparse
import contextlib
import copy
import importlib.machinery
import importlib.util
import json
import os
import sys
import tempfile
import traceback
import types
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
os.environ.setdefault("DISABLE_VERSION_CHECK", "1")  # llamafactory's pins on its neighbours

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def kind_of(rows):
    if not rows:
        return None
    if {"prompt", "chosen", "rejected"} <= rows[0].keys():
        return "preferences"
    return "conversations" if "messages" in rows[0] else "other"


def tiny_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<|system|>"],
    )
    fast.chat_template = TEMPLATE
    return fast


def tiny_model(tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=8192,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def check_datasets(folder, files):
    """`load_dataset` on each file, and on the folder by the card's configurations."""
    from datasets import get_dataset_config_names, load_dataset

    for name, rows in files.items():
        if not rows:
            continue
        loaded = load_dataset("json", data_files=str(folder / name), split="train")
        assert loaded.to_list() == rows, f"{name}: what was loaded is not what is written"
    for path in sorted((folder / "llamafactory").glob("*.jsonl")):
        assert load_dataset("json", data_files=str(path), split="train").num_rows > 0
    configurations = get_dataset_config_names(str(folder))
    expected = [Path(name).stem for name, rows in files.items() if rows]
    assert sorted(configurations) == sorted(expected), (configurations, expected)
    for name in configurations:
        loaded = load_dataset(str(folder), name, split="train")
        assert loaded.num_rows == len(files[f"{name}.jsonl"]), name
    return f"{len(configurations)} configurations: {', '.join(configurations)}"


def check_trl(folder, files, work):
    """TRL prepares each file and trains one step on it."""
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    shared = dict(
        max_steps=1, per_device_train_batch_size=1, report_to=[], use_cpu=True, bf16=False,
        save_strategy="no", logging_strategy="no", disable_tqdm=True, max_length=None,
    )
    told = []
    for name, rows in files.items():
        kind = kind_of(rows)
        if kind not in ("conversations", "preferences"):
            continue
        tokenizer = tiny_tokenizer()
        config, trainer = (SFTConfig, SFTTrainer) if kind == "conversations" else (DPOConfig, DPOTrainer)
        dataset = load_dataset("json", data_files=str(folder / name), split="train")
        # The reference model would be loaded again by its name, and this one has none.
        model = tiny_model(tokenizer)
        more = {"ref_model": copy.deepcopy(model)} if kind == "preferences" else {}
        trainer = trainer(
            model=model, **more, args=config(output_dir=str(work / name), **shared),
            train_dataset=dataset, processing_class=tokenizer,
        )
        assert len(trainer.train_dataset) == len(rows), name
        first = trainer.train_dataset[0]
        ids = first["input_ids"] if "input_ids" in first else first["chosen_ids"]
        text = tokenizer.decode(ids)
        turn = (rows[0]["messages"] if kind == "conversations" else rows[0]["chosen"])[-1]
        assert turn["content"] in text, f"{name}: the answer is not in what TRL tokenised"
        loss = trainer.train().training_loss
        assert loss > 0, name
        told.append(f"{name} {len(rows)} rows, loss {loss:.3f}")
    return "; ".join(told)


def check_llamafactory(folder, files, work):
    """LLaMA-Factory aligns and tokenises every entry of dataset_info.json."""
    # For sound, which no dataset here has; it may be missing beside a torch for the CPU.
    if importlib.util.find_spec("torchaudio") is None:
        missing = types.ModuleType("torchaudio")
        missing.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = missing
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments, TrainingArguments

    told = []
    for name, entry in json.loads((folder / "dataset_info.json").read_text()).items():
        tokenizer = tiny_tokenizer()
        data = DataArguments(
            dataset=name, dataset_dir=str(folder), template="default", cutoff_len=100_000,
            overwrite_cache=True,
        )
        template = get_template_and_fix_tokenizer(tokenizer, data)
        module = get_dataset(
            template, ModelArguments(model_name_or_path="none"), data,
            TrainingArguments(output_dir=str(work), report_to=[], use_cpu=True),
            stage="rm" if entry.get("ranking") else "sft", tokenizer=tokenizer,
        )
        prepared = module["train_dataset"]
        rows = files[f"{name}.jsonl"]
        assert len(prepared) == len(rows), (name, len(prepared), len(rows))
        for row, tokens in zip(rows, prepared):
            if entry.get("ranking"):
                pairs = [("chosen_input_ids", row["chosen"][0]), ("rejected_input_ids", row["rejected"][0])]
            else:
                pairs = [("input_ids", row["messages"][-1])]
            for key, turn in pairs:
                assert turn["content"] in tokenizer.decode(tokens[key]), (name, key)
        told.append(f"{name} {len(rows)} rows")
    return "; ".join(told)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    files = {path.name: rows_of(path) for path in sorted(folder.glob("*.jsonl"))}
    failed = False
    with tempfile.TemporaryDirectory() as work:
        os.environ["HF_HOME"] = work
        work = Path(work)
        for name, check in [
            ("datasets", lambda: check_datasets(folder, files)),
            ("trl", lambda: check_trl(folder, files, work)),
            ("llamafactory", lambda: check_llamafactory(folder, files, work)),
        ]:
            try:
                with contextlib.redirect_stdout(sys.stderr):  # loaders say a lot
                    told = check()
                print(f"{name}: ok: {told}", flush=True)
            except Exception as error:  # the next loader is tried all the same
                failed = True
                traceback.print_exc()
                print(f"{name}: FAILED: {type(error).__name__}: {error}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
