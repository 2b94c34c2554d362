#include "tests/train/parity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libformat/base/file.h"
#include "libformat/convert/convert.h"
#include "libformat/hf/hf_config.h"
#include "tests/support/support.h"

const char *const parity_group_name[PARITY_GROUPS] = {"hidden", "router", "logits", "loss", "grad"};

static const char *golden(const char *preset, const char *rest)
{
    char name[256];
    snprintf(name, sizeof name, "tests/golden/llama4-tiny/%s/%s", preset, rest);
    return scout_source_path(name);
}

/* scout_base differs from scout in its config alone; the weights are there once. */
static const char *weights_of(const char *preset)
{
    return strcmp(preset, "scout_base") == 0 ? "scout" : preset;
}

/* The checkpoint as a container that keeps every matrix in bf16. */
static void convert(const char *path, struct sf_arena *arena, const char *preset)
{
    struct sf_err err = {0};
    struct sf_hf_index *index;
    struct sf_model_spec spec;
    struct sf_convert_plan plan;
    char *config;
    uint64_t bytes;
    static const char *const keep[] = {"*"};
    bool used[1] = {false};
    struct sf_policy policy = {.keep = keep, .keep_count = 1, .keep_used = used};
    assert_ok(
        sf_read_file(&config, &bytes, arena, golden(preset, "model/config.json"), 1 << 20, &err),
        err);
    assert_ok(sf_hf_config_parse(&spec, arena, config, bytes, &err), err);
    assert_ok(sf_hf_index_open(&index, golden(weights_of(preset), "model"), &err), err);
    assert_ok(sf_convert_plan_build(&plan, &spec, index, &policy, false, &err), err);
    struct sf_carried_file file = {"config.json", config, bytes};
    struct sf_convert_options options = {.threads = 2,
                                         .model_id = preset,
                                         .converter = "test",
                                         .options_text = "keep-bf16=*",
                                         .file = &file,
                                         .files = 1};
    assert_ok(sf_convert_run(&plan, path, &options, &err), err);
    sf_convert_plan_free(&plan);
    sf_hf_index_close(index);
}

/* Another image's views, with experts 0 and 1 in each other's place. */
static int swapped_view(struct sk_matrix *out, void *context, struct sf_role role,
                        struct sf_err *err)
{
    const struct sft_image *image = context;
    int32_t expert = role.expert < 0 ? 0 : role.expert ^ (role.expert < 2);
    (void)err;
    *out = sft_image_matrices(image, role)[expert];
    return SF_OK;
}

static void open_model(struct parity *p, const char *preset)
{
    struct sf_err err = {0};
    char *text, file[64];
    uint64_t bytes;
    snprintf(file, sizeof file, "%s-%d.scout", preset, (int)getpid()); /* cases may run at once */
    const char *path = scout_scratch_path(file);
    convert(path, &p->arena, preset);
    assert_ok(sf_map_open(&p->map, path, &err), err);
    assert_ok(sf_map_read_file(&text, &bytes, p->map, "config.json", &p->arena, &err), err);
    assert_ok(sf_hf_config_parse(&p->spec, &p->arena, text, bytes, &err), err);
    assert_ok(sft_backend_load(&p->straight, p->backend, p->map, &p->spec, NULL, NULL, NULL, &err),
              err);
    p->image = p->straight;
    if (p->swap_experts)
        assert_ok(sft_image_open_views(&p->image, &p->spec, swapped_view, p->straight, &err), err);
}

static void open_adapter(struct parity *p, const char *preset, const char *variant)
{
    struct sf_err err = {0};
    struct sf_adapter adapter;
    assert_ok(sf_adapter_read(&adapter, &p->arena, golden(preset, variant), &p->spec, &err), err);
    assert_ok(sft_lora_plan_adapter(&p->lora, &p->arena, &p->spec, &adapter, &err), err);
    assert_ok(sft_lora_allocate(&p->lora, true, sft_backend_ops(p->backend),
                                sft_backend_ctx(p->backend), &err),
              err);
    assert_ok(sft_lora_load(&p->lora, &adapter, &err), err);
    assert_ok(sft_lora_push(&p->lora, &err), err);
}

void parity_open(struct parity *p, const char *preset, const char *variant, int threads)
{
    struct sf_err err = {0};
    char file[64];
    *p = (struct parity){.swap_experts = p->swap_experts,
                         .where = p->where ? p->where : SFT_DEVICE_CPU,
                         .adapted = strcmp(variant, "base") != 0};
    assert_ok(sft_backend_open(&p->backend, p->where, threads, false, NULL, &err), err);
    open_model(p, preset);
    if (p->adapted)
        open_adapter(p, preset, variant);
    snprintf(file, sizeof file, "%s.safetensors", variant);
    assert_ok(sf_safetensors_open(&p->base, golden(preset, "base.safetensors"), &err), err);
    assert_ok(sf_safetensors_open(&p->reference, golden(preset, file), &err), err);
}

void parity_close(struct parity *p)
{
    sf_safetensors_close(p->reference);
    sf_safetensors_close(p->base);
    if (p->image != p->straight)
        sft_image_close(p->image);
    sft_image_close(p->straight);
    sft_lora_free(&p->lora);
    sft_backend_close(p->backend);
    sf_map_close(p->map);
    sf_arena_free(&p->arena);
}

const int32_t *parity_ints(const struct parity *p, const char *name)
{
    const struct sf_tensor *t = sf_safetensors_find(p->base, name);
    ck_assert_ptr_nonnull(t);
    ck_assert_int_eq(t->dtype, SF_I32);
    return t->data;
}

void parity_run(struct sft_probe *out, struct parity *p, const struct sk_ops *ops,
                const int32_t *labels)
{
    struct sf_err err = {0};
    const struct sf_shape *shape = &sf_safetensors_find(p->base, "input_ids")->shape;
    struct sft_probe_config config = {.spec = &p->spec,
                                      .image = p->image,
                                      .lora = p->adapted ? &p->lora : NULL,
                                      .ops = ops,
                                      .ctx = sft_backend_ctx(p->backend),
                                      .gradients = p->adapted};
    assert_ok(sft_probe_run(out, &p->arena, &config, parity_ints(p, "input_ids"),
                            labels ? labels : parity_ints(p, "labels"), shape->dim[0],
                            shape->dim[1], &err),
              err);
}

static const struct sf_tensor *find_ours(const struct sft_probe *probe, const char *name)
{
    for (int64_t i = 0; i < probe->tensors; i++)
        if (strcmp(probe->tensor[i].name, name) == 0)
            return &probe->tensor[i].tensor;
    ck_abort_msg("the probe has no %s", name);
    return NULL;
}

static enum parity_group group_of(const char *name)
{
    for (int g = 0; g < PARITY_GROUPS; g++)
        if (strncmp(name, parity_group_name[g], strlen(parity_group_name[g])) == 0)
            return (enum parity_group)g;
    return PARITY_LOSS; /* token_loss */
}

/* "delta": the adapter's own products, which need no model (tests/format). */
static bool is_input(const char *name)
{
    if (strncmp(name, "delta.", 6) == 0)
        return true;
    return !strcmp(name, "inv_freq") || !strcmp(name, "input_ids") || !strcmp(name, "labels");
}

static int64_t best_of(const float *logits, int64_t experts)
{
    int64_t best = 0;
    for (int64_t e = 1; e < experts; e++)
        best = logits[e] > logits[best] ? e : best;
    return best;
}

enum { LAYERS = 8, EXPERTS = 64 };

/* Experts that gained or lost a token: their own gradients are of other tokens than the reference's. */
struct touched {
    bool expert[LAYERS][EXPERTS];
    int64_t experts;
};

static int layer_of(const char *name)
{
    const char *at = strncmp(name, "router.", 7) == 0 ? name + 7 : strstr(name, "layers.") + 7;
    int layer = atoi(at);
    ck_assert_int_lt(layer, LAYERS);
    return layer;
}

static void count_flips(struct parity_result *out, struct touched *touched, int layer,
                        const struct sf_tensor *got, const struct sf_tensor *want)
{
    int64_t experts = want->shape.dim[1];
    ck_assert_int_le(experts, EXPERTS);
    touched->experts = experts;
    for (int64_t row = 0; row < want->shape.dim[0]; row++) {
        const float *ours = (const float *)got->data + row * experts;
        const float *theirs = (const float *)want->data + row * experts;
        int64_t mine = best_of(ours, experts), right = best_of(theirs, experts);
        double lead = ((double)theirs[right] - theirs[mine]) / fabs((double)theirs[right]);
        out->flips += mine != right;
        if (mine != right)
            touched->expert[layer][mine] = touched->expert[layer][right] = true;
        out->widest_flip = lead > out->widest_flip ? lead : out->widest_flip;
    }
}

/* Of experts that were touched nothing is compared: zeros in both. A has the experts' ranks one expert
 * behind the other, B the experts side by side in each rank (libformat/adapter/adapter_experts.h). */
static void leave_out(float *a, float *b, const struct touched *touched, const char *name,
                      const struct sf_shape *shape)
{
    bool is_a = strstr(name, "lora_A") != NULL;
    int64_t rows = shape->dim[0], cols = shape->dim[1], e = touched->experts;
    int layer = layer_of(name);
    ck_assert_int_gt(e, 0);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < cols; k++)
            if (touched->expert[layer][is_a ? i / (rows / e) : k % e])
                a[i * cols + k] = b[i * cols + k] = 0;
}

struct sums { /* of squares, over all gradients */
    double error, norm;
};

static void add_squares(struct sums *sums, const float *a, const float *b, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        sums->error += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        sums->norm += (double)b[i] * b[i];
    }
}

static float *copy_of(struct sf_arena *arena, const struct sf_tensor *tensor)
{
    float *copy = sf_arena_alloc(arena, tensor->bytes);
    ck_assert_ptr_nonnull(copy);
    return memcpy(copy, tensor->data, tensor->bytes);
}

static void compare_tensor(struct parity_result *out, struct sums *sums, struct touched *touched,
                           const struct sf_tensor *got, const struct sf_named_tensor *want)
{
    struct sf_arena arena = {0};
    enum parity_group group = group_of(want->name);
    int64_t count = (int64_t)(got->bytes / sizeof(float));
    float *ours = copy_of(&arena, got), *theirs = copy_of(&arena, &want->tensor);
    if (group == PARITY_ROUTER)
        count_flips(out, touched, layer_of(want->name), got, &want->tensor);
    if (group == PARITY_GRAD && strstr(want->name, "feed_forward.experts."))
        leave_out(ours, theirs, touched, want->name, &got->shape);
    double error = scout_relative_error(ours, theirs, count);
    if (!(error <= out->worst[group]) || !out->name[group]) {
        out->worst[group] = error;
        out->name[group] = want->name;
    }
    out->compared++;
    if (group == PARITY_GRAD)
        add_squares(sums, ours, theirs, count);
    sf_arena_free(&arena);
}

/* Routers first: they tell which experts' gradients are of the same tokens. */
static bool is_of_pass(const char *name, int pass)
{
    return !is_input(name) && (group_of(name) == PARITY_ROUTER) == (pass == 0);
}

void parity_compare(struct parity_result *out, const struct parity *p,
                    const struct sft_probe *probe)
{
    struct sums sums = {0};
    struct touched touched = {0};
    *out = (struct parity_result){0};
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < sf_safetensors_count(p->reference); i++) {
            const struct sf_named_tensor *want = sf_safetensors_at(p->reference, i);
            if (!is_of_pass(want->name, pass))
                continue;
            const struct sf_tensor *got = find_ours(probe, want->name);
            ck_assert_int_eq(want->tensor.dtype, SF_F32);
            ck_assert_msg(sf_shape_equal(&got->shape, &want->tensor.shape), "%s: another shape",
                          want->name);
            compare_tensor(out, &sums, &touched, got, want);
        }
    }
    out->gradients = sums.norm > 0 ? sqrt(sums.error / sums.norm) : 0;
}

void parity_print(const char *what, const struct parity_result *result)
{
    printf("%s: %lld tensors", what, (long long)result->compared);
    for (int g = 0; g < PARITY_GROUPS; g++)
        if (result->name[g])
            printf(", %s %.2g", parity_group_name[g], result->worst[g]);
    if (result->gradients > 0)
        printf(", all gradients %.2g", result->gradients);
    if (result->flips)
        printf(", %lld tokens to another expert, by up to %.2g", (long long)result->flips,
               result->widest_flip);
    printf("\n");
}
