/* bnb_tensor.h -- one weight that bitsandbytes quantized to 4 bits, from the tensors that describe it.
 *
 * X.weight holds codes; X.weight.absmax, .quant_map, .nested_absmax, .nested_quant_map and the JSON
 * text X.weight.quant_state.bitsandbytes__nf4 say what they mean. Everything is checked here: sizes
 * against the original shape, keys of the JSON, finite scales. Only NF4 in blocks of 64, nested by
 * 256 or not, is taken. Reads small tensors, and all scales once; borrows from the index. */
#ifndef SCOUT_LIBFORMAT_HF_BNB_TENSOR_H
#define SCOUT_LIBFORMAT_HF_BNB_TENSOR_H

#include "libformat/base/arena.h"
#include "libformat/hf/hf_index.h"

enum { SF_BNB_BLOCK = 64, SF_BNB_NEST = 256, SF_BNB_SIDES = 5 };

struct sf_bnb_tensor {
    struct sf_shape shape;          /* [out, in] before quantization, or [experts * in, out] */
    enum sf_dtype dtype;            /* likewise */
    bool nested;                    /* double quantization */
    float offset;                   /* nested: added to each restored scale */
    float codebook[16];             /* the file's own */
    float map[256];                 /* nested: likewise */
    const struct sf_tensor *codes;  /* two a byte, row-major; of any storage dtype */
    const struct sf_tensor *absmax; /* nested: u8 codes of the map; else f32 */
    const struct sf_tensor *nested_absmax;      /* nested: f32, any address; else NULL */
    const struct sf_tensor *side[SF_BNB_SIDES]; /* all tensors but codes, for who reads them all */
    int sides;
};

/* Is the weight `name` a quantized one? True as soon as a 4-bit state lies beside it. */
bool sf_bnb_is_quantized(const struct sf_hf_index *index, const char *name);
/* The weight that a tensor such as X.weight.absmax belongs to, in `arena`; NULL without memory. */
const char *sf_bnb_weight_name(struct sf_arena *arena, const char *name);
/* SF_EUNSUPPORTED: fp4, other block sizes, shards that are not there; SF_EFORMAT: the tensors do not
 * fit together; SF_ENUMERIC: a scale is NaN or Inf. Messages begin with the tensor's name. */
int sf_bnb_tensor_read(struct sf_bnb_tensor *out, const struct sf_hf_index *index, const char *name,
                       struct sf_err *err);

#endif
