/* ft_plan.h -- the plan of a run, for whoever shows it: scout-ft plan and scout-inspect plan. */
#ifndef SCOUT_TOOLS_FT_PLAN_H
#define SCOUT_TOOLS_FT_PLAN_H

#include "tools/ft_fit.h"

/* Gets the plan while everything that it names is still there. */
typedef int ft_plan_show(void *context, const struct sft_plan *plan, const struct ft_fit *fit,
                         const struct sft_trainer *trainer, struct sf_err *err);

/* Plans the run that `options` describe and shows it. SF_ENOMEM: it does not fit the card, and the
 * message says what would. */
int ft_plan_make(const struct ft_options *options, ft_plan_show *show, void *context,
                 struct sf_err *err);
/* As scout-ft plan prints it; context: the struct ft_options. */
ft_plan_show ft_plan_print;

#endif
