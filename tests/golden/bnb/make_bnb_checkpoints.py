#!/usr/bin/env python3
"""Write small Llama 4 checkpoints that bitsandbytes quantized to 4 bits.

Needs torch, bitsandbytes and safetensors; runs on the CPU.

    python make_bnb_checkpoints.py ../../../examples/tiny-scout OUT

OUT/linear    one bnb.nn.Linear4bit per matrix, experts one by one as transformers loads them; layer 0 with
              double quantization, layer 1 with plain float32 absmax. The k_proj of layer 0 carries a
              nested_quant_map that is an ulp off in places, as other versions of torch make it.
OUT/axolotl   one layer, experts.gate_projs.N and the codes viewed as bfloat16 (quant_storage)
OUT/stacked   one layer, all experts of a projection as one matrix [experts * in, out], as Unsloth uploads them

Each has decoded.txt: CRC-32 of the bf16 numbers that bitsandbytes makes of each weight again.
Weights are cut out of the trained tiny-scout, so that their statistics are those of weights.
"""
import json
import os
import sys
import zlib

import bitsandbytes as bnb
import torch
from safetensors import safe_open
from safetensors.torch import save_file

HIDDEN, WIDTH, EXPERTS, VOCAB, HEAD = 128, 256, 2, 64, 64
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def read_source(folder):
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            with safe_open(os.path.join(folder, name), "pt") as f:
                for key in f.keys():
                    if key.startswith("language_model."):
                        tensors[key[len("language_model."):]] = f.get_tensor(key)
    return tensors


def config(layers, storage, double):
    return {
        "architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "dtype": "bfloat16",
        "hidden_size": HIDDEN, "intermediate_size": WIDTH, "intermediate_size_mlp": 512,
        "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": HEAD,
        "num_local_experts": EXPERTS, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1,
        "no_rope_layers": [1, 0][:layers], "attention_chunk_size": 16, "attn_temperature_tuning": True,
        "floor_scale": 4, "attn_scale": 0.1, "rms_norm_eps": 1e-5, "vocab_size": VOCAB, "use_qk_norm": True,
        "max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "hidden_act": "silu", "attention_bias": False, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "quantization_config": {
            "_load_in_4bit": True, "_load_in_8bit": False, "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": storage, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": double,
            "llm_int8_enable_fp32_cpu_offload": False, "llm_int8_has_fp16_weight": False,
            "llm_int8_skip_modules": ["lm_head", "router"], "llm_int8_threshold": 6.0, "load_in_4bit": True,
            "load_in_8bit": False, "quant_method": "bitsandbytes"}}


class Checkpoint:
    def __init__(self):
        self.tensors, self.decoded = {}, []

    def keep(self, name, tensor):
        self.tensors[name] = tensor.to(torch.bfloat16).contiguous()

    def quantize(self, name, weight, double=True, storage=torch.uint8, own_map=False):
        """`name` without ".weight"."""
        out, width = weight.shape
        linear = bnb.nn.Linear4bit(width, out, bias=False, compress_statistics=double, quant_type="nf4",
                                   quant_storage=storage)
        linear.weight = bnb.nn.Params4bit(weight.to(torch.bfloat16).contiguous(), requires_grad=False,
                                          compress_statistics=double, quant_type="nf4", quant_storage=storage)
        linear = linear.to("cpu")
        if own_map:
            code = linear.weight.quant_state.state2.code
            code[1:100:7] = torch.nextafter(code[1:100:7], torch.tensor(2.0))
        state = {k: v.contiguous() for k, v in linear.state_dict().items()}
        assert "weight.quant_state.bitsandbytes__nf4" in state, sorted(state)
        for key, value in state.items():
            self.tensors[f"{name}.{key}"] = value.clone()
        again = bnb.functional.dequantize_4bit(linear.weight.data, linear.weight.quant_state)
        assert again.dtype == torch.bfloat16 and again.shape == weight.shape
        crc = zlib.crc32(again.contiguous().view(torch.uint8).numpy().tobytes())
        self.decoded.append(f"{name}.weight {crc:08x}")

    def layer(self, source, n, experts, double=True, storage=torch.uint8):
        p = f"model.layers.{n}."
        self.keep(p + "input_layernorm.weight", source[p + "input_layernorm.weight"][:HIDDEN])
        self.keep(p + "post_attention_layernorm.weight", source[p + "post_attention_layernorm.weight"][:HIDDEN])
        for part, rows in (("q", 2 * HEAD), ("k", HEAD), ("v", HEAD), ("o", HIDDEN)):
            key = f"{p}self_attn.{part}_proj"
            self.quantize(key, source[key + ".weight"][:rows, :HIDDEN], double, storage, part == "k" and n == 0)
        ff = p + "feed_forward."
        self.keep(ff + "router.weight", source[ff + "router.weight"][:EXPERTS, :HIDDEN])
        for part in PROJECTIONS:
            key = f"{ff}shared_expert.{part}"
            shape = (HIDDEN, WIDTH) if part == "down_proj" else (WIDTH, HIDDEN)
            self.quantize(key, source[key + ".weight"][:shape[0], :shape[1]], double, storage)
        fused, down = source[ff + "experts.gate_up_proj"], source[ff + "experts.down_proj"]
        half = fused.shape[2] // 2
        one = {"gate_proj": fused[:EXPERTS, :HIDDEN, :WIDTH], "up_proj": fused[:EXPERTS, :HIDDEN, half:half + WIDTH],
               "down_proj": down[:EXPERTS, :WIDTH, :HIDDEN]}
        for part in PROJECTIONS:
            if experts == "stacked":
                self.quantize(f"{ff}experts.{part}", one[part].reshape(-1, one[part].shape[2]), double, storage)
            for e in range(EXPERTS if experts != "stacked" else 0):
                name = f"{part}s.{e}" if experts == "axolotl" else f"{e}.{part}"
                self.quantize(f"{ff}experts.{name}", one[part][e].T, double, storage)

    def ends(self, source):
        self.keep("model.embed_tokens.weight", source["model.embed_tokens.weight"][:VOCAB, :HIDDEN])
        self.keep("model.norm.weight", source["model.norm.weight"][:HIDDEN])
        self.keep("lm_head.weight", source["lm_head.weight"][:VOCAB, :HIDDEN])

    def write(self, folder, layers, storage="uint8", double=True):
        os.makedirs(folder, exist_ok=True)
        save_file(self.tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(config(layers, storage, double), f, indent=1)
            f.write("\n")
        with open(os.path.join(folder, "decoded.txt"), "w") as f:
            f.write("\n".join(sorted(self.decoded)) + "\n")


def main():
    source, out = read_source(sys.argv[1]), sys.argv[2]
    print("torch", torch.__version__, "bitsandbytes", bnb.__version__)
    linear = Checkpoint()
    linear.layer(source, 0, "linear")
    linear.layer(source, 1, "linear", double=False)
    linear.ends(source)
    linear.write(os.path.join(out, "linear"), 2)
    axolotl = Checkpoint()
    axolotl.layer(source, 0, "axolotl", storage=torch.bfloat16)
    axolotl.ends(source)
    axolotl.write(os.path.join(out, "axolotl"), 1, storage="bfloat16")
    stacked = Checkpoint()
    stacked.layer(source, 0, "stacked")
    stacked.ends(source)
    stacked.write(os.path.join(out, "stacked"), 1)


main()
