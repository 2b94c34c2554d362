#include "train/checkpoint.h"

#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/folders.h"
#include "libformat/base/mem.h"

static const char record_name[] = "resume.json", moments_name[] = "optimizer.bin";
static const char *const kept_names[] = {"adapter_model.safetensors", "adapter_config.json",
                                         moments_name, "metrics.jsonl"};
enum { KEPT = sizeof kept_names / sizeof kept_names[0], SLICE_BYTES = 8 << 20 };

static int no_path(struct sf_err *err)
{
    return sf_fail(err, SF_ENOMEM, "no memory for a path");
}

/* ---- the adapter ---- */

static int write_adapter(struct sf_arena *arena, const struct sft_checkpoint *c,
                         const char *directory, struct sft_lora *lora, struct sf_err *err)
{
    struct sf_adapter adapter;
    int code = sft_lora_pull(lora, err);
    if (!code)
        code = sft_lora_export(&adapter, lora, arena, err);
    if (code)
        return code;
    adapter.prefix = c->prefix;
    adapter.layout = c->layout;
    adapter.base_model = c->base_model;
    return sf_adapter_write(directory, &adapter, c->spec, err);
}

int sft_checkpoint_write_adapter(const struct sft_checkpoint *checkpoint, const char *directory,
                                 struct sft_lora *lora, struct sf_err *err)
{
    struct sf_arena arena = {0};
    int code = write_adapter(&arena, checkpoint, directory, lora, err);
    sf_arena_free(&arena);
    return code;
}

int sft_checkpoint_load_adapter(struct sft_lora *lora, const struct sft_checkpoint *checkpoint,
                                const char *folder, struct sf_err *err)
{
    struct sf_arena arena = {0};
    struct sf_adapter adapter;
    int code = sf_adapter_read(&adapter, &arena, folder, checkpoint->spec, err);
    if (!code)
        code = sft_lora_load(lora, &adapter, err);
    sf_arena_free(&arena);
    return code ? code : sft_lora_push(lora, err);
}

/* ---- moments: the block's own bytes, a slice at a time ---- */

/* The slice of ops' memory that starts at `at`: to `host` memory, or from it. */
static int move_slice(const struct sft_lora *lora, void *host, uint64_t at, uint64_t bytes,
                      bool into_block, struct sf_err *err)
{
    const struct sk_memory *memory = lora->ops->memory;
    unsigned char *block = (unsigned char *)lora->block + at;
    return into_block ? memory->write(lora->ctx, block, host, bytes, err)
                      : memory->read(lora->ctx, host, block, bytes, err);
}

static int write_moments(const char *path, const struct sft_lora *lora, void *slice,
                         struct sf_err *err)
{
    struct sft_moments moments = sft_lora_moments(lora);
    struct sf_out *out;
    int code = sf_out_open(&out, path, err);
    if (code)
        return code;
    for (uint64_t done = 0; !code && done < moments.bytes;) {
        uint64_t bytes = moments.bytes - done < SLICE_BYTES ? moments.bytes - done : SLICE_BYTES;
        code = move_slice(lora, slice, moments.m + done, bytes, false, err);
        if (!code)
            code = sf_out_append(out, slice, bytes, err);
        done += bytes;
    }
    if (!code)
        return sf_out_commit(out, err);
    sf_out_abort(out);
    return code;
}

struct filling { /* of the block from a file */
    struct sft_lora *lora;
    uint64_t at, end;
};

static int take_moments(void *context, const void *data, uint64_t bytes, struct sf_err *err)
{
    struct filling *f = context;
    if (bytes > f->end - f->at)
        return sf_fail(err, SF_EFORMAT, "more than the %llu bytes of this adapter's moments",
                       (unsigned long long)sft_lora_moments(f->lora).bytes);
    int code = f->lora->ops->memory->write(f->lora->ctx, (unsigned char *)f->lora->block + f->at,
                                           data, bytes, err);
    f->at += bytes;
    return code;
}

static int read_moments(struct sft_lora *lora, const char *path, struct sf_err *err)
{
    struct sft_moments moments = sft_lora_moments(lora);
    struct filling filling = {lora, moments.m, moments.m + moments.bytes};
    int code = sf_file_scan(path, take_moments, &filling, err);
    if (!code && filling.at != filling.end)
        code = sf_fail(err, SF_EFORMAT, "%llu bytes; this adapter's moments take %llu",
                       (unsigned long long)(filling.at - moments.m),
                       (unsigned long long)moments.bytes);
    return code ? sf_err_prefix(err, "%s", path) : SF_OK;
}

int sft_checkpoint_load(struct sft_lora *lora, const struct sft_checkpoint *checkpoint,
                        const char *folder, struct sf_err *err)
{
    struct sf_arena arena = {0};
    int code = sft_checkpoint_load_adapter(lora, checkpoint, folder, err);
    const char *path = sf_path_join(&arena, folder, moments_name);
    if (!code)
        code = path ? read_moments(lora, path, err) : no_path(err);
    sf_arena_free(&arena);
    return code;
}

/* ---- hashes of whole files ---- */

struct hashing {
    struct sf_hasher *hasher;
    uint64_t bytes;
};

static int take_hash(void *context, const void *data, uint64_t bytes, struct sf_err *err)
{
    struct hashing *h = context;
    (void)err;
    sf_hasher_add(h->hasher, data, bytes);
    h->bytes += bytes;
    return SF_OK;
}

static int hash_file(struct sft_kept_file *out, struct sf_arena *arena, const char *folder,
                     const char *name, struct sf_err *err)
{
    struct hashing hashing = {0};
    const char *path = sf_path_join(arena, folder, name);
    if (!path)
        return no_path(err);
    int code = sf_hasher_open(&hashing.hasher, err);
    if (code)
        return code;
    code = sf_file_scan(path, take_hash, &hashing, err);
    *out = (struct sft_kept_file){name, hashing.bytes, sf_hasher_digest(hashing.hasher)};
    sf_hasher_close(hashing.hasher);
    return code;
}

/* ---- writing a folder ---- */

static int copy_file(const char *from, const char *folder, struct sf_arena *arena,
                     struct sf_err *err)
{
    struct sf_mapping mapping;
    const char *to = sf_path_join(arena, folder, "metrics.jsonl");
    if (!to)
        return no_path(err);
    int code = sf_map_file(&mapping, from, err);
    if (code)
        return code;
    code = sf_write_file(to, mapping.data, mapping.bytes, err);
    sf_unmap(&mapping);
    return code;
}

static int write_record(const char *folder, struct sf_arena *arena,
                        const struct sft_resume_record *record, struct sf_err *err)
{
    struct sft_kept_file file[KEPT];
    struct sft_resume_record whole = *record;
    const char *path = sf_path_join(arena, folder, record_name);
    char *text;
    uint64_t bytes;
    int code = path ? SF_OK : no_path(err);
    for (int i = 0; !code && i < KEPT; i++)
        code = hash_file(&file[i], arena, folder, kept_names[i], err);
    whole.file = file;
    whole.files = KEPT;
    if (!code)
        code = sft_resume_record_write(&text, &bytes, arena, &whole, err);
    return code ? code : sf_write_file(path, text, bytes, err);
}

/* Each call syncs its file and the folder. */
static int write_files(const struct sft_checkpoint *c, const char *folder, struct sft_lora *lora,
                       const struct sft_resume_record *record, const char *metrics,
                       struct sf_arena *arena, struct sf_err *err)
{
    const char *moments = sf_path_join(arena, folder, moments_name);
    void *slice;
    int code = moments ? sf_alloc_for(&slice, SLICE_BYTES, "a checkpoint", err) : no_path(err);
    if (code)
        return code;
    code = write_adapter(arena, c, folder, lora, err);
    if (!code)
        code = write_moments(moments, lora, slice, err);
    sf_free(slice);
    if (!code)
        code = copy_file(metrics, folder, arena, err);
    return code ? code : write_record(folder, arena, record, err);
}

/* What stands under the name goes aside first: only a damaged checkpoint, or one of a run that is
 * written over, is ever in the way. */
static int take_place(const char *partial, const char *folder, struct sf_arena *arena,
                      struct sf_err *err)
{
    char *aside = sf_arena_printf(arena, "%s.removed", folder);
    if (!aside)
        return no_path(err);
    int code = sf_folder_remove(aside, err);
    if (!code && sf_file_exists(folder))
        code = sf_folder_rename(folder, aside, err);
    if (!code)
        code = sf_folder_rename(partial, folder, err);
    struct sf_err ignored = {0};
    if (!code)
        sf_folder_remove(aside, &ignored); /* else the next one does */
    return code;
}

static int write_whole(const struct sft_checkpoint *c, struct sft_lora *lora,
                       const struct sft_resume_record *record, const char *metrics,
                       struct sf_arena *arena, struct sf_err *err)
{
    long long step = (long long)record->state.step;
    char *folder = sf_arena_printf(arena, "%s/checkpoint-%lld", c->directory, step);
    char *partial = folder ? sf_arena_printf(arena, "%s.partial", folder) : NULL;
    if (!partial)
        return no_path(err);
    int code = sf_folder_remove(partial, err); /* of a process that was killed */
    if (!code)
        code = write_files(c, partial, lora, record, metrics, arena, err);
    if (!code)
        code = take_place(partial, folder, arena, err);
    if (code) {
        struct sf_err ignored = {0};
        sf_folder_remove(partial, &ignored); /* a full disk gets its space back */
    }
    return code;
}

int sft_checkpoint_write(const struct sft_checkpoint *checkpoint, struct sft_lora *lora,
                         const struct sft_resume_record *record, const char *metrics,
                         struct sf_err *err)
{
    struct sf_arena arena = {0};
    int code = write_whole(checkpoint, lora, record, metrics, &arena, err);
    sf_arena_free(&arena);
    return code;
}

/* ---- reading one ---- */

static int check_file(const struct sft_kept_file *want, struct sf_arena *arena, const char *folder,
                      struct sf_err *err)
{
    struct sft_kept_file is = {0};
    int code = hash_file(&is, arena, folder, want->name, err);
    if (code)
        return code;
    if (is.bytes != want->bytes)
        return sf_fail(err, SF_EDAMAGED, "%s/%s: %llu bytes, not the %llu that were written",
                       folder, want->name, (unsigned long long)is.bytes,
                       (unsigned long long)want->bytes);
    if (is.hash.low != want->hash.low || is.hash.high != want->hash.high)
        return sf_fail(err, SF_EDAMAGED, "%s/%s: its checksum does not match", folder, want->name);
    return SF_OK;
}

static bool is_listed(const struct sft_resume_record *record, const char *name)
{
    for (int64_t i = 0; i < record->files; i++)
        if (strcmp(record->file[i].name, name) == 0)
            return true;
    return false;
}

int sft_checkpoint_read(struct sft_resume_record *out, struct sf_arena *arena, const char *folder,
                        struct sf_err *err)
{
    const char *path = sf_path_join(arena, folder, record_name);
    char *text;
    uint64_t bytes;
    if (!path)
        return no_path(err);
    int code = sf_read_file(&text, &bytes, arena, path, SFT_RESUME_MOST_BYTES, err);
    if (code)
        return code;
    code = sft_resume_record_read(out, arena, text, bytes, err);
    for (int i = 0; !code && i < KEPT; i++)
        if (!is_listed(out, kept_names[i]))
            code = sf_fail(err, SF_EFORMAT, "it does not name %s", kept_names[i]);
    if (code)
        return sf_err_prefix(err, "%s", path);
    for (int64_t i = 0; !code && i < out->files; i++)
        code = check_file(&out->file[i], arena, folder, err);
    return code;
}
