#include "kernels/embed.h"

#include <string.h>

#include "kernels/cuda_call.h"
#include "kernels/cuda_private.h"
#include "kernels/cuda_table.h"
#include "kernels/matrix_cpu.h"
#include "libformat/codec/halves.h"

enum { SPAN = 1024 }; /* elements of a row that are expanded at once */

static void read_row(uint16_t *out, const struct sk_matrix *table, int64_t first, int64_t count)
{
    float wide[SPAN];
    if (table->format == SK_FORMAT_BF16) {
        memcpy(out, (const uint16_t *)table->data + first, (size_t)count * sizeof *out);
        return;
    }
    for (int64_t done = 0; done < count; done += SPAN) {
        int64_t n = sk_min(count - done, SPAN);
        sk_matrix_read(wide, table, first + done, n);
        for (int64_t i = 0; i < n; i++)
            out[done + i] = sf_bf16_from_f32(wide[i]);
    }
}

/* The copy out of `staging` runs behind the caller: the next call waits until it is done. */
int sk_embed_forward_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_embed_forward *a = args;
    struct sk_cuda *cuda = ctx->cuda;
    uint16_t *staging = (uint16_t *)a->staging;
    for (int64_t r = 0; r < a->rows; r++)
        if (a->ids[r] < 0 || a->ids[r] >= a->table->rows)
            return sf_fail(err, SF_EINVAL,
                           "token %d at position %lld is outside the vocabulary of %lld", a->ids[r],
                           (long long)r, (long long)a->table->rows);
    SK_CUDA(cudaEventSynchronize(cuda->staged), err);
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < a->rows; r++)
        read_row(staging + r * a->hidden, a->table, a->ids[r] * a->hidden, a->hidden);
    SK_CUDA(cudaMemcpyAsync(a->y, staging, (size_t)(a->rows * a->hidden) * sizeof *staging,
                            cudaMemcpyHostToDevice, cuda->stream),
            err);
    SK_CUDA(cudaEventRecord(cuda->staged, cuda->stream), err);
    return SF_OK;
}
