#include "train/profile.h"

#include <stdio.h>

int sft_profile_open(struct sft_profile *out, struct sf_arena *arena, const struct sk_ops *ops,
                     struct sk_ctx *ctx, int64_t nodes, struct sf_err *err)
{
    *out = (struct sft_profile){.ops = ops};
    out->interval = sf_arena_array(arena, (uint64_t)nodes + 1, sizeof *out->interval);
    if (!out->interval)
        return sf_fail(err, SF_ENOMEM, "no memory for a profile of %lld nodes", (long long)nodes);
    return ops->stopwatch->open(&out->watch, ctx, nodes + 1, err);
}

void sft_profile_close(struct sft_profile *profile)
{
    if (profile->watch)
        profile->ops->stopwatch->close(profile->watch);
    profile->watch = NULL;
}

static enum sft_phase phase_of(const struct sft_node *node)
{
    return node->again ? SFT_AGAIN : node->backward ? SFT_BACKWARD : SFT_FORWARD;
}

const char *sft_phase_name(enum sft_phase phase)
{
    static const char *const name[SFT_PHASES] = {"forward", "again", "backward"};
    return name[phase];
}

int sft_profile_mark(struct sft_profile *profile, int64_t index, const struct sft_node *node,
                     struct sf_err *err)
{
    char next[64];
    snprintf(next, sizeof next, "%s %s", sft_phase_name(phase_of(node)),
             sk_op_info(node->op)->name);
    return profile->ops->stopwatch->mark(profile->watch, index, next, err);
}

int sft_profile_add(struct sft_profile *profile, const struct sft_tape *tape, int32_t first,
                    int32_t count, struct sf_err *err)
{
    int code = profile->ops->stopwatch->mark(profile->watch, count, NULL, err);
    if (!code)
        code = profile->ops->stopwatch->read(profile->interval, profile->watch, (int64_t)count + 1,
                                             err);
    for (int32_t i = 0; !code && i < count; i++) {
        const struct sft_node *node = &tape->node[first + i];
        enum sft_phase phase = phase_of(node);
        profile->seconds[phase][node->op] += profile->interval[i];
        profile->calls[phase][node->op]++;
    }
    return code;
}
