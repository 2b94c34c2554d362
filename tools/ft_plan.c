/* The verb plan. */
#include <stdio.h>

#include "libformat/base/json.h"
#include "tools/ft_plan.h"
#include "tools/ft_data.h"
#include "tools/ft_verbs.h"

/* One line of the plan; what is zero is left out. */
static void line(const char *what, uint64_t bytes)
{
    char text[TOOL_SIZE_TEXT];
    if (bytes)
        printf("  %-34s %16llu  %s\n", what, (unsigned long long)bytes, tool_size(text, bytes));
}

static void print_weights(const struct sft_plan *p)
{
    printf("weights\n");
    for (int k = 0; k < SF_EXTENT_KIND_COUNT; k++)
        if (k != SF_EXTENT_EMBEDDING && k != SF_EXTENT_UNUSED)
            line(sf_extent_kind_name((enum sf_extent_kind)k), p->weights[k]);
    line("embedding (rows on the host)", p->embedding_bytes);
    line("unused (never read, not counted)", p->unused_bytes);
}

static void print_step(const struct sft_plan *p)
{
    printf("a step's block, fullest in %s\n", p->peak_op ? p->peak_op : "nothing");
    for (int k = 0; k < SFT_KIND_COUNT; k++)
        line(sft_kind_name((enum sft_kind)k), p->peak_kind[k]);
    line("lost to packing", p->step_bytes - p->step_live_bytes);
    line("the block", p->step_bytes);
    printf("largest in it\n");
    for (int64_t i = 0; i < p->top_count && i < 5; i++)
        line(p->top[i].name, p->top[i].bytes);
}

static void print_device(const struct sft_plan *p, const struct ft_fit *fit)
{
    uint64_t bytes = ft_fit_bytes(fit, p);
    printf("on the card\n");
    line("CUDA and other programs", fit->library_bytes);
    line("cuBLAS workspace", fit->workspace_bytes);
    line("weights", fit->weight_bytes);
    line("adapter and optimizer", fit->adapter_bytes);
    line("a step's block", p->step_bytes);
    line("reserve for kernels loaded later", fit->reserve_bytes);
    line("the card in all", bytes);
    if (fit->total_bytes)
        line("left of it", fit->total_bytes - bytes);
}

static void print_host(const struct ft_host *host)
{
    char text[TOOL_SIZE_TEXT];
    printf("on this machine\n");
    line("pinned for the device", host->pinned_bytes);
    line("pinned while weights are loaded", host->loading_bytes);
    line("heap", host->heap_bytes);
    line("in all", host->need_bytes);
    line("page cache that helps", host->cache_bytes);
    line(host->memory.cgroup_bytes ? "its cgroup's limit" : "its memory", host->memory.total_bytes);
    if (host->memory.total_bytes && host->need_bytes > host->memory.total_bytes)
        printf("  a run does not fit this machine: %s are missing\n",
               tool_size(text, host->need_bytes - host->memory.total_bytes));
}

static void print_text(const struct sft_plan *p, const struct ft_fit *fit,
                       const struct ft_host *host, const struct sft_trainer *trainer)
{
    char text[TOOL_SIZE_TEXT];
    print_weights(p);
    printf("adapter\n");
    line("parameters", p->adapter_parameter_bytes);
    line("gradients", p->adapter_gradient_bytes);
    line("moments", p->adapter_moment_bytes);
    print_step(p);
    if (fit->device)
        print_device(p, fit);
    print_host(host);
    printf("total %llu bytes, %s; %lld steps\n", (unsigned long long)p->total_bytes,
           tool_size(text, p->total_bytes), (long long)sft_trainer_steps(trainer));
}

static void write_device(struct sf_json_writer *w, const struct sft_plan *p,
                         const struct ft_fit *fit)
{
    sf_json_write_object(w, "device");
    sf_json_write_int(w, "library_bytes", (int64_t)fit->library_bytes);
    sf_json_write_int(w, "workspace_bytes", (int64_t)fit->workspace_bytes);
    sf_json_write_int(w, "weight_bytes", (int64_t)fit->weight_bytes);
    sf_json_write_int(w, "adapter_bytes", (int64_t)fit->adapter_bytes);
    sf_json_write_int(w, "step_bytes", (int64_t)p->step_bytes);
    sf_json_write_int(w, "reserve_bytes", (int64_t)fit->reserve_bytes);
    sf_json_write_int(w, "bytes", (int64_t)ft_fit_bytes(fit, p));
    sf_json_write_int(w, "total_bytes", (int64_t)fit->total_bytes);
    sf_json_write_end(w, '}');
}

static void write_host(struct sf_json_writer *w, const struct ft_host *host)
{
    sf_json_write_object(w, "host");
    sf_json_write_int(w, "pinned_bytes", (int64_t)host->pinned_bytes);
    sf_json_write_int(w, "loading_bytes", (int64_t)host->loading_bytes);
    sf_json_write_int(w, "heap_bytes", (int64_t)host->heap_bytes);
    sf_json_write_int(w, "need_bytes", (int64_t)host->need_bytes);
    sf_json_write_int(w, "cache_bytes", (int64_t)host->cache_bytes);
    sf_json_write_int(w, "total_bytes", (int64_t)host->memory.total_bytes);
    sf_json_write_int(w, "cgroup_bytes", (int64_t)host->memory.cgroup_bytes);
    sf_json_write_end(w, '}');
}

static int print_json(const struct sft_plan *p, const struct ft_fit *fit,
                      const struct ft_host *host, const struct sft_trainer *trainer,
                      struct sf_err *err)
{
    struct sf_arena arena = {0};
    struct sf_json_writer w;
    char *text;
    sf_json_write_begin(&w, &arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_object(&w, "weights");
    for (int k = 0; k < SF_EXTENT_KIND_COUNT; k++)
        sf_json_write_int(&w, sf_extent_kind_name((enum sf_extent_kind)k), (int64_t)p->weights[k]);
    sf_json_write_end(&w, '}');
    sf_json_write_int(&w, "resident_bytes", (int64_t)p->resident_bytes);
    sf_json_write_int(&w, "embedding_bytes", (int64_t)p->embedding_bytes);
    sf_json_write_int(&w, "unused_bytes", (int64_t)p->unused_bytes);
    sf_json_write_int(&w, "adapter_parameter_bytes", (int64_t)p->adapter_parameter_bytes);
    sf_json_write_int(&w, "adapter_gradient_bytes", (int64_t)p->adapter_gradient_bytes);
    sf_json_write_int(&w, "adapter_moment_bytes", (int64_t)p->adapter_moment_bytes);
    sf_json_write_int(&w, "step_bytes", (int64_t)p->step_bytes);
    sf_json_write_int(&w, "step_live_bytes", (int64_t)p->step_live_bytes);
    sf_json_write_object(&w, "step_at_its_fullest");
    for (int k = 0; k < SFT_KIND_COUNT; k++)
        sf_json_write_int(&w, sft_kind_name((enum sft_kind)k), (int64_t)p->peak_kind[k]);
    sf_json_write_end(&w, '}');
    sf_json_write_int(&w, "host_bytes", (int64_t)p->host_bytes);
    sf_json_write_int(&w, "total_bytes", (int64_t)p->total_bytes);
    if (fit->device)
        write_device(&w, p, fit);
    write_host(&w, host);
    sf_json_write_int(&w, "steps", sft_trainer_steps(trainer));
    sf_json_write_end(&w, '}');
    int code = sf_json_write_finish(&text, NULL, &w, err);
    if (!code)
        printf("%s\n", text);
    sf_arena_free(&arena);
    return code;
}

/* Without data a micro-batch is as full as it can be: rows of --max-seq-length. */
static int stand_in(struct sft_dataset *out, const struct ft_options *o, struct sf_err *err)
{
    int64_t length = o->max_seq_length, rows = o->train_batch;
    if (rows < o->eval_batch)
        rows = o->eval_batch;
    if (rows < 1 || rows > 1 << 20 || length < 2 || length > INT32_MAX)
        return sf_fail(err, SF_EINVAL, "micro-batches of %lld rows of %lld tokens", (long long)rows,
                       (long long)length);
    struct sft_tokens *source;
    int code = sft_tokens_of_lengths(&source, rows, length, err);
    return code ? code : sft_dataset_over(out, source, err);
}

static int make(struct ft_model *m, const struct ft_options *o, struct sft_dataset *data,
                struct sft_dataset *eval, ft_plan_show *show, void *context, struct sf_err *err)
{
    bool evaluating = false;
    int code = ft_model_open(m, o, err);
    if (!code)
        code = ft_model_lora(m, o, true, err);
    if (!code)
        code = ft_data_open_all(data, eval, &evaluating, m, o, err);
    if (!code && !o->data.count)
        code = stand_in(data, o, err);
    if (code)
        return code;
    struct sft_trainer *trainer;
    struct ft_fit fit;
    struct sft_trainer_config config = ft_trainer_config(m, o, data, evaluating ? eval : NULL);
    code = ft_fit_measure(&fit, m, o, err);
    if (!code)
        code = ft_fit_trainer(&trainer, &fit, &config, err);
    if (code)
        return code;
    struct sft_plan p = {0};
    sft_plan_weights(&p, m->map);
    sft_trainer_plan(&p, trainer);
    sft_plan_total(&p);
    code = show(context, &p, &fit, trainer, err);
    sft_trainer_close(trainer);
    return code;
}

int ft_plan_make(const struct ft_options *options, ft_plan_show *show, void *context,
                 struct sf_err *err)
{
    struct ft_model model = {0};
    struct sft_dataset data = {0}, eval = {0};
    int code = make(&model, options, &data, &eval, show, context, err);
    sft_dataset_free(&data);
    sft_dataset_free(&eval);
    ft_model_close(&model);
    return code;
}

int ft_plan_print(void *options, const struct sft_plan *plan, const struct ft_fit *fit,
                  const struct sft_trainer *trainer, struct sf_err *err)
{
    const struct ft_options *o = options;
    struct ft_host host;
    ft_host_measure(&host, fit, plan, o->threads);
    if (o->json)
        return print_json(plan, fit, &host, trainer, err);
    print_text(plan, fit, &host, trainer);
    return SF_OK;
}

int ft_plan(const struct ft_options *options, struct sf_err *err)
{
    struct ft_options copy = *options;
    return ft_plan_make(options, ft_plan_print, &copy, err);
}
