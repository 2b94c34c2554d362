/* cuda_support.h -- runs an op of the CUDA table on a kit's operands and holds it against the CPU's.
 *
 * A case makes its operands with the kit, as for the CPU. What each pointer of the argument struct
 * is, in order, one letter each:
 *     a  activations: float32 in the kit, bfloat16 on the device
 *     f  anything that is copied as it is: float32, int32, float64
 *     m  sk_matrix structs, whose data is copied as it is
 *     h  host memory: given as it is
 *     w  the workspace, made here
 * Pointers into one block of the kit stay so on the device: in place, strided and shared operands
 * need nothing special. Outputs start as the kit made them (NaN, if kit_out did); behind every block
 * and the workspace lie guard bytes. Each run is done twice and must give the same bits. */
#ifndef SCOUT_TESTS_KERNELS_CUDA_SUPPORT_H
#define SCOUT_TESTS_KERNELS_CUDA_SUPPORT_H

#include "kernels/cuda_ctx.h"
#include "kernels/cuda_table.h"
#include "tests/kernels/kit.h"

enum { CUDA_OPERANDS = 24 };

extern struct sk_ctx cuda_ctx; /* started by cuda_test_main */

/* Without a GPU: 77, which ctest takes for skipped. */
int cuda_test_main(Suite *(*make_suite)(void));

/* An op with its two fillings; measure NULL: no workspace. */
struct cuda_op {
    enum sk_op op;
    const char *kinds;
    sk_cuda_run_fn *run;
    sk_cuda_measure_fn *measure;
};

/* Outputs by operand number: what that pointer pointed to, to the end of its block. Activations are
 * floats again. NULL for inputs. They live until kit_end. */
struct cuda_results {
    void *of[CUDA_OPERANDS];
};

/* Rounds the kit's activations to bfloat16, so that both sides start from the same numbers: after
 * a case is made, before it is run. */
void cuda_round_activations(struct kit *kit, const struct cuda_op *op, const void *args);
/* The CPU table, on up to 8 processors. The kit's operands are as before afterwards. */
void cuda_run_cpu(struct cuda_results *out, struct kit *kit, const struct cuda_op *op,
                  const void *args);
/* The CUDA function. Asserts that inputs and guards are untouched. Returns what the op returned, or
 * what it raised on the device. */
int cuda_run_gpu(struct cuda_results *out, struct kit *kit, const struct cuda_op *op,
                 const void *args, struct sf_err *err);

/* Rounds to bfloat16 in place: for emulating what CUDA must lose. */
void cuda_round(float *x, int64_t n);
/* A bfloat16 copy of matrices of any format. */
struct sk_matrix *cuda_round_matrices(struct kit *kit, const struct sk_matrix *list, int64_t count);

/* Prints and asserts ||got - truth|| <= allowed * ||truth||, where `allowed` is twice what `emulated`
 * is off, or `least` if that is more. `emulated`: the truth with operands and result rounded to
 * bfloat16 where CUDA has to; NULL: `least` alone counts. Where the truth is NaN (untouched gaps)
 * `got` must be NaN as well. */
void cuda_compare(const char *what, const float *got, const float *truth, const float *emulated,
                  int64_t n, double least);

#endif
