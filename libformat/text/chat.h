/* chat.h -- conversations as the text that a chat template makes of them, and what of it the assistant
 * said.
 *
 * A format is code, not a template: Llama 4's (as transformers' converter writes it, tools included)
 * and the shorter one of examples/tiny-scout, which trims every message. Which one a model has is
 * recognised from the text of its template. What comes out is what transformers' apply_chat_template
 * gives, byte for byte; what a template would drop without a word (an image, a second text of a system
 * message, an empty list of calls) is an error here. The text holds <|begin_of_text|> and other special
 * tokens written out: tokenize it as a whole, adding none. spec/chat.md has the rules.
 *
 * Life: `struct sf_chat` = {0} is ready, is used again for the next conversation, and ends with
 * sf_chat_free. Threads: no state; one struct a thread. */
#ifndef SCOUT_LIBFORMAT_TEXT_CHAT_H
#define SCOUT_LIBFORMAT_TEXT_CHAT_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/json.h"
#include "libformat/text/text_buffer.h"

enum sf_chat_format {
    SF_CHAT_NONE,          /* the model has none */
    SF_CHAT_LLAMA4,        /* Llama 4's own */
    SF_CHAT_LLAMA4_TRIMMED /* header, trimmed content, <|eot|> for every role; no tools */
};
/* "none", "llama4", "llama4-trimmed"; false for another name. */
bool sf_chat_format_from_name(enum sf_chat_format *out, const char *name);
const char *sf_chat_format_name(enum sf_chat_format format);

/* The format of a model with this template; spaces and comments that change nothing are not looked at.
 * SF_EUNSUPPORTED: none that is known here. */
int sf_chat_format_recognise(enum sf_chat_format *out, const char *text, uint64_t bytes,
                             struct sf_err *err);

struct sf_chat_span { /* of the text: what an assistant said, its end-of-turn token included */
    uint64_t start, end;
};

struct sf_chat {
    struct sf_text text;
    struct sf_chat_span *span; /* in order, not overlapping */
    int64_t spans, capacity;
};
void sf_chat_free(struct sf_chat *chat);

/* How messages are written down. */
enum sf_chat_keys {
    SF_CHAT_ROLE_CONTENT, /* {"role", "content"}, perhaps "tool_calls" */
    SF_CHAT_FROM_VALUE    /* ShareGPT's {"from", "value"}: human, gpt, system, tool, or a role */
};

struct sf_chat_options {
    enum sf_chat_format format;
    enum sf_chat_keys keys;
    const struct sf_json
        *tools;                 /* a list of descriptions, put where the template puts them; NULL */
    const struct sf_json *more; /* an array of messages that follow; NULL */
    bool generation_prompt;     /* ends with an assistant's header, to be gone on from */
};

/* `messages`: an array. What the struct held is replaced. SF_EFORMAT names the message (from 0) and
 * what is wrong with it; SF_EUNSUPPORTED: images, or what the format has no way to say. */
int sf_chat_render(struct sf_chat *out, const struct sf_json *messages,
                   const struct sf_chat_options *options, struct sf_err *err);
/* The same of one user message and the assistant's answer (NULL: none). */
int sf_chat_render_pair(struct sf_chat *out, const char *user, const char *assistant,
                        const struct sf_chat_options *options, struct sf_err *err);

#endif
