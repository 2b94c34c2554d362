#include "train/plan/memory_policy.h"

#include "tests/support/support.h"

static struct sf_arena arena;
static struct sft_tape tape;

static int32_t make(int32_t layer, enum sft_class class, enum sft_kind kind)
{
    tape.layer = layer;
    return sft_tape_buffer(&tape, class, kind, 1, "%s", sft_kind_name(kind));
}

static void setup(void)
{
    sft_tape_begin(&tape, &arena);
}

static void teardown(void)
{
    sf_arena_free(&arena);
}

START_TEST(names_go_both_ways)
{
    enum sft_recompute recompute;
    for (int i = SFT_RECOMPUTE_NONE; i <= SFT_RECOMPUTE_AUTO; i++) {
        ck_assert(sft_recompute_from_name(&recompute, sft_recompute_name((enum sft_recompute)i)));
        ck_assert_int_eq(recompute, i);
    }
    ck_assert(!sft_recompute_from_name(&recompute, "everything"));
}
END_TEST

START_TEST(full_forgets_activations_inside_layers_only)
{
    static const enum sft_kind spared[] = {SFT_RESIDUAL, SFT_SMALL, SFT_GRADIENT, SFT_WORKSPACE};
    sft_policy_apply(&tape, sft_policy_of(SFT_RECOMPUTE_NONE, 4));
    for (int kind = 0; kind < SFT_ACTIVATION_KINDS; kind++) {
        int32_t inside = make(3, SFT_STEP, (enum sft_kind)kind);
        int32_t outside = make(-1, SFT_STEP, (enum sft_kind)kind);
        int32_t kept = make(3, SFT_KEPT, (enum sft_kind)kind);
        sft_policy_apply(&tape, sft_policy_of(SFT_RECOMPUTE_NONE, 4));
        ck_assert_int_eq(tape.buffer[inside].class, SFT_STEP);
        sft_policy_apply(&tape, sft_policy_of(SFT_RECOMPUTE_FULL, 4));
        ck_assert_int_eq(tape.buffer[inside].class, SFT_RECOMPUTE);
        ck_assert_int_eq(tape.buffer[outside].class, SFT_STEP);
        ck_assert_int_eq(tape.buffer[kept].class, SFT_KEPT);
    }
    for (int i = 0; i < 4; i++) {
        int32_t b = make(3, SFT_STEP, spared[i]);
        sft_policy_apply(&tape, sft_policy_of(SFT_RECOMPUTE_FULL, 4));
        ck_assert_int_eq(tape.buffer[b].class, SFT_STEP);
    }
}
END_TEST

START_TEST(selective_keeps_what_products_made)
{
    int32_t norm = make(0, SFT_STEP, SFT_ACTIVATION);
    int32_t gate = make(0, SFT_STEP, SFT_ACTIVATION_MLP);
    sft_policy_apply(&tape, sft_policy_of(SFT_RECOMPUTE_SELECTIVE, 1));
    ck_assert_int_eq(tape.buffer[norm].class, SFT_RECOMPUTE);
    ck_assert_int_eq(tape.buffer[gate].class, SFT_STEP);
}
END_TEST

static int64_t count_again(struct sft_policy policy)
{
    int64_t sum = 0;
    for (int k = 0; k < SFT_ACTIVATION_KINDS; k++)
        sum += policy.again[k];
    return sum;
}

/* Each step makes one kind of one layer more again; selective and full lie on the way. */
START_TEST(the_walk_goes_from_all_to_nothing)
{
    const int64_t layers = 7, steps = sft_policy_steps(layers, false);
    struct sft_policy selective = sft_policy_of(SFT_RECOMPUTE_SELECTIVE, layers);
    struct sft_policy full = sft_policy_of(SFT_RECOMPUTE_FULL, layers);
    for (int64_t s = 0; s < steps; s++)
        ck_assert_int_eq(count_again(sft_policy_step(s, layers, false)), s);
    struct sft_policy at = sft_policy_step(layers, layers, false),
                      last = sft_policy_step(steps - 1, layers, false);
    ck_assert_mem_eq(&at, &selective, sizeof at);
    ck_assert_mem_eq(&last, &full, sizeof last);
}
END_TEST

START_TEST(a_device_offloads_behind_what_is_nearly_free)
{
    const int64_t layers = 7, steps = sft_policy_steps(layers, true);
    ck_assert_int_eq(steps, sft_policy_steps(layers, false) + 1);
    for (int64_t s = 0; s < steps; s++) {
        struct sft_policy policy = sft_policy_step(s, layers, true);
        ck_assert_int_eq(policy.offload, s > layers);
        ck_assert_int_eq(count_again(policy), s > layers ? s - 1 : s);
    }
}
END_TEST

static Suite *policy_suite(void)
{
    Suite *suite = suite_create("memory_policy");
    TCase *tc = tcase_create("policy");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, names_go_both_ways);
    tcase_add_test(tc, full_forgets_activations_inside_layers_only);
    tcase_add_test(tc, selective_keeps_what_products_made);
    tcase_add_test(tc, the_walk_goes_from_all_to_nothing);
    tcase_add_test(tc, a_device_offloads_behind_what_is_nearly_free);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(policy_suite)
