#include "kernels/matrix_cpu.h"

#include <string.h>

#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"

enum { SPAN_BLOCKS = 64, SPAN = SPAN_BLOCKS * SF_NF4_BLOCK };

static void decode_blocks(float *out, const struct sk_matrix *m, int64_t first, int64_t count)
{
    float restored[SPAN_BLOCKS];
    for (int64_t done = 0; done < count; done += SPAN) {
        int64_t n = sk_min(count - done, SPAN), block = (first + done) / SF_NF4_BLOCK;
        const float *absmax = restored;
        if (m->format == SK_FORMAT_NF4)
            absmax = (const float *)m->scale + block;
        else
            sf_nf4_unnest(restored, m->scale, m->scale2, m->map, m->offset, block,
                          sf_nf4_blocks(n));
        sf_nf4_decode(out + done, m->data, absmax, m->codebook, first + done, n);
    }
}

/* A range that starts inside a block: that block is decoded aside, and its tail copied. */
static void read_nf4(float *out, const struct sk_matrix *m, int64_t first, int64_t count)
{
    int64_t skip = first % SF_NF4_BLOCK;
    if (skip != 0) {
        float block[SF_NF4_BLOCK];
        int64_t n = sk_min(count, SF_NF4_BLOCK - skip);
        decode_blocks(block, m, first - skip, skip + n);
        memcpy(out, block + skip, (size_t)n * sizeof *out);
        out += n;
        first += n;
        count -= n;
    }
    if (count > 0)
        decode_blocks(out, m, first, count);
}

void sk_matrix_read(float *out, const struct sk_matrix *matrix, int64_t first, int64_t count)
{
    switch (matrix->format) {
    case SK_FORMAT_F32:
        memcpy(out, (const float *)matrix->data + first, (size_t)count * sizeof *out);
        break;
    case SK_FORMAT_BF16: {
        const uint16_t *src = (const uint16_t *)matrix->data + first;
        for (int64_t i = 0; i < count; i++)
            out[i] = sf_f32_from_bf16(src[i]);
        break;
    }
    case SK_FORMAT_F16: {
        const uint16_t *src = (const uint16_t *)matrix->data + first;
        for (int64_t i = 0; i < count; i++)
            out[i] = sf_f32_from_f16(src[i]);
        break;
    }
    case SK_FORMAT_NF4:
    case SK_FORMAT_NF4_NESTED:
        read_nf4(out, matrix, first, count);
        break;
    }
}
