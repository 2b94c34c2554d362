#include "libformat/text/tokenizer_file.h"

#include <string.h>

/* The split pattern that ByteLevel uses when no Split stands before it (GPT-2's). */
static const char BYTE_LEVEL_PATTERN[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static bool is_null(const struct sf_json *value)
{
    return !value || sf_json_type(value) == SF_JSON_NULL;
}

/* The "type" of a part; "" for what has none. */
static const char *type_of(const struct sf_json *part)
{
    const char *type = "";
    const struct sf_json *v = sf_json_get(part, "type");
    if (v && sf_json_as_string(&type, v, "type", NULL) != SF_OK)
        return "";
    return type;
}

static int refuse_type(const char *where, const struct sf_json *part, struct sf_err *err)
{
    return sf_fail(err, SF_EUNSUPPORTED, "%s of type \"%s\" is not supported here", where,
                   type_of(part));
}

/* ---- pre-tokenizer ---- */

static int check_false(const struct sf_json *part, const char *where, const char *key,
                       struct sf_err *err)
{
    bool on = false;
    const struct sf_json *v = sf_json_get(part, key);
    int code = v ? sf_json_as_bool(&on, v, key, err) : SF_OK;
    if (code == SF_OK && on)
        return sf_fail(err, SF_EUNSUPPORTED, "%s: %s is true; only false is supported", where, key);
    return code;
}

static int read_split(const char **pattern, const struct sf_json *split, struct sf_err *err)
{
    const char *behavior;
    int code = sf_json_as_string(&behavior, sf_json_get(split, "behavior"), "behavior", err);
    if (code == SF_OK && strcmp(behavior, "Isolated") != 0)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "pre_tokenizer: Split with behavior \"%s\"; only Isolated is supported",
                       behavior);
    if (code == SF_OK)
        code = check_false(split, "pre_tokenizer: Split", "invert", err);
    if (code == SF_OK)
        code = sf_json_as_string(pattern, sf_json_get(sf_json_get(split, "pattern"), "Regex"),
                                 "pre_tokenizer: Split: pattern.Regex", err);
    return code;
}

static int read_byte_level(bool *use_regex, const struct sf_json *part, struct sf_err *err)
{
    const struct sf_json *v = sf_json_get(part, "use_regex");
    *use_regex = true; /* older files do not say */
    int code = check_false(part, "pre_tokenizer: ByteLevel", "add_prefix_space", err);
    if (code == SF_OK && v)
        code = sf_json_as_bool(use_regex, v, "pre_tokenizer: ByteLevel: use_regex", err);
    return code;
}

static int read_pre_tokenizer(struct sf_tokenizer *t, const struct sf_json *pre, struct sf_err *err)
{
    const struct sf_json *split = NULL, *bytes = pre;
    const char *pattern = NULL;
    bool use_regex = true;
    int code = SF_OK;
    if (is_null(pre))
        return sf_fail(err, SF_EUNSUPPORTED,
                       "pre_tokenizer is missing: not a byte-level tokenizer");
    if (strcmp(type_of(pre), "Sequence") == 0) {
        split = sf_json_first(sf_json_get(pre, "pretokenizers"));
        bytes = split ? sf_json_next(split) : NULL;
        if (!bytes || sf_json_next(bytes) || strcmp(type_of(split), "Split") != 0)
            return sf_fail(err, SF_EUNSUPPORTED,
                           "pre_tokenizer: a Sequence of anything but one Split and one ByteLevel");
        code = read_split(&pattern, split, err);
    }
    if (code == SF_OK && strcmp(type_of(bytes), "ByteLevel") != 0)
        return refuse_type("pre_tokenizer", bytes, err);
    if (code == SF_OK)
        code = read_byte_level(&use_regex, bytes, err);
    if (code != SF_OK)
        return code;
    if (pattern && use_regex)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "pre_tokenizer: Split before a ByteLevel with its own "
                       "regex (use_regex)");
    if (!pattern && !use_regex)
        return SF_OK;
    code = sf_splitter_open(&t->splitter, pattern ? pattern : BYTE_LEVEL_PATTERN, err);
    return code == SF_OK ? SF_OK : sf_err_prefix(err, "pre_tokenizer");
}

/* ---- post-processor ---- */

/* Appends the ids that a template's special token `name` stands for. */
static int append_special(struct sf_ids *out, const struct sf_json *template, const char *name,
                          const struct sf_tokenizer *t, struct sf_err *err)
{
    const struct sf_json *entry = sf_json_get(sf_json_get(template, "special_tokens"), name);
    const struct sf_json *ids = sf_json_get(entry, "ids");
    if (!ids || sf_json_type(ids) != SF_JSON_ARRAY)
        return sf_fail(err, SF_EFORMAT, "special_tokens has no ids for \"%s\"", name);
    for (const struct sf_json *v = sf_json_first(ids); v; v = sf_json_next(v)) {
        int64_t id;
        int code = sf_json_as_int(&id, v, "id", err);
        if (code == SF_OK && (id < 0 || id >= t->ids || !t->text[id]))
            return sf_fail(err, SF_EFORMAT, "special token \"%s\" has id %lld, which is no token",
                           name, (long long)id);
        int32_t narrow = (int32_t)id;
        if (code == SF_OK)
            code = sf_ids_append(out, &narrow, 1, err);
        if (code != SF_OK)
            return code;
    }
    return SF_OK;
}

/* "single": special tokens around exactly one Sequence A. */
static int read_template(struct sf_tokenizer *t, const struct sf_json *template, struct sf_err *err)
{
    int texts = 0;
    for (const struct sf_json *p = sf_json_first(sf_json_get(template, "single")); p;
         p = sf_json_next(p)) {
        const struct sf_json *special = sf_json_get(p, "SpecialToken");
        const struct sf_json *text = sf_json_get(p, "Sequence");
        const char *id;
        int code = sf_json_as_string(&id, sf_json_get(special ? special : text, "id"),
                                     "TemplateProcessing: single: id", err);
        if (code == SF_OK && special)
            code = append_special(texts ? &t->after : &t->before, template, id, t, err);
        else if (code == SF_OK && (strcmp(id, "A") != 0 || texts++ > 0))
            code = sf_fail(err, SF_EUNSUPPORTED, "TemplateProcessing: single: text \"%s\"", id);
        if (code != SF_OK)
            return code;
    }
    if (texts != 1)
        return sf_fail(err, SF_EFORMAT, "TemplateProcessing: single has no text");
    return SF_OK;
}

static int read_processor(struct sf_tokenizer *t, const struct sf_json *part, int *templates,
                          struct sf_err *err)
{
    if (strcmp(type_of(part), "ByteLevel") == 0)
        return SF_OK; /* moves offsets, never ids */
    if (strcmp(type_of(part), "TemplateProcessing") != 0)
        return refuse_type("part", part, err);
    if ((*templates)++ > 0)
        return sf_fail(err, SF_EUNSUPPORTED, "more than one TemplateProcessing");
    return read_template(t, part, err);
}

static int read_post_processor(struct sf_tokenizer *t, const struct sf_json *post,
                               struct sf_err *err)
{
    int code = SF_OK, templates = 0;
    if (is_null(post))
        return SF_OK;
    if (strcmp(type_of(post), "Sequence") != 0) {
        code = read_processor(t, post, &templates, err);
    } else {
        const struct sf_json *p = sf_json_first(sf_json_get(post, "processors"));
        for (; p && code == SF_OK; p = sf_json_next(p))
            code = read_processor(t, p, &templates, err);
    }
    return code == SF_OK ? SF_OK : sf_err_prefix(err, "post_processor");
}

/* ---- the whole ---- */

static int make_id_table(struct sf_tokenizer *t, struct sf_err *err)
{
    t->ids = t->bpe.ids;
    for (int64_t i = 0; i < t->added.count; i++)
        t->ids = t->added.token[i].id >= t->ids ? (int64_t)t->added.token[i].id + 1 : t->ids;
    t->text = sf_arena_array(&t->arena, (uint64_t)t->ids, sizeof *t->text);
    t->special = sf_arena_array(&t->arena, (uint64_t)t->ids, sizeof *t->special);
    if (!t->text || !t->special)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %lld tokens", (long long)t->ids);
    memcpy(t->text, t->bpe.token, (uint64_t)t->bpe.ids * sizeof *t->text);
    for (int64_t i = 0; i < t->added.count; i++) {
        const struct sf_added_token *token = &t->added.token[i];
        t->text[token->id] = token->text;
        t->special[token->id] = token->special;
    }
    return SF_OK;
}

static int check_root(const struct sf_json *root, struct sf_err *err)
{
    static const char *const known[] = {"version",        "truncation", "padding",
                                        "added_tokens",   "normalizer", "pre_tokenizer",
                                        "post_processor", "decoder",    "model"};
    static const char *const null[] = {"truncation", "padding", "normalizer"};
    if (sf_json_type(root) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "not a JSON object");
    for (const struct sf_json *m = sf_json_first(root); m; m = sf_json_next(m)) {
        bool ok = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            ok = ok || strcmp(sf_json_key(m), known[i]) == 0;
        if (!ok)
            return sf_fail(err, SF_EUNSUPPORTED, "\"%s\" is not known", sf_json_key(m));
    }
    for (size_t i = 0; i < sizeof null / sizeof null[0]; i++)
        if (!is_null(sf_json_get(root, null[i])))
            return sf_fail(err, SF_EUNSUPPORTED, "%s is set; only null is supported", null[i]);
    const struct sf_json *decoder = sf_json_get(root, "decoder");
    if (is_null(decoder) || strcmp(type_of(decoder), "ByteLevel") != 0)
        return is_null(decoder) ? sf_fail(err, SF_EUNSUPPORTED, "decoder is missing")
                                : refuse_type("decoder", decoder, err);
    return sf_json_check_unique(root, err);
}

int sf_tokenizer_read(struct sf_tokenizer *t, const struct sf_json *root, struct sf_err *err)
{
    int code = check_root(root, err);
    if (code == SF_OK)
        code = sf_bpe_read(&t->bpe, sf_json_get(root, "model"), &t->arena, err);
    if (code == SF_OK)
        code = sf_added_tokens_read(&t->added, sf_json_get(root, "added_tokens"), &t->bpe,
                                    &t->arena, err);
    if (code == SF_OK)
        code = make_id_table(t, err);
    if (code == SF_OK)
        code = read_pre_tokenizer(t, sf_json_get(root, "pre_tokenizer"), err);
    if (code == SF_OK)
        code = read_post_processor(t, sf_json_get(root, "post_processor"), err);
    return code;
}
