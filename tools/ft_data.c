#include "tools/ft_data.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "tools/tool.h"
#include "train/data/packing.h"
#include "train/row_order.h"

struct sft_row_encoder ft_row_encoder(const struct ft_model *model,
                                      const struct ft_options *options)
{
    return (struct sft_row_encoder){.tokenizer = model->tokenizer,
                                    .vocabulary = model->spec.vocabulary,
                                    .chat = model->chat.format,
                                    .no_chat = model->chat.unknown,
                                    .train_on = options->train_on,
                                    .add_special = options->add_special_tokens,
                                    .end_of_text = model->chat.end_of_text};
}

static void tell_row(void *context, const char *text)
{
    tool_progress_pause(context);
    fprintf(stderr, "%s\n", text);
}

static void show_reading(void *context, uint64_t done, uint64_t bytes)
{
    tool_progress_show(context, done, bytes);
}

/* A cache pays where reading it is no more than a moment's work, and much less than making it. */
enum { CACHE_FROM = 64 << 20 };

/* The folder for caches, in the model's arena; NULL: none. */
static const char *cache_folder(struct ft_model *m, const struct ft_options *o,
                                const struct tool_list *files)
{
    uint64_t bytes = 0;
    struct sf_file_stat stat;
    if (o->data_cache)
        return strcmp(o->data_cache, "none") == 0 ? NULL : o->data_cache;
    if (o->verb != FT_TRAIN || o->dry_run)
        return NULL;
    for (int64_t i = 0; i < files->count; i++)
        if (sf_file_stat(&stat, files->item[i], NULL) == SF_OK) /* else told when it is read */
            bytes += stat.bytes;
    return bytes >= CACHE_FROM ? sf_path_join(&m->arena, o->output_dir, "data") : NULL;
}

static int place_cache(struct sft_dataset_config *config, struct ft_model *m,
                       const struct ft_options *o, const struct tool_list *files, const char *name,
                       struct sf_err *err)
{
    const char *folder = cache_folder(m, o, files), *identity;
    if (!folder)
        return SF_OK;
    identity = ft_model_identity(m);
    config->cache = sf_path_join(&m->arena, folder, name);
    config->cache_identity =
        identity ? sf_arena_printf(&m->arena, "%s %s", SCOUT_VERSION, identity) : NULL;
    if (!config->cache || !config->cache_identity)
        return sf_fail(err, SF_ENOMEM, "no memory for the path of a cache");
    return sf_make_directory(folder, err);
}

/* Files of rows, tokenized or found in cache `name`. file_end: as a dataset's config has it. */
static int open_files(struct sft_dataset *out, struct ft_model *m, const struct ft_options *o,
                      const struct tool_list *files, const char *name, int64_t *file_end,
                      struct sf_err *err)
{
    struct tool_progress progress;
    struct sft_dataset_config config = {.file = files->item,
                                        .files = files->count,
                                        .encoder = ft_row_encoder(m, o),
                                        .max_length = o->max_seq_length,
                                        .mode = o->text_mode,
                                        .too_long = o->too_long,
                                        .untrainable = o->untrainable,
                                        .threads = (int)o->threads,
                                        .on_note = tell_row,
                                        .on_progress = show_reading,
                                        .interrupted = tool_interrupted,
                                        .context = &progress,
                                        .file_end = file_end};
    int code = place_cache(&config, m, o, files, name, err);
    if (code)
        return code;
    tool_catch_signals(); /* a file of tokens in the making goes away */
    tool_progress_begin(&progress, "tokenizing");
    code = sft_dataset_open(out, &config, err);
    tool_progress_end(&progress);
    tool_release_signals(); /* loading weights may be ended at once */
    if (!code && out->cached)
        fprintf(stderr, "%s: tokens of an earlier run, checked\n", config.cache);
    return code;
}

int ft_data_open(struct sft_dataset *out, struct ft_model *model, const struct ft_options *options,
                 struct sf_err *err)
{
    return open_files(out, model, options, &options->data, "data.tokens", NULL, err);
}

/* No epoch shuffles like these: what is held out, or counts in part, tells nothing of the order of
 * training. */
static const uint64_t SPLIT_EPOCH = UINT64_MAX, WEIGH_EPOCH = UINT64_MAX - 1;

static void tell_weights(const struct ft_options *o, const int64_t *end, const int64_t *taken)
{
    for (int64_t f = 0; f < o->data.count; f++)
        fprintf(stderr, "%s: weight %g, %lld of its %lld rows in an epoch\n", o->data.item[f],
                o->data_weight[f], (long long)taken[f], (long long)(end[f] - (f ? end[f - 1] : 0)));
}

static int open_weighed(struct sft_dataset *data, struct ft_model *model,
                        const struct ft_options *o, struct sf_err *err)
{
    int64_t files = o->data.count;
    void *ends = NULL, *order = NULL;
    int code = sf_alloc_for(&ends, 2 * (uint64_t)files * sizeof(int64_t), "files", err);
    int64_t *end = ends, *taken = end + files;
    if (!code)
        code = open_files(data, model, o, &o->data, "data.tokens", end, err);
    if (!code)
        code = sf_alloc_for(&order, (uint64_t)data->rows * sizeof(int64_t), "rows", err);
    if (!code) {
        sft_row_order_shuffle(order, data->rows, (uint64_t)o->seed, WEIGH_EPOCH);
        code = sft_dataset_weigh(data, end, o->data_weight, files, order, taken, err);
        if (code)
            sf_err_prefix(err, "--data-weights");
        else
            tell_weights(o, end, taken);
    }
    sf_free(order);
    sf_free(ends);
    return code;
}

static int split_data(struct sft_dataset *data, struct sft_dataset *eval,
                      const struct ft_options *o, struct sf_err *err)
{
    void *order;
    int64_t rows = (int64_t)((double)data->rows * o->eval_split + 0.5);
    int code =
        sf_alloc_for(&order, (uint64_t)data->rows * sizeof(int64_t), "the order of rows", err);
    if (code)
        return code;
    sft_row_order_shuffle(order, data->rows, (uint64_t)o->seed, SPLIT_EPOCH);
    code = sft_dataset_split(eval, data, order, rows, err);
    sf_free(order);
    return code ? sf_err_prefix(err, "--eval-split %g", o->eval_split) : SF_OK;
}

static int pack(struct sft_dataset *data, const struct ft_options *o, struct sf_err *err)
{
    return o->packing && data->rows ? sft_packing_apply(data, o->max_seq_length, err) : SF_OK;
}

int ft_data_open_all(struct sft_dataset *data, struct sft_dataset *eval, bool *evaluating,
                     struct ft_model *model, const struct ft_options *options, struct sf_err *err)
{
    const struct ft_options *o = options;
    int code = SF_OK;
    *evaluating = o->eval_data.count > 0 || (o->eval_split > 0 && o->data.count > 0);
    if (o->data.count)
        code =
            o->data_weight ? open_weighed(data, model, o, err) : ft_data_open(data, model, o, err);
    if (!code && o->eval_data.count)
        code = open_files(eval, model, o, &o->eval_data, "eval.tokens", NULL, err);
    else if (!code && *evaluating)
        code = split_data(data, eval, o, err);
    if (!code)
        code = pack(data, o, err);
    return code ? code : pack(eval, o, err);
}

void ft_data_describe(const char *what, const struct sft_dataset *data, int64_t most)
{
    fprintf(stderr, "%s: %lld rows of up to %lld tokens, %lld tokens", what, (long long)data->rows,
            (long long)data->longest, (long long)data->tokens);
    if (data->first)
        fprintf(stderr, ", packed from %lld documents, %.1f %% full", (long long)data->documents,
                100 * sft_packing_efficiency(data, most));
    if (data->counts.tail_tokens)
        fprintf(stderr, "; %lld more at the end make no row and are left out",
                (long long)data->counts.tail_tokens);
    if (data->counts.truncated_rows)
        fprintf(stderr, "; %lld rows were too long: %lld tokens are cut off",
                (long long)data->counts.truncated_rows, (long long)data->counts.truncated_tokens);
    if (data->counts.long_rows)
        fprintf(stderr, "; %lld rows were too long and are left out",
                (long long)data->counts.long_rows);
    if (data->counts.untrainable_rows)
        fprintf(stderr, "; %lld rows have nothing to be trained on and are left out",
                (long long)data->counts.untrainable_rows);
    fprintf(stderr, "\n");
}
