/* hf_config.h -- config.json of a Llama 4 checkpoint, in all the forms that are in circulation.
 *
 * Multimodal (text_config inside) or text-only; rope_parameters (transformers 5) or rope_theta +
 * rope_scaling (4.x); every default as transformers' Llama4TextConfig has it. A field of the wrong
 * type, a size that is not positive, heads that do not divide, more than one expert per token, an
 * attention bias, tied embeddings, an activation other than silu: refused, naming the field. */
#ifndef SCOUT_LIBFORMAT_HF_HF_CONFIG_H
#define SCOUT_LIBFORMAT_HF_HF_CONFIG_H

#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/tensor/model_spec.h"

/* text[0..bytes) is the file's content; strings and layers of *out live in `arena`.
 * SF_EUNSUPPORTED: another architecture. SF_EFORMAT: not a usable config. */
int sf_hf_config_parse(struct sf_model_spec *out, struct sf_arena *arena, const char *text,
                       uint64_t bytes, struct sf_err *err);

#endif
