#!/usr/bin/env python3
"""Does transformers load what `scout-convert export --to hf-bf16` writes, and is it the model of the container?

    python3 check_with_transformers.py --bin BUILD/bin --model HF_DIR [--adapter PEFT_DIR]

Needs torch, transformers (>= 5), peft and safetensors; no GPU. Converts HF_DIR (NF4; a bitsandbytes 4-bit
checkpoint is taken over), exports it, loads the folder in float32 with no key missing or left over, and
compares its logits with scout-ft probe's on the container: within 2e-6 relative.
With an adapter (linear modules, text class): the export merged by --adapter against PEFT's merge_and_unload
in float32 on the unmerged export. Ours is that sum rounded once to bf16: every merged element lies within
half a bf16 step of PEFT's (2^-8 relative, plus 1e-6 of the matrix' largest for float32's own order of
sums), and all others are equal. Exit status 1 on any difference.
"""
import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error")
import peft
import torch
import transformers
from safetensors.torch import load_file, save_file


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def load(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, config.architectures[0])
    model, info = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                       output_loading_info=True)
    wrong = {k: v for k, v in info.items() if v}
    if wrong:
        sys.exit(f"{folder}: loading says {wrong}")
    return model.eval()


def check_logits(args, folder, container, model):
    text = getattr(model.config, "text_config", model.config)
    ids = torch.randint(0, text.vocab_size - 16, (2, 160), generator=torch.Generator().manual_seed(3))
    save_file({"input_ids": ids.int(), "labels": ids.int()}, folder / "inputs.safetensors")
    run(args.bin / "scout-ft", "probe", "--model", container, "--inputs", folder / "inputs.safetensors",
        "-o", folder / "probe.safetensors", "--device", "cpu")
    ours = load_file(folder / "probe.safetensors")["logits"].double()
    with torch.no_grad():
        theirs = model(input_ids=ids, use_cache=False).logits.double()
    error = ((ours - theirs).norm() / theirs.norm()).item()
    print(f"{args.model}: {len(model.state_dict())} tensors loaded, logits within {error:.1e}")
    return error <= 2e-6


def check_merge(args, merged, model):
    lora = peft.PeftModel.from_pretrained(model, args.adapter)
    changed = {n.replace(".base_layer", "").replace("base_model.model.", "", 1) for n, _ in lora.named_parameters()
               if n.endswith("base_layer.weight")}
    theirs, ours = lora.merge_and_unload().state_dict(), load(merged).state_dict()
    worst, good = 0.0, theirs.keys() == ours.keys() and len(changed) > 0
    for name, want in theirs.items():
        difference = (ours[name] - want).abs()
        if name in changed:
            allowed = want.abs() * 2 ** -8 + 1e-6 * want.abs().max()
            worst = max(worst, (difference / allowed).max().item())
        elif difference.max() > 0:
            print(f"{name}: changed without an adapter")
            good = False
    print(f"{args.adapter}: {len(changed)} matrices merged, {worst:.2f} of what rounding to bf16 allows")
    return good and worst <= 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        container = folder / "model.scout"
        run(args.bin / "scout-convert", args.model, "-o", container)
        run(args.bin / "scout-convert", "export", container, "--to", "hf-bf16", "-o", folder / "plain")
        model = load(folder / "plain")
        good = check_logits(args, folder, container, model)
        if args.adapter:
            said = run(args.bin / "scout-convert", "export", container, "--to", "hf-bf16", "--adapter", args.adapter,
                       "-o", folder / "merged")
            good = "merged" in said and check_merge(args, folder / "merged", model) and good
    print("torch", torch.__version__, "transformers", transformers.__version__, "peft", peft.__version__)
    sys.exit(0 if good else 1)


main()
