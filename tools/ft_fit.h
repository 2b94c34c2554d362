/* ft_fit.h -- does a run fit its device: the room for a step's block, and what a device will hold.
 *
 * A device holds what its libraries take, the weights, the adapter, one step block and a reserve for
 * what libraries load later. All of it is known before the first byte of a weight is read. */
#ifndef SCOUT_TOOLS_FT_FIT_H
#define SCOUT_TOOLS_FT_FIT_H

#include "libformat/base/host_memory.h"
#include "tools/ft_model.h"
#include "train/trainer.h"

struct ft_fit {
    bool device;          /* false: the processor, nothing below is set */
    uint64_t total_bytes; /* of the card, or --vram-limit if that is less; 0: no card was named */
    uint64_t
        library_bytes; /* taken before anything of ours, by CUDA's context and other programs */
    uint64_t workspace_bytes; /* cuBLAS's, which we give it */
    uint64_t weight_bytes, adapter_bytes;
    uint64_t reserve_bytes; /* kernels that libraries load when they are first used */
    uint64_t step_limit;    /* what is left for the step block; 0: no limit */
};

/* From the model's weights and the adapter's modules. SF_ENOMEM with all figures when weights and
 * adapter alone do not fit. */
int ft_fit_measure(struct ft_fit *out, const struct ft_model *model,
                   const struct ft_options *options, struct sf_err *err);
/* "nothing", or kinds with the number of layers: "activations in 48 of 48, attention in 7 of 48". */
enum { FT_POLICY_TEXT = 240 };
const char *ft_policy_text(char text[FT_POLICY_TEXT], struct sft_policy policy, int64_t layers);
/* Bytes of the device that a run with this plan takes at its peak. */
uint64_t ft_fit_bytes(const struct ft_fit *fit, const struct sft_plan *plan);
/* Opens a trainer that fits; when none does, the error also says what would. */
int ft_fit_trainer(struct sft_trainer **out, const struct ft_fit *fit,
                   const struct sft_trainer_config *config, struct sf_err *err);

/* What a run takes of the machine's own memory. */
struct ft_host {
    uint64_t need_bytes;    /* that cannot be given back: all below but the cache */
    uint64_t pinned_bytes;  /* host memory that a device reaches */
    uint64_t loading_bytes; /* pinned for as long as weights are loaded */
    uint64_t heap_bytes;  /* a copy of the adapter; without a device adapter, optimizer and step */
    uint64_t cache_bytes; /* of the container, good to have in the page cache throughout */
    struct sf_host_memory memory; /* what there is */
};
void ft_host_measure(struct ft_host *out, const struct ft_fit *fit, const struct sft_plan *plan,
                     int threads);
/* SF_ENOMEM with the figures when the machine, or the cgroup, is too small. */
int ft_host_check(const struct ft_host *host, struct sf_err *err);

#endif
