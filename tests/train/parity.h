/* parity.h -- our probe against what transformers and PEFT computed (tests/golden/llama4-tiny).
 *
 * A preset's checkpoint, opened for training; `base` (no adapter), `lora_linear` or `lora_experts`
 * (its PEFT adapters, with gradients); the probe's tensors compared with the reference's, name by name. */
#ifndef SCOUT_TESTS_TRAIN_PARITY_H
#define SCOUT_TESTS_TRAIN_PARITY_H

#include "libformat/hf/safetensors.h"
#include "train/backend.h"
#include "train/probe.h"

struct parity {
    struct sf_arena arena;
    struct sf_map *map; /* the checkpoint, converted with every matrix kept in bf16 */
    struct sf_safetensors *base, *reference; /* base has the inputs */
    struct sf_model_spec spec;
    struct sft_image *image, *straight; /* straight: as the container has them */
    struct sft_lora lora;
    bool adapted;      /* lora_linear */
    bool swap_experts; /* set before parity_open: experts 0 and 1 of every layer change places */
    enum sft_device_kind where; /* set before parity_open; AUTO: the processor */
    struct sft_backend *backend;
};

void parity_open(struct parity *p, const char *preset, const char *variant, int threads);
void parity_close(struct parity *p);
/* Runs the probe over `ops` (the backend's, or those changed); labels NULL: the reference's. */
void parity_run(struct sft_probe *out, struct parity *p, const struct sk_ops *ops,
                const int32_t *labels);
const int32_t *parity_ints(const struct parity *p, const char *name);

enum parity_group {
    PARITY_HIDDEN,
    PARITY_ROUTER,
    PARITY_LOGITS,
    PARITY_LOSS,
    PARITY_GRAD,
    PARITY_GROUPS
};
struct parity_result {
    double worst[PARITY_GROUPS]; /* relative error, worst of the group */
    const char *name[PARITY_GROUPS];
    int64_t compared;
    double gradients; /* relative error of all gradients as one vector */
    /* Tokens that went to another expert than the reference's, and how close the widest of these
     * choices was: the reference's lead over our expert, relative to its largest logit. */
    int64_t flips;
    double widest_flip;
};
/* An expert's own gradients are left out where a token came to it or left it: they are of other tokens.
 * Every tensor of the reference but inv_freq, input_ids and labels must be among ours, same shape.
 */
void parity_compare(struct parity_result *out, const struct parity *p,
                    const struct sft_probe *probe);
void parity_print(const char *what, const struct parity_result *result);
extern const char *const parity_group_name[PARITY_GROUPS];

#endif
