#include "train/checkpoint_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/folders.h"

static const char prefix[] = "checkpoint-";
enum { PREFIX = sizeof prefix - 1 };

static int no_path(struct sf_err *err)
{
    return sf_fail(err, SF_ENOMEM, "no memory for a path");
}

char *sft_checkpoint_folder(struct sf_arena *arena, const char *directory, int64_t step)
{
    return sf_arena_printf(arena, "%s/%s%lld", directory, prefix, (long long)step);
}

/* The step of "checkpoint-<step>"; -1: another name. Only the spelling that we write counts. */
static int64_t step_of(const char *name)
{
    char again[64];
    if (strncmp(name, prefix, PREFIX) != 0 || strlen(name) > PREFIX + 15)
        return -1;
    long long step = strtoll(name + PREFIX, NULL, 10);
    snprintf(again, sizeof again, "%s%lld", prefix, step);
    return step > 0 && strcmp(again, name) == 0 ? step : -1;
}

static int compare_steps(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int sft_checkpoint_list(struct sft_checkpoint_list *out, struct sf_arena *arena,
                        const char *directory, struct sf_err *err)
{
    const char *const *name;
    int64_t count;
    *out = (struct sft_checkpoint_list){0};
    if (!sf_file_exists(directory))
        return SF_OK;
    int code = sf_folder_list(&name, &count, arena, directory, err);
    if (code)
        return code;
    out->step = sf_arena_array(arena, (uint64_t)count + 1, sizeof *out->step);
    if (!out->step)
        return sf_fail(err, SF_ENOMEM, "no memory for a list of checkpoints");
    for (int64_t i = 0; i < count; i++)
        if (step_of(name[i]) > 0)
            out->step[out->count++] = step_of(name[i]);
    if (out->count)
        qsort(out->step, (size_t)out->count, sizeof *out->step, compare_steps);
    return SF_OK;
}

/* ---- before a run ---- */

static int check_new(struct sf_arena *arena, const char *directory, struct sf_err *err)
{
    struct sft_checkpoint_list list;
    char *adapter = sf_path_join(arena, directory, "adapter_model.safetensors");
    if (!adapter)
        return no_path(err);
    if (sf_file_exists(adapter))
        return sf_fail(err, SF_EINVAL,
                       "%s: there is an adapter already; --overwrite-output-dir replaces it",
                       directory);
    int code = sft_checkpoint_list(&list, arena, directory, err);
    if (code || list.count == 0)
        return code;
    return sf_fail(err, SF_EINVAL,
                   "%s: there is checkpoint-%lld of an earlier run already; --resume goes on from "
                   "it, --overwrite-output-dir begins anew",
                   directory, (long long)list.step[list.count - 1]);
}

static int check_resume(struct sf_arena *arena, const char *directory, struct sf_err *err)
{
    struct sft_checkpoint_list list;
    char *adapter = sf_path_join(arena, directory, "adapter_model.safetensors");
    if (!adapter)
        return no_path(err);
    int code = sft_checkpoint_list(&list, arena, directory, err);
    if (!code && list.count == 0 && sf_file_exists(adapter))
        code = sf_fail(err, SF_EINVAL,
                       "%s: there is an adapter but no checkpoint to resume from; "
                       "--overwrite-output-dir begins anew",
                       directory);
    return code;
}

/* What a run that was killed, or had no memory, was removing. */
static int finish_removals(struct sf_arena *arena, const char *directory, struct sf_err *err)
{
    static const char end[] = ".removed";
    const char *const *name;
    int64_t count;
    int code = sf_folder_list(&name, &count, arena, directory, err);
    for (int64_t i = 0; !code && i < count; i++) {
        size_t n = strlen(name[i]);
        if (n < sizeof end || strncmp(name[i], "checkpoint-", 11) != 0 ||
            strcmp(name[i] + n - (sizeof end - 1), end) != 0)
            continue;
        char *path = sf_path_join(arena, directory, name[i]);
        code = path ? sf_folder_remove(path, err) : no_path(err);
    }
    return code;
}

static int prepare(struct sf_arena *arena, const char *directory, enum sft_output_mode mode,
                   struct sf_err *err)
{
    char *probe = sf_path_join(arena, directory, ".writable");
    struct sf_out *out;
    int code = probe ? SF_OK : no_path(err);
    if (!code && mode == SFT_OUTPUT_NEW)
        code = check_new(arena, directory, err);
    if (!code && mode == SFT_OUTPUT_RESUME)
        code = check_resume(arena, directory, err);
    if (!code)
        code = sf_make_directory(directory, err);
    if (!code)
        code = finish_removals(arena, directory, err);
    if (!code)
        code = sf_out_open(&out, probe, err);
    if (!code)
        sf_out_abort(out);
    return code;
}

int sft_checkpoint_prepare(const char *directory, enum sft_output_mode mode, struct sf_err *err)
{
    struct sf_arena arena = {0};
    int code = prepare(&arena, directory, mode, err);
    sf_arena_free(&arena);
    return code;
}

/* ---- the newest whole one ---- */

static bool is_damage(int code)
{
    return code == SF_EDAMAGED || code == SF_EFORMAT || code == SF_ENOENT;
}

int sft_checkpoint_newest(struct sft_resume_record *out, const char **folder,
                          struct sf_arena *arena, const char *directory, sft_checkpoint_note note,
                          void *context, struct sf_err *err)
{
    struct sft_checkpoint_list list;
    *folder = NULL;
    int code = sft_checkpoint_list(&list, arena, directory, err);
    for (int64_t i = list.count - 1; !code && i >= 0; i--) {
        struct sf_err why = {0};
        char *path = sft_checkpoint_folder(arena, directory, list.step[i]);
        code = path ? sft_checkpoint_read(out, arena, path, &why) : no_path(&why);
        if (!code && out->state.step != list.step[i])
            code = sf_fail(&why, SF_EDAMAGED, "%s: its record is of step %lld", path,
                           (long long)out->state.step);
        if (!code) {
            *folder = path;
            return SF_OK;
        }
        if (!is_damage(code)) {
            *err = why;
            return code;
        }
        note(context, sf_arena_printf(arena, "%s is not whole and is passed over: %s",
                                      path ? path : "a checkpoint", why.message));
        code = SF_OK;
    }
    if (!code && list.count > 0)
        code = sf_fail(err, SF_EDAMAGED,
                       "%s: none of its %lld checkpoints is whole; --overwrite-output-dir begins "
                       "anew",
                       directory, (long long)list.count);
    return code;
}

/* ---- those that go ---- */

static int remove_whole(struct sf_arena *arena, const char *path, struct sf_err *err)
{
    /* Renamed first: half of a checkpoint is never seen under its name. */
    char *aside = sf_arena_printf(arena, "%s.removed", path);
    if (!aside)
        return no_path(err);
    int code = sf_folder_remove(aside, err);
    if (!code)
        code = sf_folder_rename(path, aside, err);
    return code ? code : sf_folder_remove(aside, err);
}

static int set_aside(struct sf_arena *arena, const char *path, struct sf_err *err)
{
    char *aside = sf_arena_printf(arena, "%s.damaged", path);
    if (!aside)
        return no_path(err);
    int code = sf_folder_remove(aside, err);
    return code ? code : sf_folder_rename(path, aside, err);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static int clear_one(struct sf_arena *arena, const char *directory, const char *name, int64_t step,
                     struct sf_err *err)
{
    int64_t of = step_of(name);
    bool half = strncmp(name, prefix, PREFIX) == 0 &&
                (ends_with(name, ".partial") || ends_with(name, ".removed"));
    const char *path = sf_path_join(arena, directory, name);
    if (!path)
        return no_path(err);
    if (half)
        return sf_folder_remove(path, err);
    if (of > 0 && step < 0)
        return remove_whole(arena, path, err);
    return of > step && of > 0 ? set_aside(arena, path, err) : SF_OK;
}

int sft_checkpoint_clear(const char *directory, int64_t step, struct sf_err *err)
{
    struct sf_arena arena = {0};
    const char *const *name;
    int64_t count = 0;
    int code = sf_folder_list(&name, &count, &arena, directory, err);
    for (int64_t i = 0; !code && i < count; i++)
        code = clear_one(&arena, directory, name[i], step, err);
    sf_arena_free(&arena);
    return code;
}

static int rotate(struct sf_arena *arena, const char *directory, int64_t limit, int64_t newest,
                  int64_t best, struct sf_err *err)
{
    struct sft_checkpoint_list list;
    int code = sft_checkpoint_list(&list, arena, directory, err);
    int64_t left = list.count;
    for (int64_t i = 0; !code && i < list.count && left > limit; i++) {
        if (list.step[i] == newest || list.step[i] == best)
            continue;
        char *path = sft_checkpoint_folder(arena, directory, list.step[i]);
        code = path ? remove_whole(arena, path, err) : no_path(err);
        left--;
    }
    return code;
}

int sft_checkpoint_rotate(const char *directory, int64_t limit, int64_t newest, int64_t best,
                          struct sf_err *err)
{
    struct sf_arena arena = {0};
    int code = limit > 0 ? rotate(&arena, directory, limit, newest, best, err) : SF_OK;
    sf_arena_free(&arena);
    return code;
}
