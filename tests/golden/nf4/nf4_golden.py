"""What the golden scripts share: safetensors in and out, the formulas' results, tiny-scout's matrices.

Tensors are pairs (dtype name of safetensors, numpy array of raw bits: uint8, uint16 or uint32).
"""
import json
import zlib
from pathlib import Path

import numpy as np

import nf4_reference as nf4

RAW = {"U8": np.uint8, "BF16": np.uint16, "F16": np.uint16, "F32": np.uint32}


def read_safetensors(path):
    data = Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    out = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__" or entry["dtype"] not in RAW:
            continue
        first, end = entry["data_offsets"]
        raw = np.frombuffer(data[8 + size + first:8 + size + end], RAW[entry["dtype"]])
        out[name] = (entry["dtype"], raw.reshape(entry["shape"]))
    return out


def write_safetensors(path, tensors):
    header, payload = {}, b""
    for name, (dtype, raw) in sorted(tensors.items(), key=lambda t: (-RAW[t[1][0]]().itemsize, t[0])):
        raw = np.ascontiguousarray(raw)
        assert raw.dtype == RAW[dtype]
        header[name] = {"dtype": dtype, "shape": list(raw.shape),
                        "data_offsets": [len(payload), len(payload) + raw.nbytes]}
        payload += raw.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + payload)


def to_float(dtype, raw):
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.view({"F16": np.float16, "F32": np.float32}[dtype]).astype(np.float32)


def bits(x):
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


def bf16_bits(x):
    """NaN as one pattern, so that results can be compared and hashed."""
    return np.where(np.isnan(x), 0x7FC0, bits(nf4.to_bf16(x)) >> 16).astype(np.uint16)


def crc(array):
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def mean_in_order(absmax):
    with np.errstate(all="ignore"):
        return np.float32(np.cumsum(absmax, dtype=np.float64)[-1] / absmax.size)


def formulas(x, offset=None):
    """Everything the rules give for x (float32); `offset` takes the place of the mean if given."""
    x = x.ravel()
    with np.errstate(all="ignore"):
        codes, absmax = nf4.quantize_nf4(x)
        offset = mean_in_order(absmax) if offset is None else np.float32(offset)
        q, nested, _ = nf4.nest(absmax, offset=offset)
        restored = nf4.unnest(q, nested, offset)
        decoded = bf16_bits(nf4.dequantize_nf4(codes, restored, x.size))
    return {"codes": ("U8", codes), "absmax": ("F32", bits(absmax)), "q": ("U8", q),
            "nested_absmax": ("F32", bits(nested)), "offset": ("F32", bits([offset])),
            "decoded_crc": ("F32", np.array([crc(decoded)], np.uint32))}, decoded


def checkpoint_matrices(folder):
    """(HF name, expert or -1, part, [out, in] bf16 bits) of every matrix that becomes NF4."""
    for shard in sorted(Path(folder).glob("*.safetensors")):
        for name, (dtype, raw) in read_safetensors(shard).items():
            if not name.startswith("language_model.model.layers."):
                continue
            if ".self_attn." in name or ".shared_expert." in name:
                yield name, -1, "whole", raw
            elif name.endswith(".experts.down_proj"):
                for e in range(raw.shape[0]):
                    yield name, e, "whole", raw[e].T
            elif name.endswith(".experts.gate_up_proj"):
                half = raw.shape[2] // 2
                for e in range(raw.shape[0]):
                    yield name, e, "gate", raw[e][:, :half].T
                    yield name, e, "up", raw[e][:, half:].T
