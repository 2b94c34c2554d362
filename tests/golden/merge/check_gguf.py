#!/usr/bin/env python3
"""Does llama.cpp's converter take what scout-convert merge writes?

    python3 check_gguf.py --bin BUILD/bin --llama-cpp DIR

DIR has convert_hf_to_gguf.py with its folders conversion and gguf-py. Needs torch, transformers, safetensors,
numpy and what gguf imports; no GPU. Merges an adapter into examples/tiny-scout, converts the merged folder to a float32 GGUF and
compares every tensor of the language model bit for bit. llama.cpp knows vocabularies by a checksum, and
not that of tiny-scout, merged or not: here it is told that it is Llama 4's. Exit status 1 on any difference.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
BASE = HERE.parents[2] / "examples" / "tiny-scout"
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INSIDE = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "feed_forward.router": "ffn_gate_inp",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "feed_forward.shared_expert.gate_proj": "ffn_gate_shexp", "feed_forward.shared_expert.up_proj": "ffn_up_shexp",
    "feed_forward.shared_expert.down_proj": "ffn_down_shexp",
}
CONVERT = """
import runpy, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
import conversion.base as base
for one in vars(base).values():
    if isinstance(one, type) and "get_vocab_base_pre" in vars(one):
        one.get_vocab_base_pre = lambda self, tokenizer: "llama4"
script = sys.argv[1] + "/convert_hf_to_gguf.py"
sys.argv[:] = [script, sys.argv[2], "--outfile", sys.argv[3], "--outtype", "f32"]
runpy.run_path(script, run_name="__main__")
"""


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]}: exit {done.returncode}\n{done.stdout}{done.stderr}")


def wanted(folder):
    """-> {name in the GGUF: array} from the merged folder; the vision tower goes elsewhere."""
    from safetensors.torch import load_file

    want = {}
    for shard in sorted(folder.glob("*.safetensors")):
        for key, tensor in load_file(shard).items():
            name, data = key.removeprefix("language_model.").removesuffix(".weight"), tensor.float().numpy()
            if name in OUTSIDE:
                want[OUTSIDE[name] + ".weight"] = data
            if not name.startswith("model.layers."):
                continue
            layer, part = name.removeprefix("model.layers.").split(".", 1)
            if part == "feed_forward.experts.gate_up_proj":
                half = data.shape[2] // 2
                want[f"blk.{layer}.ffn_gate_exps.weight"] = data[:, :, :half].swapaxes(1, 2)
                want[f"blk.{layer}.ffn_up_exps.weight"] = data[:, :, half:].swapaxes(1, 2)
            elif part == "feed_forward.experts.down_proj":
                want[f"blk.{layer}.ffn_down_exps.weight"] = data.swapaxes(1, 2)
            else:
                want[f"blk.{layer}.{INSIDE[part]}.weight"] = data
    return want


def differences(path, want):
    import numpy
    from gguf import GGUFReader

    got = {t.name: numpy.array(t.data) for t in GGUFReader(path).tensors}
    wrong = [f"{n}: only the GGUF has it" for n in got.keys() - want.keys() - {"rope_freqs.weight"}]
    for name, data in want.items():
        if name not in got:
            wrong.append(f"{name}: not in the GGUF")
        elif not numpy.array_equal(got[name], data):
            wrong.append(f"{name}: {got[name].shape} in the GGUF differs from {data.shape} in the folder")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=Path, required=True, help="where scout-convert is")
    parser.add_argument("--llama-cpp", type=Path, required=True, help="where convert_hf_to_gguf.py is")
    args = parser.parse_args()
    sys.path.insert(0, str(args.llama_cpp / "gguf-py"))
    failed = 0
    for name in ("tiny_swapped", "tiny_natural"):
        with tempfile.TemporaryDirectory() as scratch:
            merged, gguf = Path(scratch) / "merged", Path(scratch) / "merged.gguf"
            run(args.bin / "scout-convert", "merge", "--base", BASE, "--adapter", HERE / name, "-o", merged)
            run(sys.executable, "-c", CONVERT, args.llama_cpp, merged, gguf)
            want = wanted(merged)
            wrong = differences(gguf, want)
            print(f"{name:16} {len(want)} tensors compared, {len(wrong)} differ")
            for line in wrong:
                print("   ", line)
            failed += bool(wrong)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
