#!/usr/bin/env python3
"""Does PEFT take the adapters that scout-ft writes, and does scout-ft take PEFT's?

    python3 check_with_peft.py --bin BUILD/bin --model HF_DIR [--keep DIR]

Needs torch, transformers (>= 5), peft and safetensors; no GPU.  A text-only checkpoint has the cases of
the text class only.  Converts HF_DIR with every matrix kept in bf16, then for each case: scout-ft trains
a few steps and writes an adapter, PeftModel.from_pretrained loads it onto the same checkpoint in float32,
and
  - the LoRA modules that PEFT made are exactly those of the file, with exactly its numbers, and no
    warning was given;
  - logits and loss are scout-ft probe's within 2e-6 relative, every LoRA gradient within 1e-5
    (||ours - theirs|| / ||theirs||).
The cases named from_peft_* start from an adapter that PEFT itself wrote.  Exit status 1 on any difference.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error")
warnings.simplefilter("ignore", FutureWarning)  # PEFT's own calls into transformers
import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Llama4ForCausalLM, Llama4ForConditionalGeneration

# Which axis of the experts' parameters PEFT takes for "in" depends on its version.
LAYOUT = "natural" if peft.__version__ in ("0.17.0", "0.17.1", "0.18.0", "0.18.1", "0.19.0") else "swapped"
EXPERTS = "experts.gate_up_proj,experts.down_proj"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# name, class, modules, further options of scout-ft, LoraConfig of the adapter to start from
CASES = [
    ("multimodal_all", "multimodal", ALL, [], None),
    ("text_all", "text", ALL, [], None),
    ("multimodal_qv_rslora", "multimodal", ["q_proj", "v_proj"], ["--use-rslora"], None),
    ("text_odd_alpha", "text", ["o_proj", "down_proj"], ["--lora-alpha", "7.5"], None),
    ("multimodal_patterns", "multimodal", ["q_proj", "o_proj", "up_proj"],
     ["--rank-pattern", "q_proj=2", "--rank-pattern", "2.self_attn.o_proj=6", "--alpha-pattern", r"layers\.[01]\.self_attn\.q_proj=5"], None),
    ("text_patterns", "text", ["v_proj", "down_proj"], ["--rank-pattern", "down_proj=7", "--use-rslora"], None),
    ("multimodal_experts", "multimodal", ["o_proj"], ["--target-parameters", EXPERTS, "--peft-layout", LAYOUT], None),
    ("text_experts_patterns", "text", ["q_proj"], ["--target-parameters", EXPERTS, "--peft-layout", LAYOUT, "--rank-pattern",
     "experts.down_proj=2"], None),
    ("multimodal_router_head", "multimodal", ["q_proj", "lm_head"], ["--target-parameters", "router.weight"], None),
    ("text_router_head_patterns", "text", ["lm_head"], ["--target-parameters", EXPERTS + ",router.weight", "--peft-layout", LAYOUT,
     "--rank-pattern", "router.weight=3", "--rank-pattern", "lm_head=5"], None),
    ("text_router", "text", None, ["--target-parameters", "router.weight"], None),
    ("text_one_parameter", "text", ["q_proj"], ["--target-parameters", "experts.down_proj", "--peft-layout", LAYOUT], None),
    ("from_peft_some_layers", "multimodal", None, [],
     dict(r=4, lora_alpha=6, target_modules=["k_proj", "gate_proj"], exclude_modules=r".*vision_model.*",
          layers_to_transform=[1, 3], layers_pattern="layers")),
    ("from_peft_router_head", "text", None, [],
     dict(r=4, lora_alpha=6, target_modules=["lm_head", "v_proj"], target_parameters=["feed_forward.router.weight"])),
    ("from_peft_router_head_multimodal", "multimodal", None, [],
     dict(r=2, lora_alpha=6, target_modules=r".*language_model.*(lm_head|k_proj)", target_parameters=["feed_forward.router.weight"])),
    ("from_peft_some_layers_text", "text", None, [],
     dict(r=3, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "up_proj"], layers_to_transform=[0, 2])),
]


def read_config(path):
    return json.loads((path / "config.json").read_text())


def base_model(path, kind):
    if read_config(path)["architectures"] == ["Llama4ForCausalLM"]:
        return Llama4ForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    whole = Llama4ForConditionalGeneration.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    if kind == "multimodal":
        return whole
    text = Llama4ForCausalLM(whole.config.text_config)
    text.load_state_dict(whole.language_model.state_dict())
    text.config._attn_implementation = "eager"
    return text.float()


def relative(got, want):
    return ((got.double() - want.double()).norm() / want.double().norm()).item()


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nexit {done.returncode}\n{done.stdout}{done.stderr}")


def write_data(folder, vocabulary):
    """Rows of token ids to train on, and what the probe runs through (with labels that are partly -100)."""
    random = torch.Generator().manual_seed(5)
    rows = torch.randint(0, vocabulary, (12, 160), generator=random)
    (folder / "data.jsonl").write_text("".join(json.dumps({"input_ids": r.tolist()}) + "\n" for r in rows[:10]))
    labels = rows[10:].clone()
    labels[0, :40] = -100
    save_file({"input_ids": rows[10:].int(), "labels": labels.int()}, folder / "inputs.safetensors")
    return rows[10:], labels


def start_adapter(folder, base, options):
    """An adapter written by PEFT, B drawn at random so that it changes something, tensors in bf16."""
    torch.manual_seed(1)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **options))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.02)
    model.save_pretrained(folder)
    state = {k: v.to(torch.bfloat16).contiguous() for k, v in load_file(folder / "adapter_model.safetensors").items()}
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def parameters(model):
    """The adapter's parameters under the keys of its file."""
    return {n.replace(".default.", "."): p for n, p in model.named_parameters() if ".lora_" in n}


def check_tensors(model, adapter, given):
    """-> what is wrong with what PEFT loaded."""
    # Where the tensors do not tell their layout, the config does, in a field that PEFT ignores and tells of.
    # PEFT 0.19.0 takes any model whose head is adapted for a tied one, and none of these is.
    expected = ("['scout_layout']", "`tie_word_embeddings=True` and a tied layer")
    mine, wrong = parameters(model), [f"warning: {w.message}" for w in given if issubclass(w.category, UserWarning)
                                      and not any(e in str(w.message) for e in expected)]
    wrong += [f"{k}: PEFT made it, the file lacks it" for k in mine.keys() - adapter.keys()]
    wrong += [f"{k}: in the file, PEFT has no such module" for k in adapter.keys() - mine.keys()]
    both = mine.keys() & adapter.keys()
    wrong += [f"{k}: not the file's numbers" for k in both if not torch.equal(mine[k], adapter[k])]
    return wrong


def check_numbers(model, probe, ids, labels, base_logits):
    """-> (what is wrong, logits' error, greatest gradient error)."""
    model.eval()
    out = model(input_ids=ids, labels=labels, use_cache=False)
    out.loss.backward()
    logits, loss = relative(probe["logits"], out.logits), abs(probe["loss"].item() / out.loss.item() - 1)
    theirs = {"grad." + k: p.grad for k, p in parameters(model).items() if p.grad is not None}
    ours = {k: t for k, t in probe.items() if k.startswith("grad.")}
    grads = {k: relative(ours[k], theirs[k]) for k in ours.keys() & theirs.keys()}
    worst = max(grads, key=grads.get)
    wrong = [f"{k}: only one side has it" for k in ours.keys() ^ theirs.keys()]
    if logits > 2e-6 or loss > 2e-6:
        wrong.append(f"logits differ by {logits:.2e}, loss by {loss:.2e}")
    if grads[worst] > 1e-5:
        wrong.append(f"{worst}: gradient differs by {grads[worst]:.2e}")
    if relative(out.logits, base_logits) < 1e-4:
        wrong.append("the adapter changes nothing: this case would show nothing")
    return wrong, logits, grads[worst]


def check_case(case, args, folder, container, ids, labels):
    name, kind, modules, options, start = case
    tool, out = args.bin / "scout-ft", folder / name
    model = base_model(args.model, kind)
    with torch.no_grad():
        base_logits = model(input_ids=ids, use_cache=False).logits
    which = ["--lora-r", 4] + (["--target-modules", ",".join(modules)] if modules else [])
    if start:
        which = ["--init-adapter", start_adapter(folder / (name + "_start"), model, start)]
        model = base_model(args.model, kind)
    run(tool, "train", "--model", container, "--data", folder / "data.jsonl", "--output-dir", out, "--max-steps", 4,
        "--per-device-train-batch-size", 2, "--learning-rate", "5e-3", "--adapter-class", kind, *which, *options)
    run(tool, "probe", "--model", container, "--inputs", folder / "inputs.safetensors", "--adapter", out, "--grads",
        "-o", folder / (name + ".safetensors"))
    adapter = load_file(out / "adapter_model.safetensors")
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(model, out, is_trainable=True)
    wrong = check_tensors(model, adapter, given)
    probe = load_file(folder / (name + ".safetensors"))
    more, logits, grads = check_numbers(model, probe, ids, labels, base_logits)
    wrong += more
    print(f"{name:28} {len(adapter):4} tensors   logits {logits:.1e}   gradients {grads:.1e}   "
          f"{'DIFFERS' if wrong else 'ok'}")
    for line in wrong:
        print("   ", line)
    return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=Path, required=True, help="where scout-convert and scout-ft are")
    parser.add_argument("--model", type=Path, required=True, help="a Llama 4 checkpoint of at least 4 layers")
    parser.add_argument("--keep", type=Path, help="leave what was written here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        container = folder / "bf16.scout"
        run(args.bin / "scout-convert", args.model, "-o", container, "--keep-bf16", "*")
        config = read_config(args.model)
        kinds = ["text", "multimodal"] if "text_config" in config else ["text"]
        # tiny-scout's special tokens start at 2048, and its multimodal class takes one of them for an image
        ids, labels = write_data(folder, min(config.get("text_config", config)["vocab_size"], 2048))
        good = [check_case(case, args, folder, container, ids, labels) for case in CASES if case[1] in kinds]
    print(f"{sum(good)} passed, {len(good) - sum(good)} failed")
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
