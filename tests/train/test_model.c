#include "train/model.h"

#include <stdio.h>
#include <string.h>

#include "kernels/linear.h"
#include "tests/support/support.h"
#include "tests/train/tiny.h"
#include "train/plan/memory_policy.h"

static struct sf_arena arena;

static void setup(void)
{
    arena = (struct sf_arena){0};
}

static void teardown(void)
{
    sf_arena_free(&arena);
}

static void make_tape(struct sft_tape *tape, struct sft_ports *ports,
                      const struct sf_model_spec *spec, const struct sft_lora *lora,
                      struct sft_shape shape, enum sft_mode mode, enum sft_recompute recompute)
{
    struct sf_err err = {0};
    sft_tape_begin(tape, &arena);
    assert_ok(sft_model_emit(tape, ports, sk_ops_cpu(), spec, lora, shape, mode, &err), err);
    sft_policy_apply(tape, sft_policy_of(recompute, spec->layers));
    assert_ok(sft_tape_finish(tape, sk_ops_cpu(), 2, &err), err);
}

static void plan_lora(struct sft_lora *lora, const struct sf_model_spec *spec,
                      const char *const *target, int64_t targets)
{
    struct sf_err err = {0};
    struct sft_lora_config config = {.target = target, .targets = targets, .rank = 16, .alpha = 32};
    assert_ok(sft_lora_plan(lora, &arena, spec, &config, &err), err);
}

/* No two buffers that are alive at one node share bytes. */
static void check_places(const struct sft_tape *tape)
{
    for (int32_t i = 0; i < tape->buffers; i++) {
        const struct sft_buffer *a = &tape->buffer[i];
        if (!sft_class_in_step(a->class) || a->birth < 0)
            continue;
        ck_assert_uint_le(a->offset + a->bytes, tape->step_bytes);
        for (int32_t j = 0; j < i; j++) {
            const struct sft_buffer *b = &tape->buffer[j];
            if (!sft_class_in_step(b->class) || b->birth < 0 || a->birth > b->death ||
                b->birth > a->death)
                continue;
            ck_assert_msg(a->offset >= b->offset + b->bytes || b->offset >= a->offset + a->bytes,
                          "%s and %s overlap", a->name, b->name);
        }
    }
}

/* Packs the tapes of a model and says how far from the bound they are. */
static void check_packing(const char *what, const struct sf_model_spec *spec,
                          struct sft_shape shape)
{
    struct sft_lora lora;
    struct sft_ports ports;
    struct sft_tape tape;
    plan_lora(&lora, spec, tiny_targets, 7);
    for (int policy = SFT_RECOMPUTE_NONE; policy <= SFT_RECOMPUTE_FULL; policy++) {
        for (int mode = SFT_TRAIN; mode <= SFT_PROBE_GRADS; mode++) {
            make_tape(&tape, &ports, spec, &lora, shape, (enum sft_mode)mode,
                      (enum sft_recompute)policy);
            check_places(&tape);
            double share = (double)tape.step_bytes / (double)tape.live_bytes;
            printf("pack: %s, mode %d, policy %s: %d nodes, %.1f MiB, %.4f of the bound\n", what,
                   mode, sft_recompute_name((enum sft_recompute)policy), tape.nodes,
                   (double)tape.step_bytes / 0x1p20, share);
            /* Forward-only tapes are small: beside one that trains they never set the block. */
            ck_assert_double_le(share, tape.turn < tape.nodes ? 1.03 : 1.10);
        }
    }
}

START_TEST(training_tapes_pack_within_three_percent)
{
    struct sf_model_spec spec;
    tiny_spec(&spec, &arena, 4, true);
    check_packing("tiny", &spec, (struct sft_shape){80, 2, 40});
    tiny_spec(&spec, &arena, 6, false);
    check_packing("all experts", &spec, (struct sft_shape){256, 1, 256});
}
END_TEST

START_TEST(scout_tapes_pack_within_three_percent)
{
    struct sf_model_spec spec;
    struct sft_lora lora;
    struct sft_ports ports;
    struct sft_tape tape;
    uint64_t bytes[SFT_RECOMPUTE_AUTO];
    scout_spec(&spec, &arena);
    plan_lora(&lora, &spec, tiny_targets, 7);
    for (int policy = SFT_RECOMPUTE_NONE; policy <= SFT_RECOMPUTE_FULL; policy++) {
        make_tape(&tape, &ports, &spec, &lora, (struct sft_shape){4096, 1, 4096}, SFT_TRAIN,
                  (enum sft_recompute)policy);
        bytes[policy] = tape.step_bytes;
        double share = (double)tape.step_bytes / (double)tape.live_bytes;
        printf("pack: scout, 4096 rows, policy %s: %d nodes, %d buffers, %.2f GiB, %.4f of the "
               "bound\n",
               sft_recompute_name((enum sft_recompute)policy), tape.nodes, tape.buffers,
               (double)tape.step_bytes / 0x1p30, share);
        ck_assert_double_le(share, 1.03);
    }
    ck_assert_uint_lt(bytes[SFT_RECOMPUTE_FULL] * 4, bytes[SFT_RECOMPUTE_NONE]);
}
END_TEST

static int count_ops(const struct sft_tape *tape, enum sk_op op, const char *name)
{
    int count = 0;
    for (int32_t i = 0; i < tape->nodes; i++) {
        for (int k = 0; tape->node[i].op == op && k < tape->node[i].operands; k++) {
            int32_t b = tape->node[i].operand[k].buffer;
            if (b >= 0 && strcmp(tape->buffer[b].name, name) == 0) {
                count++;
                break;
            }
        }
    }
    return count;
}

START_TEST(nothing_is_computed_below_the_lowest_adapter)
{
    struct sf_model_spec spec;
    struct sft_lora lora;
    struct sft_ports ports;
    struct sft_tape tape;
    tiny_spec(&spec, &arena, 4, false);
    static const char *const one[] = {"layers.2.self_attn.v_proj"};
    plan_lora(&lora, &spec, one, 1);
    ck_assert_int_eq(lora.modules, 1);
    make_tape(&tape, &ports, &spec, &lora, (struct sft_shape){8, 1, 8}, SFT_TRAIN,
              SFT_RECOMPUTE_NONE);
    for (int32_t i = tape.turn; i < tape.nodes; i++)
        for (int k = 0; k < tape.node[i].operands; k++)
            if (tape.node[i].operand[k].buffer >= 0)
                ck_assert_int_ge(tape.buffer[tape.node[i].operand[k].buffer].layer % 4, -1);
    /* layer 3 whole, layer 2 down to v: its q and k get no gradient, and v's dx is not wanted */
    ck_assert_int_eq(count_ops(&tape, SK_LINEAR_BACKWARD, "layer 3 q"), 1);
    ck_assert_int_eq(count_ops(&tape, SK_LINEAR_BACKWARD, "layer 2 v"), 1);
    ck_assert_int_eq(count_ops(&tape, SK_LINEAR_BACKWARD, "layer 2 q"), 0);
    ck_assert_int_eq(count_ops(&tape, SK_LINEAR_BACKWARD, "layer 1 expert_down"), 0);
    const struct sft_node *last = &tape.node[tape.nodes - 1];
    ck_assert_int_eq(last->op, SK_LINEAR_BACKWARD);
    ck_assert_int_eq(last->operand[0].buffer, -1);
}
END_TEST

START_TEST(evaluation_has_no_backward_and_less_memory)
{
    struct sf_model_spec spec;
    struct sft_lora lora;
    struct sft_ports ports;
    struct sft_tape train, eval;
    struct sft_shape shape = {64, 1, 64};
    tiny_spec(&spec, &arena, 4, true);
    plan_lora(&lora, &spec, tiny_targets, 7);
    make_tape(&train, &ports, &spec, &lora, shape, SFT_TRAIN, SFT_RECOMPUTE_NONE);
    make_tape(&eval, &ports, &spec, &lora, shape, SFT_EVAL, SFT_RECOMPUTE_NONE);
    ck_assert_int_eq(eval.turn, eval.nodes);
    ck_assert_int_eq(train.turn, eval.turn);
    ck_assert_uint_lt(eval.step_bytes * 2, train.step_bytes);
}
END_TEST

START_TEST(recompute_runs_each_forward_node_at_most_twice)
{
    struct sf_model_spec spec;
    struct sft_lora lora;
    struct sft_ports ports;
    struct sft_tape none, layers;
    struct sft_shape shape = {64, 1, 64};
    tiny_spec(&spec, &arena, 4, true);
    plan_lora(&lora, &spec, tiny_targets, 7);
    make_tape(&none, &ports, &spec, &lora, shape, SFT_TRAIN, SFT_RECOMPUTE_NONE);
    make_tape(&layers, &ports, &spec, &lora, shape, SFT_TRAIN, SFT_RECOMPUTE_FULL);
    int again = 0;
    for (int32_t i = 0; i < layers.nodes; i++) {
        again += layers.node[i].again;
        ck_assert(!layers.node[i].again || i >= layers.turn);
    }
    ck_assert_int_eq(layers.nodes, none.nodes + again);
    ck_assert_int_gt(again, none.turn / 2);
    ck_assert_int_lt(again, none.turn);
    /* What ends a layer is not wanted again: the next layer's input was kept. */
    ck_assert_int_eq(count_ops(&layers, SK_COMBINE_FORWARD, "layers.0.feed_forward again"), 0);
    ck_assert_int_eq(count_ops(&layers, SK_ATTENTION_FORWARD, "layers.0.attention again"), 1);
}
END_TEST

START_TEST(senseless_shapes_and_models_are_refused)
{
    struct sf_model_spec spec;
    struct sft_ports ports;
    struct sft_tape tape;
    struct sf_err err = {0};
    tiny_spec(&spec, &arena, 2, false);
    sft_tape_begin(&tape, &arena);
    struct sft_shape shape = {8, 1, 9};
    assert_fails(sft_model_emit(&tape, &ports, sk_ops_cpu(), &spec, NULL, shape, SFT_EVAL, &err),
                 SF_EINVAL, "8 rows", err);
    spec.experts_per_token = 2;
    shape.longest = 8;
    assert_fails(sft_model_emit(&tape, &ports, sk_ops_cpu(), &spec, NULL, shape, SFT_EVAL, &err),
                 SF_EUNSUPPORTED, "2 experts", err);
}
END_TEST

static Suite *model_suite(void)
{
    Suite *suite = suite_create("model");
    TCase *tc = tcase_create("model");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, training_tapes_pack_within_three_percent);
    tcase_add_test(tc, scout_tapes_pack_within_three_percent);
    tcase_add_test(tc, nothing_is_computed_below_the_lowest_adapter);
    tcase_add_test(tc, evaluation_has_no_backward_and_less_memory);
    tcase_add_test(tc, recompute_runs_each_forward_node_at_most_twice);
    tcase_add_test(tc, senseless_shapes_and_models_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(model_suite)
