#include "train/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "libformat/base/mem.h"
#include "kernels/philox.h"

struct candidate {
    double weight; /* exp((logit - largest) / temperature) */
    float logit;
    int32_t id;
};

struct sft_sampler {
    struct sft_sampling sampling;
    int64_t vocabulary;
    struct candidate candidate[];
};

static int check(struct sft_sampling s, struct sf_err *err)
{
    if (!(s.temperature >= 0) || !isfinite(s.temperature))
        return sf_fail(err, SF_EINVAL, "a temperature of %g; 0 or more is needed", s.temperature);
    if (!(s.top_p > 0 && s.top_p <= 1))
        return sf_fail(err, SF_EINVAL, "a top-p of %g; above 0 and at most 1 is needed", s.top_p);
    if (s.top_k < 0)
        return sf_fail(err, SF_EINVAL, "a top-k of %lld; 0 (all) or more is needed",
                       (long long)s.top_k);
    return SF_OK;
}

int sft_sampler_open(struct sft_sampler **out, struct sft_sampling sampling, int64_t vocabulary,
                     struct sf_err *err)
{
    void *memory;
    *out = NULL;
    int code = check(sampling, err);
    if (!code)
        code = sf_alloc_for(
            &memory, sizeof(struct sft_sampler) + (uint64_t)vocabulary * sizeof(struct candidate),
            "a sampler", err);
    if (code)
        return code;
    *out = memory;
    (*out)->sampling = sampling;
    (*out)->vocabulary = vocabulary;
    return SF_OK;
}

void sft_sampler_close(struct sft_sampler *sampler)
{
    sf_free(sampler);
}

static int most_likely(int32_t *out, const float *logits, int64_t count, struct sf_err *err)
{
    int64_t best = 0;
    for (int64_t i = 0; i < count; i++) {
        if (isnan(logits[i]))
            return sf_fail(err, SF_ENUMERIC, "the logit of token %lld is no number", (long long)i);
        if (logits[i] > logits[best])
            best = i;
    }
    if (!isfinite(logits[best]))
        return sf_fail(err, SF_ENUMERIC, "the largest logit is %g", logits[best]);
    *out = (int32_t)best;
    return SF_OK;
}

static int more_likely(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* How many of the first `count` are kept, and what they weigh. */
static int64_t take_top_p(double *kept, const struct candidate *c, int64_t count, double top_p)
{
    double sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < count; i++)
        sum += c[i].weight;
    *kept = 0;
    while (n < count && (n == 0 || top_p >= 1 || *kept < top_p * sum))
        *kept += c[n++].weight;
    return n;
}

/* [0, 1), 53 bits. */
static double chance(uint64_t seed, int64_t number)
{
    uint32_t word[4];
    sk_philox(word, seed, 0x73616d706c65 /* "sample" */, (uint64_t)number);
    return (double)(((uint64_t)word[0] << 32 | word[1]) >> 11) * 0x1p-53;
}

int sft_sampler_choose(int32_t *out, struct sft_sampler *sampler, const float *logits,
                       int64_t number, struct sf_err *err)
{
    const struct sft_sampling *s = &sampler->sampling;
    struct candidate *c = sampler->candidate;
    int64_t count = sampler->vocabulary;
    int code = most_likely(out, logits, count, err);
    if (code || s->temperature == 0)
        return code;
    double largest = (double)logits[*out], kept;
    for (int64_t i = 0; i < count; i++)
        c[i] = (struct candidate){exp(((double)logits[i] - largest) / s->temperature), logits[i],
                                  (int32_t)i};
    qsort(c, (size_t)count, sizeof *c, more_likely);
    if (s->top_k && s->top_k < count)
        count = s->top_k;
    count = take_top_p(&kept, c, count, s->top_p);
    double left = chance(s->seed, number) * kept;
    int64_t chosen = 0;
    while (chosen + 1 < count && left >= c[chosen].weight)
        left -= c[chosen++].weight;
    *out = c[chosen].id;
    return SF_OK;
}
