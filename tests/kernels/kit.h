/* kit.h -- runs an op the way every suite here wants it run, and compares it with formulas.
 *
 * A kit owns the operands of one case. Outputs start as NaN, so that an element nobody wrote cannot
 * pass; guard words stand behind every operand. kit_run runs the op with 1, 2, 3 and 5 threads from
 * the same start and asserts that all outputs have the same bits, that inputs kept theirs and that
 * no guard was touched. References are written in the suites, in float64, as plain loops. */
#ifndef SCOUT_TESTS_KERNELS_KIT_H
#define SCOUT_TESTS_KERNELS_KIT_H

#include "kernels/matrix.h"
#include "kernels/ops.h"
#include "tests/support/support.h"

enum { KIT_BLOCKS = 64 };

struct kit_block {
    void *data; /* bytes, then the guard */
    void *initial, *result;
    uint64_t bytes;
    bool output;
};

struct kit {
    struct scout_random random;
    struct kit_block block[KIT_BLOCKS];
    int blocks;
    void *loose[KIT_BLOCKS]; /* references: no guard, not compared */
    int loose_count;
};

void kit_begin(struct kit *kit, uint64_t seed);
void kit_end(struct kit *kit); /* frees all that the kit gave out */

float *kit_in(struct kit *kit, int64_t n, float scale);    /* normal numbers */
float *kit_out(struct kit *kit, int64_t n);                /* NaN */
float *kit_inout(struct kit *kit, int64_t n, float scale); /* an output that starts as numbers */
int32_t *kit_ints(struct kit *kit, int64_t n);             /* zeros, for the case to fill in */
int32_t *kit_out_ints(struct kit *kit, int64_t n);         /* all bits set */
void *kit_bytes(struct kit *kit, uint64_t bytes, bool output);

double *kit_zeros(struct kit *kit, int64_t n);
double *kit_wide(struct kit *kit, const float *from, int64_t n); /* a copy in float64 */

/* `count` matrices of one shape with random contents; all borrowed from the kit. */
struct sk_matrix *kit_matrices(struct kit *kit, enum sk_format format, int64_t count, int64_t rows,
                               int64_t cols);
/* The matrix's elements by formulas of the kit's own (not libformat's decoder). */
double *kit_dense(struct kit *kit, const struct sk_matrix *matrix);

/* Asserts SF_OK; see above. The workspace pointer is filled in here. */
void kit_run(struct kit *kit, enum sk_op op, void *args);
/* Asserts that the op fails with this code and that the message contains `part`. */
void kit_fails(struct kit *kit, enum sk_op op, void *args, int code, const char *part);

/* Asserts ||got - want|| <= tolerance * ||want||, and that `got` is 0 where all of `want` is. */
void kit_close(const char *what, const float *got, const double *want, int64_t n, double tolerance);

/* Asserts that `gradient` is the slope of `loss` over x (central differences at `samples` random
 * places, float64): a backward formula that two independent derivations agree on. Ends with a call
 * of `loss` at x, so that what it leaves in ctx is of x. */
typedef double kit_loss(void *ctx);
void kit_slope(struct kit *kit, const char *what, kit_loss *loss, void *ctx, double *x,
               const double *gradient, int64_t n, int samples);

static inline double kit_dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

#endif
