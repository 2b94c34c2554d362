#include "train/plan/memory_policy.h"

#include <string.h>

static const char *const recompute_name[] = {[SFT_RECOMPUTE_NONE] = "none",
                                             [SFT_RECOMPUTE_SELECTIVE] = "selective",
                                             [SFT_RECOMPUTE_FULL] = "full",
                                             [SFT_RECOMPUTE_AUTO] = "auto"};
enum { NAMES = sizeof recompute_name / sizeof recompute_name[0] };

/* The cheapest to make again first. */
static const enum sft_kind order[] = {SFT_ACTIVATION, SFT_ACTIVATION_MLP, SFT_ACTIVATION_MIDDLE,
                                      SFT_ACTIVATION_ATTENTION, SFT_ACTIVATION_EXPERTS};
_Static_assert(sizeof order / sizeof order[0] == SFT_ACTIVATION_KINDS, "every kind has its turn");

const char *sft_recompute_name(enum sft_recompute recompute)
{
    return (unsigned)recompute < NAMES ? recompute_name[recompute] : "?";
}

bool sft_recompute_from_name(enum sft_recompute *out, const char *name)
{
    for (int i = 0; i < NAMES; i++) {
        if (strcmp(recompute_name[i], name) == 0) {
            *out = (enum sft_recompute)i;
            return true;
        }
    }
    return false;
}

struct sft_policy sft_policy_of(enum sft_recompute recompute, int64_t layers)
{
    struct sft_policy policy = {{0}, false};
    if (recompute == SFT_RECOMPUTE_SELECTIVE)
        policy.again[SFT_ACTIVATION] = (int32_t)layers;
    for (int kind = 0; recompute == SFT_RECOMPUTE_FULL && kind < SFT_ACTIVATION_KINDS; kind++)
        policy.again[kind] = (int32_t)layers;
    return policy;
}

int64_t sft_policy_steps(int64_t layers, bool device)
{
    return SFT_ACTIVATION_KINDS * layers + 1 + device;
}

struct sft_policy sft_policy_step(int64_t step, int64_t layers, bool device)
{
    struct sft_policy policy = {{0}, false};
    if (device && step > layers) {
        policy.offload = true;
        step--;
    }
    for (int i = 0; i < SFT_ACTIVATION_KINDS && step > 0; i++, step -= layers)
        policy.again[order[i]] = (int32_t)(step < layers ? step : layers);
    return policy;
}

void sft_policy_apply(struct sft_tape *tape, struct sft_policy policy)
{
    for (int32_t i = 0; i < tape->buffers; i++) {
        struct sft_buffer *b = &tape->buffer[i];
        if (b->class == SFT_STEP && b->kind < SFT_ACTIVATION_KINDS && b->layer >= 0 &&
            b->layer < policy.again[b->kind])
            b->class = SFT_RECOMPUTE;
        if (b->class == SFT_STEP && b->kind == SFT_RESIDUAL)
            b->offload = policy.offload;
    }
}
