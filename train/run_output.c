#include "train/run_output.h"

#include "libformat/base/file.h"

static int open_metrics(struct sft_run_output *o, const char *from, struct sf_err *err)
{
    const char *kept = from ? sf_path_join(&o->arena, from, "metrics.jsonl") : NULL;
    if (from && !kept)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    return sft_metrics_open(&o->metrics, o->where.directory, kept, err);
}

int sft_run_output_open(struct sft_run_output *out, const struct sft_checkpoint *where,
                        int64_t limit, const char *from, int64_t step, struct sf_err *err)
{
    *out = (struct sft_run_output){.where = *where, .limit = limit, .saved = from ? step : -1};
    int code = open_metrics(out, from, err);
    if (!code)
        code = sft_checkpoint_clear(where->directory, from ? step : -1, err);
    return code;
}

void sft_run_output_close(struct sft_run_output *output)
{
    sft_metrics_close(output->metrics);
    sf_arena_free(&output->arena);
    *output = (struct sft_run_output){0};
}

int sft_run_output_save(struct sft_run_output *output, struct sft_lora *lora,
                        const struct sft_resume_record *record, struct sf_err *err)
{
    int64_t step = record->state.step;
    if (output->saved == step)
        return SF_OK;
    int code =
        sft_checkpoint_write(&output->where, lora, record, sft_metrics_path(output->metrics), err);
    if (code)
        return sf_err_prefix(err, "checkpoint of step %lld", (long long)step);
    output->saved = step;
    return sft_checkpoint_rotate(output->where.directory, output->limit, step,
                                 record->state.best_step, err);
}

int sft_run_output_finish(struct sft_run_output *output, struct sft_lora *lora, struct sf_err *err)
{
    return sft_checkpoint_write_adapter(&output->where, output->where.directory, lora, err);
}

int sft_run_output_load_best(bool *found, struct sft_run_output *output, struct sft_lora *lora,
                             int64_t step, struct sf_err *err)
{
    struct sft_resume_record record;
    struct sf_err gone = {0};
    const char *folder = sft_checkpoint_folder(&output->arena, output->where.directory, step);
    if (!folder)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    *found = sft_checkpoint_read(&record, &output->arena, folder, &gone) == SF_OK;
    return *found ? sft_checkpoint_load_adapter(lora, &output->where, folder, err) : SF_OK;
}
