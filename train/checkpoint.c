#include "train/checkpoint.h"

#include "libformat/base/file.h"

static int prepare(struct sf_arena *arena, const char *directory, bool overwrite,
                   struct sf_err *err)
{
    char *adapter = sf_path_join(arena, directory, "adapter_model.safetensors");
    char *probe = sf_path_join(arena, directory, ".writable");
    struct sf_out *out;
    if (!adapter || !probe)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    if (!overwrite && sf_file_exists(adapter))
        return sf_fail(err, SF_EINVAL,
                       "%s: there is an adapter already; --overwrite-output-dir replaces it",
                       directory);
    int code = sf_make_directory(directory, err);
    if (!code)
        code = sf_out_open(&out, probe, err);
    if (!code)
        sf_out_abort(out);
    return code;
}

int sft_checkpoint_prepare(const char *directory, bool overwrite, struct sf_err *err)
{
    struct sf_arena arena = {0};
    int code = prepare(&arena, directory, overwrite, err);
    sf_arena_free(&arena);
    return code;
}

static int write_adapter(struct sf_arena *arena, const struct sft_checkpoint *c,
                         struct sft_lora *lora, int64_t step, struct sf_err *err)
{
    struct sf_adapter adapter;
    const char *directory = c->directory;
    if (step > 0)
        directory = sf_arena_printf(arena, "%s/checkpoint-%lld", c->directory, (long long)step);
    if (!directory)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    int code = sft_lora_pull(lora, err);
    if (!code)
        code = sft_lora_export(&adapter, lora, arena, err);
    if (code)
        return code;
    adapter.prefix = c->prefix;
    adapter.base_model = c->base_model;
    return sf_adapter_write(directory, &adapter, c->spec, err);
}

int sft_checkpoint_write(const struct sft_checkpoint *checkpoint, struct sft_lora *lora,
                         int64_t step, struct sf_err *err)
{
    struct sf_arena arena = {0};
    int code = write_adapter(&arena, checkpoint, lora, step, err);
    sf_arena_free(&arena);
    return code;
}
