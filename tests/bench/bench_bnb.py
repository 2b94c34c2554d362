#!/usr/bin/env python3
"""Times bitsandbytes' CPU quantize_4bit (NF4, double quantization, one thread) and bench_nf4 in one run.

    python3 bench_bnb.py build/cpu/tests/bench/bench_nf4

Both by processor time, in GB of bf16 a second; bitsandbytes takes the best of its sizes. bench_nf4's
whole expert does more: it turns [in, out] sources, measures errors and hashes the output. Needs torch
and bitsandbytes.
"""
import re
import subprocess
import sys
import time

import torch
import bitsandbytes
from bitsandbytes import functional


def bnb_rate(rows, columns):
    weights = (torch.randn(rows, columns) * 0.02).to(torch.bfloat16)
    best = float("inf")
    for _ in range(4):
        before = time.thread_time()
        functional.quantize_4bit(weights, blocksize=64, quant_type="nf4", compress_statistics=True)
        best = min(best, time.thread_time() - before)
    return weights.numel() * 2 / best * 1e-9


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    rates = {f"[{r}, {c}]": bnb_rate(r, c) for r, c in ((512, 256), (1024, 5120), (4096, 5120))}
    for shape, rate in rates.items():
        print(f"bitsandbytes {bitsandbytes.__version__} CPU {shape}: {rate:.4f} GB/s")
    best = max(rates.values())
    out = subprocess.run([sys.argv[1]], check=True, capture_output=True, text=True).stdout
    print(out, end="")
    path = ""
    for line in out.splitlines():
        if line in ("portable", "neon", "avx2", "avx512"):
            path = line
        whole = re.match(r" +whole expert +([0-9.]+) GB/s", line)
        if whole:
            print(f"{path}: {float(whole[1]) / best:.1f} times bitsandbytes' CPU quantize_4bit")


if __name__ == "__main__":
    main()
