#include "tests/kernels/kit.h"

#include <math.h>
#include <string.h>

#include "kernels/swiglu.h"

static const struct {
    int64_t rows, width, stride;
} cases[] = {{1, 1, 1}, {7, 33, 40}, {130, 256, 512}, {3, 100, 200}};
enum { CASES = sizeof cases / sizeof cases[0] };

struct wide {
    int64_t n;
    double *gate, *up, *dh;
};

static double silu(double g)
{
    return g / (1 + exp(-g));
}

static double slope_loss(void *ctx)
{
    struct wide *l = ctx;
    double loss = 0;
    for (int64_t i = 0; i < l->n; i++)
        loss += l->dh[i] * silu(l->gate[i]) * l->up[i];
    return loss;
}

/* gate and up share one buffer where two widths fit in the stride, as the model has them. */
struct given {
    float *both, *gate, *up;
};

static struct given make_inputs(struct kit *kit, int which, bool output)
{
    int64_t rows = cases[which].rows, width = cases[which].width, stride = cases[which].stride;
    int64_t n = rows * stride;
    struct given g;
    g.both = output ? kit_inout(kit, n, 3) : kit_in(kit, n, 3);
    g.gate = g.both;
    g.up =
        stride >= 2 * width ? g.both + width : (output ? kit_inout(kit, n, 1) : kit_in(kit, n, 1));
    g.gate[0] = 100; /* where exp overflows float32 one way or the other */
    if (rows > 1)
        g.gate[stride] = -100;
    return g;
}

static double *gather(struct kit *kit, const float *from, int which)
{
    int64_t rows = cases[which].rows, width = cases[which].width;
    double *out = kit_zeros(kit, rows * width);
    for (int64_t i = 0; i < rows * width; i++)
        out[i] = (double)from[i / width * cases[which].stride + i % width];
    return out;
}

START_TEST(forward_meets_the_formula)
{
    int64_t n = cases[_i].rows * cases[_i].width;
    struct kit kit;
    kit_begin(&kit, 900 + (uint64_t)_i);
    struct given g = make_inputs(&kit, _i, false);
    struct sk_swiglu_forward a = {.h = kit_out(&kit, n),
                                  .gate = g.gate,
                                  .up = g.up,
                                  .rows = cases[_i].rows,
                                  .width = cases[_i].width,
                                  .stride = cases[_i].stride};
    double *gate = gather(&kit, a.gate, _i), *up = gather(&kit, a.up, _i), *h = kit_zeros(&kit, n);
    for (int64_t i = 0; i < n; i++)
        h[i] = silu(gate[i]) * up[i];
    kit_run(&kit, SK_SWIGLU_FORWARD, &a);
    kit_close("h", a.h, h, n, 2e-7);
    kit_end(&kit);
}
END_TEST

static void pack(float *to, const float *from, int which)
{
    int64_t width = cases[which].width;
    for (int64_t r = 0; r < cases[which].rows; r++)
        memcpy(to + r * width, from + r * cases[which].stride, (size_t)width * sizeof *to);
}

static void check_backward(int which, bool in_place)
{
    int64_t rows = cases[which].rows, width = cases[which].width, stride = cases[which].stride;
    int64_t n = rows * width;
    struct kit kit;
    kit_begin(&kit, 950 + (uint64_t)which);
    struct given g = make_inputs(&kit, which, in_place);
    struct sk_swiglu_backward a = {.dh = kit_in(&kit, n, 1),
                                   .gate = g.gate,
                                   .up = g.up,
                                   .rows = rows,
                                   .width = width,
                                   .stride = stride};
    a.d_gate = in_place ? g.gate : kit_out(&kit, rows * stride);
    a.d_up = in_place ? g.up : kit_out(&kit, rows * stride);
    struct wide l = {n, gather(&kit, g.gate, which), gather(&kit, g.up, which),
                     kit_wide(&kit, a.dh, n)};
    double *d_gate = kit_zeros(&kit, n), *d_up = kit_zeros(&kit, n);
    for (int64_t i = 0; i < n; i++) {
        double s = 1 / (1 + exp(-l.gate[i]));
        d_up[i] = l.dh[i] * l.gate[i] * s;
        d_gate[i] = l.dh[i] * l.up[i] * s * (1 + l.gate[i] * (1 - s));
    }
    kit_slope(&kit, "d_gate", slope_loss, &l, l.gate, d_gate, n, 30);
    kit_slope(&kit, "d_up", slope_loss, &l, l.up, d_up, n, 30);
    kit_run(&kit, SK_SWIGLU_BACKWARD, &a);
    float *packed = kit_out(&kit, n);
    pack(packed, a.d_gate, which);
    kit_close("d_gate", packed, d_gate, n, 3e-7);
    pack(packed, a.d_up, which);
    kit_close("d_up", packed, d_up, n, 3e-7);
    for (int64_t i = 0; !in_place && i < rows * stride; i++)
        if (i % stride >= width && (a.d_gate[i] == a.d_gate[i] || a.d_up[i] == a.d_up[i]))
            ck_abort_msg("element %lld lies between rows", (long long)i);
    kit_end(&kit);
}

START_TEST(backward_meets_the_formula)
{
    check_backward(_i, false);
    check_backward(_i, true);
}
END_TEST

static Suite *swiglu_suite(void)
{
    Suite *suite = suite_create("swiglu");
    TCase *tc = tcase_create("swiglu");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, forward_meets_the_formula, 0, CASES);
    tcase_add_loop_test(tc, backward_meets_the_formula, 0, CASES);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(swiglu_suite)
