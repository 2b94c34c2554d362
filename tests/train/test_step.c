#include "train/step.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/head_loss.h"
#include "libformat/base/mem.h"
#include "tests/support/support.h"
#include "tests/train/tiny.h"

static struct tiny t;

static void setup(void)
{
    tiny_open_all(&t, 2);
}

static void teardown(void)
{
    tiny_close(&t);
}

static const struct sft_step_config defaults = {
    .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.01, .max_grad_norm = 1};

static struct sft_step *open_with(const struct sft_program *program, int64_t programs,
                                  struct sft_policy policy, const struct sft_image *image)
{
    struct sf_err err = {0};
    struct sft_step *step;
    struct sft_step_config config = defaults;
    config.spec = &t.spec;
    config.lora = &t.lora;
    config.ops = sk_ops_cpu();
    config.ctx = &t.ctx;
    config.policy = policy;
    config.program = program;
    config.programs = programs;
    assert_ok(sft_step_open(&step, &config, &err), err);
    assert_ok(sft_step_allocate(step, image, &err), err);
    return step;
}

static struct sft_step *open_step_for(const struct sft_program *program, int64_t programs,
                                      enum sft_recompute recompute)
{
    return open_with(program, programs, sft_policy_of(recompute, t.spec.layers), t.image);
}

static const int64_t two_documents[] = {14, 10};

static void gradients_of(float *out, struct sft_loss *loss, struct sft_step *step,
                         const struct sft_batch *batch, int64_t count)
{
    struct sf_err err = {0};
    assert_ok(sft_step_zero_gradients(step, &err), err);
    assert_ok(sft_step_forward_backward(loss, step, batch, count, &err), err);
    memcpy(out, sft_lora_state(&t.lora, SFT_LORA_GRADIENTS), (size_t)t.lora.count * sizeof *out);
}

static float *flat_copy(const float *from)
{
    float *copy = sf_arena_array(&t.arena, (uint64_t)t.lora.count, sizeof *copy);
    if (from)
        memcpy(copy, from, (size_t)t.lora.count * sizeof *copy);
    return copy;
}

/* Every mixture on the way from keeping all to keeping nothing. */
START_TEST(recompute_gives_the_same_bits)
{
    struct sft_batch batch;
    struct sft_loss first = {0}, loss;
    struct sft_program program = {{24, 2, 14}, SFT_TRAIN};
    float *want = flat_copy(NULL), *got = flat_copy(NULL);
    uint64_t most = 0, least = 0;
    tiny_batch(&batch, &t, two_documents, 2, 1);
    for (int64_t s = 0; s < sft_policy_steps(t.spec.layers, true); s++) {
        struct sft_step *step =
            open_with(&program, 1, sft_policy_step(s, t.spec.layers, true), t.image);
        gradients_of(s ? got : want, s ? &loss : &first, step, &batch, 1);
        least = sft_step_bytes(step);
        most = s ? most : least;
        sft_step_close(step);
        if (s == 0)
            continue;
        ck_assert(loss.sum == first.sum);
        ck_assert_mem_eq(got, want, (size_t)t.lora.count * sizeof(float));
    }
    ck_assert_uint_lt(least, most);
    double norm = 0;
    for (int64_t i = 0; i < t.lora.count; i++)
        norm += (double)want[i] * want[i];
    ck_assert_double_gt(norm, 0);
}
END_TEST

static int open_limited(struct sft_step **out, uint64_t limit, struct sf_err *err)
{
    struct sft_program program = {{24, 2, 14}, SFT_TRAIN};
    struct sft_step_config config = defaults;
    config.spec = &t.spec;
    config.lora = &t.lora;
    config.ops = sk_ops_cpu();
    config.ctx = &t.ctx;
    config.program = &program;
    config.programs = 1;
    config.limit = limit;
    return sft_step_open(out, &config, err);
}

START_TEST(a_limit_is_kept_with_as_little_again_as_possible)
{
    struct sf_err err = {0};
    struct sft_step *step;
    assert_ok(open_limited(&step, UINT64_MAX, &err), err);
    uint64_t most = sft_step_bytes(step);
    for (int k = 0; k < SFT_ACTIVATION_KINDS; k++)
        ck_assert_int_eq(sft_step_policy(step).again[k], 0);
    sft_step_close(step);
    int32_t before = 0;
    uint64_t limit = most - 1;
    for (int lower = 0; lower < 100 && open_limited(&step, limit, &err) == SF_OK; lower++) {
        int32_t again = 0;
        struct sft_policy policy = sft_step_policy(step);
        for (int k = 0; k < SFT_ACTIVATION_KINDS; k++)
            again += policy.again[k];
        ck_assert_int_gt(again, before);
        ck_assert_uint_le(sft_step_bytes(step), limit);
        limit = sft_step_bytes(step) - 1;
        before = again;
        sft_step_close(step);
    }
    ck_assert_int_eq(err.code, SF_ENOMEM);
    ck_assert_msg(strstr(err.message, "there is room for") != NULL, "%s", err.message);
    ck_assert_int_gt(before, (int32_t)t.spec.layers); /* it went a good part of the way */
}
END_TEST

START_TEST(threads_give_the_same_bits)
{
    struct sft_batch batch;
    struct sft_loss loss[2];
    struct sft_program program = {{24, 2, 14}, SFT_TRAIN};
    float *gradient[2] = {flat_copy(NULL), flat_copy(NULL)};
    tiny_batch(&batch, &t, two_documents, 2, 1);
    for (int i = 0; i < 2; i++) {
        t.ctx.threads = i ? 3 : 1;
        struct sft_step *step = open_step_for(&program, 1, SFT_RECOMPUTE_NONE);
        gradients_of(gradient[i], &loss[i], step, &batch, 1);
        sft_step_close(step);
    }
    ck_assert(loss[0].sum == loss[1].sum);
    ck_assert_mem_eq(gradient[0], gradient[1], (size_t)t.lora.count * sizeof(float));
}
END_TEST

static double loss_now(struct sft_step *step, const struct sft_batch *batch)
{
    struct sf_err err = {0};
    struct sft_loss loss = {0};
    assert_ok(sft_step_eval(&loss, step, batch, &err), err);
    return loss.sum / (double)loss.targets;
}

/* The loss along the gradient's direction, and along a few single tensors, against the gradient. */
START_TEST(gradients_are_the_slope_of_the_loss)
{
    struct sft_batch batch;
    struct sft_loss loss;
    struct sft_program program[] = {{{24, 2, 14}, SFT_TRAIN}, {{24, 2, 14}, SFT_EVAL}};
    float *gradient = flat_copy(NULL), *start = flat_copy(t.lora.parameters);
    tiny_batch(&batch, &t, two_documents, 2, 1);
    struct sft_step *step = open_step_for(program, 2, SFT_RECOMPUTE_NONE);
    gradients_of(gradient, &loss, step, &batch, 1);
    ck_assert_double_eq_tol(loss.sum / (double)loss.targets, loss_now(step, &batch), 1e-12);
    double worst = 0;
    for (int64_t i = 0; i < t.lora.modules; i++) {
        const struct sft_lora_module *m = &t.lora.module[i];
        double norm = 0, value[2];
        for (int64_t j = m->a; j < m->b + sft_lora_b_count(m); j++)
            norm += (double)gradient[j] * gradient[j];
        norm = sqrt(norm);
        for (int side = 0; side < 2; side++) {
            double reach = (side ? 1 : -1) * 2e-3 / norm;
            for (int64_t j = m->a; j < m->b + sft_lora_b_count(m); j++)
                t.lora.parameters[j] = (float)(start[j] + reach * gradient[j]);
            value[side] = loss_now(step, &batch);
        }
        memcpy(t.lora.parameters, start, (size_t)t.lora.count * sizeof *start);
        double slope = (value[1] - value[0]) / 4e-3, error = fabs(slope / norm - 1);
        if (error > worst)
            worst = error;
        ck_assert_msg(error < 2e-2, "module %lld: slope %.6g, gradient %.6g", (long long)i, slope,
                      norm);
    }
    printf("step: slopes of %lld modules, worst off by %.2g\n", (long long)t.lora.modules, worst);
    sft_step_close(step);
}
END_TEST

START_TEST(accumulation_is_the_gradient_of_all_targets_together)
{
    struct sft_batch batch[2], whole;
    struct sft_loss loss[2];
    struct sft_program program[] = {
        {{14, 1, 14}, SFT_TRAIN}, {{10, 1, 10}, SFT_TRAIN}, {{24, 2, 14}, SFT_TRAIN}};
    float *parts = flat_copy(NULL), *together = flat_copy(NULL);
    tiny_batch(&whole, &t, two_documents, 2, 1);
    static const int32_t first[] = {0, 14}, second[] = {0, 10};
    batch[0] = (struct sft_batch){14, 1, whole.ids, whole.targets, first};
    batch[1] = (struct sft_batch){10, 1, whole.ids + 14, whole.targets + 14, second};
    struct sft_step *step = open_step_for(program, 3, SFT_RECOMPUTE_NONE);
    gradients_of(together, &loss[0], step, &whole, 1);
    gradients_of(parts, &loss[1], step, batch, 2);
    ck_assert_int_eq(loss[0].targets, loss[1].targets);
    ck_assert_double_eq_tol(loss[0].sum, loss[1].sum, 1e-5 * loss[0].sum);
    scout_assert_close("gradients", parts, together, t.lora.count, 1e-5);
    sft_step_close(step);
}
END_TEST

START_TEST(a_batch_fits_a_larger_tape)
{
    struct sft_batch batch;
    struct sft_loss loss[2];
    struct sft_program exact = {{24, 2, 14}, SFT_TRAIN}, larger = {{40, 6, 16}, SFT_TRAIN};
    float *one = flat_copy(NULL), *other = flat_copy(NULL);
    tiny_batch(&batch, &t, two_documents, 2, 1);
    struct sft_step *step = open_step_for(&exact, 1, SFT_RECOMPUTE_NONE);
    gradients_of(one, &loss[0], step, &batch, 1);
    sft_step_close(step);
    step = open_step_for(&larger, 1, SFT_RECOMPUTE_NONE);
    gradients_of(other, &loss[1], step, &batch, 1);
    sft_step_close(step);
    ck_assert_double_eq_tol(loss[0].sum, loss[1].sum, 1e-6 * loss[0].sum);
    scout_assert_close("gradients", other, one, t.lora.count, 1e-5);
}
END_TEST

START_TEST(steps_allocate_nothing)
{
    struct sft_batch batch[2];
    struct sft_loss loss;
    struct sf_err err = {0};
    float norm;
    struct sft_program program[] = {{{24, 2, 14}, SFT_TRAIN}, {{24, 2, 14}, SFT_EVAL}};
    tiny_batch(&batch[0], &t, two_documents, 2, 1);
    tiny_batch(&batch[1], &t, two_documents, 2, 2);
    struct sft_step *step = open_step_for(program, 2, SFT_RECOMPUTE_FULL);
    sf_alloc_fail_after(1);
    for (int64_t number = 1; number <= 3; number++) {
        assert_ok(sft_step_zero_gradients(step, &err), err);
        assert_ok(sft_step_forward_backward(&loss, step, batch, 2, &err), err);
        assert_ok(sft_step_update(&norm, step, 1e-3, number, &err), err);
        assert_ok(sft_step_eval(&loss, step, &batch[0], &err), err);
    }
    ck_assert_ptr_null(sf_alloc(1)); /* the trap is still set: nobody has stepped on it */
    sf_alloc_fail_after(0);
    sft_step_close(step);
}
END_TEST

/* Is element i of the block one of a B? */
static bool in_b(int64_t i)
{
    for (int64_t k = 0; k < t.lora.modules; k++) {
        const struct sft_lora_module *m = &t.lora.module[k];
        if (i >= m->b && i < m->b + sft_lora_b_count(m))
            return true;
    }
    return false;
}

static double by_hand_b_rate = 1, update_rate = 1e-2;

/* What AdamW does with clipping, in double: as torch.optim.AdamW and clip_grad_norm_ say. */
static void adamw_by_hand(double *p, double *m, double *v, const float *gradient, int64_t n,
                          const struct sft_step_config *c, double rate, int64_t number)
{
    double norm = 0;
    for (int64_t i = 0; i < n; i++)
        norm += (double)gradient[i] * gradient[i];
    norm = sqrt(norm);
    double clip = c->max_grad_norm > 0 ? fmin(1, c->max_grad_norm / (norm + 1e-6)) : 1;
    double base = rate;
    for (int64_t i = 0; i < n; i++) {
        double g = clip * gradient[i];
        rate = in_b(i) ? base * by_hand_b_rate : base;
        p[i] *= 1 - rate * c->weight_decay;
        m[i] = c->beta1 * m[i] + (1 - c->beta1) * g;
        v[i] = c->beta2 * v[i] + (1 - c->beta2) * g * g;
        p[i] -= rate / (1 - pow(c->beta1, (double)number)) * m[i] /
                (sqrt(v[i]) / sqrt(1 - pow(c->beta2, (double)number)) + c->epsilon);
    }
}

/* Three updates by us and by hand as `config` says; the relative difference of what they moved. */
static double update_error(const struct sft_step_config *by_hand)
{
    struct sft_batch batch;
    struct sft_loss loss;
    struct sf_err err = {0};
    float norm;
    int64_t n = t.lora.count;
    struct sft_program program = {{24, 2, 14}, SFT_TRAIN};
    double *p = sf_arena_array(&t.arena, (uint64_t)n * 3, sizeof *p), *m = p + n, *v = m + n;
    double difference = 0, moved = 0;
    float *start = flat_copy(t.lora.parameters);
    tiny_batch(&batch, &t, two_documents, 2, 1);
    struct sft_step *step = open_step_for(&program, 1, SFT_RECOMPUTE_NONE);
    for (int64_t i = 0; i < n; i++)
        p[i] = start[i];
    for (int64_t number = 1; number <= 3; number++) {
        assert_ok(sft_step_zero_gradients(step, &err), err);
        assert_ok(sft_step_forward_backward(&loss, step, &batch, 1, &err), err);
        for (int64_t i = 0; i < n; i++) /* far from 1: clipping shows, in each step differently */
            sft_lora_state(&t.lora, SFT_LORA_GRADIENTS)[i] *= 50.0f * (float)number;
        adamw_by_hand(p, m, v, sft_lora_state(&t.lora, SFT_LORA_GRADIENTS), n, by_hand, update_rate,
                      number);
        assert_ok(sft_step_update(&norm, step, update_rate, number, &err), err);
        ck_assert_float_gt(norm, 2);
    }
    for (int64_t i = 0; i < n; i++) {
        difference += pow(p[i] - t.lora.parameters[i], 2);
        moved += pow(p[i] - start[i], 2);
    }
    sft_step_close(step);
    return sqrt(difference / moved);
}

START_TEST(updates_follow_adamw)
{
    double error = update_error(&defaults);
    printf("step: three updates, off by %.2g of what they moved\n", error);
    ck_assert_double_lt(error, 1e-5);
}
END_TEST

/* LoRA+: B learns 16 times as fast; taken as 8 times it would be seen. Decay goes with the rate. */
START_TEST(b_has_a_rate_of_its_own)
{
    float *start = flat_copy(t.lora.parameters);
    t.lora.b_rate = by_hand_b_rate = 16;
    double error = update_error(&defaults);
    printf("step: three updates of LoRA+, off by %.2g of what they moved\n", error);
    ck_assert_double_lt(error, 1e-5);
    memcpy(t.lora.parameters, start, (size_t)t.lora.count * sizeof *start);
    memset(sft_lora_state(&t.lora, SFT_LORA_M), 0, sft_lora_moments(&t.lora).bytes);
    by_hand_b_rate = 8;
    ck_assert_double_gt(update_error(&defaults), 0.1);
}
END_TEST

/* At a rate that B can take: far off, gradients change so much that a byte no longer holds them. */
START_TEST(also_with_8_bit_moments)
{
    t.lora.optim = SFT_ADAMW_8BIT;
    update_rate = 1e-4;
    t.lora.b_rate = by_hand_b_rate = 16;
    double error = update_error(&defaults);
    printf("step: three 8-bit updates of LoRA+, off by %.2g\n", error);
    ck_assert_double_lt(error, 0.05);
    ck_assert_double_gt(error, 1e-4);
}
END_TEST

/* Moments of 8 bits: the same road, as far as codes of a byte know it. */
START_TEST(updates_of_8_bit_moments_keep_near_adamw)
{
    struct sft_plan plan = {0};
    struct sft_program program = {{24, 2, 14}, SFT_TRAIN};
    t.lora.optim = SFT_ADAMW_8BIT;
    double error = update_error(&defaults);
    printf("step: three updates of 8-bit moments, off by %.2g of what they moved\n", error);
    ck_assert_double_lt(error, 0.05);
    ck_assert_double_gt(error, 1e-4); /* they are not float32 by mistake */
    struct sft_step *step = open_step_for(&program, 1, SFT_RECOMPUTE_NONE);
    sft_step_plan(&plan, step);
    ck_assert_uint_eq(plan.adapter_moment_bytes, sft_lora_moments(&t.lora).bytes);
    ck_assert_uint_lt(plan.adapter_moment_bytes, plan.adapter_parameter_bytes * 52 / 100);
    ck_assert_uint_eq(plan.adapter_parameter_bytes + plan.adapter_gradient_bytes +
                          plan.adapter_moment_bytes,
                      sft_lora_bytes(&t.lora, true));
    sft_step_close(step);
}
END_TEST

/* The wrong variants of the update must be far outside the bar that the right one meets. */
START_TEST(wrong_updates_are_seen)
{
    struct sft_step_config wrong = defaults;
    switch (_i) {
    case 0:
        wrong.max_grad_norm = 0;
        break;
    case 1:
        wrong.weight_decay = 0;
        break;
    case 2:
        wrong.epsilon = 1e-5;
        break;
    case 3:
        wrong.beta2 = 0.99;
        break;
    }
    double error = update_error(&wrong);
    printf("step: wrong update %d, off by %.2g\n", _i, error);
    ck_assert_double_gt(error, 1e-3);
}
END_TEST

START_TEST(bad_batches_are_named)
{
    struct sft_batch batch, wrong;
    struct sft_loss loss = {0};
    struct sf_err err = {0};
    struct sft_program program[] = {{{24, 2, 14}, SFT_TRAIN}, {{24, 2, 14}, SFT_EVAL}};
    tiny_batch(&batch, &t, two_documents, 2, 1);
    struct sft_step *step = open_step_for(program, 2, SFT_RECOMPUTE_NONE);
    int32_t ids[24], targets[24];
    memcpy(ids, batch.ids, sizeof ids);
    memcpy(targets, batch.targets, sizeof targets);

    wrong = batch;
    wrong.ids = ids;
    ids[5] = (int32_t)t.spec.vocabulary;
    assert_fails(sft_step_eval(&loss, step, &wrong, &err), SF_EINVAL, "embed_forward", err);
    wrong = batch;
    wrong.targets = targets;
    targets[5] = (int32_t)t.spec.vocabulary;
    assert_fails(sft_step_eval(&loss, step, &wrong, &err), SF_EINVAL, "target 96 at position 5",
                 err);
    for (int i = 0; i < 24; i++)
        targets[i] = SK_IGNORE_INDEX;
    assert_fails(sft_step_forward_backward(&loss, step, &wrong, 1, &err), SF_EINVAL, "no target",
                 err);
    static const int32_t crossed[] = {0, 25, 24}, part[] = {0, 14, 20};
    wrong = batch;
    wrong.document = crossed;
    assert_fails(sft_step_eval(&loss, step, &wrong, &err), SF_EINVAL, "document 1", err);
    wrong.document = part;
    assert_fails(sft_step_eval(&loss, step, &wrong, &err), SF_EINVAL, "24 rows", err);
    static const int32_t longer[] = {0, 15, 24};
    wrong.document = longer;
    assert_fails(sft_step_eval(&loss, step, &wrong, &err), SF_EINVAL, "at most 15", err);
    sft_step_close(step);
}
END_TEST

START_TEST(a_norm_that_is_no_number_changes_nothing)
{
    struct sf_err err = {0};
    float norm;
    struct sft_program program = {{24, 2, 14}, SFT_TRAIN};
    struct sft_step *step = open_step_for(&program, 1, SFT_RECOMPUTE_NONE);
    float *start = flat_copy(t.lora.parameters);
    sft_lora_state(&t.lora, SFT_LORA_GRADIENTS)[3] = NAN;
    assert_fails(sft_step_update(&norm, step, 1e-3, 7, &err), SF_ENUMERIC, "step 7", err);
    ck_assert_mem_eq(start, t.lora.parameters, (size_t)t.lora.count * sizeof *start);
    sft_step_close(step);
}
END_TEST

START_TEST(the_plan_is_what_is_allocated)
{
    struct sft_plan plan = {0};
    struct sft_program program[] = {{{24, 2, 14}, SFT_TRAIN}, {{48, 2, 24}, SFT_EVAL}};
    struct sft_step *step = open_step_for(program, 2, SFT_RECOMPUTE_NONE);
    sft_step_plan(&plan, step);
    sft_plan_total(&plan);
    ck_assert_uint_eq(plan.step_bytes, sft_step_bytes(step));
    ck_assert_uint_eq(plan.adapter_parameter_bytes + plan.adapter_gradient_bytes +
                          plan.adapter_moment_bytes,
                      sft_lora_bytes(&t.lora, true));
    ck_assert_uint_eq(plan.total_bytes, sft_step_bytes(step) + sft_step_host_bytes(step) +
                                            sft_lora_bytes(&t.lora, true));
    ck_assert_int_eq(plan.tapes, 2);
    uint64_t kinds = 0;
    for (int kind = 0; kind < SFT_KIND_COUNT; kind++)
        kinds += plan.peak_kind[kind];
    ck_assert_uint_eq(kinds, plan.step_live_bytes);
    for (int64_t i = 1; i < plan.top_count; i++)
        ck_assert_uint_ge(plan.top[i - 1].bytes, plan.top[i].bytes);
    sft_step_close(step);
}
END_TEST

static Suite *step_suite(void)
{
    Suite *suite = suite_create("step");
    TCase *tc = tcase_create("step");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, recompute_gives_the_same_bits);
    tcase_add_test(tc, a_limit_is_kept_with_as_little_again_as_possible);
    tcase_add_test(tc, threads_give_the_same_bits);
    tcase_add_test(tc, gradients_are_the_slope_of_the_loss);
    tcase_add_test(tc, accumulation_is_the_gradient_of_all_targets_together);
    tcase_add_test(tc, a_batch_fits_a_larger_tape);
    tcase_add_test(tc, steps_allocate_nothing);
    tcase_add_test(tc, updates_follow_adamw);
    tcase_add_test(tc, b_has_a_rate_of_its_own);
    tcase_add_test(tc, also_with_8_bit_moments);
    tcase_add_test(tc, updates_of_8_bit_moments_keep_near_adamw);
    tcase_add_loop_test(tc, wrong_updates_are_seen, 0, 4);
    tcase_add_test(tc, bad_batches_are_named);
    tcase_add_test(tc, a_norm_that_is_no_number_changes_nothing);
    tcase_add_test(tc, the_plan_is_what_is_allocated);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(step_suite)
