/* names.h -- which weight a Hugging Face tensor name of a Llama 4 checkpoint means.
 *
 * Both classes: names start with "language_model." in the multimodal one, with "model." or
 * "lm_head." in the text-only one. Pure functions; any number of threads. */
#ifndef SCOUT_LIBFORMAT_CONVERT_NAMES_H
#define SCOUT_LIBFORMAT_CONVERT_NAMES_H

#include "libformat/base/arena.h"
#include "libformat/tensor/model_spec.h"

enum sf_name_kind {
    SF_NAME_WEIGHT,        /* one weight: `part` of `layer` */
    SF_NAME_FUSED_GATE_UP, /* [experts, hidden, 2 * width]: gate and up of all experts of `layer` */
    SF_NAME_FUSED_DOWN,    /* [experts, width, hidden]: down of all experts of `layer` */
    SF_NAME_STACKED,       /* `part` of all experts of `layer`, [experts * in, out] */
    SF_NAME_UNUSED,        /* vision tower or projector: carried, not used by text training */
    SF_NAME_BNB,           /* bitsandbytes 4-bit: describes the weight whose name it begins with */
    SF_NAME_PACKED,        /* belongs to a checkpoint quantized in another way: `packing` */
    SF_NAME_UNKNOWN
};

struct sf_name {
    enum sf_name_kind kind;
    enum sf_part part; /* WEIGHT and STACKED */
    int32_t layer;     /* -1 outside the layers */
    int32_t expert; /* WEIGHT: "experts.3.gate_proj.weight", "experts.gate_projs.3.weight"; or -1 */
    const char *packing; /* PACKED: what is known to use such names */
};

struct sf_name sf_name_parse(const char *name);

/* The unique name of a role in a container, the one transformers' per-expert layout would use:
 * "language_model.model.layers.0.feed_forward.experts.3.gate_proj.weight". NULL without memory.
 * Not for UNUSED. */
char *sf_name_of_role(struct sf_arena *arena, bool multimodal, struct sf_role role);

#endif
