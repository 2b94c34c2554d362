/* xxh3.h -- XXH3-64 of many chunks at once, over bytes in device memory.
 *
 * The same numbers as the xxHash library's XXH3_64bits_withSeed, seed = number of the chunk: the
 * checksum that spec/container.md asks for. Eight threads a chunk, one per 64-bit accumulator.
 * Algorithm: the XXH3 section of xxHash's specification. CPU truth: sf_hash64. */
#ifndef SCOUT_KERNELS_XXH3_H
#define SCOUT_KERNELS_XXH3_H

#include <stdint.h>

#include "libformat/base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    SK_XXH3_SHORTEST = 241
}; /* shorter inputs take other paths of XXH3, which nobody needs here */

/* hash[count] (device memory) of data[0 .. bytes), cut into chunks of chunk_bytes, the last maybe
 * shorter; chunk i has seed first_seed + i. data is on 8 bytes. SF_EINVAL when a chunk would be
 * shorter than SK_XXH3_SHORTEST or chunk_bytes is no multiple of 8. Runs on the default stream. */
int sk_xxh3_chunks(uint64_t *hash, const void *data, uint64_t bytes, uint64_t chunk_bytes,
                   uint64_t first_seed, struct sf_err *err);

#ifdef __cplusplus
}
#endif

#endif
