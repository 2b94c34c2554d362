/* Wrong variants of the model that somebody could write, and the comparison that sees each.
 *
 * A mutant replaces a row of the op table (or the labels, or the experts' order); the parity
 * suite's comparison must then be off by 100 times its bar in the groups named here, and still meet
 * the bar in those where the mistake cannot show: a detached router leaves every loss as it was.
 * In bfloat16 those that need no arithmetic of their own are tried again.
 * Mutants of the update (no clipping, no weight decay, another epsilon or beta) are in test_step.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/attention.h"
#include "kernels/head_loss.h"
#include "kernels/qk.h"
#include "kernels/route.h"
#include "libformat/base/mem.h"
#include "tests/support/support.h"
#include "tests/train/parity.h"
#include "tests/train/where.h"

/* Far outside: 100 times the float32 bar, in every group named. In bfloat16, whose bars are those of
 * test_parity, outside in one of them. */
static const double bar[PARITY_GROUPS] = {[PARITY_HIDDEN] = WHERE(1e-5, 3e-2),
                                          [PARITY_ROUTER] = WHERE(1e-5, 3e-2),
                                          [PARITY_LOGITS] = WHERE(1e-5, 3e-2),
                                          [PARITY_LOSS] = WHERE(1e-5, 1e-2),
                                          [PARITY_GRAD] = WHERE(1e-5, 3e-2)};
static const double margin = WHERE(100, 1);

static const struct sk_ops *right; /* the table that mutants change */

/* ---- wrong rows ---- */

/* Memory where ops work, for the length of one op. */
static void *borrow(struct sk_ctx *ctx, const void *bytes, uint64_t size)
{
    struct sf_err err = {0};
    void *memory;
    assert_ok(right->memory->allocate(&memory, ctx, SK_PLACE_OPS, size, "a mutant", &err), err);
    if (bytes)
        assert_ok(right->memory->write(ctx, memory, bytes, size, &err), err);
    return memory;
}

static void give_back(struct sk_ctx *ctx, void *memory)
{
    right->memory->release(ctx, SK_PLACE_OPS, memory);
}

/* dx += s * du alone, as if the score were a constant: a router of zeros passes nothing on. */
static int detached_route_backward(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    struct sk_route_backward a = *(const struct sk_route_backward *)args;
    uint64_t bytes = (uint64_t)a.experts * (uint64_t)a.hidden * sizeof(float);
    void *nothing = sf_alloc(bytes), *there = borrow(ctx, nothing, bytes);
    struct sk_matrix router = {
        .format = SK_FORMAT_F32, .rows = a.experts, .cols = a.hidden, .data = there};
    a.router = &router;
    int code = right->run[SK_ROUTE_BACKWARD](ctx, &a, err);
    give_back(ctx, there);
    sf_free(nothing);
    return code;
}

#ifndef SCOUT_TEST_CUDA /* these touch activations themselves */

static const float *last_score; /* of the route op that ran last */

static int unscaled_route_forward(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_route_forward *a = args;
    int code = right->run[SK_ROUTE_FORWARD](ctx, args, err);
    for (int64_t row = 0; row < a->rows; row++)
        memcpy(a->u + a->slot[row] * a->hidden, a->x + row * a->hidden,
               (size_t)a->hidden * sizeof *a->u);
    last_score = a->score;
    return code;
}

static int scaled_combine_forward(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_combine_forward *a = args;
    (void)ctx, (void)err;
    for (int64_t row = 0; row < a->rows; row++)
        for (int64_t c = 0; c < a->hidden; c++)
            a->y[row * a->hidden + c] = a->shared[row * a->hidden + c] +
                                        last_score[row] * a->routed[a->slot[row] * a->hidden + c];
    return SF_OK;
}

/* Pairs (j, j + half) instead of (2j, 2j + 1). */
static void rotate_half(float *v, int64_t heads, const struct sk_qk_forward *a, int64_t row)
{
    int64_t size = a->shape.head_size, half = size / 2;
    for (int64_t h = 0; h < heads; h++) {
        float *x = v + (row * heads + h) * size;
        for (int64_t j = 0; j < half; j++) {
            float angle = (float)a->positions[row] * a->inv_freq[j];
            float first = x[j], second = x[j + half];
            x[j] = first * cosf(angle) - second * sinf(angle);
            x[j + half] = first * sinf(angle) + second * cosf(angle);
        }
    }
}

static int half_qk_forward(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    struct sk_qk_forward a = *(const struct sk_qk_forward *)args;
    for (int64_t row = 0; a.shape.rope && row < a.shape.rows; row++) {
        rotate_half(a.q, a.shape.heads, &a, row);
        rotate_half(a.k, a.shape.kv_heads, &a, row);
    }
    a.shape.rope = false;
    return right->run[SK_QK_FORWARD](ctx, &a, err);
}

#endif

/* The same op with one thing of its shape changed. */
static int no_norm_qk_forward(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    struct sk_qk_forward a = *(const struct sk_qk_forward *)args;
    a.shape.norm = false;
    return right->run[SK_QK_FORWARD](ctx, &a, err);
}

static int no_temperature_qk_forward(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    struct sk_qk_forward a = *(const struct sk_qk_forward *)args;
    a.shape.temperature = false;
    return right->run[SK_QK_FORWARD](ctx, &a, err);
}

static int untuned_qk_backward(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    struct sk_qk_backward a = *(const struct sk_qk_backward *)args;
    a.shape.temperature = false;
    return right->run[SK_QK_BACKWARD](ctx, &a, err);
}

static int unchunked_attention(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    struct sk_attention_forward a = *(const struct sk_attention_forward *)args;
    a.shape.chunk = 0;
    return right->run[SK_ATTENTION_FORWARD](ctx, &a, err);
}

static int joined_attention(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    struct sk_attention_forward a = *(const struct sk_attention_forward *)args;
    int32_t one[] = {0, (int32_t)a.shape.rows};
    void *documents = borrow(ctx, one, sizeof one);
    a.documents = documents;
    a.shape.documents = 1;
    a.shape.longest = a.shape.rows;
    void *workspace = borrow(ctx, NULL, right->measure[SK_ATTENTION_FORWARD](&a, ctx->threads));
    a.workspace = workspace;
    int code = right->run[SK_ATTENTION_FORWARD](ctx, &a, err);
    give_back(ctx, workspace);
    give_back(ctx, documents);
    return code;
}

/* ---- the list ---- */

enum {
    HIDDEN = 1 << PARITY_HIDDEN,
    ROUTER = 1 << PARITY_ROUTER,
    LOGITS = 1 << PARITY_LOGITS,
    LOSS = 1 << PARITY_LOSS,
    GRAD = 1 << PARITY_GRAD
};
enum { UNSHIFTED = 1, SWAPPED = 2 };

static const struct mutant {
    const char *name;
    int seen, unseen; /* groups far outside the bar, groups still inside */
    int special;      /* what is not a row of the table */
    struct {
        enum sk_op op;
        int (*run)(struct sk_ctx *ctx, const void *args, struct sf_err *err);
    } row[2];
} mutants[] = {
    {"router gradient detached",
     GRAD,
     HIDDEN | ROUTER | LOGITS | LOSS,
     0,
     {{SK_ROUTE_BACKWARD, detached_route_backward}}},
#ifndef SCOUT_TEST_CUDA
    {"expert output scaled instead of input",
     HIDDEN | LOGITS | GRAD,
     0,
     0,
     {{SK_ROUTE_FORWARD, unscaled_route_forward}, {SK_COMBINE_FORWARD, scaled_combine_forward}}},
    {"rotate-half RoPE", HIDDEN | LOGITS | GRAD, 0, 0, {{SK_QK_FORWARD, half_qk_forward}}},
#endif
    {"no QK norm", HIDDEN | LOGITS | GRAD, 0, 0, {{SK_QK_FORWARD, no_norm_qk_forward}}},
    {"no temperature on NoPE layers",
     HIDDEN | LOGITS | GRAD,
     0,
     0,
     {{SK_QK_FORWARD, no_temperature_qk_forward}}},
    {"temperature missing in the backward",
     GRAD,
     HIDDEN | ROUTER | LOGITS | LOSS,
     0,
     {{SK_QK_BACKWARD, untuned_qk_backward}}},
    {"RoPE layers not chunked",
     HIDDEN | LOGITS | GRAD,
     0,
     0,
     {{SK_ATTENTION_FORWARD, unchunked_attention}}},
    {"attention across sequences",
     HIDDEN | LOGITS | GRAD,
     0,
     0,
     {{SK_ATTENTION_FORWARD, joined_attention}}},
    {"labels not shifted", LOSS | GRAD, HIDDEN | ROUTER | LOGITS, UNSHIFTED, {{0}}},
    {"experts swapped", HIDDEN | LOGITS | GRAD, 0, SWAPPED, {{0}}},
};
enum { MUTANTS = sizeof mutants / sizeof mutants[0] };

/* The probe shifts labels; moved one place ahead they come out as they stand. */
static const int32_t *unshifted(struct parity *p)
{
    const struct sf_tensor *t = sf_safetensors_find(p->base, "labels");
    int64_t count = t->shape.dim[0] * t->shape.dim[1];
    const int32_t *labels = t->data;
    int32_t *moved = sf_arena_array(&p->arena, (uint64_t)count + 1, sizeof *moved);
    ck_assert_ptr_nonnull(moved);
    for (int64_t i = 0; i < count; i++)
        moved[i] = i > 0 ? labels[i - 1] : SK_IGNORE_INDEX;
    return moved;
}

static void compare_mutant(struct parity_result *result, const struct mutant *m)
{
    struct parity p = {.swap_experts = m->special == SWAPPED, .where = where};
    struct sft_probe probe;
    parity_open(&p, "scout", "lora_linear", 2);
    right = sft_backend_ops(p.backend);
    struct sk_ops ops = *right;
    for (int i = 0; i < 2; i++)
        if (m->row[i].run)
            ops.run[m->row[i].op] = m->row[i].run;
    parity_run(&probe, &p, &ops, m->special == UNSHIFTED ? unshifted(&p) : NULL);
    parity_compare(result, &p, &probe);
    parity_print(m->name, result);
    parity_close(&p);
    for (int g = 0; g < PARITY_GROUPS; g++)
        result->name[g] = NULL; /* borrowed from what is closed now */
}

START_TEST(mutant_is_seen)
{
    const struct mutant *m = &mutants[_i];
    struct parity_result result;
    int outside = 0;
    compare_mutant(&result, m);
    for (int g = 0; g < PARITY_GROUPS; g++) {
        bool seen = m->seen >> g & 1 && !(result.worst[g] <= margin * bar[g]);
        outside += seen;
        if (where == SFT_DEVICE_CPU && m->seen >> g & 1)
            ck_assert_msg(seen, "%s: %s is off by only %.3g", m->name, parity_group_name[g],
                          result.worst[g]);
        if (m->unseen >> g & 1)
            ck_assert_msg(result.worst[g] <= bar[g], "%s: %s is off by %.3g", m->name,
                          parity_group_name[g], result.worst[g]);
    }
    ck_assert_msg(outside > 0, "%s is not seen", m->name);
}
END_TEST

static Suite *mutants_suite(void)
{
    Suite *suite = suite_create("mutants");
    TCase *tc = tcase_create("mutants");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, mutant_is_seen, 0, MUTANTS);
    suite_add_tcase(suite, tc);
    return suite;
}

WHERE_MAIN(mutants_suite)
