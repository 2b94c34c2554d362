#include "tests/support/support.h"

#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"
#include "libformat/codec/frame.h"

/* Known answers of the xxHash library for the empty input and for "xxhash". */
START_TEST(hashes_are_those_of_xxhash)
{
    ck_assert(sf_hash64("", 0, 0) == 0x2d06800538d394c2u);
    struct sf_hash128 h = sf_hash128("", 0);
    ck_assert(h.low == 0x6001c324468d497fu && h.high == 0x99aa06d3014798d8u);
    ck_assert(sf_hash64("scout", 5, 0) != sf_hash64("scout", 5, 1));
}
END_TEST

START_TEST(a_stream_hashes_like_the_whole)
{
    enum { N = 100000 };
    static unsigned char data[N];
    struct scout_random random = {1};
    for (int i = 0; i < N; i++)
        data[i] = (unsigned char)scout_random_u64(&random);
    struct sf_err err = {0};
    struct sf_hasher *hasher;
    assert_ok(sf_hasher_open(&hasher, &err), err);
    for (int at = 0, step = 0; at < N; at += step, step = (step * 3 + 1) % 7777)
        sf_hasher_add(hasher, data + at, (uint64_t)(step < N - at ? step : N - at));
    struct sf_hash128 whole = sf_hash128(data, N), stream = sf_hasher_digest(hasher);
    ck_assert(whole.low == stream.low && whole.high == stream.high);
    sf_hasher_close(hasher);
    sf_hasher_close(NULL);
}
END_TEST

START_TEST(frames_return_what_went_in)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    char text[5000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "whale "[i % 6];
    for (uint64_t bytes = 0; bytes <= sizeof text; bytes += 1250) {
        void *frame, *back;
        uint64_t frame_bytes;
        assert_ok(sf_frame_compress(&frame, &frame_bytes, &arena, text, bytes, &err), err);
        assert_ok(sf_frame_decompress(&back, &arena, frame, frame_bytes, bytes, &err), err);
        ck_assert_int_eq(memcmp(back, text, bytes), 0);
        ck_assert_int_eq(((char *)back)[bytes], 0);
    }
    sf_arena_free(&arena);
}
END_TEST

START_TEST(bad_frames_are_refused)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    char text[3000];
    memset(text, 'w', sizeof text);
    for (int i = 0; i < 3000; i += 7)
        text[i] = (char)i;
    void *frame, *back;
    uint64_t n;
    assert_ok(sf_frame_compress(&frame, &n, &arena, text, sizeof text, &err), err);
    unsigned char *bytes = sf_arena_alloc(&arena, n + 1);
    memcpy(bytes, frame, n);
    assert_fails(sf_frame_decompress(&back, &arena, bytes, n, 2999, &err), SF_EFORMAT,
                 "holds 3000 bytes, expected 2999", err);
    assert_fails(sf_frame_decompress(&back, &arena, bytes, n + 1, 3000, &err), SF_EFORMAT,
                 "a zstd frame ends after", err);
    assert_fails(sf_frame_decompress(&back, &arena, bytes, 3, 3000, &err), SF_EFORMAT,
                 "do not start with a zstd frame", err);
    for (uint64_t cut = 4; cut < n; cut++)
        ck_assert_int_eq(sf_frame_decompress(&back, &arena, bytes, cut, 3000, &err), SF_EFORMAT);
    sf_put_u32(bytes, 0x184d2a50u); /* a skippable frame */
    assert_fails(sf_frame_decompress(&back, &arena, bytes, n, 0, &err), SF_EFORMAT,
                 "do not start with a zstd frame", err);
    sf_arena_free(&arena);
}
END_TEST

START_TEST(no_memory_is_said)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    void *frame = NULL, *back = NULL;
    uint64_t n;
    struct sf_hasher *hasher = NULL;
    for (int nth = 1; nth <= 2; nth++) {
        sf_alloc_fail_after(nth);
        ck_assert_int_eq(sf_frame_compress(&frame, &n, &arena, "abc", 3, &err), SF_ENOMEM);
        sf_alloc_fail_after(0);
        sf_arena_free(&arena);
    }
    assert_ok(sf_frame_compress(&frame, &n, &arena, "abc", 3, &err), err);
    sf_alloc_fail_after(1);
    ck_assert_int_eq(sf_frame_decompress(&back, &arena, frame, n, 3, &err), SF_ENOMEM);
    sf_alloc_fail_after(1);
    ck_assert_int_eq(sf_hasher_open(&hasher, &err), SF_ENOMEM);
    sf_alloc_fail_after(0);
    sf_arena_free(&arena);
}
END_TEST

static Suite *frame_suite(void)
{
    Suite *suite = suite_create("frame");
    TCase *tc = tcase_create("frame");
    tcase_add_test(tc, hashes_are_those_of_xxhash);
    tcase_add_test(tc, a_stream_hashes_like_the_whole);
    tcase_add_test(tc, frames_return_what_went_in);
    tcase_add_test(tc, bad_frames_are_refused);
    tcase_add_test(tc, no_memory_is_said);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(frame_suite)
