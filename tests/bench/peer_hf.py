#!/usr/bin/env python3
"""peer_hf -- LoRA steps of transformers + PEFT at Scout's layer geometry, for comparison.

    peer_hf.py [--tokens 4096] [--layers 2 4] [--steps 5] [--checkpointing] [--top1]

A bf16 base (no 4-bit at all), random weights, LoRA r=64 on attention and the shared expert, AdamW,
micro-batch 1. As it is, every token goes through all 16 experts; --top1 patches the feed-forward to
true top-1 dispatch over torch's grouped_mm, about the best that can be put together in PyTorch. Two
numbers of layers give the time of one; 48 of them and what is left over (head, loss, optimizer) give
the extrapolated rate: no 80 GB card holds 48 such layers in bf16.
"""
import argparse
import json
import statistics

import torch
from peft import LoraConfig, get_peft_model
from transformers import Llama4ForCausalLM, Llama4TextConfig
from transformers.models.llama4 import modeling_llama4

SCOUT_LAYERS = 48


def scout(layers):
    return Llama4TextConfig(
        vocab_size=202048, hidden_size=5120, intermediate_size=8192, intermediate_size_mlp=16384,
        num_hidden_layers=layers, num_attention_heads=40, num_key_value_heads=8, head_dim=128,
        num_local_experts=16, num_experts_per_tok=1, interleave_moe_layer_step=1,
        max_position_embeddings=32768, attention_chunk_size=8192, use_qk_norm=True,
        attn_temperature_tuning=True, use_cache=False, attn_implementation="sdpa")


def top1_forward(moe, hidden_states):
    """The same mathematics with every token in its own expert alone."""
    x = hidden_states.reshape(-1, hidden_states.shape[-1])
    logits = torch.nn.functional.linear(x, moe.router.weight)
    best, expert = logits.max(dim=1)
    order = torch.argsort(expert, stable=True)
    ends = torch.bincount(expert, minlength=logits.shape[1]).cumsum(0).to(torch.int32)
    routed = (x * torch.sigmoid(best.float()).to(x.dtype)[:, None])[order]
    gate, up = torch._grouped_mm(routed, moe.experts.gate_up_proj, offs=ends).chunk(2, dim=-1)
    down = torch._grouped_mm(torch.nn.functional.silu(gate) * up, moe.experts.down_proj, offs=ends)
    out = moe.shared_expert(x)
    return out.index_add(0, order, down).reshape(hidden_states.shape), logits


def make_model(layers, checkpointing):
    torch.manual_seed(1)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = Llama4ForCausalLM(scout(layers))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.02)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    targets = r".*(self_attn\.[qkvo]_proj|shared_expert\.(gate|up|down)_proj)"
    model = get_peft_model(model, LoraConfig(r=64, lora_alpha=128, target_modules=targets))
    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    return model


def time_steps(layers, args):
    model = make_model(layers, args.checkpointing)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(0, 202048, (1, args.tokens), device="cuda")
    times, loss = [], None
    for _ in range(args.steps + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    assert torch.isfinite(loss), "the loss is not finite"
    peak = torch.cuda.max_memory_allocated()
    del model, optimizer
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return statistics.median(times[2:]), peak, float(loss)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--layers", type=int, nargs=2, default=[2, 4])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--top1", action="store_true")
    args = parser.parse_args()
    if args.top1:
        modeling_llama4.Llama4TextMoe.forward = top1_forward
    few, many = args.layers
    (t_few, _, _), (t_many, peak, loss) = time_steps(few, args), time_steps(many, args)
    layer = (t_many - t_few) / (many - few)
    whole = t_few + (SCOUT_LAYERS - few) * layer
    print(json.dumps({"peer": "top-1 patch" if args.top1 else "as it is", "tokens": args.tokens,
                      "checkpointing": args.checkpointing, "ms_a_layer": round(1e3 * layer, 2),
                      f"seconds_{few}": round(t_few, 4), f"seconds_{many}": round(t_many, 4),
                      "extrapolated_tokens_per_second": round(args.tokens / whole, 1),
                      "peak_gb": round(peak / 1e9, 2), "loss": round(loss, 3)}))


if __name__ == "__main__":
    main()
