#include "tools/convert_follow.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/container/container_map.h"
#include "libformat/container/set_name.h"
#include "tools/tool.h"

static const double INTERVAL = 1; /* seconds between two looks, where nothing is heard */
static const uint64_t LARGEST_TEXT = 256u << 20;

/* ---- waiting ---- */

static int wait_a_while(struct sf_arrivals *arrivals, struct sf_err *err)
{
    if (!tool_interrupted())
        sf_arrivals_wait(arrivals, INTERVAL);
    return tool_interrupted() ? sf_fail(err, SF_EINTERRUPTED, "interrupted while waiting") : SF_OK;
}

/* One line on stderr, if it is another one than last time. */
static void say_waiting(const char *name, const char *why, int64_t others)
{
    static char last[512];
    char line[sizeof last], more[64] = "";
    if (others > 0)
        snprintf(more, sizeof more, " (and %lld more)", (long long)others);
    snprintf(line, sizeof line, "waiting for %s: %s%s", name, why, more);
    if (strcmp(line, last) != 0)
        fprintf(stderr, "%s\n", line);
    memcpy(last, line, sizeof last);
}

/* Downloads of small files are not always renamed into place: JSON says itself when it is whole. What
 * cannot be read is not waited for. */
static int look_json(bool *whole, const char *directory, const char *name, struct sf_err *err)
{
    struct sf_arena scratch = {0};
    struct sf_json *root = NULL;
    char *text, *path = sf_path_join(&scratch, directory, name);
    uint64_t bytes;
    int code = path ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a path");
    *whole = false;
    if (code == SF_OK && sf_file_exists(path)) {
        code = sf_read_file(&text, &bytes, &scratch, path, LARGEST_TEXT, err);
        *whole = code == SF_OK && sf_json_parse(&root, text, bytes, NULL) == SF_OK;
    }
    sf_json_free(root);
    sf_arena_free(&scratch);
    return code == SF_ENOENT ? SF_OK : code; /* gone again */
}

static int look_listed(bool *whole, const char *directory, const char *name, struct sf_err *err)
{
    struct sf_arena scratch = {0};
    const char *single = sf_path_join(&scratch, directory, "model.safetensors");
    int code = single ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a path");
    *whole = single && sf_file_exists(single);
    if (code == SF_OK && !*whole)
        code = look_json(whole, directory, name, err);
    sf_arena_free(&scratch);
    return code;
}

typedef int looker(bool *whole, const char *directory, const char *name, struct sf_err *err);

static int wait_for(looker *look, struct sf_arrivals *arrivals, const char *directory,
                    const char *name, struct sf_err *err)
{
    bool whole = false;
    int code = look(&whole, directory, name, err);
    while (code == SF_OK && !whole) {
        say_waiting(name, "not there, or not whole", 0);
        code = wait_a_while(arrivals, err);
        if (code == SF_OK)
            code = look(&whole, directory, name, err);
    }
    return code;
}

int follow_start(struct sf_arrivals *arrivals, const char *directory, struct sf_err *err)
{
    int code = wait_for(look_json, arrivals, directory, "config.json", err);
    return code == SF_OK
               ? wait_for(look_listed, arrivals, directory, "model.safetensors.index.json", err)
               : code;
}

bool follow_is_complete(const struct sf_hf_index *index)
{
    for (int64_t i = 0; i < sf_hf_index_shard_count(index); i++)
        if (sf_hf_index_shard(index, i)->expected)
            return false;
    return true;
}

bool follow_can_begin(const struct sf_hf_index *index)
{
    for (int64_t i = 0; i < sf_hf_index_shard_count(index); i++)
        if (!sf_hf_index_shard(index, i)->expected)
            return true;
    return sf_hf_index_shard_count(index) == 0;
}

/* *found: one that was missing is there. Else says for which the wait is. */
static int look_for_news(bool *found, struct sf_arrivals *arrivals, const struct sf_hf_index *index,
                         const bool *needed, struct sf_err *err)
{
    const char *first = NULL, *first_why = NULL;
    int64_t others = -1;
    *found = false;
    for (int64_t i = 0; i < sf_hf_index_shard_count(index); i++) {
        const struct sf_hf_shard *s = sf_hf_index_shard(index, i);
        const char *why;
        if (sf_safetensors_is_there(s->file) || (needed && !needed[i]))
            continue;
        int code = sf_arrivals_look(found, &why, arrivals, s->name, false, err);
        if (code != SF_OK || *found)
            return code;
        if (others++ < 0) {
            first = s->name;
            first_why = why;
        }
    }
    if (first)
        say_waiting(first, first_why, others);
    return SF_OK;
}

int follow_shard(struct sf_arrivals *arrivals, const struct sf_hf_index *index, const bool *needed,
                 struct sf_err *err)
{
    bool found = false;
    int code = SF_OK;
    while (code == SF_OK) {
        code = look_for_news(&found, arrivals, index, needed, err);
        if (code != SF_OK || found)
            break;
        code = wait_a_while(arrivals, err);
    }
    return code;
}

bool follow_file_is_whole(const struct sf_carried_file *file)
{
    const char *text = file->data, *dot = strrchr(file->name, '.');
    uint64_t n = file->bytes;
    if (!dot || strcmp(dot, ".json") != 0)
        return true;
    while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    return n > 1 && text[0] == '{' && text[n - 1] == '}';
}

int follow_file(struct sf_arrivals *arrivals, const char *name, struct sf_err *err)
{
    say_waiting(name, "not whole", 0);
    return wait_a_while(arrivals, err);
}

/* ---- what is finished ---- */

static bool some_shard_is_gone(const struct sf_summary *summary, const char *directory,
                               struct sf_arena *scratch)
{
    for (int64_t i = 0; i < summary->shard_count; i++) {
        const char *path = sf_path_join(scratch, directory, summary->shard[i].name);
        if (path && !sf_file_exists(path))
            return true;
    }
    return false;
}

bool follow_is_finished(const char *container, uint64_t part_bytes, const char *directory,
                        const struct sf_carried_file *config, const char *model_id,
                        const char *options)
{
    struct sf_arena scratch = {0};
    struct sf_map *map;
    char *text;
    uint64_t bytes;
    const char *first = part_bytes ? sf_set_find_first(&scratch, container) : container;
    if (!first || sf_map_open(&map, first, NULL) != SF_OK) {
        sf_arena_free(&scratch);
        return false;
    }
    const struct sf_summary *s = sf_map_summary(map);
    bool same = strcmp(s->model_id, model_id) == 0 && strcmp(s->options, options) == 0 &&
                sf_map_read_file(&text, &bytes, map, config->name, &scratch, NULL) == SF_OK &&
                bytes == config->bytes && memcmp(text, config->data, bytes) == 0 &&
                some_shard_is_gone(s, directory, &scratch);
    sf_map_close(map);
    sf_arena_free(&scratch);
    return same;
}

/* ---- deleting ---- */

static int delete_one(const char *path, struct sf_err *err)
{
    struct sf_file_stat stat = {0};
    char size[TOOL_SIZE_TEXT];
    sf_file_stat(&stat, path, NULL);
    int code = sf_remove_file(path, err);
    if (code == SF_OK)
        printf("deleted %s (%s)\n", path, tool_size(size, stat.bytes));
    return code;
}

int follow_delete(const char *path, bool blobs, struct sf_err *err)
{
    struct sf_arena scratch = {0};
    char *target;
    int code = sf_link_target(&target, &scratch, path, err);
    if (code == SF_OK && target && blobs) /* first, or a link that is gone leaves it for ever */
        code = delete_one(target, err);
    if (code == SF_OK && target && !blobs)
        printf("%s is a link to %s, which stays (--delete-blobs deletes it)\n", path, target);
    if (code == SF_OK && target)
        code = sf_remove_file(path, err);
    else if (code == SF_OK)
        code = delete_one(path, err);
    if (code == SF_OK && target)
        printf("deleted the link %s\n", path);
    fflush(stdout);
    sf_arena_free(&scratch);
    return code;
}
