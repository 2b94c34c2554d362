/* model_pass.h -- what the parts of the model share while they emit one tape (train/model*.c only).
 *
 * A pass remembers, per layer, the buffers that the forward made, so that the backward can name
 * them. It lives in the tape's arena and is forgotten with the emitting. */
#ifndef SCOUT_TRAIN_MODEL_PASS_H
#define SCOUT_TRAIN_MODEL_PASS_H

#include "train/model.h"

/* One linear of the model, or a group of equal ones, with the LoRA beside it if there is one. */
struct sft_linear {
    int64_t in, out, groups;
    const struct sft_lora_module *lora; /* NULL: frozen alone */
    int32_t weight;                     /* -1: another op's, LoRA alone is here */
    int32_t a, b, da, db; /* in the adapter block; -1 without LoRA (da, db: when not training) */
    int64_t a_stride, b_stride; /* from group to group, in elements */
    int32_t t; /* x A^T of the forward; -1 without LoRA, or where no linear has it */
    struct sft_ref x, offsets, host_offsets;
    int64_t y_stride;
};

/* gate, up, SwiGLU, down: a dense MLP, the shared expert, or all routed experts as a group. */
struct sft_mlp {
    struct sft_linear gate, up, down;
    int64_t width;
    int32_t gate_up; /* [rows, 2 * width], gate first */
    int32_t h;       /* [rows, width] */
    int32_t y;       /* [rows, hidden] */
};

struct sft_layer_pass {
    struct sf_layer_spec spec;
    int32_t x;         /* residual stream that enters the layer */
    int32_t n1, rstd1; /* behind the input norm */
    int32_t norm1;     /* its weight */
    struct sft_linear wq, wk, wv, wo;
    int32_t q, k, v, q_rstd, k_rstd, o, lse;
    int32_t attention; /* what attention adds to x */
    int32_t xm;        /* residual stream in the middle */
    int32_t n2, rstd2, norm2;
    struct sft_linear wr; /* the router's LoRA */
    int32_t router_lora;  /* what it adds to the logits; -1: nothing */
    int32_t router, u, logits, score, expert, slot, offsets, host_offsets; /* layers with experts */
    struct sft_mlp routed, mlp; /* mlp: shared expert or dense */
    int32_t y;                  /* what the feed-forward adds to xm */
};

struct sft_pass {
    struct sft_tape *tape;
    struct sft_ports *ports;
    const struct sk_ops *ops;
    const struct sf_model_spec *spec;
    const struct sft_lora *lora;
    struct sft_shape shape;
    bool backward, probing, generating;
    bool dropping;                /* training, with dropout */
    int32_t number;               /* of the layer in hand */
    struct sft_layer_pass *layer; /* [layers] */
    int32_t d; /* gradient of the residual stream, changed in place on the way down */
};

/* Emits a node: EMIT(pass, op, args, refs in the order of the struct ...). */
#define EMIT(pass, op, args, ...)                                                                  \
    sft_tape_emit((pass)->tape, (op), &(args), (const struct sft_ref[]){__VA_ARGS__},              \
                  (int)(sizeof((const struct sft_ref[]){__VA_ARGS__}) / sizeof(struct sft_ref)))
#define AT(buffer) sft_at((buffer), 0)

/* Buffers of [rows, cols]. Activations have the back end's element type, float32 on the CPU. */
int32_t sft_pass_activation(struct sft_pass *pass, enum sft_kind kind, int64_t cols,
                            const char *name);
/* Host memory for ops that run on a device; -1 where they run on the host. */
int32_t sft_pass_host(struct sft_pass *pass, uint64_t bytes, const char *name);
/* `count` elements of float32 or int32 whatever the back end. */
int32_t sft_pass_small(struct sft_pass *pass, int64_t count, const char *name);
/* rows * cols activations, UINT64_MAX (which no packer takes) when that does not fit. */
uint64_t sft_pass_activation_bytes(const struct sft_pass *pass, int64_t rows, int64_t cols);
int32_t sft_pass_weight(struct sft_pass *pass, enum sf_part part);

/* Everything of a linear but its weight, x and t: shapes from the model, LoRA if it is adapted. */
void sft_linear_bind(struct sft_pass *pass, struct sft_linear *linear, enum sf_part part);
/* A training pass's dropout of this module's input, and where it is counted; NULL module: none. */
const struct sk_dropout *sft_pass_dropout(const struct sft_pass *pass,
                                          const struct sft_lora_module *m);
uint32_t sft_pass_site(const struct sft_pass *pass, const struct sft_lora_module *m);
/* model.c: linears. y = linear(x); dx (SFT_NONE: nobody reads it), da, db from dy. */
void sft_linear_forward(struct sft_pass *pass, struct sft_linear *linear, enum sf_part part,
                        struct sft_ref y, struct sft_ref x);
/* The same of a linear whose frozen part another op has: y = what LoRA makes alone, in a buffer of
 * its own that is returned; -1: it is not adapted. */
int32_t sft_lora_forward(struct sft_pass *pass, struct sft_linear *linear, enum sf_part part,
                         struct sft_ref x, const char *name);
void sft_linear_backward(struct sft_pass *pass, const struct sft_linear *linear, struct sft_ref dx,
                         struct sft_ref dy, bool accumulate);
/* sum = x + delta (delta -1: none, and sum is x), y = norm(sum). */
void sft_norm_forward(struct sft_pass *pass, int32_t y, int32_t sum, int32_t rstd, int32_t x,
                      int32_t delta, int32_t weight);
/* pass->d = gradient through the norm + pass->d, in place; residual false: pass->d starts here. */
void sft_norm_backward(struct sft_pass *pass, int32_t dy, int32_t sum, int32_t rstd, int32_t weight,
                       bool residual);

/* Bytes of the keys, or the values, of one layer in the cache; UINT64_MAX: too many. */
uint64_t sft_pass_cache_bytes(const struct sft_pass *pass);

/* model_attention.c: n1 -> attention; d (gradient of its result) -> gradient of n1, returned. */
void sft_attention_emit_forward(struct sft_pass *pass, struct sft_layer_pass *l);
int32_t sft_attention_emit_backward(struct sft_pass *pass, struct sft_layer_pass *l);

/* model_mlp.c: n2 -> y; d -> gradient of n2, returned. */
void sft_feed_forward_emit_forward(struct sft_pass *pass, struct sft_layer_pass *l);
int32_t sft_feed_forward_emit_backward(struct sft_pass *pass, struct sft_layer_pass *l);

#endif
