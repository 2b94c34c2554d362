/* The verb probe. */
#include <stdio.h>

#include "libformat/hf/safetensors.h"
#include "tools/ft_verbs.h"
#include "train/probe.h"

struct inputs {
    struct sf_safetensors *file;
    const struct sf_tensor *ids, *labels;
};

static int find_input(const struct sf_tensor **out, const struct sf_safetensors *file,
                      const char *name, struct sf_err *err)
{
    char shape[SF_SHAPE_TEXT];
    const struct sf_tensor *t = sf_safetensors_find(file, name);
    if (!t)
        return sf_fail(err, SF_ENOENT, "there is no tensor %s", name);
    if (t->dtype != SF_I32 || t->shape.rank != 2)
        return sf_fail(err, SF_EFORMAT, "%s is %s %s, not i32 [B, S]", name,
                       sf_dtype_name(t->dtype), sf_shape_format(shape, &t->shape));
    *out = t;
    return SF_OK;
}

/* Every number a token, or in labels -100. */
static int check_range(const int32_t *value, int64_t count, int64_t vocabulary, bool labels,
                       struct sf_err *err)
{
    for (int64_t i = 0; i < count; i++)
        if ((value[i] < 0 || value[i] >= vocabulary) && !(labels && value[i] == SFT_NO_TARGET))
            return sf_fail(err, SF_EFORMAT, "%s holds %d at %lld, outside the vocabulary of %lld",
                           labels ? "labels" : "input_ids", (int)value[i], (long long)i,
                           (long long)vocabulary);
    return SF_OK;
}

/* A copy: views of files may lie on any byte. */
static int take_input(const int32_t **out, struct sf_arena *arena, const struct sf_tensor *t,
                      int64_t vocabulary, bool labels, struct sf_err *err)
{
    const unsigned char *from = t->data;
    int64_t count = (int64_t)(t->bytes / sizeof(int32_t));
    int32_t *to = sf_arena_array(arena, (uint64_t)count + 1, sizeof *to);
    if (!to)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld tokens", (long long)count);
    for (int64_t i = 0; i < count; i++) {
        const unsigned char *b = from + 4 * i;
        to[i] = (int32_t)(b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24);
    }
    *out = to;
    return check_range(to, count, vocabulary, labels, err);
}

static int open_inputs(struct inputs *in, const char *path, struct sf_err *err)
{
    int code = sf_safetensors_open(&in->file, path, err);
    if (code)
        return code;
    code = find_input(&in->ids, in->file, "input_ids", err);
    if (!code)
        code = find_input(&in->labels, in->file, "labels", err);
    if (!code && !sf_shape_equal(&in->ids->shape, &in->labels->shape))
        code = sf_fail(err, SF_EFORMAT, "labels have another shape than input_ids");
    return code ? sf_err_prefix(err, "%s", path) : SF_OK;
}

static int write_tensors(const char *path, struct sf_arena *arena, const struct sft_probe *probe,
                         struct sf_err *err)
{
    struct sf_named_tensor *list =
        sf_arena_array(arena, (uint64_t)probe->tensors + 1, sizeof *list);
    if (!list)
        return sf_fail(err, SF_ENOMEM, "no memory for a list of tensors");
    for (int64_t i = 0; i < probe->tensors; i++)
        list[i] = (struct sf_named_tensor){probe->tensor[i].name, probe->tensor[i].tensor};
    return sf_safetensors_write(path, list, probe->tensors, err);
}

static int run(struct ft_model *m, const struct ft_options *o, const struct inputs *in,
               struct sf_err *err)
{
    struct sft_probe_config config = {.spec = &m->spec,
                                      .image = m->image,
                                      .lora = o->adapter ? &m->lora : NULL,
                                      .prefix = ft_model_prefix(m, o),
                                      .layout = m->adapter.layout,
                                      .ops = m->ops,
                                      .ctx = m->ctx,
                                      .gradients = o->grads};
    const int32_t *ids, *labels;
    struct sft_probe probe;
    int code = take_input(&ids, &m->arena, in->ids, m->spec.vocabulary, false, err);
    if (!code)
        code = take_input(&labels, &m->arena, in->labels, m->spec.vocabulary, true, err);
    if (code)
        return sf_err_prefix(err, "%s", o->inputs);
    code = sft_probe_run(&probe, &m->arena, &config, ids, labels, in->ids->shape.dim[0],
                         in->ids->shape.dim[1], err);
    if (!code && !m->ops->device)
        code = sf_map_check(m->map, err);
    if (!code)
        code = write_tensors(o->output, &m->arena, &probe, err);
    if (!code)
        printf("%lld tensors in %s; loss %.6f\n", (long long)probe.tensors, o->output, probe.loss);
    return code;
}

int ft_probe(const struct ft_options *options, struct sf_err *err)
{
    struct ft_model model = {0};
    struct inputs in = {0};
    int code = open_inputs(&in, options->inputs, err);
    if (!code)
        code = ft_model_open(&model, options, err);
    if (!code && options->adapter)
        code = ft_model_lora(&model, options, options->grads, err);
    if (!code && options->adapter)
        code = ft_model_fill_lora(&model, options, options->grads, err);
    if (!code)
        code = ft_model_load(&model, options, err);
    if (!code)
        code = run(&model, options, &in, err);
    sf_safetensors_close(in.file);
    ft_model_close(&model);
    return code;
}
