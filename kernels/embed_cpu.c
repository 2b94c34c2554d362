#include "kernels/embed.h"

#include "kernels/cpu_table.h"
#include "kernels/matrix_cpu.h"

int sk_embed_forward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_embed_forward *a = args;
    for (int64_t r = 0; r < a->rows; r++)
        if (a->ids[r] < 0 || a->ids[r] >= a->table->rows)
            return sf_fail(err, SF_EINVAL,
                           "token %d at position %lld is outside the vocabulary of %lld", a->ids[r],
                           (long long)r, (long long)a->table->rows);
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < a->rows; r++)
        sk_matrix_read(a->y + r * a->hidden, a->table, a->ids[r] * a->hidden, a->hidden);
    return SF_OK;
}
