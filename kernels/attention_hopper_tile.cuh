/* attention_hopper_tile.cuh -- attention's tiles for wgmma: panels of 64 columns, 64 rows each.
 * Else as attention_cuda_tile.cuh. */
#ifndef SCOUT_KERNELS_ATTENTION_HOPPER_TILE_CUH
#define SCOUT_KERNELS_ATTENTION_HOPPER_TILE_CUH

#include "kernels/attention_cuda_tile.cuh"
#include "kernels/cuda_wgmma.cuh"

/* The code is there only where it is compiled for sm_90a; SCOUT_SM90A tells the host so. */
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(SCOUT_EMULATED)
#define SK_HOPPER_CODE 1
#else
#define SK_HOPPER_CODE 0
#endif

enum { SK_PANEL = 64, SK_PANEL_BYTES = SK_TILE_KEYS * SK_PANEL * 2 };

/* Starts the copy of 64 rows by THREADS threads. */
template <int D, int THREADS>
static __device__ __forceinline__ void sk_panel_load(bf16 *tile, const sk_tile_source &s, int first,
                                                     int thread)
{
    constexpr int PIECES = D / SK_VECTOR, STEP = THREADS / PIECES;
    int row = thread / PIECES, piece = thread % PIECES;
    const bf16 *from = s.head + (int64_t)(first + row) * s.stride + piece * SK_VECTOR;
    bool inside = piece * SK_VECTOR < s.head_size;
    bf16 *panel = tile + piece / 8 * (SK_TILE_KEYS * SK_PANEL);
#pragma unroll
    for (int i = 0; i < SK_TILE_KEYS / STEP; i++) {
        bool valid = inside && first + row + i * STEP < s.rows;
        sk_copy16(sk_tile_at<SK_PANEL>(panel, row + i * STEP, piece % 8),
                  valid ? from + (int64_t)i * STEP * s.stride : s.head, valid);
    }
}

/* Starts sum[64 x 64] = (a tile)(b tile)^T. */
template <int D>
static __device__ __forceinline__ void sk_panel_scores(float sum[SK_TILE_KEYS / 8][4],
                                                       const bf16 *a_tile, const bf16 *b_tile)
{
    uint64_t a = sk_wgmma_tile(a_tile, SK_PANEL_BYTES), b = sk_wgmma_tile(b_tile, SK_PANEL_BYTES);
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t at = k / 4 * SK_PANEL_BYTES + k % 4 * 32;
        sk_wgmma_rows(sum, sk_wgmma_at(a, at), sk_wgmma_at(b, at), k > 0);
    }
    sk_wgmma_commit();
}

/* Starts sum[64 x D] += p[64 x 64] (b tile). */
template <int D>
static __device__ __forceinline__ void sk_panel_accumulate(float (&sum)[D / 8][4],
                                                           const uint32_t p[SK_TILE_KEYS / 16][4],
                                                           const bf16 *b_tile)
{
    uint64_t b = sk_wgmma_tile(b_tile, SK_PANEL_BYTES);
#pragma unroll
    for (int k = 0; k < SK_TILE_KEYS / 16; k++)
        sk_wgmma_columns(sum, p[k], sk_wgmma_at(b, k * 16 * SK_PANEL * 2));
    sk_wgmma_commit();
}

static __device__ __forceinline__ void sk_panel_round(uint32_t a[SK_TILE_KEYS / 16][4],
                                                      const float p[SK_TILE_KEYS / 8][4])
{
#pragma unroll
    for (int k = 0; k < SK_TILE_KEYS / 16; k++)
        sk_tile_round(a[k], p[2 * k], p[2 * k + 1]);
}

#endif
