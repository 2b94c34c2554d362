/* ft_verbs.h -- the verbs of scout-ft, one source each. */
#ifndef SCOUT_TOOLS_FT_VERBS_H
#define SCOUT_TOOLS_FT_VERBS_H

#include "tools/ft_model.h"
#include "train/trainer.h"

/* Where the time of `steps` profiled steps went, on stdout. */
void ft_print_profile(const struct sft_profile *profile, int64_t steps);
int ft_plan(const struct ft_options *options, struct sf_err *err);
int ft_train(const struct ft_options *options, struct sf_err *err);
int ft_eval(const struct ft_options *options, struct sf_err *err);
int ft_preview(const struct ft_options *options, struct sf_err *err);
int ft_generate(const struct ft_options *options, struct sf_err *err);
int ft_adapters(const struct ft_options *options, struct sf_err *err);
int ft_probe(const struct ft_options *options, struct sf_err *err);

/* The run that `options` describe, over an open model and its data (eval NULL: none). */
struct sft_trainer_config ft_trainer_config(struct ft_model *model,
                                            const struct ft_options *options,
                                            const struct sft_dataset *data,
                                            const struct sft_dataset *eval);

#endif
