#!/usr/bin/env python3
"""Does a step with LoRA dropout compute what PEFT computes with the same numbers dropped?

    python3 check_dropout.py --bin BUILD/bin --model HF_DIR

Needs torch, transformers (>= 5), peft, numpy; no GPU.  scout-ft trains four steps of two micro-batches with
--lora-dropout 0.3 on a container kept in bf16.  Philox4x32-10 (Salmon et al., SC 2011), written here anew from
kernels/dropout.h's text, gives the same factors to PEFT's lora_dropout modules, and torch.optim.AdamW takes the
steps.  Compared: loss and gradient norm of every step, within 1e-5.  Exit status 1 on a difference.
"""
import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
import numpy
import torch
from peft import PeftModel

sys.path.insert(0, str(Path(__file__).parent))
from check_with_peft import base_model, run, write_data

P, SEED, STEPS, ACCUMULATION, RATE = 0.3, 11, 4, 2, 5e-3
# In the order of a layer's parts.
ORDER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS = ",".join(ORDER + ["lm_head"])  # lm_head behind all layers


def philox(key, stream, counter):
    """Four words for each counter."""
    low = numpy.uint64(0xFFFFFFFF)
    c = [counter & low, counter >> numpy.uint64(32), numpy.full_like(counter, stream & 0xFFFFFFFF), numpy.full_like(counter, stream >> 32)]
    k = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        p0, p1 = c[0] * numpy.uint64(0xD2511F53), c[2] * numpy.uint64(0xCD9E8D57)
        c = [(p1 >> numpy.uint64(32)) ^ c[1] ^ numpy.uint64(k[0]), p1 & low, (p0 >> numpy.uint64(32)) ^ c[3] ^ numpy.uint64(k[1]), p0 & low]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return numpy.stack(c, axis=1)


class Drop(torch.nn.Module):
    """In the place of a lora_dropout."""
    number = 0

    def __init__(self, site):
        super().__init__()
        self.site = site

    def forward(self, x):
        quads = (x.numel() + 3) // 4
        stream = 1 << 63 | Drop.number << 32 | self.site
        words = philox(SEED, stream, numpy.arange(quads, dtype=numpy.uint64)).reshape(-1)[:x.numel()]
        uniform = (words >> numpy.uint64(8)).astype(numpy.float32) * numpy.float32(2.0 ** -24)
        factor = numpy.where(uniform < numpy.float32(P), 0, numpy.float32(1) / (1 - numpy.float32(P))).astype(numpy.float32)
        return x * torch.from_numpy(factor).reshape(x.shape)


def place(name):
    parts = name.split(".")
    if parts[-1] == "lm_head":
        return 1 << 30, 0
    return int(parts[parts.index("layers") + 1]), ORDER.index(parts[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        container = folder / "bf16.scout"
        run(args.bin / "scout-convert", args.model, "-o", container, "--keep-bf16", "*")
        write_data(folder, 2048)
        common = ["train", "--model", container, "--data", folder / "data.jsonl", "--device", "cpu", "--no-shuffle", "--per-device-train-batch-size", 1,
                  "--gradient-accumulation-steps", ACCUMULATION, "--seed", SEED, "--lr-scheduler-type", "constant",
                  "--weight-decay", 0.01, "--max-grad-norm", 0.5, "--save-steps", 0]
        run(args.bin / "scout-ft", *common, "--output-dir", folder / "start", "--lora-r", 4, "--lora-dropout", P, "--max-steps", 1, "--learning-rate", "1e-3",
            "--target-modules", TARGETS)
        run(args.bin / "scout-ft", *common, "--output-dir", folder / "out", "--init-adapter", folder / "start", "--max-steps", STEPS,
            "--learning-rate", RATE)
        ours = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
        ours = [row for row in ours if "grad_norm" in row]
        model = PeftModel.from_pretrained(base_model(args.model, "multimodal"), folder / "start", is_trainable=True)
        assert model.peft_config["default"].lora_dropout == P
        layers = sorted((place(n), n, m) for n, m in model.named_modules() if hasattr(m, "lora_dropout"))
        for site, (_, _, module) in enumerate(layers):
            module.lora_dropout["default"] = Drop(site)
        model.train()
        rows = [json.loads(line)["input_ids"] for line in (folder / "data.jsonl").read_text().splitlines()]
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
        worst = 0
        for step in range(STEPS):
            batch = [torch.tensor([rows[(step * ACCUMULATION + i) % len(rows)]]) for i in range(ACCUMULATION)]
            targets, total = sum(b.numel() - 1 for b in batch), 0
            for i, ids in enumerate(batch):
                Drop.number = step * ACCUMULATION + i
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss * (ids.numel() - 1) / targets
                loss.backward()
                total += loss.item()
            norm = torch.nn.utils.clip_grad_norm_(parameters, 0.5).item()
            optimizer.step()
            optimizer.zero_grad()
            off = [abs(ours[step]["loss"] / total - 1), abs(ours[step]["grad_norm"] / norm - 1)]
            worst = max(worst, *off)
            print(f"step {step + 1}: loss {total:.6f} off by {off[0]:.1e}, gradient norm {norm:.6f} off by {off[1]:.1e}")
    print("ok" if worst < 1e-5 else "DIFFERS")
    sys.exit(worst >= 1e-5)


if __name__ == "__main__":
    main()
