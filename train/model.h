/* model.h -- Llama 4's forward and backward, emitted once on a tape over the op table.
 *
 * The model owns nothing: weights are roles, adapters are places in the adapter block, activations
 * are buffers. It emits everything; what a mode or an adapter does not need, pruning leaves out
 * (plan/prune.h). The formulas are in the kernels' headers; in short
 *     x += attention(rmsnorm(x));  x += feed_forward(rmsnorm(x))     per layer
 * with the residual add fused into the norm that follows it. The router's weight is frozen, but its
 * score's gradient flows into the hidden state, and into the router's LoRA. */
#ifndef SCOUT_TRAIN_MODEL_H
#define SCOUT_TRAIN_MODEL_H

#include "train/lora.h"
#include "train/plan/tape.h"

/* What a tape is made for: a micro-batch of `rows` tokens in at most `documents` documents of at
 * most `longest` tokens. GENERATE: `rows` tokens of the one document, which may become `longest`
 * tokens long, more than the rows. */
struct sft_shape {
    int64_t rows, documents, longest;
};

enum sft_mode {
    SFT_TRAIN,       /* loss and the adapter's gradients */
    SFT_EVAL,        /* loss only */
    SFT_PROBE,       /* loss, logits, each layer's output, router logits, all kept */
    SFT_PROBE_GRADS, /* the same, and the adapter's gradients */
    SFT_GENERATE /* logits alone, of tokens that follow those whose keys and values are cached */
};

/* The tape's ways in and out, as buffer numbers. */
struct sft_ports {
    int32_t ids;            /* int32 [rows], host memory */
    int32_t targets;        /* int32 [rows]: the next token, or SK_IGNORE_INDEX */
    int32_t host_targets;   /* the same, host memory */
    int32_t positions;      /* int32 [rows]: index in the document */
    int32_t documents;      /* int32 [documents + 1]: first row of each; empty ones are welcome */
    int32_t inv_freq;       /* float [head_size / 2] */
    int32_t gradient_scale; /* float [1] */
    int32_t loss;           /* double [1]: sum over targets */
    int32_t token_loss;     /* float [rows] */
    int32_t logits;         /* float [rows, vocabulary]; -1 unless probing or generating */
    int32_t
        *hidden; /* [layers] activations [rows, hidden] behind each layer; NULL unless probing */
    int32_t
        *host_offsets; /* [layers] int32 [experts + 1], host memory: rows of each expert; -1 where
                              a layer has none */
    int32_t *router;   /* [layers] float [rows, experts]; -1 for dense layers; NULL ... */
};

/* Emits forward and, for TRAIN and PROBE_GRADS, backward. `lora` may be NULL or without a block;
 * the tape is not finished and is for `ops` alone. SF_EUNSUPPORTED: a model that these ops do not cover. */
int sft_model_emit(struct sft_tape *tape, struct sft_ports *ports, const struct sk_ops *ops,
                   const struct sf_model_spec *spec, const struct sft_lora *lora,
                   struct sft_shape shape, enum sft_mode mode, struct sf_err *err);

/* Bytes of the cache that GENERATE's tapes read and add to: UINT64_MAX when they do not fit. It is
 * the same for all whose shapes have one `longest`. */
uint64_t sft_model_cache_bytes(const struct sk_ops *ops, const struct sf_model_spec *spec,
                               struct sft_shape shape);

#endif
