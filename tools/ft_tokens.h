/* ft_tokens.h -- tokens as text that a person can look at, those that are trained marked. */
#ifndef SCOUT_TOOLS_FT_TOKENS_H
#define SCOUT_TOOLS_FT_TOKENS_H

#include "tools/ft_model.h"

enum { FT_TOKEN_TEXT = 2048 };
/* The token's text, control characters and pieces of characters escaped; without a tokenizer its
 * number. */
int ft_token_text(char *out, const struct ft_model *model, int32_t id, struct sf_err *err);
/* On stdout, one line. Trained: label other than SFT_NO_TARGET, but for the first, which nothing comes
 * before. */
int ft_print_tokens(const struct ft_model *model, const int32_t *id, const int32_t *label,
                    int64_t count, struct sf_err *err);

#endif
