#include "tools/ft_fit.h"

#include <stdio.h>
#include <string.h>

#include "kernels/ops.h"

/* What CUDA's context took on the machines this was measured on, for plans without a device. */
static const uint64_t LIBRARY_BYTES = 600u << 20;
/* For what libraries load later. On an H100 nothing came after the context and cuBLAS had started. */
static const uint64_t RESERVE_BYTES = 64u << 20;

/* ---- what there is ---- */

static void take_card(struct ft_fit *fit, const struct ft_model *model, const struct ft_options *o)
{
    const struct sft_backend_info *info = sft_backend_info(model->backend);
    fit->total_bytes = info->total_bytes;
    fit->library_bytes = info->total_bytes ? info->library_bytes : LIBRARY_BYTES;
    fit->workspace_bytes = info->workspace_bytes;
    if (info->total_bytes) /* the context has its workspace already */
        fit->library_bytes -= fit->workspace_bytes;
    if (o->vram_limit && (!fit->total_bytes || o->vram_limit < fit->total_bytes))
        fit->total_bytes = o->vram_limit;
}

int ft_fit_measure(struct ft_fit *out, const struct ft_model *model,
                   const struct ft_options *options, struct sf_err *err)
{
    struct sft_plan plan = {0};
    *out = (struct ft_fit){.device = model->ops->device};
    if (!out->device)
        return SF_OK;
    take_card(out, model, options);
    sft_plan_weights(&plan, model->map);
    out->weight_bytes = plan.resident_bytes;
    out->adapter_bytes = sft_lora_bytes(&model->lora, true);
    out->reserve_bytes = RESERVE_BYTES;
    if (!out->total_bytes)
        return SF_OK;
    uint64_t taken = ft_fit_bytes(out, &plan);
    if (taken >= out->total_bytes)
        return sf_fail(err, SF_ENOMEM,
                       "%llu bytes do not hold %llu of weights, %llu of adapter and optimizer and "
                       "%llu of libraries, before any activation",
                       (unsigned long long)out->total_bytes, (unsigned long long)out->weight_bytes,
                       (unsigned long long)out->adapter_bytes,
                       (unsigned long long)(taken - out->weight_bytes - out->adapter_bytes));
    out->step_limit = out->total_bytes - taken;
    return SF_OK;
}

uint64_t ft_fit_bytes(const struct ft_fit *fit, const struct sft_plan *plan)
{
    return fit->library_bytes + fit->workspace_bytes + fit->weight_bytes + fit->adapter_bytes +
           fit->reserve_bytes + plan->step_bytes;
}

const char *ft_policy_text(char text[FT_POLICY_TEXT], struct sft_policy policy, int64_t layers)
{
    int used = 0;
    for (int k = 0; k < SFT_ACTIVATION_KINDS; k++) {
        if (!policy.again[k])
            continue;
        used += snprintf(text + used, (size_t)(FT_POLICY_TEXT - used), "%s%s in %d of %lld",
                         used ? ", " : "", sft_kind_name((enum sft_kind)k), policy.again[k],
                         (long long)layers);
    }
    if (used == 0)
        used = snprintf(text, FT_POLICY_TEXT, "nothing");
    if (policy.offload)
        snprintf(text + used, (size_t)(FT_POLICY_TEXT - used), "; on the host: residual stream");
    return text;
}

/* ---- what would fit ---- */

/* A dataset whose fullest micro-batch has rows of `length` tokens; without tokens, for plans. */
static bool fits_with(const struct sft_trainer_config *config, int64_t length, int64_t rows)
{
    int64_t start[2] = {0, length};
    struct sft_dataset data = {.rows = 1, .longest = length, .tokens = length, .start = start};
    struct sft_trainer_config smaller = *config;
    struct sft_trainer *trainer = NULL;
    struct sf_err ignored = {0};
    smaller.data = &data;
    smaller.eval = NULL;
    smaller.policy = sft_policy_of(SFT_RECOMPUTE_FULL, config->spec->layers);
    smaller.policy.offload = config->ops->device;
    smaller.train_batch = rows;
    bool fits = sft_trainer_open(&trainer, &smaller, &ignored) == SF_OK;
    sft_trainer_close(trainer);
    return fits;
}

/* The error again, with a remedy behind it. */
static int tell_what_would(const struct sft_trainer_config *config, struct sf_err *err)
{
    char why[sizeof err->message];
    int64_t half = config->data->longest;
    memcpy(why, err->message, sizeof why);
    if (config->train_batch > 1 && fits_with(config, half, 1))
        return sf_fail(err, SF_ENOMEM, "%.800s; --per-device-train-batch-size 1 would fit", why);
    while (half > 64 && !fits_with(config, half, 1))
        half /= 2;
    if (half > 64)
        return sf_fail(
            err, SF_ENOMEM,
            "%.800s; --per-device-train-batch-size 1 and --max-seq-length %lld would fit", why,
            (long long)half);
    return sf_fail(err, SF_ENOMEM, "%.800s; no row of 128 tokens or more would fit", why);
}

int ft_fit_trainer(struct sft_trainer **out, const struct ft_fit *fit,
                   const struct sft_trainer_config *config, struct sf_err *err)
{
    struct sft_trainer_config limited = *config;
    limited.limit = fit->step_limit;
    int code = sft_trainer_open(out, &limited, err);
    return code == SF_ENOMEM && limited.limit ? tell_what_would(&limited, err) : code;
}
