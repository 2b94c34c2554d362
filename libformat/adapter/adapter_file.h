/* adapter_file.h -- PEFT LoRA adapters on disk: adapter_model.safetensors + adapter_config.json.
 *
 * Knows PEFT's key names and config fields, for both classes of Llama 4 (the prefix differs), and
 * nothing of training. Linear modules now; `target_parameters` (routed experts) later. */
#ifndef SCOUT_LIBFORMAT_ADAPTER_ADAPTER_FILE_H
#define SCOUT_LIBFORMAT_ADAPTER_ADAPTER_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/tensor/model_spec.h"

enum sf_adapter_prefix {
    SF_ADAPTER_TEXT,      /* base_model.model.model.layers... */
    SF_ADAPTER_MULTIMODAL /* base_model.model.language_model.model.layers... */
};

/* One adapted matrix: delta W = scale * B A. */
struct sf_adapter_module {
    struct sf_role role;
    int64_t rank, in, out;
    double scale;   /* alpha / rank, or alpha / sqrt(rank) */
    const float *a; /* [rank, in] */
    const float *b; /* [out, rank] */
};

struct sf_adapter {
    enum sf_adapter_prefix prefix;
    int64_t rank;
    double alpha;
    bool rslora;
    double dropout;
    const char *base_model; /* id of the base model */
    int64_t modules;
    struct sf_adapter_module *module;
};

/* "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in `arena`. which: 'A' or 'B'.
 */
char *sf_adapter_key(struct sf_arena *arena, enum sf_adapter_prefix prefix, struct sf_role role,
                     char which);
/* "q_proj", "shared_expert.gate_proj", ...: the last names of the module's path; NULL if the part
 * is not one PEFT can wrap as a linear module. */
const char *sf_adapter_module_name(enum sf_part part);

/* Reads a PEFT adapter; tensors are converted to float32 into `arena`. Every key must be
 * understood, every module complete (A and B), every shape right for `spec`: nothing is skipped. */
int sf_adapter_read(struct sf_adapter *out, struct sf_arena *arena, const char *directory,
                    const struct sf_model_spec *spec, struct sf_err *err);
/* Writes both files, each by temporary name, fsync, rename; creates the directory. target_modules
 * matches the adapter's modules and nothing else in a model of `spec`: a list of names for the text
 * class, a full-match pattern that leaves the vision tower alone for the multimodal class. */
int sf_adapter_write(const char *directory, const struct sf_adapter *adapter,
                     const struct sf_model_spec *spec, struct sf_err *err);

#endif
