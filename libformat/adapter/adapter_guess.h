/* adapter_guess.h -- the sizes of a model from the tensors of an adapter. Private. */
#ifndef SCOUT_LIBFORMAT_ADAPTER_ADAPTER_GUESS_H
#define SCOUT_LIBFORMAT_ADAPTER_ADAPTER_GUESS_H

#include "libformat/adapter/adapter_file.h"
#include "libformat/tensor/tensor.h"

/* A module of the adapter as its file has it. */
struct adapter_pair {
    struct sf_role role;
    int64_t rank;
    double alpha;
    const struct sf_tensor *a, *b; /* lora_A, lora_B; two axes each */
    const char *a_key, *b_key;
};

/* Fills what the adapted modules tell: layers (to the last adapted), their kinds, widths, experts;
 * heads are one number wide (what a head is, an adapter does not say). The pairs are complete.
 * SF_EFORMAT: the tensors contradict each other, or leave open which layout experts have. */
int adapter_guess(struct sf_model_spec *out, struct sf_arena *arena,
                  const struct adapter_pair *pair, int64_t pairs, struct sf_err *err);

#endif
