/* adapter_vllm.h -- what vLLM makes of an adapter for Llama 4, and the file that makes it right.
 *
 * vLLM permutes the rows of q and k of the base when it loads them (half-split RoPE) and not those
 * of an adapter's B; it reads keys of the multimodal class only (others apply to nothing, silently),
 * one alpha and rank for all modules; its experts get other inputs than Hugging Face's under LoRA. */
#ifndef SCOUT_LIBFORMAT_ADAPTER_ADAPTER_VLLM_H
#define SCOUT_LIBFORMAT_ADAPTER_ADAPTER_VLLM_H

#include "libformat/adapter/adapter_file.h"

/* Why vLLM cannot serve `adapter` even when it is written for it; NULL: it can. In `arena`. */
const char *sf_adapter_vllm_refusal(struct sf_arena *arena, const struct sf_adapter *adapter);
/* Does a file for vLLM differ from one for everybody else? (q or k are adapted.) */
bool sf_adapter_vllm_permutes(const struct sf_adapter *adapter);

/* Turns a loaded module of an adapter into vLLM's row order: of q and k, per head of head_size,
 * new row p * half + i is old row 2 * i + p; B anew in `arena`. Others stay. */
int sf_adapter_vllm_permute(struct sf_adapter_module *module, struct sf_arena *arena,
                            int64_t head_size, struct sf_err *err);

#endif
