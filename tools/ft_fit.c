#include "tools/ft_fit.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/ops.h"
#include "libformat/base/mem.h"
#include "train/device_image.h"

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

/* ---- the host ---- */

void ft_host_measure(struct ft_host *out, const struct ft_fit *fit, const struct sft_plan *plan,
                     int threads)
{
    uint64_t adapter = plan->adapter_parameter_bytes;
    *out = (struct ft_host){.pinned_bytes = fit->device ? plan->host_bytes : 0,
                            .loading_bytes = fit->device ? sft_load_ring_bytes(threads, 0) : 0,
                            .heap_bytes = adapter};
    out->cache_bytes = plan->embedding_bytes;
    if (!fit->device) {
        out->heap_bytes = adapter + plan->adapter_gradient_bytes + plan->adapter_moment_bytes +
                          plan->step_bytes + plan->host_bytes;
        out->cache_bytes += plan->resident_bytes;
    }
    out->need_bytes = out->pinned_bytes + out->loading_bytes + out->heap_bytes;
    sf_host_memory(&out->memory);
}

int ft_host_check(const struct ft_host *host, struct sf_err *err)
{
    const struct sf_host_memory *m = &host->memory;
    if (m->total_bytes == 0 || host->need_bytes <= m->total_bytes)
        return SF_OK;
    return sf_fail(
        err, SF_ENOMEM,
        "the run takes %llu bytes of this machine's memory (%llu of them pinned), %s %llu",
        (unsigned long long)host->need_bytes,
        (unsigned long long)(host->pinned_bytes + host->loading_bytes),
        m->cgroup_bytes ? "its cgroup allows" : "there are", (unsigned long long)m->total_bytes);
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

enum { REMEDY_TEXT = 96, SHORTEST = 128 };

struct search { /* for settings, each tried by itself, that a limit holds */
    const struct sft_trainer_config *config;
    char found[4 * REMEDY_TEXT]; /* what was, in words; "" so far */
};

/* Opened with as little kept as is allowed, and closed again; nothing of the device is touched. */
static bool fits(struct sft_trainer_config trial)
{
    struct sft_trainer *trainer = NULL;
    struct sf_err ignored = {0};
    if (!trial.exact_policy) {
        trial.policy = sft_policy_of(SFT_RECOMPUTE_FULL, trial.spec->layers);
        trial.policy.offload = trial.ops->device;
        trial.exact_policy = true;
    }
    trial.trial = true;
    bool does = sft_trainer_open(&trainer, &trial, &ignored) == SF_OK;
    sft_trainer_close(trainer);
    return does;
}

/* With a dataset whose fullest micro-batch has `rows` rows of `length` tokens: tokens are not needed
 * for that. */
static bool fits_rows(const struct sft_trainer_config *config, int64_t length, int64_t rows)
{
    const struct sft_token_row row = {.length = (int32_t)length};
    struct sft_tokens source = {.row = &row, .rows = 1, .tokens = length};
    int64_t first = 0;
    struct sft_dataset data = {.source = &source,
                               .rows = 1,
                               .documents = 1,
                               .document = &first,
                               .longest = length,
                               .tokens = length};
    struct sft_trainer_config trial = *config;
    trial.data = &data;
    trial.eval = NULL;
    trial.train_batch = rows;
    return fits(trial);
}

/* With another adapter: what it is smaller by, the step may have. */
static bool fits_lora(const struct sft_trainer_config *config, struct sft_lora *lora)
{
    struct sft_trainer_config trial = *config;
    trial.lora = lora;
    trial.limit += sft_lora_bytes(config->lora, true) - sft_lora_bytes(lora, true);
    return fits(trial);
}

static void add_found(struct search *s, const char *fmt, ...)
{
    size_t used = strlen(s->found);
    va_list args;
    va_start(args, fmt);
    if (used)
        used += (size_t)snprintf(s->found + used, sizeof s->found - used, ", or ");
    vsnprintf(s->found + used, sizeof s->found - used, fmt, args);
    va_end(args);
}

static void try_optimizer(struct search *s)
{
    struct sft_lora lora = *s->config->lora;
    lora.optim = SFT_ADAMW_8BIT;
    if (s->config->lora->optim != SFT_ADAMW_8BIT && fits_lora(s->config, &lora))
        add_found(s, "--optim adamw_8bit");
}

/* The largest half, quarter ... of the rank, down to 8; not for an adapter that was read. */
static void try_ranks(struct search *s)
{
    struct sf_arena arena = {0};
    const struct sft_lora *now = s->config->lora;
    struct sft_lora_config wanted = now->config;
    struct sf_err ignored = {0};
    struct sft_lora lora;
    for (int64_t rank = wanted.rank / 2; wanted.targets + wanted.parameters && rank >= 8;
         rank /= 2) {
        wanted.rank = rank;
        if (sft_lora_plan(&lora, &arena, s->config->spec, &wanted, &ignored))
            break;
        lora.optim = now->optim;
        if (!fits_lora(s->config, &lora))
            continue;
        add_found(s, "--lora-r %lld", (long long)rank);
        break;
    }
    sf_arena_free(&arena);
}

/* One row at a time; and if that does not do, shorter ones. */
static void try_rows(struct search *s)
{
    const struct sft_trainer_config *c = s->config;
    int64_t length = c->data->longest;
    if (c->train_batch > 1 && fits_rows(c, length, 1)) {
        add_found(s, "--per-device-train-batch-size 1");
        return;
    }
    do
        length /= 2;
    while (length >= SHORTEST && !fits_rows(c, length, 1));
    if (length >= SHORTEST)
        add_found(s, "%s--max-seq-length %lld",
                  c->train_batch > 1 ? "--per-device-train-batch-size 1 " : "", (long long)length);
}

/* The error again, with what would help behind it. */
static int tell_what_would(const struct sft_trainer_config *config, struct sf_err *err)
{
    char why[sizeof err->message];
    struct search s = {.config = config};
    uint64_t failures = sf_alloc_failures();
    memcpy(why, err->message, sizeof why);
    struct sft_trainer_config automatic = *config;
    automatic.exact_policy = false;
    if (config->exact_policy && fits(automatic))
        add_found(&s, "--recompute auto");
    try_optimizer(&s);
    try_ranks(&s);
    try_rows(&s);
    if (sf_alloc_failures() != failures)
        return sf_fail(err, SF_ENOMEM, "%.800s; no memory to look for what would", why);
    if (!s.found[0])
        return sf_fail(err, SF_ENOMEM, "%.800s; no row of %d tokens or more would fit", why,
                       SHORTEST);
    return sf_fail(err, SF_ENOMEM, "%.600s; what would fit: %s", why, s.found);
}

int ft_fit_trainer(struct sft_trainer **out, const struct ft_fit *fit,
                   const struct sft_trainer_config *config, struct sf_err *err)
{
    struct sft_trainer_config limited = *config;
    limited.limit = fit->step_limit;
    uint64_t failures = sf_alloc_failures();
    int code = sft_trainer_open(out, &limited, err);
    bool too_large = code == SF_ENOMEM && sf_alloc_failures() == failures;
    return too_large && limited.limit ? tell_what_would(&limited, err) : code;
}
