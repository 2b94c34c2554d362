#include "libformat/container/out_files.h"

#include <assert.h>
#include <stdio.h>

#include "libformat/container/layout.h"
#include "libformat/container/set_name.h"

/* What a file is called until commit; ".partial" comes behind it. The number of files is not part
 * of it: while shards are missing it is not known. */
static const char *working_name(struct sf_arena *arena, const char *path, int64_t file)
{
    return file == 1 ? sf_arena_strdup(arena, path)
                     : sf_arena_printf(arena, "%s.part-%05lld", path, (long long)file);
}

/* Bytes of file `file` before commit: header page and payload. */
static uint64_t working_bytes(const struct sf_layout *layout, int64_t file)
{
    if (layout->parts == 0)
        return HEADER_BYTES + layout->payload_bytes;
    return file == 1 ? HEADER_BYTES : sf_layout_file_bytes(layout, file);
}

static int begin(struct out_files *f, const char *path, const struct sf_layout *layout,
                 struct sf_err *err)
{
    *f = (struct out_files){.layout = layout};
    f->path = sf_arena_strdup(&f->arena, path);
    f->out = sf_arena_array(&f->arena, (uint64_t)sf_layout_files(layout), sizeof *f->out);
    return f->path && f->out ? SF_OK : sf_fail(err, SF_ENOMEM, "%s: no memory for files", path);
}

static const char *next_name(struct out_files *f, struct sf_err *err)
{
    const char *name = working_name(&f->arena, f->path, f->files + 1);
    if (!name)
        sf_fail(err, SF_ENOMEM, "%s: cannot allocate a file name", f->path);
    return name;
}

int out_files_open(struct out_files *f, const char *path, const struct sf_layout *layout,
                   struct sf_err *err)
{
    int code = begin(f, path, layout, err);
    while (code == SF_OK && f->files < sf_layout_files(layout)) {
        const char *name = next_name(f, err);
        code = name ? sf_out_open(&f->out[f->files], name, err) : SF_ENOMEM;
        if (code != SF_OK)
            break;
        f->files++;
        code = sf_out_reserve(f->out[f->files - 1], working_bytes(layout, f->files), err);
    }
    if (code != SF_OK)
        out_files_abort(f);
    return code;
}

/* A commit that was cut short left sections behind what is ours, in a header that is not final. */
static int resume_one(struct out_files *f, uint64_t *size, struct sf_err *err)
{
    const char *name = next_name(f, err);
    struct sf_out **out = &f->out[f->files];
    uint64_t bytes = working_bytes(f->layout, f->files + 1);
    int code = name ? sf_out_resume(out, size, name, err) : SF_ENOMEM;
    if (code != SF_OK)
        return code;
    f->files++;
    code = sf_out_reserve(*out, bytes, err);
    if (code == SF_OK)
        code = sf_out_truncate(*out, bytes, err);
    return code == SF_OK ? sf_out_sync(*out, err) : code;
}

int out_files_resume(struct out_files *f, uint64_t *standing, const char *path,
                     const struct sf_layout *layout, struct sf_err *err)
{
    bool any = false, whole = true;
    int code = begin(f, path, layout, err);
    *standing = 0;
    while (code == SF_OK && f->files < sf_layout_files(layout)) {
        uint64_t size = 0, want = working_bytes(layout, f->files + 1);
        code = resume_one(f, &size, err);
        any = any || size > 0;
        if (whole && size > HEADER_BYTES)
            *standing += (size < want ? size : want) - HEADER_BYTES;
        whole = whole && size >= want;
    }
    f->resumable = true;
    if (code != SF_OK && any)
        out_files_keep(f);
    else if (code != SF_OK)
        out_files_abort(f);
    return code;
}

/* The part that holds an address. */
static int64_t part_of(const struct sf_layout *layout, uint64_t address)
{
    int64_t low = 0, high = layout->parts - 1;
    while (low < high) {
        int64_t mid = low + (high - low + 1) / 2;
        if (layout->part[mid].address <= address)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

int out_files_put(const struct out_files *f, uint64_t address, const void *data, uint64_t bytes,
                  struct sf_err *err)
{
    const struct sf_layout *l = f->layout;
    if (l->parts == 0)
        return sf_out_write_at(f->out[0], data, bytes, HEADER_BYTES + address, err);
    int64_t part = part_of(l, address);
    uint64_t at = address - l->part[part].address;
    assert(at + bytes <= l->part[part].bytes);
    return sf_out_write_at(f->out[part + 1], data, bytes, HEADER_BYTES + at, err);
}

int out_files_write(const struct out_files *f, int64_t file, uint64_t offset, const void *data,
                    uint64_t bytes, struct sf_err *err)
{
    return sf_out_write_at(f->out[file - 1], data, bytes, offset, err);
}

int out_files_sync(const struct out_files *f, struct sf_err *err)
{
    int code = SF_OK;
    for (int64_t i = f->files - 1; i >= 0 && code == SF_OK; i--)
        code = sf_out_sync(f->out[i], err);
    return code;
}

static int commit_one(struct out_files *f, int64_t file, struct sf_err *err)
{
    const char *name = sf_set_name(&f->arena, f->path, file, f->files);
    int code = name ? sf_out_rename_to(f->out[file - 1], name, err)
                    : sf_fail(err, SF_ENOMEM, "%s: cannot allocate a file name", f->path);
    if (code != SF_OK)
        return code;
    struct sf_out *out = f->out[file - 1];
    f->out[file - 1] = NULL; /* gone either way */
    return sf_out_commit(out, err);
}

/* Parts that have their final name already go, too: without the first they are nothing. */
static void undo(struct out_files *f, int64_t from)
{
    for (int64_t file = from; file <= f->files && !f->resumable; file++) {
        const char *name = sf_set_name(&f->arena, f->path, file, f->files);
        if (name)
            sf_remove_file(name, NULL);
    }
}

int out_files_commit(struct out_files *f, struct sf_err *err)
{
    int64_t file = f->files;
    int code = SF_OK;
    for (; file >= 1 && code == SF_OK; file--)
        code = commit_one(f, file, err);
    if (code != SF_OK)
        undo(f, file + 2);
    if (f->resumable)
        out_files_keep(f);
    else
        out_files_abort(f);
    return code;
}

void out_files_keep(struct out_files *f)
{
    for (int64_t i = 0; i < f->files; i++)
        sf_out_keep(f->out[i]);
    f->files = 0;
    sf_arena_free(&f->arena);
}

void out_files_abort(struct out_files *f)
{
    for (int64_t i = 0; i < f->files; i++)
        sf_out_abort(f->out[i]);
    f->files = 0;
    sf_arena_free(&f->arena);
}

static int take_back_one(struct sf_arena *scratch, const char *path, const struct sf_layout *layout,
                         int64_t file, struct sf_err *err)
{
    const char *final = sf_set_name(scratch, path, file, sf_layout_files(layout));
    const char *name = working_name(scratch, path, file);
    const char *partial = name ? sf_arena_printf(scratch, "%s.partial", name) : NULL;
    if (!final || !partial)
        return sf_fail(err, SF_ENOMEM, "%s: cannot allocate a file name", path);
    if (sf_file_exists(partial) || !sf_file_exists(final))
        return SF_OK;
    return sf_rename_file(final, partial, err);
}

int sf_writer_take_back(const char *path, const struct sf_layout *layout, struct sf_err *err)
{
    struct sf_arena scratch = {0};
    int code = SF_OK;
    for (int64_t file = 2; file <= sf_layout_files(layout) && code == SF_OK; file++)
        code = take_back_one(&scratch, path, layout, file, err);
    sf_arena_free(&scratch);
    return code;
}

int sf_writer_forget(const char *path, struct sf_err *err)
{
    struct sf_arena scratch = {0};
    int code = SF_OK;
    for (int64_t file = 1; code == SF_OK; file++) {
        const char *name = working_name(&scratch, path, file);
        const char *partial = name ? sf_arena_printf(&scratch, "%s.partial", name) : NULL;
        if (!partial)
            code = sf_fail(err, SF_ENOMEM, "%s: cannot allocate a file name", path);
        else if (sf_file_exists(partial))
            code = sf_remove_file(partial, err);
        else if (file > 1)
            break;
    }
    sf_arena_free(&scratch);
    return code;
}
