/* embed.h -- rows of the embedding table. Frozen: there is no backward.
 *
 * Table and ids are in host memory for every back end: a table of gigabytes is read a few rows at a
 * time. A device gets its rows through `staging`. An id outside the table is SF_EINVAL. */
#ifndef SCOUT_KERNELS_EMBED_H
#define SCOUT_KERNELS_EMBED_H

#include "kernels/activation.h"
#include "kernels/matrix.h"

struct sk_embed_forward {
    sk_act *y;                     /* [rows, table->cols] */
    sk_act *staging;               /* [rows, hidden] host memory; NULL on the CPU */
    const int32_t *ids;            /* [rows] in host memory, checked: 0 <= id < table->rows */
    const struct sk_matrix *table; /* [vocabulary, hidden] */
    int64_t rows, hidden;
};

#endif
