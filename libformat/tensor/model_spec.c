#include "libformat/tensor/model_spec.h"

#include <math.h>
#include <string.h>

#include "libformat/base/put.h"

enum { IN_LAYER = 1, IS_MATRIX = 2, IS_EXPERT = 4, NEEDS_MOE = 8, NEEDS_DENSE = 16 };

static const struct {
    const char *name;
    int traits;
} part_table[SF_PART_COUNT] = {
    [SF_PART_EMBEDDING] = {"embedding", 0},
    [SF_PART_INPUT_NORM] = {"input_norm", IN_LAYER},
    [SF_PART_Q] = {"q", IN_LAYER | IS_MATRIX},
    [SF_PART_K] = {"k", IN_LAYER | IS_MATRIX},
    [SF_PART_V] = {"v", IN_LAYER | IS_MATRIX},
    [SF_PART_O] = {"o", IN_LAYER | IS_MATRIX},
    [SF_PART_POST_NORM] = {"post_norm", IN_LAYER},
    [SF_PART_ROUTER] = {"router", IN_LAYER | NEEDS_MOE},
    [SF_PART_SHARED_GATE] = {"shared_gate", IN_LAYER | IS_MATRIX | NEEDS_MOE},
    [SF_PART_SHARED_UP] = {"shared_up", IN_LAYER | IS_MATRIX | NEEDS_MOE},
    [SF_PART_SHARED_DOWN] = {"shared_down", IN_LAYER | IS_MATRIX | NEEDS_MOE},
    [SF_PART_DENSE_GATE] = {"dense_gate", IN_LAYER | IS_MATRIX | NEEDS_DENSE},
    [SF_PART_DENSE_UP] = {"dense_up", IN_LAYER | IS_MATRIX | NEEDS_DENSE},
    [SF_PART_DENSE_DOWN] = {"dense_down", IN_LAYER | IS_MATRIX | NEEDS_DENSE},
    [SF_PART_EXPERT_GATE] = {"expert_gate", IN_LAYER | IS_MATRIX | NEEDS_MOE | IS_EXPERT},
    [SF_PART_EXPERT_UP] = {"expert_up", IN_LAYER | IS_MATRIX | NEEDS_MOE | IS_EXPERT},
    [SF_PART_EXPERT_DOWN] = {"expert_down", IN_LAYER | IS_MATRIX | NEEDS_MOE | IS_EXPERT},
    [SF_PART_FINAL_NORM] = {"final_norm", 0},
    [SF_PART_HEAD] = {"head", 0},
    [SF_PART_UNUSED] = {"unused", 0},
};

const char *sf_part_name(enum sf_part part)
{
    return (unsigned)part < SF_PART_COUNT ? part_table[part].name : "?";
}

bool sf_part_from_name(enum sf_part *out, const char *name)
{
    for (int i = 0; i < SF_PART_COUNT; i++) {
        if (strcmp(part_table[i].name, name) == 0) {
            *out = (enum sf_part)i;
            return true;
        }
    }
    return false;
}

bool sf_part_is_matrix(enum sf_part part)
{
    return part_table[part].traits & IS_MATRIX;
}

bool sf_part_is_expert(enum sf_part part)
{
    return part_table[part].traits & IS_EXPERT;
}

bool sf_part_in_layer(enum sf_part part)
{
    return part_table[part].traits & IN_LAYER;
}

bool sf_spec_has(const struct sf_model_spec *spec, enum sf_part part, int32_t layer)
{
    int traits = part_table[part].traits;
    if (layer < 0)
        return !(traits & IN_LAYER);
    if (!(traits & IN_LAYER) || layer >= spec->layers)
        return false;
    bool moe = spec->layer[layer].moe;
    return !((traits & NEEDS_MOE) && !moe) && !((traits & NEEDS_DENSE) && moe);
}

struct sf_shape sf_spec_shape(const struct sf_model_spec *spec, enum sf_part part)
{
    int64_t hidden = spec->hidden, q = spec->heads * spec->head_size,
            kv = spec->kv_heads * spec->head_size;
    switch (part) {
    case SF_PART_EMBEDDING:
    case SF_PART_HEAD:
        return (struct sf_shape){2, {spec->vocabulary, hidden}};
    case SF_PART_INPUT_NORM:
    case SF_PART_POST_NORM:
    case SF_PART_FINAL_NORM:
        return (struct sf_shape){1, {hidden}};
    case SF_PART_Q:
        return (struct sf_shape){2, {q, hidden}};
    case SF_PART_K:
    case SF_PART_V:
        return (struct sf_shape){2, {kv, hidden}};
    case SF_PART_O:
        return (struct sf_shape){2, {hidden, q}};
    case SF_PART_ROUTER:
        return (struct sf_shape){2, {spec->experts, hidden}};
    case SF_PART_SHARED_GATE:
    case SF_PART_SHARED_UP:
    case SF_PART_EXPERT_GATE:
    case SF_PART_EXPERT_UP:
        return (struct sf_shape){2, {spec->expert_width, hidden}};
    case SF_PART_SHARED_DOWN:
    case SF_PART_EXPERT_DOWN:
        return (struct sf_shape){2, {hidden, spec->expert_width}};
    case SF_PART_DENSE_GATE:
    case SF_PART_DENSE_UP:
        return (struct sf_shape){2, {spec->dense_width, hidden}};
    case SF_PART_DENSE_DOWN:
        return (struct sf_shape){2, {hidden, spec->dense_width}};
    case SF_PART_UNUSED:
    case SF_PART_COUNT:
        break;
    }
    return (struct sf_shape){0};
}

const char *sf_role_format(char *text, struct sf_role role)
{
    bool all = role.expert < 0 && sf_part_is_expert(role.part); /* adapters have that */
    char *at = text;
    *at = 0;
    if (role.layer >= 0)
        at = stpcpy(sf_put_decimal(stpcpy(at, "layer "), role.layer), " ");
    if (role.layer >= 0 && role.expert >= 0)
        at = stpcpy(sf_put_decimal(stpcpy(at, "expert "), role.expert), " ");
    if (role.layer >= 0 && all)
        strcpy(stpcpy(at, "experts' "), role.part == SF_PART_EXPERT_DOWN ? "down" : "gate_up");
    else
        strcpy(at, sf_part_name(role.part));
    return text;
}

/* theta^(-2i/D), then Llama 3's stretching of long wavelengths. Float32 step by step, the way
 * transformers' modeling_rope_utils does it: the angles of late positions feel every ulp. */
void sf_rope_frequencies(float *inv_freq, const struct sf_rope *rope, int64_t head_size)
{
    const float pi2 = (float)(2 * 3.14159265358979323846);
    for (int64_t i = 0; i < head_size / 2; i++) {
        float exponent = (float)(2 * i) / (float)head_size;
        float f = 1.0f / powf((float)rope->theta, exponent);
        if (rope->kind == SF_ROPE_LLAMA3) {
            float length = (float)rope->original_max_positions;
            float low = (float)rope->low_freq_factor, high = (float)rope->high_freq_factor;
            float factor = (float)rope->factor, wavelength = pi2 / f;
            if (wavelength > length / low) {
                f = f / factor;
            } else if (!(wavelength < length / high) && high != low) {
                float smooth = (length / wavelength - low) / (high - low);
                f = (1 - smooth) * f / factor + smooth * f;
            }
        }
        inv_freq[i] = f;
    }
}
