/* embed.h -- rows of the embedding table. Frozen: there is no backward. */
#ifndef SCOUT_KERNELS_EMBED_H
#define SCOUT_KERNELS_EMBED_H

#include "kernels/matrix.h"

struct sk_embed_forward {
    float *y;                      /* [rows, table->cols] */
    const int32_t *ids;            /* [rows], each checked: 0 <= id < table->rows, else SF_EINVAL */
    const struct sk_matrix *table; /* [vocabulary, hidden] */
    int64_t rows, hidden;
};

#endif
