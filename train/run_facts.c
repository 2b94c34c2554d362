#include "train/run_facts.h"

#include "libformat/base/mem.h"

/* Where rows begin if they lie end to end, and documents where that is something else. */
static void add_borders(struct sf_hasher *hasher, const struct sft_dataset *data, bool documents)
{
    int64_t at = 0, count = documents ? data->documents : data->rows;
    for (int64_t i = 0; i < count; i++) {
        sf_hasher_add(hasher, &at, sizeof at);
        at += documents ? sft_dataset_document(data, i)->length : sft_dataset_length(data, i);
    }
    sf_hasher_add(hasher, &at, sizeof at);
}

/* All ids, or all targets, end to end. Two lists of room for the longest row. */
static void add_tokens(struct sf_hasher *hasher, const struct sft_dataset *data, bool targets,
                       int32_t *room)
{
    int32_t *id = room, *target = room + data->longest;
    if (!data->source->token) /* lengths alone, for a plan: no run goes on from that */
        return;
    for (int64_t row = 0; row < data->rows; row++) {
        sft_dataset_read(id, target, data, row);
        sf_hasher_add(hasher, targets ? target : id,
                      (uint64_t)sft_dataset_length(data, row) * sizeof *id);
    }
}

/* Rows, tokens, and a hash of what is trained on, in its order. */
static int add_data(struct sft_facts *facts, struct sf_arena *arena, const char *name,
                    const struct sft_dataset *data, struct sf_err *err)
{
    struct sf_hasher *hasher;
    void *room;
    int code = sf_hasher_open(&hasher, err);
    if (code)
        return code;
    code = sf_alloc_for(&room, 2 * (uint64_t)data->longest * sizeof(int32_t), "a row", err);
    if (code) {
        sf_hasher_close(hasher);
        return code;
    }
    add_borders(hasher, data, false);
    add_tokens(hasher, data, false, room);
    add_tokens(hasher, data, true, room);
    if (data->first) /* other borders are another run */
        add_borders(hasher, data, true);
    sf_free(room);
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
