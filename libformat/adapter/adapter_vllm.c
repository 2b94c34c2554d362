#include "libformat/adapter/adapter_vllm.h"

#include <string.h>

static const char *part_refusal(enum sf_part part)
{
    if (sf_part_is_expert(part))
        return "routed experts are adapted: vLLM feeds their adapters other inputs than Hugging "
               "Face does and gives wrong numbers; merge the adapter (scout-convert merge)";
    if (part == SF_PART_ROUTER)
        return "the router is adapted, which vLLM's Llama 4 was not seen to apply; merge the "
               "adapter (scout-convert merge)";
    if (part == SF_PART_HEAD)
        return "lm_head is adapted, which vLLM's Llama 4 was not seen to apply; merge the adapter "
               "(scout-convert merge)";
    return NULL;
}

const char *sf_adapter_vllm_refusal(struct sf_arena *arena, const struct sf_adapter *adapter)
{
    enum { MOST_RANK = 512 };
    char role[SF_ROLE_TEXT];
    for (int64_t i = 0; i < adapter->modules; i++) {
        const struct sf_adapter_module *m = &adapter->module[i];
        const char *why = part_refusal(m->role.part);
        if (why)
            return why;
        if (m->rank != adapter->rank || m->alpha != adapter->alpha)
            return sf_arena_printf(arena,
                                   "%s has rank %lld and alpha %g, the adapter's own are %lld and "
                                   "%g: vLLM takes one of each for all modules",
                                   sf_role_format(role, m->role), (long long)m->rank, m->alpha,
                                   (long long)adapter->rank, adapter->alpha);
    }
    if (adapter->rank > MOST_RANK)
        return sf_arena_printf(arena, "rank %lld is above vLLM's largest max_lora_rank, %d",
                               (long long)adapter->rank, MOST_RANK);
    return NULL;
}

static bool turns(enum sf_part part)
{
    return part == SF_PART_Q || part == SF_PART_K;
}

bool sf_adapter_vllm_permutes(const struct sf_adapter *adapter)
{
    for (int64_t i = 0; i < adapter->modules; i++)
        if (turns(adapter->module[i].role.part))
            return true;
    return false;
}

int sf_adapter_vllm_permute(struct sf_adapter_module *m, struct sf_arena *arena, int64_t head_size,
                            struct sf_err *err)
{
    if (!turns(m->role.part))
        return SF_OK;
    if (head_size < 2 || head_size % 2 != 0 || m->out % head_size != 0)
        return sf_fail(err, SF_EINVAL, "%lld rows are no whole heads of %lld", (long long)m->out,
                       (long long)head_size);
    float *b = sf_arena_array(arena, (uint64_t)(m->out * m->rank), sizeof *b);
    if (!b)
        return sf_fail(err, SF_ENOMEM, "no memory for rows of q and k");
    int64_t half = head_size / 2;
    for (int64_t row = 0; row < m->out; row++) {
        int64_t in_head = row % head_size,
                from = row - in_head + 2 * (in_head % half) + in_head / half;
        memcpy(b + row * m->rank, m->b + from * m->rank, (size_t)m->rank * sizeof *b);
    }
    m->b = b;
    return SF_OK;
}
