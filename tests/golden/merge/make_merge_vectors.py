#!/usr/bin/env python3
"""Adapters made by PEFT, and what PEFT's merge_and_unload makes of them.

    python3 make_merge_vectors.py [--bin BUILD/bin] [--check-only]

Needs torch, transformers (>= 5), peft and safetensors; no GPU.  For every case an adapter is made with
PEFT itself, B drawn at random, tensors kept in bf16, on a checkpoint of this repository loaded in float32;
in the natural layout after Llama4TextExperts.is_transposed = True, which is what Unsloth does and what
PEFT did before 0.19.1.  Beside it lies merged.safetensors: of every weight that PEFT changed, SAMPLES
elements of the float32 result, element k at (k * 2654435761 + 12345) mod count.  test_merge.c compares.

With --bin: scout-convert merges every case, and all weights are compared with PEFT's, not samples only,
and the merged folder is loaded by transformers.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error")
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Llama4ForCausalLM, Llama4ForConditionalGeneration
from transformers.models.llama4.modeling_llama4 import Llama4TextExperts

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
SAMPLES = 128
BOTH = ["feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"]
VISION = r".*vision_model.*"
# case: checkpoint, layout, LoraConfig
CASES = {
    "tiny_swapped": ("examples/tiny-scout", "swapped", dict(
        r=2, lora_alpha=5, target_modules=["q_proj", "shared_expert.gate_proj"], exclude_modules=VISION,
        layers_to_transform=[0, 3], layers_pattern="layers", rank_pattern={"down_proj": 1, "layers.3.*q_proj": 3},
        alpha_pattern={"gate_up_proj": 3},
        target_parameters=["model.layers.1." + p for p in BOTH] + ["model.layers.2.feed_forward.experts.down_proj"])),
    "tiny_natural": ("examples/tiny-scout", "natural", dict(
        r=2, lora_alpha=3, use_rslora=True, target_modules=["v_proj", "down_proj"], exclude_modules=VISION,
        layers_to_transform=[2], layers_pattern="layers",
        target_parameters=["model.layers.0." + p for p in BOTH])),
    "maverick_swapped": ("tests/golden/llama4-tiny/maverick/model", "swapped", dict(
        r=3, lora_alpha=6, target_modules=["o_proj", "feed_forward.up_proj"],
        target_parameters=["layers.1.feed_forward.experts.gate_up_proj", "feed_forward.router.weight"])),
    "maverick_natural": ("tests/golden/llama4-tiny/maverick/model", "natural", dict(
        r=2, lora_alpha=4, target_modules=[], target_parameters=["layers.3.feed_forward.experts.down_proj"])),
}


def load(path):
    config = json.loads((ROOT / path / "config.json").read_text())
    kind = Llama4ForCausalLM if config["architectures"] == ["Llama4ForCausalLM"] else Llama4ForConditionalGeneration
    return kind.from_pretrained(ROOT / path, dtype=torch.float32, attn_implementation="eager")


def make(name, path, layout, options):
    torch.manual_seed(len(name) + options["r"])
    model = get_peft_model(load(path), LoraConfig(task_type="CAUSAL_LM", **options))
    for key, p in model.named_parameters():
        if ".lora_" in key:
            torch.nn.init.normal_(p, std=0.05)
    model.save_pretrained(HERE / name)
    state = load_file(HERE / name / "adapter_model.safetensors")
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in state.items()},
              HERE / name / "adapter_model.safetensors", metadata={"format": "pt"})
    (HERE / name / "README.md").unlink(missing_ok=True)
    config = json.loads((HERE / name / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = path
    for field in ("target_modules", "target_parameters"):
        config[field] = sorted(config[field])
    (HERE / name / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def merged(name, path):
    """-> what PEFT makes: (all weights under the checkpoint's names, the names that changed), float32."""
    base = load(path)
    before = {k: v.clone() for k, v in base.state_dict().items()}
    after = PeftModel.from_pretrained(base, HERE / name).merge_and_unload().state_dict()
    return after, [k for k in before if not torch.equal(before[k], after[k])]


def sample(t):
    k = torch.arange(SAMPLES, dtype=torch.int64)
    return t.flatten()[(k * 2654435761 + 12345) % t.numel()].clone()


def check(name, path, binary, after, changed):
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "merged"
        subprocess.run([binary / "scout-convert", "merge", "--base", ROOT / path, "--adapter", HERE / name, "-o", out],
                       check=True, stdout=subprocess.DEVNULL)
        ours = {}
        for shard in sorted(out.glob("*.safetensors")):
            ours.update(load_file(shard))
        base = {}
        for shard in sorted((ROOT / path).glob("*.safetensors")):
            base.update(load_file(shard))
        wrong, elements, off = [], 0, 0
        for key, mine in ours.items():
            if key not in changed:
                if not torch.equal(mine.float(), base[key].float()):
                    wrong.append(f"{key}: changed, PEFT leaves it alone")
                continue
            want = after[key].to(mine.dtype)
            differ = mine != want
            elements, off = elements + mine.numel(), off + int(differ.sum())
            # another order of additions may round to the neighbour, never further
            near = torch.maximum((mine.float() - after[key]).abs(), (want.float() - after[key]).abs())
            if differ.any() and not bool((near[differ] <= after[key].abs()[differ] * 2**-8 * 1.001 + 1e-38).all()):
                wrong.append(f"{key}: further from PEFT's than one rounding")
        wrong += [f"{k}: PEFT changed it, it is not in the merged checkpoint" for k in changed if k not in ours]
        kind = type(load(path))
        again = kind.from_pretrained(out, dtype=torch.float32, attn_implementation="eager")
        ids = torch.arange(3, 60)[None]
        again.eval()
        theirs = load(path)
        theirs.load_state_dict(after)
        theirs.eval()
        with torch.no_grad():
            a, b = again(input_ids=ids).logits, theirs(input_ids=ids).logits
        print(f"{name:18} {len(changed):3} weights changed, {elements} elements, {off} rounded to the neighbour; "
              f"logits of the merged folder {((a - b).norm() / b.norm()).item():.1e} from the float32 merge  "
              f"{'DIFFERS' if wrong else 'ok'}")
        for line in wrong:
            print("   ", line)
        return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=Path, help="where scout-convert is: compare everything")
    parser.add_argument("--check-only", action="store_true", help="leave the committed files as they are")
    args = parser.parse_args()
    good = True
    for name, (path, layout, options) in CASES.items():
        Llama4TextExperts.is_transposed = layout == "natural"
        if not args.check_only:
            make(name, path, layout, options)
        after, changed = merged(name, path)
        if not args.check_only:
            save_file({k: sample(after[k]) for k in changed}, HERE / name / "merged.safetensors")
        if args.bin:
            good = check(name, path, args.bin, after, changed) and good
    sys.exit(not good)


if __name__ == "__main__":
    main()
