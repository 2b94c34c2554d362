#!/usr/bin/env python3
"""Are scout-ft's steps with --loraplus-lr-ratio those of PEFT's create_loraplus_optimizer?

    python3 check_loraplus.py --bin BUILD/bin --model HF_DIR

Needs torch, transformers (>= 5), peft; no GPU.  Four steps of two rows on a container kept in bf16, ratio 16, from
an adapter that has taken one step; compared are loss (within 1e-5) and gradient norm (within 1e-3: small
differences grow where Adam divides by small moments).  Exit status 1 on a difference.
"""
import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import torch
from check_with_peft import base_model, run, write_data
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer

RATIO, RATE, STEPS = 16, 1e-3, 4


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
        common = [args.bin / "scout-ft", "train", "--model", container, "--data", folder / "data.jsonl", "--device", "cpu", "--no-shuffle",
                  "--per-device-train-batch-size", 2, "--lr-scheduler-type", "constant", "--max-grad-norm", 0.5, "--save-steps", 0,
                  "--learning-rate", RATE]
        run(*common, "--output-dir", folder / "start", "--lora-r", 4, "--max-steps", 1)
        run(*common, "--output-dir", folder / "out", "--init-adapter", folder / "start", "--max-steps", STEPS, "--loraplus-lr-ratio", RATIO)
        ours = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
        ours = [row for row in ours if "grad_norm" in row]
        model = PeftModel.from_pretrained(base_model(args.model, "multimodal"), folder / "start", is_trainable=True)
        model.train()
        optimizer = create_loraplus_optimizer(model, optimizer_cls=torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=RATIO)
        rows = [json.loads(line)["input_ids"] for line in (folder / "data.jsonl").read_text().splitlines()]
        parameters = [p for p in model.parameters() if p.requires_grad]
        good = True
        for step in range(STEPS):
            ids = torch.tensor(rows[2 * step:2 * step + 2])
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, 0.5).item()
            optimizer.step()
            optimizer.zero_grad()
            off = abs(ours[step]["loss"] / loss.item() - 1), abs(ours[step]["grad_norm"] / norm - 1)
            good = good and off[0] < 1e-5 and off[1] < 1e-3
            print(f"step {step + 1}: loss {loss.item():.6f} off by {off[0]:.1e}, gradient norm off by {off[1]:.1e}")
    print("ok" if good else "DIFFERS")
    sys.exit(not good)


if __name__ == "__main__":
    main()
