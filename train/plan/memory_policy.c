#include "train/plan/memory_policy.h"

#include <string.h>

static const char *const policy_name[] = {
    [SFT_POLICY_NONE] = "none", [SFT_POLICY_LAYERS] = "layers"};
enum { POLICY_COUNT = sizeof policy_name / sizeof policy_name[0] };

const char *sft_policy_name(enum sft_policy policy)
{
    return (unsigned)policy < POLICY_COUNT ? policy_name[policy] : "?";
}

bool sft_policy_from_name(enum sft_policy *out, const char *name)
{
    for (int i = 0; i < POLICY_COUNT; i++) {
        if (strcmp(policy_name[i], name) == 0) {
            *out = (enum sft_policy)i;
            return true;
        }
    }
    return false;
}

void sft_policy_apply(struct sft_tape *tape, enum sft_policy policy)
{
    if (policy == SFT_POLICY_NONE)
        return;
    for (int32_t i = 0; i < tape->buffers; i++) {
        struct sft_buffer *b = &tape->buffer[i];
        if (b->class == SFT_STEP && b->kind == SFT_ACTIVATION && b->layer >= 0)
            b->class = SFT_RECOMPUTE;
    }
}
