/* attention_cached.h -- attention of new tokens of one document over the keys and values kept of it.
 *
 * Row i stands at position positions[0] + i of the document; its key and value are first copied to
 * that row of the caches, then query i sees every key at positions 0 .. its own or, with chunk > 0,
 * those of its own chunk (attention.h). Rows at `room` or beyond keep nothing and get o = 0: what a
 * batch is filled up with may hang over the end. For generating: there is no backward. */
#ifndef SCOUT_KERNELS_ATTENTION_CACHED_H
#define SCOUT_KERNELS_ATTENTION_CACHED_H

#include "kernels/activation.h"

struct sk_attention_cached {
    sk_act *o;                /* [rows, heads, head_size] */
    sk_act *k_cache;          /* [room, kv_heads, head_size], read and added to */
    sk_act *v_cache;          /* the same */
    const sk_act *q;          /* [rows, heads, head_size] */
    const sk_act *k, *v;      /* [rows, kv_heads, head_size] */
    const int32_t *positions; /* [rows], each one more than the one before */
    int64_t rows, room, heads, kv_heads, head_size;
    int64_t chunk; /* 0: full causal */
    float scale;   /* head_size^(-1/2) */
};

#endif
