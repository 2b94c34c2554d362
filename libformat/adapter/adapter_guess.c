#include "libformat/adapter/adapter_guess.h"

/* One size, told by several modules: they must agree. */
static int tell(int64_t *size, int64_t value, const char *what, const char *key, struct sf_err *err)
{
    if (value < 1 || (*size && *size != value))
        return sf_fail(err, SF_EFORMAT, "%s: %s is %lld here, %lld by the tensors before", key,
                       what, (long long)value, (long long)*size);
    *size = value;
    return SF_OK;
}

/* Which size of the model is that axis of a linear module? */
static int64_t *size_of(struct sf_model_spec *s, enum sf_part part, bool out, const char **what)
{
    bool down = part == SF_PART_O || part == SF_PART_SHARED_DOWN || part == SF_PART_DENSE_DOWN;
    *what = "hidden_size";
    if (out == down)
        return &s->hidden;
    *what = "the width";
    switch (part) {
    case SF_PART_Q:
    case SF_PART_O:
        return &s->heads;
    case SF_PART_K:
    case SF_PART_V:
        return &s->kv_heads;
    case SF_PART_ROUTER:
        return &s->experts;
    case SF_PART_HEAD:
        return &s->vocabulary;
    case SF_PART_DENSE_GATE:
    case SF_PART_DENSE_UP:
    case SF_PART_DENSE_DOWN:
        return &s->dense_width;
    default:
        return &s->expert_width;
    }
}

static int tell_linear(struct sf_model_spec *s, const struct adapter_pair *p, struct sf_err *err)
{
    const char *what;
    int64_t *in = size_of(s, p->role.part, false, &what);
    int code = tell(in, p->a->shape.dim[1], what, p->a_key, err);
    int64_t *out = size_of(s, p->role.part, true, &what);
    return code ? code : tell(out, p->b->shape.dim[0], what, p->b_key, err);
}

/* Layer by layer: a router, a shared expert or routed ones make it one with experts. */
static int tell_layer(struct sf_model_spec *s, char *kind, const struct adapter_pair *p,
                      struct sf_err *err)
{
    enum sf_part part = p->role.part;
    bool dense =
        part == SF_PART_DENSE_GATE || part == SF_PART_DENSE_UP || part == SF_PART_DENSE_DOWN;
    bool moe = !dense && (part == SF_PART_ROUTER || part == SF_PART_SHARED_GATE ||
                          part == SF_PART_SHARED_UP || part == SF_PART_SHARED_DOWN ||
                          sf_part_is_expert(part));
    if (p->role.layer < 0 || (!dense && !moe))
        return SF_OK;
    char *k = &kind[p->role.layer];
    if (*k && *k != (dense ? 'd' : 'm'))
        return sf_fail(err, SF_EFORMAT, "%s: a layer with experts and with a dense MLP", p->a_key);
    *k = dense ? 'd' : 'm';
    s->layer[p->role.layer].moe = moe;
    return SF_OK;
}

/* gate_up is [2w, hidden], down [hidden, w]; x and y are the free axes of lora_A and lora_B. Each
 * layout reads them in one way; both may be possible until something else tells hidden or w. */
static bool reads_as(int64_t *hidden, int64_t *width, const struct adapter_pair *p, bool swapped)
{
    int64_t x = p->a->shape.dim[1], y = p->b->shape.dim[0];
    int64_t in = swapped ? y : x, out = swapped ? x : y;
    bool fused = p->role.part == SF_ADAPTER_GATE_UP;
    if (fused && out % 2 != 0)
        return false;
    *hidden = fused ? in : out;
    *width = fused ? out / 2 : in;
    return true;
}

static bool fits(const struct sf_model_spec *s, int64_t *hidden, int64_t *width,
                 const struct adapter_pair *pair, int64_t pairs, bool swapped)
{
    *hidden = s->hidden;
    *width = s->expert_width;
    for (int64_t i = 0; i < pairs; i++) {
        int64_t h, w;
        if (!sf_part_is_expert(pair[i].role.part))
            continue;
        if (!reads_as(&h, &w, &pair[i], swapped) || (*hidden && *hidden != h) ||
            (*width && *width != w))
            return false;
        *hidden = h;
        *width = w;
    }
    return true;
}

static int tell_experts(struct sf_model_spec *s, const struct adapter_pair *pair, int64_t pairs,
                        struct sf_err *err)
{
    int64_t hidden[2], width[2], first = -1;
    bool fit[2];
    for (int64_t i = 0; i < pairs; i++) {
        int64_t rows = pair[i].a->shape.dim[0];
        if (!sf_part_is_expert(pair[i].role.part))
            continue;
        first = first < 0 ? i : first;
        if (rows % pair[i].rank != 0)
            return sf_fail(err, SF_EFORMAT, "%s: %lld rows are no multiple of r %lld",
                           pair[i].a_key, (long long)rows, (long long)pair[i].rank);
        int code =
            tell(&s->experts, rows / pair[i].rank, "the number of experts", pair[i].a_key, err);
        if (code)
            return code;
    }
    if (first < 0)
        return SF_OK;
    for (int swapped = 0; swapped < 2; swapped++)
        fit[swapped] = fits(s, &hidden[swapped], &width[swapped], pair, pairs, swapped);
    if (!fit[0] && !fit[1])
        return sf_fail(err, SF_EFORMAT,
                       "%s: the shapes of the experts' tensors fit neither of PEFT's layouts",
                       pair[first].a_key);
    if (fit[0] && fit[1])
        return sf_fail(err, SF_EFORMAT,
                       "%s: which of PEFT's two layouts this is, its tensors alone do not tell: "
                       "the model is needed (--model)",
                       pair[first].a_key);
    s->hidden = hidden[fit[1]];
    s->expert_width = width[fit[1]];
    return SF_OK;
}

static void fill_gaps(struct sf_model_spec *s)
{
    int64_t *const sizes[] = {&s->hidden,       &s->vocabulary,  &s->heads,  &s->kv_heads,
                              &s->expert_width, &s->dense_width, &s->experts};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        *sizes[i] = *sizes[i] ? *sizes[i] : 1;
    s->head_size = 1;
}

int adapter_guess(struct sf_model_spec *out, struct sf_arena *arena,
                  const struct adapter_pair *pair, int64_t pairs, struct sf_err *err)
{
    enum { MOST_LAYERS = 4096 };
    int code = SF_OK;
    *out = (struct sf_model_spec){.family = "llama4", .experts_per_token = 1};
    for (int64_t i = 0; i < pairs; i++)
        if (pair[i].role.layer >= out->layers)
            out->layers = pair[i].role.layer + 1;
    if (out->layers > MOST_LAYERS)
        return sf_fail(err, SF_EFORMAT, "layer %lld; no model has %d", (long long)out->layers - 1,
                       MOST_LAYERS);
    char *kind = sf_arena_array(arena, (uint64_t)out->layers + 1, 1);
    out->layer = sf_arena_array(arena, (uint64_t)out->layers + 1, sizeof *out->layer);
    if (!kind || !out->layer)
        return sf_fail(err, SF_ENOMEM, "no memory for a list of layers");
    for (int64_t i = 0; i < pairs && !code; i++) {
        code = tell_layer(out, kind, &pair[i], err);
        if (!code && !sf_part_is_expert(pair[i].role.part))
            code = tell_linear(out, &pair[i], err);
    }
    if (!code)
        code = tell_experts(out, pair, pairs, err);
    fill_gaps(out);
    return code;
}
