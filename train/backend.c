#include "train/backend.h"

#include <string.h>
#include <sys/resource.h>

#include "kernels/rooms_cuda.h"
#include "libformat/base/mem.h"
#ifdef SCOUT_HAVE_CUDA
#include "kernels/cuda_ctx.h"
#include "train/device_image.h"
#endif

struct sft_backend {
    const struct sk_ops *ops;
    struct sk_ctx ctx;
    struct sft_backend_info info;
    bool planning;
    char library[SK_LIBRARY_TEXT];
#ifdef SCOUT_HAVE_CUDA
    char name[256];
    struct sk_device *device;
    struct sft_device_image *weights;
#endif
};

bool sft_device_from_name(enum sft_device_kind *out, const char *name)
{
    static const char *const names[] = {"auto", "cpu", "cuda"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (enum sft_device_kind)i;
            return true;
        }
    }
    return false;
}

/* ---- the processor ---- */

static int open_cpu(struct sft_backend *b, int threads, struct sf_err *err)
{
    b->ops = sk_ops_cpu();
    b->info.name = "cpu";
    b->info.library = b->library;
    sk_cpu_library(b->library);
    return sk_cpu_start(&b->ctx, threads, err);
}

/* ---- a device ---- */

#ifndef SCOUT_HAVE_CUDA
/* Sizes alone, for plans on a machine or in a build without CUDA. */
static void plan_cuda(struct sft_backend *b, int threads)
{
    b->ops = sk_ops_cuda_plan();
    b->info.name = "cuda";
    b->info.workspace_bytes = sk_cuda_held_bytes();
    b->ctx.threads = threads;
}
#endif

#ifdef SCOUT_HAVE_CUDA

static int open_cuda(struct sft_backend *b, enum sft_device_kind kind, int threads,
                     struct sf_err *err)
{
    struct sk_device_info before, after;
    b->ops = sk_ops_cuda();
    b->info.name = "cuda";
    b->info.workspace_bytes = sk_cuda_bytes();
    b->ctx.threads = threads;
    if (b->planning && kind == SFT_DEVICE_CUDA)
        return SF_OK;
    int code = sk_device_open(&b->device, 0, err);
    if (!code && b->planning)
        return SF_OK;
    if (!code)
        code = sk_device_enter(b->device, err);
    if (!code)
        code = sk_device_info(&before, b->device, err);
    if (!code)
        code = sk_cuda_start(&b->ctx, b->device, threads, err);
    if (!code)
        code = sk_device_info(&after, b->device, err);
    if (code)
        return code;
    memcpy(b->name, before.name, sizeof b->name);
    sk_cuda_library(b->library, &b->ctx);
    b->info = (struct sft_backend_info){.name = b->name,
                                        .library = b->library,
                                        .total_bytes = after.total_bytes,
                                        .free_bytes = after.free_bytes,
                                        .library_bytes = after.total_bytes - after.free_bytes,
                                        .workspace_bytes = sk_cuda_bytes()};
    return SF_OK;
}

static void close_cuda(struct sft_backend *b)
{
    sft_device_image_close(b->weights);
    b->weights = NULL;
    sk_cuda_stop(&b->ctx);
    sk_device_close(b->device);
    b->device = NULL;
}

struct views { /* context of weight_at */
    const struct sft_device_image *weights;
    const struct sf_map *map;
};

/* Embedding rows are read by the host, everything else by the device. */
static const void *weight_at(void *context, struct sf_role role, uint64_t address)
{
    const struct views *v = context;
    if (role.part == SF_PART_EMBEDDING)
        return sf_map_bytes(v->map, address);
    return sft_device_image_at(v->weights, address);
}

static int load_cuda(struct sft_image **out, struct sft_backend *b, const struct sf_map *map,
                     const struct sf_model_spec *spec, struct sft_load_seconds *seconds,
                     const struct sft_load_options *options, struct sf_err *err)
{
    struct sft_load_report report = {0};
    int code = sft_device_image_open(&b->weights, map, b->device, options, &report, err);
    if (code)
        return code;
    if (seconds)
        *seconds =
            (struct sft_load_seconds){report.bytes, report.fill_seconds, report.check_seconds};
    struct views views = {b->weights, map};
    return sft_image_open_at(out, map, spec, weight_at, &views, err);
}

#endif

/* ---- life ---- */

static int open_kind(struct sft_backend *b, enum sft_device_kind kind, int threads,
                     struct sf_err *reason, struct sf_err *err)
{
#ifdef SCOUT_HAVE_CUDA
    if (kind == SFT_DEVICE_CUDA)
        return open_cuda(b, kind, threads, err);
    if (kind == SFT_DEVICE_AUTO) {
        struct sf_err why = {0};
        if (open_cuda(b, kind, threads, &why) == SF_OK)
            return SF_OK;
        close_cuda(b);
        if (reason)
            *reason = why;
    }
#else
    (void)reason;
    if (kind == SFT_DEVICE_CUDA && b->planning) {
        plan_cuda(b, threads);
        return SF_OK;
    }
    if (kind == SFT_DEVICE_CUDA)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "this build has no CUDA: build it where nvcc is found, or use --device cpu");
#endif
    return open_cpu(b, threads, err);
}

int sft_backend_open(struct sft_backend **out, enum sft_device_kind kind, int threads,
                     bool planning, struct sf_err *reason, struct sf_err *err)
{
    void *memory;
    *out = NULL;
    int code = sf_alloc_for(&memory, sizeof(struct sft_backend), "a back end", err);
    if (code)
        return code;
    struct sft_backend *b = memory;
    b->planning = planning;
    code = open_kind(b, kind, threads, reason, err);
    if (code)
        sft_backend_close(b);
    else
        *out = b;
    return code;
}

void sft_backend_close(struct sft_backend *backend)
{
    if (!backend)
        return;
#ifdef SCOUT_HAVE_CUDA
    close_cuda(backend);
#endif
    sf_free(backend);
}

const struct sk_ops *sft_backend_ops(const struct sft_backend *backend)
{
    return backend->ops;
}

struct sk_ctx *sft_backend_ctx(struct sft_backend *backend)
{
    return &backend->ctx;
}

const struct sft_backend_info *sft_backend_info(const struct sft_backend *backend)
{
    return &backend->info;
}

uint64_t sft_backend_memory(const struct sft_backend *backend)
{
    struct rusage usage;
#ifdef SCOUT_HAVE_CUDA
    struct sk_device_info info;
    struct sf_err ignored = {0};
    if (backend->device)
        return sk_device_info(&info, backend->device, &ignored) == SF_OK
                   ? info.total_bytes - info.free_bytes
                   : 0;
#else
    (void)backend;
#endif
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

int sft_backend_load(struct sft_image **out, struct sft_backend *backend, const struct sf_map *map,
                     const struct sf_model_spec *spec, struct sft_load_seconds *seconds,
                     void (*on_progress)(void *context, uint64_t done, uint64_t total),
                     void *context, struct sf_err *err)
{
    if (seconds)
        *seconds = (struct sft_load_seconds){0};
#ifdef SCOUT_HAVE_CUDA
    struct sft_load_options options = {
        .threads = backend->ctx.threads, .on_progress = on_progress, .context = context};
    if (backend->ops->device && !backend->planning)
        return load_cuda(out, backend, map, spec, seconds, &options, err);
#else
    (void)backend, (void)on_progress, (void)context;
#endif
    return sft_image_open(out, map, spec, err);
}
