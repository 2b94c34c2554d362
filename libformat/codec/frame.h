/* frame.h -- the one door to zstd and xxHash: compressed frames and checksums.
 *
 * Hashes are those of the xxHash library, seed included: XXH3-64 for chunks, XXH3-128 for sections.
 * Pure functions; any number of threads. */
#ifndef SCOUT_LIBFORMAT_CODEC_FRAME_H
#define SCOUT_LIBFORMAT_CODEC_FRAME_H

#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sf_hash128 {
    uint64_t low, high; /* XXH128_hash_t's low64 and high64 */
};
uint64_t sf_hash64(const void *data, uint64_t bytes, uint64_t seed);
/* The default secret of XXH3 as little-endian words, for those who compute it elsewhere. */
enum { SF_HASH64_SECRET_WORDS = 24 };
void sf_hash64_secret(uint64_t word[SF_HASH64_SECRET_WORDS]);
struct sf_hash128 sf_hash128(const void *data, uint64_t bytes);

/* A 128-bit hash of a stream fed in pieces. */
struct sf_hasher;
int sf_hasher_open(struct sf_hasher **out, struct sf_err *err);
void sf_hasher_add(struct sf_hasher *hasher, const void *data, uint64_t bytes);
struct sf_hash128 sf_hasher_digest(const struct sf_hasher *hasher);
void sf_hasher_close(struct sf_hasher *hasher);

/* One zstd frame (content size in its header, checksum flag off, level 19, one thread), in `arena`.
 */
int sf_frame_compress(void **out, uint64_t *out_bytes, struct sf_arena *arena, const void *data,
                      uint64_t bytes, struct sf_err *err);
/* Inflates exactly one frame that must give exactly `want_bytes` (checked before allocating), with
 * a NUL behind the result, in `arena`. SF_EFORMAT with the numbers otherwise. */
int sf_frame_decompress(void **out, struct sf_arena *arena, const void *frame, uint64_t frame_bytes,
                        uint64_t want_bytes, struct sf_err *err);

#ifdef __cplusplus
}
#endif

#endif
