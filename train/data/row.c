#include "train/data/row.h"

#include <stdio.h>
#include <string.h>

#include "train/data/row_private.h"

/* ---- kinds ---- */

static const struct {
    const char *name, *key[3]; /* keys that make the kind; the first is its own */
} kinds[] = {
    [SFT_ROW_TEXT] = {"text", {"text"}},
    [SFT_ROW_INPUT_IDS] = {"input_ids", {"input_ids"}},
    [SFT_ROW_COMPLETION] = {"prompt and completion", {"completion", "prompt"}},
    [SFT_ROW_ALPACA] = {"instruction and output", {"instruction", "output"}},
    [SFT_ROW_MESSAGES] = {"messages", {"messages"}},
    [SFT_ROW_CONVERSATIONS] = {"conversations", {"conversations"}},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

const char *sft_row_kind_name(enum sft_row_kind kind)
{
    return kinds[kind].name;
}

static bool has_keys(const struct sf_json *row, int kind)
{
    for (int k = 0; k < 3 && kinds[kind].key[k]; k++)
        if (!sf_json_get(row, kinds[kind].key[k]))
            return false;
    return true;
}

/* The first few keys of a row, for a message. */
static const char *list_keys(char text[160], const struct sf_json *row)
{
    size_t n = 0;
    text[0] = 0;
    for (const struct sf_json *m = sf_json_first(row); m && n < 120; m = sf_json_next(m))
        n += (size_t)snprintf(text + n, 160 - n, "%s%.24s", n ? ", " : "", sf_json_key(m));
    return n ? text : "none";
}

int sft_row_kind_of(enum sft_row_kind *out, const struct sf_json *row, struct sf_err *err)
{
    char text[160];
    int found = -1;
    if (sf_json_type(row) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "a row is %s, not an object",
                       sf_json_type_name(sf_json_type(row)));
    for (int k = 0; k < KINDS; k++) {
        if (!has_keys(row, k))
            continue;
        if (found >= 0)
            return sf_fail(err, SF_EFORMAT, "a row of %s and of %s: which one counts?",
                           kinds[found].name, kinds[k].name);
        found = k;
    }
    if (found < 0)
        return sf_fail(err, SF_EFORMAT,
                       "a row has text, input_ids, prompt and completion, instruction and output, "
                       "messages or conversations; this one's keys: %s",
                       list_keys(text, row));
    *out = (enum sft_row_kind)found;
    return SF_OK;
}

static const char *const train_on_names[] = {"default", "all", "assistant", "last"};

bool sft_train_on_from_name(enum sft_train_on *out, const char *name)
{
    for (size_t i = 0; i < sizeof train_on_names / sizeof train_on_names[0]; i++) {
        if (strcmp(train_on_names[i], name) == 0) {
            *out = (enum sft_train_on)i;
            return true;
        }
    }
    return false;
}

int sft_row_tokens_open(struct sft_row_tokens *out, const struct sft_row_encoder *encoder,
                        struct sf_err *err)
{
    *out = (struct sft_row_tokens){0};
    return encoder->tokenizer ? sf_tokenizer_scratch_open(&out->scratch, encoder->tokenizer, err)
                              : SF_OK;
}

void sft_row_tokens_close(struct sft_row_tokens *tokens)
{
    sf_ids_free(&tokens->id);
    sf_ids_free(&tokens->label);
    sf_ids_free(&tokens->prompt);
    sf_chat_free(&tokens->chat);
    sf_text_free(&tokens->text);
    sf_tokenizer_scratch_close(tokens->scratch);
    *tokens = (struct sft_row_tokens){0};
}

/* ---- labels ---- */

static int add_labels(struct sft_row_tokens *out, int64_t first, int64_t end, bool trained,
                      struct sf_err *err)
{
    static const int32_t none = SFT_NO_TARGET;
    int code = SF_OK;
    if (trained)
        return end > first ? sf_ids_append(&out->label, out->id.id + first, end - first, err)
                           : SF_OK;
    for (int64_t i = first; !code && i < end; i++)
        code = sf_ids_append(&out->label, &none, 1, err);
    return code;
}

static bool in_spans(const struct sf_chat *chat, int64_t *at, uint64_t start, uint64_t end)
{
    while (*at < chat->spans && chat->span[*at].end <= start)
        ++*at;
    return *at < chat->spans && chat->span[*at].start < end;
}

/* A token is trained when a byte of it lies in a span, as transformers' assistant masks count. */
static int label_spans(struct sft_row_tokens *out, const struct sft_row_encoder *e, int64_t first,
                       struct sf_err *err)
{
    uint64_t byte = 0;
    int64_t at = first;
    int code = SF_OK;
    for (int64_t i = 0; !code && i < out->id.count; i++) {
        uint64_t bytes = sf_tokenizer_token_bytes(e->tokenizer, out->id.id[i]);
        code = add_labels(out, i, i + 1, in_spans(&out->chat, &at, byte, byte + bytes), err);
        byte += bytes;
    }
    if (!code && byte != out->chat.text.bytes)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "tokens of %llu bytes for a text of %llu: this tokenizer changes its text",
                       (unsigned long long)byte, (unsigned long long)out->chat.text.bytes);
    return code;
}

/* ---- texts ---- */

static int encode(struct sf_ids *ids, struct sft_row_tokens *out, const struct sft_row_encoder *e,
                  const char *text, uint64_t bytes, bool add_special, struct sf_err *err)
{
    if (!e->tokenizer)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "text, but the container carries no tokenizer.json; rows of input_ids need "
                       "none");
    return sf_tokenizer_encode(ids, e->tokenizer, text ? text : "", bytes, add_special,
                               out->scratch, err);
}

static int read_string(const char **out, const struct sf_json *row, const char *key,
                       struct sf_err *err)
{
    return sf_json_as_string(out, sf_json_get(row, key), key, err);
}

static int encode_text(struct sft_row_tokens *out, const struct sft_row_encoder *e,
                       const struct sf_json *row, struct sf_err *err)
{
    const char *text;
    if (e->train_on == SFT_TRAIN_ON_ASSISTANT || e->train_on == SFT_TRAIN_ON_LAST)
        return sf_fail(err, SF_EINVAL, "a row of text has no part that an assistant said");
    if (sf_json_get(row, "labels"))
        return sf_fail(err, SF_EFORMAT, "a row of text with labels; labels belong to input_ids");
    int code = read_string(&text, row, "text", err);
    if (!code)
        code = encode(&out->id, out, e, text, strlen(text), e->add_special, err);
    return code ? code : add_labels(out, 0, out->id.count, true, err);
}

static int64_t common_start(const struct sf_ids *a, const struct sf_ids *b)
{
    int64_t n = 0;
    while (n < a->count && n < b->count && a->id[n] == b->id[n])
        n++;
    return n;
}

/* out->text is the prompt; the completion goes behind it. As TRL does: the completion begins where the
 * tokens of the whole leave those of the prompt alone, so a token of both is trained. */
static int encode_completion(struct sft_row_tokens *out, const struct sft_row_encoder *e,
                             const char *completion, struct sf_err *err)
{
    bool all = e->train_on == SFT_TRAIN_ON_ALL;
    out->prompt.count = 0;
    int code = encode(&out->prompt, out, e, out->text.at, out->text.bytes, e->add_special, err);
    if (!code)
        code = sf_text_add_string(&out->text, completion, err);
    if (!code)
        code = encode(&out->id, out, e, out->text.at, out->text.bytes, e->add_special, err);
    bool ended = out->id.count && out->id.id[out->id.count - 1] == e->end_of_text;
    if (!code && e->end_of_text >= 0 && !ended)
        code = sf_ids_append(&out->id, &e->end_of_text, 1, err);
    int64_t prompt = common_start(&out->prompt, &out->id);
    if (!code)
        code = add_labels(out, 0, prompt, all, err);
    return code ? code : add_labels(out, prompt, out->id.count, true, err);
}

/* ---- conversations ---- */

/* out->chat is rendered. */
static int encode_chat(struct sft_row_tokens *out, const struct sft_row_encoder *e,
                       struct sf_err *err)
{
    const struct sf_chat *chat = &out->chat;
    int64_t last = chat->spans ? chat->spans - 1 : 0;
    int code = encode(&out->id, out, e, chat->text.at, chat->text.bytes, false, err);
    if (code)
        return code;
    if (e->train_on == SFT_TRAIN_ON_ALL)
        return add_labels(out, 0, out->id.count, true, err);
    return label_spans(out, e, e->train_on == SFT_TRAIN_ON_LAST ? last : 0, err);
}

static const struct sf_json *tools_of(const struct sf_json *row)
{
    const struct sf_json *tools = sf_json_get(row, "tools");
    return tools && sf_json_type(tools) == SF_JSON_NULL ? NULL : tools;
}

static int encode_messages(struct sft_row_tokens *out, const struct sft_row_encoder *e,
                           const struct sf_json *row, struct sf_err *err)
{
    bool messages = out->kind == SFT_ROW_MESSAGES;
    struct sf_chat_options options = {.format = e->chat,
                                      .keys = messages ? SF_CHAT_ROLE_CONTENT : SF_CHAT_FROM_VALUE,
                                      .tools = tools_of(row)};
    const char *key = messages ? "messages" : "conversations";
    if (e->chat == SF_CHAT_NONE && e->no_chat)
        return sf_fail(err, SF_EUNSUPPORTED, "a conversation, but %s", e->no_chat);
    int code = sf_chat_render(&out->chat, sf_json_get(row, key), &options, err);
    return code ? code : encode_chat(out, e, err);
}

/* Lists of messages. As TRL does, what stands behind the prompt and the header of the answer is the
 * completion, whoever says it. */
static int encode_prompt_messages(struct sft_row_tokens *out, const struct sft_row_encoder *e,
                                  const struct sf_json *row, struct sf_err *err)
{
    const struct sf_json *prompt = sf_json_get(row, "prompt");
    struct sf_chat_options options = {
        .format = e->chat, .tools = tools_of(row), .generation_prompt = true};
    if (e->chat == SF_CHAT_NONE && e->no_chat)
        return sf_fail(err, SF_EUNSUPPORTED, "a prompt of messages, but %s", e->no_chat);
    int code = sf_chat_render(&out->chat, prompt, &options, err);
    if (code)
        return sf_err_prefix(err, "prompt");
    out->text.bytes = 0;
    code = sf_text_add(&out->text, out->chat.text.at, out->chat.text.bytes, err);
    options.generation_prompt = false;
    options.more = sf_json_get(row, "completion");
    if (!code && (code = sf_chat_render(&out->chat, prompt, &options, err)))
        sf_err_prefix(err, "prompt and completion");
    if (code)
        return code;
    struct sf_chat *chat = &out->chat;
    uint64_t begun = out->text.bytes;
    if (chat->spans == 0 || chat->text.bytes < begun ||
        memcmp(chat->text.at, out->text.at, (size_t)begun) != 0)
        return sf_fail(err, SF_EFORMAT,
                       "the completion does not begin with what the assistant says");
    chat->span[0] = (struct sf_chat_span){begun, chat->text.bytes};
    chat->spans = 1;
    return encode_chat(out, e, err);
}

static int encode_prompt(struct sft_row_tokens *out, const struct sft_row_encoder *e,
                         const struct sf_json *row, struct sf_err *err)
{
    const char *prompt, *completion;
    if (sf_json_type(sf_json_get(row, "prompt")) == SF_JSON_ARRAY)
        return encode_prompt_messages(out, e, row, err);
    int code = read_string(&prompt, row, "prompt", err);
    if (!code)
        code = read_string(&completion, row, "completion", err);
    out->text.bytes = 0;
    if (!code)
        code = sf_text_add_string(&out->text, prompt, err);
    return code ? code : encode_completion(out, e, completion, err);
}

/* The words of Stanford Alpaca's own prompt. */
static int add_alpaca(struct sf_text *text, const char *instruction, const char *input,
                      struct sf_err *err)
{
    const char *const part[] = {
        "Below is an instruction that describes a task",
        *input ? ", paired with an input that provides further context" : "",
        ". Write a response that appropriately completes the request.\n\n### Instruction:\n",
        instruction,
        *input ? "\n\n### Input:\n" : "",
        input,
        "\n\n### Response:\n"};
    int code = SF_OK;
    for (size_t i = 0; !code && i < sizeof part / sizeof part[0]; i++)
        code = sf_text_add_string(text, part[i], err);
    return code;
}

/* In a model's chat format the user says instruction and input. */
static int encode_alpaca(struct sft_row_tokens *out, const struct sft_row_encoder *e,
                         const struct sf_json *row, struct sf_err *err)
{
    struct sf_chat_options options = {.format = e->chat};
    const char *instruction, *output, *input = "";
    int code = read_string(&instruction, row, "instruction", err);
    if (!code)
        code = read_string(&output, row, "output", err);
    const struct sf_json *more = sf_json_get(row, "input");
    if (!code && more && sf_json_type(more) != SF_JSON_NULL)
        code = sf_json_as_string(&input, more, "input", err);
    out->text.bytes = 0;
    if (code)
        return code;
    if (e->chat == SF_CHAT_NONE && e->no_chat)
        return sf_fail(err, SF_EUNSUPPORTED, "instruction and output, but %s", e->no_chat);
    if (e->chat == SF_CHAT_NONE) {
        code = add_alpaca(&out->text, instruction, input, err);
        return code ? code : encode_completion(out, e, output, err);
    }
    code = sf_text_add_string(&out->text, instruction, err);
    if (!code && *input)
        code = sf_text_add_string(&out->text, "\n", err);
    if (!code)
        code = sf_text_add_string(&out->text, input, err);
    if (!code)
        code = sf_chat_render_pair(&out->chat, out->text.at, output, &options, err);
    return code ? code : encode_chat(out, e, err);
}

/* ---- any ---- */

static int check_vocabulary(const struct sft_row_tokens *out, int64_t vocabulary,
                            struct sf_err *err)
{
    for (int64_t i = 0; i < out->id.count; i++)
        if (out->id.id[i] >= vocabulary)
            return sf_fail(err, SF_EFORMAT,
                           "token %lld has id %d, outside the model's vocabulary of %lld",
                           (long long)i, (int)out->id.id[i], (long long)vocabulary);
    return SF_OK;
}

int sft_row_encode(struct sft_row_tokens *out, const struct sft_row_encoder *encoder,
                   const struct sf_json *row, struct sf_err *err)
{
    typedef int encode_fn(struct sft_row_tokens *, const struct sft_row_encoder *,
                          const struct sf_json *, struct sf_err *);
    static encode_fn *const by_kind[] = {
        [SFT_ROW_TEXT] = encode_text,         [SFT_ROW_INPUT_IDS] = sft_row_encode_ids,
        [SFT_ROW_COMPLETION] = encode_prompt, [SFT_ROW_ALPACA] = encode_alpaca,
        [SFT_ROW_MESSAGES] = encode_messages, [SFT_ROW_CONVERSATIONS] = encode_messages,
    };
    out->id.count = out->label.count = out->trained = 0;
    int code = sft_row_kind_of(&out->kind, row, err);
    if (!code)
        code = by_kind[out->kind](out, encoder, row, err);
    if (!code)
        code = check_vocabulary(out, encoder->vocabulary, err);
    for (int64_t i = 1; !code && i < out->label.count; i++)
        out->trained += out->label.id[i] != SFT_NO_TARGET;
    return code;
}
