#include "libformat/convert/journal.h"

#include <assert.h>
#include <string.h>

#include "libformat/base/append_file.h"
#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"
#include "libformat/codec/frame.h"

/* A record on disk: type u32, zero u32, number u64, bytes u64, XXH3-64 of these 24 bytes and the
 * data with the record's offset as seed u64, data. */
enum { TYPE = 0, NUMBER = 8, BYTES = 16, HASH = 24, RECORD_HEAD = 32 };
/* The data of a SHARD: when u64, file bytes u64, bytes of the name u64, name with NUL, head. */
enum { SHARD_MODIFIED = 0, SHARD_FILE_BYTES = 8, SHARD_NAME_BYTES = 16, SHARD_NAME = 24 };

static const uint64_t LARGEST_JOURNAL = 1u << 30;

struct sf_journal {
    struct sf_append_file *file;
    struct sf_arena arena;
    struct sf_journal_record *record;
    int64_t records;
    struct sf_hf_memory *shard;
    int64_t shards;
    unsigned char *pending; /* records that wait for the next sync */
    uint64_t pending_bytes, pending_room;
};

static int hash_record(uint64_t *out, const unsigned char *head, const void *data, uint64_t bytes,
                       uint64_t offset, struct sf_err *err)
{
    struct sf_hasher *hasher;
    unsigned char place[8];
    int code = sf_hasher_open(&hasher, err);
    if (code != SF_OK)
        return code;
    sf_put_u64(place, offset);
    sf_hasher_add(hasher, place, sizeof place);
    sf_hasher_add(hasher, head, HASH);
    sf_hasher_add(hasher, data, bytes);
    *out = sf_hasher_digest(hasher).low;
    sf_hasher_close(hasher);
    return SF_OK;
}

static uint64_t record_bytes(const unsigned char *data, uint64_t at, uint64_t end)
{
    if (end - at < RECORD_HEAD)
        return 0;
    uint64_t bytes = sf_get_u64(data + at + BYTES);
    return bytes <= end - at - RECORD_HEAD ? RECORD_HEAD + bytes : 0;
}

/* Counts records, or fills the list, up to the first that is not whole; *end is where it begins. */
static int walk(struct sf_journal *j, uint64_t *end, const unsigned char *data, uint64_t bytes,
                struct sf_err *err)
{
    uint64_t size, hash;
    int64_t n = 0;
    for (*end = 0; (size = record_bytes(data, *end, bytes)) != 0; *end += size) {
        const unsigned char *at = data + *end;
        int code = hash_record(&hash, at, at + RECORD_HEAD, size - RECORD_HEAD, *end, err);
        if (code != SF_OK)
            return code;
        if (hash != sf_get_u64(at + HASH))
            break;
        if (j->record)
            j->record[n] = (struct sf_journal_record){.type = sf_get_u32(at + TYPE),
                                                      .number = sf_get_u64(at + NUMBER),
                                                      .data = at + RECORD_HEAD,
                                                      .bytes = size - RECORD_HEAD};
        n++;
    }
    j->records = n;
    return SF_OK;
}

static int list_shards(struct sf_journal *j, struct sf_err *err)
{
    j->shard = sf_arena_array(&j->arena, (uint64_t)j->records, sizeof *j->shard);
    if (!j->shard)
        return sf_fail(err, SF_ENOMEM, "no memory for a journal");
    for (int64_t i = 0; i < j->records; i++) {
        const struct sf_journal_record *r = &j->record[i];
        if (r->type != SF_JOURNAL_SHARD || r->bytes < SHARD_NAME)
            continue;
        uint64_t name = sf_get_u64(r->data + SHARD_NAME_BYTES);
        if (name == 0 || name > r->bytes - SHARD_NAME || r->data[SHARD_NAME + name - 1] != 0)
            continue;
        j->shard[j->shards++] =
            (struct sf_hf_memory){.name = (const char *)r->data + SHARD_NAME,
                                  .head = r->data + SHARD_NAME + name,
                                  .head_bytes = r->bytes - SHARD_NAME - name,
                                  .file_bytes = sf_get_u64(r->data + SHARD_FILE_BYTES),
                                  .modified_ns = (int64_t)sf_get_u64(r->data + SHARD_MODIFIED)};
    }
    return SF_OK;
}

static int read_records(struct sf_journal *j, struct sf_err *err)
{
    unsigned char *data;
    uint64_t bytes = sf_append_file_bytes(j->file), end;
    int code = sf_append_file_read(&data, j->file, &j->arena, LARGEST_JOURNAL, err);
    if (code == SF_OK)
        code = walk(j, &end, data, bytes, err);
    if (code != SF_OK)
        return code;
    j->record = sf_arena_array(&j->arena, (uint64_t)j->records, sizeof *j->record);
    if (!j->record)
        return sf_fail(err, SF_ENOMEM, "no memory for a journal");
    code = walk(j, &end, data, bytes, err);
    if (code == SF_OK)
        code = sf_append_file_cut(j->file, end, err);
    return code == SF_OK ? list_shards(j, err) : code;
}

int sf_journal_open(struct sf_journal **out, const char *path, struct sf_err *err)
{
    struct sf_journal *j = sf_alloc(sizeof *j);
    char *name = j ? sf_arena_printf(&j->arena, "%s.journal", path) : NULL;
    int code = name ? sf_append_file_open(&j->file, name, err)
                    : sf_fail(err, SF_ENOMEM, "%s: no memory for a journal", path);
    if (code == SF_OK)
        code = read_records(j, err);
    if (code != SF_OK) {
        sf_journal_close(j);
        return code;
    }
    *out = j;
    return SF_OK;
}

int sf_journal_reload(struct sf_journal *j, struct sf_err *err)
{
    assert(j->pending_bytes == 0);
    sf_arena_free(&j->arena);
    j->record = NULL;
    j->shard = NULL;
    j->records = j->shards = 0;
    return read_records(j, err);
}

int64_t sf_journal_count(const struct sf_journal *journal)
{
    return journal->records;
}

const struct sf_journal_record *sf_journal_at(const struct sf_journal *journal, int64_t i)
{
    return &journal->record[i];
}

const struct sf_journal_record *sf_journal_find(const struct sf_journal *journal, uint32_t type)
{
    for (int64_t i = 0; i < journal->records; i++)
        if (journal->record[i].type == type)
            return &journal->record[i];
    return NULL;
}

const struct sf_hf_memory *sf_journal_shards(int64_t *count, const struct sf_journal *journal)
{
    *count = journal->shards;
    return journal->shard;
}

/* Room for `bytes` more behind what is pending. */
static int make_room(struct sf_journal *j, uint64_t bytes, struct sf_err *err)
{
    uint64_t need = j->pending_bytes + bytes;
    void *block;
    if (need <= j->pending_room)
        return SF_OK;
    int code = sf_alloc_for(&block, 2 * need, "a journal's records", err);
    if (code != SF_OK)
        return code;
    if (j->pending_bytes > 0)
        memcpy(block, j->pending, j->pending_bytes);
    sf_free(j->pending);
    j->pending = block;
    j->pending_room = 2 * need;
    return SF_OK;
}

int sf_journal_add(struct sf_journal *j, uint32_t type, uint64_t number, const void *data,
                   uint64_t bytes, struct sf_err *err)
{
    uint64_t hash, offset = sf_append_file_bytes(j->file) + j->pending_bytes;
    int code = make_room(j, RECORD_HEAD + bytes, err);
    if (code != SF_OK)
        return code;
    unsigned char *record = j->pending + j->pending_bytes;
    memset(record, 0, RECORD_HEAD);
    sf_put_u32(record + TYPE, type);
    sf_put_u64(record + NUMBER, number);
    sf_put_u64(record + BYTES, bytes);
    memcpy(record + RECORD_HEAD, data, bytes);
    code = hash_record(&hash, record, data, bytes, offset, err);
    if (code != SF_OK)
        return code;
    sf_put_u64(record + HASH, hash);
    j->pending_bytes += RECORD_HEAD + bytes;
    return SF_OK;
}

int sf_journal_add_shard(struct sf_journal *j, int64_t number, const struct sf_hf_shard *shard,
                         struct sf_err *err)
{
    uint64_t head_bytes, name_bytes = strlen(shard->name) + 1;
    const void *head = sf_safetensors_head(&head_bytes, shard->file);
    void *block;
    int code = sf_alloc_for(&block, SHARD_NAME + name_bytes + head_bytes, "a shard's record", err);
    if (code != SF_OK)
        return code;
    unsigned char *data = block;
    sf_put_u64(data + SHARD_MODIFIED, (uint64_t)shard->modified_ns);
    sf_put_u64(data + SHARD_FILE_BYTES, shard->bytes);
    sf_put_u64(data + SHARD_NAME_BYTES, name_bytes);
    memcpy(data + SHARD_NAME, shard->name, name_bytes);
    memcpy(data + SHARD_NAME + name_bytes, head, head_bytes);
    code = sf_journal_add(j, SF_JOURNAL_SHARD, (uint64_t)number, data,
                          SHARD_NAME + name_bytes + head_bytes, err);
    sf_free(block);
    return code;
}

int64_t sf_journal_shard_modified_ns(const struct sf_journal_record *record)
{
    return record->bytes >= SHARD_NAME ? (int64_t)sf_get_u64(record->data + SHARD_MODIFIED) : 0;
}

int sf_journal_sync(struct sf_journal *j, struct sf_err *err)
{
    int code = SF_OK;
    if (j->pending_bytes > 0)
        code = sf_append_file_add(j->file, j->pending, j->pending_bytes, err);
    j->pending_bytes = 0;
    return code == SF_OK ? sf_append_file_sync(j->file, err) : code;
}

int sf_journal_clear(struct sf_journal *j, struct sf_err *err)
{
    j->records = j->shards = 0;
    j->pending_bytes = 0;
    return sf_append_file_cut(j->file, 0, err);
}

void sf_journal_close(struct sf_journal *j)
{
    if (!j)
        return;
    if (j->file && sf_append_file_bytes(j->file) == 0)
        sf_append_file_remove(j->file);
    else
        sf_append_file_close(j->file);
    sf_free(j->pending);
    sf_arena_free(&j->arena);
    sf_free(j);
}
