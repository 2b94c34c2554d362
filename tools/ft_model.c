#include "tools/ft_model.h"

#include <stdio.h>
#include <string.h>

#include "kernels/ops.h"
#include "libformat/base/mem.h"
#include "libformat/container/container_check.h"
#include "libformat/convert/base_copy.h"
#include "libformat/hf/hf_config.h"

/* ---- the container ---- */

static int read_spec(struct ft_model *m, struct sf_err *err)
{
    char *text;
    uint64_t bytes;
    int code = sf_map_read_file(&text, &bytes, m->map, "config.json", &m->arena, err);
    if (code)
        return code;
    code = sf_hf_config_parse(&m->spec, &m->arena, text, bytes, err);
    return code ? sf_err_prefix(err, "%s: config.json", sf_map_path(m->map)) : SF_OK;
}

static int read_tokenizer(struct ft_model *m, struct sf_err *err)
{
    struct sf_err missing = {0};
    char *text;
    uint64_t bytes;
    int code = sf_map_read_file(&text, &bytes, m->map, "tokenizer.json", &m->arena, &missing);
    if (code == SF_ENOENT)
        return SF_OK; /* rows of input_ids need none */
    if (code) {
        *err = missing;
        return code;
    }
    code = sf_tokenizer_open(&m->tokenizer, text, bytes, err);
    return code ? sf_err_prefix(err, "%s: tokenizer.json", sf_map_path(m->map)) : SF_OK;
}

/* A plan needs views to know shapes by, and touches no device. */
static int open_backend(struct ft_model *m, const struct ft_options *options, struct sf_err *err)
{
    struct sf_err reason = {0};
    bool planning = options->verb == FT_PLAN;
    int code = sft_backend_open(&m->backend, options->device, (int)options->threads, planning,
                                &reason, err);
    if (code)
        return code;
    m->ops = sft_backend_ops(m->backend);
    m->ctx = sft_backend_ctx(m->backend);
    if (reason.code)
        fprintf(stderr, "computing on the processor: %s\n", reason.message);
    return planning ? sft_image_open(&m->image, m->map, &m->spec, err) : SF_OK;
}

int ft_model_open_text(struct ft_model *out, const struct ft_options *options, struct sf_err *err)
{
    *out = (struct ft_model){0};
    int code = sf_map_open(&out->map, options->model, err);
    if (!code)
        code = read_spec(out, err);
    if (!code)
        code = read_tokenizer(out, err);
    if (!code)
        code = ft_chat_read(&out->chat, out->map, out->tokenizer, options->chat_format, &out->arena,
                            err);
    return code;
}

int ft_model_open(struct ft_model *out, const struct ft_options *options, struct sf_err *err)
{
    int code = ft_model_open_text(out, options, err);
    if (code)
        return code;
    out->prefix = out->spec.multimodal ? SF_ADAPTER_MULTIMODAL : SF_ADAPTER_TEXT;
    return open_backend(out, options, err);
}

void ft_model_close(struct ft_model *model)
{
    sft_lora_free(&model->lora);
    sft_image_close(model->image);
    sft_backend_close(model->backend);
    sf_tokenizer_close(model->tokenizer);
    sf_map_close(model->map);
    sf_arena_free(&model->arena);
}

static void show_progress(void *context, uint64_t done, uint64_t total)
{
    tool_progress_show(context, done, total);
}

static int check_mapping(const struct ft_model *model, const struct ft_options *options,
                         struct tool_progress *progress, struct sf_err *err)
{
    struct sf_check_options check = {.threads = (int)options->threads,
                                     .kinds = SF_CHECK_TRAINED,
                                     .on_progress = show_progress,
                                     .context = progress};
    int64_t damaged;
    return sf_check_run(&damaged, model->map, &check, err);
}

static void tell_load(const struct ft_model *m, const struct sft_load_seconds *s)
{
    char size[TOOL_SIZE_TEXT];
    fprintf(stderr, "%s: %s loaded in %.2f s (%.1f GB/s), checksums compared there in %.3f s\n",
            sft_backend_info(m->backend)->name, tool_size(size, s->bytes), s->fill_seconds,
            (double)s->bytes / 1e9 / s->fill_seconds, s->check_seconds);
}

int ft_model_load(struct ft_model *model, const struct ft_options *options, struct sf_err *err)
{
    struct tool_progress progress;
    struct sft_load_seconds seconds;
    bool device = model->ops->device;
    tool_progress_begin(&progress, device ? "loading" : "verifying");
    int code = device ? SF_OK : check_mapping(model, options, &progress, err);
    if (!code)
        code = sft_backend_load(&model->image, model->backend, model->map, &model->spec, &seconds,
                                show_progress, &progress, err);
    tool_progress_end(&progress);
    if (!code && device)
        tell_load(model, &seconds);
    return code;
}

/* ---- the adapter ---- */

static int new_lora(struct ft_model *m, const struct ft_options *o, struct sf_err *err)
{
    static const char *const all[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                      "gate_proj", "up_proj", "down_proj"};
    struct sft_lora_config config = {.target = o->target_modules.item,
                                     .targets = o->target_modules.count,
                                     .parameter = o->target_parameters.item,
                                     .parameters = o->target_parameters.count,
                                     .rank = o->lora_r,
                                     .alpha = o->lora_alpha,
                                     .rslora = o->use_rslora,
                                     .rank_pattern = o->rank_pattern,
                                     .rank_patterns = o->rank_pattern_text.count,
                                     .alpha_pattern = o->alpha_pattern,
                                     .alpha_patterns = o->alpha_pattern_text.count};
    if (config.targets == 0 && config.parameters == 0) {
        config.target = all;
        config.targets = sizeof all / sizeof all[0];
    }
    if (config.alpha == 0)
        return sf_fail(err, SF_EINVAL, "--lora-alpha is 0: the adapter would change nothing");
    int code = sft_lora_plan(&m->lora, &m->arena, &m->spec, &config, err);
    return code ? code : sft_lora_drop(&m->lora, o->lora_dropout, (uint64_t)o->seed, err);
}

static int read_lora(struct ft_model *m, const char *directory, const struct ft_options *o,
                     bool training, struct sf_err *err)
{
    struct sf_adapter_base base = sf_base_in_container(m->map);
    int code = sf_adapter_read_on(&m->adapter, &m->arena, directory, &m->spec, &base, err);
    if (code)
        return code;
    m->prefix = m->adapter.prefix;
    code = sft_lora_plan_adapter(&m->lora, &m->arena, &m->spec, &m->adapter, err);
    return code || !training ? code
                             : sft_lora_drop(&m->lora, m->adapter.dropout, (uint64_t)o->seed, err);
}

int ft_model_lora(struct ft_model *model, const struct ft_options *options, bool training,
                  struct sf_err *err)
{
    const char *from = options->adapter ? options->adapter : options->init_adapter;
    int code =
        from ? read_lora(model, from, options, training, err) : new_lora(model, options, err);
    model->lora.optim = options->optim;
    model->lora.b_rate = options->loraplus_lr_ratio;
    return code;
}

int ft_model_fill_lora(struct ft_model *model, const struct ft_options *options, bool training,
                       struct sf_err *err)
{
    int code = sft_lora_allocate(&model->lora, training, model->ops, model->ctx, err);
    if (!code && model->adapter.modules)
        code = sft_lora_load(&model->lora, &model->adapter, err);
    else if (!code)
        sft_lora_init(&model->lora, (uint64_t)options->seed);
    return code ? code : sft_lora_push(&model->lora, err);
}

enum sf_adapter_prefix ft_model_prefix(const struct ft_model *model,
                                       const struct ft_options *options)
{
    if (!options->adapter_class)
        return model->prefix;
    return strcmp(options->adapter_class, "multimodal") == 0 ? SF_ADAPTER_MULTIMODAL
                                                             : SF_ADAPTER_TEXT;
}

const char *ft_model_identity(struct ft_model *m)
{
    const unsigned char *id = sf_map_info(m->map)->identity;
    char *text = sf_arena_strdup(&m->arena, "0123456789abcdef0123456789abcdef");
    for (int i = 0; text && i < 16; i++)
        snprintf(text + 2 * i, 3, "%02x", id[i]);
    return text;
}
