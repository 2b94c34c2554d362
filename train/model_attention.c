#include "kernels/attention.h"
#include "kernels/attention_cached.h"
#include "kernels/qk.h"
#include "train/model_pass.h"

#include <math.h>

static struct sk_qk_shape qk_shape(const struct sft_pass *pass, const struct sft_layer_pass *l)
{
    const struct sf_model_spec *spec = pass->spec;
    return (struct sk_qk_shape){.rows = pass->shape.rows,
                                .heads = spec->heads,
                                .kv_heads = spec->kv_heads,
                                .head_size = spec->head_size,
                                .rope = l->spec.rope,
                                .norm = l->spec.rope && spec->qk_norm,
                                .temperature = !l->spec.rope && spec->temperature,
                                .epsilon = (float)spec->norm_epsilon,
                                .temperature_floor = (float)spec->temperature_floor,
                                .temperature_scale = (float)spec->temperature_scale};
}

static bool has_aftercare(struct sk_qk_shape shape)
{
    return shape.rope || shape.norm || shape.temperature;
}

static struct sk_attention_shape attention_shape(const struct sft_pass *pass,
                                                 const struct sft_layer_pass *l)
{
    const struct sf_model_spec *spec = pass->spec;
    return (struct sk_attention_shape){.rows = pass->shape.rows,
                                       .documents = pass->shape.documents,
                                       .heads = spec->heads,
                                       .kv_heads = spec->kv_heads,
                                       .head_size = spec->head_size,
                                       .longest = pass->shape.longest,
                                       .chunk = l->spec.chunked ? spec->attention_chunk : 0,
                                       .scale = 1 / sqrtf((float)spec->head_size)};
}

static void emit_qkv(struct sft_pass *pass, struct sft_layer_pass *l)
{
    const struct sf_model_spec *spec = pass->spec;
    int64_t kv = spec->kv_heads * spec->head_size;
    l->q = sft_pass_activation(pass, SFT_ACTIVATION_ATTENTION, spec->heads * spec->head_size, "q");
    l->k = sft_pass_activation(pass, SFT_ACTIVATION_ATTENTION, kv, "k");
    l->v = sft_pass_activation(pass, SFT_ACTIVATION_ATTENTION, kv, "v");
    l->wq.offsets = l->wk.offsets = l->wv.offsets = l->wo.offsets = SFT_NONE;
    l->wq.host_offsets = l->wk.host_offsets = l->wv.host_offsets = l->wo.host_offsets = SFT_NONE;
    sft_linear_forward(pass, &l->wq, SF_PART_Q, AT(l->q), AT(l->n1));
    sft_linear_forward(pass, &l->wk, SF_PART_K, AT(l->k), AT(l->n1));
    sft_linear_forward(pass, &l->wv, SF_PART_V, AT(l->v), AT(l->n1));
    struct sk_qk_forward args = {.shape = qk_shape(pass, l)};
    l->q_rstd = l->k_rstd = -1;
    if (args.shape.norm) {
        l->q_rstd = sft_pass_small(pass, pass->shape.rows * spec->heads, "q.rstd");
        l->k_rstd = sft_pass_small(pass, pass->shape.rows * spec->kv_heads, "k.rstd");
    }
    if (has_aftercare(args.shape))
        EMIT(pass, SK_QK_FORWARD, args, AT(l->q), AT(l->k), AT(l->q_rstd), AT(l->k_rstd),
             AT(pass->ports->positions), AT(pass->ports->inv_freq));
}

/* Over the documents of the batch. */
static void emit_attention(struct sft_pass *pass, struct sft_layer_pass *l)
{
    l->lse = sft_pass_small(pass, pass->shape.rows * pass->spec->heads, "attention.lse");
    struct sk_attention_forward args = {.shape = attention_shape(pass, l)};
    EMIT(pass, SK_ATTENTION_FORWARD, args, AT(l->o), AT(l->lse), AT(l->q), AT(l->k), AT(l->v),
         AT(pass->ports->documents));
}

/* Over what is cached of the one document. Layers lie one behind the other, keys before values. */
static void emit_cached(struct sft_pass *pass, struct sft_layer_pass *l)
{
    struct sk_attention_shape shape = attention_shape(pass, l);
    uint64_t bytes = sft_pass_cache_bytes(pass), at = 2 * (uint64_t)pass->number * bytes;
    int32_t k = sft_tape_cache(pass->tape, at, bytes, "layers.%d.k_cache", pass->number);
    int32_t v = sft_tape_cache(pass->tape, at + bytes, bytes, "layers.%d.v_cache", pass->number);
    struct sk_attention_cached args = {.rows = shape.rows,
                                       .room = shape.longest,
                                       .heads = shape.heads,
                                       .kv_heads = shape.kv_heads,
                                       .head_size = shape.head_size,
                                       .chunk = shape.chunk,
                                       .scale = shape.scale};
    EMIT(pass, SK_ATTENTION_CACHED, args, AT(l->o), AT(k), AT(v), AT(l->q), AT(l->k), AT(l->v),
         AT(pass->ports->positions));
}

void sft_attention_emit_forward(struct sft_pass *pass, struct sft_layer_pass *l)
{
    const struct sf_model_spec *spec = pass->spec;
    emit_qkv(pass, l);
    l->o = sft_pass_activation(pass, SFT_ACTIVATION_ATTENTION, spec->heads * spec->head_size,
                               "attention");
    if (pass->generating)
        emit_cached(pass, l);
    else
        emit_attention(pass, l);
    l->attention = sft_pass_activation(pass, SFT_ACTIVATION, spec->hidden, "o");
    sft_linear_forward(pass, &l->wo, SF_PART_O, AT(l->attention), AT(l->o));
}

int32_t sft_attention_emit_backward(struct sft_pass *pass, struct sft_layer_pass *l)
{
    const struct sf_model_spec *spec = pass->spec;
    int64_t q_cols = spec->heads * spec->head_size, kv_cols = spec->kv_heads * spec->head_size;
    int32_t d_o = sft_pass_activation(pass, SFT_GRADIENT, q_cols, "d attention");
    sft_linear_backward(pass, &l->wo, AT(d_o), AT(pass->d), false);

    int32_t dq = sft_pass_activation(pass, SFT_GRADIENT, q_cols, "d q");
    int32_t dk = sft_pass_activation(pass, SFT_GRADIENT, kv_cols, "d k");
    int32_t dv = sft_pass_activation(pass, SFT_GRADIENT, kv_cols, "d v");
    struct sk_attention_backward args = {.shape = attention_shape(pass, l)};
    EMIT(pass, SK_ATTENTION_BACKWARD, args, AT(dq), AT(dk), AT(dv), AT(d_o), AT(l->o), AT(l->lse),
         AT(l->q), AT(l->k), AT(l->v), AT(pass->ports->documents));
    struct sk_qk_backward care = {.shape = qk_shape(pass, l)};
    if (has_aftercare(care.shape)) {
        bool norm = care.shape.norm; /* what only the norm's backward reads */
        EMIT(pass, SK_QK_BACKWARD, care, AT(dq), AT(dk), AT(norm ? l->q : -1), AT(norm ? l->k : -1),
             AT(l->q_rstd), AT(l->k_rstd), AT(pass->ports->positions), AT(pass->ports->inv_freq));
    }
    int32_t dn = sft_pass_activation(pass, SFT_GRADIENT, spec->hidden, "d input_norm");
    sft_linear_backward(pass, &l->wq, AT(dn), AT(dq), false);
    sft_linear_backward(pass, &l->wk, AT(dn), AT(dk), true);
    sft_linear_backward(pass, &l->wv, AT(dn), AT(dv), true);
    return dn;
}
