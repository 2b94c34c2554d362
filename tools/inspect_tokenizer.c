/* The verb tokenizer: look up ids and tokens, encode a text. */
#include <stdlib.h>
#include <string.h>

#include "libformat/text/tokenizer.h"
#include "tools/columns.h"
#include "tools/inspect_verbs.h"

/* What was asked for, as ids. */
struct answer {
    struct inspect *in;
    const struct sf_tokenizer *tokenizer;
    struct sf_ids ids;
};

/* ---- what the options ask ---- */

static int add(struct answer *a, int32_t id, struct sf_err *err)
{
    return sf_ids_append(&a->ids, &id, 1, err);
}

static int add_id(struct answer *a, const char *text, struct sf_err *err)
{
    char *end;
    long long id = strtoll(text, &end, 10), most = sf_tokenizer_vocabulary(a->tokenizer);
    if (end == text || *end)
        return sf_fail(err, SF_EINVAL, "--id takes a number, not \"%s\"", text);
    if (id < 0 || id >= most || !sf_tokenizer_token(a->tokenizer, (int32_t)id))
        return sf_fail(err, SF_EINVAL,
                       "no token has the id %lld; the vocabulary has ids up to %lld", id, most - 1);
    return add(a, (int32_t)id, err);
}

/* As tokenizer.json writes it, or as text: " the" finds what is written with a letter for the space. */
static int32_t find_token(const struct answer *a, const char *text)
{
    int32_t id = sf_tokenizer_id(a->tokenizer, text);
    for (int32_t i = 0; id < 0 && i < sf_tokenizer_vocabulary(a->tokenizer); i++) {
        char *plain;
        uint64_t bytes;
        if (sf_tokenizer_token(a->tokenizer, i) &&
            sf_tokenizer_decode(&plain, &bytes, a->tokenizer, &i, 1, false, a->in->arena, NULL) ==
                SF_OK &&
            bytes == strlen(text) && memcmp(plain, text, bytes) == 0)
            id = i;
    }
    return id;
}

static int add_token(struct answer *a, const char *text, struct sf_err *err)
{
    int32_t id = find_token(a, text);
    if (id < 0)
        return sf_fail(err, SF_EINVAL, "\"%s\" is no token of its own (--encode shows its pieces)",
                       text);
    return add(a, id, err);
}

static bool contains(const char *text, uint64_t bytes, const char *part)
{
    uint64_t length = strlen(part);
    for (uint64_t at = 0; at + length <= bytes; at++)
        if (memcmp(text + at, part, length) == 0)
            return true;
    return false;
}

static int add_found(struct answer *a, const char *part, struct sf_err *err)
{
    int code = SF_OK;
    int64_t before = a->ids.count;
    for (int32_t i = 0; i < sf_tokenizer_vocabulary(a->tokenizer) && code == SF_OK; i++) {
        char *plain;
        uint64_t bytes;
        const char *token = sf_tokenizer_token(a->tokenizer, i);
        if (!token)
            continue;
        code = sf_tokenizer_decode(&plain, &bytes, a->tokenizer, &i, 1, false, a->in->arena, err);
        if (code == SF_OK && (contains(plain, bytes, part) || strstr(token, part)))
            code = add(a, i, err);
    }
    if (code == SF_OK && a->ids.count == before)
        code = sf_fail(err, SF_EINVAL, "no token contains \"%s\"", part);
    return code;
}

static int add_encoded(struct answer *a, const char *text, bool special, struct sf_err *err)
{
    struct sf_tokenizer_scratch *scratch;
    int code = sf_tokenizer_scratch_open(&scratch, a->tokenizer, err);
    if (code != SF_OK)
        return code;
    code = sf_tokenizer_encode(&a->ids, a->tokenizer, text, strlen(text), special, scratch, err);
    sf_tokenizer_scratch_close(scratch);
    return code;
}

static int add_special_tokens(struct answer *a, struct sf_err *err)
{
    int code = SF_OK;
    for (int32_t i = 0; i < sf_tokenizer_vocabulary(a->tokenizer) && code == SF_OK; i++)
        if (sf_tokenizer_token(a->tokenizer, i) && sf_tokenizer_is_special(a->tokenizer, i))
            code = add(a, i, err);
    return code;
}

static bool asks(const struct inspect_request *r)
{
    return r->id.count || r->token.count || r->find.count || r->encode;
}

static int gather(struct answer *a, const struct inspect_request *r, struct sf_err *err)
{
    int code = asks(r) ? SF_OK : add_special_tokens(a, err);
    for (int64_t i = 0; i < r->id.count && code == SF_OK; i++)
        code = add_id(a, r->id.item[i], err);
    for (int64_t i = 0; i < r->token.count && code == SF_OK; i++)
        code = add_token(a, r->token.item[i], err);
    for (int64_t i = 0; i < r->find.count && code == SF_OK; i++)
        code = add_found(a, r->find.item[i], err);
    if (code == SF_OK && r->encode)
        code = add_encoded(a, r->encode, r->add_special, err);
    return code;
}

/* ---- what is shown ---- */

/* The token's text in quotes. A NUL byte would end the cell, so it is written out. */
static int quoted(const char **out, struct answer *a, int32_t id, struct sf_err *err)
{
    char *plain;
    uint64_t bytes, at = 1;
    int code = sf_tokenizer_decode(&plain, &bytes, a->tokenizer, &id, 1, false, a->in->arena, err);
    if (code != SF_OK)
        return code;
    char *text = sf_arena_alloc(a->in->arena, 4 * bytes + 3);
    if (!text)
        return sf_fail(err, SF_ENOMEM, "no memory for a token of %llu bytes",
                       (unsigned long long)bytes);
    text[0] = '"';
    for (uint64_t i = 0; i < bytes; i++) {
        if (plain[i])
            text[at++] = plain[i];
        else
            at += (uint64_t)sprintf(text + at, "\\x00");
    }
    text[at] = '"';
    *out = text;
    return SF_OK;
}

static int print_text(struct answer *a, const struct inspect_request *r, struct sf_err *err)
{
    static const struct column heads[] = {{"id", true, false, 0},
                                          {"text", false, false, 0},
                                          {"special", false, false, 1},
                                          {"as written", false, true, 2}};
    struct columns c;
    int code = SF_OK;
    if (!asks(r))
        fprintf(a->in->out, "vocabulary of %s ids; %s special tokens:\n",
                inspect_number(a->in, (uint64_t)sf_tokenizer_vocabulary(a->tokenizer)),
                inspect_number(a->in, (uint64_t)a->ids.count));
    columns_begin(&c, a->in->arena, heads, 4);
    for (int64_t i = 0; i < a->ids.count && code == SF_OK; i++) {
        int32_t id = a->ids.id[i];
        const char *text = "";
        code = quoted(&text, a, id, err);
        if (code != SF_OK)
            break;
        columns_cell(&c, "%d", id);
        columns_cell(&c, "%s", text);
        columns_cell(&c, "%s", sf_tokenizer_is_special(a->tokenizer, id) ? "yes" : "-");
        columns_cell(&c, "%s", sf_tokenizer_token(a->tokenizer, id));
    }
    return code == SF_OK ? columns_print(&c, a->in->out, 0, a->in->width, err) : code;
}

static int write_token(struct sf_json_writer *w, struct answer *a, int32_t id, struct sf_err *err)
{
    char *plain, hex[4];
    uint64_t bytes;
    int code = sf_tokenizer_decode(&plain, &bytes, a->tokenizer, &id, 1, false, a->in->arena, err);
    if (code != SF_OK)
        return code;
    char *all = sf_arena_alloc(a->in->arena, 2 * bytes + 1);
    for (uint64_t i = 0; all && i < bytes; i++) {
        snprintf(hex, sizeof hex, "%02x", (unsigned char)plain[i]);
        memcpy(all + 2 * i, hex, 3);
    }
    sf_json_write_object(w, NULL);
    sf_json_write_int(w, "id", id);
    sf_json_write_string(w, "token", sf_tokenizer_token(a->tokenizer, id));
    if (strlen(plain) == bytes && sf_utf8_valid(plain, bytes, NULL))
        sf_json_write_string(w, "text", plain);
    else
        sf_json_write_null(w, "text"); /* a piece of a character */
    sf_json_write_string(w, "bytes", all ? all : "");
    sf_json_write_bool(w, "special", sf_tokenizer_is_special(a->tokenizer, id));
    sf_json_write_end(w, '}');
    return SF_OK;
}

static int print_json(struct answer *a, struct sf_err *err)
{
    struct sf_json_writer w;
    int code = SF_OK;
    sf_json_write_begin(&w, a->in->arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_string(&w, "schema", "scout-inspect-tokenizer/1");
    sf_json_write_int(&w, "vocabulary", sf_tokenizer_vocabulary(a->tokenizer));
    sf_json_write_array(&w, "tokens");
    for (int64_t i = 0; i < a->ids.count && code == SF_OK; i++)
        code = write_token(&w, a, a->ids.id[i], err);
    sf_json_write_end(&w, ']');
    sf_json_write_end(&w, '}');
    return code == SF_OK ? inspect_print_written(a->in, &w, err) : code;
}

int inspect_tokenizer(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    struct answer a = {.in = in};
    struct sf_tokenizer *tokenizer = NULL;
    char *text;
    uint64_t bytes;
    if (r->add_special && !r->encode)
        return sf_fail(err, SF_EINVAL, "--special goes with --encode");
    int code = sf_map_read_file(&text, &bytes, in->map, "tokenizer.json", in->arena, err);
    if (code == SF_OK) {
        code = sf_tokenizer_open(&tokenizer, text, bytes, err);
        if (code != SF_OK)
            sf_err_prefix(err, "%s: tokenizer.json", sf_map_path(in->map));
    }
    a.tokenizer = tokenizer;
    if (code == SF_OK)
        code = gather(&a, r, err);
    if (code == SF_OK)
        code = r->json ? print_json(&a, err) : print_text(&a, r, err);
    sf_ids_free(&a.ids);
    sf_tokenizer_close(tokenizer);
    return code;
}
