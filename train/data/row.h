/* row.h -- one line of a data file as tokens, and which of them are trained.
 *
 * A line is a JSON object of one of these kinds, known by its keys:
 *     {"text"}                          all of it trained
 *     {"input_ids", ["labels"]}         as the labels say (-100: not), else all
 *     {"prompt", "completion"}          the completion; two texts, or two lists of messages
 *     {"instruction", ["input"], "output"}  Alpaca: the output
 *     {"messages": [{"role", "content"}], ["tools"]}    what the assistant says
 *     {"conversations": [{"from", "value"}], ["tools"]} ShareGPT: what the assistant says
 * Other keys are not looked at. Which parts are trained can be chosen (enum sft_train_on). Texts are
 * tokenized as transformers does: a conversation rendered (libformat/text/chat.h) and tokenized as a
 * whole; special tokens that are written out become themselves. spec/chat.md has the rules, with what
 * becomes of a token that begins in one part and ends in the next.
 *
 * Threads: an encoder is read-only and shared; each thread has its own sft_row_tokens. */
#ifndef SCOUT_TRAIN_DATA_ROW_H
#define SCOUT_TRAIN_DATA_ROW_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/json.h"
#include "libformat/text/chat.h"
#include "libformat/text/tokenizer.h"

enum { SFT_NO_TARGET = -100 }; /* Hugging Face's ignore_index, and the kernels' */

enum sft_row_kind {
    SFT_ROW_TEXT,
    SFT_ROW_INPUT_IDS,
    SFT_ROW_COMPLETION,
    SFT_ROW_ALPACA,
    SFT_ROW_MESSAGES,
    SFT_ROW_CONVERSATIONS
};
/* "text", "input_ids", "prompt and completion", ... */
const char *sft_row_kind_name(enum sft_row_kind kind);
/* SF_EFORMAT names the keys when no kind fits, or two do. */
int sft_row_kind_of(enum sft_row_kind *out, const struct sf_json *row, struct sf_err *err);

enum sft_train_on {
    SFT_TRAIN_ON_DEFAULT,   /* the parts named above */
    SFT_TRAIN_ON_ALL,       /* every token of a text; labels stay as they are */
    SFT_TRAIN_ON_ASSISTANT, /* the default, but an error for rows without such parts: text */
    SFT_TRAIN_ON_LAST       /* the assistant's last message alone */
};
/* "default", "all", "assistant", "last". */
bool sft_train_on_from_name(enum sft_train_on *out, const char *name);

struct sft_row_encoder {
    const struct sf_tokenizer *tokenizer; /* NULL: rows of input_ids only */
    int64_t vocabulary;                   /* of the model */
    enum sf_chat_format chat;
    const char
        *no_chat; /* NONE: why conversations cannot be taken, for the message; NULL: the model
                            has no format, and Alpaca's rows take Alpaca's own words */
    enum sft_train_on train_on;
    bool add_special;    /* the tokenizer's begin-of-text token before texts and prompts */
    int32_t end_of_text; /* put behind completions, and trained; -1: nothing */
};

struct sft_row_tokens {
    struct sf_ids id, label; /* label[i]: id[i] where it is trained, else SFT_NO_TARGET */
    int64_t trained;         /* labels other than SFT_NO_TARGET, the first one left out: nothing
                                comes before it */
    enum sft_row_kind kind;
    struct sf_tokenizer_scratch *scratch; /* private from here on */
    struct sf_chat chat;
    struct sf_text text;
    struct sf_ids prompt;
};
/* For one thread and one encoder. */
int sft_row_tokens_open(struct sft_row_tokens *out, const struct sft_row_encoder *encoder,
                        struct sf_err *err);
void sft_row_tokens_close(struct sft_row_tokens *tokens); /* a zeroed one is welcome */

/* Replaces what `out` held. A row without a trained token is no error here: `trained` is 0.
 * SF_EFORMAT, SF_EUNSUPPORTED: what is wrong with the row; the caller names file and line. */
int sft_row_encode(struct sft_row_tokens *out, const struct sft_row_encoder *encoder,
                   const struct sf_json *row, struct sf_err *err);

#endif
