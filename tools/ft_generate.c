/* The verb generate: what a model says, with an adapter or without, or both. */
#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/base/mem.h"
#include "tools/ft_fit.h"
#include "tools/ft_verbs.h"
#include "train/generator.h"
#include "train/sampler.h"

enum { ROWS_AT_ONCE = 256 };

struct answer {
    const char *name; /* "base", "adapter" */
    struct sft_generator *generator;
    struct sf_ids ids;
    char *text;        /* UTF-8, in the session's arena */
    const char *ended; /* "length", or the token that ended it */
    double prompt_seconds, seconds;
};

struct session {
    struct ft_model model;
    const struct ft_options *options;
    struct sf_arena arena;
    struct sf_ids prompt;
    struct answer answer[2];
    int answers;
    float *logits;
};

/* ---- the prompt ---- */

static int render_chat(struct sf_chat *chat, const struct session *s, struct sf_arena *arena,
                       struct sf_err *err)
{
    const struct ft_chat *c = &s->model.chat;
    struct sf_json *root;
    char *text;
    uint64_t bytes;
    if (c->format == SF_CHAT_NONE)
        return sf_fail(err, SF_EUNSUPPORTED, "a conversation, but %s",
                       c->unknown ? c->unknown : "the model has no chat format (--chat-format)");
    int code = sf_read_file(&text, &bytes, arena, s->options->chat, 1u << 26, err);
    if (code)
        return code;
    code = sf_json_parse(&root, text, bytes, err);
    bool list = !code && sf_json_type(root) == SF_JSON_ARRAY;
    struct sf_chat_options options = {.format = c->format, .generation_prompt = true};
    if (!code && !list)
        options.tools = sf_json_get(root, "tools");
    const struct sf_json *messages = list ? root : code ? NULL : sf_json_get(root, "messages");
    if (!code && !messages)
        code = sf_fail(err, SF_EFORMAT, "neither a list of messages nor an object with one");
    if (!code)
        code = sf_chat_render(chat, messages, &options, err);
    sf_json_free(root);
    return code ? sf_err_prefix(err, "%s", s->options->chat) : SF_OK;
}

static int read_prompt(struct session *s, struct sf_err *err)
{
    const struct ft_options *o = s->options;
    struct sf_tokenizer_scratch *scratch = NULL;
    struct sf_chat chat = {0};
    const char *text = o->prompt;
    if (!s->model.tokenizer)
        return sf_fail(err, SF_EUNSUPPORTED, "%s carries no tokenizer.json", o->model);
    int code = sf_tokenizer_scratch_open(&scratch, s->model.tokenizer, err);
    if (!code && o->chat) {
        code = render_chat(&chat, s, &s->arena, err);
        text = chat.text.at;
    }
    if (!code)
        code = sf_tokenizer_encode(&s->prompt, s->model.tokenizer, text, strlen(text), !o->chat,
                                   scratch, err);
    if (!code && s->prompt.count == 0)
        code = sf_fail(err, SF_EINVAL, "the prompt has no token");
    sf_chat_free(&chat);
    sf_tokenizer_scratch_close(scratch);
    return code;
}

/* ---- answering ---- */

static bool ends(const struct ft_chat *chat, int32_t id)
{
    for (int64_t i = 0; i < chat->stops; i++)
        if (chat->stop[i] == id)
            return true;
    return false;
}

/* Tokens until one that ends, or as many as are wanted. */
static int answer_on(struct session *s, struct answer *a, struct sft_sampler *sampler,
                     struct sf_err *err)
{
    int32_t id;
    double started = tool_now();
    int code = sft_generator_feed(s->logits, a->generator, s->prompt.id, s->prompt.count, err);
    a->prompt_seconds = tool_now() - started;
    a->ended = "length";
    for (int64_t n = 0; !code && n < s->options->max_new_tokens; n++) {
        code = sft_sampler_choose(&id, sampler, s->logits, n, err);
        if (!code && ends(&s->model.chat, id)) {
            a->ended = sf_tokenizer_token(s->model.tokenizer, id);
            break;
        }
        if (!code)
            code = sf_ids_append(&a->ids, &id, 1, err);
        if (!code && n + 1 < s->options->max_new_tokens)
            code = sft_generator_feed(s->logits, a->generator, &id, 1, err);
        if (!code && tool_interrupted()) {
            a->ended = "interrupted";
            break;
        }
    }
    a->seconds = tool_now() - started - a->prompt_seconds;
    return code;
}

/* What cannot be printed is replaced: half a character by U+FFFD, control characters by '?'. */
static int make_text(struct session *s, struct answer *a, struct sf_err *err)
{
    char *raw;
    uint64_t bytes, n = 0;
    int code = sf_tokenizer_decode(&raw, &bytes, s->model.tokenizer, a->ids.id, a->ids.count, false,
                                   &s->arena, err);
    if (code)
        return code;
    a->text = sf_arena_alloc(&s->arena, 3 * bytes + 1);
    if (!a->text)
        return sf_fail(err, SF_ENOMEM, "no memory for an answer of %llu bytes",
                       (unsigned long long)bytes);
    for (uint64_t i = 0; i < bytes;) {
        int length = sf_utf8_length(raw + i, bytes - i);
        unsigned char c = (unsigned char)raw[i];
        bool control = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ||
                       (length == 2 && c == 0xc2 && (unsigned char)raw[i + 1] < 0xa0);
        const char *from = length == 0 ? "\xef\xbf\xbd" : control ? "?" : raw + i;
        uint64_t take = length == 0 ? 3 : control ? 1 : (uint64_t)length;
        memcpy(a->text + n, from, take);
        n += take;
        i += length == 0 ? 1 : (uint64_t)length;
    }
    a->text[n] = 0;
    return SF_OK;
}

static int answer(struct session *s, struct answer *a, struct sf_err *err)
{
    const struct ft_options *o = s->options;
    struct sft_sampling sampling = {.temperature = o->temperature,
                                    .top_p = o->top_p,
                                    .top_k = o->top_k,
                                    .seed = (uint64_t)o->seed};
    struct sft_sampler *sampler;
    int code = sft_sampler_open(&sampler, sampling, s->model.spec.vocabulary, err);
    if (!code)
        code = answer_on(s, a, sampler, err);
    if (!code)
        code = make_text(s, a, err);
    sft_sampler_close(sampler);
    return code;
}

/* ---- showing ---- */

static void print_answer(const struct session *s, const struct answer *a)
{
    if (s->options->compare)
        printf("--- %s\n", a->name);
    printf("%s\n", a->text);
    fflush(stdout);
    fprintf(stderr,
            "%s: prompt of %lld tokens in %.2f s; %lld tokens in %.2f s (%.1f tokens/s); %s%s\n",
            a->name, (long long)s->prompt.count, a->prompt_seconds, (long long)a->ids.count,
            a->seconds, a->seconds > 0 ? (double)a->ids.count / a->seconds : 0,
            a->ended[0] == '<' ? "ended by " : "ended: ", a->ended);
}

static int print_json(const struct session *s, struct sf_err *err)
{
    struct sf_arena arena = {0};
    struct sf_json_writer w;
    char *text;
    sf_json_write_begin(&w, &arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_int(&w, "prompt_tokens", s->prompt.count);
    sf_json_write_array(&w, "answers");
    for (int i = 0; i < s->answers; i++) {
        const struct answer *a = &s->answer[i];
        sf_json_write_object(&w, NULL);
        sf_json_write_string(&w, "from", a->name);
        sf_json_write_string(&w, "text", a->text);
        sf_json_write_array(&w, "ids");
        for (int64_t k = 0; k < a->ids.count; k++)
            sf_json_write_int(&w, NULL, a->ids.id[k]);
        sf_json_write_end(&w, ']');
        sf_json_write_string(&w, "ended", a->ended);
        sf_json_write_double(&w, "prompt_seconds", a->prompt_seconds);
        sf_json_write_double(&w, "seconds", a->seconds);
        sf_json_write_end(&w, '}');
    }
    sf_json_write_end(&w, ']');
    sf_json_write_end(&w, '}');
    int code = sf_json_write_finish(&text, NULL, &w, err);
    if (!code)
        printf("%s\n", text);
    sf_arena_free(&arena);
    return code;
}

/* ---- the whole ---- */

static int open_answers(struct session *s, struct sf_err *err)
{
    const struct ft_options *o = s->options;
    int code = SF_OK;
    if (!o->adapter || o->compare)
        s->answer[s->answers++].name = "base";
    if (o->adapter)
        s->answer[s->answers++].name = "adapter";
    for (int i = 0; !code && i < s->answers; i++) {
        bool adapted = strcmp(s->answer[i].name, "adapter") == 0;
        struct sft_generator_config config = {
            .spec = &s->model.spec,
            .lora = adapted ? &s->model.lora : NULL,
            .ops = s->model.ops,
            .ctx = s->model.ctx,
            .room = s->prompt.count + o->max_new_tokens,
            .rows = s->prompt.count < ROWS_AT_ONCE ? s->prompt.count : ROWS_AT_ONCE};
        code = sft_generator_open(&s->answer[i].generator, &config, err);
    }
    return code;
}

/* Before a weight is read: do the blocks of all answers fit the card? */
static int check_room(const struct session *s, struct sf_err *err)
{
    struct ft_fit fit;
    uint64_t bytes = 0;
    int code = ft_fit_measure(&fit, &s->model, s->options, err);
    for (int i = 0; !code && i < s->answers; i++)
        if (!sf_add(&bytes, bytes, sft_generator_bytes(s->answer[i].generator)))
            bytes = UINT64_MAX;
    if (!code && fit.step_limit && bytes > fit.step_limit)
        return sf_fail(
            err, SF_ENOMEM,
            "a text of %lld tokens takes %llu bytes beside weights and adapter, there is "
            "room for %llu",
            (long long)(s->prompt.count + s->options->max_new_tokens), (unsigned long long)bytes,
            (unsigned long long)fit.step_limit);
    return code;
}

static int prepare(struct session *s, struct sf_err *err)
{
    const struct ft_options *o = s->options;
    int code = ft_model_open(&s->model, o, err);
    if (!code)
        code = read_prompt(s, err);
    if (!code && o->adapter)
        code = ft_model_lora(&s->model, o, false, err);
    if (!code)
        code = open_answers(s, err);
    if (!code)
        code = check_room(s, err);
    if (!code && o->adapter)
        code = ft_model_fill_lora(&s->model, o, false, err);
    if (!code)
        code = ft_model_load(&s->model, o, err);
    for (int i = 0; !code && i < s->answers; i++)
        code = sft_generator_allocate(s->answer[i].generator, s->model.image, err);
    if (code)
        return code;
    s->logits = sf_arena_array(&s->arena, (uint64_t)s->model.spec.vocabulary, sizeof *s->logits);
    return s->logits ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for logits");
}

int ft_generate(const struct ft_options *options, struct sf_err *err)
{
    struct session s = {.options = options};
    int code = prepare(&s, err);
    tool_catch_signals();
    for (int i = 0; !code && i < s.answers; i++) {
        code = answer(&s, &s.answer[i], err);
        if (!code && !s.model.ops->device)
            code = sf_map_check(s.model.map, err);
        if (!code && !options->json)
            print_answer(&s, &s.answer[i]);
    }
    if (!code && options->json)
        code = print_json(&s, err);
    for (int i = 0; i < s.answers; i++) {
        sft_generator_close(s.answer[i].generator);
        sf_ids_free(&s.answer[i].ids);
    }
    sf_ids_free(&s.prompt);
    sf_arena_free(&s.arena);
    ft_model_close(&s.model);
    return code;
}
