/* adapter_names.h -- PEFT's names of adapted modules. Private to libformat/adapter. */
#ifndef SCOUT_LIBFORMAT_ADAPTER_ADAPTER_NAMES_H
#define SCOUT_LIBFORMAT_ADAPTER_ADAPTER_NAMES_H

#include <stdbool.h>

#include "libformat/adapter/adapter_file.h"

/* "self_attn.q_proj", "feed_forward.experts.gate_up_proj": the path inside its layer, or of what is
 * outside the layers; NULL if PEFT cannot adapt the part in a way that we know. */
const char *adapter_path_in_layer(enum sf_part part);
/* The parameter's last names, as target_parameters lists them; NULL for modules. */
const char *adapter_parameter_name(enum sf_part part);
/* What a parameter's path has behind its module's: ".weight" for the router, else "". */
const char *adapter_parameter_tail(enum sf_part part);

/* The key of one of the experts' parameters: they are wrapped one in the other, gate_up_proj inside
 * (nested) where both are, and no wrapper's key names its parameter. */
char *adapter_experts_key(struct sf_arena *arena, enum sf_adapter_prefix prefix, int32_t layer,
                          bool nested, char which);

/* What a tensor's key says. */
enum adapter_key_kind {
    ADAPTER_KEY_MODULE,  /* A or B of `role` */
    ADAPTER_KEY_EXPERTS, /* A or B of one of the experts' parameters: which, the key does not say */
    ADAPTER_KEY_COPY /* the base's own weight of `role`, which PEFT puts beside a head's adapter */
};
struct adapter_key {
    enum adapter_key_kind kind;
    enum sf_adapter_prefix prefix;
    struct sf_role role; /* EXPERTS: the layer alone counts */
    bool nested;         /* EXPERTS: "experts.base_layer", the first of two wrapped parameters */
    char which;          /* 'A' or 'B' */
};

/* False when the key is none that we know. "lora_A.default.weight" is one, as in memory. */
bool adapter_key_parse(struct adapter_key *out, const char *key);

#endif
