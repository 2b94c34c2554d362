#include "libformat/hf/arrival.h"

#include <string.h>
#include <time.h>

#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "libformat/base/watch.h"
#include "libformat/hf/sha256.h"

static const uint64_t LARGEST_LIST = 64u << 20, LARGEST_METADATA = 1u << 16;
static const int64_t QUIET_NS = 2000000000; /* a file that is being written is not hashed */

/* What is known of one name. */
struct arrived {
    struct arrived *next;
    const char *name;
    char listed[SF_SHA256_TEXT]; /* "" if the list does not name it */
    char hash[SF_SHA256_TEXT];   /* "" until computed; of the file as it was then: */
    uint64_t bytes;
    int64_t modified_ns;
};

struct sf_arrivals {
    struct sf_arena arena;
    const char *directory;
    struct sf_arrivals_options options;
    struct sf_watch *watch;
    struct arrived *arrived;
};

/* ---- the list ---- */

static struct arrived *find(const struct sf_arrivals *a, const char *name)
{
    struct arrived *f = a->arrived;
    while (f && strcmp(f->name, name) != 0)
        f = f->next;
    return f;
}

static int find_or_add(struct arrived **out, struct sf_arrivals *a, const char *name,
                       struct sf_err *err)
{
    if ((*out = find(a, name)) != NULL)
        return SF_OK;
    struct arrived *f = sf_arena_alloc(&a->arena, sizeof *f);
    if (!f || !(f->name = sf_arena_strdup(&a->arena, name)))
        return sf_fail(err, SF_ENOMEM, "no memory for file names");
    f->next = a->arrived;
    *out = a->arrived = f;
    return SF_OK;
}

/* "<64 digits>  name" or "<64 digits> *name", as sha256sum writes it; names count without folder. */
static int read_line(struct sf_arrivals *a, char *line, int64_t number, struct sf_err *err)
{
    char hash[SF_SHA256_TEXT];
    struct arrived *f;
    size_t n = strlen(line);
    if (n > 0 && line[n - 1] == '\r')
        line[--n] = 0;
    if (n == 0)
        return SF_OK;
    if (n < 67 || !sf_sha256_parse(hash, line) || line[64] != ' ' ||
        (line[65] != ' ' && line[65] != '*'))
        return sf_fail(err, SF_EFORMAT,
                       "line %lld is not a SHA-256, two spaces and a name, as sha256sum writes it",
                       (long long)number);
    int code = find_or_add(&f, a, sf_path_base(line + 66), err);
    if (code == SF_OK && f->listed[0] && strcmp(f->listed, hash) != 0)
        code = sf_fail(err, SF_EFORMAT, "line %lld: another SHA-256 for %s than before",
                       (long long)number, f->name);
    if (code == SF_OK)
        memcpy(f->listed, hash, sizeof hash);
    return code;
}

static int read_list(struct sf_arrivals *a, struct sf_err *err)
{
    char *text;
    int64_t number = 1;
    int code = sf_read_file(&text, NULL, &a->arena, a->options.sha256_list, LARGEST_LIST, err);
    if (code != SF_OK)
        return code;
    for (char *next; text && code == SF_OK; text = next, number++) {
        if ((next = strchr(text, '\n')) != NULL)
            *next++ = 0;
        code = read_line(a, text, number, err);
    }
    return code == SF_OK ? code : sf_err_prefix(err, "%s", a->options.sha256_list);
}

int sf_arrivals_open(struct sf_arrivals **out, const char *directory,
                     const struct sf_arrivals_options *options, struct sf_err *err)
{
    struct sf_arrivals *a = sf_alloc(sizeof *a);
    if (!a)
        return sf_fail(err, SF_ENOMEM, "%s: no memory to wait for its files", directory);
    a->options = *options;
    int code = SF_OK;
    if (!(a->directory = sf_arena_strdup(&a->arena, directory)))
        code = sf_fail(err, SF_ENOMEM, "%s: no memory for its name", directory);
    if (code == SF_OK)
        code = sf_watch_open(&a->watch, directory, err);
    if (code == SF_OK && a->options.sha256_list)
        code = read_list(a, err);
    if (code != SF_OK) {
        sf_arrivals_close(a);
        return code;
    }
    *out = a;
    return SF_OK;
}

void sf_arrivals_close(struct sf_arrivals *arrivals)
{
    if (!arrivals)
        return;
    sf_watch_close(arrivals->watch);
    sf_arena_free(&arrivals->arena);
    sf_free(arrivals);
}

/* ---- a look ---- */

/* The hash that the hub knows: the second line of its metadata, or the name of the blob. */
static bool hub_hash(char *out, const char *directory, const char *name, const char *path)
{
    struct sf_arena scratch = {0};
    char *text = NULL, *blob = NULL;
    bool found = false;
    const char *metadata =
        sf_arena_printf(&scratch, "%s/.cache/huggingface/download/%s.metadata", directory, name);
    if (metadata && sf_file_exists(metadata) &&
        sf_read_file(&text, NULL, &scratch, metadata, LARGEST_METADATA, NULL) == SF_OK &&
        (text = strchr(text, '\n')) != NULL)
        found = sf_sha256_parse(out, text + 1);
    if (!found && sf_link_target(&blob, &scratch, path, NULL) == SF_OK && blob)
        found = strlen(sf_path_base(blob)) == 64 && sf_sha256_parse(out, sf_path_base(blob));
    sf_arena_free(&scratch);
    return found;
}

static bool is_marked(const char *path)
{
    struct sf_arena scratch = {0};
    const char *marker = sf_arena_printf(&scratch, "%s.done", path);
    bool there = marker && sf_file_exists(marker);
    sf_arena_free(&scratch);
    return there;
}

static bool is_quiet(const struct sf_file_stat *st)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t age = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - st->modified_ns;
    return age >= QUIET_NS || age < 0;
}

/* Hashes the file unless that was done since it last changed. */
static int update_hash(struct arrived *f, const struct sf_arrivals *a, const char *path,
                       const struct sf_file_stat *st, struct sf_err *err)
{
    if (f->hash[0] && f->bytes == st->bytes && f->modified_ns == st->modified_ns)
        return SF_OK;
    f->hash[0] = 0;
    f->bytes = st->bytes;
    f->modified_ns = st->modified_ns;
    return sf_sha256_file(f->hash, path, a->options.go_on, a->options.context, err);
}

/* A hash is known that the file should have. */
static int look_by_hash(bool *whole, const char **why, struct arrived *f, struct sf_arrivals *a,
                        const char *path, const struct sf_file_stat *st, const char *want,
                        bool proven, bool at_once, struct sf_err *err)
{
    if (!proven && !at_once && !is_quiet(st)) {
        *why = "being written";
        return SF_OK;
    }
    int code = update_hash(f, a, path, st, err);
    if (code != SF_OK)
        return code;
    *whole = strcmp(f->hash, want) == 0;
    *why = *whole ? "its SHA-256 is the right one" : "there, but its SHA-256 is not (yet) right";
    if (!*whole && (proven || at_once) && f->listed[0])
        return sf_fail(err, SF_EDAMAGED, "%s: its SHA-256 is %s, %s says %s", path, f->hash,
                       a->options.sha256_list, f->listed);
    return SF_OK;
}

static int look_at(bool *whole, const char **why, struct arrived *f, struct sf_arrivals *a,
                   const char *path, bool at_once, struct sf_err *err)
{
    struct sf_file_stat st;
    char hub[SF_SHA256_TEXT];
    if (sf_file_stat(&st, path, NULL) != SF_OK) {
        *why = "not there yet";
        return SF_OK;
    }
    bool marked = is_marked(path), renamed = !marked && sf_watch_saw(a->watch, f->name);
    if (f->listed[0])
        return look_by_hash(whole, why, f, a, path, &st, f->listed, marked || renamed, at_once,
                            err);
    *whole = marked || renamed;
    *why = marked    ? "marked as done"
           : renamed ? "renamed into place"
                     : "there, but nothing proves that it is whole";
    if (!*whole && hub_hash(hub, a->directory, f->name, path))
        return look_by_hash(whole, why, f, a, path, &st, hub, false, at_once, err);
    return SF_OK;
}

int sf_arrivals_look(bool *whole, const char **why, struct sf_arrivals *arrivals, const char *name,
                     bool at_once, struct sf_err *err)
{
    struct sf_arena scratch = {0};
    struct arrived *f;
    *whole = false;
    *why = "";
    int code = find_or_add(&f, arrivals, name, err);
    const char *path = sf_path_join(&scratch, arrivals->directory, name);
    if (code == SF_OK && !path)
        code = sf_fail(err, SF_ENOMEM, "no memory for file names");
    if (code == SF_OK)
        code = look_at(whole, why, f, arrivals, path, at_once, err);
    sf_arena_free(&scratch);
    return code;
}

bool sf_arrivals_lists(const struct sf_arrivals *arrivals, const char *name)
{
    const struct arrived *f = find(arrivals, name);
    return f && f->listed[0];
}

void sf_arrivals_wait(struct sf_arrivals *arrivals, double seconds)
{
    sf_watch_wait(arrivals->watch, seconds);
}
