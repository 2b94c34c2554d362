/* The loop of a run: what a step takes, what is written when, how it stops. Over a small model. */
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "tests/train/tiny.h"
#include "train/trainer.h"

enum { ROWS = 10, MOST_STEPS = 64 };

static struct tiny t;
static struct sf_err err;
static struct sft_dataset data, eval;
static float *start; /* the adapter as it was */
static struct {
    struct sft_metrics_step step[MOST_STEPS];
    int steps, evals;
    double eval_loss;
} seen;

static void setup(void)
{
    tiny_open(&t, 1);
    tiny_rows(&data, &t, "data.jsonl", ROWS, 1);
    tiny_rows(&eval, &t, "eval.jsonl", 5, 2);
    start = sf_arena_array(&t.arena, (uint64_t)t.lora.count, sizeof *start);
    memcpy(start, t.lora.parameters, (size_t)t.lora.count * sizeof *start);
}

static void teardown(void)
{
    sft_dataset_free(&data);
    sft_dataset_free(&eval);
    tiny_close(&t);
}

static void on_step(void *context, const struct sft_metrics_step *row, int64_t steps)
{
    (void)context;
    ck_assert_int_lt(seen.steps, MOST_STEPS);
    ck_assert_int_le(row->step, steps);
    seen.step[seen.steps++] = *row;
}

static void on_eval(void *context, const struct sft_metrics_eval *row, int64_t steps)
{
    (void)context, (void)steps;
    seen.evals++;
    seen.eval_loss = row->loss;
}

static struct sft_trainer_config config(void)
{
    return (struct sft_trainer_config){.spec = &t.spec,
                                       .lora = &t.lora,
                                       .ops = sk_ops_cpu(),
                                       .ctx = &t.ctx,
                                       .data = &data,
                                       .train_batch = 4,
                                       .eval_batch = 2,
                                       .accumulation = 1,
                                       .epochs = 1,
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
                                       .on_eval = on_eval};
}

static int try_run(struct sft_trainer_result *out, const struct sft_trainer_config *c)
{
    struct sft_trainer *trainer;
    memset(&seen, 0, sizeof seen);
    memcpy(t.lora.parameters, start, (size_t)t.lora.count * sizeof *start);
    memset(sft_lora_state(&t.lora, SFT_LORA_M), 0, (size_t)t.lora.count * sizeof(float));
    memset(sft_lora_state(&t.lora, SFT_LORA_V), 0, (size_t)t.lora.count * sizeof(float));
    assert_ok(sft_checkpoint_prepare(c->output.directory, SFT_OUTPUT_OVERWRITE, &err), err);
    int code = sft_trainer_open(&trainer, c, &err);
    if (code)
        return code;
    code = sft_trainer_run(out, trainer, t.image, &err);
    sft_trainer_close(trainer);
    return code;
}

static struct sft_trainer_result run(const struct sft_trainer_config *c)
{
    struct sft_trainer_result result;
    assert_ok(try_run(&result, c), err);
    return result;
}

static bool exists(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", scout_scratch_path("run"), name);
    return sf_file_exists(path);
}

/* ---- what a step takes ---- */

START_TEST(an_epochs_last_step_takes_what_is_left)
{
    struct sft_trainer_config c = config();
    c.accumulation = 2;
    c.epochs = 1.5;
    struct sft_trainer_result r = run(&c);
    /* rows of 3..12 tokens: 8 rows, then 2; half an epoch more is one step */
    ck_assert_int_eq(r.state.step, 3);
    ck_assert_int_eq(seen.step[0].tokens, 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10);
    ck_assert_int_eq(seen.step[1].tokens, 11 + 12);
    ck_assert_int_eq(seen.step[2].tokens, seen.step[0].tokens);
    ck_assert_double_eq(seen.step[1].epoch, 1);
    c.max_steps = 5;
    ck_assert_int_eq(run(&c).state.step, 5);
}
END_TEST

/* The same rows in one micro-batch or in several: the same loss and gradient. */
START_TEST(accumulation_changes_nothing)
{
    static const int64_t ways[][2] = {{8, 1}, {4, 2}, {2, 4}, {1, 8}};
    struct sft_metrics_step first[2] = {{0}};
    for (int way = 0; way < 4; way++) {
        struct sft_trainer_config c = config();
        c.train_batch = ways[way][0];
        c.accumulation = ways[way][1];
        run(&c);
        ck_assert_int_eq(seen.steps, 2);
        if (way == 0)
            memcpy(first, seen.step, sizeof first);
        for (int i = 0; i < 2; i++) {
            ck_assert_int_eq(seen.step[i].targets, first[i].targets);
            ck_assert_double_eq_tol(seen.step[i].loss, first[i].loss, 1e-5);
            ck_assert_double_eq_tol(seen.step[i].grad_norm, first[i].grad_norm,
                                    1e-5 * first[i].grad_norm);
        }
    }
}
END_TEST

START_TEST(shuffling_depends_on_the_seed_alone)
{
    struct sft_trainer_config c = config();
    int64_t tokens[2][6];
    c.shuffle = true;
    c.train_batch = 1;
    c.max_steps = 2 * ROWS;
    for (int again = 0; again < 2; again++) {
        c.seed = 3;
        run(&c);
        for (int i = 0; i < 6; i++)
            tokens[again][i] = seen.step[i].tokens;
    }
    ck_assert(memcmp(tokens[0], tokens[1], sizeof tokens[0]) == 0);
    for (int epoch = 0; epoch < 2; epoch++) { /* each row once */
        int rows = 0;
        for (int i = 0; i < ROWS; i++)
            rows |= 1 << (seen.step[epoch * ROWS + i].tokens - 3);
        ck_assert_int_eq(rows, (1 << ROWS) - 1);
    }
    c.seed = 4;
    run(&c);
    for (int i = 0; i < 6; i++)
        tokens[1][i] = seen.step[i].tokens;
    ck_assert(memcmp(tokens[0], tokens[1], sizeof tokens[0]) != 0);
}
END_TEST

START_TEST(it_learns_and_recomputing_changes_nothing)
{
    struct sft_trainer_config c = config();
    c.max_steps = 40;
    c.learning_rate = 1e-2;
    struct sft_trainer_result kept = run(&c);
    ck_assert_double_lt(kept.state.last_loss, 0.8 * kept.state.first_loss);
    c.policy = sft_policy_of(SFT_RECOMPUTE_FULL, t.spec.layers);
    struct sft_trainer_result again = run(&c);
    ck_assert_double_eq(again.state.last_loss, kept.state.last_loss);
}
END_TEST

/* The rate of the schedule's step s goes into step s + 1: with warm-up the first changes nothing.
 */
START_TEST(the_first_rate_of_a_warm_up_is_zero)
{
    struct sft_trainer_config c = config();
    c.schedule = SFT_SCHEDULE_LINEAR;
    c.warmup_ratio = 0.5;
    c.max_steps = 1;
    run(&c);
    ck_assert_double_eq(seen.step[0].learning_rate, 0);
    ck_assert(memcmp(t.lora.parameters, start, (size_t)t.lora.count * sizeof *start) == 0);
    c.max_steps = 4;
    run(&c);
    ck_assert_double_eq(seen.step[1].learning_rate, 0.5e-3);
    ck_assert_double_eq(seen.step[2].learning_rate, 1e-3);
    ck_assert_double_eq(seen.step[3].learning_rate, 0.5e-3);
}
END_TEST

/* ---- what is written ---- */

static void check_line(const struct sf_json *row, const char *const *keys, int count)
{
    ck_assert_int_eq(sf_json_count(row), count);
    for (int i = 0; i < count; i++)
        ck_assert_msg(sf_json_get(row, keys[i]) != NULL, "a line without %s", keys[i]);
}

START_TEST(metrics_and_checkpoints_come_when_due)
{
    static const char *const step_keys[] = {"step",
                                            "epoch",
                                            "loss",
                                            "grad_norm",
                                            "learning_rate",
                                            "tokens",
                                            "targets",
                                            "seconds",
                                            "tokens_per_second",
                                            "model_flops_per_second",
                                            "expert_load_mean",
                                            "expert_load_max",
                                            "time"};
    static const char *const eval_keys[] = {
        "step", "epoch", "eval_loss", "eval_perplexity", "eval_targets", "eval_seconds", "time"};
    static const bool is_eval[] = {true, false, false, true, false, false, true, false, true};
    struct sft_trainer_config c = config();
    char *text, *line;
    int lines = 0;
    c.eval = &eval;
    c.max_steps = 5;
    c.eval_steps = 2;
    c.save_steps = 2;
    struct sft_trainer_result r = run(&c);
    assert_ok(sf_read_file(&text, NULL, &t.arena,
                           sf_path_join(&t.arena, c.output.directory, "metrics.jsonl"), 1 << 20,
                           &err),
              err);
    for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        struct sf_json *row;
        assert_ok(sf_json_parse(&row, line, strlen(line), &err), err);
        ck_assert_int_lt(lines, 9);
        check_line(row, is_eval[lines] ? eval_keys : step_keys, is_eval[lines] ? 7 : 13);
        sf_json_free(row);
    }
    ck_assert_int_eq(lines, 9);
    ck_assert_int_eq(seen.evals, 4);
    ck_assert_double_eq(r.state.eval_last, seen.eval_loss);
    ck_assert_double_ne(r.state.eval_before, r.state.eval_last);
    ck_assert(exists("checkpoint-2/adapter_model.safetensors"));
    ck_assert(exists("checkpoint-4/adapter_config.json"));
    ck_assert(exists("checkpoint-5/resume.json")); /* the last step's, whatever it is */
    ck_assert(!exists("checkpoint-3"));
    ck_assert(r.saved && exists("adapter_model.safetensors"));
}
END_TEST

START_TEST(what_is_saved_is_what_was_trained)
{
    struct sft_trainer_config c = config();
    struct sf_adapter adapter;
    run(&c);
    float *trained = sf_arena_array(&t.arena, (uint64_t)t.lora.count, sizeof *trained);
    memcpy(trained, t.lora.parameters, (size_t)t.lora.count * sizeof *trained);
    ck_assert(memcmp(trained, start, (size_t)t.lora.count * sizeof *start) != 0);
    assert_ok(sf_adapter_read(&adapter, &t.arena, c.output.directory, &t.spec, &err), err);
    assert_ok(sft_lora_load(&t.lora, &adapter, &err), err);
    ck_assert(memcmp(trained, t.lora.parameters, (size_t)t.lora.count * sizeof *start) == 0);
    ck_assert_str_eq(adapter.base_model, "tiny");
}
END_TEST

/* Loss is a mean over targets, however rows fall into micro-batches. */
START_TEST(evaluation_does_not_depend_on_batches)
{
    double loss[3];
    for (int64_t rows = 1; rows <= 3; rows++) {
        struct sft_trainer_config c = config();
        c.eval = &eval;
        c.eval_batch = rows;
        loss[rows - 1] = run(&c).state.eval_before;
    }
    ck_assert_double_eq_tol(loss[1], loss[0], 1e-6);
    ck_assert_double_eq_tol(loss[2], loss[0], 1e-6);
}
END_TEST

/* ---- how it stops ---- */

static int steps_until_stop;

static bool stop(void)
{
    return seen.steps >= steps_until_stop;
}

START_TEST(an_interruption_saves_what_is_there)
{
    struct sft_trainer_config c = config();
    c.interrupted = stop;
    c.output.directory = scout_scratch_path("stopped");
    c.max_steps = 9;
    steps_until_stop = 0;
    struct sft_trainer_result r = run(&c);
    ck_assert(r.interrupted && !r.saved && r.state.step == 0);
    ck_assert(!sf_file_exists(scout_scratch_path("stopped/adapter_model.safetensors")));
    steps_until_stop = 2;
    r = run(&c);
    ck_assert(r.interrupted && r.saved && r.state.step == 2);
    ck_assert(sf_file_exists(scout_scratch_path("stopped/adapter_model.safetensors")));
}
END_TEST

START_TEST(numbers_that_are_none_stop_the_run)
{
    struct sft_trainer_config c = config();
    struct sft_trainer_result r;
    c.output.directory = scout_scratch_path("nan");
    c.learning_rate = 1e30;
    c.max_steps = 5;
    assert_fails(try_run(&r, &c), SF_ENUMERIC, "step 2: ", err);
    start[0] = NAN;
    assert_fails(try_run(&r, &c), SF_ENUMERIC, "step 1: ", err);
    ck_assert(!sf_file_exists(scout_scratch_path("nan/adapter_model.safetensors")));
}
END_TEST

START_TEST(figures_that_make_no_run_are_refused)
{
    struct sft_trainer *trainer;
    struct sft_trainer_config c = config();
#define REFUSED(field, value, message)                                                             \
    do {                                                                                           \
        c = config();                                                                              \
        c.field = value;                                                                           \
        assert_fails(sft_trainer_open(&trainer, &c, &err), SF_EINVAL, message, err);               \
        ck_assert_ptr_null(trainer);                                                               \
    } while (0)
    REFUSED(train_batch, 0, "0 rows");
    REFUSED(accumulation, 0, "0 micro-batches");
    REFUSED(epochs, 0, "0 epochs");
    REFUSED(max_steps, -1, "epochs");
    REFUSED(learning_rate, 0, "learning rate is 0");
    REFUSED(warmup_ratio, 2, "warm-up");
    REFUSED(beta2, 1, "betas");
    REFUSED(epsilon, 0, "epsilon 0");
    REFUSED(weight_decay, -1, "weight decay -1");
    REFUSED(eval_steps, -1, "every -1 steps");
#undef REFUSED
}
END_TEST

START_TEST(an_adapter_that_is_there_stays)
{
    struct sft_trainer_config c = config();
    const char *directory = scout_scratch_path("kept");
    c.output.directory = directory;
    run(&c);
    assert_fails(sft_checkpoint_prepare(directory, SFT_OUTPUT_NEW, &err), SF_EINVAL,
                 "there is an adapter already", err);
    assert_ok(sft_checkpoint_prepare(directory, SFT_OUTPUT_OVERWRITE, &err), err);
    assert_ok(sft_checkpoint_prepare(scout_scratch_path("a/new/one"), SFT_OUTPUT_NEW, &err), err);
    ck_assert(!sf_file_exists(scout_scratch_path("a/new/one/.writable")));
    assert_ok(sf_write_file(scout_scratch_path("file"), "x", 1, &err), err);
    ck_assert_int_ne(sft_checkpoint_prepare(scout_scratch_path("file/below"), SFT_OUTPUT_NEW, &err),
                     SF_OK);
    ck_assert_ptr_nonnull(strstr(err.message, "file"));
}
END_TEST

/* Ragged rows: the plan's bytes are those the step takes, for the largest micro-batch. */
START_TEST(the_plan_covers_every_micro_batch)
{
    struct sft_trainer *trainer;
    struct sft_trainer_config c = config();
    struct sft_plan plan = {0};
    struct sft_batch_form form;
    assert_ok(sft_batch_form_of(&form, &data, 4, &err), err);
    ck_assert_int_eq(form.tokens, 12 + 11 + 10 + 9);
    ck_assert_int_eq(form.longest, 12);
    ck_assert(form.ragged);
    assert_ok(sft_trainer_open(&trainer, &c, &err), err);
    sft_trainer_plan(&plan, trainer);
    ck_assert_uint_gt(plan.step_bytes, 0);
    ck_assert_uint_eq(plan.adapter_moment_bytes, 2 * plan.adapter_parameter_bytes);
    sft_trainer_close(trainer);
    c.shuffle = true;
    for (c.seed = 0; c.seed < 5; c.seed++) /* whatever rows come together, a tape holds them */
        run(&c);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("trainer");
    TCase *tc = tcase_create("trainer");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, an_epochs_last_step_takes_what_is_left);
    tcase_add_test(tc, accumulation_changes_nothing);
    tcase_add_test(tc, shuffling_depends_on_the_seed_alone);
    tcase_add_test(tc, it_learns_and_recomputing_changes_nothing);
    tcase_add_test(tc, the_first_rate_of_a_warm_up_is_zero);
    tcase_add_test(tc, metrics_and_checkpoints_come_when_due);
    tcase_add_test(tc, what_is_saved_is_what_was_trained);
    tcase_add_test(tc, evaluation_does_not_depend_on_batches);
    tcase_add_test(tc, an_interruption_saves_what_is_there);
    tcase_add_test(tc, numbers_that_are_none_stop_the_run);
    tcase_add_test(tc, figures_that_make_no_run_are_refused);
    tcase_add_test(tc, an_adapter_that_is_there_stays);
    tcase_add_test(tc, the_plan_covers_every_micro_batch);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
