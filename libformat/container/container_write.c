#include "libformat/container/container_write.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "libformat/container/container_index.h"
#include "libformat/container/container_metadata.h"
#include "libformat/container/layout.h"
#include "libformat/container/out_files.h"

struct byte_range {
    uint64_t from, to;
};

struct sf_writer {
    struct sf_layout *layout;
    struct out_files out;
    struct sf_arena arena;
    unsigned char *checksum; /* [chunks] u64, little-endian */
    unsigned char *put;      /* [chunks] 1 once written: each by one thread, read at commit */
    struct byte_range *gap;  /* padding behind planes, payload addresses, ascending */
    int64_t gaps;
    struct container_metadata metadata;
    int64_t file_room;
};

/* ---- padding ---- */

/* Gaps follow from walking each extent as the layout placed it: kind by kind, in call order. */
static int find_gaps(struct sf_writer *w, struct sf_err *err)
{
    const struct sf_layout *l = w->layout;
    uint64_t room = (uint64_t)l->entries * SF_PLANE_CODEBOOK + 1;
    w->gap = sf_arena_array(&w->arena, room, sizeof *w->gap);
    if (!w->gap)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %llu gaps", (unsigned long long)room);
    for (int64_t e = 0; e < l->extents; e++) {
        uint64_t at = l->extent[e].address, end = at + l->extent[e].bytes;
        for (int kind = 0; kind < SF_PLANE_CODEBOOK; kind++)
            for (int64_t i = 0; i < l->range[e].count; i++) {
                const struct sf_plane *plane = &l->entry[l->range[e].first + i].plane[kind];
                if (plane->dtype == SF_DTYPE_NONE)
                    continue;
                if (plane->address > at)
                    w->gap[w->gaps++] = (struct byte_range){at, plane->address};
                at = plane->address + plane->bytes;
            }
        if (at < end && e != l->shared)
            w->gap[w->gaps++] = (struct byte_range){at, end};
    }
    return SF_OK;
}

static int check_padding(const struct sf_writer *w, uint64_t address, const unsigned char *data,
                         uint64_t bytes, struct sf_err *err)
{
    int64_t low = 0, high = w->gaps; /* the first gap that ends behind `address` */
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (w->gap[mid].to > address)
            high = mid;
        else
            low = mid + 1;
    }
    for (; low < w->gaps && w->gap[low].from < address + bytes; low++) {
        uint64_t from = w->gap[low].from > address ? w->gap[low].from : address;
        for (; from < w->gap[low].to && from < address + bytes; from++)
            if (data[from - address] != 0)
                return sf_fail(err, SF_EINVAL, "padding at payload address %llu is not zero",
                               (unsigned long long)from);
    }
    return SF_OK;
}

/* ---- open and put ---- */

static int prepare(struct sf_writer *w, struct sf_err *err)
{
    w->checksum = sf_arena_array(&w->arena, w->layout->chunks, 8);
    w->put = sf_arena_alloc(&w->arena, w->layout->chunks);
    if (!w->checksum || !w->put)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %llu checksums",
                       (unsigned long long)w->layout->chunks);
    return find_gaps(w, err);
}

static int create_writer(struct sf_writer **out, const char *path, struct sf_layout *layout,
                         struct sf_err *err)
{
    assert(layout->finished);
    struct sf_writer *w = sf_alloc(sizeof *w);
    if (!w)
        return sf_fail(err, SF_ENOMEM, "%s: cannot allocate a writer", path);
    w->layout = layout;
    *out = w;
    return prepare(w, err);
}

int sf_writer_open(struct sf_writer **out, const char *path, struct sf_layout *layout,
                   struct sf_err *err)
{
    struct sf_writer *w = NULL;
    int code = create_writer(&w, path, layout, err);
    if (code == SF_OK)
        code = out_files_open(&w->out, path, layout, err);
    if (code != SF_OK) {
        sf_writer_abort(w);
        return code;
    }
    *out = w;
    return SF_OK;
}

int sf_writer_resume(struct sf_writer **out, uint64_t *standing, const char *path,
                     struct sf_layout *layout, struct sf_err *err)
{
    struct sf_writer *w = NULL;
    int code = create_writer(&w, path, layout, err);
    if (code == SF_OK)
        code = out_files_resume(&w->out, standing, path, layout, err);
    if (code != SF_OK) {
        sf_writer_abort(w);
        return code;
    }
    *out = w;
    return SF_OK;
}

static int put_chunks(struct sf_writer *w, const struct sf_extent *extent, uint64_t offset,
                      const unsigned char *data, uint64_t bytes, struct sf_err *err)
{
    uint64_t chunk_bytes = (uint64_t)1 << LAYOUT_CHUNK_LOG2;
    int code = check_padding(w, extent->address + offset, data, bytes, err);
    if (code != SF_OK)
        return code;
    code = out_files_put(&w->out, extent->address + offset, data, bytes, err);
    if (code != SF_OK)
        return code;
    for (uint64_t done = 0; done < bytes; done += chunk_bytes) {
        uint64_t chunk = extent->first_chunk + (offset + done) / chunk_bytes;
        uint64_t size = bytes - done < chunk_bytes ? bytes - done : chunk_bytes;
        sf_put_u64(w->checksum + 8 * chunk, sf_hash64(data + done, size, chunk));
        w->put[chunk] = 1;
    }
    return SF_OK;
}

static int check_run(const struct sf_writer *w, int64_t index, uint64_t offset, uint64_t bytes,
                     struct sf_err *err)
{
    uint64_t chunk_bytes = (uint64_t)1 << LAYOUT_CHUNK_LOG2;
    assert(index >= 0 && index < w->layout->extents && index != w->layout->shared);
    const struct sf_extent *extent = &w->layout->extent[index];
    if (offset % chunk_bytes != 0 || offset >= extent->bytes || bytes > extent->bytes - offset ||
        (bytes % chunk_bytes != 0 && offset + bytes != extent->bytes))
        return sf_fail(err, SF_EINVAL,
                       "extent %lld of %llu bytes: %llu bytes at %llu are no run of chunks",
                       (long long)index, (unsigned long long)extent->bytes,
                       (unsigned long long)bytes, (unsigned long long)offset);
    return SF_OK;
}

int sf_writer_put(struct sf_writer *w, int64_t index, uint64_t offset, const void *data,
                  uint64_t bytes, struct sf_err *err)
{
    int code = check_run(w, index, offset, bytes, err);
    if (code != SF_OK)
        return code;
    return put_chunks(w, &w->layout->extent[index], offset, data, bytes, err);
}

const unsigned char *sf_writer_checksums(uint64_t *chunks, const struct sf_writer *w, int64_t index,
                                         uint64_t offset, uint64_t bytes)
{
    uint64_t chunk_bytes = (uint64_t)1 << LAYOUT_CHUNK_LOG2;
    *chunks = (bytes + chunk_bytes - 1) / chunk_bytes;
    return w->checksum + 8 * (w->layout->extent[index].first_chunk + offset / chunk_bytes);
}

int sf_writer_restore(struct sf_writer *w, int64_t index, uint64_t offset, uint64_t bytes,
                      const unsigned char *checksums, struct sf_err *err)
{
    uint64_t chunk_bytes = (uint64_t)1 << LAYOUT_CHUNK_LOG2;
    int code = check_run(w, index, offset, bytes, err);
    if (code != SF_OK)
        return code;
    uint64_t chunk = w->layout->extent[index].first_chunk + offset / chunk_bytes;
    uint64_t chunks = (bytes + chunk_bytes - 1) / chunk_bytes;
    memcpy(w->checksum + 8 * chunk, checksums, 8 * chunks);
    memset(w->put + chunk, 1, chunks);
    return SF_OK;
}

int sf_writer_sync(struct sf_writer *w, struct sf_err *err)
{
    return out_files_sync(&w->out, err);
}

int sf_writer_add_file(struct sf_writer *w, const char *name, const void *data, uint64_t bytes,
                       struct sf_err *err)
{
    struct container_metadata *m = &w->metadata;
    if (m->files == w->file_room) {
        int64_t room = w->file_room ? 2 * w->file_room : 16;
        struct carried_file *file = sf_arena_array(&w->arena, (uint64_t)room, sizeof *file);
        if (!file)
            return sf_fail(err, SF_ENOMEM, "%s: cannot allocate its entry", name);
        if (m->files)
            memcpy(file, m->file, (uint64_t)m->files * sizeof *file);
        m->file = file;
        w->file_room = room;
    }
    char *copy = sf_arena_strdup(&w->arena, name);
    if (!copy)
        return sf_fail(err, SF_ENOMEM, "%s: cannot allocate its name", name);
    m->file[m->files++] = (struct carried_file){.name = copy, .data = data, .bytes = bytes};
    return SF_OK;
}

/* ---- commit ---- */

static int put_codebooks(struct sf_writer *w, struct sf_err *err)
{
    const struct sf_layout *l = w->layout;
    if (l->shared < 0)
        return SF_OK;
    const struct sf_extent *extent = &l->extent[l->shared];
    unsigned char *data = sf_arena_alloc(&w->arena, extent->bytes);
    if (!data)
        return sf_fail(err, SF_ENOMEM, "cannot allocate the codebooks");
    for (int64_t b = 0; b < l->books; b++) {
        const struct shared_book *book = &l->book[b];
        unsigned char *at = data + (book->plane.address - extent->address);
        for (int64_t i = 0; i < book->plane.shape.dim[0]; i++)
            sf_put_f32(at + 4 * i, book->value[i]);
    }
    return put_chunks(w, extent, 0, data, extent->bytes, err);
}

static int check_complete(const struct sf_writer *w, struct sf_err *err)
{
    for (int64_t e = 0; e < w->layout->extents; e++) {
        const struct sf_extent *extent = &w->layout->extent[e];
        for (uint64_t c = 0; c < extent->chunks; c++)
            if (!w->put[extent->first_chunk + c])
                return sf_fail(err, SF_EINVAL, "extent %lld: chunk %llu of %llu was never put",
                               (long long)e, (unsigned long long)c,
                               (unsigned long long)extent->chunks);
    }
    return SF_OK;
}

static int append_section(struct sf_writer *w, struct header_page *header, uint32_t type,
                          const unsigned char *data, uint64_t bytes, struct sf_err *err)
{
    int code = out_files_write(&w->out, 1, header->file_bytes, data, bytes, err);
    header->section[header->sections++] = (struct header_section){.type = type,
                                                                  .offset = header->file_bytes,
                                                                  .bytes = bytes,
                                                                  .hash = sf_hash128(data, bytes)};
    header->file_bytes += bytes;
    return code;
}

/* Header of file `file` so far: of the first of several without sections, of others with payload. */
static struct header_page begin_header(const struct sf_layout *l, int64_t file)
{
    struct header_page header = {.major = LAYOUT_MAJOR,
                                 .minor = LAYOUT_MINOR,
                                 .file_bytes = HEADER_BYTES,
                                 .extent_log2 = LAYOUT_EXTENT_LOG2,
                                 .chunk_log2 = LAYOUT_CHUNK_LOG2};
    uint64_t payload = l->payload_bytes;
    if (l->parts > 0) {
        header.incompatible = FEATURE_FILES;
        header.file = (uint32_t)file;
        header.files = (uint32_t)sf_layout_files(l);
        payload = file > 1 ? l->part[file - 2].bytes : 0;
    }
    if (payload > 0)
        header.section[header.sections++] = (struct header_section){
            .type = SECTION_PAYLOAD, .offset = HEADER_BYTES, .bytes = payload};
    header.file_bytes += payload;
    return header;
}

static int write_header(const struct sf_writer *w, int64_t file, const struct header_page *header,
                        struct sf_err *err)
{
    unsigned char page[HEADER_BYTES];
    header_encode(page, header);
    return out_files_write(&w->out, file, 0, page, sizeof page, err);
}

/* What says which tensor lies where is known for sure only now. */
static int check_first(const struct sf_layout *l, const struct header_page *header,
                       struct sf_err *err)
{
    if (l->parts == 0 || header->file_bytes <= l->part_most)
        return SF_OK;
    return sf_fail(err, SF_EINVAL,
                   "parts of at most %llu bytes: checksums, index and carried files need %llu",
                   (unsigned long long)l->part_most, (unsigned long long)header->file_bytes);
}

/* Checksums, index, metadata; then the headers, the first file's last: it makes a container of
 * them. */
static int write_sections(struct sf_writer *w, struct sf_err *err)
{
    const struct sf_layout *l = w->layout;
    unsigned char *index, *metadata;
    uint64_t index_bytes, metadata_bytes, checksum_bytes = 8 * l->chunks;
    struct header_page header = begin_header(l, 1);
    int code = index_encode(&index, &index_bytes, &w->arena, l, HEADER_BYTES, err);
    if (code == SF_OK)
        code = metadata_encode(&metadata, &metadata_bytes, &w->arena, &w->metadata, err);
    if (code == SF_OK)
        code = container_identity(&header.identity, index, index_bytes, w->checksum, checksum_bytes,
                                  &w->metadata, err);
    if (code == SF_OK)
        code = append_section(w, &header, SECTION_CHECKSUMS, w->checksum, checksum_bytes, err);
    if (code == SF_OK)
        code = append_section(w, &header, SECTION_INDEX, index, index_bytes, err);
    if (code == SF_OK)
        code = append_section(w, &header, SECTION_METADATA, metadata, metadata_bytes, err);
    if (code == SF_OK)
        code = check_first(l, &header, err);
    for (int64_t file = 2; file <= sf_layout_files(l) && code == SF_OK; file++) {
        struct header_page part = begin_header(l, file);
        part.identity = header.identity;
        code = write_header(w, file, &part, err);
    }
    return code == SF_OK ? write_header(w, 1, &header, err) : code;
}

int sf_layout_first_bytes(uint64_t *out, const struct sf_layout *layout, uint64_t carried,
                          struct sf_err *err)
{
    enum { REST = 64 << 10 }; /* header page, summary, source shards */
    struct sf_arena scratch = {0};
    unsigned char *index;
    uint64_t bytes;
    int code = index_encode(&index, &bytes, &scratch, layout, HEADER_BYTES, err);
    sf_arena_free(&scratch);
    if (code == SF_OK) /* zstd makes of what it cannot pack at most a 256th more */
        *out = REST + bytes + 8 * layout->chunks + carried + carried / 256;
    return code;
}

int sf_writer_commit(struct sf_writer *w, const struct sf_summary *summary, struct sf_err *err)
{
    w->metadata.summary = *summary;
    int code = put_codebooks(w, err);
    if (code == SF_OK)
        code = check_complete(w, err);
    if (code == SF_OK)
        code = write_sections(w, err);
    if (code == SF_OK)
        code = out_files_commit(&w->out, err);
    if (w->out.resumable)
        sf_writer_keep(w);
    else
        sf_writer_abort(w);
    return code;
}

void sf_writer_abort(struct sf_writer *w)
{
    if (!w)
        return;
    out_files_abort(&w->out);
    sf_arena_free(&w->arena);
    sf_free(w);
}

void sf_writer_keep(struct sf_writer *w)
{
    if (!w)
        return;
    out_files_keep(&w->out);
    sf_writer_abort(w);
}
