/* adapter_source.h -- a PEFT adapter's files, opened: what it adapts is known and checked, its
 * numbers are read module by module. For those who must not hold all of it (routed experts of rank
 * 16 are 1.8 GB for Scout), and for those who have no model beside it.
 *
 * Life: the caller owns what open gives and ends it with close. Threads: loading is safe from any
 * number of threads, each with its own arena. */
#ifndef SCOUT_LIBFORMAT_ADAPTER_ADAPTER_SOURCE_H
#define SCOUT_LIBFORMAT_ADAPTER_ADAPTER_SOURCE_H

#include "libformat/adapter/adapter_file.h"

struct sf_adapter_source;

/* Everything that sf_adapter_read checks, but for the numbers themselves. spec NULL: the model's
 * sizes are taken from the tensors (SF_EFORMAT where they contradict each other or do not tell the
 * layout); its layers end with the last that is adapted. Files that are for vLLM alone open too. */
int sf_adapter_open(struct sf_adapter_source **out, const char *directory,
                    const struct sf_model_spec *spec, struct sf_err *err);
void sf_adapter_close(struct sf_adapter_source *source); /* NULL is welcome */

/* By layer, then part; a and b are NULL. Lives as long as the source. */
const struct sf_adapter *sf_adapter_about(const struct sf_adapter_source *source);
/* The sizes it was checked against: the caller's, or those that the tensors tell. */
const struct sf_model_spec *sf_adapter_spec(const struct sf_adapter_source *source);
/* "F32": of A of module `index`; *bytes: of all tensors in the file. */
enum sf_dtype sf_adapter_dtype(const struct sf_adapter_source *source, int64_t index);
uint64_t sf_adapter_file_bytes(const struct sf_adapter_source *source);

/* Module `index` with its numbers in `arena`. SF_ENUMERIC: one is not finite (tensor and element
 * named). */
int sf_adapter_load(struct sf_adapter_module *out, struct sf_arena *arena,
                    const struct sf_adapter_source *source, int64_t index, struct sf_err *err);

/* PEFT puts a copy of the base's head (or embedding) into the file of an adapter of lm_head. It is
 * no part of the adapter if it is the base's; who has the base can look. NULL after the last. */
struct sf_adapter_copy {
    enum sf_part part; /* EMBEDDING or HEAD */
    const char *key;
    const struct sf_tensor *tensor;
};
const struct sf_adapter_copy *sf_adapter_copy_at(const struct sf_adapter_source *source,
                                                 int64_t index);
/* Every copy against the base. */
int sf_adapter_check_copies(const struct sf_adapter_source *source,
                            const struct sf_adapter_base *base, struct sf_err *err);
/* SF_EUNSUPPORTED for what only vLLM can use, and for copies: of another weight than the base's, or
 * where there is no base (NULL) to look at. */
int sf_adapter_check_usable(const struct sf_adapter_source *source, const char *directory,
                            const struct sf_adapter_base *base, struct sf_err *err);

#endif
