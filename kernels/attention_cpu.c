#include "kernels/attention.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/cpu_table.h"
#include "kernels/gemm_cpu.h"
#include "kernels/matrix_cpu.h"

enum { TILE = 64 }; /* query rows of one tile */

/* A segment is a run of rows that attend only to each other: a chunk of a document, or all of it.
 */
struct segment {
    int64_t first, count;
};

static int64_t segment_rows(const struct sk_attention_shape *s)
{
    return s->chunk > 0 ? sk_min(s->chunk, s->longest) : s->longest;
}

static int64_t document_segments(const struct sk_attention_shape *s, int64_t rows)
{
    return s->chunk > 0 ? sk_tiles(rows, s->chunk) : rows > 0;
}

static int64_t count_segments(const struct sk_attention_shape *s, const int32_t *documents)
{
    int64_t n = 0;
    for (int64_t d = 0; d < s->documents; d++)
        n += document_segments(s, documents[d + 1] - documents[d]);
    return n;
}

static struct segment find_segment(const struct sk_attention_shape *s, const int32_t *documents,
                                   int64_t index)
{
    for (int64_t d = 0; d < s->documents; d++) {
        int64_t rows = documents[d + 1] - documents[d], n = document_segments(s, rows);
        if (index >= n) {
            index -= n;
            continue;
        }
        int64_t length = s->chunk > 0 ? s->chunk : rows, start = index * length;
        return (struct segment){documents[d] + start, sk_min(rows - start, length)};
    }
    return (struct segment){0, 0};
}

/* Workspaces are sized by `longest`, so what the documents say is checked before it is believed. */
static int check_documents(const struct sk_attention_shape *s, const int32_t *documents,
                           struct sf_err *err)
{
    for (int64_t d = 0; d < s->documents; d++) {
        int64_t rows = (int64_t)documents[d + 1] - documents[d];
        if (rows < 0 || rows > s->longest)
            return sf_fail(err, SF_EINVAL, "document %lld has %lld rows, the longest has %lld",
                           (long long)d, (long long)rows, (long long)s->longest);
    }
    if (documents[0] != 0 || documents[s->documents] != s->rows)
        return sf_fail(err, SF_EINVAL, "documents cover rows %d to %d of %lld", documents[0],
                       documents[s->documents], (long long)s->rows);
    return SF_OK;
}

/* Row strides: one token further. */
static int64_t q_stride(const struct sk_attention_shape *s)
{
    return s->heads * s->head_size;
}

static int64_t kv_stride(const struct sk_attention_shape *s)
{
    return s->kv_heads * s->head_size;
}

/* ---- forward ---- */

uint64_t sk_attention_forward_measure_cpu(const void *args, int threads)
{
    const struct sk_attention_forward *a = args;
    return (uint64_t)threads * sk_scratch_bytes(TILE * segment_rows(&a->shape));
}

/* Row i of a tile sees keys 0 .. visible-1; the rest becomes 0. Returns log sum exp. */
static float softmax_row(float *p, int64_t visible, int64_t keys)
{
    float largest = p[0];
    for (int64_t j = 1; j < visible; j++)
        largest = p[j] > largest ? p[j] : largest;
    double sum = 0;
    for (int64_t j = 0; j < visible; j++) {
        p[j] = expf(p[j] - largest);
        sum += (double)p[j];
    }
    float inverse = (float)(1 / sum);
    for (int64_t j = 0; j < visible; j++)
        p[j] *= inverse;
    memset(p + visible, 0, (size_t)(keys - visible) * sizeof *p);
    return (float)((double)largest + log(sum));
}

static void forward_tile(const struct sk_attention_forward *a, struct segment seg, int64_t head,
                         int64_t start, float *scores)
{
    const struct sk_attention_shape *s = &a->shape;
    int64_t n = sk_min(seg.count - start, TILE), keys = start + n, d = s->head_size;
    int64_t kv_head = head / (s->heads / s->kv_heads), row = seg.first + start;
    const float *q = a->q + row * q_stride(s) + head * d;
    const float *k = a->k + seg.first * kv_stride(s) + kv_head * d;
    const float *v = a->v + seg.first * kv_stride(s) + kv_head * d;
    float *o = a->o + row * q_stride(s) + head * d;
    sk_gemm_nt(scores, keys, q, q_stride(s), k, kv_stride(s), n, keys, d, s->scale, 0);
    for (int64_t i = 0; i < n; i++)
        a->lse[(row + i) * s->heads + head] = softmax_row(scores + i * keys, start + i + 1, keys);
    sk_gemm_nn(o, q_stride(s), scores, keys, v, kv_stride(s), n, d, keys, 1, 0);
}

int sk_attention_forward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_attention_forward *a = args;
    const struct sk_attention_shape *s = &a->shape;
    int code = check_documents(s, a->documents, err);
    if (code != SF_OK)
        return code;
    uint64_t scratch = sk_scratch_bytes(TILE * segment_rows(s));
    int64_t tasks = count_segments(s, a->documents) * s->heads;
#pragma omp parallel for num_threads(ctx->threads) schedule(dynamic)
    for (int64_t i = 0; i < tasks; i++) {
        float *scores = (float *)((char *)a->workspace + (uint64_t)omp_get_thread_num() * scratch);
        struct segment seg = find_segment(s, a->documents, i / s->heads);
        for (int64_t start = 0; start < seg.count; start += TILE)
            forward_tile(a, seg, i % s->heads, start, scores);
    }
    return SF_OK;
}

/* ---- backward ---- */

uint64_t sk_attention_backward_measure_cpu(const void *args, int threads)
{
    const struct sk_attention_backward *a = args;
    return (uint64_t)threads * 2 * sk_scratch_bytes(TILE * segment_rows(&a->shape));
}

/* p = exp(s - lse) and ds = p * (dp - <do, o>), in place over scores and dp. */
static void softmax_backward_row(float *p, float *dp, float lse, float dot, int64_t visible,
                                 int64_t keys)
{
    for (int64_t j = 0; j < visible; j++) {
        p[j] = expf(p[j] - lse);
        dp[j] = p[j] * (dp[j] - dot);
    }
    memset(p + visible, 0, (size_t)(keys - visible) * sizeof *p);
    memset(dp + visible, 0, (size_t)(keys - visible) * sizeof *dp);
}

static float dot_product(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return (float)sum;
}

static void backward_tile(const struct sk_attention_backward *a, struct segment seg, int64_t head,
                          int64_t start, float *p, float *dp)
{
    const struct sk_attention_shape *s = &a->shape;
    int64_t n = sk_min(seg.count - start, TILE), keys = start + n, d = s->head_size;
    int64_t row = seg.first + start, q_at = row * q_stride(s) + head * d;
    int64_t kv_at = seg.first * kv_stride(s) + head / (s->heads / s->kv_heads) * d;
    int64_t qs = q_stride(s), ks = kv_stride(s);
    sk_gemm_nt(p, keys, a->q + q_at, qs, a->k + kv_at, ks, n, keys, d, s->scale, 0);
    sk_gemm_nt(dp, keys, a->d_o + q_at, qs, a->v + kv_at, ks, n, keys, d, 1, 0);
    for (int64_t i = 0; i < n; i++)
        softmax_backward_row(p + i * keys, dp + i * keys, a->lse[(row + i) * s->heads + head],
                             dot_product(a->d_o + q_at + i * qs, a->o + q_at + i * qs, d),
                             start + i + 1, keys);
    sk_gemm_nn(a->dq + q_at, qs, dp, keys, a->k + kv_at, ks, n, d, keys, s->scale, 0);
    sk_gemm_tn(a->dk + kv_at, ks, dp, keys, a->q + q_at, qs, keys, d, n, s->scale, 1);
    sk_gemm_tn(a->dv + kv_at, ks, p, keys, a->d_o + q_at, qs, keys, d, n, 1, 1);
}

/* One task owns the dk and dv of a segment and kv head: its query heads add to them in order. */
static void backward_segment(const struct sk_attention_backward *a, struct segment seg,
                             int64_t kv_head, float *p, float *dp)
{
    const struct sk_attention_shape *s = &a->shape;
    int64_t group = s->heads / s->kv_heads, ks = kv_stride(s);
    for (int64_t r = seg.first; r < seg.first + seg.count; r++) {
        memset(a->dk + r * ks + kv_head * s->head_size, 0, (size_t)s->head_size * sizeof(float));
        memset(a->dv + r * ks + kv_head * s->head_size, 0, (size_t)s->head_size * sizeof(float));
    }
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
        for (int64_t start = 0; start < seg.count; start += TILE)
            backward_tile(a, seg, head, start, p, dp);
}

int sk_attention_backward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_attention_backward *a = args;
    const struct sk_attention_shape *s = &a->shape;
    int code = check_documents(s, a->documents, err);
    if (code != SF_OK)
        return code;
    uint64_t scratch = sk_scratch_bytes(TILE * segment_rows(s));
    int64_t tasks = count_segments(s, a->documents) * s->kv_heads;
#pragma omp parallel for num_threads(ctx->threads) schedule(dynamic)
    for (int64_t i = 0; i < tasks; i++) {
        char *mine = (char *)a->workspace + (uint64_t)omp_get_thread_num() * 2 * scratch;
        backward_segment(a, find_segment(s, a->documents, i / s->kv_heads), i % s->kv_heads,
                         (float *)mine, (float *)(mine + scratch));
    }
    return SF_OK;
}
