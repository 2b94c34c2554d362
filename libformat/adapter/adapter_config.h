/* adapter_config.h -- adapter_config.json of a PEFT LoRA adapter. Private to libformat/adapter. */
#ifndef SCOUT_LIBFORMAT_ADAPTER_ADAPTER_CONFIG_H
#define SCOUT_LIBFORMAT_ADAPTER_ADAPTER_CONFIG_H

#include "libformat/adapter/adapter_file.h"
#include "libformat/adapter/adapter_pattern.h"

/* What the file says beside what an sf_adapter keeps; strings in the arena given. */
struct adapter_config {
    const struct sf_adapter_pattern *rank, *alpha; /* rank_pattern, alpha_pattern, in file order */
    int64_t ranks, alphas;
    const char *const *parameter; /* target_parameters */
    int64_t parameters;
    unsigned layouts; /* bit l: experts may have layout l; both unless scout_layout says */
};

/* Fills *config, and rank, alpha, rslora, dropout, for_vllm and base_model of *out, from
 * text[0..bytes). SF_EUNSUPPORTED names the field whose value asks for something that we do not do:
 * a field that is not known must be null, false or empty. */
int adapter_config_read(struct adapter_config *config, struct sf_adapter *out,
                        struct sf_arena *arena, const char *text, uint64_t bytes,
                        struct sf_err *err);
/* Does target_parameters list the parameter whose path this is? */
bool adapter_config_targets(const struct adapter_config *config, const char *path);

/* The file's text in `arena`: see sf_adapter_write. */
int adapter_config_write(char **text, uint64_t *bytes, struct sf_arena *arena,
                         const struct sf_adapter *adapter, const struct sf_model_spec *spec,
                         struct sf_err *err);

#endif
