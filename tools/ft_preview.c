/* The verb preview: rows as tokens, those that are trained marked. */
#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/map_guard.h"
#include "libformat/base/json.h"
#include "tools/ft_data.h"
#include "tools/ft_tokens.h"
#include "tools/ft_verbs.h"

struct preview {
    struct ft_model model; /* without a back end */
    const struct ft_options *options;
    struct sft_row_encoder encoder;
    struct sft_row_tokens tokens;
    struct sf_json_writer json;
    struct sf_arena arena; /* of the JSON text */
    int64_t shown;
};

/* ---- one row ---- */

static int write_json(struct preview *p, const char *file, int64_t line, int64_t count,
                      struct sf_err *err)
{
    char piece[FT_TOKEN_TEXT];
    struct sf_json_writer *w = &p->json;
    int code = SF_OK;
    sf_json_write_object(w, NULL);
    sf_json_write_string(w, "file", file);
    sf_json_write_int(w, "line", line);
    sf_json_write_string(w, "kind", sft_row_kind_name(p->tokens.kind));
    sf_json_write_int(w, "tokens", p->tokens.id.count);
    sf_json_write_int(w, "trained", p->tokens.trained);
    sf_json_write_array(w, "input_ids");
    for (int64_t i = 0; i < count; i++)
        sf_json_write_int(w, NULL, p->tokens.id.id[i]);
    sf_json_write_end(w, ']');
    sf_json_write_array(w, "labels");
    for (int64_t i = 0; i < count; i++)
        sf_json_write_int(w, NULL, p->tokens.label.id[i]);
    sf_json_write_end(w, ']');
    sf_json_write_array(w, "pieces");
    for (int64_t i = 0; !code && i < count; i++) {
        code = ft_token_text(piece, &p->model, p->tokens.id.id[i], err);
        sf_json_write_string(w, NULL, piece);
    }
    sf_json_write_end(w, ']');
    sf_json_write_end(w, '}');
    return code;
}

/* The row stands in p->tokens. */
static int show(struct preview *p, const char *file, int64_t line, struct sf_err *err)
{
    int64_t all = p->tokens.id.count, most = p->options->max_seq_length;
    int64_t count = all < most ? all : most;
    p->shown++;
    if (p->options->json)
        return write_json(p, file, line, count, err);
    printf("%s%s:%lld: %s, %lld tokens, %lld trained", p->shown > 1 ? "\n" : "", file,
           (long long)line, sft_row_kind_name(p->tokens.kind), (long long)all,
           (long long)p->tokens.trained);
    if (count < all)
        printf("; cut behind %lld (--max-seq-length)", (long long)count);
    printf("\n");
    return ft_print_tokens(&p->model, p->tokens.id.id, p->tokens.label.id, count, err);
}

static int show_line(struct preview *p, const char *file, const char *text, uint64_t bytes,
                     int64_t line, struct sf_err *err)
{
    struct sf_json *row;
    if (strspn(text, " \t\r") >= bytes)
        return SF_OK;
    int code = sf_json_parse(&row, text, bytes, err);
    if (!code)
        code = sft_row_encode(&p->tokens, &p->encoder, row, err);
    if (code)
        sf_err_prefix(err, "%s: line %lld", file, (long long)line);
    else
        code = show(p, file, line, err);
    sf_json_free(row);
    return code;
}

/* ---- files ---- */

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* A text file is a row of text. */
static int show_text(struct preview *p, const char *file, const struct sf_mapping *map,
                     struct sf_err *err)
{
    struct sft_row_tokens *t = &p->tokens;
    if (!p->model.tokenizer)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "%s: text, but the container carries no tokenizer.json", file);
    if (p->encoder.train_on == SFT_TRAIN_ON_ASSISTANT || p->encoder.train_on == SFT_TRAIN_ON_LAST)
        return sf_fail(err, SF_EINVAL, "%s: text has no part that an assistant said", file);
    t->kind = SFT_ROW_TEXT;
    t->id.count = t->label.count = 0;
    int code = sf_tokenizer_encode(&t->id, p->model.tokenizer, (const char *)map->data, map->bytes,
                                   p->encoder.add_special, t->scratch, err);
    if (!code && t->id.count)
        code = sf_ids_append(&t->label, t->id.id, t->id.count, err);
    t->trained = t->id.count ? t->id.count - 1 : 0;
    return code ? sf_err_prefix(err, "%s", file) : show(p, file, 1, err);
}

static int show_lines(struct preview *p, const char *file, const struct sf_mapping *map,
                      struct sf_err *err)
{
    const char *at = (const char *)map->data, *end = at + map->bytes;
    int code = SF_OK;
    for (int64_t line = 1; !code && at < end && p->shown < p->options->rows; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        uint64_t bytes = (uint64_t)(stop - at);
        char *copy = sf_arena_strndup(&p->model.arena, at, bytes);
        code = copy ? show_line(p, file, copy, bytes, line, err)
                    : sf_fail(err, SF_ENOMEM, "%s: no memory for line %lld", file, (long long)line);
        at = stop + 1;
    }
    return code;
}

static int show_file(struct preview *p, const char *file, struct sf_err *err)
{
    struct sf_mapping map;
    bool lines = ends_with(file, ".jsonl") || ends_with(file, ".json");
    if (!lines && !ends_with(file, ".txt"))
        return sf_fail(err, SF_EINVAL, "%s: data files end in .txt or .jsonl", file);
    int code = sf_map_file(&map, file, err);
    if (code)
        return code;
    if (map.bytes)
        code = lines ? show_lines(p, file, &map, err) : show_text(p, file, &map, err);
    int there = sf_mapping_check(&map, file, err);
    sf_unmap(&map);
    return there ? there : code;
}

static int run(struct preview *p, struct sf_err *err)
{
    const struct tool_list *data = &p->options->data;
    int code = ft_model_open_text(&p->model, p->options, err);
    if (code)
        return code;
    p->encoder = ft_row_encoder(&p->model, p->options);
    code = sft_row_tokens_open(&p->tokens, &p->encoder, err);
    if (p->options->json) {
        sf_json_write_begin(&p->json, &p->arena, 0);
        sf_json_write_array(&p->json, NULL);
    }
    for (int64_t i = 0; !code && i < data->count && p->shown < p->options->rows; i++)
        code = show_file(p, data->item[i], err);
    if (!code && p->options->json) {
        char *text;
        sf_json_write_end(&p->json, ']');
        code = sf_json_write_finish(&text, NULL, &p->json, err);
        if (!code)
            printf("%s\n", text);
    }
    return code;
}

int ft_preview(const struct ft_options *options, struct sf_err *err)
{
    struct preview p = {.options = options};
    int code = run(&p, err);
    sft_row_tokens_close(&p.tokens);
    sf_arena_free(&p.arena);
    ft_model_close(&p.model);
    return code;
}
