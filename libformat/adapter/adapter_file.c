#include "libformat/adapter/adapter_file.h"

#include <math.h>

#include "libformat/adapter/adapter_source.h"

struct sf_shape sf_adapter_shape(const struct sf_model_spec *spec, enum sf_part part)
{
    struct sf_shape shape = sf_spec_shape(spec, part);
    if (part == SF_ADAPTER_GATE_UP)
        shape.dim[0] *= 2;
    return shape;
}

int64_t sf_adapter_groups(const struct sf_model_spec *spec, enum sf_part part)
{
    return sf_part_is_expert(part) ? spec->experts : 1;
}

double sf_adapter_scale(double alpha, int64_t rank, bool rslora)
{
    return alpha / (rslora ? sqrt((double)rank) : (double)rank);
}

const struct sf_adapter_module *sf_adapter_find(const struct sf_adapter *adapter,
                                                struct sf_role role)
{
    for (int64_t i = 0; i < adapter->modules; i++) {
        const struct sf_adapter_module *m = &adapter->module[i];
        if (m->role.part == role.part && m->role.layer == role.layer)
            return m;
    }
    return NULL;
}

int sf_adapter_check_copies(const struct sf_adapter_source *source,
                            const struct sf_adapter_base *base, struct sf_err *err)
{
    const struct sf_adapter_copy *copy;
    int code = SF_OK;
    for (int64_t i = 0; !code && (copy = sf_adapter_copy_at(source, i)) != NULL; i++)
        code = base ? base->check(base->context, copy, err)
                    : sf_fail(err, SF_EUNSUPPORTED,
                              "%s: PEFT put a copy of the base's weight into the file, which may "
                              "not be ours; who has the base (--model, \"scout-convert merge\") "
                              "compares them",
                              copy->key);
    return code;
}

int sf_adapter_check_usable(const struct sf_adapter_source *source, const char *directory,
                            const struct sf_adapter_base *base, struct sf_err *err)
{
    if (sf_adapter_about(source)->for_vllm)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "%s: its q and k rows are in vLLM's order; use the adapter that it was made "
                       "of",
                       directory);
    int code = sf_adapter_check_copies(source, base, err);
    return code ? sf_err_prefix(err, "%s", directory) : SF_OK;
}

static int load_all(struct sf_adapter *out, struct sf_arena *arena,
                    const struct sf_adapter_source *source, struct sf_err *err)
{
    *out = *sf_adapter_about(source);
    out->base_model = sf_arena_strdup(arena, out->base_model);
    out->module = sf_arena_array(arena, (uint64_t)out->modules + 1, sizeof *out->module);
    int code = out->module && out->base_model
                   ? SF_OK
                   : sf_fail(err, SF_ENOMEM, "no memory for a list of modules");
    for (int64_t i = 0; i < out->modules && !code; i++)
        code = sf_adapter_load(&out->module[i], arena, source, i, err);
    return code;
}

int sf_adapter_read_on(struct sf_adapter *out, struct sf_arena *arena, const char *directory,
                       const struct sf_model_spec *spec, const struct sf_adapter_base *base,
                       struct sf_err *err)
{
    struct sf_adapter_source *source;
    *out = (struct sf_adapter){0};
    int code = sf_adapter_open(&source, directory, spec, err);
    if (code)
        return code;
    code = sf_adapter_check_usable(source, directory, base, err);
    if (!code)
        code = load_all(out, arena, source, err);
    sf_adapter_close(source);
    return code;
}

int sf_adapter_read(struct sf_adapter *out, struct sf_arena *arena, const char *directory,
                    const struct sf_model_spec *spec, struct sf_err *err)
{
    return sf_adapter_read_on(out, arena, directory, spec, NULL, err);
}
