/* NaN in a step: where it began is told, down to layer and rows; a step may be skipped. */
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "tests/train/flat_rows.h"
#include "tests/train/tiny.h"
#include "train/trainer.h"
#include "train/trouble.h"

enum { ROWS = 6, POISON = 0x7fc0 /* NaN in bfloat16 */ };

static struct tiny t;
static struct sf_err err;
static struct sft_dataset data;
static char notes[4096];
static struct sft_metrics_step seen[32];

static void setup(void)
{
    tiny_open(&t, 1);
    tiny_rows(&data, &t, "data.jsonl", ROWS, 1);
    notes[0] = 0;
}

static void teardown(void)
{
    sft_dataset_free(&data);
    tiny_close(&t);
}

static void poison(enum sf_part part, int32_t layer, int32_t expert, int64_t first, int64_t count)
{
    const struct sk_matrix *m = sft_image_matrices(t.image, (struct sf_role){part, layer, -1});
    union {
        const void *read;
        uint16_t *write;
    } data_of = {m[expert < 0 ? 0 : expert].data};
    for (int64_t i = 0; i < count; i++)
        data_of.write[first + i] = POISON;
}

static void on_note(void *context, const char *text)
{
    (void)context;
    strncat(notes, text, sizeof notes - strlen(notes) - 2);
    strcat(notes, "\n");
}

static void on_step(void *context, const struct sft_metrics_step *row, int64_t steps)
{
    (void)context, (void)steps;
    ck_assert_int_le(row->step, 32);
    seen[row->step - 1] = *row;
}

static struct sft_trainer_config config(void)
{
    return (struct sft_trainer_config){.spec = &t.spec,
                                       .lora = &t.lora,
                                       .ops = sk_ops_cpu(),
                                       .ctx = &t.ctx,
                                       .data = &data,
                                       .train_batch = 2,
                                       .accumulation = 1,
                                       .max_steps = 6,
                                       .schedule = SFT_SCHEDULE_CONSTANT,
                                       .learning_rate = 1e-3,
                                       .beta1 = 0.9,
                                       .beta2 = 0.999,
                                       .epsilon = 1e-8,
                                       .max_grad_norm = 1,
                                       .output = {.directory = scout_scratch_path("run"),
                                                  .base_model = "tiny",
                                                  .prefix = SF_ADAPTER_TEXT},
                                       .on_step = on_step,
                                       .on_note = on_note};
}

static int run(struct sft_trainer_result *out, const struct sft_trainer_config *c)
{
    struct sft_trainer *trainer;
    assert_ok(sft_checkpoint_prepare(c->output.directory, SFT_OUTPUT_OVERWRITE, &err), err);
    assert_ok(sft_trainer_open(&trainer, c, &err), err);
    int code = sft_trainer_run(out, trainer, t.image, &err);
    sft_trainer_close(trainer);
    return code;
}

static void check_says(const struct sft_trainer_config *c, const char *what)
{
    struct sft_trainer_result r;
    assert_fails(run(&r, c), SF_ENUMERIC, what, err);
}

/* A token of the fourth row that stands nowhere else: its embedding is no number any more. Returns its
 * number in the row, from 1. */
static long long poison_token(void)
{
    int64_t hidden = t.spec.hidden;
    static struct flat_rows flat;
    flatten(&flat, &data);
    for (int64_t i = flat.start[3]; i < flat.start[4]; i++) {
        int64_t times = 0;
        for (int64_t k = 0; k < data.tokens; k++)
            times += flat.id[k] == flat.id[i];
        if (times > 1)
            continue;
        poison(SF_PART_EMBEDDING, -1, -1, flat.id[i] * hidden, hidden);
        return i - flat.start[3] + 1;
    }
    ck_abort_msg("every token of the row stands elsewhere, too");
    return 0;
}

START_TEST(a_token_is_named_with_its_row)
{
    struct sft_trainer_config c = config();
    char row[256], wanted[512];
    snprintf(row, sizeof row, "in 1 of 11 tokens: token %lld of row 4 of the data (%s, line 4)",
             poison_token(), sft_tokens_string(data.source, 0));
    snprintf(
        wanted, sizeof wanted,
        "step 2: numbers are not finite: embedding (embed_forward) was the first result that is "
        "not finite, %s",
        row);
    check_says(&c, wanted);
    c.accumulation = 3; /* in the second micro-batch of the first step */
    wanted[5] = '1';
    check_says(&c, wanted);
    c.shuffle = true; /* wherever the row comes */
    check_says(&c, strstr(row, "token "));
}
END_TEST

static const struct {
    enum sf_part part;
    int32_t layer, expert;
    const char *says;
} weights[] = {
    {SF_PART_Q, 2, -1, "layers.2.q (linear_forward) was the first result"},
    {SF_PART_O, 1, -1, "layers.1.o (linear_forward) was the first result"},
    {SF_PART_INPUT_NORM, 3, -1, "layers.3.input_norm (rmsnorm_forward) was the first result"},
    {SF_PART_ROUTER, 1, -1, "route_forward (layers.1.router.u): a router logit of token 0 is NaN"},
    {SF_PART_SHARED_UP, 0, -1, "layers.0.shared.gate_up (linear_forward) was the first result"},
    {SF_PART_DENSE_DOWN, 2, -1, "layers.2.dense (linear_forward) was the first result"},
    {SF_PART_FINAL_NORM, -1, -1, "final_norm (rmsnorm_forward) was the first result"},
    {SF_PART_HEAD, -1, -1, "the tokens' losses (head_loss) was the first result"},
};

/* One weight of a matrix: its layer is named, with full recomputation as without. */
START_TEST(a_layer_is_named)
{
    struct sft_trainer_config c = config();
    poison(weights[_i].part, weights[_i].layer, weights[_i].expert, 0, 1);
    check_says(&c, weights[_i].says);
    c.policy = sft_policy_of(SFT_RECOMPUTE_FULL, t.spec.layers);
    check_says(&c, weights[_i].says);
}
END_TEST

/* Rows of experts stand in another order: those that are told are the tokens that went there. */
START_TEST(an_experts_tokens_are_told)
{
    struct sft_trainer_config c = config();
    int64_t rows = 0, all = 0;
    for (int32_t expert = 0; expert < 4; expert++) {
        tiny_close(&t);
        tiny_open(&t, 1);
        poison(SF_PART_EXPERT_UP, 0, expert, 0, 80 * 64);
        struct sft_trainer_result r;
        if (run(&r, &c) != SF_ENUMERIC)
            continue;
        ck_assert_msg(strstr(err.message, "layers.0.experts.gate_up (linear_forward) was the first "
                                          "result that is not finite, in ") != NULL,
                      "%s", err.message);
        if (sscanf(strstr(err.message, " in ") + 4, "%lld of %lld", (long long *)&rows,
                   (long long *)&all) == 2)
            ck_assert(rows > 0 && rows < all);
    }
    ck_assert_int_gt(all, 0);
}
END_TEST

/* All activations are finite, one module's gradient is not. */
START_TEST(a_gradient_is_named)
{
    struct sft_trainer_config c = config();
    struct sft_lora_module *m = &t.lora.module[5];
    char name[SF_ROLE_TEXT], wanted[128];
    memset(t.lora.parameters + m->b, 0, (size_t)sft_lora_b_count(m) * sizeof(float));
    m->scale = 3e38;
    for (int64_t i = 0; i < sft_lora_a_count(m); i++)
        t.lora.parameters[m->a + i] *= 1e6f;
    snprintf(wanted, sizeof wanted, "gradients of 1 modules are not, first %s lora_B",
             sf_role_format(name, m->role));
    check_says(&c, wanted);
    ck_assert_ptr_nonnull(strstr(err.message, "step 1: the gradient norm is "));
}
END_TEST

START_TEST(an_adapter_that_broke_is_told)
{
    struct sft_trainer_config c = config();
    t.lora.parameters[t.lora.module[3].b] = INFINITY;
    check_says(&c, "the adapter itself is not finite any more, in 1 modules, first ");
    ck_assert(!sf_file_exists(scout_scratch_path("run/adapter_model.safetensors")));
}
END_TEST

/* ---- skipping ---- */

START_TEST(a_skipped_step_changes_nothing)
{
    struct sft_trainer_config c = config();
    struct sft_trainer_result r;
    poison_token();
    c.skip_nan = true;
    c.weight_decay = 0.1;
    c.save_steps = 2;
    assert_ok(run(&r, &c), err);
    ck_assert_int_eq(r.state.step, 6);
    ck_assert_int_eq(r.state.skipped, 2); /* once an epoch */
    ck_assert(!seen[0].skipped && seen[1].skipped && !seen[2].skipped && seen[4].skipped);
    ck_assert(isnan(seen[1].loss) && isfinite(r.state.last_loss));
    ck_assert_ptr_nonnull(strstr(notes, "step 2 is skipped: numbers are not finite: embedding"));
    for (int64_t i = 0; i < t.lora.count; i++)
        ck_assert(isfinite(t.lora.parameters[i]));
    char *rows;
    assert_ok(
        sf_read_file(&rows, NULL, &t.arena, scout_scratch_path("run/metrics.jsonl"), 1 << 20, &err),
        err);
    ck_assert_ptr_nonnull(strstr(rows, "\"loss\": null, \"grad_norm\": null, "));
    ck_assert_ptr_nonnull(strstr(rows, "\"skipped\": true"));
}
END_TEST

START_TEST(skipping_ends)
{
    struct sft_trainer_config c = config();
    struct sft_trainer_result r;
    poison(SF_PART_Q, 0, -1, 0, 1);
    c.skip_nan = true;
    c.max_steps = 20;
    assert_fails(run(&r, &c), SF_ENUMERIC,
                 "step 10: numbers are not finite, as in the 9 steps before: ", err);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("trouble");
    TCase *tc = tcase_create("trouble");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, a_token_is_named_with_its_row);
    tcase_add_loop_test(tc, a_layer_is_named, 0, sizeof weights / sizeof weights[0]);
    tcase_add_test(tc, an_experts_tokens_are_told);
    tcase_add_test(tc, a_gradient_is_named);
    tcase_add_test(tc, an_adapter_that_broke_is_told);
    tcase_add_test(tc, a_skipped_step_changes_nothing);
    tcase_add_test(tc, skipping_ends);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
