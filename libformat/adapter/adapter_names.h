/* adapter_names.h -- PEFT's names of adapted modules. Private to libformat/adapter. */
#ifndef SCOUT_LIBFORMAT_ADAPTER_ADAPTER_NAMES_H
#define SCOUT_LIBFORMAT_ADAPTER_ADAPTER_NAMES_H

#include <stdbool.h>

#include "libformat/adapter/adapter_file.h"

/* "self_attn.q_proj", "feed_forward.shared_expert.gate_proj": the module's path inside its layer;
 * NULL if the part is not one PEFT can wrap as a linear module. */
const char *adapter_path_in_layer(enum sf_part part);

/* The parts of a tensor's key; false when the key is none that we know. */
bool adapter_key_parse(enum sf_adapter_prefix *prefix, struct sf_role *role, char *which,
                       const char *key);

#endif
