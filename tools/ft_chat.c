#include "tools/ft_chat.h"

#include <string.h>

/* A carried file; *text is NULL when there is none. */
static int read_carried(char **text, uint64_t *bytes, const struct sf_map *map, const char *name,
                        struct sf_arena *arena, struct sf_err *err)
{
    struct sf_err missing = {0};
    *text = NULL;
    int code = sf_map_read_file(text, bytes, map, name, arena, &missing);
    if (code == SF_ENOENT) {
        *text = NULL;
        return SF_OK;
    }
    if (code && err)
        *err = missing;
    return code;
}

static int read_json(struct sf_json **out, const struct sf_map *map, const char *name,
                     struct sf_arena *arena, struct sf_err *err)
{
    char *text;
    uint64_t bytes;
    *out = NULL;
    int code = read_carried(&text, &bytes, map, name, arena, err);
    if (!code && text)
        code = sf_json_parse(out, text, bytes, err);
    return code ? sf_err_prefix(err, "%s: %s", sf_map_path(map), name) : SF_OK;
}

/* ---- the template ---- */

/* A string, or of a list of {"name", "template"} the one named default. */
static const char *template_of(const struct sf_json *config)
{
    const struct sf_json *value = sf_json_get(config, "chat_template");
    const char *text = NULL, *name = NULL;
    if (value && sf_json_type(value) == SF_JSON_STRING)
        return sf_json_as_string(&text, value, "chat_template", NULL) == SF_OK ? text : NULL;
    for (const struct sf_json *t = value ? sf_json_first(value) : NULL; t; t = sf_json_next(t))
        if (sf_json_get(t, "name") && sf_json_get(t, "template") &&
            sf_json_as_string(&name, sf_json_get(t, "name"), "name", NULL) == SF_OK &&
            strcmp(name, "default") == 0 &&
            sf_json_as_string(&text, sf_json_get(t, "template"), "template", NULL) == SF_OK)
            return text;
    return NULL;
}

static int recognise(struct ft_chat *out, const char *file, const char *text, uint64_t bytes,
                     struct sf_arena *arena, struct sf_err *err)
{
    struct sf_err why = {0};
    int code = sf_chat_format_recognise(&out->format, text, bytes, &why);
    if (code == SF_OK)
        return SF_OK;
    if (code != SF_EUNSUPPORTED) {
        *err = why;
        return code;
    }
    out->unknown = sf_arena_printf(arena, "%s holds %s; --chat-format llama4 takes Llama 4's own",
                                   file, why.message);
    return out->unknown ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a message");
}

static int read_template(struct ft_chat *out, const struct sf_map *map, struct sf_arena *arena,
                         struct sf_err *err)
{
    static const char *const file[] = {"chat_template.json", "tokenizer_config.json"};
    char *text;
    uint64_t bytes;
    int code = read_carried(&text, &bytes, map, "chat_template.jinja", arena, err);
    if (code || text)
        return code ? code : recognise(out, "chat_template.jinja", text, bytes, arena, err);
    for (int i = 0; i < 2; i++) {
        struct sf_json *config;
        code = read_json(&config, map, file[i], arena, err);
        const char *found = code ? NULL : template_of(config);
        if (found)
            code = recognise(out, file[i], found, strlen(found), arena, err);
        sf_json_free(config);
        if (code || found)
            return code;
    }
    return SF_OK;
}

/* ---- tokens that end ---- */

static int read_end_of_text(struct ft_chat *out, const struct sf_map *map,
                            const struct sf_tokenizer *tokenizer, struct sf_arena *arena,
                            struct sf_err *err)
{
    struct sf_json *config;
    const char *text;
    int code = read_json(&config, map, "tokenizer_config.json", arena, err);
    const struct sf_json *token = sf_json_get(config, "eos_token");
    if (token && sf_json_type(token) == SF_JSON_OBJECT)
        token = sf_json_get(token, "content");
    if (!code && tokenizer && token && sf_json_as_string(&text, token, "eos_token", NULL) == SF_OK)
        out->end_of_text = sf_tokenizer_id(tokenizer, text);
    sf_json_free(config);
    return code;
}

/* A number or a list of numbers. */
static int take_stops(struct ft_chat *out, const struct sf_json *value, struct sf_arena *arena,
                      struct sf_err *err)
{
    bool list = sf_json_type(value) == SF_JSON_ARRAY;
    int64_t count = list ? sf_json_count(value) : 1, id;
    int32_t *stop = sf_arena_array(arena, (uint64_t)count + 1, sizeof *stop);
    const struct sf_json *v = list ? sf_json_first(value) : value;
    if (!stop)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld tokens", (long long)count);
    for (int64_t i = 0; i < count; i++, v = list ? sf_json_next(v) : NULL) {
        int code = sf_json_as_int(&id, v, "eos_token_id", err);
        if (code)
            return code;
        stop[i] = id < 0 || id > INT32_MAX ? -1 : (int32_t)id;
    }
    out->stop = stop;
    out->stops = count;
    return SF_OK;
}

static int read_stops(struct ft_chat *out, const struct sf_map *map, struct sf_arena *arena,
                      struct sf_err *err)
{
    static const char *const file[] = {"generation_config.json", "config.json"};
    int code = SF_OK;
    for (int i = 0; !code && i < 2 && !out->stop; i++) {
        struct sf_json *config;
        code = read_json(&config, map, file[i], arena, err);
        const struct sf_json *value = sf_json_get(config, "eos_token_id");
        if (!value)
            value = sf_json_get(sf_json_get(config, "text_config"), "eos_token_id");
        if (!code && value && sf_json_type(value) != SF_JSON_NULL)
            code = take_stops(out, value, arena, err);
        sf_json_free(config);
    }
    return code;
}

int ft_chat_read(struct ft_chat *out, const struct sf_map *map,
                 const struct sf_tokenizer *tokenizer, const char *wanted, struct sf_arena *arena,
                 struct sf_err *err)
{
    *out = (struct ft_chat){.end_of_text = -1};
    int code = SF_OK;
    if (!wanted || !sf_chat_format_from_name(&out->format, wanted))
        code = read_template(out, map, arena, err);
    if (!code)
        code = read_end_of_text(out, map, tokenizer, arena, err);
    return code ? code : read_stops(out, map, arena, err);
}
