/* spec_damage all|sample SPEC_DECODER SCOUT_INSPECT FILE: flips bytes of a copy of FILE, one at a
 * time. libformat must refuse each with the name that spec_decoder gives the place.
 *   all     every byte of the header page and of every section but the payload
 *   sample  2,000 bytes of the payload, spread over its kinds of places; one of each kind is shown
 *           to scout-inspect verify, too */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libformat/base/file.h"
#include "libformat/container/container_check.h"
#include "libformat/container/container_map.h"
#include "tests/cli/spec_places.h"
#include "tests/cli/spec_run.h"
#include "tests/support/support.h"

static struct spec_places places;
static struct scout_random random_state = {20261123};
static const char *inspect, *path; /* of the copy */
static int fd;

static void copy(const char *from)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    char *data;
    uint64_t bytes;
    if (sf_read_file(&data, &bytes, &arena, from, (uint64_t)1 << 30, &err) != SF_OK ||
        sf_write_file(path, data, bytes, &err) != SF_OK)
        spec_die("%s", err.message);
    sf_arena_free(&arena);
    fd = open(path, O_RDWR);
    if (fd < 0)
        spec_die("%s: cannot open", path);
}

/* Flipping twice restores. */
static void flip(uint64_t offset, unsigned char mask)
{
    unsigned char byte;
    if (pread(fd, &byte, 1, (off_t)offset) != 1)
        spec_die("%s: cannot read byte %llu", path, (unsigned long long)offset);
    byte ^= mask;
    if (pwrite(fd, &byte, 1, (off_t)offset) != 1)
        spec_die("%s: cannot write byte %llu", path, (unsigned long long)offset);
}

static unsigned char random_mask(void)
{
    return (unsigned char)(1 + scout_random_u64(&random_state) % 255);
}

/* ---- header and sections ---- */

static void expect_section(const struct spec_range *range, uint64_t offset)
{
    struct sf_map *map = NULL;
    struct sf_err err = {0};
    char want[512];
    int code = sf_map_open(&map, path, &err);
    snprintf(want, sizeof want, "%s: %s: ", path, range->what);
    if (code == SF_OK)
        spec_die("byte %llu (%s): opened as if nothing were wrong", (unsigned long long)offset,
                 range->what);
    if (code != SF_EDAMAGED && !(code == SF_EFORMAT && offset < 8)) /* the magic is no hash */
        spec_die("byte %llu: %s: %s", (unsigned long long)offset, sf_code_name(code), err.message);
    if (strncmp(err.message, want, strlen(want)) != 0)
        spec_die("byte %llu (%s): %s", (unsigned long long)offset, range->what, err.message);
}

static void flip_all(void)
{
    for (int64_t i = 0; i < places.ranges; i++) {
        const struct spec_range *range = &places.range[i];
        if (range->chunk >= 0)
            continue;
        for (uint64_t at = range->begin; at < range->end; at++) {
            unsigned char mask = random_mask();
            flip(at, mask);
            expect_section(range, at);
            flip(at, mask);
        }
        printf("%s: each of %llu bytes refused and named\n", range->what,
               (unsigned long long)(range->end - range->begin));
    }
}

/* ---- payload ---- */

struct seen {
    const struct spec_range *range;
    uint64_t offset;
    int64_t count;
};

static void on_damage(void *context, const struct sf_damage *damage)
{
    struct seen *seen = context;
    const struct spec_range *range = seen->range;
    uint64_t begin = places.payload + damage->address;
    seen->count++;
    if (damage->chunk != (uint64_t)range->chunk || begin != range->begin ||
        begin + damage->bytes != range->end || damage->entries != range->names)
        spec_die("byte %llu: chunk %llu at %llu with %lld tensors, not chunk %lld at %llu with "
                 "%lld",
                 (unsigned long long)seen->offset, (unsigned long long)damage->chunk,
                 (unsigned long long)begin, (long long)damage->entries, (long long)range->chunk,
                 (unsigned long long)range->begin, (long long)range->names);
    for (int64_t i = 0; i < range->names; i++)
        if (strcmp(damage->entry[i]->name, range->name[i]) != 0)
            spec_die("byte %llu: names %s, not %s", (unsigned long long)seen->offset,
                     damage->entry[i]->name, range->name[i]);
}

static void extent_text(char *text, size_t room, const struct spec_extent *extent)
{
    if (extent->expert >= 0)
        snprintf(text, room, "layer %d expert %d", extent->layer, extent->expert);
    else if (extent->layer >= 0)
        snprintf(text, room, "layer %d %s", extent->layer, extent->kind);
    else
        snprintf(text, room, "%s", extent->kind);
}

/* Where `text` goes on behind `want`, or NULL. */
static const char *behind(const char *text, const char *want)
{
    size_t n = strlen(want);
    return strncmp(text, want, n) == 0 ? text + n : NULL;
}

/* The names in order, or some of them and "and N more" where N is the number of the others. */
static bool lists_names(const char *text, const struct spec_range *range, const char *end)
{
    for (int64_t i = 0; i < range->names; i++) {
        char more[64];
        snprintf(more, sizeof more, "and %lld more%s", (long long)(range->names - i), end);
        if (i > 0 && strcmp(text, more) == 0)
            return true;
        text = behind(text, range->shown[i]);
        if (text && i + 1 < range->names)
            text = behind(text, ", ");
        if (!text)
            return false;
    }
    return strcmp(text, end) == 0;
}

/* `text` is "chunk 3 (payload 196608..262144): " and what lies there, and `end`. */
static bool names_chunk(const char *text, const struct spec_range *range, const char *end)
{
    const struct spec_extent *extent = spec_extent_at(&places, range->begin);
    char want[256];
    snprintf(want, sizeof want, "chunk %lld (payload %llu..%llu): ", (long long)range->chunk,
             (unsigned long long)(range->begin - places.payload),
             (unsigned long long)(range->end - places.payload));
    text = behind(text, want);
    if (text && range->names == 0) {
        extent_text(want, sizeof want, extent);
        text = behind(text, "padding of ");
        text = text ? behind(text, want) : NULL;
        return text && strcmp(text, end) == 0;
    }
    if (text && strcmp(extent->kind, "shared") == 0)
        text = behind(text, "codebooks of ");
    return text && lists_names(text, range, end);
}

static void expect_chunk(const struct spec_range *range, uint64_t offset)
{
    struct sf_map *map = NULL;
    struct sf_err err = {0};
    struct seen seen = {.range = range, .offset = offset};
    struct sf_check_options options = {.threads = 1, .on_damage = on_damage, .context = &seen};
    int64_t damaged;
    if (sf_map_open(&map, path, &err) != SF_OK)
        spec_die("byte %llu: %s", (unsigned long long)offset, err.message);
    int code = sf_check_run(&damaged, map, &options, &err);
    if (code != SF_EDAMAGED || damaged != 1 || seen.count != 1)
        spec_die("byte %llu: %s with %lld damaged chunks, %lld reported",
                 (unsigned long long)offset, sf_code_name(code), (long long)damaged,
                 (long long)seen.count);
    const char *text = behind(err.message, path);
    text = text ? behind(text, ": damaged: ") : NULL;
    if (!text || !names_chunk(text, range, ""))
        spec_die("byte %llu: says \"%s\"", (unsigned long long)offset, err.message);
    sf_map_close(map);
}

static void expect_inspect(const struct spec_range *range, uint64_t offset)
{
    struct spec_output got = spec_run(inspect, "verify", path, NULL);
    char place[96];
    snprintf(place, sizeof place,
             "damaged: bytes %llu..%llu of the file: ", (unsigned long long)range->begin,
             (unsigned long long)range->end);
    const char *text = behind(got.data, place);
    if (got.status != 1 || !text || !names_chunk(text, range, "\n"))
        spec_die("byte %llu: scout-inspect verify exits with %d and says \"%s\"",
                 (unsigned long long)offset, got.status, got.data);
    spec_output_free(&got);
}

/* Any span with equal chance, so that small tensors come up; its edges more often than others. */
static uint64_t random_offset(const struct spec_span *span)
{
    uint64_t bytes = span->end - span->begin;
    switch (scout_random_u64(&random_state) % 8) {
    case 0:
        return span->begin;
    case 1:
        return span->end - 1;
    default:
        return span->begin + scout_random_u64(&random_state) % bytes;
    }
}

static void flip_site(enum spec_site site, int64_t flips)
{
    if (places.spans[site] == 0)
        spec_die("%s: the container has none", spec_site_names[site]);
    for (int64_t i = 0; i < flips; i++) {
        uint64_t pick = scout_random_u64(&random_state) % (uint64_t)places.spans[site];
        const struct spec_span *span = &places.span[site][pick];
        uint64_t offset = random_offset(span);
        const struct spec_range *range = spec_range_at(&places, offset);
        unsigned char mask = random_mask();
        if (span->name && !spec_range_names(range, span->name))
            spec_die("byte %llu: of %s, and its owner does not say so", (unsigned long long)offset,
                     span->name);
        flip(offset, mask);
        expect_chunk(range, offset);
        if (i == 0)
            expect_inspect(range, offset);
        flip(offset, mask);
    }
    printf("%s: %lld bytes of %lld places refused and named\n", spec_site_names[site],
           (long long)flips, (long long)places.spans[site]);
}

static void flip_sample(void)
{
    static const int64_t flips[SPEC_SITES] = {
        [SPEC_CODES] = 500,  [SPEC_SCALES] = 400,    [SPEC_RAW] = 300,
        [SPEC_UNUSED] = 300, [SPEC_CODEBOOKS] = 100, [SPEC_PADDING] = 400};
    for (int site = 0; site < SPEC_SITES; site++)
        flip_site((enum spec_site)site, flips[site]);
}

int main(int argc, char **argv)
{
    struct sf_arena arena = {0};
    if (argc != 5 || (strcmp(argv[1], "all") != 0 && strcmp(argv[1], "sample") != 0))
        spec_die("usage: spec_damage all|sample SPEC_DECODER SCOUT_INSPECT FILE");
    inspect = argv[3];
    path = sf_arena_printf(&arena, "%s.damaged.scout", argv[4]);
    if (!path)
        spec_die("no memory for a path");
    spec_places_load(&places, argv[2], argv[4]);
    copy(argv[4]);
    if (strcmp(argv[1], "all") == 0)
        flip_all();
    else
        flip_sample();
    close(fd);
    unlink(path);
    sf_arena_free(&arena);
    return 0;
}
