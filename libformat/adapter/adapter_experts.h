/* adapter_experts.h -- how A and B of a module lie in a file. Private to libformat/adapter.
 *
 * Linear modules: as in memory. Of E experts, with D = A[e] and U = B[e] as we keep them (reference:
 * PEFT's ParamWrapper.get_delta_weight):
 *     natural:  lora_A[e*r + q, i] = D[q, i]    lora_B[o, q*E + e] = U[o, q]
 *     swapped:  lora_A[e*r + q, o] = U[o, q]    lora_B[i, q*E + e] = D[q, i]
 * Both are the same delta; the two flattenings differ. */
#ifndef SCOUT_LIBFORMAT_ADAPTER_ADAPTER_EXPERTS_H
#define SCOUT_LIBFORMAT_ADAPTER_ADAPTER_EXPERTS_H

#include "libformat/adapter/adapter_file.h"
#include "libformat/tensor/tensor.h"

/* Shape of lora_A or lora_B in the file. */
struct sf_shape adapter_file_shape(const struct sf_adapter_module *m, enum sf_adapter_layout layout,
                                   char which);

/* Where element [group][x][y] of our A or B lies in the file: at + group*g + x*row + y*col. */
struct adapter_walk {
    char which; /* 'A' or 'B': the file's tensor that it lies in */
    int64_t rows, cols;
    int64_t group, row, col; /* steps, in elements */
};
struct adapter_walk adapter_walk(const struct sf_adapter_module *m, enum sf_adapter_layout layout,
                                 char ours);

/* to[groups][rows][cols] from the file's tensor; float32, float16 or bfloat16, all finite. */
int adapter_tensor_read(float *to, const struct sf_tensor *from, int64_t groups,
                        const struct adapter_walk *walk, struct sf_err *err);
/* The file's tensor from our numbers. */
void adapter_tensor_write(float *to, const float *from, int64_t groups,
                          const struct adapter_walk *walk);

#endif
