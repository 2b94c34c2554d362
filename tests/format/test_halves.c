#include "tests/support/support.h"

#include <math.h>

#include "libformat/codec/halves.h"

START_TEST(bf16_round_trips)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float x = sf_f32_from_bf16((uint16_t)h);
        uint16_t want = (uint16_t)(isnan(x) ? h | 0x40 : h);
        if (sf_bf16_from_f32(x) != want)
            ck_abort_msg("%04x became %04x", h, sf_bf16_from_f32(x));
    }
}
END_TEST

/* Every interval between neighbours, at its quarters: nearest, ties to the even pattern. */
START_TEST(bf16_rounds_to_nearest_even)
{
    for (uint32_t h = 0; h < 0x7f80; h++) {
        uint32_t at = h << 16;
        ck_assert_uint_eq(sf_bf16_from_f32(sf_f32_from_bits(at + 0x7fff)), h);
        ck_assert_uint_eq(sf_bf16_from_f32(sf_f32_from_bits(at + 0x8000)), h + (h & 1));
        ck_assert_uint_eq(sf_bf16_from_f32(sf_f32_from_bits(at + 0x8001)), h + 1);
        ck_assert_uint_eq(sf_bf16_from_f32(sf_f32_from_bits(at + 0x80008001u)), 0x8000 | (h + 1));
    }
    ck_assert_uint_eq(sf_bf16_from_f32(sf_f32_from_bits(0x7f800001u)), 0x7fc0);
    ck_assert_uint_eq(sf_bf16_from_f32(sf_f32_from_bits(0xff812345u)), 0xffc1);
    ck_assert(sf_round_bf16(1.00390625f) == 1.0f && sf_round_bf16(1.01171875f) == 1.015625f);
}
END_TEST

START_TEST(f16_is_exact)
{
    for (uint32_t h = 0; h < 65536; h++) {
        int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
        double want = exponent == 0    ? ldexp(mantissa, -24)
                      : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                       : ldexp(1024 + mantissa, exponent - 25);
        float got = sf_f32_from_f16((uint16_t)h);
        ck_assert_int_eq(!signbit(got), !(h & 0x8000));
        if (isnan(want))
            ck_assert(isnan(got));
        else
            ck_assert(fabs((double)got) == want);
    }
}
END_TEST

static Suite *halves_suite(void)
{
    Suite *suite = suite_create("halves");
    TCase *tc = tcase_create("halves");
    tcase_add_test(tc, bf16_round_trips);
    tcase_add_test(tc, bf16_rounds_to_nearest_even);
    tcase_add_test(tc, f16_is_exact);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(halves_suite)
