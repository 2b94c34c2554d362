#!/usr/bin/env python3
"""Runs bitsandbytes on a GPU over the golden vectors and tiny-scout, and compares every byte.

    python3 check_bnb_cuda.py --checkpoint DIR [--out DIR]

Needs numpy, torch with CUDA and bitsandbytes.  Codes, absmax, 8-bit absmax codes, nested absmax and
decoded bf16 must equal the formulas (the nested ones with the library's own offset, whose last bit
depends on the order in which torch sums).  With --out the library's results are written as
bnb_cuda.safetensors, in the form of reference.safetensors.  Exit status 1 on any difference.
"""
import argparse
import sys
from pathlib import Path

import bitsandbytes as library
import bitsandbytes.functional as bnb
import numpy as np
import torch

import nf4_reference as nf4
from nf4_golden import (bf16_bits, bits, checkpoint_matrices, crc, formulas, read_safetensors, to_float,
                        write_safetensors)

HERE = Path(__file__).parent
KEYS = ("codes", "absmax", "q", "nested_absmax", "map", "decoded")


def to_cuda(dtype, raw):
    kind = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[dtype]
    signed = np.ascontiguousarray(raw).view({2: np.int16, 4: np.int32}[raw.itemsize]).copy()
    return torch.from_numpy(signed).view(kind).cuda()


def numpy_of(tensor):
    return tensor.detach().cpu().contiguous().numpy().ravel()


def run_library(x):
    """-> results as formulas() gives them, decoded bf16 bits, the 8-bit map."""
    packed, plain = bnb.quantize_4bit(x, blocksize=64, quant_type="nf4", compress_statistics=False)
    packed2, state = bnb.quantize_4bit(x, blocksize=64, quant_type="nf4", compress_statistics=True)
    assert torch.equal(packed, packed2), "codes differ with and without compress_statistics"
    assert state.offset.dtype == torch.float32 and state.state2.blocksize == 256
    state.dtype = torch.bfloat16                      # what to decode to; the source's type until here
    y = bnb.dequantize_4bit(packed, state)            # restores the nested scales itself
    decoded = bf16_bits(numpy_of(y.float()))
    return {"codes": ("U8", numpy_of(packed)), "absmax": ("F32", bits(numpy_of(plain.absmax))),
            "q": ("U8", numpy_of(state.absmax)), "nested_absmax": ("F32", bits(numpy_of(state.state2.absmax))),
            "offset": ("F32", bits(numpy_of(state.offset.reshape(1)))),
            "decoded_crc": ("F32", np.array([crc(decoded)], np.uint32))}, decoded, numpy_of(state.state2.code)


def compare(name, dtype, raw, totals):
    """Bytes that differ, by kind; prints the first of each kind."""
    got, decoded, code = run_library(to_cuda(dtype, raw))
    want, want_decoded = formulas(to_float(dtype, raw), got["offset"][1].view(np.float32)[0])
    pairs = {key: (got[key][1], want[key][1]) for key in KEYS[:4]}
    pairs["map"] = (bits(code), bits(nf4.dynamic_map()))
    pairs["decoded"] = (decoded, want_decoded)
    for key, (a, b) in pairs.items():
        if a.shape != b.shape:
            sys.exit(f"{name}: {key}: shapes {a.shape} and {b.shape}")
        wrong = np.flatnonzero(a != b)
        totals[key][0] += a.size
        totals[key][1] += wrong.size
        if wrong.size:
            i = wrong[0]
            print(f"{name}: {key}: {wrong.size} of {a.size} differ, first at {i}: library {a[i]:#x}, formula {b[i]:#x}")
    own = formulas(to_float(dtype, raw))[0]["offset"][1].view(np.float32)[0]
    theirs = got["offset"][1].view(np.float32)[0]
    if np.isfinite(own) and np.isfinite(theirs):
        totals["offset_ulp"].append(abs(int(bits([own])[0]) - int(bits([theirs])[0])))
    return got


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True, help="folder of tiny-scout")
    parser.add_argument("--out", help="folder for bnb_cuda.safetensors")
    args = parser.parse_args()
    print(f"bitsandbytes {library.__version__}, torch {torch.__version__}, {torch.cuda.get_device_name()}")
    totals = {key: [0, 0] for key in KEYS}
    totals["offset_ulp"] = []
    results = {}
    for name, (dtype, raw) in read_safetensors(HERE / "vectors.safetensors").items():
        got = compare(name, dtype, raw, totals)
        results.update({f"{name}.{key}": value for key, value in got.items()})
    matrices = 0
    for name, expert, part, raw in checkpoint_matrices(args.checkpoint):
        compare(f"{name} {expert} {part}", "BF16", np.ascontiguousarray(raw), totals)
        matrices += 1
    if matrices == 0:
        sys.exit(f"{args.checkpoint}: no matrices found")
    if args.out:
        write_safetensors(Path(args.out) / "bnb_cuda.safetensors", results)
    print(f"{len(results) // 6} vectors, {matrices} matrices of the checkpoint")
    for key in KEYS:
        print(f"{key:14} {totals[key][0]:9} compared {totals[key][1]:6} differ")
    ulps = totals["offset_ulp"]
    print(f"offset         {len(ulps):9} compared, largest distance {max(ulps)} ulp, {sum(u > 0 for u in ulps)} differ")
    sys.exit(1 if any(totals[key][1] for key in KEYS) else 0)


if __name__ == "__main__":
    main()
