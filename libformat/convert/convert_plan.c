#include "libformat/convert/convert_plan.h"

#include <string.h>

#include "libformat/codec/nf4.h"
#include "libformat/convert/names.h"

/* The source of every role: one slot per part outside the layers, then per layer one per part.
 * Routed experts share the slot of their fused tensor: EXPERT_GATE holds gate_up, EXPERT_DOWN down.
 */
struct slots {
    const struct sf_named_tensor **tensor; /* [(layers + 1) * SF_PART_COUNT] */
};

static const struct sf_named_tensor **slot_of(const struct slots *s, enum sf_part part,
                                              int32_t layer)
{
    return &s->tensor[(int64_t)(layer + 1) * SF_PART_COUNT + part];
}

struct build {
    struct sf_convert_plan *plan;
    const struct sf_model_spec *spec;
    struct sf_policy *policy;
    struct slots slots;
};

static int check_shape(const struct sf_named_tensor *t, const struct sf_shape *want,
                       struct sf_err *err)
{
    char have_text[SF_SHAPE_TEXT], want_text[SF_SHAPE_TEXT];
    if (sf_shape_equal(&t->tensor.shape, want))
        return SF_OK;
    return sf_fail(err, SF_EFORMAT, "%s: shape %s, the config asks for %s", t->name,
                   sf_shape_format(have_text, &t->tensor.shape), sf_shape_format(want_text, want));
}

static int check_dtype(const struct sf_named_tensor *t, struct sf_err *err)
{
    enum sf_dtype d = t->tensor.dtype;
    if (d == SF_BF16 || d == SF_F16 || d == SF_F32)
        return SF_OK;
    return sf_fail(err, SF_EUNSUPPORTED, "%s: %s weights; only bf16, f16 and f32 can be converted",
                   t->name, sf_dtype_name(d));
}

/* Files a tensor of the checkpoint under its role after checking that the model has such a role. */
static int place(struct build *b, const struct sf_named_tensor *t, struct sf_name name,
                 struct sf_err *err)
{
    const struct sf_model_spec *s = b->spec;
    struct sf_shape shape;
    if (name.kind == SF_NAME_FUSED_GATE_UP) {
        name.part = SF_PART_EXPERT_GATE;
        shape = (struct sf_shape){3, {s->experts, s->hidden, 2 * s->expert_width}};
    } else if (name.kind == SF_NAME_FUSED_DOWN) {
        name.part = SF_PART_EXPERT_DOWN;
        shape = (struct sf_shape){3, {s->experts, s->expert_width, s->hidden}};
    } else {
        shape = sf_spec_shape(s, name.part);
    }
    if (!sf_spec_has(s, name.part, name.layer))
        return sf_fail(err, SF_EFORMAT, "%s: the config describes no such weight", t->name);
    int code = check_dtype(t, err);
    if (code == SF_OK)
        code = check_shape(t, &shape, err);
    const struct sf_named_tensor **slot = slot_of(&b->slots, name.part, name.layer);
    if (code == SF_OK && *slot)
        code = sf_fail(err, SF_EFORMAT, "%s and %s are the same weight", (*slot)->name, t->name);
    *slot = t;
    return code;
}

static int sort_tensor(struct build *b, const struct sf_named_tensor *t, bool keep_unknown,
                       struct sf_err *err)
{
    struct sf_name name = sf_name_parse(t->name);
    int64_t count = 0;
    sf_shape_count(&count, &t->tensor.shape);
    b->plan->parameters += count;
    b->plan->source_bytes += t->tensor.bytes;
    if (name.kind == SF_NAME_PACKED)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "%s: this checkpoint is already quantized; convert the bf16 one", t->name);
    if (name.kind == SF_NAME_UNUSED || (name.kind == SF_NAME_UNKNOWN && keep_unknown))
        return SF_OK;
    if (name.kind == SF_NAME_UNKNOWN)
        return sf_fail(
            err, SF_EFORMAT,
            "%s: no weight of a Llama 4 has this name (--keep-unknown carries it unused)", t->name);
    b->plan->parameters_text += count;
    return place(b, t, name, err);
}

/* ---- from slots to rows, in the order of the file ---- */

static struct sf_source source_of(const struct sf_model_spec *s, const struct sf_named_tensor *t,
                                  struct sf_role role)
{
    struct sf_source out = {.tensor = &t->tensor};
    if (!sf_part_is_expert(role.part))
        return out;
    bool down = role.part == SF_PART_EXPERT_DOWN;
    out.transposed = true; /* Hugging Face keeps experts [in, out] */
    out.row_stride = down ? s->hidden : 2 * s->expert_width;
    out.first = role.expert * (down ? s->expert_width : s->hidden) * out.row_stride;
    if (role.part == SF_PART_EXPERT_UP)
        out.first += s->expert_width; /* gate first, then up */
    return out;
}

static int add_entry(struct build *b, const struct sf_entry *entry, struct sf_source source,
                     struct sf_err *err)
{
    int64_t index;
    int code = sf_layout_tensor(&index, b->plan->layout, entry, err);
    if (code == SF_OK)
        b->plan->row[b->plan->rows++].source = source;
    return code;
}

/* How the scales of the row that was added last are chosen. */
static int choose_scale(struct build *b, const struct sf_entry *entry, struct sf_err *err)
{
    struct sf_convert_row *row = &b->plan->row[b->plan->rows - 1];
    row->scale = b->policy->scale;
    if (!b->policy->importance || row->scale == SF_SCALE_ABSMAX)
        return SF_OK;
    return sf_importance_find(&row->importance, b->policy->importance, entry, b->spec->experts,
                              err);
}

static int add_role(struct build *b, struct sf_role role, struct sf_err *err)
{
    enum sf_part slot_part = role.part == SF_PART_EXPERT_UP ? SF_PART_EXPERT_GATE : role.part;
    const struct sf_named_tensor *t = *slot_of(&b->slots, slot_part, role.layer);
    char text[SF_ROLE_TEXT];
    if (!t)
        return sf_fail(err, SF_EFORMAT, "%s is missing from the checkpoint",
                       sf_role_format(text, role));
    const char *name = sf_name_of_role(&b->plan->arena, b->spec->multimodal, role);
    if (!name)
        return sf_fail(err, SF_ENOMEM, "no memory for tensor names");
    struct sf_entry entry = {.name = name,
                             .source_name = t->name,
                             .role = role,
                             .shape = sf_spec_shape(b->spec, role.part),
                             .dtype = t->tensor.dtype,
                             .block_axis = -1};
    entry.encoding = sf_policy_encoding(b->policy, role.part, name, t->name);
    if (entry.encoding == SF_ENCODING_NF4) {
        entry.block = SF_NF4_BLOCK;
        entry.nested_block = SF_NF4_NEST;
    }
    int code = add_entry(b, &entry, source_of(b->spec, t, role), err);
    if (code == SF_OK && entry.encoding == SF_ENCODING_NF4)
        code = choose_scale(b, &entry, err);
    return code;
}

/* Parts in this order: matrices that are used together lie together. */
static const enum sf_part dense_parts[] = {
    SF_PART_Q,           SF_PART_K,          SF_PART_V,           SF_PART_O,
    SF_PART_SHARED_GATE, SF_PART_SHARED_UP,  SF_PART_SHARED_DOWN, SF_PART_DENSE_GATE,
    SF_PART_DENSE_UP,    SF_PART_DENSE_DOWN, SF_PART_INPUT_NORM,  SF_PART_POST_NORM,
    SF_PART_ROUTER,
};
static const enum sf_part expert_parts[] = {SF_PART_EXPERT_GATE, SF_PART_EXPERT_UP,
                                            SF_PART_EXPERT_DOWN};
static const enum sf_part head_parts[] = {SF_PART_FINAL_NORM, SF_PART_HEAD};
static const enum sf_part embedding_parts[] = {SF_PART_EMBEDDING};

static int add_extent(struct build *b, enum sf_extent_kind kind, int32_t layer, int32_t expert,
                      const enum sf_part *parts, int count, struct sf_err *err)
{
    int extent = sf_layout_extent(b->plan->layout, kind, layer, expert, err);
    int code = extent < 0 ? extent : SF_OK;
    for (int i = 0; i < count && code == SF_OK; i++)
        if (sf_spec_has(b->spec, parts[i], layer))
            code = add_role(b, (struct sf_role){parts[i], layer, expert}, err);
    return code;
}

#define COUNT(array) (int)(sizeof(array) / sizeof *(array))

static int add_layers(struct build *b, struct sf_err *err)
{
    for (int32_t l = 0; l < b->spec->layers; l++) {
        int code = add_extent(b, SF_EXTENT_DENSE, l, -1, dense_parts, COUNT(dense_parts), err);
        int32_t experts = b->spec->layer[l].moe ? (int32_t)b->spec->experts : 0;
        for (int32_t e = 0; e < experts && code == SF_OK; e++)
            code = add_extent(b, SF_EXTENT_EXPERT, l, e, expert_parts, COUNT(expert_parts), err);
        if (code != SF_OK)
            return code;
    }
    return SF_OK;
}

static bool is_unused(const struct sf_named_tensor *t, bool keep_unknown)
{
    enum sf_name_kind kind = sf_name_parse(t->name).kind;
    return kind == SF_NAME_UNUSED || (kind == SF_NAME_UNKNOWN && keep_unknown);
}

/* Where tensors that lie in the last extent are still unknown, that extent waits as a whole. */
static int find_waiting(struct build *b, bool keep_unknown, struct sf_err *err)
{
    const struct sf_hf_index *index = b->plan->index;
    bool any = false;
    bool *waits = sf_arena_array(&b->plan->arena, (uint64_t)sf_hf_index_shard_count(index), 1);
    if (!waits)
        return sf_fail(err, SF_ENOMEM, "no memory for a conversion plan");
    for (int64_t i = 0; i < sf_hf_index_count(index); i++) {
        int64_t shard;
        const struct sf_named_tensor *t = sf_hf_index_at(index, i, &shard);
        if (is_unused(t, keep_unknown)) {
            waits[shard] = true;
            any = any || t->tensor.dtype == SF_DTYPE_NONE;
        }
    }
    b->plan->waits = any ? waits : NULL;
    return SF_OK;
}

static int add_unused(struct build *b, bool keep_unknown, struct sf_err *err)
{
    bool begun = false;
    int waiting = find_waiting(b, keep_unknown, err);
    if (waiting != SF_OK || b->plan->waits)
        return waiting;
    for (int64_t i = 0; i < sf_hf_index_count(b->plan->index); i++) {
        const struct sf_named_tensor *t = sf_hf_index_at(b->plan->index, i, NULL);
        if (!is_unused(t, keep_unknown))
            continue;
        if (!begun) {
            int extent = sf_layout_extent(b->plan->layout, SF_EXTENT_UNUSED, -1, -1, err);
            if (extent < 0)
                return extent;
            begun = true;
        }
        struct sf_entry entry = {.name = t->name,
                                 .source_name = t->name,
                                 .role = {SF_PART_UNUSED, -1, -1},
                                 .shape = t->tensor.shape,
                                 .dtype = t->tensor.dtype,
                                 .encoding = SF_ENCODING_RAW,
                                 .block_axis = -1};
        int code = add_entry(b, &entry, (struct sf_source){.tensor = &t->tensor}, err);
        if (code != SF_OK)
            return code;
    }
    return SF_OK;
}

/* Loading order: layers with their experts, the head, then what does not go to the device. */
static int add_rows(struct build *b, bool keep_unknown, struct sf_err *err)
{
    int code = add_layers(b, err);
    if (code == SF_OK)
        code = add_extent(b, SF_EXTENT_HEAD, -1, -1, head_parts, COUNT(head_parts), err);
    if (code == SF_OK)
        code = add_extent(b, SF_EXTENT_EMBEDDING, -1, -1, embedding_parts, COUNT(embedding_parts),
                          err);
    if (code == SF_OK)
        code = add_unused(b, keep_unknown, err);
    if (code == SF_OK)
        code = sf_policy_check_used(b->policy, err);
    if (code == SF_OK)
        code = sf_layout_finish(b->plan->layout, err);
    for (int64_t i = 0; i < b->plan->rows && code == SF_OK; i++)
        b->plan->row[i].entry = sf_layout_entry(b->plan->layout, i);
    return code;
}

/* At most: every tensor, plus three for each expert in place of the two fused ones. */
static uint64_t most_rows(const struct sf_model_spec *spec, const struct sf_hf_index *index)
{
    return (uint64_t)sf_hf_index_count(index) +
           3 * (uint64_t)spec->layers * (uint64_t)spec->experts;
}

int sf_convert_plan_build(struct sf_convert_plan *out, const struct sf_model_spec *spec,
                          const struct sf_hf_index *index, struct sf_policy *policy,
                          bool keep_unknown, struct sf_err *err)
{
    *out = (struct sf_convert_plan){.spec = spec, .index = index};
    struct build b = {.plan = out, .spec = spec, .policy = policy};
    out->layout = sf_layout_begin(&out->arena);
    out->row = sf_arena_array(&out->arena, most_rows(spec, index), sizeof *out->row);
    b.slots.tensor = sf_arena_array(&out->arena, (uint64_t)(spec->layers + 1) * SF_PART_COUNT,
                                    sizeof *b.slots.tensor);
    int code = SF_OK;
    if (!out->layout || !out->row || !b.slots.tensor)
        code = sf_fail(err, SF_ENOMEM, "no memory for a conversion plan");
    for (int64_t i = 0; i < sf_hf_index_count(index) && code == SF_OK; i++)
        code = sort_tensor(&b, sf_hf_index_at(index, i, NULL), keep_unknown, err);
    if (code == SF_OK)
        code = add_rows(&b, keep_unknown, err);
    if (code != SF_OK)
        sf_convert_plan_free(out);
    return code;
}

void sf_convert_plan_free(struct sf_convert_plan *plan)
{
    sf_arena_free(&plan->arena);
    *plan = (struct sf_convert_plan){0};
}
