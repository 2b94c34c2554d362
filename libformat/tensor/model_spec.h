/* model_spec.h -- what a model is: its sizes, its layers, and the role of every weight in it.
 *
 * Filled from config.json by libformat/hf/hf_config, read by conversion, plan and training. Nothing
 * here knows file formats or kernels. Field semantics: transformers' Llama4TextConfig.
 * Plain data: copy it freely; `layer` is allocated in the arena given to the filler. */
#ifndef SCOUT_LIBFORMAT_TENSOR_MODEL_SPEC_H
#define SCOUT_LIBFORMAT_TENSOR_MODEL_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/err.h"
#include "libformat/tensor/tensor.h"

enum sf_rope_kind { SF_ROPE_PLAIN, SF_ROPE_LLAMA3 };

struct sf_rope {
    enum sf_rope_kind kind;
    double theta;
    double factor, low_freq_factor, high_freq_factor; /* llama3 only */
    int64_t original_max_positions;                   /* llama3 only */
};

struct sf_layer_spec {
    bool rope;    /* rotates q and k (and normalizes them where qk_norm is set); else NoPE */
    bool chunked; /* attention stays inside chunks of attention_chunk positions */
    bool moe;     /* router + routed experts + shared expert; else one dense MLP */
};

struct sf_model_spec {
    bool multimodal;          /* Llama4ForConditionalGeneration: "language_model." prefix, vision */
    const char *architecture; /* architectures[0] of the config, or the class model_type implies */
    const char *family;       /* "llama4" */
    int64_t layers, hidden, vocabulary;
    int64_t heads, kv_heads, head_size;
    int64_t expert_width; /* intermediate size of routed and shared experts */
    int64_t dense_width;  /* of layers without experts */
    int64_t experts, experts_per_token;
    int64_t attention_chunk;
    double norm_epsilon;
    bool qk_norm;
    bool temperature;                            /* attention temperature on NoPE layers */
    double temperature_floor, temperature_scale; /* floor_scale, attn_scale */
    struct sf_rope rope;
    enum sf_dtype
        dtype; /* of the checkpoint's weights as the config names it; NONE if it does not */
    int64_t bos_token, pad_token; /* -1: none */
    struct sf_layer_spec *layer;  /* [layers] */
};

/* Inverse rotary frequencies, inv_freq[head_size / 2], float32 as transformers computes them. */
void sf_rope_frequencies(float *inv_freq, const struct sf_rope *rope, int64_t head_size);

/* ---- roles: which weight is this? ---- */

enum sf_part {
    SF_PART_EMBEDDING,   /* [vocabulary, hidden] */
    SF_PART_INPUT_NORM,  /* [hidden] */
    SF_PART_Q,           /* [heads * head_size, hidden] */
    SF_PART_K,           /* [kv_heads * head_size, hidden] */
    SF_PART_V,           /* [kv_heads * head_size, hidden] */
    SF_PART_O,           /* [hidden, heads * head_size] */
    SF_PART_POST_NORM,   /* [hidden] */
    SF_PART_ROUTER,      /* [experts, hidden] */
    SF_PART_SHARED_GATE, /* [expert_width, hidden] */
    SF_PART_SHARED_UP,   /* [expert_width, hidden] */
    SF_PART_SHARED_DOWN, /* [hidden, expert_width] */
    SF_PART_DENSE_GATE,  /* [dense_width, hidden] */
    SF_PART_DENSE_UP,    /* [dense_width, hidden] */
    SF_PART_DENSE_DOWN,  /* [hidden, dense_width] */
    SF_PART_EXPERT_GATE, /* [expert_width, hidden], one per expert */
    SF_PART_EXPERT_UP,   /* [expert_width, hidden] */
    SF_PART_EXPERT_DOWN, /* [hidden, expert_width] */
    SF_PART_FINAL_NORM,  /* [hidden] */
    SF_PART_HEAD,        /* [vocabulary, hidden] */
    SF_PART_UNUSED,      /* carried, not used by text training: any shape */
    SF_PART_COUNT
};

struct sf_role {
    enum sf_part part;
    int32_t layer;  /* -1 outside the layers */
    int32_t expert; /* -1 unless the part is one of EXPERT_* */
};

/* "embedding", "input_norm", "q", ... "expert_gate", "unused": the strings of the container. */
const char *sf_part_name(enum sf_part part);
bool sf_part_from_name(enum sf_part *out, const char *name);
bool sf_part_is_matrix(
    enum sf_part part); /* a linear layer's weight: may be quantized and adapted */
bool sf_part_is_expert(enum sf_part part);
bool sf_part_in_layer(enum sf_part part);
/* True when this layer of the model has such a weight (layer -1: the parts outside the layers). */
bool sf_spec_has(const struct sf_model_spec *spec, enum sf_part part, int32_t layer);
/* The shape that the role has in this model, [out, in]. Not for UNUSED. */
struct sf_shape sf_spec_shape(const struct sf_model_spec *spec, enum sf_part part);
/* "layer 7 expert 3 gate", "layer 0 q", "embedding" into text[64]. */
enum { SF_ROLE_TEXT = 64 };
const char *sf_role_format(char *text, struct sf_role role);

#endif
