#include "kernels/xxh3.h"

#include <string.h>

#include "kernels/cuda_call.h"
#include "libformat/codec/frame.h"

enum {
    LANES = 8,          /* accumulators of XXH3, one thread each */
    STRIPE = 64,        /* bytes that eight lanes take at once */
    BLOCK_STRIPES = 16, /* stripes between two scrambles: (secret - stripe) / 8 */
    SECRET_WORDS = SF_HASH64_SECRET_WORDS,
    SCRAMBLE_WORD = 16, /* the secret's last 64 bytes */
    LAST_BYTE = 121,    /* where the key of the last stripe starts */
    MERGE_BYTE = 11,    /* where the keys of the merge start */
    THREADS = 256
};

static const uint64_t PRIME32_1 = 0x9E3779B1u, PRIME32_2 = 0x85EBCA77u, PRIME32_3 = 0xC2B2AE3Du;
static const uint64_t PRIME64_1 = 0x9E3779B185EBCA87u, PRIME64_2 = 0xC2B2AE3D27D4EB4Fu,
                      PRIME64_3 = 0x165667B19E3779F9u, PRIME64_4 = 0x85EBCA77C2B2AE63u,
                      PRIME64_5 = 0x27D4EB2F165667C5u, PRIME_AVALANCHE = 0x165667919E3779F9u;

struct secret {
    uint64_t word[SECRET_WORDS];
};

/* The secret's word w under a seed: even words gain it, odd ones lose it. */
static __device__ uint64_t key_word(const uint64_t *base, int w, uint64_t seed)
{
    return w % 2 == 0 ? base[w] + seed : base[w] - seed;
}

/* Eight bytes of the seeded secret from any byte. */
static __device__ uint64_t key_at(const uint64_t *base, int byte, uint64_t seed)
{
    int shift = byte % 8 * 8;
    uint64_t low = key_word(base, byte / 8, seed);
    return shift == 0 ? low : low >> shift | key_word(base, byte / 8 + 1, seed) << (64 - shift);
}

static __device__ uint64_t first_accumulator(int lane)
{
    const uint64_t start[LANES] = {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3,
                                   PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1};
    return start[lane];
}

/* One stripe: each lane multiplies the halves of its keyed word, and hands the word to its neighbour. */
static __device__ uint64_t accumulate(uint64_t acc, uint64_t data, uint64_t key, unsigned team)
{
    uint64_t keyed = data ^ key;
    return acc + __shfl_xor_sync(team, data, 1) + (keyed & 0xffffffffu) * (keyed >> 32);
}

static __device__ uint64_t merge(uint64_t acc, const uint64_t *base, int lane, uint64_t length,
                                 uint64_t seed, unsigned team)
{
    uint64_t mine = acc ^ key_at(base, MERGE_BYTE + 8 * lane, seed);
    uint64_t other = __shfl_xor_sync(team, mine, 1);
    uint64_t sum = lane % 2 == 0 ? (mine * other) ^ __umul64hi(mine, other) : 0;
    for (int step = 2; step < LANES; step *= 2)
        sum += __shfl_xor_sync(team, sum, step);
    sum += length * PRIME64_1;
    sum ^= sum >> 37;
    sum *= PRIME_AVALANCHE;
    return sum ^ sum >> 32;
}

static __global__ void hash_chunks(uint64_t *hash, const uint64_t *data, uint64_t bytes,
                                   uint64_t chunk_bytes, uint64_t first_seed, uint64_t count,
                                   struct secret secret)
{
    __shared__ uint64_t base[SECRET_WORDS];
    if (threadIdx.x < SECRET_WORDS)
        base[threadIdx.x] = secret.word[threadIdx.x];
    __syncthreads();
    uint64_t chunk = ((uint64_t)blockIdx.x * THREADS + threadIdx.x) / LANES;
    int lane = threadIdx.x % LANES;
    unsigned team = 0xffu << (threadIdx.x % 32 / LANES * LANES);
    if (chunk >= count)
        return; /* whole teams leave together */
    uint64_t length = min(chunk_bytes, bytes - chunk * chunk_bytes), seed = first_seed + chunk;
    const uint64_t *in = data + chunk * chunk_bytes / 8;
    uint64_t key[BLOCK_STRIPES], acc = first_accumulator(lane);
    for (int s = 0; s < BLOCK_STRIPES; s++)
        key[s] = key_word(base, s + lane, seed);
    uint64_t scramble = key_word(base, SCRAMBLE_WORD + lane, seed);
    uint64_t blocks = (length - 1) / (STRIPE * BLOCK_STRIPES);
    for (uint64_t b = 0; b < blocks; b++, in += LANES * BLOCK_STRIPES) {
        uint64_t word[BLOCK_STRIPES];
#pragma unroll
        for (int s = 0; s < BLOCK_STRIPES; s++)
            word[s] = in[LANES * s + lane];
#pragma unroll
        for (int s = 0; s < BLOCK_STRIPES; s++)
            acc = accumulate(acc, word[s], key[s], team);
        acc = (acc ^ acc >> 47 ^ scramble) * PRIME32_1;
    }
    uint64_t stripes = (length - 1 - blocks * STRIPE * BLOCK_STRIPES) / STRIPE;
#pragma unroll
    for (int s = 0; s < BLOCK_STRIPES; s++) /* unrolled, so that keys stay in registers */
        if (s < stripes)
            acc = accumulate(acc, in[LANES * s + lane], key[s], team);
    /* The last 64 bytes, wherever they start; a length that is no multiple of 8 reads bytewise. */
    const unsigned char *end = (const unsigned char *)(data + chunk * chunk_bytes / 8) + length;
    uint64_t last = 0;
    for (int i = 7; i >= 0; i--)
        last = last << 8 | end[8 * lane - STRIPE + i];
    acc = accumulate(acc, last, key_at(base, LAST_BYTE + 8 * lane, seed), team);
    uint64_t result = merge(acc, base, lane, length, seed, team);
    if (lane == 0)
        hash[chunk] = result;
}

extern "C" int sk_xxh3_chunks(uint64_t *hash, const void *data, uint64_t bytes,
                              uint64_t chunk_bytes, uint64_t first_seed, struct sf_err *err)
{
    struct secret secret;
    if (bytes == 0)
        return SF_OK;
    uint64_t count = chunk_bytes ? (bytes - 1) / chunk_bytes + 1 : 0;
    uint64_t tail = count ? bytes - (count - 1) * chunk_bytes : 0;
    if (chunk_bytes % 8 != 0 || chunk_bytes < SK_XXH3_SHORTEST || tail < SK_XXH3_SHORTEST)
        return sf_fail(err, SF_EINVAL,
                       "chunks of %llu bytes, the last of %llu, cannot be hashed here",
                       (unsigned long long)chunk_bytes, (unsigned long long)tail);
    sf_hash64_secret(secret.word);
    uint64_t blocks = (count * LANES - 1) / THREADS + 1;
    hash_chunks<<<(unsigned)blocks, THREADS>>>(hash, (const uint64_t *)data, bytes, chunk_bytes,
                                               first_seed, count, secret);
    SK_CUDA(cudaGetLastError(), err);
    return SF_OK;
}
