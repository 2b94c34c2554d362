#include "tests/kernels/cuda_support.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "kernels/matrix_cpu.h"
#include "libformat/base/mem.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4_tables.h"
#include "tests/support/gpu_suite.h"

enum { GUARD = 512, GUARD_BYTE = 0xa5 };

struct sk_ctx cuda_ctx;
static struct sk_device *device;

int cuda_test_main(Suite *(*make_suite)(void))
{
    struct sf_err err = {0};
    setenv("CK_FORK", "no", 1); /* a CUDA context does not survive fork */
    scout_test_prepare();
    if (sk_device_open(&device, 0, &err) != SF_OK) {
        printf("skipped: %s\n", err.message);
        return SCOUT_NO_GPU;
    }
    if (sk_cuda_start(&cuda_ctx, device, 4, &err) != SF_OK) {
        printf("%s\n", err.message);
        return 1;
    }
    int status = scout_test_run(make_suite());
    sk_cuda_stop(&cuda_ctx);
    sk_device_close(device);
    return status;
}

/* ---- the kit's blocks on the device ---- */

struct mirror {
    char kind; /* of the operand that points there; 0: none does */
    char *data;
    uint64_t bytes;
};

struct mirrors {
    struct kit *kit;
    struct mirror of[KIT_BLOCKS];
    char *workspace, *tables; /* tables: codebook, then map */
    uint64_t workspace_bytes;
};

static int block_of(const struct kit *kit, const void *p)
{
    for (int i = 0; i < kit->blocks; i++) {
        const char *data = kit->block[i].data;
        if ((const char *)p >= data && (const char *)p < data + kit->block[i].bytes)
            return i;
    }
    ck_abort_msg("an operand is not of the kit");
    return -1;
}

static void **pointers(const void *args)
{
    return (void **)(uintptr_t)args;
}

static char *upload(const void *bytes, uint64_t count)
{
    struct sf_err err = {0};
    unsigned char guard[GUARD];
    void *at;
    memset(guard, GUARD_BYTE, GUARD);
    assert_ok(sk_device_alloc(&at, count + GUARD, "an operand", &err), err);
    assert_ok(sk_device_write(at, bytes, count, &err), err);
    assert_ok(sk_device_write((char *)at + count, guard, GUARD, &err), err);
    return at;
}

static void assert_guard(const char *op, const char *what, int index, const char *behind)
{
    struct sf_err err = {0};
    unsigned char guard[GUARD];
    assert_ok(sk_device_read(guard, behind, GUARD, &err), err);
    for (int i = 0; i < GUARD; i++)
        if (guard[i] != GUARD_BYTE)
            ck_abort_msg("%s wrote %d bytes behind the end of %s %d", op, i, what, index);
}

static uint16_t *narrow(const float *x, int64_t n)
{
    uint16_t *out = sf_alloc((uint64_t)n * sizeof *out + 1);
    ck_assert(out);
    for (int64_t i = 0; i < n; i++)
        out[i] = sf_bf16_from_f32(x[i]);
    return out;
}

static void send_block(struct mirrors *m, int i, char kind)
{
    const struct kit_block *b = &m->kit->block[i];
    struct mirror *to = &m->of[i];
    if (to->kind) {
        ck_assert_msg(to->kind == kind, "block %d of the kit is '%c' and '%c'", i, to->kind, kind);
        return;
    }
    to->kind = kind;
    to->bytes = kind == 'a' ? b->bytes / 2 : b->bytes;
    uint16_t *halves = kind == 'a' ? narrow(b->data, (int64_t)(b->bytes / sizeof(float))) : NULL;
    to->data = upload(halves ? (void *)halves : b->data, to->bytes);
    sf_free(halves);
}

static void *on_device(struct mirrors *m, const void *p, char kind)
{
    int i = block_of(m->kit, p);
    send_block(m, i, kind);
    uint64_t offset = (uint64_t)((const char *)p - (const char *)m->kit->block[i].data);
    return m->of[i].data + (kind == 'a' ? offset / 2 : offset);
}

/* The list itself stays in host memory. */
static struct sk_matrix *send_matrices(struct mirrors *m, const struct sk_matrix *list)
{
    int64_t count = (int64_t)(m->kit->block[block_of(m->kit, list)].bytes / sizeof *list);
    struct sk_matrix *out = sf_alloc((uint64_t)count * sizeof *out);
    ck_assert(out);
    for (int64_t i = 0; i < count; i++) {
        out[i] = list[i];
        out[i].data = on_device(m, list[i].data, 'f');
        if (list[i].scale)
            out[i].scale = on_device(m, list[i].scale, 'f');
        if (list[i].scale2)
            out[i].scale2 = on_device(m, list[i].scale2, 'f');
        out[i].codebook = (const float *)(const void *)m->tables;
        out[i].map = out[i].codebook + 16;
    }
    return out;
}

static void open_mirrors(struct mirrors *m, struct kit *kit)
{
    float tables[16 + 256];
    *m = (struct mirrors){.kit = kit};
    memcpy(tables, sf_nf4_code_value, sizeof sf_nf4_code_value);
    memcpy(tables + 16, sf_nf4_scale_map, sizeof sf_nf4_scale_map);
    m->tables = upload(tables, sizeof tables);
}

static void close_mirrors(struct mirrors *m)
{
    for (int i = 0; i < KIT_BLOCKS; i++)
        sk_device_free(m->of[i].data);
    sk_device_free(m->workspace);
    sk_device_free(m->tables);
}

/* ---- running ---- */

/* The argument struct as CUDA wants it, in `room`. */
static void *translate(struct mirrors *m, const struct cuda_op *op, const void *args, void *room)
{
    const struct sk_op_info *info = sk_op_info(op->op);
    void **to = room;
    memcpy(room, args, info->args_bytes);
    ck_assert_int_eq((int)strlen(op->kinds), info->operands);
    for (int i = 0; i < info->operands; i++) {
        void *p = pointers(args)[i];
        if (op->kinds[i] == 'm' && p)
            to[i] = send_matrices(m, p);
        else if (op->kinds[i] != 'h' && op->kinds[i] != 'w' && p)
            to[i] = on_device(m, p, op->kinds[i]);
    }
    m->workspace_bytes = op->measure ? op->measure(args, 1) : 0;
    char *poison = sf_alloc(m->workspace_bytes + 1);
    ck_assert(poison);
    memset(poison, 0xff, m->workspace_bytes);
    m->workspace = upload(poison, m->workspace_bytes);
    sf_free(poison);
    if (info->has_workspace)
        to[info->operands - 1] = m->workspace;
    return room;
}

static void free_matrices(const struct cuda_op *op, void *room)
{
    for (int i = 0; op->kinds[i]; i++)
        if (op->kinds[i] == 'm')
            sf_free(pointers(room)[i]);
}

/* Result bytes of every output block; inputs and guards are looked at. */
static void collect(struct mirrors *m, const char *name)
{
    struct sf_err err = {0};
    for (int i = 0; i < m->kit->blocks; i++) {
        struct kit_block *b = &m->kit->block[i];
        const struct mirror *from = &m->of[i];
        if (!from->kind)
            continue;
        assert_guard(name, "block", i, from->data + from->bytes);
        assert_ok(sk_device_read(b->result, from->data, from->bytes, &err), err);
        if (b->output)
            continue;
        uint16_t *halves =
            from->kind == 'a' ? narrow(b->data, (int64_t)(b->bytes / sizeof(float))) : NULL;
        ck_assert_msg(memcmp(b->result, halves ? (void *)halves : b->data, from->bytes) == 0,
                      "%s changed its input, block %d", name, i);
        sf_free(halves);
    }
    assert_guard(name, "the workspace", 0, m->workspace + m->workspace_bytes);
}

static int run_gpu_once(struct kit *kit, const struct cuda_op *op, const void *args,
                        char kinds[KIT_BLOCKS], struct sf_err *err)
{
    struct mirrors m;
    void *room = sf_alloc(sk_op_info(op->op)->args_bytes);
    char byte;
    ck_assert(room);
    open_mirrors(&m, kit);
    translate(&m, op, args, room);
    assert_ok(sk_device_wait(device, err), *err);
    int code = op->run(&cuda_ctx, room, err);
    if (!code)
        code = sk_memory_cuda.read(&cuda_ctx, &byte, m.tables, 1, err);
    assert_ok(sk_device_wait(device, err), *err);
    if (!code)
        collect(&m, sk_op_info(op->op)->name);
    for (int i = 0; i < KIT_BLOCKS; i++)
        kinds[i] = m.of[i].kind;
    free_matrices(op, room);
    close_mirrors(&m);
    sf_free(room);
    return code;
}

/* A block's results as the kit's own type, in memory of the kit's. */
static char *keep_result(struct kit *kit, const struct kit_block *b, char kind)
{
    int64_t n = (int64_t)(b->bytes / sizeof(float));
    char *kept = (char *)kit_zeros(kit, (int64_t)(b->bytes / sizeof(double)) + 1);
    for (int64_t i = 0; kind == 'a' && i < n; i++) {
        float wide = sf_f32_from_bf16(((const uint16_t *)b->result)[i]);
        memcpy(kept + i * (int64_t)sizeof wide, &wide, sizeof wide);
    }
    if (kind != 'a')
        memcpy(kept, b->result, b->bytes);
    return kept;
}

static void hand_out(struct cuda_results *out, struct kit *kit, const struct cuda_op *op,
                     const void *args, const char kinds[KIT_BLOCKS])
{
    const struct sk_op_info *info = sk_op_info(op->op);
    char *kept[KIT_BLOCKS] = {NULL};
    *out = (struct cuda_results){{NULL}};
    for (int i = 0; i < info->outputs; i++) {
        char *p = pointers(args)[i];
        if (!p || op->kinds[i] == 'h')
            continue;
        int block = block_of(kit, p);
        struct kit_block *b = &kit->block[block];
        if (!kept[block])
            kept[block] = keep_result(kit, b, kinds[block]);
        out->of[i] = kept[block] + (p - (char *)b->data);
    }
}

int cuda_run_gpu(struct cuda_results *out, struct kit *kit, const struct cuda_op *op,
                 const void *args, struct sf_err *err)
{
    char kinds[KIT_BLOCKS];
    int code = run_gpu_once(kit, op, args, kinds, err);
    if (code)
        return code;
    for (int i = 0; i < kit->blocks; i++)
        memcpy(kit->block[i].initial, kit->block[i].result, kit->block[i].bytes);
    code = run_gpu_once(kit, op, args, kinds, err);
    for (int i = 0; !code && i < kit->blocks; i++) {
        const struct kit_block *b = &kit->block[i];
        if (kinds[i] && b->output)
            ck_assert_msg(memcmp(b->initial, b->result, b->bytes / (kinds[i] == 'a' ? 2 : 1)) == 0,
                          "%s: block %d differs between two runs", sk_op_info(op->op)->name, i);
    }
    hand_out(out, kit, op, args, kinds);
    return code;
}

/* A GPU's host may show more processors than it gives, and threads that wait for their turn at each
 * barrier take minutes. */
static int cpu_threads(void)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return processors < 8 ? (int)processors : 8;
}

void cuda_run_cpu(struct cuda_results *out, struct kit *kit, const struct cuda_op *op,
                  const void *args)
{
    const struct sk_op_info *info = sk_op_info(op->op);
    struct sf_err err = {0};
    struct sk_ctx ctx;
    char kinds[KIT_BLOCKS];
    void *room = sf_alloc(info->args_bytes);
    ck_assert(room);
    memcpy(room, args, info->args_bytes);
    memset(kinds, 'f', sizeof kinds);
    assert_ok(sk_cpu_start(&ctx, cpu_threads(), &err), err);
    uint64_t bytes = sk_ops_cpu()->measure[op->op](args, ctx.threads);
    void *workspace = sf_alloc(bytes + 1);
    ck_assert(workspace);
    if (info->has_workspace)
        pointers(room)[info->operands - 1] = workspace;
    for (int i = 0; i < kit->blocks; i++)
        memcpy(kit->block[i].initial, kit->block[i].data, kit->block[i].bytes);
    assert_ok(sk_ops_cpu()->run[op->op](&ctx, room, &err), err);
    for (int i = 0; i < kit->blocks; i++) {
        memcpy(kit->block[i].result, kit->block[i].data, kit->block[i].bytes);
        memcpy(kit->block[i].data, kit->block[i].initial, kit->block[i].bytes);
    }
    hand_out(out, kit, op, args, kinds);
    sf_free(workspace);
    sf_free(room);
}

/* ---- rounding and comparing ---- */

void cuda_round(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = sf_round_bf16(x[i]);
}

void cuda_round_activations(struct kit *kit, const struct cuda_op *op, const void *args)
{
    for (int i = 0; op->kinds[i]; i++) {
        void *p = pointers(args)[i];
        if (op->kinds[i] != 'a' || !p)
            continue;
        struct kit_block *b = &kit->block[block_of(kit, p)];
        cuda_round(b->data, (int64_t)(b->bytes / sizeof(float)));
    }
}

struct sk_matrix *cuda_round_matrices(struct kit *kit, const struct sk_matrix *list, int64_t count)
{
    struct sk_matrix *out = kit_bytes(kit, (uint64_t)count * sizeof *out, false);
    for (int64_t i = 0; i < count; i++) {
        int64_t n = list[i].rows * list[i].cols;
        float *wide = sf_alloc((uint64_t)n * sizeof *wide);
        uint16_t *halves = kit_bytes(kit, (uint64_t)n * sizeof *halves, false);
        ck_assert(wide);
        sk_matrix_read(wide, &list[i], 0, n);
        for (int64_t j = 0; j < n; j++)
            halves[j] = sf_bf16_from_f32(wide[j]);
        sf_free(wide);
        out[i] = (struct sk_matrix){
            .format = SK_FORMAT_BF16, .rows = list[i].rows, .cols = list[i].cols, .data = halves};
    }
    return out;
}

/* ||x - truth|| / ||truth||; 0 where both are zero. No ck_assert per element: it writes to a file each
 * time, passed or not. */
static double relative(const char *what, const float *x, const float *truth, int64_t n)
{
    double off = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(truth[i])) {
            if (!isnan(x[i]))
                ck_abort_msg("%s[%lld] was to be left alone", what, (long long)i);
            continue;
        }
        if (isnan(x[i]))
            ck_abort_msg("%s[%lld] is NaN, want %.9g", what, (long long)i, (double)truth[i]);
        off += ((double)x[i] - (double)truth[i]) * ((double)x[i] - (double)truth[i]);
        norm += (double)truth[i] * (double)truth[i];
    }
    return off == 0 ? 0 : sqrt(off / norm);
}

void cuda_compare(const char *what, const float *got, const float *truth, const float *emulated,
                  int64_t n, double least)
{
    double error = relative(what, got, truth, n);
    double plain = emulated ? relative(what, emulated, truth, n) : 0;
    double allowed = fmax(2 * plain, least);
    printf("    %-44s off by %.2e, plain rounding %.2e, allowed %.2e: %3.0f %%\n", what, error,
           plain, allowed, 100 * error / allowed);
    fflush(stdout);
    ck_assert_msg(error <= allowed, "%s: relative error %.3g, allowed %.3g", what, error, allowed);
}
