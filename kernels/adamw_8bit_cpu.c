#include "kernels/adamw_8bit.h"

#include <math.h>

#include "kernels/adamw_maps.h"
#include "kernels/cpu_table.h"
#include "kernels/matrix_cpu.h"

static const float m_map[256] = {SK_ADAMW_M_MAP}, v_map[256] = {SK_ADAMW_V_MAP};

struct factors {
    float clip, beta1, rest1, beta2, rest2, step_size, epsilon, decay;
    float m_middle[255], v_middle[255]; /* between neighbours of the maps */
};

static void make_factors(struct factors *f, const struct sk_adamw_8bit *a)
{
    double lr = a->hyper->learning_rate, t = (double)a->hyper->step;
    double root = sqrt(1 - pow(a->beta2, t));
    f->clip = *a->clip;
    f->beta1 = (float)a->beta1;
    f->rest1 = (float)(1 - a->beta1);
    f->beta2 = (float)a->beta2;
    f->rest2 = (float)(1 - a->beta2);
    f->step_size = (float)(lr * root / (1 - pow(a->beta1, t)));
    f->epsilon = (float)(root * a->epsilon);
    f->decay = (float)(1 - lr * a->weight_decay);
    for (int i = 0; i < 255; i++) {
        f->m_middle[i] = (m_map[i] + m_map[i + 1]) * 0.5f;
        f->v_middle[i] = (v_map[i] + v_map[i + 1]) * 0.5f;
    }
}

/* The number of middles below x; one more on an odd middle. 0 for what is no number. */
static int nearest(float x, const float middle[255])
{
    int code = 0;
    for (int step = 128; step; step /= 2)
        if (middle[code + step - 1] < x)
            code += step;
    return code + (code % 2 && code < 255 && middle[code] == x);
}

static uint8_t store_m(float m, float scale, const struct factors *f)
{
    int code = nearest(m / scale, f->m_middle);
    if (!signbit(m_map[code]) != !signbit(m))
        code += m > 0 ? 1 : -1;
    return (uint8_t)code;
}

struct moments {
    float m, v;
};

static struct moments take_gradient(float m, float v, float g, const struct factors *f)
{
    if (!isfinite(g))
        return (struct moments){0, 0};
    return (struct moments){m * f->beta1 + f->rest1 * g, v * f->beta2 + f->rest2 * g * g};
}

static void step_block(const struct sk_adamw_8bit *a, const struct factors *f, int64_t block)
{
    int64_t first = block * SK_ADAMW_BLOCK, n = sk_min(a->count - first, SK_ADAMW_BLOCK);
    float *p = a->parameter + first, m_scale = 0, v_scale = 0;
    uint8_t *m = a->m + first, *v = a->v + first;
    struct moments now[SK_ADAMW_BLOCK];
    for (int64_t i = 0; i < n; i++) {
        float g = a->grad[first + i] * f->clip;
        now[i] =
            take_gradient(m_map[m[i]] * a->m_scale[block], v_map[v[i]] * a->v_scale[block], g, f);
        m_scale = fmaxf(m_scale, fabsf(now[i].m));
        v_scale = fmaxf(v_scale, fabsf(now[i].v));
        if (isfinite(g))
            p[i] = (p[i] - f->step_size * (now[i].m / (sqrtf(now[i].v) + f->epsilon))) * f->decay;
    }
    for (int64_t i = 0; i < n; i++) {
        m[i] = store_m(now[i].m, m_scale, f);
        v[i] = (uint8_t)nearest(now[i].v / v_scale, f->v_middle);
    }
    a->m_scale[block] = m_scale;
    a->v_scale[block] = v_scale;
}

int sk_adamw_8bit_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_adamw_8bit *a = args;
    struct factors f;
    (void)err;
    make_factors(&f, a);
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t b = 0; b < sk_adamw_blocks(a->count); b++)
        step_block(a, &f, b);
    return SF_OK;
}
