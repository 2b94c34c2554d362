#include "train/run_facts.h"

/* Rows, tokens, and a hash of what is trained on, in its order. */
static int add_data(struct sft_facts *facts, struct sf_arena *arena, const char *name,
                    const struct sft_dataset *data, struct sf_err *err)
{
    struct sf_hasher *hasher;
    int code = sf_hasher_open(&hasher, err);
    if (code)
        return code;
    sf_hasher_add(hasher, data->start, ((uint64_t)data->rows + 1) * sizeof *data->start);
    sf_hasher_add(hasher, data->id, (uint64_t)data->tokens * sizeof *data->id);
    sf_hasher_add(hasher, data->target, (uint64_t)data->tokens * sizeof *data->target);
    if (data->first) /* other borders are another run */
        sf_hasher_add(hasher, data->document,
                      ((uint64_t)data->documents + 1) * sizeof *data->document);
    struct sf_hash128 hash = sf_hasher_digest(hasher);
    sf_hasher_close(hasher);
    sft_facts_add(facts, arena, name, "%lld rows of %lld tokens, %016llx%016llx",
                  (long long)data->rows, (long long)data->tokens, (unsigned long long)hash.high,
                  (unsigned long long)hash.low);
    return SF_OK;
}

/* The modules with their shapes and scales, in their order. */
static int add_adapter(struct sft_facts *facts, struct sf_arena *arena, const struct sft_lora *lora,
                       struct sf_err *err)
{
    struct sf_hasher *hasher;
    int code = sf_hasher_open(&hasher, err);
    if (code)
        return code;
    for (int64_t i = 0; i < lora->modules; i++) {
        const struct sft_lora_module *m = &lora->module[i];
        int64_t shape[] = {(int64_t)m->role.part, m->role.layer, m->groups, m->rank, m->in, m->out};
        sf_hasher_add(hasher, shape, sizeof shape);
        sf_hasher_add(hasher, &m->scale, sizeof m->scale);
    }
    unsigned long long hash = sf_hasher_digest(hasher).low;
    sf_hasher_close(hasher);
    sft_facts_add(facts, arena, "lora-r", "%lld", (long long)lora->config.rank);
    sft_facts_add_double(facts, arena, "lora-alpha", lora->config.alpha);
    sft_facts_add(facts, arena, "use-rslora", "%s", lora->config.rslora ? "true" : "false");
    sft_facts_add_double(facts, arena, "lora-dropout", lora->dropout);
    sft_facts_add(facts, arena, "adapter", "%lld modules of %lld parameters, %016llx",
                  (long long)lora->modules, (long long)lora->trained, hash);
    return SF_OK;
}

static void add_count(struct sft_facts *facts, struct sf_arena *arena, const char *name,
                      int64_t value)
{
    sft_facts_add(facts, arena, name, "%lld", (long long)value);
}

static void add_optimizer(struct sft_facts *facts, struct sf_arena *arena,
                          const struct sft_trainer_config *c, const struct sft_schedule *schedule)
{
    sft_facts_add(facts, arena, "optim", "%s",
                  c->lora->optim == SFT_ADAMW_8BIT ? "adamw_8bit" : "adamw_torch");
    sft_facts_add_double(facts, arena, "learning-rate", c->learning_rate);
    if (sft_lora_b_rate(c->lora) != 1)
        sft_facts_add_double(facts, arena, "loraplus-lr-ratio", c->lora->b_rate);
    sft_facts_add(facts, arena, "lr-scheduler-type", "%s", sft_schedule_name(schedule->kind));
    add_count(facts, arena, "steps", schedule->steps);
    add_count(facts, arena, "warmup-steps", schedule->warmup);
    sft_facts_add_double(facts, arena, "min-lr-rate", schedule->least);
    sft_facts_add_double(facts, arena, "adam-beta1", c->beta1);
    sft_facts_add_double(facts, arena, "adam-beta2", c->beta2);
    sft_facts_add_double(facts, arena, "adam-epsilon", c->epsilon);
    sft_facts_add_double(facts, arena, "weight-decay", c->weight_decay);
    sft_facts_add_double(facts, arena, "max-grad-norm", (double)c->max_grad_norm);
}

/* When the run ends, and with which adapter, follows from held-out losses only where asked for. */
static int add_stopping(struct sft_facts *facts, struct sf_arena *arena,
                        const struct sft_trainer_config *c, struct sf_err *err)
{
    add_count(facts, arena, "early-stopping-patience", c->early_stopping_patience);
    if (!c->eval || !(c->early_stopping_patience || c->load_best))
        return SF_OK;
    sft_facts_add_double(facts, arena, "early-stopping-threshold", c->early_stopping_threshold);
    add_count(facts, arena, "eval-steps", c->eval_steps);
    add_count(facts, arena, "per-device-eval-batch-size", c->eval_batch);
    return add_data(facts, arena, "eval-data", c->eval, err);
}

int sft_run_facts(struct sft_facts *out, struct sf_arena *arena,
                  const struct sft_trainer_config *config, const struct sft_schedule *schedule,
                  struct sf_err *err)
{
    const struct sft_trainer_config *c = config;
    *out = (struct sft_facts){0};
    sft_facts_add(out, arena, "model", "%s", c->model_identity ? c->model_identity : "unnamed");
    int code = add_data(out, arena, "data", c->data, err);
    if (!code)
        code = add_adapter(out, arena, c->lora, err);
    if (code)
        return code;
    add_count(out, arena, "per-device-train-batch-size", c->train_batch);
    add_count(out, arena, "gradient-accumulation-steps", c->accumulation);
    sft_facts_add(out, arena, "no-shuffle", "%s", c->shuffle ? "false" : "true");
    sft_facts_add(out, arena, "seed", "%llu", (unsigned long long)c->seed);
    sft_facts_add(out, arena, "on-nan", "%s", c->skip_nan ? "skip" : "stop");
    add_optimizer(out, arena, c, schedule);
    code = add_stopping(out, arena, c, err);
    return code || !out->failed ? code : sf_fail(err, SF_ENOMEM, "no memory for a run's facts");
}
