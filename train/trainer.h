/* trainer.h -- a fine-tuning run: epochs, micro-batches, schedule, evaluation, what is written when.
 *
 * Open decides every shape and size (sft_trainer_plan tells them); run takes the step block and
 * then allocates nothing but what an adapter's file or a line of metrics needs for a moment. The
 * arithmetic follows Hugging Face's Trainer: a step's loss is the sum over the targets of all its
 * micro-batches, divided by their number; an epoch's last step takes what is left; the learning
 * rate of step s (from 0) is the schedule's at s.
 *
 * A run that is stopped, or killed, goes on from its newest checkpoint and computes bit for bit what
 * it would have: open, resume, run. */
#ifndef SCOUT_TRAIN_TRAINER_H
#define SCOUT_TRAIN_TRAINER_H

#include "train/batches.h"
#include "train/metrics.h"
#include "train/run_output.h"
#include "train/schedule.h"
#include "train/step.h"

struct sft_trainer_config {
    const struct sf_model_spec *spec;
    struct sft_lora *lora; /* planned; for a run allocated (training) and filled */
    const struct sk_ops *ops;
    struct sk_ctx *ctx;
    const struct sft_dataset *data, *eval; /* eval: NULL for none */
    int64_t train_batch, eval_batch;       /* rows of a micro-batch */
    int64_t accumulation;                  /* micro-batches a step */
    int64_t max_steps;                     /* 0: as `epochs` says */
    double epochs;
    bool shuffle;
    uint64_t seed;
    enum sft_schedule_kind schedule;
    double learning_rate, warmup_ratio;
    double least_rate;    /* cosine_with_min_lr: the lowest, as a share of the highest */
    int64_t warmup_steps; /* above 0: instead of the ratio */
    double beta1, beta2, epsilon, weight_decay;
    float max_grad_norm;             /* 0: no clipping */
    int64_t eval_steps, save_steps;  /* 0: never in between */
    int64_t save_total_limit;        /* checkpoints kept; 0: all */
    bool load_best;                  /* the result is the adapter of the lowest held-out loss */
    int64_t early_stopping_patience; /* evaluations without improvement; 0: none end the run */
    double early_stopping_threshold; /* what counts as one: run_state.h */
    bool skip_nan;                   /* a step without a finite loss is left out, not the end */
    struct sft_policy policy;
    bool exact_policy, trial;      /* step.h */
    uint64_t limit;                /* of the step block: step.h */
    struct sft_checkpoint output;  /* directory, base model, prefix; its spec is the one above */
    const char *model_identity;    /* of the container: what a resumed run must have again */
    const struct sft_facts *place; /* device, libraries: what only decides the last bits; or NULL */
    /* After each step and evaluation, may be NULL; `context` goes with them. */
    void (*on_step)(void *context, const struct sft_metrics_step *row, int64_t steps);
    void (*on_eval)(void *context, const struct sft_metrics_eval *row, int64_t steps);
    /* One sentence that a person should see. */
    void (*on_note)(void *context, const char *text);
    /* A checkpoint or the result was written; metrics.jsonl is as it should be. */
    int (*on_save)(void *context, const struct sft_run_state *state, struct sf_err *err);
    void *context;
    int64_t profile_steps; /* 0: none; else ops are timed in so many steps, the first left out */
    double matmul_rate;    /* FLOP/s of the machine's products, for the metrics; 0: not measured */
    uint64_t (*memory_used)(void *context); /* bytes, for the metrics; NULL: not told */
    /* Asked after each forward pass, before anything of it is used: are the files that are read through
     * mappings still what they were? NULL: there are none. `context` as above. */
    int (*check_mapped)(void *context, struct sf_err *err);
    bool (*interrupted)(void); /* asked between steps; NULL: never */
};

struct sft_trainer_result {
    struct sft_run_state state; /* of the whole run, earlier sessions included */
    int64_t begun;              /* steps that earlier sessions had done */
    bool interrupted;           /* before the last one */
    bool saved;                 /* the adapter stands in the output folder */
    bool stopped_early;         /* held-out losses did not improve any more */
    int64_t checkpoint;         /* step of the newest; -1: none */
    int64_t result_step;        /* whose adapter it is */
    int64_t tokens;             /* of this session */
    double seconds;
};

struct sft_trainer;

/* Checks the figures, emits the tapes. `config` is copied; what it points to outlives the trainer.
 */
int sft_trainer_open(struct sft_trainer **out, const struct sft_trainer_config *config,
                     struct sf_err *err);
void sft_trainer_close(struct sft_trainer *trainer); /* NULL is welcome */
/* Adds tapes, adapter and batches to a plan. */
void sft_trainer_plan(struct sft_plan *plan, const struct sft_trainer *trainer);
/* NULL unless steps were profiled: *steps of them, fewer than were asked for where the run was shorter. */
const struct sft_profile *sft_trainer_profile(const struct sft_trainer *trainer, int64_t *steps);
int64_t sft_trainer_steps(const struct sft_trainer *trainer);
int64_t sft_trainer_warmup(const struct sft_trainer *trainer);
struct sft_policy sft_trainer_policy(const struct sft_trainer *trainer);
/* Between open and run: finds the newest whole checkpoint in the output folder and compares what it
 * is of with this run. One that is damaged is passed over with a note; a folder without any begins
 * at the beginning, with a note. SF_EINVAL: another model, data, adapter or option, each named with
 * both values. A place that differs is a note. */
int sft_trainer_resume(struct sft_trainer *trainer, struct sf_err *err);
/* What decides what the run computes (run_facts.h). */
const struct sft_facts *sft_trainer_facts(const struct sft_trainer *trainer);
/* Where the run stands. */
const struct sft_run_state *sft_trainer_state(const struct sft_trainer *trainer);
/* False behind a resume of a run that is done: sft_trainer_run then needs no image (NULL). */
bool sft_trainer_has_work(const struct sft_trainer *trainer);
/* The whole run, over the weights of `image`. SF_ENUMERIC names the step whose loss or gradient is not finite; checkpoints that
 * were written before stay. Being interrupted is no error: the step is finished and saved. */
int sft_trainer_run(struct sft_trainer_result *out, struct sft_trainer *trainer,
                    const struct sft_image *image, struct sf_err *err);

#endif
