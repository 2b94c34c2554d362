#include "libformat/convert/convert_plan.h"

#include <string.h>

#include "libformat/codec/nf4.h"
#include "libformat/convert/names.h"

/* The source of every role, as soon as its tensor was met. */
struct slot {
    const char *name; /* of the tensor; NULL: none yet */
    enum sf_dtype dtype;
    struct sf_source source;
};

struct build {
    struct sf_convert_plan *plan;
    const struct sf_model_spec *spec;
    struct sf_policy *policy;
    struct slot *slot;   /* [(layers + 1) * SF_PART_COUNT] parts that are no experts */
    struct slot *expert; /* [layers * 3 * experts] */
};

static struct slot *slot_of(const struct build *b, struct sf_role role)
{
    if (!sf_part_is_expert(role.part))
        return &b->slot[(int64_t)(role.layer + 1) * SF_PART_COUNT + role.part];
    int64_t part = role.part - SF_PART_EXPERT_GATE;
    return &b->expert[(role.layer * 3 + part) * b->spec->experts + role.expert];
}

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

static int fill_slot(struct build *b, const struct sf_named_tensor *t, struct sf_role role,
                     enum sf_dtype dtype, struct sf_source source, struct sf_err *err)
{
    struct slot *slot = slot_of(b, role);
    if (slot->name)
        return sf_fail(err, SF_EFORMAT, "%s and %s are the same weight", slot->name, t->name);
    *slot = (struct slot){t->name, dtype, source};
    return SF_OK;
}

/* One tensor of all experts, [experts * in, stride] or of rank 3: part `part` of each begins `at`
 * elements into its row. */
static int fill_experts(struct build *b, const struct sf_named_tensor *t, struct sf_role role,
                        enum sf_dtype dtype, struct sf_source source, int64_t at,
                        struct sf_err *err)
{
    int64_t in = sf_spec_shape(b->spec, role.part).dim[1];
    int code = SF_OK;
    source.transposed = true; /* Hugging Face keeps experts [in, out] */
    for (role.expert = 0; role.expert < b->spec->experts && code == SF_OK; role.expert++) {
        source.first = role.expert * in * source.row_stride + at;
        code = fill_slot(b, t, role, dtype, source, err);
    }
    return code;
}

static int place_fused(struct build *b, const struct sf_named_tensor *t, struct sf_name name,
                       struct sf_err *err)
{
    const struct sf_model_spec *s = b->spec;
    bool down = name.kind == SF_NAME_FUSED_DOWN;
    struct sf_shape shape = {3, {s->experts, s->hidden, 2 * s->expert_width}};
    struct sf_source source = {.tensor = &t->tensor, .row_stride = 2 * s->expert_width};
    struct sf_role role = {down ? SF_PART_EXPERT_DOWN : SF_PART_EXPERT_GATE, name.layer, 0};
    if (down) {
        shape = (struct sf_shape){3, {s->experts, s->expert_width, s->hidden}};
        source.row_stride = s->hidden;
    }
    if (sf_bnb_is_quantized(b->plan->index, t->name))
        return sf_fail(err, SF_EUNSUPPORTED,
                       "%s: all experts quantized as one tensor of rank 3; only single experts, or "
                       "gate, up and down stacked apart, can be taken over",
                       t->name);
    int code = check_dtype(t, err);
    if (code == SF_OK)
        code = check_shape(t, &shape, err);
    if (code == SF_OK)
        code = fill_experts(b, t, role, t->tensor.dtype, source, 0, err);
    role.part = SF_PART_EXPERT_UP; /* gate first, then up */
    if (code == SF_OK && !down)
        code = fill_experts(b, t, role, t->tensor.dtype, source, s->expert_width, err);
    return code;
}

/* Experts of a stack are cut out of it: each must begin with a block and a group of its own. */
static int check_stack(const struct build *b, const struct sf_bnb_tensor *t, enum sf_part part,
                       struct sf_err *err)
{
    struct sf_shape one = sf_spec_shape(b->spec, part);
    int64_t blocks = one.dim[0] / SF_NF4_BLOCK * one.dim[1];
    if (one.dim[0] % SF_NF4_BLOCK != 0)
        return sf_fail(err, SF_EUNSUPPORTED, "rows of %lld hold no whole blocks of %d",
                       (long long)one.dim[0], SF_NF4_BLOCK);
    if (t->nested && blocks % SF_NF4_NEST != 0)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "an expert has %lld blocks, which are no whole groups of %d: the scales "
                       "of stacked experts cannot be told apart",
                       (long long)blocks, SF_NF4_NEST);
    return SF_OK;
}

static int read_packed(struct sf_bnb_tensor **out, struct build *b, const struct sf_named_tensor *t,
                       enum sf_part part, struct sf_err *err)
{
    struct sf_bnb_tensor *packed = sf_arena_alloc(&b->plan->arena, sizeof *packed);
    *out = packed;
    if (!packed)
        return sf_fail(err, SF_ENOMEM, "no memory for a conversion plan");
    if (!sf_part_is_matrix(part))
        return sf_fail(err, SF_EUNSUPPORTED, "%s: is quantized; a %s must not be", t->name,
                       sf_part_name(part));
    return sf_bnb_tensor_read(packed, b->plan->index, t->name, err);
}

/* A weight of its own, or the stack of all experts' one. */
static int place(struct build *b, const struct sf_named_tensor *t, struct sf_name name,
                 struct sf_err *err)
{
    bool stacked = name.kind == SF_NAME_STACKED;
    struct sf_shape shape = sf_spec_shape(b->spec, name.part);
    struct sf_role role = {name.part, name.layer, name.expert};
    struct sf_source source = {.tensor = &t->tensor};
    struct sf_named_tensor seen = *t; /* as it was before others quantized it */
    int code = SF_OK;
    if (sf_bnb_is_quantized(b->plan->index, t->name)) {
        struct sf_bnb_tensor *packed;
        code = read_packed(&packed, b, t, name.part, err);
        if (code == SF_OK && stacked && (code = check_stack(b, packed, name.part, err)) != SF_OK)
            return sf_err_prefix(err, "%s", t->name);
        source.packed = packed;
        source.requantize = stacked && b->policy->requantize;
        seen.tensor.dtype = packed ? packed->dtype : SF_DTYPE_NONE;
        seen.tensor.shape = packed ? packed->shape : shape;
    }
    if (stacked) {
        source.row_stride = shape.dim[0];
        shape = (struct sf_shape){2, {b->spec->experts * shape.dim[1], shape.dim[0]}};
    }
    if (code == SF_OK)
        code = check_dtype(&seen, err);
    if (code == SF_OK)
        code = check_shape(&seen, &shape, err);
    if (code != SF_OK)
        return code;
    return stacked ? fill_experts(b, t, role, seen.tensor.dtype, source, 0, err)
                   : fill_slot(b, t, role, seen.tensor.dtype, source, err);
}

/* Files a tensor of the checkpoint under its role after checking that the model has such a role. */
static int place_named(struct build *b, const struct sf_named_tensor *t, struct sf_name name,
                       struct sf_err *err)
{
    bool fused = name.kind == SF_NAME_FUSED_GATE_UP || name.kind == SF_NAME_FUSED_DOWN;
    enum sf_part part = fused ? SF_PART_EXPERT_GATE : name.part;
    if (!sf_spec_has(b->spec, part, name.layer) || name.expert >= b->spec->experts)
        return sf_fail(err, SF_EFORMAT, "%s: the config describes no such weight", t->name);
    return fused ? place_fused(b, t, name, err) : place(b, t, name, err);
}

/* A side tensor without its weight would be lost without a word. */
static int check_side(struct build *b, const struct sf_named_tensor *t, struct sf_err *err)
{
    const char *weight = sf_bnb_weight_name(&b->plan->arena, t->name);
    if (!weight)
        return sf_fail(err, SF_ENOMEM, "no memory for a conversion plan");
    if (sf_hf_index_find(b->plan->index, weight) && sf_bnb_is_quantized(b->plan->index, weight))
        return SF_OK;
    return sf_fail(err, SF_EFORMAT, "%s: describes no 4-bit weight of this checkpoint", t->name);
}

/* Elements of the weight; those of a quantized one are known to its state only. */
static int64_t count_parameters(const struct build *b, const struct sf_named_tensor *t,
                                struct sf_name name)
{
    int64_t count = 0;
    struct sf_shape shape;
    if (name.kind == SF_NAME_BNB)
        return 0;
    if ((name.kind != SF_NAME_WEIGHT && name.kind != SF_NAME_STACKED) ||
        !sf_bnb_is_quantized(b->plan->index, t->name)) {
        sf_shape_count(&count, &t->tensor.shape);
        return count;
    }
    shape = sf_spec_shape(b->spec, name.part);
    sf_shape_count(&count, &shape);
    return name.kind == SF_NAME_STACKED ? count * b->spec->experts : count;
}

static int sort_tensor(struct build *b, const struct sf_named_tensor *t, bool keep_unknown,
                       struct sf_err *err)
{
    struct sf_name name = sf_name_parse(t->name);
    int64_t count = count_parameters(b, t, name);
    b->plan->parameters += count;
    b->plan->source_bytes += t->tensor.bytes;
    if (name.kind == SF_NAME_BNB)
        return check_side(b, t, err);
    if (name.kind == SF_NAME_PACKED)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "%s: this checkpoint is already quantized (%s), which cannot be taken over; "
                       "convert the bf16 one",
                       t->name, name.packing);
    if (name.kind == SF_NAME_UNUSED || (name.kind == SF_NAME_UNKNOWN && keep_unknown))
        return SF_OK;
    if (name.kind == SF_NAME_UNKNOWN)
        return sf_fail(
            err, SF_EFORMAT,
            "%s: no weight of a Llama 4 has this name (--keep-unknown carries it unused)", t->name);
    b->plan->parameters_text += count;
    return place_named(b, t, name, err);
}

/* ---- from slots to rows, in the order of the file ---- */

static int add_entry(struct build *b, const struct sf_entry *entry, struct sf_source source,
                     struct sf_err *err)
{
    int64_t index;
    const struct sf_bnb_tensor *own = source.requantize ? NULL : source.packed;
    int code =
        own ? sf_layout_tensor_with(&index, b->plan->layout, entry, own->codebook, own->map, err)
            : sf_layout_tensor(&index, b->plan->layout, entry, err);
    if (code == SF_OK)
        b->plan->row[b->plan->rows++].source = source;
    return code;
}

/* What was quantized stays so: its blocks, and the axis along which they run. */
static int set_encoding(struct build *b, struct sf_entry *entry, const struct slot *slot,
                        struct sf_err *err)
{
    const struct sf_bnb_tensor *packed = slot->source.packed;
    entry->encoding = sf_policy_encoding(b->policy, entry->role.part, entry->name, slot->name);
    if (packed && entry->encoding != SF_ENCODING_NF4)
        return sf_fail(err, SF_EINVAL, "--keep-bf16 matches %s, which is quantized already",
                       slot->name);
    if (entry->encoding != SF_ENCODING_NF4)
        return SF_OK;
    entry->block = SF_NF4_BLOCK;
    entry->nested_block = SF_NF4_NEST;
    if (slot->source.requantize) {
        entry->dtype = SF_BF16; /* as which it is decoded */
        b->plan->requantized++;
    } else if (packed) {
        entry->nested_block = packed->nested ? SF_NF4_NEST : 0;
        entry->block_axis = slot->source.transposed ? 0 : -1;
        b->plan->taken++;
        b->plan->down += slot->source.transposed;
    }
    return SF_OK;
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
    const struct slot *slot = slot_of(b, role);
    char text[SF_ROLE_TEXT];
    if (!slot->name)
        return sf_fail(err, SF_EFORMAT, "%s is missing from the checkpoint",
                       sf_role_format(text, role));
    const char *name = sf_name_of_role(&b->plan->arena, b->spec->multimodal, role);
    if (!name)
        return sf_fail(err, SF_ENOMEM, "no memory for tensor names");
    struct sf_entry entry = {.name = name,
                             .source_name = slot->name,
                             .role = role,
                             .shape = sf_spec_shape(b->spec, role.part),
                             .dtype = slot->dtype,
                             .block_axis = -1};
    int code = set_encoding(b, &entry, slot, err);
    if (code == SF_OK)
        code = add_entry(b, &entry, slot->source, err);
    bool encoded = !slot->source.packed || slot->source.requantize;
    if (code == SF_OK && entry.encoding == SF_ENCODING_NF4 && encoded)
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
    b.slot =
        sf_arena_array(&out->arena, (uint64_t)(spec->layers + 1) * SF_PART_COUNT, sizeof *b.slot);
    b.expert = sf_arena_array(&out->arena, (uint64_t)spec->layers * 3,
                              (uint64_t)spec->experts * sizeof *b.expert);
    int code = SF_OK;
    if (!out->layout || !out->row || !b.slot || !b.expert)
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
