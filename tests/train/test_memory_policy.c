#include "train/plan/memory_policy.h"

#include "tests/support/support.h"

START_TEST(names_go_both_ways)
{
    enum sft_policy policy;
    for (int i = SFT_POLICY_NONE; i <= SFT_POLICY_LAYERS; i++) {
        ck_assert(sft_policy_from_name(&policy, sft_policy_name((enum sft_policy)i)));
        ck_assert_int_eq(policy, i);
    }
    ck_assert(!sft_policy_from_name(&policy, "everything"));
}
END_TEST

START_TEST(layers_forgets_activations_inside_layers_only)
{
    struct sf_arena arena = {0};
    struct sft_tape tape;
    sft_tape_begin(&tape, &arena);
    int32_t outside = sft_tape_buffer(&tape, SFT_STEP, SFT_ACTIVATION, 1, "outside");
    tape.layer = 3;
    int32_t inside = sft_tape_buffer(&tape, SFT_STEP, SFT_ACTIVATION, 1, "inside");
    int32_t small = sft_tape_buffer(&tape, SFT_STEP, SFT_SMALL, 1, "small");
    int32_t residual = sft_tape_buffer(&tape, SFT_STEP, SFT_RESIDUAL, 1, "residual");
    int32_t gradient = sft_tape_buffer(&tape, SFT_STEP, SFT_GRADIENT, 1, "gradient");
    int32_t kept = sft_tape_buffer(&tape, SFT_KEPT, SFT_ACTIVATION, 1, "kept");
    sft_policy_apply(&tape, SFT_POLICY_NONE);
    ck_assert_int_eq(tape.buffer[inside].class, SFT_STEP);
    sft_policy_apply(&tape, SFT_POLICY_LAYERS);
    ck_assert_int_eq(tape.buffer[inside].class, SFT_RECOMPUTE);
    ck_assert_int_eq(tape.buffer[outside].class, SFT_STEP);
    ck_assert_int_eq(tape.buffer[small].class, SFT_STEP);
    ck_assert_int_eq(tape.buffer[residual].class, SFT_STEP);
    ck_assert_int_eq(tape.buffer[gradient].class, SFT_STEP);
    ck_assert_int_eq(tape.buffer[kept].class, SFT_KEPT);
    sf_arena_free(&arena);
}
END_TEST

static Suite *policy_suite(void)
{
    Suite *suite = suite_create("memory_policy");
    TCase *tc = tcase_create("policy");
    tcase_add_test(tc, names_go_both_ways);
    tcase_add_test(tc, layers_forgets_activations_inside_layers_only);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(policy_suite)
