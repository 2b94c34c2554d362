#include "tests/train/parity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "libformat/hf/hf_config.h"
#include "tests/support/support.h"

const char *const parity_group_name[PARITY_GROUPS] = {"hidden", "router", "logits", "loss", "grad"};

static const char *golden(const char *preset, const char *rest)
{
    char name[256];
    snprintf(name, sizeof name, "tests/golden/llama4-tiny/%s/%s", preset, rest);
    return scout_source_path(name);
}

/* ---- the checkpoint as views: experts turned, everything else as it lies in the file ---- */

static const char *const tensor_name[SF_PART_COUNT] = {
    [SF_PART_EMBEDDING] = "model.embed_tokens.weight",
    [SF_PART_FINAL_NORM] = "model.norm.weight",
    [SF_PART_HEAD] = "lm_head.weight",
    [SF_PART_INPUT_NORM] = "input_layernorm.weight",
    [SF_PART_POST_NORM] = "post_attention_layernorm.weight",
    [SF_PART_Q] = "self_attn.q_proj.weight",
    [SF_PART_K] = "self_attn.k_proj.weight",
    [SF_PART_V] = "self_attn.v_proj.weight",
    [SF_PART_O] = "self_attn.o_proj.weight",
    [SF_PART_ROUTER] = "feed_forward.router.weight",
    [SF_PART_SHARED_GATE] = "feed_forward.shared_expert.gate_proj.weight",
    [SF_PART_SHARED_UP] = "feed_forward.shared_expert.up_proj.weight",
    [SF_PART_SHARED_DOWN] = "feed_forward.shared_expert.down_proj.weight",
    [SF_PART_DENSE_GATE] = "feed_forward.gate_proj.weight",
    [SF_PART_DENSE_UP] = "feed_forward.up_proj.weight",
    [SF_PART_DENSE_DOWN] = "feed_forward.down_proj.weight",
    [SF_PART_EXPERT_GATE] = "feed_forward.experts.gate_up_proj",
    [SF_PART_EXPERT_UP] = "feed_forward.experts.gate_up_proj",
    [SF_PART_EXPERT_DOWN] = "feed_forward.experts.down_proj",
};

static const struct sf_tensor *find_tensor(const struct parity *p, struct sf_role role)
{
    char name[128];
    if (role.layer < 0)
        snprintf(name, sizeof name, "%s", tensor_name[role.part]);
    else
        snprintf(name, sizeof name, "model.layers.%d.%s", role.layer, tensor_name[role.part]);
    return sf_hf_index_find(p->checkpoint, name);
}

/* [E, in, out] holds this expert's matrix turned, gate and up side by side along `out`. */
static int turn_expert(struct sk_matrix *out, struct parity *p, const struct sf_tensor *from,
                       struct sf_role role, struct sf_err *err)
{
    struct sf_shape shape = sf_spec_shape(&p->spec, role.part);
    int64_t rows = shape.dim[0], cols = shape.dim[1], stride = from->shape.dim[2];
    int64_t first = role.part == SF_PART_EXPERT_UP ? rows : 0, expert = role.expert;
    if (p->swap_experts && expert < 2)
        expert = 1 - expert;
    const uint16_t *data = (const uint16_t *)from->data + expert * cols * stride + first;
    uint16_t *turned = sf_arena_array(&p->arena, (uint64_t)(rows * cols), sizeof *turned);
    if (!turned)
        return sf_fail(err, SF_ENOMEM, "no memory");
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            turned[r * cols + c] = data[c * stride + r];
    *out = (struct sk_matrix){.format = SK_FORMAT_BF16, .rows = rows, .cols = cols, .data = turned};
    return SF_OK;
}

static int checkpoint_view(struct sk_matrix *out, void *context, struct sf_role role,
                           struct sf_err *err)
{
    struct parity *p = context;
    const struct sf_tensor *from = find_tensor(p, role);
    if (!from || from->dtype != SF_BF16)
        return sf_fail(err, SF_ENOENT, "the checkpoint has no such tensor in bf16");
    if (sf_part_is_expert(role.part))
        return turn_expert(out, p, from, role, err);
    /* Checkpoint data may lie on odd addresses; kernels want whole elements. */
    void *copy = sf_arena_alloc(&p->arena, from->bytes);
    if (!copy)
        return sf_fail(err, SF_ENOMEM, "no memory");
    memcpy(copy, from->data, from->bytes);
    *out = (struct sk_matrix){.format = SK_FORMAT_BF16,
                              .rows = from->shape.rank == 2 ? from->shape.dim[0] : 1,
                              .cols = from->shape.dim[from->shape.rank - 1],
                              .data = copy};
    return SF_OK;
}

/* scout_base differs from scout in its config alone; the weights are there once. */
static const char *weights_of(const char *preset)
{
    return strcmp(preset, "scout_base") == 0 ? "scout" : preset;
}

static void open_model(struct parity *p, const char *preset)
{
    struct sf_err err = {0};
    char *text;
    uint64_t bytes;
    assert_ok(
        sf_read_file(&text, &bytes, &p->arena, golden(preset, "model/config.json"), 1 << 20, &err),
        err);
    assert_ok(sf_hf_config_parse(&p->spec, &p->arena, text, bytes, &err), err);
    assert_ok(sf_hf_index_open(&p->checkpoint, golden(weights_of(preset), "model"), &err), err);
    assert_ok(sft_image_open_views(&p->image, &p->spec, checkpoint_view, p, &err), err);
}

static void open_adapter(struct parity *p, const char *preset, const char *variant)
{
    struct sf_err err = {0};
    struct sf_adapter adapter;
    assert_ok(sf_adapter_read(&adapter, &p->arena, golden(preset, variant), &p->spec, &err), err);
    assert_ok(sft_lora_plan_adapter(&p->lora, &p->arena, &p->spec, &adapter, &err), err);
    assert_ok(sft_lora_allocate(&p->lora, true, &err), err);
    assert_ok(sft_lora_load(&p->lora, &adapter, &err), err);
}

void parity_open(struct parity *p, const char *preset, const char *variant, int threads)
{
    struct sf_err err = {0};
    char file[64];
    *p = (struct parity){.swap_experts = p->swap_experts, .adapted = strcmp(variant, "base") != 0};
    assert_ok(sk_cpu_start(&p->ctx, threads, &err), err);
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
    sft_image_close(p->image);
    sf_hf_index_close(p->checkpoint);
    sft_lora_free(&p->lora);
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
                                      .ctx = &p->ctx,
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

static bool is_input(const char *name)
{
    return !strcmp(name, "inv_freq") || !strcmp(name, "input_ids") || !strcmp(name, "labels");
}

void parity_compare(struct parity_result *out, const struct parity *p,
                    const struct sft_probe *probe)
{
    *out = (struct parity_result){0};
    for (int64_t i = 0; i < sf_safetensors_count(p->reference); i++) {
        const struct sf_named_tensor *want = sf_safetensors_at(p->reference, i);
        if (is_input(want->name))
            continue;
        const struct sf_tensor *got = find_ours(probe, want->name);
        ck_assert_int_eq(want->tensor.dtype, SF_F32);
        ck_assert_msg(sf_shape_equal(&got->shape, &want->tensor.shape), "%s: another shape",
                      want->name);
        double error = scout_relative_error(got->data, want->tensor.data,
                                            (int64_t)(got->bytes / sizeof(float)));
        enum parity_group group = group_of(want->name);
        if (!(error <= out->worst[group]) || !out->name[group]) {
            out->worst[group] = error;
            out->name[group] = want->name;
        }
        out->compared++;
    }
}

void parity_print(const char *what, const struct parity_result *result)
{
    printf("%s: %lld tensors", what, (long long)result->compared);
    for (int g = 0; g < PARITY_GROUPS; g++)
        if (result->name[g])
            printf(", %s %.2g", parity_group_name[g], result->worst[g]);
    printf("\n");
}
