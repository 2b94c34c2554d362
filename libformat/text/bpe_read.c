#include <string.h>

#include "libformat/base/mem.h"
#include "libformat/text/bpe.h"
#include "libformat/text/byte_alphabet.h"

/* ---- flags ---- */

static int refuse_unless_null(const struct sf_json *model, const char *key, struct sf_err *err)
{
    const struct sf_json *v = sf_json_get(model, key);
    if (!v || sf_json_type(v) == SF_JSON_NULL)
        return SF_OK;
    const char *text;
    double number;
    if (sf_json_type(v) == SF_JSON_STRING && sf_json_as_string(&text, v, key, NULL) == SF_OK &&
        !*text && strcmp(key, "unk_token") != 0)
        return SF_OK; /* an empty prefix or suffix */
    if (sf_json_type(v) == SF_JSON_NUMBER && sf_json_as_double(&number, v, key, NULL) == SF_OK &&
        number == 0)
        return SF_OK; /* dropout 0 */
    return sf_fail(err, SF_EUNSUPPORTED, "model.%s is set; only null is supported", key);
}

static int read_flag(bool *out, const struct sf_json *model, const char *key, struct sf_err *err)
{
    const struct sf_json *v = sf_json_get(model, key);
    *out = false;
    return v ? sf_json_as_bool(out, v, key, err) : SF_OK;
}

static int read_flags(struct sf_bpe *bpe, const struct sf_json *model, struct sf_err *err)
{
    static const char *const known[] = {"type",          "dropout",
                                        "unk_token",     "continuing_subword_prefix",
                                        "fuse_unk",      "end_of_word_suffix",
                                        "byte_fallback", "ignore_merges",
                                        "vocab",         "merges"};
    static const char *const null[] = {"dropout", "unk_token", "continuing_subword_prefix",
                                       "end_of_word_suffix"};
    for (const struct sf_json *m = sf_json_first(model); m; m = sf_json_next(m)) {
        bool ok = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            ok = ok || strcmp(sf_json_key(m), known[i]) == 0;
        if (!ok)
            return sf_fail(err, SF_EUNSUPPORTED, "model.%s is not known", sf_json_key(m));
    }
    const char *type = "BPE";
    const struct sf_json *v = sf_json_get(model, "type");
    int code = v ? sf_json_as_string(&type, v, "model.type", err) : SF_OK;
    if (code == SF_OK && strcmp(type, "BPE") != 0)
        return sf_fail(err, SF_EUNSUPPORTED, "model.type is \"%s\"; only BPE is supported", type);
    for (size_t i = 0; i < sizeof null / sizeof null[0] && code == SF_OK; i++)
        code = refuse_unless_null(model, null[i], err);
    bool fallback = false;
    if (code == SF_OK)
        code = read_flag(&fallback, model, "byte_fallback", err);
    if (code == SF_OK && fallback)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "model.byte_fallback is true; only false is supported");
    return code == SF_OK ? read_flag(&bpe->ignore_merges, model, "ignore_merges", err) : code;
}

/* ---- vocabulary ---- */

/* Checks types and finds the highest id, so that the tables can be made in one go. */
static int measure_vocabulary(struct sf_bpe *bpe, const struct sf_json *vocab, struct sf_err *err)
{
    for (const struct sf_json *m = sf_json_first(vocab); m; m = sf_json_next(m)) {
        int64_t id;
        int code = sf_json_as_int(&id, m, sf_json_key(m), err);
        if (code != SF_OK)
            return sf_err_prefix(err, "model.vocab");
        if (id < 0 || id > SF_BPE_MAX_ID)
            return sf_fail(err, SF_EFORMAT, "model.vocab: token \"%s\" has id %lld, not 0..%d",
                           sf_json_key(m), (long long)id, SF_BPE_MAX_ID);
        bpe->ids = id >= bpe->ids ? id + 1 : bpe->ids;
        bpe->count++;
    }
    if (bpe->count == 0)
        return sf_fail(err, SF_EFORMAT, "model.vocab has no tokens");
    return SF_OK;
}

static int add_token(struct sf_bpe *bpe, const char *text, int32_t id, struct sf_arena *arena,
                     struct sf_err *err)
{
    uint64_t bytes = strlen(text);
    if (bpe->token[id])
        return sf_fail(err, SF_EFORMAT, "tokens \"%s\" and \"%s\" both have id %d", bpe->token[id],
                       text, id);
    char *copy = sf_arena_strndup(arena, text, bytes);
    if (!copy)
        return sf_fail(err, SF_ENOMEM, "cannot allocate token strings");
    bpe->token[id] = copy;
    bpe->longest = bytes > bpe->longest ? (uint32_t)bytes : bpe->longest;
    return sf_words_add(&bpe->words, copy, (uint32_t)bytes, id, err);
}

static int read_vocabulary(struct sf_bpe *bpe, const struct sf_json *vocab, struct sf_arena *arena,
                           struct sf_err *err)
{
    if (!vocab || sf_json_type(vocab) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "model.vocab is not an object");
    int code = measure_vocabulary(bpe, vocab, err);
    if (code == SF_OK)
        code = sf_words_init(&bpe->words, bpe->count, err);
    if (code == SF_OK) {
        bpe->token = sf_arena_array(arena, (uint64_t)bpe->ids, sizeof *bpe->token);
        if (!bpe->token)
            code = sf_fail(err, SF_ENOMEM, "cannot allocate %lld tokens", (long long)bpe->ids);
    }
    for (const struct sf_json *m = sf_json_first(vocab); m && code == SF_OK; m = sf_json_next(m)) {
        int64_t id = 0;
        code = sf_json_as_int(&id, m, "id", err);
        if (code == SF_OK)
            code = add_token(bpe, sf_json_key(m), (int32_t)id, arena, err);
        if (code != SF_OK)
            sf_err_prefix(err, "model.vocab");
    }
    return code;
}

static int read_bytes(struct sf_bpe *bpe, struct sf_err *err)
{
    for (int b = 0; b < 256; b++) {
        char text[2];
        int n = sf_byte_to_char(text, (unsigned char)b);
        bpe->byte_id[b] = sf_words_find(&bpe->words, text, (uint64_t)n);
        bool in_utf8 = b < 0xc0 || (b >= 0xc2 && b <= 0xf4);
        if (bpe->byte_id[b] < 0 && in_utf8)
            return sf_fail(err, SF_EUNSUPPORTED,
                           "model.vocab has no token \"%.*s\" for byte 0x%02x: not a byte-level "
                           "vocabulary",
                           n, text, (unsigned)b);
    }
    return SF_OK;
}

/* ---- merges ---- */

static uint64_t slot_of(const struct sf_bpe *bpe, uint64_t key)
{
    uint64_t h = key * 0x9e3779b97f4a7c15u;
    uint64_t i = (h ^ h >> 32) & bpe->merge_mask;
    while (bpe->merge[i].id >= 0 && bpe->merge[i].key != key)
        i = (i + 1) & bpe->merge_mask;
    return i;
}

const struct sf_merge *sf_bpe_find_merge(const struct sf_bpe *bpe, int32_t left, int32_t right)
{
    const struct sf_merge *m =
        &bpe->merge[slot_of(bpe, (uint64_t)(uint32_t)left << 32 | (uint32_t)right)];
    return m->id >= 0 ? m : NULL;
}

static int make_merge_table(struct sf_bpe *bpe, int64_t count, struct sf_err *err)
{
    uint64_t slots = 16;
    while (slots < (uint64_t)count * 2)
        slots *= 2;
    void *block;
    int code = sf_alloc_for(&block, slots * sizeof *bpe->merge, "merges", err);
    if (code != SF_OK)
        return code;
    bpe->merge = block;
    bpe->merge_mask = slots - 1;
    for (uint64_t i = 0; i < slots; i++)
        bpe->merge[i].id = -1;
    return SF_OK;
}

/* ["a", "b"] or, in older files, "a b". */
static int merge_parts(const char **left, uint64_t *left_bytes, const char **right,
                       const struct sf_json *merge, struct sf_err *err)
{
    if (sf_json_type(merge) == SF_JSON_ARRAY) {
        const struct sf_json *a = sf_json_first(merge), *b = a ? sf_json_next(a) : NULL;
        if (!b || sf_json_next(b) || sf_json_type(a) != SF_JSON_STRING ||
            sf_json_type(b) != SF_JSON_STRING)
            return sf_fail(err, SF_EFORMAT, "not a pair of strings");
        sf_json_as_string(left, a, "merge", err);
        sf_json_as_string(right, b, "merge", err);
        *left_bytes = strlen(*left);
        return SF_OK;
    }
    int code = sf_json_as_string(left, merge, "merge", err);
    const char *space = code == SF_OK ? strchr(*left, ' ') : NULL;
    if (code == SF_OK && (!space || strchr(space + 1, ' ')))
        return sf_fail(err, SF_EFORMAT, "\"%s\" is not two tokens with one space between", *left);
    if (code == SF_OK) {
        *left_bytes = (uint64_t)(space - *left);
        *right = space + 1;
    }
    return code;
}

static int add_merge(struct sf_bpe *bpe, const struct sf_json *merge, int32_t rank, char *joined,
                     struct sf_err *err)
{
    const char *left = NULL, *right = NULL;
    uint64_t left_bytes = 0;
    int code = merge_parts(&left, &left_bytes, &right, merge, err);
    if (code != SF_OK)
        return code;
    uint64_t right_bytes = strlen(right);
    int32_t a = sf_words_find(&bpe->words, left, left_bytes);
    int32_t b = sf_words_find(&bpe->words, right, right_bytes);
    if (a < 0 || b < 0)
        return sf_fail(err, SF_EFORMAT, "\"%s\" is not in the vocabulary", a < 0 ? left : right);
    memcpy(joined, left, left_bytes); /* both are tokens: `joined` holds two of the longest */
    memcpy(joined + left_bytes, right, right_bytes);
    int32_t id = sf_words_find(&bpe->words, joined, left_bytes + right_bytes);
    if (id < 0)
        return sf_fail(err, SF_EFORMAT, "\"%.*s\" is not in the vocabulary",
                       (int)(left_bytes + right_bytes), joined);
    uint64_t key = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    bpe->merge[slot_of(bpe, key)] = (struct sf_merge){.key = key, .rank = rank, .id = id};
    return SF_OK;
}

static bool is_version_line(const struct sf_json *merge)
{
    const char *text;
    return sf_json_as_string(&text, merge, "merge", NULL) == SF_OK &&
           strncmp(text, "#version", 8) == 0;
}

static int read_merges(struct sf_bpe *bpe, const struct sf_json *merges, struct sf_err *err)
{
    if (!merges || sf_json_type(merges) != SF_JSON_ARRAY)
        return sf_fail(err, SF_EFORMAT, "model.merges is not an array");
    int64_t count = sf_json_count(merges), number = 0;
    if (count > INT32_MAX)
        return sf_fail(err, SF_EFORMAT, "model.merges has %lld entries", (long long)count);
    void *joined;
    int32_t rank = 0;
    int code = make_merge_table(bpe, count, err);
    if (code == SF_OK)
        code = sf_alloc_for(&joined, (uint64_t)bpe->longest * 2 + 1, "merges", err);
    if (code != SF_OK)
        return code;
    for (const struct sf_json *m = sf_json_first(merges); m && code == SF_OK;
         m = sf_json_next(m), number++) {
        if (is_version_line(m))
            continue;
        code = add_merge(bpe, m, rank++, joined, err);
        if (code != SF_OK)
            sf_err_prefix(err, "model.merges, entry %lld", (long long)number);
    }
    sf_free(joined);
    bpe->ranks = rank;
    return code;
}

int sf_bpe_read(struct sf_bpe *bpe, const struct sf_json *model, struct sf_arena *arena,
                struct sf_err *err)
{
    if (!model || sf_json_type(model) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "model is not an object");
    int code = read_flags(bpe, model, err);
    if (code == SF_OK)
        code = read_vocabulary(bpe, sf_json_get(model, "vocab"), arena, err);
    if (code == SF_OK)
        code = read_bytes(bpe, err);
    if (code == SF_OK)
        code = read_merges(bpe, sf_json_get(model, "merges"), err);
    return code;
}

void sf_bpe_free(struct sf_bpe *bpe)
{
    sf_words_free(&bpe->words);
    sf_free(bpe->merge);
    *bpe = (struct sf_bpe){0};
}
