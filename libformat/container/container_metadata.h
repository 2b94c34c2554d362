/* container_metadata.h -- the metadata section: a summary, where the model came from, and carried
 * files, one zstd frame each. Private to libformat/container. On disk: layout.h. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_CONTAINER_METADATA_H
#define SCOUT_LIBFORMAT_CONTAINER_CONTAINER_METADATA_H

#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/codec/frame.h"
#include "libformat/container/entry.h"

struct carried_file {
    const char *name;
    const void *data; /* writing: the plain bytes. Reading: the frame, in the mapping */
    uint64_t bytes;   /* plain */
    uint64_t frame_bytes;
    struct sf_hash128 hash; /* of the plain bytes */
};

struct container_metadata {
    struct sf_summary summary;
    struct carried_file *file; /* by name, strictly ascending bytes */
    int64_t files;
};

/* Sorts the files, hashes and compresses them; the section's bytes in `arena`. SF_EINVAL for two
 * files of one name. */
int metadata_encode(unsigned char **out, uint64_t *bytes, struct sf_arena *arena,
                    struct container_metadata *metadata, struct sf_err *err);

/* Decodes and checks the directory; nothing is inflated. Strings and frames stay borrowed. */
int metadata_decode(struct container_metadata *out, struct sf_arena *arena,
                    const unsigned char *data, uint64_t bytes, struct sf_err *err);

/* NULL if there is none. */
const struct carried_file *metadata_find(const struct container_metadata *metadata,
                                         const char *name);

/* The container's identity: what it holds, whatever zstd made of it and wherever parts lie. */
int container_identity(struct sf_hash128 *out, const unsigned char *index, uint64_t index_bytes,
                       const unsigned char *checksums, uint64_t checksum_bytes,
                       const struct container_metadata *metadata, struct sf_err *err);

#endif
