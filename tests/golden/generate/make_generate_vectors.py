#!/usr/bin/env python3
"""Writes greedy.json: what transformers goes on with, greedily, on the weights that NF4 has left of tiny-scout.

    scout-convert examples/tiny-scout -o m.scout
    scout-convert export m.scout --to hf-bf16 -o weights
    pip install transformers==5.23.0 torch==2.15.0
    python3 make_generate_vectors.py weights        (writes beside itself)

float32 throughout; the margin is the least difference between the best two logits on the way: a far larger
one than float32 can blur.
"""
import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPTS = ["Call me Ishmael.", "The President said that ", [{"role": "user", "content": "Who are you?"}]]
NEW = 48


def main():
    tiny = os.path.join(HERE, "..", "..", "..", "examples", "tiny-scout")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
    rows = []
    for prompt in PROMPTS:
        chat = isinstance(prompt, list)
        ids = (tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt")["input_ids"]
               if chat else tokenizer(prompt, return_tensors="pt").input_ids)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW,
                             return_dict_in_generate=True, output_logits=True)
        margins = [float(torch.diff(-torch.topk(z[0], 2).values)) for z in out.logits]
        new = out.sequences[0, ids.shape[1]:].tolist()
        rows.append({"messages" if chat else "prompt": prompt, "prompt_tokens": ids.shape[1], "ids": new,
                     "margin": round(min(margins), 6)})
    with open(os.path.join(HERE, "greedy.json"), "w", encoding="utf-8") as f:
        json.dump(rows, f, ensure_ascii=False, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
