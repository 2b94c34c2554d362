#!/usr/bin/env python3
"""check_width -- a few layers of Scout's full width, forward and backward, against transformers + PEFT.

    check_width.py --build BUILD --dir /dev/shm/width [--device cuda] [--layers 2] [--tokens 1024] [GEOMETRY...]

A synthetic container (synth_container; GEOMETRY are its options) is exported to bfloat16, a random LoRA
adapter is made by PEFT, and `scout-ft probe --grads` is compared with float32 torch on the same weights:
logits, loss, every gradient, norm-wise. Beside it stands what plain bfloat16 costs torch itself (autocast).

A router's near-tie that rounding breaks the other way sends a token to another expert, which is no error of a
kernel. Both torch runs therefore route as scout-ft did; the tokens where float32 alone would not have are
counted, with the largest margin among them: it must be small beside what bfloat16 resolves.
Exit 1 when a gradient is further from the truth than the bar (0.03), or further than twice plain bfloat16.
"""
import argparse
import os
import subprocess
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Llama4ForCausalLM
from transformers.models.llama4 import modeling_llama4

BAR = 0.03


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]}: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def make_model(args):
    container, folder = f"{args.dir}/width.scout", f"{args.dir}/hf"
    run(f"{args.build}/tests/bench/synth_container", container, "--layers", args.layers, *args.geometry)
    run(f"{args.build}/bin/scout-convert", "export", container, "--to", "hf-bf16", "-o", folder)
    return container, folder


def make_adapter(folder, args):
    model = Llama4ForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map=args.device,
                                              attn_implementation="eager")
    model.config.use_cache = False
    targets = r".*(self_attn\.[qkvo]_proj|shared_expert\.(gate|up|down)_proj)"
    model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=targets))
    torch.manual_seed(3)
    for name, p in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, std=0.02 if "lora_A" in name else 0.005)
    model.save_pretrained(f"{args.dir}/adapter")
    return model


def probe(container, ids, args):
    path = f"{args.dir}/inputs.safetensors"
    save_file({"input_ids": ids.int(), "labels": ids.int()}, path)
    print(run(f"{args.build}/bin/scout-ft", "probe", "--model", container, "--adapter", f"{args.dir}/adapter", "--inputs",
              path, "-o", f"{args.dir}/probe.safetensors", "--grads", "--device", args.device))
    return load_file(f"{args.dir}/probe.safetensors")


class Routing:
    """Routes as `expert` says, layer by layer; counts where this run's own logits would not have."""

    def __init__(self, expert):
        self.expert, self.layer, self.flips, self.margin, self.spread = expert, 0, 0, 0.0, 0.0

    def __call__(self, router, hidden):
        logits = torch.nn.functional.linear(hidden, router.weight)
        chosen = self.expert[self.layer].to(logits.device)[:, None]
        best, own = logits.max(dim=1, keepdim=True)
        value = logits.gather(1, chosen)
        self.flips += int((own != chosen).sum())
        self.margin = max(self.margin, float((best - value).detach().max()))
        self.spread = max(self.spread, float(logits.detach().float().std()))
        self.layer += 1
        scores = torch.full_like(logits, float("-inf")).scatter(1, chosen, value)
        return torch.sigmoid(scores.float()).to(scores.dtype), logits


def gradients(model, ids, routing, args, autocast):
    modeling_llama4.Llama4Router.forward = lambda router, hidden: routing(router, hidden)
    model.zero_grad(set_to_none=True)
    ids = ids.to(args.device).long()
    with torch.autocast(args.device, torch.bfloat16, enabled=autocast):
        out = model(input_ids=ids, labels=ids)
    out.loss.backward()
    grads = {n.replace(".default", ""): p.grad.float().cpu() for n, p in model.named_parameters() if p.grad is not None}
    return float(out.loss.detach()), out.logits.detach().float().cpu(), grads


def distance(a, b):
    return float((a.float() - b).norm() / b.norm())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=64)
    args, args.geometry = parser.parse_known_args()
    os.makedirs(args.dir, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    container, folder = make_model(args)
    model = make_adapter(folder, args)
    vocabulary = model.config.vocab_size
    ids = torch.randint(0, vocabulary, (1, args.tokens), generator=torch.Generator().manual_seed(4))
    ours = probe(container, ids, args)
    expert = [ours[f"router.{i}"].float().reshape(args.tokens, -1).argmax(1) for i in range(args.layers)]

    truth = Routing(expert)
    loss, logits, grads = gradients(model, ids, truth, args, False)
    for name, p in model.named_parameters():
        if "lora_" not in name:
            p.data = p.data.to(torch.bfloat16)
    plain_loss, plain_logits, plain = gradients(model, ids, Routing(expert), args, True)

    print(f"{truth.flips} of {args.tokens * args.layers} choices of an expert differ from float32's, by at most "
          f"{truth.margin:.2e} where logits spread by {truth.spread:.2e}")
    print(f"loss {float(ours['loss'][0]):.6f}, float32 {loss:.6f}, torch in bfloat16 {plain_loss:.6f}")
    print(f"logits {distance(ours['logits'].reshape(logits.shape), logits):.2e} from float32; torch in bfloat16 "
          f"{distance(plain_logits, logits):.2e}")
    assert len(grads) == sum(k.startswith("grad.") for k in ours), "not the same modules"
    worst = sorted(((distance(ours["grad." + n].reshape(g.shape), g), distance(plain[n], g), n) for n, g in grads.items()),
                   reverse=True)
    all_ours = torch.cat([ours["grad." + n].float().flatten() for n in grads])
    all_true = torch.cat([g.flatten() for g in grads.values()])
    all_plain = torch.cat([plain[n].flatten() for n in grads])
    for d, p, name in worst[:4]:
        print(f"  {d:.4f} (torch in bfloat16 {p:.4f}) {name}")
    print(f"{len(grads)} gradients, all together {distance(all_ours, all_true):.4f} "
          f"(torch in bfloat16 {distance(all_plain, all_true):.4f})")
    bad = [n for d, p, n in worst if d > BAR or d > max(2 * p, 1e-4)]
    sys.exit(f"{len(bad)} gradients are too far off: {bad[0]}" if bad else 0)


if __name__ == "__main__":
    main()
