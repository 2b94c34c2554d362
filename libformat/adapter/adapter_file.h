/* adapter_file.h -- PEFT LoRA adapters on disk: adapter_model.safetensors + adapter_config.json.
 *
 * Knows PEFT's key names and config fields, for both classes of Llama 4 (the prefix differs), and
 * nothing of training. In memory every module has our orientation, whatever layout its file had. */
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

/* How PEFT writes routed experts, which are parameters [experts, in, out] and no modules: which
 * axis it took for "in". */
enum sf_adapter_layout {
    SF_ADAPTER_SWAPPED, /* PEFT >= 0.19.1 with stock transformers: A is [experts * rank, out] */
    SF_ADAPTER_NATURAL  /* PEFT 0.17.0 to 0.19.0, and Unsloth: A is [experts * rank, in] */
};

/* The role of the routed experts' gate_up_proj: {SF_ADAPTER_GATE_UP, layer, -1}. One A, shared by
 * gate and up; B has the rows of gate, then those of up: out = 2 * expert_width. Their down_proj is
 * {SF_PART_EXPERT_DOWN, layer, -1}. */
#define SF_ADAPTER_GATE_UP SF_PART_EXPERT_GATE

/* One adapted matrix, or one of every expert: delta W[g] = scale * B[g] A[g]. */
struct sf_adapter_module {
    struct sf_role role; /* expert -1 */
    int64_t groups;      /* 1 for linear modules, the number of experts for routed ones */
    int64_t rank, in, out;
    double alpha;
    double scale;   /* alpha / rank, or alpha / sqrt(rank) */
    const float *a; /* [groups][rank, in] */
    const float *b; /* [groups][out, rank] */
};

struct sf_adapter {
    enum sf_adapter_prefix prefix;
    enum sf_adapter_layout layout; /* of routed experts: as they were read, or will be written */
    int64_t rank;                  /* what modules have that no pattern names */
    double alpha;
    bool rslora;    /* of all modules */
    bool for_vllm;  /* rows of q and k in vLLM's order: nobody else can use it (adapter_vllm.h) */
    double dropout; /* of linear modules; where there are others, PEFT takes 0 only and gets it */
    const char *base_model; /* id of the base model */
    int64_t modules;
    struct sf_adapter_module *module;
};

/* "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in `arena`. which: 'A' or 'B'.
 * Of routed experts: where both their parameters are adapted. */
char *sf_adapter_key(struct sf_arena *arena, enum sf_adapter_prefix prefix, struct sf_role role,
                     char which);
/* The same for a module of `adapter`, whatever else that adapts. */
char *sf_adapter_module_key(struct sf_arena *arena, const struct sf_adapter *adapter,
                            const struct sf_adapter_module *module, char which);
/* Our A or B of a module as a file of `adapter` would have it: name, shape, numbers, in `arena`. */
struct sf_adapter_tensor {
    char *key;
    struct sf_shape shape;
    float *data;
};
int sf_adapter_tensor(struct sf_adapter_tensor *out, struct sf_arena *arena,
                      const struct sf_adapter *adapter, const struct sf_adapter_module *module,
                      char ours, struct sf_err *err);
/* "model.layers.0.self_attn.q_proj", "model.layers.0.feed_forward.experts.gate_up_proj": what PEFT
 * matches targets and patterns with; "language_model." before it for the multimodal class. */
char *sf_adapter_path(struct sf_arena *arena, enum sf_adapter_prefix prefix, struct sf_role role);
/* PEFT adapts it as a parameter (target_parameters), not as a linear module: routed experts, and
 * the router, whose module gives two results where a linear one gives one. */
bool sf_adapter_is_parameter(enum sf_part part);
/* What a name among target_modules, or among target_parameters, has to end: the path, and behind the
 * router's ".weight". */
char *sf_adapter_target(struct sf_arena *arena, enum sf_adapter_prefix prefix, struct sf_role role);
/* "q_proj", "shared_expert.gate_proj", "experts.gate_up_proj", "router", "lm_head": the last names
 * of the path; NULL if the part is not one that PEFT can adapt. */
const char *sf_adapter_module_name(enum sf_part part);
/* [out, in] of one group of that part, and the groups. */
struct sf_shape sf_adapter_shape(const struct sf_model_spec *spec, enum sf_part part);
int64_t sf_adapter_groups(const struct sf_model_spec *spec, enum sf_part part);
/* alpha / rank, or alpha / sqrt(rank). */
double sf_adapter_scale(double alpha, int64_t rank, bool rslora);
/* NULL if the adapter has none there. */
const struct sf_adapter_module *sf_adapter_find(const struct sf_adapter *adapter,
                                                struct sf_role role);

/* Reads a PEFT adapter; tensors are converted to float32 into `arena`. Every key must be
 * understood, every module complete (A and B), every shape right for `spec`: nothing is skipped.
 * adapter_source.h reads one module at a time, and without a spec. */
int sf_adapter_read(struct sf_adapter *out, struct sf_arena *arena, const char *directory,
                    const struct sf_model_spec *spec, struct sf_err *err);
/* Who has the base says whether a copy of one of its weights, as PEFT leaves them beside an adapter of
 * lm_head (adapter_source.h), is that (convert/base_copy.h). */
struct sf_adapter_copy;
struct sf_adapter_base {
    int (*check)(const void *context, const struct sf_adapter_copy *copy, struct sf_err *err);
    const void *context;
};
/* The same; an adapter whose copies are `base`'s is read as well, without them. */
int sf_adapter_read_on(struct sf_adapter *out, struct sf_arena *arena, const char *directory,
                       const struct sf_model_spec *spec, const struct sf_adapter_base *base,
                       struct sf_err *err);
/* Writes both files, each by temporary name, fsync, rename; creates the directory. An older adapter
 * there loses its config first if that differs: no reader ever meets a mixture. target_modules
 * matches the adapter's modules and nothing else in a model of `spec`: a list of names for the text
 * class, a full-match pattern that leaves the vision tower alone for the multimodal class. Routed
 * experts and the router go to target_parameters. Ranks and alphas that differ from the adapter's
 * own become patterns. spec NULL: not known, every module is named with its whole path.
 * Memory: one tensor beside what the caller holds. */
int sf_adapter_write(const char *directory, const struct sf_adapter *adapter,
                     const struct sf_model_spec *spec, struct sf_err *err);

#endif
