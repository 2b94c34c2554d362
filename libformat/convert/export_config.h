/* export_config.h -- the config.json of an exported folder: the carried text, with what current
 * transformers would refuse or needs to know put right, and every other byte as it was (500000.0
 * must not become 500000: strict readers tell them apart). */
#ifndef SCOUT_LIBFORMAT_CONVERT_EXPORT_CONFIG_H
#define SCOUT_LIBFORMAT_CONVERT_EXPORT_CONFIG_H

#include "libformat/base/arena.h"
#include "libformat/convert/export.h"

/* Replaces *text[0..*bytes), a JSON object, by the new text in `arena`. attn_temperature_tuning
 * becomes a boolean (transformers >= 5.4 refuses the integer that 4.51 wrote). For BNB4 a
 * quantization_config comes first, unless bitsandbytes' own is there; for BF16 that goes. */
int sf_export_config(char **text, uint64_t *bytes, struct sf_arena *arena,
                     enum sf_export_format format, struct sf_err *err);

#endif
