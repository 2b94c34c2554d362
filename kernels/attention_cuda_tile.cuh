/* attention_cuda_tile.cuh -- tiles of bfloat16 rows in shared memory, as the attention kernels use them.
 *
 * A tile holds ROWS rows of D elements (64 or 128; a shorter head is filled up with zeros) without
 * gaps. 16-byte pieces lie at (piece XOR row % 8), so that the 8 rows of a matrix load fall into
 * different banks. Warps own 16 or 32 rows. */
#ifndef SCOUT_KERNELS_ATTENTION_CUDA_TILE_CUH
#define SCOUT_KERNELS_ATTENTION_CUDA_TILE_CUH

#include "kernels/attention_cuda.h"
#include "kernels/cuda_mma.cuh"

enum { SK_TILE_THREADS = 128, SK_TILE_KEYS = 64, SK_TILE_WARP_ROWS = 16 };

template <int D> static __device__ __forceinline__ bf16 *sk_tile_at(bf16 *tile, int row, int piece)
{
    return tile + row * D + ((piece ^ (row & 7)) * SK_VECTOR);
}

/* One head's rows row .. row + ROWS - 1 of a [rows, heads, head_size] tensor. */
struct sk_tile_source {
    const bf16 *head; /* of row 0 */
    int64_t stride;   /* elements from row to row */
    int rows, head_size;
};

static __device__ __forceinline__ sk_tile_source sk_tile_of(const bf16 *p, int heads, int head,
                                                            const sk_attention_tensors &t)
{
    return {p + (int64_t)head * t.head_size, (int64_t)heads * t.head_size, t.rows, t.head_size};
}

/* Starts the copy of a tile; rows behind the end and columns behind the head become 0. */
template <int D, int ROWS>
static __device__ __forceinline__ void sk_tile_load(bf16 *tile, const sk_tile_source &s, int first)
{
    constexpr int PIECES = D / SK_VECTOR, STEP = SK_TILE_THREADS / PIECES;
    int row = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
    const bf16 *from = s.head + (int64_t)(first + row) * s.stride + piece * SK_VECTOR;
    bool inside = piece * SK_VECTOR < s.head_size;
#pragma unroll
    for (int i = 0; i < ROWS / STEP; i++) {
        bool valid = inside && first + row + i * STEP < s.rows;
        sk_copy16(sk_tile_at<D>(tile, row + i * STEP, piece),
                  valid ? from + (int64_t)i * STEP * s.stride : s.head, valid);
    }
}

/* Rows row .. row + 15, columns 16 k .. 16 k + 15, as a. */
template <int D>
static __device__ __forceinline__ void sk_tile_a(uint32_t a[4], bf16 *tile, int row, int k)
{
    int lane = threadIdx.x % SK_WARP;
    sk_load_matrices(a, sk_tile_at<D>(tile, row + lane % 16, 2 * k + lane / 16));
}

/* Rows row .. row + 15, columns 16 k .. 16 k + 15, turned: two b of 8 rows each, for a product with
 * the tile's transpose. */
template <int D>
static __device__ __forceinline__ void sk_tile_b(uint32_t b[4], bf16 *tile, int row, int k)
{
    int lane = threadIdx.x % SK_WARP;
    sk_load_matrices(b, sk_tile_at<D>(tile, row + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
}

/* The same piece as it stands: two b of 8 columns each, for a product with the tile itself. */
template <int D>
static __device__ __forceinline__ void sk_tile_b_plain(uint32_t b[4], bf16 *tile, int row, int n)
{
    int lane = threadIdx.x % SK_WARP;
    sk_load_matrices_turned(b, sk_tile_at<D>(tile, row + lane % 16, 2 * n + lane / 16));
}

static __device__ __forceinline__ uint32_t sk_pair(float low, float high)
{
    __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &two, sizeof bits);
    return bits;
}

/* Two neighbouring c, rounded, as a. */
static __device__ __forceinline__ void sk_tile_round(uint32_t a[4], const float left[4],
                                                     const float right[4])
{
    a[0] = sk_pair(left[0], left[1]);
    a[1] = sk_pair(left[2], left[3]);
    a[2] = sk_pair(right[0], right[1]);
    a[3] = sk_pair(right[2], right[3]);
}

/* sum[16 x 64] = (rows of a_tile) (all 64 rows of b_tile)^T */
template <int D>
static __device__ __forceinline__ void sk_tile_scores(float sum[SK_TILE_KEYS / 8][4], bf16 *a_tile,
                                                      int row, bf16 *b_tile)
{
#pragma unroll
    for (int n = 0; n < SK_TILE_KEYS / 8; n++)
        sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[4];
        sk_tile_a<D>(a, a_tile, row, k);
#pragma unroll
        for (int n = 0; n < SK_TILE_KEYS / 16; n++) {
            uint32_t b[4];
            sk_tile_b<D>(b, b_tile, 16 * n, k);
            sk_mma(sum[2 * n], a, b);
            sk_mma(sum[2 * n + 1], a, b + 2);
        }
    }
}

/* sum[16 x D] += bf16(p[16 x 64]) (64 rows of b_tile) */
template <int D>
static __device__ __forceinline__ void
sk_tile_accumulate(float sum[D / 8][4], const float p[SK_TILE_KEYS / 8][4], bf16 *b_tile)
{
#pragma unroll
    for (int k = 0; k < SK_TILE_KEYS / 16; k++) {
        uint32_t a[4];
        sk_tile_round(a, p[2 * k], p[2 * k + 1]);
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            sk_tile_b_plain<D>(b, b_tile, 16 * k, n);
            sk_mma(sum[2 * n], a, b);
            sk_mma(sum[2 * n + 1], a, b + 2);
        }
    }
}

/* Writes factor[i] * sum, rows first + (lane / 4) + 8 i, through the warp's own 16 rows of `tile`,
 * which begin at `row` and no other warp reads. */
template <int D>
static __device__ __forceinline__ void sk_tile_store(bf16 *head, const sk_tile_source &s, int first,
                                                     bf16 *tile, int row, const float sum[D / 8][4],
                                                     const float factor[2])
{
    constexpr int PIECES = D / SK_VECTOR, STEP = SK_WARP / PIECES;
    int lane = threadIdx.x % SK_WARP, g = lane / 4, t = lane % 4;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            reinterpret_cast<uint32_t *>(sk_tile_at<D>(tile, row + g + 8 * i, n))[t] =
                sk_pair(factor[i] * sum[n][2 * i], factor[i] * sum[n][2 * i + 1]);
    __syncwarp();
    int piece = lane % PIECES;
#pragma unroll
    for (int i = lane / PIECES; i < SK_TILE_WARP_ROWS; i += STEP)
        if (first + i < s.rows && piece * SK_VECTOR < s.head_size)
            *reinterpret_cast<uint4 *>(head + (int64_t)(first + i) * s.stride + piece * SK_VECTOR) =
                *reinterpret_cast<const uint4 *>(sk_tile_at<D>(tile, row + i, piece));
}

/* Raises the limit of shared memory that the kernel may use. */
#define SK_TILE_SHARED(kernel, bytes, err)                                                         \
    SK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (bytes)), err)

#endif
