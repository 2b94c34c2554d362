#!/usr/bin/env python3
"""An exported hf-bnb4 folder as transformers loads it, beside the hf-bf16 folder of the same container.

    check_bnb4_with_transformers.py BNB4_DIR BF16_DIR     (torch, transformers, bitsandbytes; runs on the CPU)

Prints what was missing or unexpected, how many Linear4bit modules decode to other bf16 weights than hf-bf16 has, and how
far logits are apart: as loaded, and with bitsandbytes' weights in float32 products.
"""
import sys

import bitsandbytes as bnb
import torch
import transformers


def load(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, config.architectures[0])
    model, info = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True,
                                       device_map="cpu")
    print(folder, {key: len(value) for key, value in info.items() if value})
    return model.eval()


def weight_of(modules, name):
    """A module's weight in the other model, whose experts are one tensor [experts, in, out]."""
    if name in modules:
        return modules[name].weight.float()
    path, expert, part = name.rsplit(".", 2)
    if part == "down_proj":
        return modules[path].down_proj[int(expert)].T.float()
    both = modules[path].gate_up_proj[int(expert)].T.float()
    half = both.shape[0] // 2
    return both[:half] if part == "gate_proj" else both[half:]


def decoded(module):
    return bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).bfloat16().float()


def multiply_in_float32(model):
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.forward = lambda x, w=decoded(module): torch.nn.functional.linear(x.float(), w)
    for p in model.parameters():
        if not isinstance(p, bnb.nn.Params4bit):
            p.data = p.data.float()


def main():
    ours, plain = load(sys.argv[1]), load(sys.argv[2])
    modules = dict(plain.named_modules())
    small = [(n, m) for n, m in ours.named_modules() if isinstance(m, bnb.nn.Linear4bit)]
    wrong = [n for n, m in small if not torch.equal(decoded(m), weight_of(modules, n))]
    print(f"{len(small)} Linear4bit modules, {len(wrong)} decode to other weights", *wrong[:1])
    config = getattr(ours.config, "text_config", ours.config)
    ids = torch.randint(0, config.vocab_size - 16, (2, 160), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        want = plain(input_ids=ids, use_cache=False).logits.double()
        for what in ("as loaded", "in float32 products"):
            got = ours(input_ids=ids, use_cache=False).logits.double()
            print(f"logits {what}: {float((got - want).norm() / want.norm()):.2e}")
            multiply_in_float32(ours)
    sys.exit(1 if wrong or not small else 0)


if __name__ == "__main__":
    main()
