/* inspect_facts.h -- what a summary of a container says, added up from its index. */
#ifndef SCOUT_TOOLS_INSPECT_FACTS_H
#define SCOUT_TOOLS_INSPECT_FACTS_H

#include <stdint.h>

#include "libformat/base/err.h"
#include "libformat/container/container_map.h"

enum inspect_kind {
    INSPECT_ATTENTION,
    INSPECT_SHARED_EXPERT,
    INSPECT_DENSE_MLP,
    INSPECT_EXPERTS,
    INSPECT_ROUTER,
    INSPECT_NORMS,
    INSPECT_HEAD,
    INSPECT_EMBEDDING,
    INSPECT_UNUSED,
    INSPECT_KINDS
};
const char *inspect_kind_name(enum inspect_kind kind); /* "attention", ... */
enum inspect_kind inspect_kind_of(enum sf_part part);

enum { INSPECT_FORMS = 8, INSPECT_CODEBOOKS = 64 };
struct inspect_sum {
    int64_t tensors, parameters;
    uint64_t bytes; /* codes, scales and offsets; codebooks are shared and counted apart */
    struct {
        const char *name; /* "nf4", "bf16" */
        int64_t tensors;
    } form[INSPECT_FORMS]; /* in order of first appearance; name NULL ends */
    double worst_error;
    const struct sf_entry *worst; /* NULL: nothing was quantized */
};

struct inspect_facts {
    struct inspect_sum kind[INSPECT_KINDS];
    struct inspect_sum text; /* all kinds but unused */
    struct inspect_sum all;
    uint64_t codebook_bytes;
    uint64_t codebook[INSPECT_CODEBOOKS]; /* their addresses */
    int codebooks;
    /* Whole extents, padding included: what training copies to the GPU (dense, experts, head,
     * codebooks), keeps on the host (embedding), and leaves in the file. */
    uint64_t gpu_bytes, host_bytes, unused_bytes;
    uint64_t padding_bytes; /* of the payload */
    uint64_t chunks;
};

int inspect_facts_gather(struct inspect_facts *facts, const struct sf_map *map, struct sf_err *err);

/* "nf4", or the element type of a tensor that is stored as it came. */
const char *inspect_form(const struct sf_entry *entry);
/* Bytes of the planes that are the tensor's own. */
uint64_t inspect_entry_bytes(const struct sf_entry *entry);
/* Bits for each parameter; 0 when there are none. */
double inspect_bits(const struct inspect_sum *sum);

#endif
