#include "train/device_image.h"

#include <stdatomic.h>
#include <string.h>

#include "kernels/xxh3.h"
#include "libformat/base/clock.h"
#include "libformat/base/jobs.h"
#include "libformat/base/mem.h"

/* Extents that follow each other in the file and are all resident: one copy of any length. */
struct run {
    uint64_t address, bytes; /* payload */
    uint64_t offset;         /* in the block */
    uint64_t first_chunk, chunks;
};

struct sft_device_image {
    struct sf_arena arena;
    const struct sf_map *map;
    unsigned char *block; /* device */
    uint64_t bytes;
    struct run *run; /* by address */
    int64_t runs;
};

static bool is_resident(const struct sf_extent *x)
{
    return SF_CHECK_RESIDENT >> x->kind & 1;
}

static int find_runs(struct sft_device_image *image, struct sf_err *err)
{
    int64_t extents = sf_map_info(image->map)->extents;
    image->run = sf_arena_array(&image->arena, (uint64_t)extents, sizeof *image->run);
    if (!image->run)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld extents", (long long)extents);
    for (int64_t i = 0; i < extents; i++) {
        const struct sf_extent *x = sf_map_extent(image->map, i);
        if (!is_resident(x))
            continue;
        struct run *r = image->runs ? &image->run[image->runs - 1] : NULL;
        if (!r || r->address + r->bytes != x->address)
            *(r = &image->run[image->runs++]) = (struct run){
                .address = x->address, .offset = image->bytes, .first_chunk = x->first_chunk};
        r->bytes += x->bytes;
        r->chunks += x->chunks;
        image->bytes += x->bytes;
    }
    return SF_OK;
}

static const struct run *run_of(const struct sft_device_image *image, uint64_t address)
{
    int64_t low = 0, high = image->runs; /* the last run that starts at or before the address */
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (image->run[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    const struct run *r = low ? &image->run[low - 1] : NULL;
    return r && address < r->address + r->bytes ? r : NULL;
}

/* ---- filling ---- */

struct fill {
    struct sft_device_image *image;
    const struct sk_device *device;
    const struct sft_load_options *options;
    struct sk_lane **lane; /* one per worker, opened by it */
    uint64_t slot_bytes;
    atomic_ullong done;
};

static int lane_of(struct sk_lane **out, struct fill *f, int worker, struct sf_err *err)
{
    int code = SF_OK;
    if (!f->lane[worker]) {
        code = sk_device_enter(f->device, err);
        if (code == SF_OK)
            code = sk_lane_open(&f->lane[worker], f->slot_bytes, err);
    }
    *out = f->lane[worker];
    return code;
}

/* Piece `index` of the block: a slot's worth, which may reach over the end of a run. */
static int fill_piece(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct fill *f = context;
    struct sft_device_image *image = f->image;
    struct sk_lane *lane;
    void *slot;
    uint64_t at = (uint64_t)index * f->slot_bytes;
    uint64_t n = image->bytes - at < f->slot_bytes ? image->bytes - at : f->slot_bytes;
    int code = lane_of(&lane, f, worker, err);
    if (code == SF_OK)
        code = sk_lane_slot(&slot, lane, err);
    if (code != SF_OK)
        return code;
    for (int64_t i = 0; i < image->runs; i++) {
        const struct run *r = &image->run[i];
        uint64_t from = at > r->offset ? at : r->offset, to = r->offset + r->bytes;
        to = to < at + n ? to : at + n;
        if (from < to)
            sf_map_copy((unsigned char *)slot + (from - at), image->map,
                        r->address + (from - r->offset), to - from);
    }
    code = sk_lane_send(lane, image->block + at, n, err);
    uint64_t done = atomic_fetch_add(&f->done, n) + n;
    if (code == SF_OK && worker == 0 && f->options->on_progress)
        f->options->on_progress(f->options->context, done, image->bytes);
    return code;
}

static int fill_block(struct sft_device_image *image, const struct sk_device *device,
                      const struct sft_load_options *options, struct sf_err *err)
{
    struct fill f = {.image = image, .device = device, .options = options};
    struct sk_lane *lanes[SFT_LOAD_THREADS_MOST] = {0};
    int threads = options->threads > 0 ? options->threads : sf_cpu_count();
    threads = threads > SFT_LOAD_THREADS_MOST ? SFT_LOAD_THREADS_MOST : threads;
    f.lane = lanes;
    f.slot_bytes = options->slot_bytes ? options->slot_bytes : (uint64_t)SFT_LOAD_SLOT_BYTES;
    int64_t pieces = (int64_t)((image->bytes + f.slot_bytes - 1) / f.slot_bytes);
    int code = sf_jobs_run(fill_piece, &f, pieces, threads, err);
    for (int i = 0; i < threads; i++) {
        if (code == SF_OK && lanes[i])
            code = sk_lane_wait(lanes[i], err);
        sk_lane_close(lanes[i]);
    }
    return code;
}

/* ---- checking ---- */

static int hash_runs(uint64_t *found, const struct sft_device_image *image, uint64_t *device_hash,
                     struct sf_err *err)
{
    uint64_t chunk_bytes = sf_map_info(image->map)->chunk_bytes, at = 0;
    int code = SF_OK;
    for (int64_t i = 0; i < image->runs && code == SF_OK; i++) {
        const struct run *r = &image->run[i];
        code = sk_xxh3_chunks(device_hash + at, image->block + r->offset, r->bytes, chunk_bytes,
                              r->first_chunk, err);
        at += r->chunks;
    }
    at = 0;
    for (int64_t i = 0; i < image->runs && code == SF_OK; i++) {
        const struct run *r = &image->run[i];
        code = sk_device_read(found + r->first_chunk, device_hash + at, r->chunks * sizeof *found,
                              err);
        at += r->chunks;
    }
    return code;
}

/* Hashes of the block's chunks, found where they lie, against the container's. */
static int check_block(const struct sft_device_image *image, struct sf_err *err)
{
    const struct sf_map *map = image->map;
    const struct sf_extent *last = sf_map_extent(map, sf_map_info(map)->extents - 1);
    uint64_t chunks = last->first_chunk + last->chunks, resident = 0;
    uint64_t *found = sf_alloc(chunks * sizeof *found);
    void *device_hash = NULL;
    int64_t damaged;
    for (int64_t i = 0; i < image->runs; i++)
        resident += image->run[i].chunks;
    int code =
        found ? sk_device_alloc(&device_hash, resident * sizeof *found, "checksums", err)
              : sf_fail(err, SF_ENOMEM, "no memory for %llu checksums", (unsigned long long)chunks);
    if (code == SF_OK)
        code = hash_runs(found, image, device_hash, err);
    struct sf_check_options options = {.threads = 1, .kinds = SF_CHECK_RESIDENT, .found = found};
    if (code == SF_OK)
        code = sf_check_run(&damaged, map, &options, err);
    sk_device_free(device_hash);
    sf_free(found);
    return code;
}

/* ---- life ---- */

static int allocate_block(struct sft_device_image *image, const struct sk_device *device,
                          struct sf_err *err)
{
    struct sk_device_info info;
    void *block = NULL;
    int code = sk_device_info(&info, device, err);
    if (code == SF_OK && image->bytes > info.free_bytes)
        code = sf_fail(err, SF_ENOMEM, "%s: %llu bytes are resident, %s has %llu free",
                       sf_map_path(image->map), (unsigned long long)image->bytes, info.name,
                       (unsigned long long)info.free_bytes);
    if (code == SF_OK)
        code = sk_device_alloc(&block, image->bytes, "the model", err);
    image->block = block;
    return code;
}

int sft_device_image_open(struct sft_device_image **out, const struct sf_map *map,
                          const struct sk_device *device, const struct sft_load_options *options,
                          struct sft_load_report *report, struct sf_err *err)
{
    struct sft_device_image *image = sf_alloc(sizeof *image);
    if (!image)
        return sf_fail(err, SF_ENOMEM, "no memory for an image handle");
    image->map = map;
    int code = sk_device_enter(device, err);
    if (code == SF_OK)
        code = find_runs(image, err);
    if (code == SF_OK)
        code = allocate_block(image, device, err);
    double began = sf_clock_seconds();
    if (code == SF_OK)
        code = fill_block(image, device, options, err);
    double filled = sf_clock_seconds();
    if (code == SF_OK && !options->skip_check)
        code = check_block(image, err);
    if (report)
        *report =
            (struct sft_load_report){image->bytes, filled - began, sf_clock_seconds() - filled};
    if (code != SF_OK) {
        sft_device_image_close(image);
        return code;
    }
    *out = image;
    return SF_OK;
}

void sft_device_image_close(struct sft_device_image *image)
{
    if (!image)
        return;
    sk_device_free(image->block);
    sf_arena_free(&image->arena);
    sf_free(image);
}

void *sft_device_image_at(const struct sft_device_image *image, uint64_t address)
{
    const struct run *r = run_of(image, address);
    return r ? image->block + r->offset + (address - r->address) : NULL;
}

uint64_t sft_device_image_bytes(const struct sft_device_image *image)
{
    return image->bytes;
}
