#include <math.h>
#include <string.h>

#include "kernels/attention_cached.h"
#include "tests/kernels/cuda_support.h"

/* Keys are dealt to 8 warps; heads are loaded in pieces of 32 elements. */
static const struct shape {
    int64_t start, rows, room, heads, kv_heads, head_size, chunk;
} shapes[] = {
    {0, 1, 1, 1, 1, 4, 0},         {0, 7, 9, 10, 2, 8, 0},
    {5, 1, 8, 4, 2, 16, 0},        {13, 6, 40, 5, 1, 16, 5},
    {63, 3, 200, 4, 2, 64, 64},    {150, 20, 170, 4, 4, 8, 0},
    {6, 5, 8, 2, 1, 12, 0},        {9, 4, 9, 2, 2, 8, 3},
    {700, 1, 1000, 40, 8, 128, 0}, {8190, 4, 8200, 5, 1, 128, 8192},
    {30, 2, 64, 2, 1, 256, 0},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static const struct cuda_op cached = {SK_ATTENTION_CACHED, "aaaaaaf", sk_attention_cached_cuda,
                                      NULL};

static void make_case(struct kit *kit, struct sk_attention_cached *a, const struct shape *s)
{
    int64_t nq = s->rows * s->heads * s->head_size, width = s->kv_heads * s->head_size;
    int32_t *positions = kit_ints(kit, s->rows);
    for (int64_t i = 0; i < s->rows; i++)
        positions[i] = (int32_t)(s->start + i);
    *a = (struct sk_attention_cached){.o = kit_out(kit, nq),
                                      .k_cache = kit_inout(kit, s->room * width, 1),
                                      .v_cache = kit_inout(kit, s->room * width, 1),
                                      .q = kit_in(kit, nq, 1),
                                      .k = kit_in(kit, s->rows * width, 1),
                                      .v = kit_in(kit, s->rows * width, 1),
                                      .positions = positions,
                                      .rows = s->rows,
                                      .room = s->room,
                                      .heads = s->heads,
                                      .kv_heads = s->kv_heads,
                                      .head_size = s->head_size,
                                      .chunk = s->chunk,
                                      .scale = 1 / sqrtf((float)s->head_size)};
}

START_TEST(meets_the_cpu)
{
    struct kit kit;
    struct sk_attention_cached a;
    struct cuda_results cpu, gpu;
    struct sf_err err = {0};
    const struct shape *s = &shapes[_i];
    int64_t nq = s->rows * s->heads * s->head_size;
    uint64_t cache = (uint64_t)(s->room * s->kv_heads * s->head_size) * sizeof(float);
    kit_begin(&kit, 950 + (uint64_t)_i);
    make_case(&kit, &a, s);
    cuda_round_activations(&kit, &cached, &a);
    cuda_run_cpu(&cpu, &kit, &cached, &a);
    assert_ok(cuda_run_gpu(&gpu, &kit, &cached, &a, &err), err);
    float *rounded = kit_in(&kit, nq, 0);
    memcpy(rounded, cpu.of[0], (size_t)nq * sizeof *rounded);
    cuda_round(rounded, nq);
    cuda_compare("o", gpu.of[0], cpu.of[0], rounded, nq, 5e-6);
    ck_assert_mem_eq(gpu.of[1], cpu.of[1], cache);
    ck_assert_mem_eq(gpu.of[2], cpu.of[2], cache);
    kit_end(&kit);
}
END_TEST

START_TEST(long_heads_are_refused)
{
    struct kit kit;
    struct sk_attention_cached a;
    struct cuda_results gpu;
    struct sf_err err = {0};
    struct shape s = {0, 1, 2, 1, 1, 257, 0};
    kit_begin(&kit, 1);
    make_case(&kit, &a, &s);
    assert_fails(cuda_run_gpu(&gpu, &kit, &cached, &a, &err), SF_EUNSUPPORTED,
                 "heads of 257 elements", err);
    kit_end(&kit);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("attention_cached");
    TCase *c = tcase_create("cuda");
    tcase_add_loop_test(c, meets_the_cpu, 0, SHAPES);
    tcase_add_test(c, long_heads_are_refused);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return cuda_test_main(suite);
}
