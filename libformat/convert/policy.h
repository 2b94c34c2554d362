/* policy.h -- which weights become NF4 and which stay as they are.
 *
 * NF4: attention, shared-expert, dense-MLP and routed-expert matrices. As they are: embedding,
 * head, router, norms, and all that text training does not use. --keep-bf16 patterns keep more.
 * Scales of NF4 are the blocks' maxima, or searched (codec/nf4_search.h). */
#ifndef SCOUT_LIBFORMAT_CONVERT_POLICY_H
#define SCOUT_LIBFORMAT_CONVERT_POLICY_H

#include "libformat/container/entry.h"
#include "libformat/convert/importance.h"

enum sf_scale_choice {
    SF_SCALE_ABSMAX,       /* as bitsandbytes does it, bit for bit */
    SF_SCALE_SEARCH,       /* of least squared error, */
    SF_SCALE_SEARCH_SIGNED /* and of either sign */
};
/* "absmax", "search", "search-signed" to a choice; false for any other name. */
bool sf_scale_choice_parse(enum sf_scale_choice *out, const char *name);

struct sf_policy {
    const char *const *keep; /* shell patterns; '*' also matches '.' and '/' */
    int64_t keep_count;
    bool *keep_used; /* [keep_count] set for each pattern that matched a matrix */
    enum sf_scale_choice scale;
    struct sf_importance *importance; /* NULL: all channels count the same */
    /* What comes quantized is taken over as it is; this quantizes anew where its blocks run along
     * the output axis. */
    bool requantize;
};

/* The encoding of the weight `name` (with the name of the tensor it comes from). Marks patterns. */
enum sf_encoding sf_policy_encoding(struct sf_policy *policy, enum sf_part part, const char *name,
                                    const char *source_name);
/* SF_EINVAL naming the first pattern, or vector of importance, that never matched. */
int sf_policy_check_used(const struct sf_policy *policy, struct sf_err *err);

#endif
