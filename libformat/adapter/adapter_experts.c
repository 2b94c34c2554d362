#include "libformat/adapter/adapter_experts.h"

#include <math.h>
#include <string.h>

#include "libformat/base/bytes.h"

static bool swaps(const struct sf_adapter_module *m, enum sf_adapter_layout layout)
{
    return sf_part_is_expert(m->role.part) && layout == SF_ADAPTER_SWAPPED;
}

struct sf_shape adapter_file_shape(const struct sf_adapter_module *m, enum sf_adapter_layout layout,
                                   char which)
{
    bool swapped = swaps(m, layout);
    int64_t in = swapped ? m->out : m->in, out = swapped ? m->in : m->out;
    return which == 'A' ? (struct sf_shape){2, {m->groups * m->rank, in}}
                        : (struct sf_shape){2, {out, m->groups * m->rank}};
}

struct adapter_walk adapter_walk(const struct sf_adapter_module *m, enum sf_adapter_layout layout,
                                 char ours)
{
    bool a = ours == 'A', in_a = a != swaps(m, layout);
    struct adapter_walk w = {
        .which = in_a ? 'A' : 'B', .rows = a ? m->rank : m->out, .cols = a ? m->in : m->rank};
    int64_t side = a ? m->in : m->out; /* the tensor's axis that is not experts and ranks */
    int64_t rank_step = in_a ? side : m->groups;
    int64_t side_step = in_a ? 1 : m->groups * m->rank;
    w.group = in_a ? m->rank * side : 1;
    w.row = a ? rank_step : side_step;
    w.col = a ? side_step : rank_step;
    return w;
}

static float from_f16(uint16_t h)
{
    int exponent = (h >> 10) & 0x1f;
    float mantissa = (float)(h & 0x3ff), value;
    if (exponent == 0x1f)
        value = mantissa != 0 ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexpf(mantissa, -24);
    else
        value = ldexpf(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -value : value;
}

static float element(const struct sf_tensor *t, int64_t i)
{
    const unsigned char *data = t->data;
    if (t->dtype == SF_F32)
        return sf_get_f32(data + 4 * i);
    uint16_t half = sf_get_u16(data + 2 * i);
    if (t->dtype == SF_F16)
        return from_f16(half);
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

int adapter_tensor_read(float *to, const struct sf_tensor *from, int64_t groups,
                        const struct adapter_walk *w, struct sf_err *err)
{
    if (from->dtype != SF_F32 && from->dtype != SF_F16 && from->dtype != SF_BF16)
        return sf_fail(err, SF_EUNSUPPORTED, "dtype %s; adapters are f32, f16 or bf16",
                       sf_dtype_name(from->dtype));
    for (int64_t g = 0; g < groups; g++) {
        for (int64_t r = 0; r < w->rows; r++) {
            for (int64_t c = 0; c < w->cols; c++) {
                int64_t at = g * w->group + r * w->row + c * w->col;
                float value = element(from, at);
                if (!isfinite(value))
                    return sf_fail(err, SF_ENUMERIC, "element %lld is not a finite number",
                                   (long long)at);
                *to++ = value;
            }
        }
    }
    return SF_OK;
}

void adapter_tensor_write(float *to, const float *from, int64_t groups,
                          const struct adapter_walk *w)
{
    for (int64_t g = 0; g < groups; g++)
        for (int64_t r = 0; r < w->rows; r++)
            for (int64_t c = 0; c < w->cols; c++)
                to[g * w->group + r * w->row + c * w->col] = *from++;
}

int sf_adapter_tensor(struct sf_adapter_tensor *out, struct sf_arena *arena,
                      const struct sf_adapter *adapter, const struct sf_adapter_module *module,
                      char ours, struct sf_err *err)
{
    struct adapter_walk walk = adapter_walk(module, adapter->layout, ours);
    int64_t count = module->groups * walk.rows * walk.cols;
    out->key = sf_adapter_module_key(arena, adapter, module, walk.which);
    out->shape = adapter_file_shape(module, adapter->layout, walk.which);
    out->data = sf_arena_array(arena, (uint64_t)count, sizeof *out->data);
    if (!out->key || !out->data)
        return sf_fail(err, SF_ENOMEM, "no memory for a tensor of %lld numbers", (long long)count);
    adapter_tensor_write(out->data, ours == 'A' ? module->a : module->b, module->groups, &walk);
    return SF_OK;
}
