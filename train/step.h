/* step.h -- runs training steps: the tapes of a run, the step block they share, the op table.
 *
 * Open emits and packs one tape per mode and shape (host memory only for the tapes); allocate takes
 * the step block and the host block, sized for the largest; from then on nothing is allocated. A step is a list of
 * micro-batches whose loss is normalised by the number of targets of them all, gradients accumulate
 * in the adapter block, and an update follows:
 *     zero_gradients, forward_backward, update
 * Threads: one caller at a time; the ops use ctx->threads. */
#ifndef SCOUT_TRAIN_STEP_H
#define SCOUT_TRAIN_STEP_H

#include "kernels/ops.h"
#include "train/image.h"
#include "train/lora.h"
#include "train/model.h"
#include "train/profile.h"
#include "train/plan/plan.h"
#include "train/plan/memory_policy.h"

/* One micro-batch: rows of documents, end to end. Borrowed during a call. */
struct sft_batch {
    int64_t rows, documents;
    const int32_t *ids;      /* [rows] */
    const int32_t *targets;  /* [rows]: the token that follows, or SK_IGNORE_INDEX */
    const int32_t *document; /* [documents + 1]: first row of each, document[documents] = rows */
};

struct sft_program { /* a tape that the run will want */
    struct sft_shape shape;
    enum sft_mode mode;
};

struct sft_step_config {
    const struct sf_model_spec *spec;
    struct sft_lora *lora; /* NULL: the bare model; must be allocated before the first run */
    const struct sk_ops *ops;
    struct sk_ctx *ctx;
    struct sft_policy policy; /* what is made again in the backward */
    bool exact_policy;        /* no more than that, even where a limit asks for it */
    bool trial;     /* opened to see whether it fits: any block within the limit is small enough */
    uint64_t limit; /* most bytes of the step block; 0: any. See sft_step_open */
    const struct sft_program *program; /* [programs] */
    int64_t programs;
    double beta1, beta2, epsilon, weight_decay; /* AdamW */
    float max_grad_norm;                        /* 0: no clipping */
};

struct sft_step;

struct sft_loss {
    double sum;      /* over targets */
    int64_t targets; /* targets that count */
};

/* Emits and packs; the step block is not allocated yet. Everything in `config` outlives the step.
 * With a limit, more is made again than the policy asks for until the block fits: as little as
 * possible. SF_ENOMEM with both sizes when it never does, or the policy is exact and does not. */
int sft_step_open(struct sft_step **out, const struct sft_step_config *config, struct sf_err *err);
void sft_step_close(struct sft_step *step); /* NULL is welcome */
/* Adds this step's tapes and its adapter to a plan. */
void sft_step_plan(struct sft_plan *plan, const struct sft_step *step);
/* The policy that was taken. */
struct sft_policy sft_step_policy(const struct sft_step *step);
/* The blocks; from then on steps run, over the weights of `image`, which outlives the step. */
int sft_step_allocate(struct sft_step *step, const struct sft_image *image, struct sf_err *err);
/* Of the step block, and of the host block beside it. */
uint64_t sft_step_bytes(const struct sft_step *step);
uint64_t sft_step_host_bytes(const struct sft_step *step);

/* A batch runs on a tape of its mode whose shape is its own or, if there is none, on the smallest
 * that holds it: rows are filled up with ignored ones, in documents of their own. SF_EINVAL when no
 * tape holds it (the message has both shapes), a target or id is out of range, or documents are
 * not in order. */
int sft_step_zero_gradients(struct sft_step *step, struct sf_err *err);
/* gradients += those of (sum of losses) / (targets of all batches). SF_EINVAL without targets. */
int sft_step_forward_backward(struct sft_loss *out, struct sft_step *step,
                              const struct sft_batch *batch, int64_t count, struct sf_err *err);
/* Clips and applies AdamW with step number `number` (from 1); B's learning rate is lora->b_rate as
 * large. *norm: before clipping.
 * SF_ENUMERIC: the norm is not finite; nothing was changed. */
int sft_step_update(float *norm, struct sft_step *step, double learning_rate, int64_t number,
                    struct sf_err *err);
/* Adds the batch's loss to *out. */
int sft_step_eval(struct sft_loss *out, struct sft_step *step, const struct sft_batch *batch,
                  struct sf_err *err);
/* Runs one batch in a PROBE mode, gradient scale 1 / targets; then ports can be read until the next
 * run. */
int sft_step_probe(struct sft_loss *out, struct sft_step *step, const struct sft_batch *batch,
                   enum sft_mode mode, struct sf_err *err);
/* How evenly the last tape's rows went to the experts: rows of the fullest over the mean, per layer;
 * the mean and the largest over the layers. 0 without experts. */
struct sft_expert_load {
    double mean, most;
};
struct sft_expert_load sft_step_expert_load(const struct sft_step *step);

/* Asked behind every node of the runs that follow, with the tape's buffers as they stand then; what
 * it returns ends the run unless it is SF_OK. NULL: nobody. For trouble.h. */
typedef int (*sft_node_watch)(void *context, const struct sft_step *step,
                              const struct sft_tape *tape, const struct sft_node *node,
                              struct sf_err *err);
void sft_step_watch(struct sft_step *step, sft_node_watch watch, void *context);

/* Where the time goes. Between the two calls every op is timed. */
int sft_step_profile(struct sft_step *step, struct sf_err *err);
void sft_step_profile_end(struct sft_step *step);
const struct sft_profile *sft_step_profiled(const struct sft_step *step);
/* The ports of the tape that runs or ran last, and the first bytes of a buffer of it. */
const struct sft_ports *sft_step_ports(const struct sft_step *step);
int sft_step_read(void *out, const struct sft_step *step, int32_t buffer, uint64_t bytes,
                  struct sf_err *err);
uint64_t sft_step_element(const struct sft_step *step); /* bytes of an activation's element */
/* `count` activations, as float32. */
int sft_step_read_activations(float *out, const struct sft_step *step, int32_t buffer,
                              int64_t count, struct sf_err *err);

#endif
