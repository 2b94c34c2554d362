/* backend.h for programs that only plan: the sizes of the CUDA table; no CUDA and no BLAS linked. */
#include <string.h>

#include "kernels/rooms_cuda.h"
#include "libformat/base/mem.h"
#include "train/backend.h"

struct sft_backend {
    struct sk_ctx ctx;
    struct sft_backend_info info;
};

/* "auto" is a card here. */
bool sft_device_from_name(enum sft_device_kind *out, const char *name)
{
    *out = strcmp(name, "cpu") == 0 ? SFT_DEVICE_CPU : SFT_DEVICE_CUDA;
    return strcmp(name, "auto") == 0 || strcmp(name, "cpu") == 0 || strcmp(name, "cuda") == 0;
}

int sft_backend_open(struct sft_backend **out, enum sft_device_kind kind, int threads,
                     bool planning, struct sf_err *reason, struct sf_err *err)
{
    void *memory;
    (void)reason;
    *out = NULL;
    if (kind != SFT_DEVICE_CUDA || !planning)
        return sf_fail(err, SF_EUNSUPPORTED, "this program plans for cards, and runs nothing");
    int code = sf_alloc_for(&memory, sizeof(struct sft_backend), "a back end", err);
    if (code)
        return code;
    *out = memory;
    (*out)->ctx.threads = threads;
    (*out)->info =
        (struct sft_backend_info){.name = "cuda", .workspace_bytes = sk_cuda_held_bytes()};
    return SF_OK;
}

void sft_backend_close(struct sft_backend *backend)
{
    sf_free(backend);
}

const struct sk_ops *sft_backend_ops(const struct sft_backend *backend)
{
    (void)backend;
    return sk_ops_cuda_plan();
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
    (void)backend;
    return 0;
}

int sft_backend_load(struct sft_image **out, struct sft_backend *backend, const struct sf_map *map,
                     const struct sf_model_spec *spec, struct sft_load_seconds *seconds,
                     void (*on_progress)(void *context, uint64_t done, uint64_t total),
                     void *context, struct sf_err *err)
{
    (void)backend, (void)seconds, (void)on_progress, (void)context;
    return sft_image_open(out, map, spec, err);
}
