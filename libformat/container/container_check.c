#include "libformat/container/container_check.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/jobs.h"
#include "libformat/base/mem.h"
#include "libformat/codec/frame.h"
#include "libformat/container/container_inside.h"

/* A job checks one piece; damage and progress are reported between rounds, by the caller's thread.
 */
enum { PIECE_CHUNKS = 64, ROUND_PIECES = 256 };
/* What is asked of the disk before it is needed. A fault asks for 128 KiB, and waits for it. */
static const uint64_t AHEAD_BYTES = (uint64_t)192 << 20;

struct check_piece {
    int64_t extent;
    uint64_t first, count; /* chunks, counted from the extent's first */
    bool bad[PIECE_CHUNKS];
};

struct checker {
    const struct sf_map *map;
    const struct sf_check_options *options;
    struct sf_arena arena;
    uint64_t chunk_bytes;
    struct check_piece *piece;   /* one round's */
    int64_t *of_extent;          /* [tensors] tensor numbers, grouped by extent */
    int64_t *first;              /* [extents + 1] where each group begins */
    bool *holds_shared;          /* [extents] codebooks or maps, whatever its kind claims */
    const struct sf_entry **hit; /* tensors that overlap the chunk at hand */
    uint64_t done, total;
    int64_t damaged;
    char first_text[SF_DAMAGE_TEXT];
};

static uint64_t chunk_size(const struct checker *c, const struct sf_extent *extent, uint64_t chunk)
{
    uint64_t left = extent->bytes - chunk * c->chunk_bytes;
    return left < c->chunk_bytes ? left : c->chunk_bytes;
}

static bool skips(const struct checker *c, const struct sf_extent *extent)
{
    uint32_t kinds = c->options->kinds;
    return kinds != 0 && !(kinds >> extent->kind & 1);
}

/* The payload from end to end, rather than some extents or what another has hashed. */
static bool reads_all(const struct checker *c)
{
    return c->options->kinds == 0 && !c->options->found;
}

/* Extents tile the payload, so one holds the address. */
static int64_t extent_of(const struct sf_map *map, uint64_t address)
{
    int64_t low = 0, high = sf_map_info(map)->extents - 1;
    while (low < high) {
        int64_t mid = low + (high - low + 1) / 2;
        if (sf_map_extent(map, mid)->address <= address)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

static int check_one(void *context, int64_t index, int worker, struct sf_err *err)
{
    (void)worker, (void)err;
    struct checker *c = context;
    struct check_piece *piece = &c->piece[index];
    const struct sf_extent *extent = sf_map_extent(c->map, piece->extent);
    if (reads_all(c))
        sf_map_prefetch(c->map, extent->address + piece->first * c->chunk_bytes + AHEAD_BYTES,
                        piece->count * c->chunk_bytes);
    for (uint64_t i = 0; i < piece->count; i++) {
        uint64_t chunk = piece->first + i, number = extent->first_chunk + chunk;
        uint64_t found =
            c->options->found
                ? c->options->found[number]
                : sf_hash64(sf_map_bytes(c->map, extent->address + chunk * c->chunk_bytes),
                            chunk_size(c, extent, chunk), number);
        piece->bad[i] = found != map_checksum(c->map, number);
    }
    return SF_OK;
}

/* ---- names ---- */

/* Counting sort of the tensors by extent. */
static int group_tensors(struct checker *c, struct sf_err *err)
{
    const struct sf_container_info *info = sf_map_info(c->map);
    c->of_extent = sf_arena_array(&c->arena, (uint64_t)info->tensors, sizeof *c->of_extent);
    c->first = sf_arena_array(&c->arena, (uint64_t)info->extents + 2, sizeof *c->first);
    c->holds_shared = sf_arena_array(&c->arena, (uint64_t)info->extents, sizeof *c->holds_shared);
    c->hit = sf_arena_array(&c->arena, (uint64_t)info->tensors, sizeof *c->hit);
    c->piece = sf_arena_array(&c->arena, ROUND_PIECES, sizeof *c->piece);
    if (!c->of_extent || !c->first || !c->holds_shared || !c->hit || !c->piece)
        return sf_fail(err, SF_ENOMEM, "cannot allocate a check of %lld tensors",
                       (long long)info->tensors);
    int64_t *next = c->first + 1; /* shifted by one: after filling, first[] is right */
    for (int64_t i = 0; i < info->tensors; i++)
        next[sf_map_tensor(c->map, i)->extent + 1]++;
    for (int64_t e = 0; e < info->extents; e++)
        next[e + 1] += next[e];
    for (int64_t i = 0; i < info->tensors; i++)
        c->of_extent[next[sf_map_tensor(c->map, i)->extent]++] = i;
    return SF_OK;
}

/* Codebooks and maps may lie in any extent; its kind is a hint. */
static void find_shared(struct checker *c)
{
    for (int64_t i = 0; i < sf_map_info(c->map)->tensors; i++)
        for (int kind = SF_PLANE_CODEBOOK; kind <= SF_PLANE_MAP; kind++) {
            const struct sf_plane *plane = &sf_map_tensor(c->map, i)->plane[kind];
            if (plane->dtype != SF_DTYPE_NONE)
                c->holds_shared[extent_of(c->map, plane->address)] = true;
        }
}

static bool overlaps(const struct sf_entry *entry, uint64_t from, uint64_t to)
{
    for (int kind = 0; kind < SF_PLANE_COUNT; kind++) {
        const struct sf_plane *plane = &entry->plane[kind];
        if (plane->dtype != SF_DTYPE_NONE && plane->address < to &&
            plane->address + plane->bytes > from)
            return true;
    }
    return false;
}

/* Codebooks belong to many tensors of other extents; everything else to its extent's own. */
static int64_t find_hits(struct checker *c, int64_t extent, uint64_t from, uint64_t to)
{
    bool shared = c->holds_shared[extent];
    int64_t first = shared ? 0 : c->first[extent], hits = 0;
    int64_t end = shared ? sf_map_info(c->map)->tensors : c->first[extent + 1];
    for (int64_t i = first; i < end; i++) {
        const struct sf_entry *entry = sf_map_tensor(c->map, shared ? i : c->of_extent[i]);
        if (overlaps(entry, from, to))
            c->hit[hits++] = entry;
    }
    return hits;
}

static void report(struct checker *c, const struct check_piece *piece, uint64_t i)
{
    const struct sf_extent *extent = sf_map_extent(c->map, piece->extent);
    uint64_t chunk = piece->first + i;
    struct sf_damage damage = {.extent = piece->extent,
                               .where = extent,
                               .chunk = extent->first_chunk + chunk,
                               .address = extent->address + chunk * c->chunk_bytes,
                               .bytes = chunk_size(c, extent, chunk),
                               .entry = c->hit};
    damage.entries = find_hits(c, piece->extent, damage.address, damage.address + damage.bytes);
    if (c->damaged++ == 0)
        sf_damage_format(c->first_text, &damage);
    if (c->options->on_damage)
        c->options->on_damage(c->options->context, &damage);
}

/* ---- the run ---- */

static int run_round(struct checker *c, int64_t pieces, struct sf_err *err)
{
    int threads = c->options->threads > 0 ? c->options->threads : sf_cpu_count();
    int code = sf_jobs_run(check_one, c, pieces, threads, err);
    if (code != SF_OK)
        return code;
    for (int64_t p = 0; p < pieces; p++) {
        const struct check_piece *piece = &c->piece[p];
        const struct sf_extent *extent = sf_map_extent(c->map, piece->extent);
        for (uint64_t i = 0; i < piece->count; i++) {
            c->done += chunk_size(c, extent, piece->first + i);
            if (piece->bad[i])
                report(c, piece, i);
        }
    }
    if (c->options->on_progress)
        c->options->on_progress(c->options->context, c->done, c->total);
    return SF_OK;
}

static int check_all(struct checker *c, struct sf_err *err)
{
    int64_t extents = sf_map_info(c->map)->extents, pieces = 0;
    if (reads_all(c))
        sf_map_prefetch(c->map, 0, AHEAD_BYTES);
    for (int64_t e = 0; e < extents; e++)
        c->total += skips(c, sf_map_extent(c->map, e)) ? 0 : sf_map_extent(c->map, e)->bytes;
    for (int64_t e = 0; e < extents; e++) {
        const struct sf_extent *extent = sf_map_extent(c->map, e);
        for (uint64_t at = 0; !skips(c, extent) && at < extent->chunks; at += PIECE_CHUNKS) {
            uint64_t left = extent->chunks - at;
            c->piece[pieces++] = (struct check_piece){
                .extent = e, .first = at, .count = left < PIECE_CHUNKS ? left : PIECE_CHUNKS};
            int code = pieces == ROUND_PIECES ? run_round(c, pieces, err) : SF_OK;
            if (code != SF_OK)
                return code;
            pieces %= ROUND_PIECES;
        }
    }
    return pieces ? run_round(c, pieces, err) : SF_OK;
}

int sf_check_run(int64_t *damaged, const struct sf_map *map, const struct sf_check_options *options,
                 struct sf_err *err)
{
    static const struct sf_check_options defaults;
    struct checker c = {.map = map,
                        .options = options ? options : &defaults,
                        .chunk_bytes = sf_map_info(map)->chunk_bytes};
    int code = group_tensors(&c, err);
    if (code == SF_OK)
        find_shared(&c);
    if (code == SF_OK)
        code = check_all(&c, err);
    if (code == SF_OK)
        code = sf_map_check(map, err);
    if (code == SF_OK && c.damaged == 1)
        code = sf_fail(err, SF_EDAMAGED, "%s: damaged: %s", sf_map_path(map), c.first_text);
    else if (code == SF_OK && c.damaged > 1)
        code = sf_fail(err, SF_EDAMAGED, "%s: damaged: %s (%lld damaged chunks in all)",
                       sf_map_path(map), c.first_text, (long long)c.damaged);
    *damaged = c.damaged;
    sf_arena_free(&c.arena);
    return code;
}

/* Unused tensors have no role worth reading: their name says more. */
static const char *name_of(char text[SF_ROLE_TEXT], const struct sf_entry *entry)
{
    return entry->role.part == SF_PART_UNUSED ? entry->name : sf_role_format(text, entry->role);
}

const char *sf_damage_format(char *text, const struct sf_damage *damage)
{
    char role[SF_ROLE_TEXT], place[SF_EXTENT_TEXT];
    enum { MORE = 32 }; /* room for "and 9223372036854775807 more" */
    int n = snprintf(text, SF_DAMAGE_TEXT,
                     "chunk %llu (payload %llu..%llu): ", (unsigned long long)damage->chunk,
                     (unsigned long long)damage->address,
                     (unsigned long long)(damage->address + damage->bytes));
    if (damage->entries == 0) {
        snprintf(text + n, (size_t)(SF_DAMAGE_TEXT - n), "padding of %s",
                 sf_extent_format(place, damage->where));
        return text;
    }
    if (damage->where->kind == SF_EXTENT_SHARED)
        n += snprintf(text + n, (size_t)(SF_DAMAGE_TEXT - n), "codebooks of ");
    for (int64_t i = 0; i < damage->entries; i++) {
        const char *name = name_of(role, damage->entry[i]);
        if (n + 2 + (int)strlen(name) + MORE >= SF_DAMAGE_TEXT) {
            snprintf(text + n, (size_t)(SF_DAMAGE_TEXT - n), "%sand %lld more", i ? ", " : "",
                     (long long)(damage->entries - i));
            break;
        }
        n += snprintf(text + n, (size_t)(SF_DAMAGE_TEXT - n), "%s%s", i ? ", " : "", name);
    }
    return text;
}
