#include "spec/decoder/chunks.h"

#include <stdbool.h>
#include <stdlib.h>
#include <xxhash.h>

#include "spec/decoder/fields.h"
#include "spec/decoder/parts.h"
#include "spec/decoder/strings.h"

struct chunk chunk_at(u64 address)
{
    u32 e = 0;

    while (address - g.extents[e].address >= g.extents[e].size)
        e++;
    const u64 k = (address - g.extents[e].address) / g.chunk_bytes;
    const u64 start = k * g.chunk_bytes, left = g.extents[e].size - start;
    return (struct chunk){g.extents[e].first_chunk + k, g.extents[e].address + start,
                          left < g.chunk_bytes ? left : g.chunk_bytes};
}

static bool overlaps(struct chunk c, u32 plane)
{
    const struct plane *p = &g.planes[plane];

    return p->address < c.address + c.size && c.address < p->address + p->size;
}

static bool tensor_in_chunk(struct chunk c, const struct tensor *t)
{
    for (u32 k = 0; k < SLOTS; k++)
        if (t->planes[k] != NONE && overlaps(c, t->planes[k]))
            return true;
    return false;
}

// "tensors" and the names of those with a plane in the chunk, or "padding"
void print_chunk_owner(FILE *out, struct chunk c)
{
    bool any = false;

    for (u32 i = 0; i < g.tensor_count; i++) {
        if (!tensor_in_chunk(c, &g.tensors[i]))
            continue;
        (void)fputs(any ? "\t" : "tensors\t", out);
        print_name(out, g.tensors[i].name);
        any = true;
    }
    if (!any)
        (void)fputs("padding", out);
}

static void check_chunk(struct chunk c)
{
    const u64 stored = get_u64(g.checksums.bytes + 8 * c.number);

    if (XXH3_64bits_withSeed(payload_at(c.address), (size_t)c.size, c.number) == stored)
        return;
    (void)fflush(stdout);
    (void)fprintf(stderr, "decoder: %s: chunk %llu is damaged: ", g_path,
                  (unsigned long long)c.number);
    print_chunk_owner(stderr, c);
    (void)fputc('\n', stderr);
    exit(1);
}

void check_chunks_of(const struct plane *p)
{
    const u64 end = p->address + p->size;

    for (u64 at = p->address; at < end;) {
        const struct chunk c = chunk_at(at);

        check_chunk(c);
        at = c.address + c.size;
    }
}

void check_all_chunks(void)
{
    for (u64 at = 0; at < g.payload_size;) {
        const struct chunk c = chunk_at(at);

        check_chunk(c);
        at = c.address + c.size;
    }
}
