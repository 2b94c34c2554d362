#include "libformat/convert/export_plan.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/json.h"
#include "libformat/convert/delta.h"
#include "libformat/convert/names.h"

struct builder {
    struct sf_export_plan *plan;
    struct sf_arena *arena;
    const struct sf_map *map;
    const struct sf_adapter *adapter; /* or NULL */
};

static int no_memory(struct sf_err *err)
{
    return sf_fail(err, SF_ENOMEM, "no memory for an export plan");
}

static struct sf_export_tensor *add(struct builder *b, const char *name, enum sf_dtype dtype,
                                    struct sf_shape shape)
{
    struct sf_export_tensor *t = &b->plan->tensor[b->plan->tensors++];
    t->module = -1;
    t->out.name = name;
    t->out.tensor.dtype = dtype;
    t->out.tensor.shape = shape;
    sf_shape_bytes(&t->out.tensor.bytes, &shape, dtype);
    b->plan->bytes += t->out.tensor.bytes;
    return t;
}

static void add_copy(struct builder *b, const char *name, enum sf_dtype dtype,
                     struct sf_shape shape, const void *data)
{
    add(b, name, dtype, shape)->out.tensor.data = data;
}

/* ---- bf16 ---- */

static int count_experts(const struct sf_map *map, int32_t layer)
{
    int n = 0;
    while (sf_map_find(map, (struct sf_role){SF_PART_EXPERT_GATE, layer, n}))
        n++;
    return n;
}

/* "...experts.gate_up_proj" from "...experts.0.gate_proj.weight", whatever the source called it. */
static const char *fused_name(struct builder *b, const struct sf_entry *e, bool down)
{
    const char *end = strstr(e->name, ".experts.");
    return end ? sf_arena_printf(b->arena, "%.*s.experts.%s", (int)(end - e->name), e->name,
                                 down ? "down_proj" : "gate_up_proj")
               : e->source_name;
}

/* Index of the module that adapts a weight, an expert's by all experts'; -1: none. */
static int64_t module_of(const struct builder *b, struct sf_role role)
{
    int64_t out_first;
    const struct sf_adapter_module *m = sf_delta_module(&out_first, b->adapter, role);
    return m ? m - b->adapter->module : -1;
}

/* One fused tensor from all experts of a layer, added when its first expert is met. */
static int add_fused(struct builder *b, const struct sf_entry *first, struct sf_err *err)
{
    bool down = first->role.part == SF_PART_EXPERT_DOWN;
    int experts = count_experts(b->map, first->role.layer), each = down ? 1 : 2;
    const struct sf_entry **list =
        sf_arena_array(b->arena, (uint64_t)(experts * each), sizeof *list);
    if (!list)
        return no_memory(err);
    for (int32_t e = 0; e < experts; e++) {
        struct sf_role role = {first->role.part, first->role.layer, e};
        list[e * each] = sf_map_find(b->map, role);
        role.part = SF_PART_EXPERT_UP;
        if (!down)
            list[e * each + 1] = sf_map_find(b->map, role);
    }
    for (int i = 0; i < experts * each; i++)
        if (!list[i] || list[i]->shape.rank != 2 || list[i]->shape.dim[0] != first->shape.dim[0] ||
            list[i]->shape.dim[1] != first->shape.dim[1])
            return sf_fail(err, SF_EFORMAT, "layer %d: its experts do not make one tensor",
                           first->role.layer);
    struct sf_shape shape = {3, {experts, first->shape.dim[1], each * first->shape.dim[0]}};
    const char *name = fused_name(b, first, down);
    if (!name)
        return no_memory(err);
    struct sf_export_tensor *t = add(b, name, SF_BF16, shape);
    t->kind = SF_EXPORT_EXPERTS;
    t->module = module_of(b, first->role);
    t->entries = experts * each;
    t->entry = list;
    return SF_OK;
}

/* Has the container the weights that this module adapts, of its shape? Experts' up is there if gate is. */
static bool has_weights(const struct builder *b, const struct sf_adapter_module *m)
{
    bool experts = sf_part_is_expert(m->role.part);
    int64_t out = m->role.part == SF_ADAPTER_GATE_UP ? m->out / 2 : m->out;
    if (experts && count_experts(b->map, m->role.layer) != m->groups)
        return false;
    for (int32_t g = 0; g < m->groups; g++) {
        struct sf_role role = {m->role.part, m->role.layer, experts ? g : -1};
        const struct sf_entry *e = sf_map_find(b->map, role);
        if (!e || e->shape.rank != 2 || e->shape.dim[0] != out || e->shape.dim[1] != m->in)
            return false;
    }
    return true;
}

/* What an adapter adapts must be there: nothing of it is left out without a word. */
static int check_adapter(const struct builder *b, enum sf_export_format format, struct sf_err *err)
{
    char role[SF_ROLE_TEXT];
    if (b->adapter && format != SF_EXPORT_BF16)
        return sf_fail(err, SF_EINVAL, "an adapter is merged into bf16 weights only");
    for (int64_t i = 0; b->adapter && i < b->adapter->modules; i++)
        if (!has_weights(b, &b->adapter->module[i]))
            return sf_fail(err, SF_EUNSUPPORTED,
                           "the adapter's %s has no weight of its shape in the container",
                           sf_role_format(role, b->adapter->module[i].role));
    return SF_OK;
}

static int add_bf16(struct builder *b, const struct sf_entry *e, struct sf_err *err)
{
    if (sf_part_is_expert(e->role.part)) {
        bool starts = e->role.expert == 0 && e->role.part != SF_PART_EXPERT_UP;
        return starts ? add_fused(b, e, err) : SF_OK;
    }
    int64_t module = module_of(b, e->role);
    if (e->encoding == SF_ENCODING_RAW && module < 0) {
        add_copy(b, e->source_name, e->dtype, e->shape,
                 sf_map_bytes(b->map, e->plane[SF_PLANE_CODES].address));
        return SF_OK;
    }
    const struct sf_entry **list = sf_arena_alloc(b->arena, sizeof *list);
    if (!list)
        return no_memory(err);
    *list = e;
    struct sf_export_tensor *t = add(b, e->source_name, SF_BF16, e->shape);
    t->kind = SF_EXPORT_DECODE;
    t->module = module;
    t->entries = 1;
    t->entry = list;
    return SF_OK;
}

/* ---- bitsandbytes ---- */

/* The JSON text of a quantization state, in Python's spelling and bitsandbytes' order. */
static int state_text(char **text, uint64_t *bytes, struct builder *b, const struct sf_entry *e,
                      struct sf_shape shape, struct sf_err *err)
{
    struct sf_json_writer w;
    const char *dtype = e->dtype == SF_BF16  ? "bfloat16"
                        : e->dtype == SF_F16 ? "float16"
                                             : "float32";
    sf_json_write_begin(&w, b->arena, 0);
    sf_json_write_object(&w, NULL);
    sf_json_write_string(&w, "quant_type", "nf4");
    sf_json_write_int(&w, "blocksize", e->block);
    sf_json_write_string(&w, "dtype", dtype);
    sf_json_write_array(&w, "shape");
    sf_json_write_int(&w, NULL, shape.dim[0]);
    sf_json_write_int(&w, NULL, shape.dim[1]);
    sf_json_write_end(&w, ']');
    if (e->nested_block) {
        float offset = sf_get_f32(sf_map_bytes(b->map, e->plane[SF_PLANE_OFFSET].address));
        sf_json_write_int(&w, "nested_blocksize", e->nested_block);
        sf_json_write_string(&w, "nested_dtype", "float32");
        sf_json_write_double(&w, "nested_offset", (double)offset);
    }
    sf_json_write_end(&w, '}');
    return sf_json_write_finish(text, bytes, &w, err);
}

static int add_plane(struct builder *b, const struct sf_entry *e, enum sf_plane_kind kind,
                     const char *suffix, struct sf_err *err)
{
    const struct sf_plane *p = &e->plane[kind];
    const char *name = sf_arena_printf(b->arena, "%s%s", e->name, suffix);
    if (!name)
        return no_memory(err);
    struct sf_shape shape = p->shape;
    if (kind == SF_PLANE_CODES) /* bitsandbytes keeps codes as a column */
        shape = (struct sf_shape){2, {(int64_t)p->bytes, 1}};
    add_copy(b, name, p->dtype, shape, sf_map_bytes(b->map, p->address));
    return SF_OK;
}

static int add_state(struct builder *b, const struct sf_entry *e, const char *weight,
                     struct sf_shape shape, struct sf_err *err)
{
    char *text;
    uint64_t bytes;
    int code = state_text(&text, &bytes, b, e, shape, err);
    const char *name = sf_arena_printf(b->arena, "%s.quant_state.bitsandbytes__nf4", weight);
    if (code == SF_OK && !name)
        code = no_memory(err);
    if (code == SF_OK)
        add_copy(b, name, SF_U8, (struct sf_shape){1, {(int64_t)bytes}}, text);
    return code;
}

static const struct {
    enum sf_plane_kind kind;
    const char *suffix;
    bool nested, shared;
} bnb_planes[] = {{SF_PLANE_CODES, "", false, false},
                  {SF_PLANE_SCALE, ".absmax", false, false},
                  {SF_PLANE_CODEBOOK, ".quant_map", false, true},
                  {SF_PLANE_SCALE2, ".nested_absmax", true, false},
                  {SF_PLANE_MAP, ".nested_quant_map", true, true}};
enum { BNB_PLANES = sizeof bnb_planes / sizeof bnb_planes[0] };

/* Do these two come from one stack? Then one state describes both. */
static bool same_stack(const struct builder *b, const struct sf_entry *x, const struct sf_entry *y)
{
    const struct sf_plane *p = x->plane, *q = y->plane;
    return sf_shape_equal(&x->shape, &y->shape) && x->block_axis == y->block_axis &&
           x->block == y->block && x->nested_block == y->nested_block && x->dtype == y->dtype &&
           strcmp(x->source_name, y->source_name) == 0 &&
           p[SF_PLANE_CODEBOOK].address == q[SF_PLANE_CODEBOOK].address &&
           p[SF_PLANE_MAP].address == q[SF_PLANE_MAP].address &&
           (x->nested_block == 0 ||
            memcmp(sf_map_bytes(b->map, p[SF_PLANE_OFFSET].address),
                   sf_map_bytes(b->map, q[SF_PLANE_OFFSET].address), sizeof(float)) == 0);
}

/* *out: that part of all experts of a layer, if they are one stack. */
static int list_stack(const struct sf_entry *const **out, int *experts, struct builder *b,
                      const struct sf_entry *first, struct sf_err *err)
{
    *experts = count_experts(b->map, first->role.layer);
    const struct sf_entry **list = sf_arena_array(b->arena, (uint64_t)*experts, sizeof *list);
    if (!list)
        return no_memory(err);
    for (int32_t e = 0; e < *experts; e++) {
        list[e] = sf_map_find(b->map, (struct sf_role){first->role.part, first->role.layer, e});
        if (!list[e] || !same_stack(b, first, list[e]))
            return sf_fail(err, SF_EUNSUPPORTED,
                           "%s: blocks along axis %d, and its experts are no stack: that has no "
                           "place in this format",
                           first->name, first->block_axis);
    }
    *out = list;
    return SF_OK;
}

static int add_stack(struct builder *b, const struct sf_entry *first, struct sf_err *err)
{
    const struct sf_entry *const *list = NULL;
    int experts = 0;
    int code = list_stack(&list, &experts, b, first, err);
    for (int i = 0; i < BNB_PLANES && code == SF_OK; i++) {
        const struct sf_plane *p = &first->plane[bnb_planes[i].kind];
        const char *name =
            sf_arena_printf(b->arena, "%s%s", first->source_name, bnb_planes[i].suffix);
        struct sf_shape shape = p->shape;
        if (!name)
            return no_memory(err);
        if (bnb_planes[i].nested && !first->nested_block)
            continue;
        if (bnb_planes[i].shared) {
            add_copy(b, name, p->dtype, shape, sf_map_bytes(b->map, p->address));
            continue;
        }
        shape.dim[0] *= experts;
        if (bnb_planes[i].kind == SF_PLANE_CODES)
            shape = (struct sf_shape){2, {shape.dim[0], 1}};
        struct sf_export_tensor *t = add(b, name, p->dtype, shape);
        t->kind = SF_EXPORT_STACK;
        t->plane = bnb_planes[i].kind;
        t->entries = experts;
        t->entry = list;
    }
    struct sf_shape whole = {2, {experts * first->shape.dim[1], first->shape.dim[0]}};
    return code == SF_OK ? add_state(b, first, first->source_name, whole, err) : code;
}

static int add_bnb4(struct builder *b, const struct sf_entry *e, struct sf_err *err)
{
    if (e->encoding == SF_ENCODING_RAW) {
        add_copy(b, e->name, e->dtype, e->shape,
                 sf_map_bytes(b->map, e->plane[SF_PLANE_CODES].address));
        return SF_OK;
    }
    if (e->block_axis == 0 && sf_part_is_expert(e->role.part))
        return e->role.expert == 0 ? add_stack(b, e, err) : SF_OK;
    if (e->block_axis >= 0)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "%s: blocks along axis %d have no place in this format", e->name,
                       e->block_axis);
    int code = SF_OK;
    for (int i = 0; i < BNB_PLANES && code == SF_OK; i++)
        if (!bnb_planes[i].nested || e->nested_block)
            code = add_plane(b, e, bnb_planes[i].kind, bnb_planes[i].suffix, err);
    return code == SF_OK ? add_state(b, e, e->name, e->shape, err) : code;
}

int sf_export_plan_build(struct sf_export_plan *out, struct sf_arena *arena,
                         const struct sf_map *map, const struct sf_export_options *options,
                         struct sf_err *err)
{
    enum { MOST_PER_ENTRY = 6 };
    enum sf_export_format format = options->format;
    struct builder b = {.plan = out, .arena = arena, .map = map, .adapter = options->adapter};
    int64_t n = sf_map_info(map)->tensors;
    *out = (struct sf_export_plan){
        .tensor = sf_arena_array(arena, (uint64_t)n * MOST_PER_ENTRY, sizeof *out->tensor)};
    int code = out->tensor ? check_adapter(&b, format, err) : no_memory(err);
    for (int64_t i = 0; i < n && code == SF_OK; i++)
        code = format == SF_EXPORT_BF16 ? add_bf16(&b, sf_map_tensor(map, i), err)
                                        : add_bnb4(&b, sf_map_tensor(map, i), err);
    return code;
}
