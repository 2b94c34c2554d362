#!/usr/bin/env python3
"""Makes vectors.safetensors, reference.safetensors and tiny_scout.txt, and accounts for every byte in
which bitsandbytes' CPU back end differs.

    python3 make_nf4_vectors.py ../../../examples/tiny-scout

Needs numpy, torch and bitsandbytes 0.50 (their CPU parts suffice).  Fails on a difference that none of
the causes named in README.md explains.
"""
import sys
from collections import Counter
from pathlib import Path

import bitsandbytes.functional as bnb
import numpy as np
import torch

import nf4_reference as nf4
from nf4_golden import (RAW, bf16_bits, bits, checkpoint_matrices, crc, formulas, read_safetensors, to_float,
                        write_safetensors)

HERE = Path(__file__).parent
F = np.float32


def encode(dtype, x):
    if dtype == "BF16":
        return bf16_bits(x.astype(F))
    return x.astype({"F16": np.float16, "F32": F}[dtype]).view(RAW[dtype])


def from_bits(pattern):
    return np.asarray(pattern, np.uint16)


def degenerate(rng):
    """64-element blocks, each with something a weight should not hold, between ordinary ones."""
    blocks = rng.standard_normal((24, 64)).astype(F)
    blocks[1] = 0
    blocks[2, 7] = np.nan
    blocks[3] = np.nan
    blocks[4, 0] = np.inf
    blocks[5, 63] = -np.inf
    blocks[6, 1], blocks[6, 2], blocks[6, 3] = np.inf, -np.inf, np.nan
    blocks[7] *= F(2.0 ** -128)                       # subnormal, partly below the smallest
    blocks[8] = F(2.0 ** -127)
    blocks[9] *= F(2.0 ** -124)                       # normal absmax, subnormal elements
    blocks[10] = np.clip(blocks[10], -1, 1) * F(2.0 ** 126)
    blocks[10, 5] = 2.0 ** 126                        # the largest absmax with a normal reciprocal
    blocks[11] = np.clip(blocks[11], -1, 1) * F(2.0 ** 126)
    blocks[11, 5] = F(1.0078125 * 2.0 ** 126)         # the next: everything becomes code 7
    blocks[12] = -0.0
    blocks[13] = 0
    blocks[13, 9] = -3                                # one value among zeros
    blocks[14] = 1
    blocks[15] = -1
    blocks[16, ::2] = 0
    blocks[17] = F(2.0 ** -126)
    return blocks


def cases():
    """name -> (dtype, raw bits).  Shapes matter to the reader only: blocks run over the flat array."""
    rng = np.random.default_rng(20260501)
    out = {}

    def add(name, dtype, x):
        out[name] = (dtype, x if x.dtype == RAW[dtype] else encode(dtype, x))

    normal = rng.standard_normal
    add("normal", "BF16", 0.02 * normal((256, 256)))
    add("heavy_tailed", "BF16", 0.01 * rng.standard_t(2, (96, 256)))
    add("rows_of_100", "BF16", normal((77, 100)))
    add("rows_of_33", "BF16", normal((129, 33)))
    add("scales_spread", "BF16", normal((700, 64)) * np.exp(rng.uniform(-9, 9, (700, 1))))
    add("scales_equal", "BF16", np.where(rng.random((300, 64)) < .5, -1., 1.))
    add("zeros", "BF16", np.zeros((5, 64)))
    add("some_zero_blocks", "BF16", normal((40, 64)) * (rng.random((40, 1)) < .6))
    add("not_finite", "BF16", degenerate(rng)[:7])
    add("ends_of_range", "BF16", degenerate(rng)[7:])
    add("subnormal", "BF16", from_bits(rng.integers(0, 0x180, (20, 64)) | rng.integers(0, 2, (20, 64)) << 15))
    any_bits = rng.integers(0, 65536, (64, 64)).astype(np.uint16)
    add("any_bits", "BF16", any_bits)
    add("finite_bits", "BF16", np.where((any_bits & 0x7F80) == 0x7F80, any_bits & 0xBFFF, any_bits).astype(np.uint16))
    add("one_binade", "BF16", from_bits(0x3F00 | rng.integers(0, 256, (128, 64)) | rng.integers(0, 2, (128, 64)) << 15))
    for n in (1, 2, 3, 31, 63, 64, 65, 127, 129, 16384 + 64 + 7):
        add(f"tail_{n}", "BF16", normal(n))
    add("tail_zero", "BF16", np.concatenate([normal(64), np.zeros(5)]))
    add("tail_nan", "BF16", np.concatenate([normal(64), np.full(5, np.nan)]))
    add("half", "F16", 0.05 * normal((130, 100)))
    add("half_subnormal", "F16", normal((12, 64)) * 2.0 ** -18)
    add("half_tail", "F16", normal(77))
    add("single", "F32", 0.03 * normal((120, 100)))
    add("single_ends", "F32", degenerate(rng)[7:])
    add("single_tail", "F32", normal(195))
    return out


def torch_of(dtype, raw):
    kind = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[dtype]
    signed = raw.view({2: np.int16, 4: np.int32}[raw.itemsize]).copy()
    return torch.from_numpy(signed).view(kind)


def unpack(codes, n):
    return np.stack([codes >> 4, codes & 15], 1).ravel()[:n]


def why_codes_differ(x, i, absmax):
    """The cause, by the table of README.md, for element i; None if there is none."""
    first = i // 64 * 64
    block, partial = x[first:first + 64], first + 64 > x.size
    top = absmax[i // 64]
    if np.isnan(block).any():
        return "NaN in the block"
    if np.isinf(block).any():
        return "Inf in the block"
    if top == 0 and (block == 0).all():
        return "zero block"
    if top == 0:
        return "absmax subnormal"
    if top > F(2.0 ** 126):
        return "absmax > 2^126"
    if (nf4.ftz(block) != block).any() and nf4.ftz(x[i]) != x[i]:
        return "element subnormal"
    exact = nf4.nf4_codes(np.array([x[i] / top, x[i] * (F(1) / top)], F))
    if partial and exact[0] != exact[1]:
        return "partial block is divided"
    return None


def compare_cpu(name, dtype, raw, found):
    """bitsandbytes on the CPU against the formulas: every difference is counted under its cause."""
    x = to_float(dtype, raw).ravel()
    with np.errstate(all="ignore"):
        ours, _ = formulas(x)
        absmax = ours["absmax"][1].view(F)
        packed, state = bnb.quantize_4bit(torch_of(dtype, raw), blocksize=64, quant_type="nf4")
        theirs = unpack(packed.numpy().ravel(), x.size)
        mine = unpack(ours["codes"][1], x.size)
        for i in np.flatnonzero(theirs != mine):
            why = why_codes_differ(x, i, absmax)
            assert why, f"{name}[{i}]: code {mine[i]}, bitsandbytes' CPU {theirs[i]}, no cause"
            found["codes", why] += 1
        for b in np.flatnonzero(bits(state.absmax.numpy()) != bits(absmax)):
            block = x[64 * b:64 * b + 64]
            why = ("NaN in the block" if np.isnan(block).any() else
                   "absmax subnormal" if absmax[b] == 0 and (block != 0).any() else
                   "zero partial block stores 1e-38" if absmax[b] == 0 and block.size < 64 else None)
            assert why, f"{name}: absmax {b}: {absmax[b]}, bitsandbytes' CPU {state.absmax[b]}, no cause"
            found["absmax", why] += 1
        found["codes", "compared"] += x.size
        found["absmax", "compared"] += absmax.size
    if np.isfinite(absmax).all() and (bits(state.absmax.numpy()) == bits(absmax)).all():
        compare_cpu_nested(name, torch_of(dtype, raw), x, found)


def compare_cpu_nested(name, tensor, x, found):
    packed, state = bnb.quantize_4bit(tensor, blocksize=64, quant_type="nf4", compress_statistics=True)
    ours, _ = formulas(x, state.offset.item())
    plain, mean = formulas(x)[0], state.offset.item()
    with np.errstate(all="ignore"):
        ulps = abs(int(bits([mean])[0]) - int(plain["offset"][1][0]))
        found["offset", "sum overflows float32" if np.isinf(mean) else f"{ulps} ulp"] += 1
    assert (bits(state.state2.code.numpy()) == bits(nf4.dynamic_map())).all(), "another 8-bit map"
    nested = bits(state.state2.absmax.numpy())
    if (ours["nested_absmax"][1] < 0x00800000).any() and (nested != ours["nested_absmax"][1]).any():
        found["nested absmax", "every difference from the mean subnormal"] += nested.size
        return
    assert (nested == ours["nested_absmax"][1]).all(), f"{name}: nested absmax"
    found["nested absmax", "compared"] += nested.size
    q, mine = state.absmax.numpy().astype(int), ours["q"][1].astype(int)
    for i in np.flatnonzero(q != mine):
        d = plain["absmax"][1].view(F)[i] - F(mean)
        s = d / F(nested[i // 256].view(F))
        code = nf4.dynamic_map().astype(np.float64)
        # its 65,536 bins are 2 / 65535 wide: only a value this near a midpoint can move, to a neighbour
        lo, hi = sorted((q[i], mine[i]))
        near = abs(float(s) - (code[lo] + code[hi]) / 2) <= 2 / 65535
        assert hi - lo == 1 and near or abs(float(s)) <= 2 / 65535, \
            f"{name}: q[{i}]: {mine[i]}, bitsandbytes' CPU {q[i]}, s = {s}"
        found["q", "65,536 bins"] += 1
    found["q", "compared"] += mine.size
    # decoding is the same on both sides: feed it the library's own codes
    y = bnb.dequantize_4bit(packed, state).float().numpy().ravel()
    with np.errstate(all="ignore"):
        restored = nf4.unnest(state.absmax.numpy(), state.state2.absmax.numpy(), F(mean))
        want = nf4.dequantize_nf4(packed.numpy().ravel(), restored, x.size)
    if tensor.dtype == torch.bfloat16 and ((want == 0) | (np.abs(want) >= 2.0 ** -126)).all():
        assert (bf16_bits(y) == bf16_bits(want)).all(), f"{name}: decoded"
        found["decoded", "compared"] += x.size


def write_tiny_scout(folder, found):
    lines = []
    for name, expert, part, raw in checkpoint_matrices(folder):
        raw = np.ascontiguousarray(raw)
        r, decoded = formulas(to_float("BF16", raw))
        compare_cpu(name, "BF16", raw, found)
        lines.append(f"{name} {expert} {part} {raw.shape[0]} {raw.shape[1]} {crc(r['codes'][1]):08x} {crc(r['absmax'][1]):08x} "
                     f"{r['offset'][1][0]:08x} {crc(r['q'][1]):08x} {crc(r['nested_absmax'][1]):08x} {crc(decoded):08x}\n")
    head = ("# NF4 of every matrix of tiny-scout that is quantized, as [out, in]; CRC-32 of little-endian bytes.\n"
            "# name expert part rows cols codes absmax offset_bits q nested_absmax decoded_bf16\n")
    (HERE / "tiny_scout.txt").write_text(head + "".join(sorted(lines)))
    return len(lines)


def main():
    vectors, found = cases(), Counter()
    reference = {}
    for name, (dtype, raw) in vectors.items():
        r, _ = formulas(to_float(dtype, raw))
        reference.update({f"{name}.{key}": value for key, value in r.items()})
        compare_cpu(name, dtype, raw, found)
    write_safetensors(HERE / "vectors.safetensors", vectors)
    write_safetensors(HERE / "reference.safetensors", reference)
    back = read_safetensors(HERE / "vectors.safetensors")
    assert all((back[name][1] == raw).all() for name, (_, raw) in vectors.items())
    matrices = write_tiny_scout(sys.argv[1], found)
    print(f"{len(vectors)} vectors, {matrices} matrices of tiny-scout")
    for (what, why), count in sorted(found.items()):
        print(f"{what:14} {count:9} {why}")


if __name__ == "__main__":
    main()
