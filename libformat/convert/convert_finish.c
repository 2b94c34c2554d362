#include "libformat/convert/convert_finish.h"

#include "libformat/base/file.h"
#include "libformat/container/container_check.h"
#include "libformat/container/set_name.h"

int sf_finish_check_room(const struct sf_convert_plan *plan,
                         const struct sf_convert_options *options, struct sf_err *err)
{
    uint64_t most = sf_layout_part_most(plan->layout), carried = 0, need = 0;
    if (most == 0)
        return SF_OK;
    for (int64_t i = 0; i < options->files; i++)
        carried += options->file[i].bytes;
    int code = sf_layout_first_bytes(&need, plan->layout, carried, err);
    if (code == SF_OK && need > most)
        code = sf_fail(err, SF_EINVAL,
                       "parts of at most %llu bytes: checksums, index and carried files may need "
                       "%llu",
                       (unsigned long long)most, (unsigned long long)need);
    return code;
}

int sf_finish_commit(struct sf_writer *writer, struct sf_work *work, struct sf_journal *journal,
                     const struct sf_convert_options *o, struct sf_err *err)
{
    const struct sf_convert_plan *plan = work->plan;
    const struct sf_model_spec *spec = plan->spec;
    int64_t shards = sf_hf_index_shard_count(plan->index);
    struct sf_source_shard *shard = sf_arena_array(&work->arena, (uint64_t)shards, sizeof *shard);
    int code = shard ? sf_work_shard_hashes(shard, work, err)
                     : sf_fail(err, SF_ENOMEM, "no memory for %lld shards", (long long)shards);
    for (int64_t i = 0; i < o->files && code == SF_OK; i++)
        code = sf_writer_add_file(writer, o->file[i].name, o->file[i].data, o->file[i].bytes, err);
    if (code == SF_OK)
        code = sf_journal_add(journal, SF_JOURNAL_FINISHED, 0, "", 0, err);
    if (code == SF_OK)
        code = sf_journal_sync(journal, err);
    if (code != SF_OK) {
        sf_writer_keep(writer);
        return code;
    }
    struct sf_summary summary = {.family = spec->family,
                                 .architecture = spec->architecture,
                                 .model_id = o->model_id,
                                 .converter = o->converter,
                                 .options = o->options_text,
                                 .layers = spec->layers,
                                 .hidden = spec->hidden,
                                 .experts = spec->experts,
                                 .vocabulary = spec->vocabulary,
                                 .parameters = plan->parameters,
                                 .parameters_text = plan->parameters_text,
                                 .source_bytes = plan->source_bytes,
                                 .shard_count = shards,
                                 .shard = shard};
    return sf_writer_commit(writer, &summary, err);
}

/* Name of file `file` once all is done; NULL without memory. */
static const char *final_name(struct sf_arena *scratch, const struct sf_work *work,
                              const char *path, int64_t file)
{
    return sf_set_name(scratch, path, file, sf_layout_files(work->plan->layout));
}

bool sf_finish_is_committed(const struct sf_work *work, const struct sf_journal *journal,
                            const char *path)
{
    struct sf_arena scratch = {0};
    const char *partial = sf_arena_printf(&scratch, "%s.partial", path);
    const char *name = final_name(&scratch, work, path, 1);
    bool committed = sf_journal_find(journal, SF_JOURNAL_FINISHED) && partial && name &&
                     !sf_file_exists(partial) && sf_file_exists(name);
    sf_arena_free(&scratch);
    return committed;
}

int sf_finish_take_back(const struct sf_work *work, const struct sf_journal *journal,
                        const char *path, struct sf_err *err)
{
    if (!sf_journal_find(journal, SF_JOURNAL_FINISHED))
        return SF_OK;
    return sf_writer_take_back(path, work->plan->layout, err);
}

/* What does not read back must not look finished: the first file is what makes it so. Where sources
 * may be deleted it is all there is. */
static int put_away(const struct sf_work *work, const char *path, bool keep, struct sf_err *err)
{
    struct sf_arena scratch = {0};
    const char *first = final_name(&scratch, work, path, 1);
    const char *name = keep && first ? sf_arena_printf(&scratch, "%s.damaged", first) : NULL;
    bool kept = name && sf_rename_file(first, name, NULL) == SF_OK;
    for (int64_t file = 1; !keep && file <= sf_layout_files(work->plan->layout); file++) {
        const char *part = final_name(&scratch, work, path, file);
        if (part)
            sf_remove_file(part, NULL);
    }
    sf_arena_free(&scratch);
    return sf_err_prefix(err, "the finished file did not read back and was %s",
                         kept   ? "renamed to .damaged"
                         : keep ? "left, because sources were deleted"
                                : "removed");
}

static int check_all(const char *path, int threads, struct sf_err *err)
{
    struct sf_map *map;
    int64_t damaged;
    struct sf_check_options options = {.threads = threads};
    int code = sf_map_open(&map, path, err);
    if (code == SF_OK) {
        code = sf_check_run(&damaged, map, &options, err);
        sf_map_close(map);
    }
    return code;
}

int sf_finish_read_back(bool *there, const struct sf_work *work, const char *path, int threads,
                        bool keep, struct sf_err *err)
{
    struct sf_arena scratch = {0};
    const char *first = final_name(&scratch, work, path, 1);
    int code = first ? check_all(first, threads, err)
                     : sf_fail(err, SF_ENOMEM, "%s: cannot allocate its name", path);
    if (code == SF_EDAMAGED || code == SF_EFORMAT)
        code = put_away(work, path, keep, err);
    else if (code != SF_OK)
        code = sf_err_prefix(err, "the finished file could not be read back, which the same "
                                  "command tries again");
    *there = !first || sf_file_exists(first);
    sf_arena_free(&scratch);
    return code;
}
