#!/usr/bin/python3
"""Numpy model of bitsandbytes' NF4 (+ double quantization) as its CUDA path defines it.

Written from the rules of spec/quantization.md; needs only numpy.
All arithmetic is float32.  `python3 nf4_reference.py` runs the self-check.
"""
import json
import zlib

import numpy as np

F = np.float32

# ---------------------------------------------------------------- 1. NF4 code
NF4_BITS = (0xBF800000, 0xBF3239B1, 0xBF066B30, 0xBECA32A0, 0xBE91A24D, 0xBE3D353F, 0xBDBA7871, 0x00000000,
            0x3DA2FAFF, 0x3E24CAE3, 0x3E7C04DD, 0x3EAD033A, 0x3EE1A4B8, 0x3F1007AB, 0x3F3913B3, 0x3F800000)
NF4 = np.array(NF4_BITS, np.uint32).view(F)
NF4_T = ((NF4[:-1] + NF4[1:]) / F(2)).astype(F)      # the 15 thresholds; x > T[i] goes to code >= i+1, a tie stays low


def ftz(x):
    """Flush float32 subnormals to (signed) zero: bitsandbytes is built with --use_fast_math."""
    x = np.asarray(x, F)
    return np.where(np.abs(x) < F(2.0 ** -126), np.copysign(F(0), x), x).astype(F)


def rcp(a):
    """Stand-in for rcp.approx.ftz.f32: correctly rounded 1/a (the GPU may be 1 ulp off)."""
    with np.errstate(divide="ignore", over="ignore"):
        return ftz(F(1) / ftz(a))


def to_bf16(x):
    """Round float32 to bfloat16 (nearest even), kept in a float32 container."""
    b = np.ascontiguousarray(x, F).view(np.uint32)
    r = ((b + 0x7FFF + ((b >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(F)
    return np.where(np.isnan(x), x, r).astype(F)


def to_dtype(x, dtype):
    return {"float32": lambda v: v, "float16": lambda v: v.astype(np.float16), "bfloat16": to_bf16}[dtype](x)


def blocks_of(x, blocksize):
    """Flatten row-major, zero-pad the last block (the CUDA loader fills missing items with 0)."""
    x = np.asarray(x).astype(F).ravel()
    pad = -x.size % blocksize
    return ftz(np.concatenate([x, np.zeros(pad, F)])).reshape(-1, blocksize)


def block_absmax(b):
    """fmaxf reduction started at -FLT_MAX: NaNs are ignored, an all-NaN block gives -FLT_MAX."""
    return np.fmax(np.fmax.reduce(np.abs(b), axis=1), -np.finfo(F).max).astype(F)


def nf4_codes(scaled):
    k = np.searchsorted(NF4_T, scaled, side="left")   # how many thresholds are strictly below
    return np.where(np.isnan(scaled), 0, k).astype(np.uint8)


def quantize_nf4(x, blocksize=64, rcp=rcp):
    """-> packed uint8 [(n+1)//2], absmax float32 [ceil(n/blocksize)].  First element = HIGH nibble."""
    n = np.asarray(x).size
    b = blocks_of(x, blocksize)
    absmax = block_absmax(b)
    with np.errstate(invalid="ignore"):
        k = nf4_codes(b * rcp(absmax)[:, None]).ravel()
    return ((k[0::2] << 4) | k[1::2]).astype(np.uint8)[: (n + 1) // 2], absmax


def dequantize_nf4(packed, absmax, n, blocksize=64, dtype="bfloat16"):
    k = np.stack([packed >> 4, packed & 15], 1).ravel()[:n]
    s = np.repeat(np.asarray(absmax, F), blocksize)[:n]
    with np.errstate(invalid="ignore"):
        return to_dtype(ftz(NF4[k] * s), dtype)       # one float32 product, then one rounding to the output type


# ------------------------------------------------- 3. 8-bit dynamic map, nested absmax
def linspace_fma(start, end, steps):
    """torch.linspace on CPU (float32) as current builds compute it: the multiply-add is fused."""
    s, e = F(start), F(end)
    step = F(F(e - s) / F(steps - 1))
    i = np.arange(steps)
    lo = (np.float64(s) + np.float64(step) * i).astype(F)                 # exact in float64, rounded once
    hi = (np.float64(e) - np.float64(step) * (steps - 1 - i)).astype(F)
    return np.where(i < steps // 2, lo, hi).astype(F)


def dynamic_map(signed=True):
    v = []
    for i in range(7):
        b = linspace_fma(0.1, 1.0, (2 ** i if signed else 2 ** (i + 1)) + 1)
        m = F(10.0 ** (i - 6)) * ((b[:-1] + b[1:]) / F(2))
        v += list(m) + (list(-m) if signed else [])
    return np.sort(np.array(v + [0.0, 1.0], F))


def codes_8bit(s, code):
    """Nearest entry by float32 midpoints; an exact midpoint goes to the EVEN index; NaN -> 0."""
    mid = ((code[:-1] + code[1:]) * F(0.5)).astype(F)
    j = np.searchsorted(mid, s, side="left")
    tie = (j < 255) & (s == mid[np.minimum(j, 254)]) & (j % 2 == 1)
    return np.where(np.isnan(s), 0, j + tie).astype(np.uint8)


def quantize_8bit(x, code, blocksize=256, rcp=rcp):
    n = np.asarray(x).size
    b = blocks_of(x, blocksize)
    absmax = block_absmax(b)
    with np.errstate(invalid="ignore"):
        return codes_8bit(b * rcp(absmax)[:, None], code).ravel()[:n], absmax


def dequantize_8bit(q, absmax, code, blocksize=256):
    return ftz(code[q] * np.repeat(np.asarray(absmax, F), blocksize)[: q.size])


def nest(absmax, code=None, offset=None):
    """-> q uint8, nested_absmax float32, offset float32.  torch's GPU mean may differ by an ulp or two."""
    code = dynamic_map() if code is None else code
    offset = F(np.mean(absmax, dtype=np.float64)) if offset is None else F(offset)
    q, nested_absmax = quantize_8bit(absmax - offset, code)
    return q, nested_absmax, offset


def unnest(q, nested_absmax, offset, code=None, fused=False):
    """Separate kernels round twice; bitsandbytes >= 0.50's fused GEMM uses one FMA (fused=True)."""
    code = dynamic_map() if code is None else code
    if fused:
        s = np.repeat(np.asarray(nested_absmax, np.float64), 256)[: q.size]
        return (code[q].astype(np.float64) * s + np.float64(F(offset))).astype(F)
    return (dequantize_8bit(q, nested_absmax, code) + F(offset)).astype(F)


# ------------------------------------------------------------- 4. checkpoint entries
def checkpoint_entries(name, w, dtype="bfloat16", double_quant=True, blocksize=64):
    """name e.g. 'model.layers.0.self_attn.q_proj.weight' -> {tensor name: numpy array}."""
    packed, absmax = quantize_nf4(w, blocksize)
    meta = {"quant_type": "nf4", "blocksize": blocksize, "dtype": dtype, "shape": list(np.shape(w))}
    out = {name: packed[:, None], name + ".quant_map": NF4}
    if double_quant:
        code = dynamic_map()
        q, a2, off = nest(absmax, code)
        out.update({name + ".absmax": q, name + ".nested_absmax": a2, name + ".nested_quant_map": code})
        meta.update({"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": float(off)})
    else:
        out[name + ".absmax"] = absmax
    out[name + ".quant_state.bitsandbytes__nf4"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    return out


# ------------------------------------------------------------------------ self-check
def _tree_nf4(x):                                     # the balanced decision tree, one scalar at a time
    lo, hi = 0, 15
    while lo < hi:
        m = (lo + hi) // 2
        lo, hi = (m + 1, hi) if x > NF4_T[m] else (lo, m)
    return lo


def _search_8bit(x, code):                            # the CUDA 7-step pivot search, one scalar at a time
    p, up, dn, vu, vd = 127, 255, 0, code[255], code[0]
    for i in (64, 32, 16, 8, 4, 2, 1):
        if x > code[p]:
            dn, vd, p = p, code[p], p + i
        else:
            up, vu, p = p, code[p], p - i
    if x > code[p]:
        return up if x > F(F(vu + code[p]) * F(0.5)) else p
    return dn if x < F(F(vd + code[p]) * F(0.5)) else p


def main():
    rng = np.random.default_rng(0)
    up, down = (lambda v: np.nextafter(v, F(9))), (lambda v: np.nextafter(v, F(-9)))

    bits = [int(b) for b in NF4_T.view(np.uint32)]
    assert bits == [0xBF591CD8, 0xBF1C5270, 0xBEEB8480, 0xBEADEA76, 0xBE703CEC, 0xBE0D38BC, 0xBD3A7871, 0x3D22FAFF,
                    0x3DF64862, 0x3E5067E0, 0x3E9582D4, 0x3EC753F9, 0x3F006D04, 0x3F248DAF, 0x3F5C89DA]
    s = np.concatenate([rng.uniform(-1, 1, 4000).astype(F), NF4, NF4_T, up(NF4_T), down(NF4_T), [F("nan")]]).astype(F)
    assert [_tree_nf4(v) for v in s] == list(nf4_codes(s)); print("ok  NF4 tree == threshold count (ties low, NaN -> 0)")

    code = dynamic_map()
    assert code[127] == 0 and code[255] == 1 and np.all(np.diff(code) > 0) and np.all(code[:127] == -code[254:127:-1])
    known = {0: -0.992968738079071, 20: -0.7117187976837158, 36: -0.48671871423721313, 126: -5.500000384017767e-07,
             128: 5.500000384017767e-07, 160: 0.014218750409781933, 201: 0.24765624105930328, 254: 0.992968738079071}
    assert all(float(code[i]) == v for i, v in known.items())
    crc = zlib.crc32(code.astype("<f4").tobytes()); ucrc = zlib.crc32(dynamic_map(False).astype("<f4").tobytes())
    assert (crc, ucrc) == (0x1B137AEB, 0xE871278F), (hex(crc), hex(ucrc))
    mid = ((code[:-1] + code[1:]) * F(0.5)).astype(F)
    s = np.concatenate([rng.uniform(-1, 1, 4000).astype(F), code, mid, up(mid), down(mid), [F("nan")]]).astype(F)
    assert [_search_8bit(v, code) for v in s] == list(codes_8bit(s, code)); print("ok  8-bit pivot search == nearest (ties even)")

    m = np.arange(128, 256, dtype=F)                  # every bf16 mantissa pair, down to 2^-19 of the absmax
    for sign in (1, -1):
        for e in range(20):
            x, a = (sign * m * F(2.0 ** -e))[:, None], m[None, :]
            x, a = [v[np.abs(x * np.ones_like(a)) <= a] for v in (x * np.ones_like(a), a * np.ones_like(x))]
            want = nf4_codes((x / a).astype(F)); r = (F(1) / a).astype(F)
            for rr in (r, up(r), down(r), up(up(r)), down(down(r))):
                assert np.array_equal(want, nf4_codes(x * rr))
    print("ok  bf16 input: codes do not depend on division vs reciprocal (rcp up to 2 ulp off)")
    off1 = [int(nf4_codes(F(-1206) * r)) for r in (rcp(F(1975)), down(rcp(F(1975))))]
    assert off1 == [1, 2]; print("ok  fp16 input: x=-1206, absmax=1975 is the pair where a 1-ulp-low reciprocal changes the code")

    p, a = quantize_nf4(np.zeros(64)); assert set(p) == {0} and a[0] == 0
    assert np.all(dequantize_nf4(p, a, 64) == 0)
    x = rng.standard_normal(64).astype(F); x[3], x[5] = np.nan, -np.inf
    p, a = quantize_nf4(x); assert a[0] == np.inf and p[1] & 15 == 0 and p[2] & 15 == 0 and p[0] == 0x77
    p, a = quantize_nf4(np.array([1, -1, .5, 0, .25], F)); assert list(p) == [0xF0, 0xC7, 0xA7] and list(a) == [1]
    print("ok  zero block -> 0x00, NaN/Inf -> code 0, finite beside Inf -> 7, tail and odd length")

    # mean |error| on N(0,1), 2^20 values: the means bitsandbytes' own test records for an RTX 4090
    x = to_bf16(rng.standard_normal(1 << 20).astype(F))
    for bs, want, sd in ((32, .067746, .69e-4), (64, .072798, .74e-4), (128, .076831, .91e-4), (256, .080337, 1.02e-4),
                         (512, .083547, 1.43e-4), (1024, .086610, 1.87e-4), (2048, .089592, 2.51e-4), (4096, .092547, 3.6e-4)):
        p, a = quantize_nf4(x, bs); y = dequantize_nf4(p, a, x.size, bs)
        mae = float(np.abs(x - y).mean()); assert abs(mae - want) < 5 * sd, (bs, mae, want)
        if bs == 64:
            rms = float(np.sqrt(((x - y) ** 2).sum() / (x ** 2).sum()))
            p2, a2 = quantize_nf4(y); assert np.array_equal(p, p2) and np.array_equal(a, a2)
            q, na, off = nest(a, code); ad = unnest(q, na, off, code)
            z = dequantize_nf4(p, ad, x.size); rms2 = float(np.sqrt(((x - z) ** 2).sum() / (x ** 2).sum()))
            assert abs(rms - 0.0920) < 3e-4 and abs(rms2 - rms) < 2e-4
            nf = int((unnest(q, na, off, code, True) != ad).sum())
            print(f"ok  block 64: rel. RMS {rms:.5f} (theory 0.09198), with double quantization {rms2:.5f}; requantization is")
            print(f"    idempotent; fused-FMA absmax differs in the last bit for {nf} of {ad.size} blocks")
    print("ok  mean |error| matches bitsandbytes' recorded means for blocks 32..4096")

    e = checkpoint_entries("q.weight", to_bf16(rng.standard_normal((48, 80)).astype(F)))   # 80 % 64 != 0: blocks cross rows
    assert e["q.weight"].shape == (1920, 1) and e["q.weight.absmax"].shape == (60,) and e["q.weight.nested_absmax"].shape == (1,)
    print("ok ", bytes(e["q.weight.quant_state.bitsandbytes__nf4"]).decode())
    print(f"crc32 of dynamic map float32 LE: signed {crc:#010x}, unsigned {ucrc:#010x}")


if __name__ == "__main__":
    main()
