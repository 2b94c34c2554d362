#include "train/plan/plan.h"

void sft_plan_weights(struct sft_plan *plan, const struct sf_map *map)
{
    int64_t extents = sf_map_info(map)->extents;
    for (int64_t i = 0; i < extents; i++) {
        const struct sf_extent *extent = sf_map_extent(map, i);
        plan->weights[extent->kind] += extent->bytes;
    }
    plan->resident_bytes = plan->weights[SF_EXTENT_DENSE] + plan->weights[SF_EXTENT_EXPERT] +
                           plan->weights[SF_EXTENT_HEAD] + plan->weights[SF_EXTENT_SHARED];
    plan->embedding_bytes = plan->weights[SF_EXTENT_EMBEDDING];
    plan->unused_bytes = plan->weights[SF_EXTENT_UNUSED];
}

void sft_plan_adapter(struct sft_plan *plan, uint64_t parameter_bytes, uint64_t moment_bytes,
                      bool training)
{
    plan->adapter_parameter_bytes = parameter_bytes;
    plan->adapter_gradient_bytes = training ? parameter_bytes : 0;
    plan->adapter_moment_bytes = training ? moment_bytes : 0;
}

static uint64_t packed_bytes(const struct sft_buffer *buffer)
{
    return (buffer->bytes + SFT_BLOCK_ALIGN - 1) / SFT_BLOCK_ALIGN * SFT_BLOCK_ALIGN;
}

/* Keeps the list of the largest sorted; among equals the earlier buffer stays. */
static void add_top(struct sft_plan *plan, const struct sft_buffer *buffer)
{
    struct sft_plan_buffer entry = {buffer->name, buffer->kind, packed_bytes(buffer)};
    int64_t at = plan->top_count;
    if (at == SFT_PLAN_TOP && plan->top[--at].bytes >= entry.bytes)
        return;
    if (plan->top_count < SFT_PLAN_TOP)
        plan->top_count++;
    for (; at > 0 && plan->top[at - 1].bytes < entry.bytes; at--)
        plan->top[at] = plan->top[at - 1];
    plan->top[at] = entry;
}

static void describe_peak(struct sft_plan *plan, const struct sft_tape *tape)
{
    plan->top_count = 0;
    for (int kind = 0; kind < SFT_KIND_COUNT; kind++)
        plan->peak_kind[kind] = 0;
    for (int32_t i = 0; i < tape->buffers; i++) {
        const struct sft_buffer *b = &tape->buffer[i];
        if (!sft_class_in_step(b->class) || b->birth < 0 || b->birth > tape->peak ||
            b->death < tape->peak)
            continue;
        plan->peak_kind[b->kind] += packed_bytes(b);
        add_top(plan, b);
    }
    plan->peak_op = tape->peak >= 0 ? sk_op_info(tape->node[tape->peak].op)->name : "nothing";
}

void sft_plan_tape(struct sft_plan *plan, const struct sft_tape *tape)
{
    plan->tapes++;
    if (plan->tapes > 1 && tape->step_bytes <= plan->step_bytes)
        return;
    plan->step_bytes = tape->step_bytes;
    plan->step_live_bytes = tape->live_bytes;
    plan->nodes = tape->nodes;
    plan->nodes_again = 0;
    for (int32_t i = 0; i < tape->nodes; i++)
        plan->nodes_again += tape->node[i].again;
    describe_peak(plan, tape);
}

void sft_plan_total(struct sft_plan *plan)
{
    plan->total_bytes = plan->resident_bytes + plan->embedding_bytes +
                        plan->adapter_parameter_bytes + plan->adapter_gradient_bytes +
                        plan->adapter_moment_bytes + plan->step_bytes + plan->host_bytes;
}
