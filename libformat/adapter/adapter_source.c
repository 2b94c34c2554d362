#include "libformat/adapter/adapter_source.h"

#include <stdlib.h>
#include <string.h>

#include "libformat/adapter/adapter_config.h"
#include "libformat/adapter/adapter_experts.h"
#include "libformat/adapter/adapter_guess.h"
#include "libformat/adapter/adapter_names.h"
#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "libformat/hf/safetensors.h"

enum { CONFIG_LIMIT = 4 << 20 };

struct sf_adapter_source {
    struct sf_arena arena;
    struct sf_safetensors *file;
    char *path; /* of adapter_model.safetensors */
    struct adapter_config config;
    struct sf_adapter about;
    struct sf_model_spec spec;
    int64_t pairs; /* one per module, in the same order */
    struct adapter_pair *pair;
    bool prefixed; /* about.prefix is known */
    struct sf_adapter_copy *copy;
    int64_t copies;
};

/* ---- which tensor is what ---- */

/* While keys are read, an outer wrapper of experts stands as EXPERT_DOWN and a nested one as
 * GATE_UP; settle_experts tells who an outer one without a nested one is. Each tensor is a pair of its
 * own until all are there: join_pairs. */
static int take_half(struct sf_adapter_source *s, const struct adapter_key *key,
                     const struct sf_named_tensor *t, struct sf_err *err)
{
    struct adapter_pair *p = &s->pair[s->pairs++];
    char text[SF_SHAPE_TEXT];
    *p = (struct adapter_pair){.role = key->role};
    if (key->kind == ADAPTER_KEY_EXPERTS)
        p->role.part = key->nested ? SF_ADAPTER_GATE_UP : SF_PART_EXPERT_DOWN;
    if (t->tensor.shape.rank != 2)
        return sf_fail(err, SF_EFORMAT, "shape %s; A and B are matrices",
                       sf_shape_format(text, &t->tensor.shape));
    *(key->which == 'A' ? &p->a : &p->b) = &t->tensor;
    *(key->which == 'A' ? &p->a_key : &p->b_key) = t->name;
    return SF_OK;
}

static int take_tensor(struct sf_adapter_source *s, const struct sf_named_tensor *t,
                       struct sf_err *err)
{
    struct adapter_key key;
    if (!adapter_key_parse(&key, t->name))
        return sf_fail(err, SF_EUNSUPPORTED, "no key of a LoRA on a weight of Llama 4");
    if (s->prefixed && key.prefix != s->about.prefix)
        return sf_fail(err, SF_EFORMAT, "two key prefixes in one adapter");
    s->about.prefix = key.prefix;
    s->prefixed = true;
    if (key.kind != ADAPTER_KEY_COPY)
        return take_half(s, &key, t, err);
    s->copy[s->copies++] = (struct sf_adapter_copy){key.role.part, t->name, &t->tensor};
    return SF_OK;
}

/* By layer, then part, the head last: the order of everything that lists modules. */
static int compare_pairs(const void *x, const void *y)
{
    const struct sf_role a = ((const struct adapter_pair *)x)->role;
    const struct sf_role b = ((const struct adapter_pair *)y)->role;
    uint32_t la = (uint32_t)a.layer, lb = (uint32_t)b.layer; /* -1: behind all */
    return la != lb ? (la > lb) - (la < lb) : (int)a.part - (int)b.part;
}

/* Halves of one pair side by side, in the order of the file: of one array of tensors. */
static int compare_halves(const void *x, const void *y)
{
    const struct adapter_pair *a = x, *b = y;
    const struct sf_tensor *at = a->a ? a->a : a->b, *bt = b->a ? b->a : b->b;
    int order = compare_pairs(a, b);
    return order ? order : (at > bt) - (at < bt);
}

static int join_pairs(struct sf_adapter_source *s, struct sf_err *err)
{
    int64_t count = 0;
    qsort(s->pair, (size_t)s->pairs, sizeof *s->pair, compare_halves);
    for (int64_t i = 0; i < s->pairs; i++) {
        const struct adapter_pair half = s->pair[i];
        struct adapter_pair *p = count ? &s->pair[count - 1] : NULL;
        if (!p || compare_pairs(p, &half) != 0)
            *(p = &s->pair[count++]) = (struct adapter_pair){.role = half.role};
        if (half.a ? p->a != NULL : p->b != NULL)
            return sf_fail(err, SF_EFORMAT, "%s: a second tensor for what %s holds",
                           half.a ? half.a_key : half.b_key, half.a ? p->a_key : p->b_key);
        p->a = half.a ? half.a : p->a;
        p->b = half.b ? half.b : p->b;
        p->a_key = half.a ? half.a_key : p->a_key;
        p->b_key = half.b ? half.b_key : p->b_key;
    }
    s->pairs = count;
    return SF_OK;
}

/* Every module has its place in the model, and both its tensors. */
static int check_complete(const struct sf_adapter_source *s, const struct sf_model_spec *spec,
                          struct sf_err *err)
{
    if (s->pairs == 0)
        return sf_fail(err, SF_EFORMAT, "holds no tensors of an adapter");
    for (int64_t i = 0; i < s->pairs && spec; i++) {
        const struct adapter_pair *p = &s->pair[i];
        if (!sf_spec_has(spec, p->role.part, p->role.layer))
            return sf_fail(err, SF_EFORMAT, "%s: this model of %lld layers has no such module",
                           p->a ? p->a_key : p->b_key, (long long)spec->layers);
    }
    for (int64_t i = 0; i < s->pairs; i++) {
        const struct adapter_pair *p = &s->pair[i];
        char text[SF_ROLE_TEXT];
        if (p->a && p->b)
            continue;
        return sf_fail(err, SF_EFORMAT, "%s: %s has lora_%c but no lora_%c",
                       p->a ? p->a_key : p->b_key, sf_role_format(text, p->role), p->a ? 'A' : 'B',
                       p->a ? 'B' : 'A');
    }
    return SF_OK;
}

/* ---- experts ---- */

/* The pairs are in order but for outer wrappers that were renamed in other layers. */
static bool has_pair(const struct sf_adapter_source *s, enum sf_part part, int32_t layer)
{
    const struct adapter_pair key = {.role = {.part = part, .layer = layer}};
    return bsearch(&key, s->pair, (size_t)s->pairs, sizeof key, compare_pairs) != NULL;
}

static int targets(bool *out, struct sf_adapter_source *s, enum sf_part part, int32_t layer,
                   struct sf_err *err)
{
    char *path = sf_adapter_path(&s->arena, s->about.prefix, (struct sf_role){part, layer, -1});
    *out = path && adapter_config_targets(&s->config, path);
    return path ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a path");
}

/* The key of a lone wrapper does not name its parameter; target_parameters does. */
static int settle_pair(struct sf_adapter_source *s, struct adapter_pair *p, struct sf_err *err)
{
    bool gate_up, down;
    int32_t layer = p->role.layer;
    bool nested = has_pair(s, SF_ADAPTER_GATE_UP, layer);
    int code = targets(&gate_up, s, SF_ADAPTER_GATE_UP, layer, err);
    if (!code)
        code = targets(&down, s, SF_PART_EXPERT_DOWN, layer, err);
    if (code)
        return code;
    if (!gate_up && !down)
        return sf_fail(err, SF_EFORMAT,
                       "%s: target_parameters names none of the experts' parameters", p->a_key);
    if (nested && !(gate_up && down))
        return sf_fail(err, SF_EFORMAT,
                       "%s: two parameters of the experts are adapted, target_parameters names one",
                       p->a_key);
    if (!nested && gate_up && down)
        return sf_fail(err, SF_EFORMAT,
                       "%s: target_parameters names gate_up_proj and down_proj, but there is no "
                       "experts.base_layer, where gate_up_proj would be",
                       p->a_key);
    if (!nested && gate_up)
        p->role.part = SF_ADAPTER_GATE_UP;
    return SF_OK;
}

static int settle_experts(struct sf_adapter_source *s, struct sf_err *err)
{
    int code = SF_OK;
    for (int64_t i = 0; i < s->pairs && !code; i++) {
        struct adapter_pair *p = &s->pair[i];
        if (p->role.part == SF_ADAPTER_GATE_UP && !has_pair(s, SF_PART_EXPERT_DOWN, p->role.layer))
            code = sf_fail(err, SF_EFORMAT,
                           "%s: an inner parameter of the experts without the outer one", p->a_key);
    }
    /* none is renamed before all have been looked at: a nested one would find a false partner */
    for (int64_t i = 0; i < s->pairs && !code; i++)
        if (s->pair[i].role.part == SF_PART_EXPERT_DOWN)
            code = settle_pair(s, &s->pair[i], err);
    return code;
}

/* ---- ranks, alphas, shapes ---- */

/* A parameter's path is what patterns are matched with where target_parameters names it. */
static const char *pattern_path(struct sf_adapter_source *s, struct sf_role role)
{
    char *path = sf_adapter_path(&s->arena, s->about.prefix, role);
    char *weight = path ? sf_arena_printf(&s->arena, "%s.weight", path) : NULL;
    return weight && adapter_config_targets(&s->config, weight) ? weight : path;
}

static int find_rank(struct sf_adapter_source *s, struct adapter_pair *p, struct sf_err *err)
{
    const struct adapter_config *c = &s->config;
    const char *path = pattern_path(s, p->role);
    double rank = 0;
    if (!path)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    int code = sf_adapter_pattern_find(&rank, c->rank, c->ranks, path, (double)s->about.rank, err);
    if (code)
        return sf_err_prefix(err, "rank_pattern");
    p->rank = (int64_t)rank;
    code = sf_adapter_pattern_find(&p->alpha, c->alpha, c->alphas, path, s->about.alpha, err);
    return code ? sf_err_prefix(err, "alpha_pattern") : SF_OK;
}

static struct sf_adapter_module module_of(const struct sf_adapter_source *s,
                                          const struct adapter_pair *p)
{
    struct sf_shape shape = sf_adapter_shape(&s->spec, p->role.part);
    return (struct sf_adapter_module){.role = p->role,
                                      .groups = sf_adapter_groups(&s->spec, p->role.part),
                                      .rank = p->rank,
                                      .out = shape.dim[0],
                                      .in = shape.dim[1],
                                      .alpha = p->alpha,
                                      .scale =
                                          sf_adapter_scale(p->alpha, p->rank, s->about.rslora)};
}

/* Bit l: layout l would give this shape. */
static unsigned layouts_of(const struct sf_adapter_module *m, char which,
                           const struct sf_shape *shape)
{
    unsigned fits = 0;
    for (int l = SF_ADAPTER_SWAPPED; l <= SF_ADAPTER_NATURAL; l++) {
        struct sf_shape want = adapter_file_shape(m, (enum sf_adapter_layout)l, which);
        fits |= (unsigned)sf_shape_equal(shape, &want) << l;
    }
    return fits;
}

static int check_shape(unsigned *layouts, const struct sf_adapter_module *m, char which,
                       const struct sf_shape *shape, struct sf_err *err)
{
    char got[SF_SHAPE_TEXT], swapped[SF_SHAPE_TEXT], natural[SF_SHAPE_TEXT];
    unsigned fits = layouts_of(m, which, shape);
    struct sf_shape s = adapter_file_shape(m, SF_ADAPTER_SWAPPED, which);
    struct sf_shape n = adapter_file_shape(m, SF_ADAPTER_NATURAL, which);
    sf_shape_format(got, shape);
    sf_shape_format(natural, &n);
    sf_shape_format(swapped, &s);
    if (!fits && m->groups == 1)
        return sf_fail(err, SF_EFORMAT, "shape %s, this model and r %lld want %s", got,
                       (long long)m->rank, natural);
    if (!fits)
        return sf_fail(err, SF_EFORMAT,
                       "shape %s, this model and r %lld want %s (swapped) or %s (natural)", got,
                       (long long)m->rank, swapped, natural);
    if (!(*layouts & fits))
        return sf_fail(err, SF_EFORMAT,
                       "shape %s: the %s layout; the experts' tensors before it, or "
                       "scout_layout, say the other",
                       got, fits == 1u << SF_ADAPTER_SWAPPED ? "swapped" : "natural");
    *layouts &= fits;
    return SF_OK;
}

static int check_pair(unsigned *layouts, struct sf_adapter_source *s, struct adapter_pair *p,
                      struct sf_adapter_module *m, struct sf_err *err)
{
    *m = module_of(s, p);
    int code = check_shape(layouts, m, 'A', &p->a->shape, err);
    if (code)
        return sf_err_prefix(err, "%s", p->a_key);
    code = check_shape(layouts, m, 'B', &p->b->shape, err);
    return code ? sf_err_prefix(err, "%s", p->b_key) : SF_OK;
}

static int check_copies(const struct sf_adapter_source *s, bool guessed, struct sf_err *err)
{
    char got[SF_SHAPE_TEXT], want[SF_SHAPE_TEXT];
    for (int64_t i = 0; i < s->copies && !guessed; i++) {
        struct sf_shape shape = sf_spec_shape(&s->spec, s->copy[i].part);
        if (!sf_shape_equal(&s->copy[i].tensor->shape, &shape))
            return sf_fail(err, SF_EUNSUPPORTED,
                           "%s: shape %s, this model's is %s: not the weight of the base",
                           s->copy[i].key, sf_shape_format(got, &s->copy[i].tensor->shape),
                           sf_shape_format(want, &shape));
    }
    return SF_OK;
}

static int settle_layout(struct sf_adapter_source *s, unsigned layouts, struct sf_err *err)
{
    const unsigned natural = 1u << SF_ADAPTER_NATURAL, swapped = 1u << SF_ADAPTER_SWAPPED;
    for (int64_t i = 0; i < s->pairs && layouts == (natural | swapped); i++)
        if (sf_part_is_expert(s->pair[i].role.part))
            return sf_fail(err, SF_EFORMAT,
                           "%s: which of PEFT's two layouts this is, its shape does not tell; "
                           "write \"scout_layout\": \"swapped\" (PEFT >= 0.19.1) or \"natural\" "
                           "into adapter_config.json",
                           s->pair[i].a_key);
    s->about.layout = layouts == natural ? SF_ADAPTER_NATURAL : SF_ADAPTER_SWAPPED;
    return SF_OK;
}

static int settle_modules(struct sf_adapter_source *s, const struct sf_model_spec *spec,
                          struct sf_err *err)
{
    unsigned layouts = s->config.layouts;
    int code = settle_experts(s, err);
    for (int64_t i = 0; i < s->pairs && !code; i++)
        code = find_rank(s, &s->pair[i], err);
    if (!code && spec)
        s->spec = *spec;
    else if (!code)
        code = adapter_guess(&s->spec, &s->arena, s->pair, s->pairs, err);
    if (code)
        return code;
    qsort(s->pair, (size_t)s->pairs, sizeof *s->pair, compare_pairs);
    s->about.module = sf_arena_array(&s->arena, (uint64_t)s->pairs, sizeof *s->about.module);
    if (!s->about.module)
        return sf_fail(err, SF_ENOMEM, "no memory for a list of modules");
    for (int64_t i = 0; i < s->pairs && !code; i++)
        code = check_pair(&layouts, s, &s->pair[i], &s->about.module[i], err);
    s->about.modules = s->pairs;
    if (!code)
        code = settle_layout(s, layouts, err);
    return code ? code : check_copies(s, !spec, err);
}

/* ---- opening ---- */

static int read_tensors(struct sf_adapter_source *s, const struct sf_model_spec *spec,
                        struct sf_err *err)
{
    int code = sf_safetensors_open(&s->file, s->path, err);
    if (code)
        return code;
    int64_t count = sf_safetensors_count(s->file);
    s->pair = sf_arena_array(&s->arena, (uint64_t)count + 1, sizeof *s->pair);
    s->copy = sf_arena_array(&s->arena, (uint64_t)count + 1, sizeof *s->copy);
    if (!s->pair || !s->copy)
        code = sf_fail(err, SF_ENOMEM, "no memory for a list of %lld tensors", (long long)count);
    for (int64_t i = 0; !code && i < count; i++) {
        const struct sf_named_tensor *t = sf_safetensors_at(s->file, i);
        code = take_tensor(s, t, err);
        if (code)
            sf_err_prefix(err, "%s", t->name);
    }
    if (!code)
        code = join_pairs(s, err);
    if (!code)
        code = check_complete(s, spec, err);
    if (!code)
        code = settle_modules(s, spec, err);
    return code ? sf_err_prefix(err, "%s", s->path) : SF_OK;
}

static int read_config(struct sf_adapter_source *s, const char *directory, struct sf_err *err)
{
    char *path = sf_path_join(&s->arena, directory, "adapter_config.json"), *text;
    uint64_t bytes;
    s->path = sf_path_join(&s->arena, directory, "adapter_model.safetensors");
    if (!path || !s->path)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    int code = sf_read_file(&text, &bytes, &s->arena, path, CONFIG_LIMIT, err);
    if (code)
        return code;
    code = adapter_config_read(&s->config, &s->about, &s->arena, text, bytes, err);
    return code ? sf_err_prefix(err, "%s", path) : SF_OK;
}

int sf_adapter_open(struct sf_adapter_source **out, const char *directory,
                    const struct sf_model_spec *spec, struct sf_err *err)
{
    void *memory;
    *out = NULL;
    int code = sf_alloc_for(&memory, sizeof(struct sf_adapter_source), "an adapter", err);
    if (code)
        return code;
    struct sf_adapter_source *s = memory;
    *s = (struct sf_adapter_source){0};
    code = read_config(s, directory, err);
    if (!code)
        code = read_tensors(s, spec, err);
    if (code)
        sf_adapter_close(s);
    else
        *out = s;
    return code;
}

void sf_adapter_close(struct sf_adapter_source *source)
{
    if (!source)
        return;
    sf_safetensors_close(source->file);
    sf_arena_free(&source->arena);
    sf_free(source);
}

/* ---- asking ---- */

const struct sf_adapter *sf_adapter_about(const struct sf_adapter_source *source)
{
    return &source->about;
}

const struct sf_model_spec *sf_adapter_spec(const struct sf_adapter_source *source)
{
    return &source->spec;
}

enum sf_dtype sf_adapter_dtype(const struct sf_adapter_source *source, int64_t index)
{
    return source->pair[index].a->dtype;
}

uint64_t sf_adapter_file_bytes(const struct sf_adapter_source *source)
{
    return sf_safetensors_bytes(source->file);
}

const struct sf_adapter_copy *sf_adapter_copy_at(const struct sf_adapter_source *source,
                                                 int64_t index)
{
    return index < source->copies ? &source->copy[index] : NULL;
}

static int load_one(const float **out, struct sf_arena *arena, const struct sf_adapter_source *s,
                    int64_t index, char ours, struct sf_err *err)
{
    const struct sf_adapter_module *m = &s->about.module[index];
    const struct adapter_pair *p = &s->pair[index];
    struct adapter_walk walk = adapter_walk(m, s->about.layout, ours);
    const struct sf_tensor *from = walk.which == 'A' ? p->a : p->b;
    int64_t count;
    if (!sf_shape_count(&count, &from->shape))
        return sf_fail(err, SF_EFORMAT, "a shape that does not fit");
    float *to = sf_arena_array(arena, (uint64_t)count + 1, sizeof *to);
    if (!to)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld numbers", (long long)count);
    *out = to;
    int code = adapter_tensor_read(to, from, m->groups, &walk, err);
    sf_safetensors_release(s->file, from);
    if (code)
        return sf_err_prefix(err, "%s: %s", s->path, walk.which == 'A' ? p->a_key : p->b_key);
    return sf_safetensors_check(s->file, err);
}

int sf_adapter_load(struct sf_adapter_module *out, struct sf_arena *arena,
                    const struct sf_adapter_source *source, int64_t index, struct sf_err *err)
{
    *out = source->about.module[index];
    int code = load_one(&out->a, arena, source, index, 'A', err);
    return code ? code : load_one(&out->b, arena, source, index, 'B', err);
}
