#define XXH_STATIC_LINKING_ONLY  /* the size of XXH3_state_t, which lives in our own memory */
#define ZSTD_STATIC_LINKING_ONLY /* contexts with the caller's allocator */
#include "libformat/codec/frame.h"

#include <inttypes.h>
#define XXH_STATIC_LINKING_ONLY /* declares XXH3_generateSecret_fromSeed */
#include <xxhash.h>
#include <zstd.h>

#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"

enum { FRAME_LEVEL = 19 };

uint64_t sf_hash64(const void *data, uint64_t bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, bytes, seed);
}

void sf_hash64_secret(uint64_t word[SF_HASH64_SECRET_WORDS])
{
    unsigned char secret[XXH3_SECRET_DEFAULT_SIZE];
    _Static_assert(sizeof secret == SF_HASH64_SECRET_WORDS * sizeof *word, "XXH3's secret");
    XXH3_generateSecret_fromSeed(secret, 0); /* seed 0 leaves the default secret as it is */
    for (int i = 0; i < SF_HASH64_SECRET_WORDS; i++)
        word[i] = sf_get_u64(secret + 8 * i);
}

static struct sf_hash128 hash_of(XXH128_hash_t h)
{
    return (struct sf_hash128){.low = h.low64, .high = h.high64};
}

struct sf_hash128 sf_hash128(const void *data, uint64_t bytes)
{
    return hash_of(XXH3_128bits(data, bytes));
}

struct sf_hasher {
    XXH3_state_t state;
};

int sf_hasher_open(struct sf_hasher **out, struct sf_err *err)
{
    void *memory = NULL;
    int code = sf_alloc_for(&memory, sizeof(struct sf_hasher), "a checksum", err);
    if (code != SF_OK)
        return code;
    *out = memory;
    XXH3_128bits_reset(&(*out)->state);
    return SF_OK;
}

void sf_hasher_add(struct sf_hasher *hasher, const void *data, uint64_t bytes)
{
    if (bytes > 0)
        XXH3_128bits_update(&hasher->state, data, bytes);
}

struct sf_hash128 sf_hasher_digest(const struct sf_hasher *hasher)
{
    return hash_of(XXH3_128bits_digest(&hasher->state));
}

void sf_hasher_close(struct sf_hasher *hasher)
{
    sf_free(hasher);
}

static void *zstd_alloc(void *opaque, size_t bytes)
{
    (void)opaque;
    return sf_alloc(bytes);
}

static void zstd_free(void *opaque, void *ptr)
{
    (void)opaque;
    sf_free(ptr);
}

static const ZSTD_customMem zstd_memory = {zstd_alloc, zstd_free, NULL};

/* ZSTD_compress2 leaves the frame's checksum off and writes its content size by default; both are
 * said again here because the format depends on them. */
static size_t compress_into(ZSTD_CCtx *context, void *out, size_t room, const void *data,
                            size_t bytes)
{
    size_t rc = ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, FRAME_LEVEL);
    if (!ZSTD_isError(rc))
        rc = ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 1);
    if (!ZSTD_isError(rc))
        rc = ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 0);
    if (!ZSTD_isError(rc))
        rc = ZSTD_compress2(context, out, room, data, bytes);
    return rc;
}

int sf_frame_compress(void **out, uint64_t *out_bytes, struct sf_arena *arena, const void *data,
                      uint64_t bytes, struct sf_err *err)
{
    size_t room = ZSTD_compressBound(bytes);
    if (ZSTD_isError(room) || room < bytes)
        return sf_fail(err, SF_EINVAL, "%" PRIu64 " bytes are too many for one zstd frame", bytes);
    void *frame = sf_arena_alloc(arena, room);
    ZSTD_CCtx *context = ZSTD_createCCtx_advanced(zstd_memory);
    int code = SF_OK;
    if (!frame || !context) {
        code = sf_fail(err, SF_ENOMEM, "no memory to compress %" PRIu64 " bytes", bytes);
        goto out;
    }
    size_t rc = compress_into(context, frame, room, data, bytes);
    if (ZSTD_isError(rc)) {
        code = sf_fail(err, SF_ENOMEM, "cannot compress %" PRIu64 " bytes: %s", bytes,
                       ZSTD_getErrorName(rc));
        goto out;
    }
    *out = frame;
    *out_bytes = rc;
out:
    ZSTD_freeCCtx(context);
    return code;
}

/* One whole zstd frame, nothing behind it, that says it holds want_bytes. */
static int check_frame(const void *frame, uint64_t frame_bytes, uint64_t want_bytes,
                       struct sf_err *err)
{
    if (frame_bytes < 4 || sf_get_u32(frame) != ZSTD_MAGICNUMBER)
        return sf_fail(err, SF_EFORMAT, "%" PRIu64 " bytes do not start with a zstd frame",
                       frame_bytes);
    unsigned long long holds = ZSTD_getFrameContentSize(frame, frame_bytes);
    if (holds == ZSTD_CONTENTSIZE_ERROR)
        return sf_fail(err, SF_EFORMAT,
                       "the header of a zstd frame of %" PRIu64 " bytes is malformed", frame_bytes);
    if (holds == ZSTD_CONTENTSIZE_UNKNOWN)
        return sf_fail(err, SF_EFORMAT,
                       "a zstd frame of %" PRIu64 " bytes does not tell its content size",
                       frame_bytes);
    if (holds != want_bytes)
        return sf_fail(err, SF_EFORMAT, "a zstd frame holds %llu bytes, expected %" PRIu64, holds,
                       want_bytes);
    size_t used = ZSTD_findFrameCompressedSize(frame, frame_bytes);
    if (ZSTD_isError(used))
        return sf_fail(err, SF_EFORMAT, "a zstd frame of %" PRIu64 " bytes is malformed: %s",
                       frame_bytes, ZSTD_getErrorName(used));
    if (used != frame_bytes)
        return sf_fail(err, SF_EFORMAT, "a zstd frame ends after %zu of %" PRIu64 " bytes", used,
                       frame_bytes);
    return SF_OK;
}

int sf_frame_decompress(void **out, struct sf_arena *arena, const void *frame, uint64_t frame_bytes,
                        uint64_t want_bytes, struct sf_err *err)
{
    int code = check_frame(frame, frame_bytes, want_bytes, err);
    if (code != SF_OK)
        return code;
    uint64_t room = 0;
    char *data = sf_add(&room, want_bytes, 1) ? sf_arena_alloc(arena, room) : NULL;
    ZSTD_DCtx *context = ZSTD_createDCtx_advanced(zstd_memory);
    if (!data || !context) {
        code = sf_fail(err, SF_ENOMEM, "no memory to inflate %" PRIu64 " bytes", want_bytes);
        goto out;
    }
    size_t rc = ZSTD_decompressDCtx(context, data, want_bytes, frame, frame_bytes);
    if (ZSTD_isError(rc) || rc != want_bytes) {
        code = sf_fail(err, SF_EFORMAT, "a zstd frame of %" PRIu64 " bytes does not inflate: %s",
                       frame_bytes, ZSTD_isError(rc) ? ZSTD_getErrorName(rc) : "it ends early");
        goto out;
    }
    data[want_bytes] = 0;
    *out = data;
out:
    ZSTD_freeDCtx(context);
    return code;
}
