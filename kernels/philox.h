/* philox.h -- random numbers from a counter: any of them at any time, on any machine.
 *
 * Philox4x32-10 of Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3"
 * (SC 2011): ten rounds that multiply two words by constants and mix the halves with a key that
 * steps by Weyl constants. No state: (key, counter) gives four words. */
#ifndef SCOUT_KERNELS_PHILOX_H
#define SCOUT_KERNELS_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define SK_BOTH __host__ __device__
#else
#define SK_BOTH
#endif

static inline SK_BOTH void sk_philox(uint32_t out[4], uint64_t key, uint64_t stream,
                                     uint64_t counter)
{
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* [0, 1) in steps of 2^-24: exact in float32. */
static inline SK_BOTH float sk_philox_uniform(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

#endif
