/* diff.h -- two models, weight by weight: which are there, stored how, and by how much they differ.
 *
 * Each side is a container or a Hugging Face folder (weight_list). Weights whose stored bytes agree
 * are not decoded; the rest are read as float32. Sums have a fixed order: threads cannot show. */
#ifndef SCOUT_LIBFORMAT_CONVERT_DIFF_H
#define SCOUT_LIBFORMAT_CONVERT_DIFF_H

#include "libformat/convert/weight_list.h"

enum sf_diff_state {
    SF_DIFF_SAME,   /* the same bytes, or at least the same numbers */
    SF_DIFF_VALUES, /* numbers differ */
    SF_DIFF_SHAPE,  /* shapes differ: not compared further */
    SF_DIFF_OPAQUE, /* other bytes, but no floats: not compared further */
    SF_DIFF_ONLY_A,
    SF_DIFF_ONLY_B,
    SF_DIFF_STATES
};
const char *sf_diff_state_name(enum sf_diff_state state); /* "same", "values", "only in A", ... */

struct sf_diff_row {
    const struct sf_weight *a, *b; /* NULL: it has none */
    enum sf_diff_state state;
    int64_t elements, changed;      /* numbers, and those that differ */
    int64_t codes_changed;          /* 4-bit codes that differ; -1: not both quantized alike */
    int64_t scales, scales_changed; /* stored scales; -1 likewise */
    double relative_rms;            /* norm(B - A) / norm(A); 0 / 0 counts as 0 */
    double largest;                 /* |b - a|, and where */
    int64_t largest_at;
};

struct sf_diff {
    struct sf_arena arena;
    int64_t rows;
    struct sf_diff_row *row; /* in the order of lists */
    int64_t of_state[SF_DIFF_STATES];
};

struct sf_diff_options {
    int threads;
    /* From the calling thread: elements done of all; may be NULL. */
    void (*on_progress)(void *context, uint64_t done, uint64_t total);
    void *context;
};

int sf_diff_run(struct sf_diff *out, const struct sf_weight_list *a, const struct sf_weight_list *b,
                const struct sf_diff_options *options, struct sf_err *err);
void sf_diff_free(struct sf_diff *diff);

#endif
