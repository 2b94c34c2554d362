#include "libformat/convert/convert_resume.h"

#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"
#include "libformat/convert/expect.h"
#include "libformat/convert/row_error.h"

/* ---- what this conversion is, one fact a line ---- */

static void add_u64(struct sf_hasher *h, uint64_t value)
{
    unsigned char bytes[8];
    sf_put_u64(bytes, value);
    sf_hasher_add(h, bytes, sizeof bytes);
}

static void add_text(struct sf_hasher *h, const char *text)
{
    sf_hasher_add(h, text, strlen(text) + 1);
}

static void add_row(struct sf_hasher *h, const struct sf_convert_row *row)
{
    const struct sf_entry *e = row->entry;
    add_text(h, e->name);
    add_text(h, e->source_name);
    add_u64(h, (uint64_t)e->role.part);
    add_u64(h, (uint64_t)e->dtype);
    add_u64(h, (uint64_t)e->encoding);
    for (int i = 0; i < e->shape.rank; i++)
        add_u64(h, (uint64_t)e->shape.dim[i]);
    for (int p = 0; p < SF_PLANE_CODEBOOK; p++) /* codebooks lie behind everything */
        add_u64(h, e->plane[p].address);
    add_u64(h, (uint64_t)row->source.first);
    add_u64(h, (uint64_t)sf_hf_index_shard_of(row->source.tensor));
}

/* Everything that says what becomes of a source byte and where it goes. What text training does not
 * use may be unknown at first and comes behind the rest: of that, what stands in the shards' headers
 * is compared (match_shards). */
static int hash_plan(struct sf_hash128 *out, const struct sf_convert_plan *plan, struct sf_err *err)
{
    struct sf_hasher *h;
    int code = sf_hasher_open(&h, err);
    if (code != SF_OK)
        return code;
    for (int64_t i = 0; i < plan->rows; i++)
        if (plan->row[i].entry->role.part != SF_PART_UNUSED)
            add_row(h, &plan->row[i]);
    *out = sf_hasher_digest(h);
    sf_hasher_close(h);
    return SF_OK;
}

static const char *hash_text(struct sf_arena *arena, struct sf_hash128 h)
{
    return sf_arena_printf(arena, "%016llx%016llx", (unsigned long long)h.high,
                           (unsigned long long)h.low);
}

/* NULL without memory. */
static const char *describe(struct sf_work *work, const struct sf_convert_options *o,
                            struct sf_hash128 plan)
{
    struct sf_arena *a = &work->arena;
    const char *hash = hash_text(a, plan);
    uint64_t most = sf_layout_part_most(work->plan->layout);
    const char *parts =
        most ? sf_arena_printf(a, "max-part-size %llu\n", (unsigned long long)most) : "one file\n";
    return hash && parts
               ? sf_arena_printf(
                     a, "journal 4\nconverter %s\noptions \"%s\"\nmodel-id \"%s\"\n%stensors %s\n",
                     o->converter, o->options_text, o->model_id, parts, hash)
               : NULL;
}

/* The line of `text` at its first difference from `other`, for a message. */
static const char *odd_line(struct sf_arena *arena, const char *text, uint64_t text_bytes,
                            const char *other, uint64_t other_bytes)
{
    uint64_t same = 0, begin, end;
    while (same < text_bytes && same < other_bytes && text[same] == other[same])
        same++;
    for (begin = same; begin > 0 && text[begin - 1] != '\n';)
        begin--;
    for (end = begin; end < text_bytes && text[end] != '\n';)
        end++;
    const char *line = sf_arena_printf(arena, "%.*s", (int)(end - begin), text + begin);
    return line && *line ? line : "nothing";
}

static int head_text(const char **out, struct sf_work *work, const struct sf_convert_options *o,
                     struct sf_err *err)
{
    struct sf_hash128 plan;
    int code = hash_plan(&plan, work->plan, err);
    if (code == SF_OK && !(*out = describe(work, o, plan)))
        code = sf_fail(err, SF_ENOMEM, "no memory for a journal");
    return code;
}

/* A tensor that is not of the dtype by which its place was reckoned before it was there. */
static const struct sf_entry *find_surprise(const struct sf_work *work)
{
    const struct sf_convert_plan *plan = work->plan;
    for (int64_t i = 0; i < plan->rows; i++) {
        const struct sf_entry *e = plan->row[i].entry;
        if (e->role.part != SF_PART_UNUSED && e->encoding == SF_ENCODING_RAW &&
            e->dtype != sf_expect_dtype(plan->spec))
            return e;
    }
    return NULL;
}

static int match_head(struct sf_journal *journal, struct sf_work *work,
                      const struct sf_convert_options *options, struct sf_err *err)
{
    const struct sf_journal_record *head = sf_journal_find(journal, SF_JOURNAL_HEAD);
    const struct sf_entry *odd = find_surprise(work);
    const char *text, *was = (const char *)head->data, *now, *then;
    int code = head_text(&text, work, options, err);
    if (code != SF_OK)
        return code;
    uint64_t bytes = strlen(text);
    if (head->bytes == bytes && memcmp(was, text, bytes) == 0)
        return SF_OK;
    then = odd_line(&work->arena, was, head->bytes, text, bytes);
    now = odd_line(&work->arena, text, bytes, was, head->bytes);
    if (odd && strncmp(now, "tensors", 7) == 0)
        return sf_fail(err, SF_EINVAL,
                       "%s is %s, not the %s by which its place was reckoned before it was there: "
                       "a checkpoint of mixed types must be whole first, then --restart",
                       odd->source_name, sf_dtype_name(odd->dtype),
                       sf_dtype_name(sf_expect_dtype(work->plan->spec)));
    return sf_fail(err, SF_EINVAL,
                   "was begun with other sources or options (%s; now %s): give the same as then, "
                   "or --restart to begin anew",
                   then, now);
}

static const struct sf_hf_shard *shard_named(const struct sf_work *work, const char *name)
{
    for (int64_t i = 0; i < sf_hf_index_shard_count(work->plan->index); i++)
        if (strcmp(sf_hf_index_shard(work->plan->index, i)->name, name) == 0)
            return sf_hf_index_shard(work->plan->index, i);
    return NULL;
}

/* Shards that were seen must be as they were: number and size of tensors follow from the header. */
static int match_shards(const struct sf_journal *journal, const struct sf_work *work,
                        struct sf_err *err)
{
    int64_t count;
    const struct sf_hf_memory *m = sf_journal_shards(&count, journal);
    for (int64_t i = 0; i < count; i++) {
        uint64_t bytes = 0;
        const struct sf_hf_shard *s = shard_named(work, m[i].name);
        const void *head = s ? sf_safetensors_head(&bytes, s->file) : NULL;
        if (s && s->bytes == m[i].file_bytes && bytes == m[i].head_bytes &&
            memcmp(head, m[i].head, bytes) == 0)
            continue;
        return sf_fail(err, SF_EINVAL,
                       "was begun with other sources or options (%s: %llu bytes; now %llu%s): give "
                       "the same as then, or --restart to begin anew",
                       m[i].name, (unsigned long long)m[i].file_bytes,
                       (unsigned long long)(s ? s->bytes : 0),
                       s && s->bytes == m[i].file_bytes ? " with another header" : "");
    }
    return SF_OK;
}

/* A record of a carried file: its hash, its name. */
static void file_record(unsigned char hash[16], const struct sf_carried_file *f)
{
    struct sf_hash128 h = sf_hash128(f->data, f->bytes);
    sf_put_u64(hash, h.low);
    sf_put_u64(hash + 8, h.high);
}

static bool is_record_of(const struct sf_journal_record *r, const struct sf_carried_file *f)
{
    return r->type == SF_JOURNAL_FILE && r->bytes == 16 + strlen(f->name) &&
           memcmp(r->data + 16, f->name, r->bytes - 16) == 0;
}

/* Files that were there are there as they were; others may have come since. */
static int match_files(const struct sf_journal *journal, const struct sf_convert_options *o,
                       struct sf_err *err)
{
    for (int64_t i = 0; i < sf_journal_count(journal); i++) {
        const struct sf_journal_record *r = sf_journal_at(journal, i);
        unsigned char hash[16] = {0};
        int64_t k = 0;
        if (r->type != SF_JOURNAL_FILE || r->bytes <= 16)
            continue;
        while (k < o->files && !is_record_of(r, &o->file[k]))
            k++;
        if (k < o->files)
            file_record(hash, &o->file[k]);
        if (k == o->files || memcmp(hash, r->data, 16) != 0)
            return sf_fail(err, SF_EINVAL,
                           "was begun with other sources or options (%.*s %s): give the same as "
                           "then, or --restart to begin anew",
                           (int)(r->bytes - 16), (const char *)r->data + 16,
                           k < o->files ? "has changed" : "is gone");
    }
    return SF_OK;
}

int sf_resume_match(struct sf_journal *journal, struct sf_work *work,
                    const struct sf_convert_options *options, struct sf_err *err)
{
    if (!sf_journal_find(journal, SF_JOURNAL_HEAD))
        return SF_OK;
    int code = match_shards(journal, work, err);
    if (code == SF_OK)
        code = match_files(journal, options, err);
    return code == SF_OK ? match_head(journal, work, options, err) : code;
}

/* ---- units and pieces ---- */

/* Of a row: squared error and norm f64, its largest relative error of a block f64, which block i64. */
enum { ROW_BYTES = 32 };

static uint64_t errors_bytes(const struct sf_unit *unit)
{
    return unit->stored ? 0 : (uint64_t)unit->rows * ROW_BYTES;
}

static void put_f64(unsigned char *at, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, 8);
    sf_put_u64(at, bits);
}

static double get_f64(const unsigned char *at)
{
    double value;
    uint64_t bits = sf_get_u64(at);
    memcpy(&value, &bits, 8);
    return value;
}

static void put_row(unsigned char *at, const struct sf_convert_row *row)
{
    put_f64(at, row->squared_error);
    put_f64(at + 8, row->squared_norm);
    put_f64(at + 16, row->entry->worst_block_error);
    sf_put_u64(at + 24, (uint64_t)row->worst_block);
}

static void get_row(struct sf_convert_row *row, const unsigned char *at)
{
    row->squared_error = get_f64(at);
    row->squared_norm = get_f64(at + 8);
    row->worst_block = (int64_t)sf_get_u64(at + 24);
    row->entry->worst_block_error = (float)get_f64(at + 16);
    row->entry->relative_rms_error = sf_row_error(row);
}

/* The unit of a UNIT record, after a look whether the record can be one of it. */
static int find_unit(struct sf_unit **out, const struct sf_work *work,
                     const struct sf_journal_record *r, struct sf_err *err)
{
    if (r->number >= (uint64_t)work->units)
        return sf_fail(err, SF_EFORMAT, "unit %llu of %lld", (unsigned long long)r->number,
                       (long long)work->units);
    *out = &work->unit[r->number];
    if (r->bytes < errors_bytes(*out))
        return sf_fail(err, SF_EFORMAT, "unit %llu: %llu bytes, too few",
                       (unsigned long long)r->number, (unsigned long long)r->bytes);
    for (int64_t i = 0; !(*out)->stored && i < (*out)->rows; i++)
        get_row(&work->plan->row[(*out)->first_row + i], r->data + ROW_BYTES * i);
    return SF_OK;
}

int sf_resume_recall(struct sf_work *work, const struct sf_journal *journal, struct sf_err *err)
{
    int code = SF_OK;
    for (int64_t i = 0; i < sf_journal_count(journal) && code == SF_OK; i++) {
        struct sf_unit *unit;
        if (sf_journal_at(journal, i)->type == SF_JOURNAL_UNIT)
            code = find_unit(&unit, work, sf_journal_at(journal, i), err);
    }
    return code;
}

static int restore_unit(struct sf_work *work, struct sf_writer *writer,
                        const struct sf_journal_record *r, struct sf_err *err)
{
    uint64_t chunks;
    struct sf_unit *u;
    int code = find_unit(&u, work, r, err);
    if (code != SF_OK)
        return code;
    sf_writer_checksums(&chunks, writer, u->extent, u->offset, u->bytes);
    if (r->bytes != errors_bytes(u) + 8 * chunks)
        return sf_fail(err, SF_EFORMAT, "unit %llu: %llu bytes, not %llu",
                       (unsigned long long)r->number, (unsigned long long)r->bytes,
                       (unsigned long long)(errors_bytes(u) + 8 * chunks));
    u->done = true;
    return sf_writer_restore(writer, u->extent, u->offset, u->bytes, r->data + errors_bytes(u),
                             err);
}

static int restore_piece(struct sf_work *work, const struct sf_journal_record *r,
                         struct sf_err *err)
{
    if (r->number >= (uint64_t)work->pieces || r->bytes != 16)
        return sf_fail(err, SF_EFORMAT, "piece %llu of %lld in %llu bytes",
                       (unsigned long long)r->number, (long long)work->pieces,
                       (unsigned long long)r->bytes);
    struct sf_piece *p = &work->piece[r->number];
    p->hash = (struct sf_hash128){.low = sf_get_u64(r->data), .high = sf_get_u64(r->data + 8)};
    p->done = true;
    return SF_OK;
}

int sf_resume_record(struct sf_journal *journal, const struct sf_work *work,
                     const struct sf_writer *writer, const struct sf_unit *unit, struct sf_err *err)
{
    uint64_t chunks, errors = errors_bytes(unit);
    const unsigned char *checksums =
        sf_writer_checksums(&chunks, writer, unit->extent, unit->offset, unit->bytes);
    void *block;
    int code = SF_OK;
    for (int64_t i = unit->first_piece; i < unit->first_piece + unit->pieces && code == SF_OK;
         i++) {
        unsigned char hash[16];
        sf_put_u64(hash, work->piece[i].hash.low);
        sf_put_u64(hash + 8, work->piece[i].hash.high);
        code = sf_journal_add(journal, SF_JOURNAL_PIECE, (uint64_t)i, hash, sizeof hash, err);
    }
    if (code == SF_OK)
        code = sf_alloc_for(&block, errors + 8 * chunks, "a unit's record", err);
    if (code != SF_OK)
        return code;
    unsigned char *data = block;
    for (int64_t i = 0; !unit->stored && i < unit->rows; i++)
        put_row(data + ROW_BYTES * i, &work->plan->row[unit->first_row + i]);
    memcpy(data + errors, checksums, 8 * chunks);
    code = sf_journal_add(journal, SF_JOURNAL_UNIT, (uint64_t)(unit - work->unit), data,
                          errors + 8 * chunks, err);
    sf_free(block);
    return code;
}

/* ---- shards ---- */

/* The newest record of a shard, NULL if there is none. */
static const struct sf_journal_record *shard_record(const struct sf_journal *journal, int64_t shard)
{
    for (int64_t i = sf_journal_count(journal) - 1; i >= 0; i--) {
        const struct sf_journal_record *r = sf_journal_at(journal, i);
        if (r->type == SF_JOURNAL_SHARD && r->number == (uint64_t)shard)
            return r;
    }
    return NULL;
}

/* Reads again what was used of a shard that has another date now. */
static int check_again(const struct sf_work *work, int64_t shard, const struct sf_hf_shard *s,
                       struct sf_err *err)
{
    for (int64_t i = 0; i < work->pieces; i++) {
        const struct sf_piece *p = &work->piece[i];
        if (p->shard != shard || !p->done)
            continue;
        sf_safetensors_prefetch(s->file, &p->bytes);
        struct sf_hash128 h = sf_hash128(p->bytes.data, p->bytes.bytes);
        sf_safetensors_release(s->file, &p->bytes);
        if (h.low != p->hash.low || h.high != p->hash.high)
            return sf_fail(err, SF_EINVAL,
                           "%s: has changed since %s was converted: put the file of then back, or "
                           "give --restart to begin anew",
                           s->name, p->name);
    }
    return SF_OK;
}

static int check_shards(struct sf_work *work, struct sf_journal *journal, struct sf_err *err)
{
    const struct sf_hf_index *index = work->plan->index;
    int code = SF_OK;
    for (int64_t i = 0; i < sf_hf_index_shard_count(index) && code == SF_OK; i++) {
        const struct sf_hf_shard *s = sf_hf_index_shard(index, i);
        const struct sf_journal_record *r = shard_record(journal, i);
        if (!sf_safetensors_is_there(s->file) ||
            (r && sf_journal_shard_modified_ns(r) == s->modified_ns))
            continue;
        code = check_again(work, i, s, err);
        if (code == SF_OK)
            code = sf_journal_add_shard(journal, i, s, err);
    }
    return code;
}

static int check_needed(const struct sf_work *work, const struct sf_convert_options *options,
                        struct sf_err *err)
{
    for (int64_t u = 0; u < work->units; u++) {
        struct sf_unit *unit = &work->unit[u];
        unit->waits = false;
        for (int64_t i = unit->first_row; !unit->done && i < unit->first_row + unit->rows; i++) {
            const struct sf_convert_row *row = &work->plan->row[i];
            const struct sf_hf_shard *s =
                sf_hf_index_shard(work->plan->index, sf_hf_index_shard_of(row->source.tensor));
            if (sf_safetensors_is_there(s->file) || !sf_work_reads(work, unit, row))
                continue;
            unit->waits = true;
            if (!options->may_wait)
                return sf_fail(err, SF_ENOENT, "%s: is gone, but %s is still needed",
                               sf_safetensors_path(s->file), row->entry->source_name);
        }
    }
    return SF_OK;
}

static int begin_journal(struct sf_work *work, struct sf_journal *journal,
                         const struct sf_convert_options *options, struct sf_err *err)
{
    const char *text;
    int code = sf_journal_clear(journal, err);
    if (code == SF_OK)
        code = head_text(&text, work, options, err);
    if (code == SF_OK)
        code = sf_journal_add(journal, SF_JOURNAL_HEAD, 0, text, strlen(text), err);
    return code;
}

/* Carried files that the journal does not know yet. */
static int add_files(struct sf_journal *journal, const struct sf_convert_options *o,
                     struct sf_err *err)
{
    int code = SF_OK;
    for (int64_t k = 0; k < o->files && code == SF_OK; k++) {
        unsigned char data[16 + 256];
        size_t name = strlen(o->file[k].name);
        int64_t i = 0;
        while (i < sf_journal_count(journal) &&
               !is_record_of(sf_journal_at(journal, i), &o->file[k]))
            i++;
        if (i < sf_journal_count(journal) || name > sizeof data - 16)
            continue;
        file_record(data, &o->file[k]);
        memcpy(data + 16, o->file[k].name, name);
        code = sf_journal_add(journal, SF_JOURNAL_FILE, 0, data, 16 + name, err);
    }
    return code;
}

/* How much payload the journal speaks of. */
static uint64_t recorded_end(const struct sf_journal *journal, const struct sf_work *work)
{
    uint64_t end = 0;
    for (int64_t i = 0; i < sf_journal_count(journal); i++) {
        const struct sf_journal_record *r = sf_journal_at(journal, i);
        if (r->type != SF_JOURNAL_UNIT || r->number >= (uint64_t)work->units)
            continue;
        const struct sf_unit *u = &work->unit[r->number];
        uint64_t to =
            sf_layout_extent_at(work->plan->layout, u->extent)->address + u->offset + u->bytes;
        end = to > end ? to : end;
    }
    return end;
}

int sf_resume_take_up(struct sf_work *work, struct sf_journal *journal, struct sf_writer *writer,
                      uint64_t standing, const struct sf_convert_options *options,
                      struct sf_err *err)
{
    int code = SF_OK;
    bool fresh =
        !sf_journal_find(journal, SF_JOURNAL_HEAD) || recorded_end(journal, work) > standing;
    for (int64_t i = 0; i < sf_journal_count(journal) && !fresh && code == SF_OK; i++) {
        const struct sf_journal_record *r = sf_journal_at(journal, i);
        if (r->type == SF_JOURNAL_UNIT)
            code = restore_unit(work, writer, r, err);
        else if (r->type == SF_JOURNAL_PIECE)
            code = restore_piece(work, r, err);
    }
    if (code == SF_OK)
        code = check_needed(work, options, err);
    if (code == SF_OK && fresh)
        code = begin_journal(work, journal, options, err);
    if (code == SF_OK)
        code = add_files(journal, options, err);
    if (code == SF_OK)
        code = check_shards(work, journal, err);
    return code == SF_OK ? sf_journal_sync(journal, err) : code;
}
