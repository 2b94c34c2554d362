#!/usr/bin/env python3
"""Does TRL's SFTTrainer train on the tokens that scout-ft trains on, with the same loss?

    python3 check_trl.py --bin BUILD/bin

Needs trl, datasets, torch, transformers; no GPU.  On examples/tiny-scout, with rows of the files here:
  - completions     prompt and completion as text: tokens, labels and loss
  - conversations   prompt and completion as messages, the last turn completed: the same
  - messages        whole conversations, TRL's loss on all tokens, ours with --train-on all: the same
TRL's `assistant_only_loss` wants a template that marks what assistants say; Llama 4's does not, so that ours
is compared with transformers instead (make_chat_vectors.py).  Exit status 1 where a token or a label differs,
or the mean loss by more than 1e-5.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")
import torch
import datasets.fingerprint
from datasets import Dataset
from transformers import AutoTokenizer, Llama4ForConditionalGeneration
from trl import SFTConfig, SFTTrainer

# Names of cached results, made by pickling all that a function refers to, which not every pyarrow allows. Nothing is cached here.
datasets.fingerprint.Hasher.hash = classmethod(lambda cls, value: os.urandom(8).hex())
HERE = Path(__file__).resolve().parent
MODEL = HERE.parents[2] / "examples" / "tiny-scout"


def read(name):
    return [json.loads(line) for line in (HERE / name).read_text().split("\n") if line]


def cases():
    """-> name, rows, options of scout-ft."""
    yield "completions", [r["row"] for r in read("completions.jsonl")], ["--add-special-tokens"]
    plain = []
    for r in read("chat.jsonl"):
        messages = r["row"].get("messages", [])
        if r["format"] == "llama4-trimmed" and len(messages) > 1 and messages[-1]["role"] == "assistant" and all(
                isinstance(m["content"], str) and m["content"].strip() for m in messages):
            plain.append(messages)
    yield "conversations", [{"prompt": m[:-1], "completion": m[-1:]} for m in plain], []
    yield "messages", [{"messages": m} for m in plain], ["--train-on", "all"]


def by_scout(tool, container, path, rows, options):
    def run(verb, *more):
        command = [tool, verb, "--model", container, "--data", path, "--max-seq-length", 2048, "--json", *options, *more]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
        return json.loads(done.stdout[done.stdout.index("[" if verb == "preview" else "{"):])

    shown = run("preview", "--rows", len(rows))
    return [(r["input_ids"], r["labels"]) for r in shown], run("eval", "--device", "cpu")


def by_trl(folder, model, tokenizer, rows):
    config = SFTConfig(output_dir=folder / "trl", max_length=2048, packing=False, per_device_train_batch_size=1, report_to=[], use_cpu=True,
                       bf16=False, gradient_checkpointing=False)
    trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    batches = [trainer.data_collator([trainer.train_dataset[i]]) for i in range(len(rows))]
    total = targets = 0
    with torch.no_grad():
        for batch in batches:
            count = (batch["labels"][:, 1:] != -100).sum().item()
            if count:
                total += model(input_ids=batch["input_ids"], labels=batch["labels"], use_cache=False).loss.item() * count
                targets += count
    return [(b["input_ids"][0].tolist(), b["labels"][0].tolist()) for b in batches], total / targets, targets


def check(name, rows, options, tool, container, folder, model, tokenizer):
    path = folder / (name + ".jsonl")
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    ours, held = by_scout(tool, container, path, rows, options)
    theirs, loss, targets = by_trl(folder, model, tokenizer, rows)
    # The label of a first token is no target of anybody's.
    wrong = [i for i, (a, b) in enumerate(zip(ours, theirs)) if a[0] != b[0] or a[1][1:] != b[1][1:]]
    off = abs(held["loss"] / loss - 1)
    good = not wrong and len(ours) == len(theirs) and held["targets"] == targets and off <= 1e-5
    print(f"{name:14} {len(rows)} rows, {len(wrong)} differ; {held['targets']} targets, TRL {targets}; loss {held['loss']:.6f}, off by {off:.1e}")
    for i in wrong[:3]:
        print("   ", json.dumps(rows[i])[:200], "\n    ours ", ours[i], "\n    TRL's", theirs[i])
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=Path, required=True, help="where scout-convert and scout-ft are")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        container = folder / "bf16.scout"
        subprocess.run([args.bin / "scout-convert", MODEL, "-o", container, "--keep-bf16", "*"], check=True, capture_output=True)
        model = Llama4ForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager").eval()
        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        good = [check(name, rows, options, args.bin / "scout-ft", container, folder, model, tokenizer) for name, rows, options in cases()]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
