/* attention.h -- causal grouped-query attention over documents, full or inside chunks.
 *
 * Rows documents[d] .. documents[d+1] form document d; query i of a document sees key j of the same
 * document iff j <= i and, with chunk > 0, i / chunk == j / chunk (indices in the document). Query
 * head h reads kv head h / (heads / kv_heads).
 *     s = scale * q k^T,  p = softmax(s),  o = p v,  lse = log sum exp s
 *     dv = p^T do,  ds = p * (do v^T - rowsum(do * o)),  dq = scale * ds k,  dk = scale * ds^T q
 * Scores are never held beyond a tile. Documents that do not cover 0 .. rows in order, or one
 * longer than `longest`, are SF_EINVAL. CUDA rounds p and ds to bfloat16 before they are multiplied;
 * heads of 8, 16, .. 128 elements go through tensor cores, others up to 256 through slow loops,
 * longer ones are SF_EUNSUPPORTED. */
#ifndef SCOUT_KERNELS_ATTENTION_H
#define SCOUT_KERNELS_ATTENTION_H

#include "kernels/activation.h"

struct sk_attention_shape {
    int64_t rows, documents, heads, kv_heads, head_size;
    int64_t longest; /* rows of the longest document: bounds the workspace */
    int64_t chunk;   /* 0: full causal */
    float scale;     /* head_size^(-1/2) */
};

struct sk_attention_forward {
    sk_act *o;                /* [rows, heads, head_size] */
    float *lse;               /* [rows, heads] */
    const sk_act *q;          /* [rows, heads, head_size] */
    const sk_act *k, *v;      /* [rows, kv_heads, head_size] */
    const int32_t *documents; /* [documents + 1], row numbers */
    void *workspace;
    struct sk_attention_shape shape;
};

struct sk_attention_backward {
    sk_act *dq, *dk, *dv;
    const sk_act *d_o; /* [rows, heads, head_size] */
    const sk_act *o;
    const float *lse;
    const sk_act *q, *k, *v;
    const int32_t *documents;
    void *workspace;
    struct sk_attention_shape shape;
};

#endif
