#include "libformat/convert/merge_plan.h"

#include <string.h>

#include "libformat/codec/halves.h"
#include "libformat/convert/base_copy.h"
#include "libformat/convert/delta.h"
#include "libformat/convert/names.h"

struct builder {
    const struct sf_adapter *adapter;
    int64_t *found; /* per module: elements of its weight that were found */
};

/* The weight that a name means, and whether it is all experts of a layer; false: not ours to change. */
static bool role_of(struct sf_role *role, bool *fused, const struct sf_name *name)
{
    *fused = name->kind == SF_NAME_FUSED_GATE_UP || name->kind == SF_NAME_FUSED_DOWN;
    *role = (struct sf_role){name->part, name->layer, name->expert};
    if (*fused)
        *role = (struct sf_role){name->kind == SF_NAME_FUSED_DOWN ? SF_PART_EXPERT_DOWN
                                                                  : SF_ADAPTER_GATE_UP,
                                 name->layer, -1};
    return *fused || name->kind == SF_NAME_WEIGHT;
}

static int check_shape(const struct sf_merge_tensor *t, const struct sf_adapter_module *m,
                       struct sf_role role, struct sf_err *err)
{
    char got[SF_SHAPE_TEXT], want[SF_SHAPE_TEXT];
    int64_t out = m->role.part == SF_ADAPTER_GATE_UP && role.expert >= 0 ? m->out / 2 : m->out;
    struct sf_shape plain = {2, {out, m->in}}, fused = {3, {m->groups, m->in, m->out}};
    const struct sf_shape *wanted = t->fused ? &fused : &plain;
    if (sf_shape_equal(&t->from->tensor.shape, wanted) && role.expert < m->groups)
        return SF_OK;
    return sf_fail(err, SF_EFORMAT, "%s: shape %s, the adapter wants %s", t->from->name,
                   sf_shape_format(got, &t->from->tensor.shape), sf_shape_format(want, wanted));
}

static int adapt(struct sf_merge_tensor *t, struct builder *b, const struct sf_adapter_module *m,
                 struct sf_role role, struct sf_err *err)
{
    enum sf_dtype dtype = t->from->tensor.dtype;
    if (dtype != SF_BF16 && dtype != SF_F32)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "%s: dtype %s; an adapter is merged into bf16 or f32 weights", t->from->name,
                       sf_dtype_name(dtype));
    int code = check_shape(t, m, role, err);
    if (code)
        return code;
    t->module = m - b->adapter->module;
    t->group = role.expert < 0 ? 0 : role.expert;
    t->rows = t->from->tensor.shape.dim[t->fused];
    t->cols = t->from->tensor.shape.dim[1 + t->fused];
    b->found[t->module] += t->rows * t->cols * (t->fused ? m->groups : 1);
    return SF_OK;
}

static int plan_tensor(struct sf_merge_tensor *t, struct builder *b, struct sf_err *err)
{
    struct sf_name name = sf_name_parse(t->from->name);
    struct sf_role role;
    t->module = -1;
    if (!role_of(&role, &t->fused, &name))
        return SF_OK;
    const struct sf_adapter_module *m = sf_delta_module(&t->out_first, b->adapter, role);
    return m ? adapt(t, b, m, role, err) : SF_OK;
}

static int plan_shard(struct sf_merge_shard *s, struct sf_arena *arena, struct builder *b,
                      struct sf_err *err)
{
    s->tensors = sf_safetensors_count(s->shard->file);
    s->tensor = sf_arena_array(arena, (uint64_t)s->tensors + 1, sizeof *s->tensor);
    int code = s->tensor ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a list of tensors");
    for (int64_t i = 0; i < s->tensors && !code; i++) {
        s->tensor[i].from = sf_safetensors_at(s->shard->file, i);
        code = plan_tensor(&s->tensor[i], b, err);
    }
    return code;
}

static int check_found(const struct builder *b, struct sf_err *err)
{
    char role[SF_ROLE_TEXT];
    for (int64_t i = 0; i < b->adapter->modules; i++) {
        const struct sf_adapter_module *m = &b->adapter->module[i];
        int64_t all = m->groups * m->in * m->out;
        if (b->found[i] != all)
            return sf_fail(err, SF_EINVAL,
                           "the adapter's %s matches %s in the base (%lld of %lld weights)",
                           sf_role_format(role, m->role), b->found[i] ? "only a part" : "nothing",
                           (long long)b->found[i], (long long)all);
    }
    return SF_OK;
}

int sf_merge_check_base(const struct sf_hf_index *index, struct sf_err *err)
{
    for (int64_t i = 0; i < sf_hf_index_count(index); i++) {
        const char *name = sf_hf_index_at(index, i, NULL)->name;
        enum sf_name_kind kind = sf_name_parse(name).kind;
        if (kind == SF_NAME_BNB || kind == SF_NAME_PACKED || kind == SF_NAME_STACKED)
            return sf_fail(err, SF_EUNSUPPORTED,
                           "%s: the base is quantized; an adapter is merged into the original bf16 "
                           "checkpoint",
                           name);
    }
    return SF_OK;
}

int sf_merge_plan_build(struct sf_merge_plan *out, struct sf_arena *arena,
                        const struct sf_hf_index *index, const struct sf_adapter_source *adapter,
                        struct sf_err *err)
{
    struct builder b = {.adapter = sf_adapter_about(adapter)};
    *out = (struct sf_merge_plan){.shards = sf_hf_index_shard_count(index)};
    b.found = sf_arena_array(arena, (uint64_t)b.adapter->modules + 1, sizeof *b.found);
    out->shard = sf_arena_array(arena, (uint64_t)out->shards + 1, sizeof *out->shard);
    int code =
        b.found && out->shard ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a merge plan");
    for (int64_t i = 0; i < out->shards && !code; i++) {
        struct sf_merge_shard *s = &out->shard[i];
        s->shard = sf_hf_index_shard(index, i);
        code = plan_shard(s, arena, &b, err);
        if (code)
            return sf_err_prefix(err, "%s", s->shard->name);
        out->tensors += s->tensors;
        out->bytes += sf_safetensors_bytes(s->shard->file);
        for (int64_t t = 0; t < s->tensors; t++)
            out->merged += s->tensor[t].module >= 0;
    }
    if (!code)
        code = check_found(&b, err);
    struct sf_adapter_base base = sf_base_in_checkpoint(index);
    return code ? code : sf_adapter_check_copies(adapter, &base, err);
}
