/* ft_chat.h -- what a container says of conversations: its chat template's format, the tokens that end. */
#ifndef SCOUT_TOOLS_FT_CHAT_H
#define SCOUT_TOOLS_FT_CHAT_H

#include "libformat/container/container_map.h"
#include "libformat/text/chat.h"
#include "libformat/text/tokenizer.h"

struct ft_chat {
    enum sf_chat_format format;
    const char *unknown; /* why the format is NONE although there is a template; NULL */
    int32_t end_of_text; /* the tokenizer's eos_token, -1: none */
    const int32_t *stop; /* [stops]: generating ends with any of these */
    int64_t stops;
};

/* Reads chat_template.jinja, chat_template.json, tokenizer_config.json, generation_config.json and
 * config.json as far as they are carried. `wanted`: --chat-format, or NULL. A template that is not
 * recognised is told in `unknown`: rows that need none may be taken. */
int ft_chat_read(struct ft_chat *out, const struct sf_map *map,
                 const struct sf_tokenizer *tokenizer, const char *wanted, struct sf_arena *arena,
                 struct sf_err *err);

#endif
