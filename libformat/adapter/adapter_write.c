#include <math.h>
#include <string.h>

#include "libformat/adapter/adapter_config.h"
#include "libformat/adapter/adapter_experts.h"
#include "libformat/adapter/adapter_file.h"
#include "libformat/adapter/adapter_names.h"
#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "libformat/hf/safetensors.h"

/* ---- what can be written ---- */

static int check_module(const struct sf_adapter *adapter, const struct sf_adapter_module *m,
                        const struct sf_model_spec *spec, struct sf_err *err)
{
    char text[SF_ROLE_TEXT];
    enum sf_part part = m->role.part;
    bool here = adapter_path_in_layer(part) && sf_part_in_layer(part) == (m->role.layer >= 0);
    if (!here || (spec && !sf_spec_has(spec, part, m->role.layer)))
        return sf_fail(err, SF_EINVAL, "%s is nothing in this model that PEFT could adapt",
                       sf_role_format(text, m->role));
    double scale = sf_adapter_scale(m->alpha, m->rank, adapter->rslora);
    if (m->rank < 1 || !(fabs(scale - m->scale) <= 1e-9 * fabs(scale)))
        return sf_fail(err, SF_EINVAL, "%s: scale %g is not what alpha %g and rank %lld make",
                       sf_role_format(text, m->role), m->scale, m->alpha, (long long)m->rank);
    return SF_OK;
}

static int check_modules(const struct sf_adapter *adapter, const struct sf_model_spec *spec,
                         struct sf_err *err)
{
    int code = adapter->modules ? SF_OK : sf_fail(err, SF_EINVAL, "an adapter without modules");
    for (int64_t i = 0; i < adapter->modules && !code; i++)
        code = check_module(adapter, &adapter->module[i], spec, err);
    return code;
}

/* ---- tensors, one after the other ---- */

static int describe_tensor(struct sf_named_tensor *out, struct sf_arena *arena,
                           const struct sf_adapter *adapter, int64_t index, struct sf_err *err)
{
    const struct sf_adapter_module *m = &adapter->module[index / 2];
    char which = index % 2 ? 'B' : 'A';
    struct sf_tensor *t = &out->tensor;
    out->name = sf_adapter_module_key(arena, adapter, m, which);
    t->dtype = SF_F32;
    t->shape = adapter_file_shape(m, adapter->layout, which);
    if (!out->name || !sf_shape_bytes(&t->bytes, &t->shape, t->dtype))
        return sf_fail(err, SF_ENOMEM, "no memory for a tensor's name");
    return SF_OK;
}

/* Which of our A and B lies in the file's tensor `which`. */
static char ours_of(const struct sf_adapter_module *m, enum sf_adapter_layout layout, char which)
{
    return adapter_walk(m, layout, 'A').which == which ? 'A' : 'B';
}

static int append_tensor(struct sf_out *out, const struct sf_adapter *adapter, int64_t index,
                         uint64_t bytes, struct sf_err *err)
{
    const struct sf_adapter_module *m = &adapter->module[index / 2];
    char ours = ours_of(m, adapter->layout, index % 2 ? 'B' : 'A');
    struct adapter_walk walk = adapter_walk(m, adapter->layout, ours);
    void *buffer = NULL;
    int code = sf_alloc_for(&buffer, bytes, "a tensor", err);
    if (code)
        return code;
    adapter_tensor_write(buffer, ours == 'A' ? m->a : m->b, m->groups, &walk);
    code = sf_out_append(out, buffer, bytes, err);
    sf_free(buffer);
    return code;
}

static int fill(struct sf_out *out, struct sf_arena *arena, const struct sf_adapter *adapter,
                struct sf_err *err)
{
    int64_t count = 2 * adapter->modules;
    struct sf_named_tensor *list = sf_arena_array(arena, (uint64_t)count, sizeof *list);
    char *header;
    uint64_t bytes;
    int code = list ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a list of tensors");
    for (int64_t i = 0; i < count && !code; i++)
        code = describe_tensor(&list[i], arena, adapter, i, err);
    if (!code)
        code = sf_safetensors_header(&header, &bytes, arena, list, count, err);
    if (!code)
        code = sf_out_append(out, header, bytes, err);
    for (int64_t i = 0; i < count && !code; i++)
        code = append_tensor(out, adapter, i, list[i].tensor.bytes, err);
    return code;
}

static int open_and_fill(struct sf_out **out, const char *path, struct sf_arena *arena,
                         const struct sf_adapter *adapter, struct sf_err *err)
{
    int code = sf_out_open(out, path, err);
    return code ? code : fill(*out, arena, adapter, err);
}

static int open_and_append(struct sf_out **out, const char *path, const char *text, uint64_t bytes,
                           struct sf_err *err)
{
    int code = sf_out_open(out, path, err);
    return code ? code : sf_out_append(*out, text, bytes, err);
}

/* An older adapter's config beside new tensors would pass for theirs: it goes before they come,
 * unless it says the same. */
static int remove_other_config(const char *path, struct sf_arena *arena, const char *text,
                               uint64_t bytes, struct sf_err *err)
{
    struct sf_err unread = {0};
    char *old;
    uint64_t old_bytes;
    if (!sf_file_exists(path))
        return SF_OK;
    if (sf_read_file(&old, &old_bytes, arena, path, bytes, &unread) == SF_OK &&
        old_bytes == bytes && memcmp(old, text, bytes) == 0)
        return SF_OK;
    int code = sf_remove_file(path, err);
    return code ? code : sf_sync_directory_of(path, err);
}

/* Both are whole on the disk before the first takes its name. */
static int write_files(const char *tensors, const char *config, struct sf_arena *arena,
                       const struct sf_adapter *adapter, const char *text, uint64_t bytes,
                       struct sf_err *err)
{
    struct sf_out *out[2] = {NULL, NULL};
    int code = open_and_fill(&out[0], tensors, arena, adapter, err);
    if (!code)
        code = open_and_append(&out[1], config, text, bytes, err);
    if (!code)
        code = sf_out_sync(out[0], err);
    if (!code)
        code = remove_other_config(config, arena, text, bytes, err);
    for (int i = 0; i < 2; i++) {
        if (!code)
            code = sf_out_commit(out[i], err);
        else
            sf_out_abort(out[i]);
    }
    return code;
}

static int write_both(const char *directory, struct sf_arena *arena,
                      const struct sf_adapter *adapter, const struct sf_model_spec *spec,
                      struct sf_err *err)
{
    char *config = sf_path_join(arena, directory, "adapter_config.json"), *text;
    char *tensors = sf_path_join(arena, directory, "adapter_model.safetensors");
    uint64_t bytes;
    if (!config || !tensors)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    int code = check_modules(adapter, spec, err);
    if (!code)
        code = adapter_config_write(&text, &bytes, arena, adapter, spec, err);
    if (!code)
        code = sf_make_directory(directory, err);
    return code ? code : write_files(tensors, config, arena, adapter, text, bytes, err);
}

int sf_adapter_write(const char *directory, const struct sf_adapter *adapter,
                     const struct sf_model_spec *spec, struct sf_err *err)
{
    struct sf_arena arena = {0};
    int code = write_both(directory, &arena, adapter, spec, err);
    sf_arena_free(&arena);
    return code;
}
