#include "tests/train/tiny.h"

#include <string.h>

#include "kernels/head_loss.h"
#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/codec/halves.h"
#include "tests/support/support.h"

const char *const tiny_targets[8] = {"q_proj",    "k_proj",  "v_proj",    "o_proj",
                                     "gate_proj", "up_proj", "down_proj", "lm_head"};

const char *const tiny_parameters[3] = {"experts.gate_up_proj", "experts.down_proj",
                                        "router.weight"};

void tiny_spec(struct sf_model_spec *out, struct sf_arena *arena, int64_t layers, bool dense)
{
    *out = (struct sf_model_spec){.architecture = "Llama4ForCausalLM",
                                  .family = "llama4",
                                  .layers = layers,
                                  .hidden = 64,
                                  .vocabulary = 96,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_size = 16,
                                  .expert_width = 80,
                                  .dense_width = 112,
                                  .experts = 4,
                                  .experts_per_token = 1,
                                  .attention_chunk = 8,
                                  .norm_epsilon = 1e-5,
                                  .qk_norm = true,
                                  .temperature = true,
                                  .temperature_floor = 4,
                                  .temperature_scale = 0.1,
                                  .rope = {.kind = SF_ROPE_PLAIN, .theta = 10000},
                                  .dtype = SF_BF16,
                                  .bos_token = 1,
                                  .pad_token = -1};
    out->layer = sf_arena_array(arena, (uint64_t)layers, sizeof *out->layer);
    ck_assert_ptr_nonnull(out->layer);
    for (int64_t i = 0; i < layers; i++)
        out->layer[i] = (struct sf_layer_spec){
            .rope = i % 2 == 0, .chunked = i % 2 == 0, .moe = !dense || i % 4 < 2};
}

void scout_spec(struct sf_model_spec *out, struct sf_arena *arena)
{
    tiny_spec(out, arena, 48, false);
    out->hidden = 5120;
    out->vocabulary = 202048;
    out->heads = 40;
    out->kv_heads = 8;
    out->head_size = 128;
    out->expert_width = 8192;
    out->dense_width = 16384;
    out->experts = 16;
    out->attention_chunk = 8192;
    for (int64_t i = 0; i < out->layers; i++)
        out->layer[i] =
            (struct sf_layer_spec){.rope = i % 4 != 3, .chunked = i % 4 != 3, .moe = true};
}

/* Random bf16 numbers, other ones for every role. Norms are near 1. */
static int random_view(struct sk_matrix *out, void *context, struct sf_role role,
                       struct sf_err *err)
{
    struct tiny *t = context;
    struct sf_shape shape = sf_spec_shape(&t->spec, role.part);
    int64_t rows = shape.rank == 2 ? shape.dim[0] : 1, cols = shape.dim[shape.rank - 1];
    struct scout_random random = {(uint64_t)role.part * 10007 + (uint64_t)(role.layer + 1) * 101 +
                                  (uint64_t)(role.expert + 1)};
    uint16_t *data = sf_arena_array(&t->arena, (uint64_t)(rows * cols), sizeof *data);
    if (!data)
        return sf_fail(err, SF_ENOMEM, "no memory");
    for (int64_t i = 0; i < rows * cols; i++) {
        float value = scout_random_normal(&random);
        data[i] = sf_bf16_from_f32(shape.rank == 1 ? 1 + 0.1f * value : 0.1f * value);
    }
    *out = (struct sk_matrix){.format = SK_FORMAT_BF16, .rows = rows, .cols = cols, .data = data};
    return SF_OK;
}

static void open_with(struct tiny *t, int threads, int64_t parameters)
{
    struct sf_err err = {0};
    *t = (struct tiny){0};
    assert_ok(sk_cpu_start(&t->ctx, threads, &err), err);
    tiny_spec(&t->spec, &t->arena, 4, true);
    assert_ok(sft_image_open_views(&t->image, &t->spec, random_view, t, &err), err);
    struct sft_lora_config config = {.target = tiny_targets,
                                     .targets = 8,
                                     .parameter = tiny_parameters,
                                     .parameters = parameters,
                                     .rank = 4,
                                     .alpha = 8};
    assert_ok(sft_lora_plan(&t->lora, &t->arena, &t->spec, &config, &err), err);
    assert_ok(sft_lora_allocate(&t->lora, true, sk_ops_cpu(), &t->ctx, &err), err);
    struct scout_random random = {7};
    for (int64_t i = 0; i < t->lora.modules; i++) {
        const struct sft_lora_module *m = &t->lora.module[i];
        scout_random_fill(t->lora.parameters + m->a, sft_lora_a_count(m), 0.1f, &random);
        scout_random_fill(t->lora.parameters + m->b, sft_lora_b_count(m), 0.1f, &random);
    }
}

void tiny_open(struct tiny *t, int threads)
{
    open_with(t, threads, 0);
}

void tiny_open_all(struct tiny *t, int threads)
{
    open_with(t, threads, 3);
}

void tiny_close(struct tiny *t)
{
    sft_image_close(t->image);
    sft_lora_free(&t->lora);
    sf_arena_free(&t->arena);
}

void tiny_batch(struct sft_batch *out, struct tiny *t, const int64_t *length, int64_t documents,
                uint64_t seed)
{
    struct scout_random random = {seed};
    int32_t *start = sf_arena_array(&t->arena, (uint64_t)documents + 1, sizeof *start);
    for (int64_t d = 0; d < documents; d++)
        start[d + 1] = start[d] + (int32_t)length[d];
    int64_t rows = start[documents];
    int32_t *ids = sf_arena_array(&t->arena, (uint64_t)rows, sizeof *ids);
    int32_t *targets = sf_arena_array(&t->arena, (uint64_t)rows, sizeof *targets);
    for (int64_t i = 0; i < rows; i++) {
        uint64_t word = scout_random_u64(&random);
        ids[i] = (int32_t)(word % (uint64_t)t->spec.vocabulary);
        targets[i] = word >> 32 & 7 ? (int32_t)((word >> 40) % (uint64_t)t->spec.vocabulary)
                                    : SK_IGNORE_INDEX;
    }
    *out = (struct sft_batch){rows, documents, ids, targets, start};
}

static const char *row_text(struct tiny *t, int length, struct scout_random *random)
{
    struct sf_err err = {0};
    struct sf_json_writer w;
    char *line;
    sf_json_write_begin(&w, &t->arena, 0);
    sf_json_write_object(&w, NULL);
    for (int labels = 0; labels < 2; labels++) {
        sf_json_write_array(&w, labels ? "labels" : "input_ids");
        for (int i = 0; i < length; i++)
            sf_json_write_int(&w, NULL,
                              labels && i % 4 == 2 ? -100 : (int)(scout_random_u64(random) % 96));
        sf_json_write_end(&w, ']');
    }
    sf_json_write_end(&w, '}');
    assert_ok(sf_json_write_finish(&line, NULL, &w, &err), err);
    return line;
}

void tiny_rows(struct sft_dataset *out, struct tiny *t, const char *name, int rows, uint64_t seed)
{
    struct sft_dataset_config config = {.files = 1, .encoder.vocabulary = 96, .max_length = 64};
    struct scout_random random = {seed};
    struct sf_err err = {0};
    const char *path = scout_scratch_path(name);
    char *text = sf_arena_strdup(&t->arena, "");
    for (int row = 0; row < rows; row++)
        text = sf_arena_printf(&t->arena, "%s%s\n", text, row_text(t, 3 + row, &random));
    assert_ok(sf_write_file(path, text, strlen(text), &err), err);
    config.file = &path;
    assert_ok(sft_dataset_open(out, &config, &err), err);
}
