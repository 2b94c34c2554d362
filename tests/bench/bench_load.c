/* bench_load -- how fast a container gets into device memory, beside what the machine gives.
 *   bench_load MODEL.scout [RUNS]
 * Each run: the load with and without its check, and a plain loop of pinned copies of the same bytes
 * through one lane per thread, as the limit. Ratios of one run are what to quote. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/clock.h"
#include "libformat/base/jobs.h"
#include "train/device_image.h"

enum { SLOT = 2 << 20, LANES = 8 };

struct limit {
    const struct sk_device *device;
    unsigned char *block;
    uint64_t bytes;
    struct sk_lane *lane[LANES];
};

/* Copies from pinned memory that nobody fills: the bus alone. */
static int copy_piece(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct limit *l = context;
    void *slot;
    uint64_t at = (uint64_t)index * SLOT, n = l->bytes - at < SLOT ? l->bytes - at : SLOT;
    int code = sk_device_enter(l->device, err);
    if (code == SF_OK && !l->lane[worker])
        code = sk_lane_open(&l->lane[worker], SLOT, err);
    if (code == SF_OK)
        code = sk_lane_slot(&slot, l->lane[worker], err);
    return code == SF_OK ? sk_lane_send(l->lane[worker], l->block + at, n, err) : code;
}

static int measure_limit(double *seconds, const struct sk_device *device, uint64_t bytes,
                         struct sf_err *err)
{
    struct limit l = {.device = device, .bytes = bytes};
    void *block;
    int code = sk_device_alloc(&block, bytes, "the limit", err);
    l.block = block;
    for (int round = 0; round < 2 && code == SF_OK; round++) { /* the first opens the lanes */
        double began = sf_clock_seconds();
        code = sf_jobs_run(copy_piece, &l, (int64_t)((bytes + SLOT - 1) / SLOT), LANES, err);
        for (int i = 0; i < LANES && code == SF_OK; i++)
            if (l.lane[i])
                code = sk_lane_wait(l.lane[i], err);
        *seconds = sf_clock_seconds() - began;
    }
    for (int i = 0; i < LANES; i++)
        sk_lane_close(l.lane[i]);
    sk_device_free(block);
    return code;
}

static int measure(const struct sf_map *map, const struct sk_device *device, struct sf_err *err)
{
    struct sft_device_image *image;
    struct sft_load_report with, without;
    struct sft_load_options checked = {0}, bare = {.skip_check = true};
    double limit = 0;
    int code = sft_device_image_open(&image, map, device, &bare, &without, err);
    if (code != SF_OK)
        return code;
    sft_device_image_close(image);
    code = sft_device_image_open(&image, map, device, &checked, &with, err);
    if (code != SF_OK)
        return code;
    sft_device_image_close(image);
    code = measure_limit(&limit, device, with.bytes, err);
    if (code != SF_OK)
        return code;
    double gb = (double)with.bytes / 1e9;
    printf(
        "%8.2f GB  pinned copies %6.2f GB/s  fill %6.2f GB/s (%3.0f %%)  fill + check %6.2f GB/s "
        "(%3.0f %%)  check alone %7.1f GB/s\n",
        gb, gb / limit, gb / without.fill_seconds, 100 * limit / without.fill_seconds,
        gb / (with.fill_seconds + with.check_seconds),
        100 * limit / (with.fill_seconds + with.check_seconds), gb / with.check_seconds);
    return SF_OK;
}

int main(int argc, char **argv)
{
    struct sf_err err = {0};
    struct sk_device *device = NULL;
    struct sf_map *map = NULL;
    int runs = argc > 2 ? atoi(argv[2]) : 3;
    if (argc < 2) {
        fprintf(stderr, "usage: bench_load MODEL.scout [RUNS]\n");
        return 2;
    }
    int code = sf_map_open(&map, argv[1], &err);
    if (code == SF_OK)
        code = sk_device_open(&device, 0, &err);
    for (int i = 0; i < runs && code == SF_OK; i++)
        code = measure(map, device, &err);
    sk_device_close(device);
    sf_map_close(map);
    if (code != SF_OK)
        fprintf(stderr, "bench_load: %s\n", err.message);
    return code == SF_OK ? 0 : 1;
}
