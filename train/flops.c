#include "train/flops.h"

#include "kernels/head_loss.h"

/* Numbers of a weight that one token meets; of experts, of one of them. */
static double weight(const struct sf_model_spec *spec, enum sf_part part, int32_t layer)
{
    struct sf_shape shape = sf_spec_shape(spec, part);
    bool there = sf_spec_has(spec, part, layer) && shape.rank == 2;
    return there ? (double)shape.dim[0] * (double)shape.dim[1] : 0;
}

static double layer_weights(const struct sf_model_spec *spec, int32_t layer)
{
    static const enum sf_part parts[] = {
        SF_PART_Q,           SF_PART_K,          SF_PART_V,           SF_PART_O,
        SF_PART_SHARED_GATE, SF_PART_SHARED_UP,  SF_PART_SHARED_DOWN, SF_PART_DENSE_GATE,
        SF_PART_DENSE_UP,    SF_PART_DENSE_DOWN, SF_PART_EXPERT_GATE, SF_PART_EXPERT_UP,
        SF_PART_EXPERT_DOWN, SF_PART_ROUTER};
    double sum = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        sum += weight(spec, parts[i], layer);
    return sum;
}

/* Three passes; the head's over the targets alone, as the head's own. */
static double adapter_flops(const struct sft_lora *lora, double rows, double targets)
{
    double sum = 0;
    for (int64_t i = 0; lora && i < lora->modules; i++) {
        const struct sft_lora_module *m = &lora->module[i];
        sum += 6 * (m->role.part == SF_PART_HEAD ? targets : rows) * (double)m->rank *
               (double)(m->in + m->out);
    }
    return sum;
}

/* Pairs of a query and a key that it sees, in documents cut into chunks. 0: not cut. */
static double pairs(const struct sft_batch *batch, int64_t chunk)
{
    double sum = 0;
    for (int64_t d = 0; d < batch->documents; d++) {
        int64_t n = batch->document[d + 1] - batch->document[d];
        int64_t size = chunk > 0 && chunk < n ? chunk : n;
        int64_t whole = size ? n / size : 0, rest = size ? n % size : 0;
        sum += (double)whole * (double)size * (double)(size + 1) / 2;
        sum += (double)rest * (double)(rest + 1) / 2;
    }
    return sum;
}

static int64_t targets(const struct sft_batch *batch)
{
    int64_t count = 0;
    for (int64_t row = 0; row < batch->rows; row++)
        count += batch->targets[row] != SK_IGNORE_INDEX;
    return count;
}

double sft_training_flops(const struct sf_model_spec *spec, const struct sft_lora *lora,
                          const struct sft_batch *batch)
{
    double rows = (double)batch->rows, width = (double)(spec->heads * spec->head_size);
    double whole = pairs(batch, 0), cut = pairs(batch, spec->attention_chunk), sum = 0;
    for (int32_t layer = 0; layer < spec->layers; layer++) {
        sum += 4 * rows * layer_weights(spec, layer);
        sum += 12 * width * (spec->layer[layer].chunked ? cut : whole);
    }
    double learnt = (double)targets(batch);
    sum += 4 * learnt * (double)spec->hidden * (double)spec->vocabulary;
    return sum + adapter_flops(lora, rows, learnt);
}
