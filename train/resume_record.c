#include "train/resume_record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- facts ---- */

static bool grow(struct sft_facts *facts, struct sf_arena *arena)
{
    int64_t room = facts->room ? 2 * facts->room : 32;
    struct sft_fact *more = sf_arena_array(arena, (uint64_t)room, sizeof *more);
    if (!more)
        return false;
    if (facts->count)
        memcpy(more, facts->fact, (size_t)facts->count * sizeof *more);
    facts->fact = more;
    facts->room = room;
    return true;
}

static void add_text(struct sft_facts *facts, struct sf_arena *arena, const char *name,
                     const char *value)
{
    struct sft_fact fact = {sf_arena_strdup(arena, name), sf_arena_strdup(arena, value)};
    if (facts->count == facts->room && !grow(facts, arena))
        facts->failed = true;
    if (!fact.name || !fact.value)
        facts->failed = true;
    if (!facts->failed)
        facts->fact[facts->count++] = fact;
}

void sft_facts_add(struct sft_facts *facts, struct sf_arena *arena, const char *name,
                   const char *fmt, ...)
{
    char value[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(value, sizeof value, fmt, args);
    va_end(args);
    add_text(facts, arena, name, value);
}

void sft_facts_add_double(struct sft_facts *facts, struct sf_arena *arena, const char *name,
                          double value)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    add_text(facts, arena, name, text);
}

static const char *value_of(const struct sft_facts *facts, const char *name)
{
    for (int64_t i = 0; i < facts->count; i++)
        if (strcmp(facts->fact[i].name, name) == 0)
            return facts->fact[i].value;
    return "nothing";
}

static const char *add_difference(struct sf_arena *arena, const char *text, const char *name,
                                  const char *was, const char *is)
{
    if (strcmp(was, is) == 0)
        return text;
    const char *longer = sf_arena_printf(arena, "%s%s%s was %s, is %s", text ? text : "",
                                         text ? "; " : "", name, was, is);
    return longer ? longer : "no memory to tell what differs";
}

const char *sft_facts_differences(struct sf_arena *arena, const struct sft_facts *was,
                                  const struct sft_facts *is)
{
    const char *text = NULL;
    for (int64_t i = 0; i < is->count; i++)
        text = add_difference(arena, text, is->fact[i].name, value_of(was, is->fact[i].name),
                              is->fact[i].value);
    for (int64_t i = 0; i < was->count; i++)
        if (strcmp(value_of(is, was->fact[i].name), "nothing") == 0)
            text = add_difference(arena, text, was->fact[i].name, was->fact[i].value, "nothing");
    return text;
}

/* ---- the checksum: the last member, over all bytes before it ---- */

static const char checksum_head[] = ",\"checksum\":\"";
enum { HASH_TEXT = 32, CHECKSUM_BYTES = sizeof checksum_head - 1 + HASH_TEXT + 3 };

static void hash_text(char out[HASH_TEXT + 1], struct sf_hash128 hash)
{
    snprintf(out, HASH_TEXT + 1, "%016llx%016llx", (unsigned long long)hash.high,
             (unsigned long long)hash.low);
}

static bool hex_word(uint64_t *out, const char *text)
{
    uint64_t value = 0;
    for (int i = 0; i < HASH_TEXT / 2; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return false;
        value = value << 4 | (uint64_t)digit;
    }
    *out = value;
    return true;
}

static bool hash_from_text(struct sf_hash128 *out, const char *text)
{
    return hex_word(&out->high, text) && hex_word(&out->low, text + HASH_TEXT / 2);
}

/* `body` ends before the last brace. */
static int add_checksum(char **text, uint64_t *bytes, struct sf_arena *arena, const char *body,
                        uint64_t body_bytes, struct sf_err *err)
{
    char hash[HASH_TEXT + 1];
    hash_text(hash, sf_hash128(body, body_bytes));
    *text = sf_arena_printf(arena, "%.*s%s%s\"}\n", (int)body_bytes, body, checksum_head, hash);
    *bytes = body_bytes + CHECKSUM_BYTES;
    return *text ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a resume record");
}

static int check_checksum(const char *text, uint64_t bytes, struct sf_err *err)
{
    struct sf_hash128 told, is;
    if (bytes < CHECKSUM_BYTES)
        return sf_fail(err, SF_EFORMAT, "%llu bytes are no resume record",
                       (unsigned long long)bytes);
    const char *end = text + bytes - CHECKSUM_BYTES;
    if (memcmp(end, checksum_head, sizeof checksum_head - 1) != 0 ||
        memcmp(text + bytes - 3, "\"}\n", 3) != 0 ||
        !hash_from_text(&told, end + sizeof checksum_head - 1))
        return sf_fail(err, SF_EFORMAT, "does not end in the checksum of a resume record");
    is = sf_hash128(text, bytes - CHECKSUM_BYTES);
    if (is.low != told.low || is.high != told.high)
        return sf_fail(err, SF_EDAMAGED, "its checksum does not match");
    return SF_OK;
}

/* ---- writing ---- */

static void write_facts(struct sf_json_writer *w, const char *key, const struct sft_facts *facts)
{
    sf_json_write_object(w, key);
    for (int64_t i = 0; i < facts->count; i++)
        sf_json_write_string(w, facts->fact[i].name, facts->fact[i].value);
    sf_json_write_end(w, '}');
}

static void write_files(struct sf_json_writer *w, const struct sft_resume_record *record)
{
    char hash[HASH_TEXT + 1];
    sf_json_write_array(w, "files");
    for (int64_t i = 0; i < record->files; i++) {
        hash_text(hash, record->file[i].hash);
        sf_json_write_object(w, NULL);
        sf_json_write_string(w, "name", record->file[i].name);
        sf_json_write_int(w, "bytes", (int64_t)record->file[i].bytes);
        sf_json_write_string(w, "xxh3_128", hash);
        sf_json_write_end(w, '}');
    }
    sf_json_write_end(w, ']');
}

static uint64_t before_last_brace(const char *text, uint64_t bytes)
{
    while (bytes > 0 && text[--bytes] != '}')
        ;
    while (bytes > 0 && (text[bytes - 1] == '\n' || text[bytes - 1] == ' '))
        bytes--;
    return bytes;
}

int sft_resume_record_write(char **text, uint64_t *bytes, struct sf_arena *arena,
                            const struct sft_resume_record *record, struct sf_err *err)
{
    struct sf_json_writer w;
    char *body;
    uint64_t body_bytes;
    sf_json_write_begin(&w, arena, 1);
    sf_json_write_object(&w, NULL);
    sf_json_write_string(&w, "format", "scout-resume");
    sf_json_write_int(&w, "version", SFT_RESUME_VERSION);
    sft_run_state_write(&w, "state", &record->state);
    write_facts(&w, "run", &record->run);
    write_facts(&w, "place", &record->place);
    write_files(&w, record);
    sf_json_write_end(&w, '}');
    int code = sf_json_write_finish(&body, &body_bytes, &w, err);
    if (code)
        return code;
    return add_checksum(text, bytes, arena, body, before_last_brace(body, body_bytes), err);
}

/* ---- reading ---- */

static int read_facts(struct sft_facts *out, struct sf_arena *arena, const struct sf_json *root,
                      const char *key, struct sf_err *err)
{
    const struct sf_json *object = sf_json_get(root, key);
    const char *value;
    *out = (struct sft_facts){0};
    if (!object || sf_json_type(object) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "%s is no object", key);
    int code = sf_json_check_unique(object, err);
    for (const struct sf_json *v = sf_json_first(object); v && !code; v = sf_json_next(v)) {
        code = sf_json_as_string(&value, v, sf_json_key(v), err);
        if (!code)
            add_text(out, arena, sf_json_key(v), value);
    }
    if (!code && out->failed)
        code = sf_fail(err, SF_ENOMEM, "no memory for the facts of a run");
    return code;
}

static int read_file(struct sft_kept_file *out, struct sf_arena *arena, const struct sf_json *v,
                     struct sf_err *err)
{
    const char *name, *hash;
    int64_t bytes;
    int code = sf_json_as_string(&name, sf_json_get(v, "name"), "name", err);
    if (!code)
        code = sf_json_as_int(&bytes, sf_json_get(v, "bytes"), "bytes", err);
    if (!code)
        code = sf_json_as_string(&hash, sf_json_get(v, "xxh3_128"), "xxh3_128", err);
    if (code)
        return code;
    if (!*name || name[0] == '.' || strchr(name, '/'))
        return sf_fail(err, SF_EFORMAT, "\"%s\" is no plain file name", name);
    if (bytes < 0)
        return sf_fail(err, SF_EFORMAT, "%s: %lld bytes", name, (long long)bytes);
    if (strlen(hash) != HASH_TEXT || !hash_from_text(&out->hash, hash))
        return sf_fail(err, SF_EFORMAT, "%s: \"%s\" is no hash", name, hash);
    out->bytes = (uint64_t)bytes;
    out->name = sf_arena_strdup(arena, name);
    return out->name ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a file's name");
}

static int read_files(struct sft_resume_record *out, struct sf_arena *arena,
                      const struct sf_json *root, struct sf_err *err)
{
    const struct sf_json *files = sf_json_get(root, "files");
    if (!files || sf_json_type(files) != SF_JSON_ARRAY)
        return sf_fail(err, SF_EFORMAT, "files is no list");
    int64_t count = sf_json_count(files);
    if (count > SFT_RESUME_MOST_FILES)
        return sf_fail(err, SF_EFORMAT, "%lld files; at most %d are expected", (long long)count,
                       SFT_RESUME_MOST_FILES);
    out->file = sf_arena_array(arena, (uint64_t)count + 1, sizeof *out->file);
    int code = out->file ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a list of files");
    for (const struct sf_json *v = sf_json_first(files); v && !code; v = sf_json_next(v))
        code = read_file(&out->file[out->files++], arena, v, err);
    return code;
}

static int read_root(struct sft_resume_record *out, struct sf_arena *arena,
                     const struct sf_json *root, struct sf_err *err)
{
    const char *format;
    int64_t version;
    int code = sf_json_as_string(&format, sf_json_get(root, "format"), "format", err);
    if (!code)
        code = sf_json_as_int(&version, sf_json_get(root, "version"), "version", err);
    if (code)
        return code;
    if (strcmp(format, "scout-resume") != 0)
        return sf_fail(err, SF_EFORMAT, "its format is \"%s\"", format);
    if (version != SFT_RESUME_VERSION)
        return sf_fail(err, SF_EUNSUPPORTED, "version %lld; this program reads version %d",
                       (long long)version, SFT_RESUME_VERSION);
    const struct sf_json *state = sf_json_get(root, "state");
    if (!state || sf_json_type(state) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "state is no object");
    code = sft_run_state_read(&out->state, state, err);
    if (!code)
        code = read_facts(&out->run, arena, root, "run", err);
    if (!code)
        code = read_facts(&out->place, arena, root, "place", err);
    return code ? code : read_files(out, arena, root, err);
}

int sft_resume_record_read(struct sft_resume_record *out, struct sf_arena *arena, const char *text,
                           uint64_t bytes, struct sf_err *err)
{
    struct sf_json *root;
    *out = (struct sft_resume_record){0};
    int code = check_checksum(text, bytes, err);
    if (code)
        return code;
    code = sf_json_parse(&root, text, bytes, err);
    if (code)
        return code;
    code = sf_json_check_unique(root, err);
    if (!code)
        code = read_root(out, arena, root, err);
    sf_json_free(root);
    return code;
}
