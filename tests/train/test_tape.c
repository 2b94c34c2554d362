#include "train/plan/tape.h"

#include <string.h>

#include "kernels/linear.h"
#include "kernels/rmsnorm.h"
#include "kernels/swiglu.h"
#include "tests/support/support.h"

static struct sf_arena arena;
static struct sft_tape tape;

static void setup(void)
{
    arena = (struct sf_arena){0};
    sft_tape_begin(&tape, &arena);
}

static void teardown(void)
{
    sf_arena_free(&arena);
}

static int32_t step_buffer(const char *name)
{
    return sft_tape_buffer(&tape, SFT_STEP, SFT_ACTIVATION, 1000, "%s", name);
}

static void emit_swiglu(int32_t h, int32_t gate, int32_t up)
{
    struct sk_swiglu_forward args = {.rows = 1, .width = 1, .stride = 1};
    struct sft_ref refs[] = {sft_at(h, 0), sft_at(gate, 0), sft_at(up, 0)};
    sft_tape_emit(&tape, SK_SWIGLU_FORWARD, &args, refs, 3);
}

static void emit_swiglu_backward(int32_t dg, int32_t du, int32_t dh, int32_t gate, int32_t up)
{
    struct sk_swiglu_backward args = {.rows = 1, .width = 1, .stride = 1};
    struct sft_ref refs[] = {sft_at(dg, 0), sft_at(du, 0), sft_at(dh, 0), sft_at(gate, 0),
                             sft_at(up, 0)};
    sft_tape_emit(&tape, SK_SWIGLU_BACKWARD, &args, refs, 5);
}

static int finish(struct sf_err *err)
{
    return sft_tape_finish(&tape, sk_ops_cpu(), 1, err);
}

START_TEST(lifetimes_run_from_first_to_last_use)
{
    struct sf_err err = {0};
    int32_t in = sft_tape_buffer(&tape, SFT_KEPT, SFT_PORT, 10, "in");
    int32_t a = step_buffer("a"), b = step_buffer("b");
    int32_t out = sft_tape_buffer(&tape, SFT_KEPT, SFT_PORT, 10, "out");
    emit_swiglu(a, in, in);
    emit_swiglu(b, a, in);
    emit_swiglu(out, b, b);
    emit_swiglu(out, b, b);
    assert_ok(finish(&err), err);
    ck_assert_int_eq(tape.nodes, 4);
    ck_assert_int_eq(tape.buffer[in].birth, 0);
    ck_assert_int_eq(tape.buffer[in].death, 3);
    ck_assert_int_eq(tape.buffer[a].birth, 0);
    ck_assert_int_eq(tape.buffer[a].death, 1);
    ck_assert_int_eq(tape.buffer[b].birth, 1);
    ck_assert_int_eq(tape.buffer[b].death, 3);
    ck_assert_int_eq(tape.buffer[out].birth, 2);
    ck_assert_uint_eq(tape.live_bytes, 256 + 1024 + 1024);
    ck_assert_uint_eq(tape.step_bytes, 256 + 1024 + 1024);
}
END_TEST

START_TEST(reading_before_writing_is_our_mistake_and_named)
{
    struct sf_err err = {0};
    int32_t never = step_buffer("never written");
    int32_t out = sft_tape_buffer(&tape, SFT_KEPT, SFT_PORT, 10, "out");
    emit_swiglu(out, never, never);
    assert_fails(finish(&err), SF_EINVAL, "swiglu_forward reads never written", err);
}
END_TEST

START_TEST(nodes_nobody_reads_fall_away)
{
    struct sf_err err = {0};
    int32_t in = sft_tape_buffer(&tape, SFT_KEPT, SFT_PORT, 10, "in");
    int32_t a = step_buffer("a"), dead = step_buffer("dead"), deader = step_buffer("deader");
    int32_t out = sft_tape_buffer(&tape, SFT_KEPT, SFT_PORT, 10, "out");
    emit_swiglu(a, in, in);
    emit_swiglu(dead, a, in);
    emit_swiglu(deader, dead, a);
    sft_tape_turn(&tape);
    emit_swiglu(out, a, a);
    assert_ok(finish(&err), err);
    ck_assert_int_eq(tape.nodes, 2);
    ck_assert_int_eq(tape.turn, 1);
    ck_assert_int_eq(tape.buffer[dead].birth, -1);
}
END_TEST

/* in -> a -> b -> c | backward reads c, then a; all three are forgotten. */
static void emit_chain(int32_t *a, int32_t *b, int32_t *c, enum sft_class class)
{
    int32_t in = sft_tape_buffer(&tape, SFT_KEPT, SFT_PORT, 10, "in");
    int32_t out = sft_tape_buffer(&tape, SFT_KEPT, SFT_PORT, 10, "out");
    int32_t out2 = sft_tape_buffer(&tape, SFT_KEPT, SFT_PORT, 10, "out2");
    *a = sft_tape_buffer(&tape, class, SFT_ACTIVATION, 1000, "a");
    *b = sft_tape_buffer(&tape, class, SFT_ACTIVATION, 1000, "b");
    *c = sft_tape_buffer(&tape, class, SFT_ACTIVATION, 1000, "c");
    emit_swiglu(*a, in, in);
    emit_swiglu(*b, *a, in);
    emit_swiglu(*c, *b, in);
    sft_tape_turn(&tape);
    emit_swiglu(out, *c, in);
    emit_swiglu(out2, *a, in);
}

START_TEST(forgotten_buffers_are_made_again_down_to_kept_ones)
{
    struct sf_err err = {0};
    int32_t a, b, c;
    emit_chain(&a, &b, &c, SFT_RECOMPUTE);
    assert_ok(finish(&err), err);
    ck_assert_int_eq(tape.nodes, 3 + 3 + 2);
    ck_assert_int_eq(tape.turn, 3);
    static const char *const made[] = {"a again", "b again", "c again"};
    for (int i = 0; i < 3; i++) {
        ck_assert(tape.node[3 + i].again);
        ck_assert_str_eq(tape.buffer[tape.node[3 + i].operand[0].buffer].name, made[i]);
    }
    ck_assert_int_eq(tape.buffer[a].death, 1); /* forgotten after its last forward use */
    ck_assert_str_eq(tape.buffer[tape.node[7].operand[1].buffer].name, "a again");
}
END_TEST

START_TEST(kept_buffers_stop_the_recomputation)
{
    struct sf_err err = {0};
    int32_t a, b, c;
    emit_chain(&a, &b, &c, SFT_RECOMPUTE);
    tape.buffer[b].class = SFT_STEP;
    tape.buffer[a].class = SFT_STEP;
    assert_ok(finish(&err), err);
    ck_assert_int_eq(tape.nodes, 3 + 1 + 2);
    ck_assert_int_eq(tape.node[3].operand[1].buffer, b);
}
END_TEST

START_TEST(a_kept_input_that_has_changed_is_refused)
{
    struct sf_err err = {0};
    int32_t in = sft_tape_buffer(&tape, SFT_KEPT, SFT_PORT, 10, "in");
    int32_t out = sft_tape_buffer(&tape, SFT_KEPT, SFT_PORT, 10, "out");
    int32_t a = step_buffer("a"), up = step_buffer("up");
    int32_t b = sft_tape_buffer(&tape, SFT_RECOMPUTE, SFT_ACTIVATION, 1000, "b");
    emit_swiglu(a, in, in);
    emit_swiglu(up, in, in);
    emit_swiglu(b, a, up);
    sft_tape_turn(&tape);
    emit_swiglu_backward(a, up, in, a, up); /* in place: a is no longer what b was made from */
    emit_swiglu(out, b, up);
    assert_fails(finish(&err), SF_EINVAL, "swiglu_forward needs a again", err);
}
END_TEST

START_TEST(running_out_of_memory_is_reported_once)
{
    struct sf_err err = {0};
    int32_t a, b, c;
    sft_tape_buffer(&tape, SFT_STEP, SFT_SMALL, 1, "first");
    tape.failed = true;
    emit_chain(&a, &b, &c, SFT_STEP);
    assert_fails(finish(&err), SF_ENOMEM, "no memory for a tape", err);
}
END_TEST

static Suite *tape_suite(void)
{
    Suite *suite = suite_create("tape");
    TCase *tc = tcase_create("tape");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, lifetimes_run_from_first_to_last_use);
    tcase_add_test(tc, reading_before_writing_is_our_mistake_and_named);
    tcase_add_test(tc, nodes_nobody_reads_fall_away);
    tcase_add_test(tc, forgotten_buffers_are_made_again_down_to_kept_ones);
    tcase_add_test(tc, kept_buffers_stop_the_recomputation);
    tcase_add_test(tc, a_kept_input_that_has_changed_is_refused);
    tcase_add_test(tc, running_out_of_memory_is_reported_once);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(tape_suite)
