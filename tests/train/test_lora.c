#include "train/lora.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/mem.h"
#include "tests/support/support.h"
#include "tests/train/tiny.h"
#include "kernels/philox.h"

static struct sf_arena arena;
static struct sf_model_spec spec;
static struct sft_lora lora;
static struct sk_ctx ctx = {.threads = 1};

static void setup(void)
{
    arena = (struct sf_arena){0};
    lora = (struct sft_lora){0};
    tiny_spec(&spec, &arena, 4, true);
}

static void teardown(void)
{
    sft_lora_free(&lora);
    sf_arena_free(&arena);
}

static int plan(const char *const *target, int64_t targets, int64_t rank, struct sf_err *err)
{
    struct sft_lora_config config = {
        .target = target, .targets = targets, .rank = rank, .alpha = 6};
    return sft_lora_plan(&lora, &arena, &spec, &config, err);
}

/* The generator's own known answers (Random123, kat_vectors, philox4x32 with 10 rounds). */
START_TEST(philox_gives_the_known_answers)
{
    static const struct {
        uint64_t key, stream, counter;
        uint32_t want[4];
    } known[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t got[4];
        sk_philox(got, known[i].key, known[i].stream, known[i].counter);
        ck_assert_mem_eq(got, known[i].want, sizeof got);
    }
}
END_TEST

START_TEST(routed_experts_are_parameters_of_a_layer)
{
    struct sf_err err = {0};
    struct sft_lora_config config = {.target = tiny_targets,
                                     .targets = 1,
                                     .parameter = tiny_parameters,
                                     .parameters = 2,
                                     .rank = 3,
                                     .alpha = 6};
    assert_ok(sft_lora_plan(&lora, &arena, &spec, &config, &err), err);
    ck_assert_int_eq(lora.modules, 4 + 2 * 2); /* q everywhere; layers 0 and 1 have experts */
    const struct sft_lora_module *m =
        sft_lora_find(&lora, (struct sf_role){SF_ADAPTER_GATE_UP, 1, -1});
    ck_assert_ptr_nonnull(m);
    ck_assert_int_eq(m->groups, spec.experts);
    ck_assert_int_eq(m->in, spec.hidden);
    ck_assert_int_eq(m->out, 2 * spec.expert_width);
    ck_assert_int_eq(m->b - m->a, 4 * 3 * 64);
    m = sft_lora_find(&lora, (struct sf_role){SF_PART_EXPERT_DOWN, 0, -1});
    ck_assert_int_eq(m->in, spec.expert_width);
    ck_assert_int_eq(m->out, spec.hidden);
    ck_assert_ptr_null(sft_lora_find(&lora, (struct sf_role){SF_PART_EXPERT_DOWN, 2, -1}));

    static const char *const wrong[] = {"experts.down_proj", "experts.up_proj"};
    config.parameter = wrong;
    assert_fails(sft_lora_plan(&lora, &arena, &spec, &config, &err), SF_EINVAL,
                 "target parameter 'experts.up_proj' matches nothing", err);
    config = (struct sft_lora_config){.rank = 3, .alpha = 6};
    assert_fails(sft_lora_plan(&lora, &arena, &spec, &config, &err), SF_EINVAL,
                 "no target modules or parameters", err);
}
END_TEST

START_TEST(modules_come_by_layer_then_part_without_overlap)
{
    struct sf_err err = {0};
    assert_ok(plan(tiny_targets, 7, 3, &err), err);
    ck_assert_int_eq(lora.modules, 4 * 7);
    int64_t end = 0, trained = 0;
    for (int64_t i = 0; i < lora.modules; i++) {
        const struct sft_lora_module *m = &lora.module[i];
        if (i > 0) {
            struct sf_role a = m[-1].role, b = m->role;
            ck_assert(a.layer < b.layer || (a.layer == b.layer && a.part < b.part));
        }
        ck_assert_int_ge(m->a, end);
        ck_assert_int_ge(m->b, m->a + 3 * m->in);
        ck_assert_int_eq(m->a % 256 + m->b % 256, 0);
        end = m->b + 3 * m->out;
        trained += 3 * (m->in + m->out);
        ck_assert_double_eq(m->scale, 2);
        ck_assert_ptr_eq(sft_lora_find(&lora, m->role), m);
    }
    ck_assert_int_le(end, lora.count);
    ck_assert_int_eq(trained, lora.trained);
    ck_assert_ptr_null(sft_lora_find(&lora, (struct sf_role){SF_PART_ROUTER, 0, -1}));
    ck_assert_ptr_null(sft_lora_find(NULL, lora.module[0].role));
    ck_assert_uint_eq(sft_lora_bytes(&lora, true), 4 * sft_lora_bytes(&lora, false));
}
END_TEST

/* A byte a number and 4 bytes a block, twice; nothing overlaps, everything starts on 256 bytes. */
START_TEST(moments_of_8_bits_take_a_quarter)
{
    struct sf_err err = {0};
    assert_ok(plan(tiny_targets, 7, 3, &err), err);
    uint64_t floats = sft_lora_bytes(&lora, false), count = (uint64_t)lora.count;
    ck_assert_uint_eq(sft_lora_moments(&lora).bytes, 2 * floats);
    ck_assert(sft_optim_from_name(&lora.optim, "adamw_8bit"));
    struct sft_moments o = sft_lora_moments(&lora);
    ck_assert_uint_eq(count % 256, 0);
    ck_assert_uint_eq(o.code_bytes, count);
    ck_assert_uint_ge(o.scale_bytes, count / 64);
    ck_assert_uint_lt(o.scale_bytes, count / 64 + 256);
    ck_assert_uint_eq(o.m, 2 * floats);
    ck_assert_uint_eq(o.v, o.m + o.code_bytes);
    ck_assert_uint_eq(o.m_scale, o.v + o.code_bytes);
    ck_assert_uint_eq(o.v_scale, o.m_scale + o.scale_bytes);
    ck_assert_uint_eq(o.m + o.bytes, o.v_scale + o.scale_bytes);
    ck_assert_uint_eq((o.m | o.v | o.m_scale | o.v_scale) % 256, 0);
    ck_assert_uint_eq(sft_lora_bytes(&lora, true), o.m + o.bytes);
    ck_assert(!sft_optim_from_name(&lora.optim, "sgd"));
}
END_TEST

START_TEST(the_head_is_a_module_and_the_router_a_parameter)
{
    struct sf_err err = {0};
    static const char *const head[] = {"lm_head", "q_proj"};
    assert_ok(plan(head, 2, 2, &err), err);
    ck_assert_int_eq(lora.modules, 4 + 1);
    const struct sft_lora_module *m = &lora.module[4]; /* behind those of layers */
    ck_assert_int_eq(m->role.part, SF_PART_HEAD);
    ck_assert_int_eq(m->out, spec.vocabulary);
    ck_assert_int_eq(m->in, spec.hidden);
    ck_assert_ptr_eq(sft_lora_find(&lora, (struct sf_role){SF_PART_HEAD, -1, -1}), m);

    static const char *const router[] = {"router.weight"};
    static const struct sf_adapter_pattern rank = {"0.feed_forward.router.weight", 3};
    struct sft_lora_config config = {.parameter = router,
                                     .parameters = 1,
                                     .rank = 2,
                                     .alpha = 4,
                                     .rank_pattern = &rank,
                                     .rank_patterns = 1};
    assert_ok(sft_lora_plan(&lora, &arena, &spec, &config, &err), err);
    ck_assert_int_eq(lora.modules, 2); /* layers 0 and 1 have experts */
    ck_assert_int_eq(lora.module[0].groups, 1);
    ck_assert_int_eq(lora.module[0].out, spec.experts);
    ck_assert_int_eq(lora.module[0].rank, 3);
    ck_assert_int_eq(lora.module[1].rank, 2);
    assert_fails(sft_lora_drop(&lora, 0.1, 1, &err), SF_EUNSUPPORTED, "router is adapted", err);
    static const char *const wrong[] = {"q_proj", "feed_forward.router"};
    assert_fails(plan(wrong, 2, 2, &err), SF_EINVAL, "--target-parameters router.weight", err);
}
END_TEST

START_TEST(targets_are_matched_as_peft_matches_a_list)
{
    struct sf_err err = {0};
    static const char *const shared[] = {"shared_expert.down_proj"};
    assert_ok(plan(shared, 1, 2, &err), err);
    ck_assert_int_eq(lora.modules, 2); /* layers 0 and 1 have experts */
    static const char *const whole[] = {"model.layers.2.self_attn.k_proj", "v_proj"};
    assert_ok(plan(whole, 2, 2, &err), err);
    ck_assert_int_eq(lora.modules, 1 + 4);
    ck_assert_int_eq(lora.module[2].role.part, SF_PART_K);
    static const char *const bad[][2] = {
        {"q_proj", "proj"}, {"q_proj", ""}, {"q_proj", "xself_attn.q_proj"}, {"q_proj", "experts"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char want[64];
        snprintf(want, sizeof want, "target module '%s' matches nothing", bad[i][1]);
        assert_fails(plan(bad[i], 2, 2, &err), SF_EINVAL, want, err);
    }
    assert_fails(plan(whole, 2, 0, &err), SF_EINVAL, "rank 0", err);
    assert_fails(plan(whole, 0, 2, &err), SF_EINVAL, "no target modules", err);
}
END_TEST

START_TEST(init_is_uniform_in_a_and_zero_in_b)
{
    struct sf_err err = {0};
    assert_ok(plan(tiny_targets, 7, 16, &err), err);
    assert_ok(sft_lora_allocate(&lora, true, sk_ops_cpu(), &ctx, &err), err);
    sft_lora_init(&lora, 42);
    double sum = 0, squares = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < lora.modules; i++) {
        const struct sft_lora_module *m = &lora.module[i];
        double bound = 1 / sqrt((double)m->in);
        for (int64_t j = 0; j < sft_lora_a_count(m); j++, n++) {
            double x = lora.parameters[m->a + j] / bound;
            ck_assert(x >= -1.000001 && x < 1);
            sum += x;
            squares += x * x;
        }
        for (int64_t j = 0; j < sft_lora_b_count(m); j++)
            ck_assert_float_eq(lora.parameters[m->b + j], 0);
    }
    ck_assert_double_eq_tol(sum / (double)n, 0, 4 / sqrt(3.0 * (double)n));
    ck_assert_double_eq_tol(squares / (double)n, 1.0 / 3, 0.01);
    const float *gradients = sft_lora_state(&lora, SFT_LORA_GRADIENTS); /* m and v behind them */
    for (int64_t i = 0; i < 3 * lora.count; i++)
        ck_assert_float_eq(gradients[i], 0);
}
END_TEST

START_TEST(seeds_and_modules_have_their_own_numbers)
{
    struct sf_err err = {0};
    float first[64];
    assert_ok(plan(tiny_targets, 7, 4, &err), err);
    assert_ok(sft_lora_allocate(&lora, false, sk_ops_cpu(), &ctx, &err), err);
    ck_assert(!lora.training);
    const struct sft_lora_module *q = &lora.module[0], *k = &lora.module[1];
    sft_lora_init(&lora, 1);
    memcpy(first, lora.parameters + q->a, sizeof first);
    ck_assert_mem_ne(lora.parameters + k->a, first, sizeof first);
    sft_lora_init(&lora, 2);
    ck_assert_mem_ne(lora.parameters + q->a, first, sizeof first);
    sft_lora_init(&lora, 1);
    ck_assert_mem_eq(lora.parameters + q->a, first, sizeof first);
}
END_TEST

START_TEST(an_exported_adapter_loads_again)
{
    struct sf_err err = {0};
    struct sf_adapter adapter;
    struct sft_lora other;
    assert_ok(plan(tiny_targets, 7, 4, &err), err);
    assert_ok(sft_lora_allocate(&lora, true, sk_ops_cpu(), &ctx, &err), err);
    sft_lora_init(&lora, 3);
    assert_ok(sft_lora_export(&adapter, &lora, &arena, &err), err);
    assert_ok(sft_lora_plan_adapter(&other, &arena, &spec, &adapter, &err), err);
    ck_assert_int_eq(other.count, lora.count);
    assert_ok(sft_lora_allocate(&other, false, sk_ops_cpu(), &ctx, &err), err);
    assert_ok(sft_lora_load(&other, &adapter, &err), err);
    ck_assert_mem_eq(other.parameters, lora.parameters, (size_t)lora.count * sizeof(float));
    adapter.module[3].rank = 5;
    assert_fails(sft_lora_load(&other, &adapter, &err), SF_EINVAL, "layer 0 o", err);
    adapter.modules--;
    assert_fails(sft_lora_load(&other, &adapter, &err), SF_EINVAL, "27 modules", err);
    adapter.modules++;
    adapter.module[3].role.layer = 9;
    sft_lora_free(&other);
    assert_fails(sft_lora_plan_adapter(&other, &arena, &spec, &adapter, &err), SF_EINVAL,
                 "28 modules", err);
}
END_TEST

START_TEST(no_memory_is_an_error)
{
    struct sf_err err = {0};
    assert_ok(plan(tiny_targets, 7, 4, &err), err);
    sf_alloc_fail_after(1);
    assert_fails(sft_lora_allocate(&lora, true, sk_ops_cpu(), &ctx, &err), SF_ENOMEM, "the adapter",
                 err);
    sf_alloc_fail_after(0);
}
END_TEST

static Suite *lora_suite(void)
{
    Suite *suite = suite_create("lora");
    TCase *tc = tcase_create("lora");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, philox_gives_the_known_answers);
    tcase_add_test(tc, routed_experts_are_parameters_of_a_layer);
    tcase_add_test(tc, modules_come_by_layer_then_part_without_overlap);
    tcase_add_test(tc, moments_of_8_bits_take_a_quarter);
    tcase_add_test(tc, the_head_is_a_module_and_the_router_a_parameter);
    tcase_add_test(tc, targets_are_matched_as_peft_matches_a_list);
    tcase_add_test(tc, init_is_uniform_in_a_and_zero_in_b);
    tcase_add_test(tc, seeds_and_modules_have_their_own_numbers);
    tcase_add_test(tc, an_exported_adapter_loads_again);
    tcase_add_test(tc, no_memory_is_an_error);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(lora_suite)
