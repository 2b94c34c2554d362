#include "tests/support/gpu_suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/device.h"
#include "kernels/xxh3.h"
#include "libformat/codec/frame.h"

static struct sk_device *device;

/* Hashes of random bytes in device memory against the xxHash library, results poisoned first. */
static void check(uint64_t bytes, uint64_t chunk_bytes, uint64_t first_seed)
{
    struct sf_err err = {0};
    struct scout_random r = {bytes ^ chunk_bytes ^ first_seed};
    uint64_t count = (bytes - 1) / chunk_bytes + 1;
    unsigned char *data = malloc(bytes + 8);
    uint64_t *hash = malloc((count + 1) * sizeof *hash);
    void *device_data, *device_hash;
    ck_assert(data && hash);
    for (uint64_t i = 0; i < bytes; i += 8) {
        uint64_t word = scout_random_u64(&r);
        memcpy(data + i, &word, 8);
    }
    memset(hash, 0xa5, (count + 1) * sizeof *hash);
    assert_ok(sk_device_alloc(&device_data, bytes, "data", &err), err);
    assert_ok(sk_device_alloc(&device_hash, (count + 1) * sizeof *hash, "hashes", &err), err);
    assert_ok(sk_device_write(device_data, data, bytes, &err), err);
    assert_ok(sk_device_write(device_hash, hash, (count + 1) * sizeof *hash, &err), err);
    assert_ok(sk_xxh3_chunks(device_hash, device_data, bytes, chunk_bytes, first_seed, &err), err);
    assert_ok(sk_device_read(hash, device_hash, (count + 1) * sizeof *hash, &err), err);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t n = bytes - i * chunk_bytes < chunk_bytes ? bytes - i * chunk_bytes : chunk_bytes;
        uint64_t want = sf_hash64(data + i * chunk_bytes, n, first_seed + i);
        ck_assert_msg(hash[i] == want, "chunk %llu of %llu bytes, seed %llu", (unsigned long long)i,
                      (unsigned long long)n, (unsigned long long)(first_seed + i));
    }
    ck_assert_uint_eq(hash[count], 0xa5a5a5a5a5a5a5a5u);
    sk_device_free(device_data);
    sk_device_free(device_hash);
    free(data);
    free(hash);
}

START_TEST(equal_to_the_library)
{
    check(65536, 65536, 0);
    check(65536 * 100, 65536, 12345678901u);
    check(1 << 20, 1 << 20, 7);
    check((1 << 20) + 777, 1 << 20, UINT64_MAX - 1);
    check(5000000, 65536, 3);
}
END_TEST

/* Every length around a block's and a stripe's end. */
START_TEST(every_tail)
{
    for (uint64_t bytes = SK_XXH3_SHORTEST; bytes < 1400; bytes++)
        check(bytes, 4096, bytes);
    for (uint64_t tail = SK_XXH3_SHORTEST; tail < 600; tail += 7)
        check(3 * 4096 + tail, 4096, tail);
}
END_TEST

START_TEST(short_chunks_are_refused)
{
    struct sf_err err = {0};
    uint64_t hash = 0;
    assert_fails(sk_xxh3_chunks(&hash, &hash, 240, 65536, 0, &err), SF_EINVAL, "the last of 240",
                 err);
    assert_fails(sk_xxh3_chunks(&hash, &hash, 65536 + 10, 65536, 0, &err), SF_EINVAL,
                 "the last of 10", err);
    assert_fails(sk_xxh3_chunks(&hash, &hash, 65536, 1001, 0, &err), SF_EINVAL, "chunks of 1001",
                 err);
    assert_fails(sk_xxh3_chunks(&hash, &hash, 65536, 0, 0, &err), SF_EINVAL, "chunks of 0", err);
}
END_TEST

static Suite *xxh3_suite(void)
{
    Suite *suite = suite_create("xxh3_cuda");
    TCase *tc = tcase_create("xxh3_cuda");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, equal_to_the_library);
    tcase_add_test(tc, every_tail);
    tcase_add_test(tc, short_chunks_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return scout_gpu_test_run(&device, xxh3_suite);
}
