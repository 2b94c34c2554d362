/* A run that is stopped and goes on is, bit for bit, the run that was never stopped. */
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/folders.h"
#include "libformat/base/json.h"
#include "tests/train/tiny.h"
#include "train/trainer.h"

enum { STEPS = 9, ROWS = 7 };

static struct tiny t;
static struct sf_err err;
static struct sft_dataset data, eval;
static uint64_t bytes;       /* of parameters, gradients and moments */
static unsigned char *start; /* the block as it was */
static char notes[1024];
static const char *directory;

static void open_block(enum sft_optim optim)
{
    sft_lora_free(&t.lora);
    t.lora.optim = optim;
    assert_ok(sft_lora_allocate(&t.lora, true, sk_ops_cpu(), &t.ctx, &err), err);
    sft_lora_init(&t.lora, 11);
    bytes = sft_lora_bytes(&t.lora, true);
    start = sf_arena_alloc(&t.arena, bytes);
    memcpy(start, t.lora.block, bytes);
}

static void setup(void)
{
    tiny_open(&t, 1);
    tiny_rows(&data, &t, "data.jsonl", ROWS, 1);
    tiny_rows(&eval, &t, "eval.jsonl", 4, 2);
    directory = sf_arena_strdup(&t.arena, scout_scratch_path("run"));
    open_block(SFT_ADAMW);
    notes[0] = 0;
}

static void teardown(void)
{
    assert_ok(sft_checkpoint_clear(directory, -1, &err), err);
    sft_dataset_free(&data);
    sft_dataset_free(&eval);
    tiny_close(&t);
}

static int64_t stop_at, done;
static bool weightless; /* a session that is expected to compute nothing */

static void on_step(void *context, const struct sft_metrics_step *row, int64_t steps)
{
    (void)context, (void)steps;
    done = row->step;
}

static void on_note(void *context, const char *text)
{
    (void)context;
    strncat(notes, text, sizeof notes - strlen(notes) - 1);
}

static bool stop(void)
{
    return stop_at && done >= stop_at;
}

/* Every kind of thing that a step depends on: shuffling, ragged rows, accumulation, a last step of an
 * epoch that is shorter, warm-up, clipping, decay, evaluations on the way. */
static struct sft_trainer_config config(void)
{
    return (struct sft_trainer_config){
        .spec = &t.spec,
        .lora = &t.lora,
        .ops = sk_ops_cpu(),
        .ctx = &t.ctx,
        .data = &data,
        .eval = &eval,
        .train_batch = 2,
        .eval_batch = 3,
        .accumulation = 3,
        .max_steps = STEPS,
        .shuffle = true,
        .seed = 5,
        .schedule = SFT_SCHEDULE_COSINE,
        .learning_rate = 1e-2,
        .warmup_steps = 2,
        .beta1 = 0.9,
        .beta2 = 0.99,
        .epsilon = 1e-8,
        .weight_decay = 0.1,
        .max_grad_norm = 0.5f,
        .eval_steps = 2,
        .output = {.directory = directory, .base_model = "tiny", .prefix = SF_ADAPTER_TEXT},
        .model_identity = "m1",
        .on_step = on_step,
        .on_note = on_note,
        .interrupted = stop};
}

/* A session of its own: nothing in memory is left of the one before. */
static int session(struct sft_trainer_result *out, const struct sft_trainer_config *c, bool resume)
{
    struct sft_trainer *trainer;
    enum sft_output_mode mode = resume ? SFT_OUTPUT_RESUME : SFT_OUTPUT_OVERWRITE;
    memcpy(t.lora.block, start, bytes);
    done = 0;
    *out = (struct sft_trainer_result){0};
    assert_ok(sft_checkpoint_prepare(directory, mode, &err), err);
    assert_ok(sft_trainer_open(&trainer, c, &err), err);
    int code = resume ? sft_trainer_resume(trainer, &err) : SF_OK;
    if (!code) {
        done = sft_trainer_state(trainer)->step;
        ck_assert_int_eq(sft_trainer_has_work(trainer), !weightless);
        code = sft_trainer_run(out, trainer, weightless ? NULL : t.image, &err);
    }
    sft_trainer_close(trainer);
    return code;
}

static struct sft_trainer_result run(const struct sft_trainer_config *c, bool resume)
{
    struct sft_trainer_result result;
    assert_ok(session(&result, c, resume), err);
    return result;
}

static char *read(const char *name)
{
    char *text;
    assert_ok(
        sf_read_file(&text, NULL, &t.arena, sf_path_join(&t.arena, directory, name), 1 << 24, &err),
        err);
    return text;
}

/* The rows without what a clock says: "step" to "learning_rate" and "eval_loss". */
static char *rows(void)
{
    char *out = sf_arena_strdup(&t.arena, "");
    for (char *line = strtok(read("metrics.jsonl"), "\n"); line; line = strtok(NULL, "\n")) {
        struct sf_json *row;
        assert_ok(sf_json_parse(&row, line, strlen(line), &err), err);
        for (const struct sf_json *v = sf_json_first(row); v; v = sf_json_next(v)) {
            double value = 0;
            if (strstr(sf_json_key(v), "second") || strcmp(sf_json_key(v), "time") == 0)
                continue;
            assert_ok(sf_json_as_double(&value, v, sf_json_key(v), &err), err);
            out = sf_arena_printf(&t.arena, "%s %s %.17g", out, sf_json_key(v), value);
        }
        out = sf_arena_printf(&t.arena, "%s\n", out);
        sf_json_free(row);
    }
    return out;
}

struct end { /* everything that a run leaves */
    unsigned char *block;
    char *rows;
    struct sft_run_state state;
};

static struct end end_of(const struct sft_trainer_result *r)
{
    struct end e = {.block = sf_arena_alloc(&t.arena, bytes), .rows = rows(), .state = r->state};
    memcpy(e.block, t.lora.block, bytes);
    return e;
}

/* Gradients are left out: the first thing that a step does is to clear them. */
static void check_same(const struct end *a, const struct end *b, const char *when)
{
    uint64_t part = (uint64_t)t.lora.count * sizeof(float);
    ck_assert_msg(memcmp(a->block, b->block, part) == 0, "%s: other parameters", when);
    ck_assert_msg(memcmp(a->block + 2 * part, b->block + 2 * part, bytes - 2 * part) == 0,
                  "%s: other moments", when);
    ck_assert_msg(strcmp(a->rows, b->rows) == 0, "%s: rows\n%s, not\n%s", when, b->rows, a->rows);
    ck_assert_msg(memcmp(&a->state, &b->state, sizeof a->state) == 0, "%s: another state", when);
}

static void stop_everywhere(enum sft_optim optim)
{
    struct sft_trainer_config c = config();
    open_block(optim);
    stop_at = 0;
    struct sft_trainer_result r = run(&c, false);
    struct end whole = end_of(&r);
    for (int64_t at = 1; at < STEPS; at++) {
        char when[64];
        snprintf(when, sizeof when, "stopped behind step %lld", (long long)at);
        stop_at = at;
        r = run(&c, false);
        ck_assert(r.interrupted && r.saved);
        ck_assert_int_eq(r.checkpoint, at);
        stop_at = 0;
        r = run(&c, true);
        ck_assert(!r.interrupted);
        ck_assert_int_eq(r.begun, at);
        struct end again = end_of(&r);
        check_same(&whole, &again, when);
    }
    ck_assert_str_eq(notes, "");
}

START_TEST(stopped_anywhere_it_is_the_same_run)
{
    stop_everywhere(SFT_ADAMW);
}
END_TEST

START_TEST(also_with_moments_of_8_bits)
{
    stop_everywhere(SFT_ADAMW_8BIT);
}
END_TEST

START_TEST(also_with_dropout)
{
    assert_ok(sft_lora_drop(&t.lora, 0.3, 17, &err), err);
    stop_everywhere(SFT_ADAMW);
}
END_TEST

/* Stopped after every single step, and with other threads, batches on the way and files in between. */
START_TEST(sessions_of_one_step)
{
    struct sft_trainer_config c = config();
    stop_at = 0;
    struct sft_trainer_result r = run(&c, false);
    struct end whole = end_of(&r);
    for (stop_at = 1; stop_at < STEPS; stop_at++) {
        t.ctx.threads = 1 + (int)stop_at % 2;
        c.save_steps = stop_at % 3;
        c.save_total_limit = 1;
        c.policy =
            sft_policy_of(stop_at % 2 ? SFT_RECOMPUTE_FULL : SFT_RECOMPUTE_NONE, t.spec.layers);
        ck_assert_int_eq(run(&c, stop_at > 1).state.step, stop_at);
    }
    stop_at = 0;
    r = run(&c, true);
    struct end again = end_of(&r);
    check_same(&whole, &again, "stopped at every step");
}
END_TEST

/* Killed between saves: rows behind the checkpoint are cut, and written again. */
START_TEST(rows_behind_the_checkpoint_are_cut)
{
    struct sft_trainer_config c = config();
    stop_at = 0;
    c.save_steps = 3;
    struct sft_trainer_result r = run(&c, false);
    struct end whole = end_of(&r);
    assert_ok(sf_folder_remove(sft_checkpoint_folder(&t.arena, directory, 9), &err), err);
    const char *torn = sf_arena_printf(&t.arena, "%s{\"step\": 99, \"lo", read("metrics.jsonl"));
    for (int way = 0; way < 3; way++) { /* more rows and a torn one; none; other ones */
        const char *text = way == 0 ? torn : way == 1 ? "" : "{\"step\": 1}\n";
        assert_ok(sf_write_file(sf_path_join(&t.arena, directory, "metrics.jsonl"), text,
                                strlen(text), &err),
                  err);
        r = run(&c, true);
        ck_assert_int_eq(r.begun, 6);
        struct end again = end_of(&r);
        check_same(&whole, &again, "killed behind step 9");
        assert_ok(sf_folder_remove(sft_checkpoint_folder(&t.arena, directory, 9), &err), err);
    }
}
END_TEST

START_TEST(a_damaged_checkpoint_is_named_and_the_one_before_taken)
{
    struct sft_trainer_config c = config();
    c.save_steps = 3;
    stop_at = 0;
    struct sft_trainer_result r = run(&c, false);
    struct end whole = end_of(&r);
    const char *path = sf_path_join(&t.arena, directory, "checkpoint-9/optimizer.bin");
    assert_ok(sf_write_file(path, "x", 1, &err), err);
    r = run(&c, true);
    ck_assert_int_eq(r.begun, 6);
    ck_assert_ptr_nonnull(strstr(notes, "checkpoint-9 is not whole and is passed over: "));
    ck_assert_ptr_nonnull(strstr(notes, "optimizer.bin: 1 bytes, not the"));
    struct end again = end_of(&r);
    check_same(&whole, &again, "after damage");
    path = sf_path_join(&t.arena, directory, "checkpoint-9.damaged");
    ck_assert(sf_file_exists(path));
    assert_ok(sf_folder_remove(path, &err), err);
}
END_TEST

START_TEST(a_finished_run_is_finished)
{
    struct sft_trainer_config c = config();
    c.save_steps = 4;
    stop_at = 0;
    struct sft_trainer_result r = run(&c, false);
    struct end whole = end_of(&r);
    weightless = true;
    r = run(&c, true);
    weightless = false;
    ck_assert_int_eq(r.begun, STEPS);
    struct end again = end_of(&r);
    check_same(&whole, &again, "finished before");
}
END_TEST

START_TEST(without_a_checkpoint_it_begins)
{
    struct sft_trainer_config c = config();
    directory = sf_arena_strdup(&t.arena, scout_scratch_path("fresh"));
    c.output.directory = directory;
    stop_at = 0;
    ck_assert_int_eq(run(&c, true).state.step, STEPS);
    ck_assert_ptr_nonnull(strstr(notes, "no checkpoint yet; the run begins at its beginning"));
}
END_TEST

/* ---- another run is refused ---- */

static void check_refused(const struct sft_trainer_config *c, const char *message)
{
    struct sft_trainer_result r;
    assert_fails(session(&r, c, true), SF_EINVAL, message, err);
}

START_TEST(what_changes_the_arithmetic_is_refused)
{
    struct sft_trainer_config c = config();
    stop_at = 4;
    run(&c, false);
    stop_at = 0;
#define REFUSED(field, value, message)                                                             \
    do {                                                                                           \
        c = config();                                                                              \
        c.field = value;                                                                           \
        check_refused(&c, message);                                                                \
    } while (0)
    REFUSED(learning_rate, 0.02, "checkpoint-4 is of another run: learning-rate was 0.01, is 0.02");
    REFUSED(model_identity, "m2", "model was m1, is m2");
    REFUSED(train_batch, 3, "per-device-train-batch-size was 2, is 3");
    REFUSED(accumulation, 2, "gradient-accumulation-steps was 3, is 2");
    REFUSED(max_steps, 10, "steps was 9, is 10");
    REFUSED(shuffle, false, "no-shuffle was false, is true");
    REFUSED(seed, 6, "seed was 5, is 6");
    REFUSED(schedule, SFT_SCHEDULE_LINEAR, "lr-scheduler-type was cosine, is linear");
    REFUSED(warmup_steps, 3, "warmup-steps was 2, is 3");
    REFUSED(beta1, 0.8, "adam-beta1 was 0.9, is 0.8");
    REFUSED(beta2, 0.9, "adam-beta2 was 0.99, is 0.9");
    REFUSED(epsilon, 1e-6, "adam-epsilon was 1e-08, is 1e-06");
    REFUSED(weight_decay, 0, "weight-decay was 0.1, is 0");
    REFUSED(max_grad_norm, 1, "max-grad-norm was 0.5, is 1");
    REFUSED(skip_nan, true, "on-nan was stop, is skip");
    REFUSED(load_best, true, "eval-data was nothing, is 4 rows");
    REFUSED(data, &eval, "data was 7 rows of");
#undef REFUSED
    c = config();
    t.lora.module[3].scale *= 2;
    check_refused(&c, "adapter was ");
    t.lora.module[3].scale /= 2;
    t.lora.optim = SFT_ADAMW_8BIT;
    check_refused(&c, "optim was adamw_torch, is adamw_8bit");
    t.lora.optim = SFT_ADAMW;
    c.eval_steps = c.save_steps = 1; /* only when things are written */
    ck_assert_int_eq(run(&c, true).state.step, STEPS);
}
END_TEST

START_TEST(another_place_is_told)
{
    struct sft_trainer_config c = config();
    struct sft_facts here = {0}, there = {0};
    sft_facts_add(&here, &t.arena, "device", "card A");
    sft_facts_add(&there, &t.arena, "device", "card B");
    c.place = &here;
    stop_at = 4;
    run(&c, false);
    c.place = &there;
    stop_at = 0;
    ck_assert_int_eq(run(&c, true).state.step, STEPS);
    ck_assert_ptr_nonnull(strstr(notes, "written elsewhere (device was card A, is card B): the run "
                                        "goes on, but not bit for bit"));
}
END_TEST

/* ---- best and early stopping ---- */

/* Rates far too high: the held-out loss rises from the start. */
static struct sft_trainer_config rising(void)
{
    struct sft_trainer_config c = config();
    c.schedule = SFT_SCHEDULE_CONSTANT;
    c.learning_rate = 0.5;
    c.eval_steps = 1;
    c.load_best = true;
    c.save_total_limit = 1;
    return c;
}

START_TEST(the_best_is_kept_and_taken)
{
    struct sft_trainer_config c = rising();
    stop_at = 0;
    struct sft_trainer_result r = run(&c, false);
    ck_assert_int_eq(r.state.step, STEPS);
    ck_assert_int_lt(r.state.best_step, STEPS);
    ck_assert_int_eq(r.result_step, r.state.best_step);
    unsigned char *best = sf_arena_alloc(&t.arena, bytes);
    memcpy(best, t.lora.block, bytes);
    /* the same as a run that ends there */
    c = rising();
    c.max_steps = r.state.best_step;
    run(&c, false);
    ck_assert(memcmp(best, t.lora.block, (size_t)t.lora.count * sizeof(float)) == 0);
}
END_TEST

START_TEST(patience_ends_a_run)
{
    struct sft_trainer_config c = rising();
    c.early_stopping_patience = 2;
    stop_at = 0;
    struct sft_trainer_result r = run(&c, false);
    ck_assert(r.stopped_early);
    ck_assert_int_lt(r.state.step, STEPS);
    ck_assert_int_eq(r.state.step, r.state.best_step + 2);
    struct end whole = end_of(&r);
    for (int64_t at = 1; at < r.state.step; at++) {
        stop_at = at;
        run(&c, false);
        stop_at = 0;
        struct sft_trainer_result again = run(&c, true);
        struct end end = end_of(&again);
        ck_assert(again.stopped_early);
        ck_assert(memcmp(whole.block, end.block, (size_t)t.lora.count * sizeof(float)) == 0);
        ck_assert_str_eq(whole.rows, end.rows);
    }
}
END_TEST

START_TEST(stopping_needs_evaluations)
{
    struct sft_trainer *trainer;
    struct sft_trainer_config c = config();
    c.load_best = true;
    c.eval_steps = 0;
    assert_fails(sft_trainer_open(&trainer, &c, &err), SF_EINVAL, "need held-out data", err);
    c.eval_steps = 1;
    c.eval = NULL;
    assert_fails(sft_trainer_open(&trainer, &c, &err), SF_EINVAL, "need held-out data", err);
    c = config();
    c.early_stopping_patience = -1;
    assert_fails(sft_trainer_open(&trainer, &c, &err), SF_EINVAL, "patience -1", err);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("run_resume");
    TCase *tc = tcase_create("resume");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, stopped_anywhere_it_is_the_same_run);
    tcase_add_test(tc, also_with_moments_of_8_bits);
    tcase_add_test(tc, also_with_dropout);
    tcase_add_test(tc, sessions_of_one_step);
    tcase_add_test(tc, rows_behind_the_checkpoint_are_cut);
    tcase_add_test(tc, a_damaged_checkpoint_is_named_and_the_one_before_taken);
    tcase_add_test(tc, a_finished_run_is_finished);
    tcase_add_test(tc, without_a_checkpoint_it_begins);
    tcase_add_test(tc, what_changes_the_arithmetic_is_refused);
    tcase_add_test(tc, another_place_is_told);
    tcase_add_test(tc, the_best_is_kept_and_taken);
    tcase_add_test(tc, patience_ends_a_run);
    tcase_add_test(tc, stopping_needs_evaluations);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
