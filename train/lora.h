/* lora.h -- the adapter: A [rank, in] and B [out, rank] beside every targeted matrix, what the
 * optimizer keeps for them, and where all that lies.
 *
 * Planning measures, one allocation follows, pointers are dealt. The block is
 *     parameters | gradients | moments: m | v, or codes of m | of v | scales of m | of v
 * `count` numbers each, modules in the same places in all, so that norm, clipping and AdamW run over
 * flat arrays. Gaps (tensors start on blocks of 256 numbers, as 8-bit moments go) hold zeros and
 * stay zero. For inference only the parameters are there. Modules are ordered by layer,
 * then part, lm_head behind them all. The block is the back end's memory. `parameters` is host memory: the block itself on the
 * CPU, else a copy that sft_lora_push sends and sft_lora_pull fetches. A module has groups of equal shape, one for linear modules, one per expert for routed
 * experts, A [groups][rank, in], B [groups][out, rank].
 *
 * Life: the module list is in the caller's arena, the block is owned: sft_lora_free. */
#ifndef SCOUT_TRAIN_LORA_H
#define SCOUT_TRAIN_LORA_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/adamw_8bit.h"
#include "kernels/dropout.h"
#include "kernels/ops.h"
#include "libformat/adapter/adapter_file.h"
#include "libformat/adapter/adapter_pattern.h"
#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/tensor/model_spec.h"

struct sft_lora_config {
    const char *const *target; /* PEFT's list: the last name(s) of a module's path, "q_proj" */
    int64_t targets;
    const char *const *parameter; /* PEFT's target_parameters: "experts.gate_up_proj" */
    int64_t parameters;
    int64_t rank;
    double alpha;
    bool rslora; /* scale alpha / sqrt(rank) instead of alpha / rank */
    /* PEFT's rank_pattern and alpha_pattern: what modules have whose path ends so */
    const struct sf_adapter_pattern *rank_pattern, *alpha_pattern;
    int64_t rank_patterns, alpha_patterns;
};

/* How the moments are kept: float32, or a byte each (kernels/adamw_8bit.h). */
enum sft_optim { SFT_ADAMW, SFT_ADAMW_8BIT };
/* "adamw_torch", "adamw_8bit" (also "adamw_bnb_8bit"). */
bool sft_optim_from_name(enum sft_optim *out, const char *name);

struct sft_lora_module {
    struct sf_role role; /* as adapter_file.h names it; expert -1 */
    int64_t groups, rank, in, out;
    double alpha, scale; /* scale: what rank and alpha make */
    int64_t a, b;        /* elements into parameters; the same in gradients and moments */
};

struct sft_lora {
    int64_t modules;
    struct sft_lora_module *module;
    int64_t count;                 /* elements of one block part, gaps included */
    int64_t trained;               /* elements of A and B alone */
    struct sft_lora_config config; /* of an adapter that was read: targets NULL */
    double dropout;                /* of A's input in training; sft_lora_drop sets it */
    struct sk_dropout draw;        /* what the ops see of it; `number` is that of the micro-batch */
    enum sft_optim optim;          /* SFT_ADAMW; may be set until anything is measured */
    double b_rate; /* LoRA+: B's learning rate over A's; 0 or 1: the same. Set as optim is */
    bool training; /* the block holds gradients and moments too */
    const struct sk_ops *ops; /* whose memory the block is; NULL until allocated */
    struct sk_ctx *ctx;
    void *block;       /* NULL until allocated */
    float *parameters; /* [count], host memory */
    /* [(layers + 1) * SF_PART_COUNT] module number + 1; 0 where there is none */
    int32_t *index;
};

/* Lists the modules that `config` targets in `spec`; strings stay the caller's.
 * SF_EINVAL: a target, parameter or pattern that matches nothing (named), none at all, a rank that
 * is no number from 1 to 65536. */
int sft_lora_plan(struct sft_lora *out, struct sf_arena *arena, const struct sf_model_spec *spec,
                  const struct sft_lora_config *config, struct sf_err *err);
/* Lists the modules of an adapter that was read, with its ranks and scales. */
int sft_lora_plan_adapter(struct sft_lora *out, struct sf_arena *arena,
                          const struct sf_model_spec *spec, const struct sf_adapter *adapter,
                          struct sf_err *err);
/* Training drops numbers of A's inputs, by `key` (kernels/dropout.h); before anything is measured.
 * SF_EINVAL: no probability from 0 to below 1; SF_EUNSUPPORTED: with routed experts or the router, for
 * whose LoRA PEFT has no dropout. */
int sft_lora_drop(struct sft_lora *lora, double probability, uint64_t key, struct sf_err *err);
/* LoRA+ (Hayou, Ghosh, Yu 2024): what b_rate stands for. */
static inline double sft_lora_b_rate(const struct sft_lora *lora)
{
    return lora->b_rate > 0 ? lora->b_rate : 1;
}
/* Bytes of the block: parameters, and when training gradients and moments. */
uint64_t sft_lora_bytes(const struct sft_lora *lora, bool training);
/* What the optimizer keeps, in bytes from the block's start; scales: of 8-bit codes. */
struct sft_moments {
    uint64_t m, v, m_scale, v_scale;
    uint64_t code_bytes, scale_bytes; /* of each of m and v, of each of their scales */
    uint64_t bytes;                   /* of all */
};
struct sft_moments sft_lora_moments(const struct sft_lora *lora);
/* Allocates, zeroed. ops and ctx outlive the adapter. */
int sft_lora_allocate(struct sft_lora *lora, bool training, const struct sk_ops *ops,
                      struct sk_ctx *ctx, struct sf_err *err);
void sft_lora_free(struct sft_lora *lora);
/* Parameters from host memory into the block, and back. */
int sft_lora_push(struct sft_lora *lora, struct sf_err *err);
int sft_lora_pull(struct sft_lora *lora, struct sf_err *err);

enum sft_lora_state { SFT_LORA_PARAMETERS, SFT_LORA_GRADIENTS, SFT_LORA_M, SFT_LORA_V };
/* [count] float32 where ops work: for the host to look at only where that is the heap. M and V: where
 * they are float32. */
static inline float *sft_lora_state(const struct sft_lora *lora, enum sft_lora_state state)
{
    return (float *)lora->block + state * lora->count;
}
/* Elements first .. first + count of one part of the block, into host memory. */
int sft_lora_read(float *out, const struct sft_lora *lora, enum sft_lora_state state, int64_t first,
                  int64_t count, struct sf_err *err);

/* Both leave the block to sft_lora_push. A uniform in +-1/sqrt(in), B zero, as PEFT starts; the same for the same seed on any machine. */
void sft_lora_init(struct sft_lora *lora, uint64_t seed);
/* A and B from an adapter. SF_EINVAL unless its modules are exactly ours, in shape as well. */
int sft_lora_load(struct sft_lora *lora, const struct sf_adapter *adapter, struct sf_err *err);
/* Our modules as an adapter whose tensors borrow from the block; prefix, base_model: the caller's.
 */
int sft_lora_export(struct sf_adapter *out, const struct sft_lora *lora, struct sf_arena *arena,
                    struct sf_err *err);

/* Elements that `count` numbers take: a tensor starts on a block of 8-bit moments. */
static inline int64_t sft_lora_aligned(int64_t count)
{
    return (count + SK_ADAMW_BLOCK - 1) / SK_ADAMW_BLOCK * SK_ADAMW_BLOCK;
}
/* Where `index` has a role. */
static inline int64_t sft_lora_slot(struct sf_role role)
{
    return (int64_t)(role.layer + 1) * SF_PART_COUNT + role.part;
}
/* NULL when `lora` is NULL or has no module there. */
const struct sft_lora_module *sft_lora_find(const struct sft_lora *lora, struct sf_role role);
static inline int64_t sft_lora_a_count(const struct sft_lora_module *m)
{
    return m->groups * m->rank * m->in;
}
static inline int64_t sft_lora_b_count(const struct sft_lora_module *m)
{
    return m->groups * m->out * m->rank;
}

#endif
