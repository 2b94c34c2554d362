/* ft_data.h -- the data files of scout-ft as datasets, with what there is to tell about them on stderr.
 *
 * With --data-cache, or where `train` reads much, tokens lie in a file below the run's folder and are
 * mapped; the same files and options find them there the next time. */
#ifndef SCOUT_TOOLS_FT_DATA_H
#define SCOUT_TOOLS_FT_DATA_H

#include "tools/ft_model.h"
#include "train/data/dataset.h"

/* How rows become tokens, as the options say. */
struct sft_row_encoder ft_row_encoder(const struct ft_model *model,
                                      const struct ft_options *options);
/* --data alone, as eval takes it. */
int ft_data_open(struct sft_dataset *out, struct ft_model *model, const struct ft_options *options,
                 struct sf_err *err);
/* --data (none: *data stays empty), and what is held out of it (--eval-split) or beside it
 * (--eval-data): *evaluating. */
int ft_data_open_all(struct sft_dataset *data, struct sft_dataset *eval, bool *evaluating,
                     struct ft_model *model, const struct ft_options *options, struct sf_err *err);
/* "1628 rows of up to 256 tokens, 416768 tokens; 154 tokens at the end make no row". most: what a row
 * may hold. */
void ft_data_describe(const char *what, const struct sft_dataset *data, int64_t most);

#endif
