/* probe.h -- look inside the model: run [B, S] tokens and name everything that can be compared.
 *
 * Names and shapes, the same as our reference files have: input_ids, labels [B, S],
 * hidden.<layer> [B, S, H], router.<layer> [B*S, E], logits [B, S, V], token_loss [B, S-1], loss
 * [1], and with gradients grad.<PEFT key>. Labels are shifted here: position t is scored on
 * labels[t+1]. The tensors are copies in the caller's arena; writing them is the caller's business.
 */
#ifndef SCOUT_TRAIN_PROBE_H
#define SCOUT_TRAIN_PROBE_H

#include "train/step.h"

struct sft_probe_config {
    const struct sf_model_spec *spec;
    const struct sft_image *image;
    struct sft_lora *lora;         /* NULL: the bare model. Allocated for training if `gradients` */
    enum sf_adapter_prefix prefix; /* of the gradients' keys */
    enum sf_adapter_layout layout; /* of the experts' */
    const struct sk_ops *ops;
    struct sk_ctx *ctx;
    bool gradients;
};

struct sft_probe_tensor {
    const char *name;
    struct sf_tensor tensor;
};

struct sft_probe {
    struct sft_probe_tensor *tensor; /* sorted as they are listed above */
    int64_t tensors;
    double loss; /* mean over targets */
};

/* ids, labels: [sequences, length], labels[..] SK_IGNORE_INDEX or a token. */
int sft_probe_run(struct sft_probe *out, struct sf_arena *arena,
                  const struct sft_probe_config *config, const int32_t *ids, const int32_t *labels,
                  int64_t sequences, int64_t length, struct sf_err *err);

#endif
