/* A whole run against transformers and PEFT: tests/golden/training, on the bf16 weights and on those
 * that went through NF4. Tokens, logits, losses, gradient norms, held-out loss.
 *
 * The bars: an independent implementation met both runs to 8e-7 wherever no choice of the router
 * differed; near-ties of the router are decided by the order of summation, later losses than those
 * of the first 20 steps are therefore compared loosely. */
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/convert/convert.h"
#include "libformat/hf/hf_config.h"
#include "libformat/hf/safetensors.h"
#include "tests/train/where.h"
#include "train/probe.h"
#include "train/trainer.h"

enum { STEPS = 100, EXACT_STEPS = 20, LENGTH = 256, EVAL_ROWS = 64 };

static const struct {
    const char *name, *keep_bf16;
} bases[] = {{"bf16", "*"}, {"nf4", NULL}};

struct run {
    struct sf_arena arena;
    struct sf_map *map;
    struct sf_model_spec spec;
    struct sf_tokenizer *tokenizer;
    struct sft_image *image;
    struct sft_backend *backend;
    const struct sk_ops *ops;
    struct sk_ctx *ctx;
    struct sft_lora lora;
    struct sft_dataset data, eval;
    struct sf_json *reference; /* training.json */
    double loss[STEPS], norm[STEPS], rate[STEPS];
};

static struct sf_err err;

static const char *golden(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "tests/golden/training/%s", name);
    return scout_source_path(path);
}

/* ---- opening ---- */

static const char *read_example(uint64_t *bytes, struct run *r, const char *name)
{
    char path[256], *text;
    snprintf(path, sizeof path, "examples/tiny-scout/%s", name);
    assert_ok(sf_read_file(&text, bytes, &r->arena, scout_source_path(path), 1 << 24, &err), err);
    return text;
}

static const char *convert(struct run *r, const char *name, const char *keep_bf16)
{
    struct sf_hf_index *index;
    struct sf_convert_plan plan;
    struct sf_carried_file file[2] = {{.name = "config.json"}, {.name = "tokenizer.json"}};
    bool used[1];
    struct sf_policy policy = {
        .keep = &keep_bf16, .keep_count = keep_bf16 ? 1 : 0, .keep_used = used};
    struct sf_convert_options options = {.threads = 1,
                                         .model_id = "tiny-scout",
                                         .converter = "test",
                                         .options_text = "",
                                         .file = file,
                                         .files = 2};
    for (int i = 0; i < 2; i++)
        file[i].data = read_example(&file[i].bytes, r, file[i].name);
    assert_ok(sf_hf_config_parse(&r->spec, &r->arena, file[0].data, file[0].bytes, &err), err);
    assert_ok(sf_tokenizer_open(&r->tokenizer, file[1].data, file[1].bytes, &err), err);
    assert_ok(sf_hf_index_open(&index, scout_source_path("examples/tiny-scout"), &err), err);
    assert_ok(sf_convert_plan_build(&plan, &r->spec, index, &policy, false, &err), err);
    const char *path = scout_scratch_path(name);
    assert_ok(sf_convert_run(&plan, path, &options, &err), err);
    sf_convert_plan_free(&plan);
    sf_hf_index_close(index);
    return path;
}

static void open_adapter(struct run *r, enum sft_optim optim)
{
    struct sf_adapter adapter;
    assert_ok(sf_adapter_read(&adapter, &r->arena, golden("adapter_init"), &r->spec, &err), err);
    assert_ok(sft_lora_plan_adapter(&r->lora, &r->arena, &r->spec, &adapter, &err), err);
    r->lora.optim = optim;
    assert_ok(sft_lora_allocate(&r->lora, true, r->ops, r->ctx, &err), err);
    assert_ok(sft_lora_load(&r->lora, &adapter, &err), err);
    assert_ok(sft_lora_push(&r->lora, &err), err);
}

/* The held-out rows are the last 64 blocks of the text. */
static void open_data(struct run *r)
{
    const char *text = scout_source_path("examples/data/moby.txt");
    struct sft_dataset_config config = {
        .file = &text,
        .files = 1,
        .encoder = {.tokenizer = r->tokenizer, .vocabulary = r->spec.vocabulary},
        .max_length = LENGTH};
    assert_ok(sft_dataset_open(&r->data, &config, &err), err);
    int64_t first = r->data.rows - EVAL_ROWS;
    ck_assert_int_gt(first, 0);
    r->eval = (struct sft_dataset){.source = r->data.source, /* borrowed, as its rows are */
                                   .document = r->data.document + first,
                                   .rows = EVAL_ROWS,
                                   .documents = EVAL_ROWS,
                                   .tokens = EVAL_ROWS * LENGTH,
                                   .longest = LENGTH};
}

static void open_run(struct run *r, int base)
{
    char *text;
    uint64_t bytes;
    *r = (struct run){0};
    assert_ok(sft_backend_open(&r->backend, where, 1, false, NULL, &err), err);
    r->ops = sft_backend_ops(r->backend);
    r->ctx = sft_backend_ctx(r->backend);
    const char *path = convert(r, bases[base].name, bases[base].keep_bf16);
    assert_ok(sf_map_open(&r->map, path, &err), err);
    assert_ok(sft_backend_load(&r->image, r->backend, r->map, &r->spec, NULL, NULL, NULL, &err),
              err);
    open_data(r);
    assert_ok(sf_read_file(&text, &bytes, &r->arena, golden("training.json"), 1 << 20, &err), err);
    assert_ok(sf_json_parse(&r->reference, text, bytes, &err), err);
}

static void close_run(struct run *r)
{
    sf_json_free(r->reference);
    sft_dataset_free(&r->data);
    sft_lora_free(&r->lora);
    sft_image_close(r->image);
    sft_backend_close(r->backend);
    sf_map_close(r->map);
    sf_tokenizer_close(r->tokenizer);
    sf_arena_free(&r->arena);
}

/* ---- comparing ---- */

static double number(const struct sf_json *object, const char *key)
{
    double value = NAN;
    const struct sf_json *member = sf_json_get(object, key);
    ck_assert_ptr_nonnull(member);
    assert_ok(sf_json_as_double(&value, member, key, &err), err);
    return value;
}

static void read_series(double out[STEPS], const struct sf_json *object, const char *key)
{
    const struct sf_json *item = sf_json_first(sf_json_get(object, key));
    for (int i = 0; i < STEPS; i++, item = sf_json_next(item)) {
        ck_assert_ptr_nonnull(item);
        assert_ok(sf_json_as_double(&out[i], item, key, &err), err);
    }
    ck_assert_ptr_null(item);
}

/* The worst of `count` differences, each divided by `scale` (NULL: absolute), against the bar. */
static void check_series(const char *what, const double *got, const double *want, int count,
                         bool relative, double bar)
{
    double worst = 0;
    int at = 0;
    for (int i = 0; i < count; i++) {
        double difference = fabs(got[i] - want[i]) / (relative ? fabs(want[i]) : 1);
        if (!(difference <= worst)) {
            worst = difference;
            at = i;
        }
    }
    printf("%s: worst %.3g at step %d, %.0f%% of %.3g\n", what, worst, at, 100 * worst / bar, bar);
    ck_assert_msg(worst <= bar, "%s: step %d has %.9g, reference %.9g", what, at, got[at],
                  want[at]);
}

static double mean_difference(const double *got, const double *want)
{
    double sum = 0;
    for (int i = 0; i < STEPS; i++)
        sum += fabs(got[i] - want[i]);
    return sum / STEPS;
}

/* ---- the tests ---- */

/* The first rows hold these ids. */
static void check_ids(const struct sft_dataset *data, const struct sf_tensor *want)
{
    int32_t id[LENGTH], target[LENGTH];
    for (int64_t row = 0; row < (int64_t)(want->bytes / sizeof id); row++) {
        sft_dataset_read(id, target, data, row);
        ck_assert_mem_eq(id, (const char *)want->data + (uint64_t)row * sizeof id, sizeof id);
    }
}

static void check_tokens(struct run *r)
{
    struct sf_safetensors *file;
    assert_ok(sf_safetensors_open(&file, golden("tokens.safetensors"), &err), err);
    const struct sf_tensor *first = sf_safetensors_find(file, "first_1024_ids");
    const struct sf_tensor *eval = sf_safetensors_find(file, "eval_blocks");
    ck_assert(first && eval);
    ck_assert_int_eq(r->data.rows, (int64_t)number(r->reference, "blocks"));
    ck_assert_int_eq(r->data.tokens + r->data.counts.tail_tokens,
                     (int64_t)number(r->reference, "tokens"));
    ck_assert_int_eq((int64_t)first->bytes, 1024 * 4);
    ck_assert_int_eq((int64_t)eval->bytes, EVAL_ROWS * LENGTH * 4);
    check_ids(&r->data, first);
    check_ids(&r->eval, eval);
    sf_safetensors_close(file);
}

static void check_logits(struct run *r, const char *base)
{
    char name[64];
    struct sf_safetensors *file;
    struct sft_probe probe;
    snprintf(name, sizeof name, "%s_logits.safetensors", base);
    assert_ok(sf_safetensors_open(&file, golden(name), &err), err);
    const struct sf_tensor *ids = sf_safetensors_find(file, "input_ids");
    const struct sf_tensor *logits = sf_safetensors_find(file, "logits");
    ck_assert(ids && logits);
    struct sft_probe_config config = {
        .spec = &r->spec, .image = r->image, .ops = r->ops, .ctx = r->ctx};
    int32_t *copy = sf_arena_alloc(&r->arena, ids->bytes);
    float *want = sf_arena_alloc(&r->arena, logits->bytes);
    memcpy(copy, ids->data, ids->bytes);
    memcpy(want, logits->data, logits->bytes);
    assert_ok(sft_probe_run(&probe, &r->arena, &config, copy, copy, ids->shape.dim[0],
                            ids->shape.dim[1], &err),
              err);
    for (int64_t i = 0; i < probe.tensors; i++) {
        const struct sf_tensor *got = &probe.tensor[i].tensor;
        if (strcmp(probe.tensor[i].name, "logits") != 0)
            continue;
        ck_assert_int_eq((int64_t)got->bytes, (int64_t)logits->bytes);
        const double bar = WHERE(2e-6, 3e-2);
        printf("logits: %.3g of %.3g\n",
               scout_relative_error(got->data, want, (int64_t)(got->bytes / 4)), bar);
        scout_assert_close("logits", got->data, want, (int64_t)(got->bytes / 4), bar);
        sf_safetensors_close(file);
        return;
    }
    ck_abort_msg("the probe has no logits");
}

static void keep_step(void *context, const struct sft_metrics_step *row, int64_t steps)
{
    struct run *r = context;
    ck_assert_int_eq(steps, STEPS);
    r->loss[row->step - 1] = row->loss;
    r->norm[row->step - 1] = row->grad_norm;
    r->rate[row->step - 1] = row->learning_rate;
}

static void train(struct sft_trainer_result *out, struct run *r)
{
    struct sft_trainer *trainer;
    struct sft_trainer_config config = {.spec = &r->spec,
                                        .lora = &r->lora,
                                        .ops = r->ops,
                                        .ctx = r->ctx,
                                        .data = &r->data,
                                        .eval = &r->eval,
                                        .train_batch = 8,
                                        .eval_batch = 8,
                                        .accumulation = 1,
                                        .max_steps = STEPS,
                                        .schedule = SFT_SCHEDULE_COSINE,
                                        .learning_rate = 2e-3,
                                        .warmup_steps = 10,
                                        .beta1 = 0.9,
                                        .beta2 = 0.999,
                                        .epsilon = 1e-8,
                                        .weight_decay = 0.01,
                                        .max_grad_norm = 1,
                                        .output = {.directory = scout_scratch_path("out"),
                                                   .base_model = "tiny-scout",
                                                   .prefix = SF_ADAPTER_MULTIMODAL},
                                        .on_step = keep_step,
                                        .context = r};
    assert_ok(sft_checkpoint_prepare(config.output.directory, SFT_OUTPUT_OVERWRITE, &err), err);
    assert_ok(sft_trainer_open(&trainer, &config, &err), err);
    assert_ok(sft_trainer_run(out, trainer, r->image, &err), err);
    sft_trainer_close(trainer);
}

static void check_losses(const struct run *r, const double *loss, const double *norm)
{
#ifdef SCOUT_TEST_CUDA /* looser bars would not see a detached router or a missing clipping */
    check_series("all losses", r->loss, loss, STEPS, true, 3e-3);
    check_series("all gradient norms", r->norm, norm, STEPS, true, 2e-2);
#else
    check_series("losses of the first steps", r->loss, loss, EXACT_STEPS, false, 2e-6);
    check_series("gradient norms of the first steps", r->norm, norm, EXACT_STEPS, true, 1e-5);
    check_series("all losses", r->loss, loss, STEPS, false, 5e-3);
    printf("all losses: mean difference %.3g of 0.001\n", mean_difference(r->loss, loss));
    ck_assert_double_lt(mean_difference(r->loss, loss), 1e-3);
#endif
}

static void check_run(const struct run *r, const struct sft_trainer_result *result,
                      const struct sf_json *reference)
{
    double loss[STEPS], norm[STEPS], rate[STEPS];
    read_series(loss, reference, "losses");
    read_series(norm, reference, "grad_norms");
    read_series(rate, reference, "lrs");
    check_series("learning rates", r->rate, rate, STEPS, false, 1e-18);
    check_losses(r, loss, norm);
    printf("held-out loss %.6f (%+.2g), then %.6f (%+.2g)\n", result->state.eval_before,
           result->state.eval_before - number(reference, "eval_before"), result->state.eval_last,
           result->state.eval_last - number(reference, "eval_after"));
    ck_assert_double_eq_tol(result->state.eval_before, number(reference, "eval_before"),
                            WHERE(2e-6, 3e-3));
    ck_assert_double_eq_tol(result->state.eval_last, number(reference, "eval_after"),
                            WHERE(3e-4, 3e-3));
}

static void check_8bit(const struct run *r, const struct sft_trainer_result *result,
                       const double *loss, const double *exact, double eval_after)
{
    double ours = mean_difference(r->loss, loss), theirs = mean_difference(exact, loss);
    check_series("losses of the first steps", r->loss, loss, EXACT_STEPS, false, WHERE(3e-3, 2e-2));
    check_series("all losses", r->loss, loss, STEPS, false, WHERE(5e-3, 3e-2));
    printf("all losses: mean difference %.3g; of bitsandbytes' from those in float32 %.3g\n", ours,
           theirs);
    printf("held-out loss %.6f (%+.2g)\n", result->state.eval_last,
           result->state.eval_last - eval_after);
    ck_assert_double_lt(ours, WHERE(theirs, 5e-3));
    ck_assert_double_eq_tol(result->state.eval_last, eval_after, WHERE(5e-4, 5e-3));
}

START_TEST(as_transformers_and_peft)
{
    struct run r;
    struct sft_trainer_result result;
    printf("---- %s\n", bases[_i].name);
    open_run(&r, _i);
    check_tokens(&r);
    check_logits(&r, bases[_i].name);
    open_adapter(&r, SFT_ADAMW);
    ck_assert_int_eq(r.lora.trained,
                     (int64_t)number(sf_json_get(r.reference, bases[_i].name), "trainable"));
    train(&result, &r);
    check_run(&r, &result, sf_json_get(r.reference, bases[_i].name));
    close_run(&r);
}
END_TEST

/* With bitsandbytes' AdamW8bit in the place of torch's AdamW. Its path for processors, which made the
 * reference, puts small codes of v elsewhere than its path for GPUs, which ours follows
 * (spec/notes/0004): the runs are near, not equal. The yardstick is how far bitsandbytes' own run is
 * from that in float32. */
START_TEST(as_bitsandbytes_in_8_bits)
{
    struct run r;
    struct sft_trainer_result result;
    struct sf_json *reference;
    double loss[STEPS], exact[STEPS];
    char *text;
    uint64_t bytes;
    printf("---- adamw_8bit\n");
    open_run(&r, 0);
    assert_ok(sf_read_file(&text, &bytes, &r.arena, golden("adamw_8bit.json"), 1 << 20, &err), err);
    assert_ok(sf_json_parse(&reference, text, bytes, &err), err);
    read_series(loss, reference, "losses");
    read_series(exact, sf_json_get(r.reference, "bf16"), "losses");
    open_adapter(&r, SFT_ADAMW_8BIT);
    train(&result, &r);
    check_8bit(&r, &result, loss, exact, number(reference, "eval_after"));
    sf_json_free(reference);
    close_run(&r);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("training_parity");
    for (int i = 0; i < (int)(sizeof bases / sizeof bases[0]); i++) { /* CK_RUN_CASE picks one */
        TCase *tc = tcase_create(bases[i].name);
        tcase_set_timeout(tc, 1500);
        tcase_add_loop_test(tc, as_transformers_and_peft, i, i + 1);
        suite_add_tcase(suite, tc);
    }
    TCase *tc = tcase_create("adamw_8bit");
    tcase_set_timeout(tc, 1500);
    tcase_add_test(tc, as_bitsandbytes_in_8_bits);
    suite_add_tcase(suite, tc);
    return suite;
}

WHERE_MAIN(make_suite)
