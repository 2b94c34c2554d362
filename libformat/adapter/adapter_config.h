/* adapter_config.h -- adapter_config.json of a PEFT LoRA adapter. Private to libformat/adapter. */
#ifndef SCOUT_LIBFORMAT_ADAPTER_ADAPTER_CONFIG_H
#define SCOUT_LIBFORMAT_ADAPTER_ADAPTER_CONFIG_H

#include "libformat/adapter/adapter_file.h"

/* Fills rank, alpha, rslora, dropout and base_model from text[0..bytes); strings in `arena`.
 * SF_EUNSUPPORTED names the field whose value asks for something that we do not do: a field that
 * is not known must be null, false or empty. */
int adapter_config_read(struct sf_adapter *out, struct sf_arena *arena, const char *text,
                        uint64_t bytes, struct sf_err *err);

/* The file's text in `arena`; target_modules from the adapter's modules, so that they match those
 * and nothing else in a model of `spec`. */
int adapter_config_write(char **text, uint64_t *bytes, struct sf_arena *arena,
                         const struct sf_adapter *adapter, const struct sf_model_spec *spec,
                         struct sf_err *err);

#endif
