/* header_page.h -- the first 4096 bytes of a container: version, features, sections, hashes.
 * Private to libformat/container. On disk: layout.h and spec/container.md. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_HEADER_PAGE_H
#define SCOUT_LIBFORMAT_CONTAINER_HEADER_PAGE_H

#include <stdint.h>

#include "libformat/base/err.h"
#include "libformat/codec/frame.h"
#include "libformat/container/layout.h"

struct header_section {
    uint32_t type;
    uint64_t offset, bytes; /* in the file */
    struct sf_hash128 hash; /* zero for the payload: its chunks have checksums */
};

struct header_page {
    uint32_t major, minor;
    uint64_t incompatible, compatible;
    uint64_t file_bytes;
    int extent_log2, chunk_log2;
    struct sf_hash128 identity;
    uint32_t file, files; /* of a set, from 1; 0 and 0: all is in one file */
    int sections;
    struct header_section section[HEADER_SECTIONS_MAX];
};

/* Hashes as stored: low half first, both little-endian. */
void hash128_put(unsigned char out[16], struct sf_hash128 hash);
struct sf_hash128 hash128_get(const unsigned char in[16]);

void header_encode(unsigned char page[HEADER_BYTES], const struct header_page *header);

/* Decodes and checks everything that the page itself and the file's length can show: magic, hash,
 * version, features, and that the sections cover the file. Allocates nothing. */
int header_decode(struct header_page *out, const unsigned char *file, uint64_t file_bytes,
                  struct sf_err *err);
/* The payload's section, or one of no bytes: the first file of several has none. */
struct header_section header_payload(const struct header_page *header);
/* The section of this type, or NULL. */
const struct header_section *header_find(const struct header_page *header, uint32_t type);
/* "payload", "checksums", "index", "metadata" or "section type 77" into text[32]. */
const char *section_format(char text[32], uint32_t type);

#endif
