"""Steps of bitsandbytes' own 8-bit AdamW, for tests/kernels/test_adamw_8bit.c.

Run with torch, bitsandbytes and safetensors: python make_adamw_8bit.py OUT.safetensors
bitsandbytes' processor path is asked for, without weight decay: its kernel for GPUs decays behind the
update, this path before it. This path also stores codes by way of 65,536 bins, so that codes may
differ by one from the nearest entry.
"""
import sys

import bitsandbytes as bnb
import bitsandbytes.functional as functional
import torch
from safetensors.torch import save_file

COUNT, STEPS, BETA1, BETA2, EPSILON = 1000, 5, 0.9, 0.999, 1e-8  # three blocks and a piece


def main(out):
    torch.manual_seed(11)
    maps = [functional.create_dynamic_map(signed=s) for s in (True, False)]
    p = 0.5 * torch.randn(COUNT)
    m, v = (torch.zeros(COUNT, dtype=torch.uint8) for _ in range(2))
    scales = [torch.zeros((COUNT + 255) // 256) for _ in range(2)]
    tensors = {"map.m": maps[0], "map.v": maps[1], "0.p": p.clone()}
    for step in range(1, STEPS + 1):
        g = torch.randn(COUNT) * torch.logspace(-4, 0, COUNT)  # blocks of unlike sizes
        lr = 0.01 * step
        torch.ops.bitsandbytes.optimizer_update_8bit_blockwise(
            "adam", g, p, m, v, BETA1, BETA2, 0.0, 0.0, EPSILON, step, lr,
            maps[0], maps[1], scales[0], scales[1], 0.0, 1.0, False)
        tensors |= {f"{step}.g": g, f"{step}.p": p.clone(), f"{step}.m": m.clone(),
                    f"{step}.v": v.clone(), f"{step}.m_scale": scales[0].clone(),
                    f"{step}.v_scale": scales[1].clone()}
    save_file({k: t.contiguous() for k, t in tensors.items()}, out,
              {"made_with": f"bitsandbytes {bnb.__version__}, torch {torch.__version__}"})


main(sys.argv[1])
