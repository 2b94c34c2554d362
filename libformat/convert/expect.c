#include "libformat/convert/expect.h"

#include "libformat/convert/names.h"

enum sf_dtype sf_expect_dtype(const struct sf_model_spec *spec)
{
    return spec->dtype == SF_DTYPE_NONE ? SF_BF16 : spec->dtype;
}

static int guess(void *context, struct sf_tensor *tensor, const char *name, struct sf_err *err)
{
    const struct sf_model_spec *s = context;
    struct sf_name n = sf_name_parse(name);
    (void)err;
    if (n.kind == SF_NAME_FUSED_GATE_UP)
        tensor->shape = (struct sf_shape){3, {s->experts, s->hidden, 2 * s->expert_width}};
    else if (n.kind == SF_NAME_FUSED_DOWN)
        tensor->shape = (struct sf_shape){3, {s->experts, s->expert_width, s->hidden}};
    else if (n.kind == SF_NAME_STACKED)
        tensor->shape = (struct sf_shape){
            2, {s->experts * sf_spec_shape(s, n.part).dim[1], sf_spec_shape(s, n.part).dim[0]}};
    else if (n.kind == SF_NAME_WEIGHT)
        tensor->shape = sf_spec_shape(s, n.part);
    else
        return SF_OK; /* the plan has a word for every other kind */
    tensor->dtype = sf_expect_dtype(s);
    return SF_OK;
}

int sf_expect_suppose(struct sf_hf_index *index, const struct sf_model_spec *spec,
                      struct sf_err *err)
{
    struct sf_model_spec copy = *spec;
    return sf_hf_index_suppose(index, guess, &copy, err);
}
