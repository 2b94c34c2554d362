/* cuda_mma.cuh -- the tensor core's instructions that sm_80 and later share: asynchronous copies to
 * shared memory, 8 x 8 matrices from there, 16 x 8 x 16 products of bfloat16 added up in float32.
 * Private to the CUDA fillings.
 *
 * Who holds what of a fragment (g = lane / 4, t = lane % 4):
 *     a[16 x 16]: a0 (g, 2t), a1 (g + 8, 2t), a2 (g, 2t + 8), a3 (g + 8, 2t + 8), 2 columns each
 *     b[16 x 8]:  b0 (2t, g), b1 (2t + 8, g), 2 rows each
 *     c[16 x 8]:  c0 (g, 2t), c1 (g, 2t + 1), c2 (g + 8, 2t), c3 (g + 8, 2t + 1)
 * so two neighbouring c are, rounded, one a. */
#ifndef SCOUT_KERNELS_CUDA_MMA_CUH
#define SCOUT_KERNELS_CUDA_MMA_CUH

#include <cuda_bf16.h>
#include <stdint.h>

static __device__ __forceinline__ uint32_t sk_shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* 16 bytes, or 16 zeros and nothing read where `valid` is false. */
static __device__ __forceinline__ void sk_copy16(void *shared, const void *global, bool valid)
{
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(sk_shared_address(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
}

static __device__ __forceinline__ void sk_copy4(void *shared, const void *global, bool valid)
{
    int bytes = valid ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(sk_shared_address(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
}

/* Ends a group of copies; sk_copy_wait<N> waits until all of this thread's groups but the last N are
 * there. What other threads copied is there behind a barrier. */
static __device__ __forceinline__ void sk_copy_commit(void)
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

template <int N> static __device__ __forceinline__ void sk_copy_wait(void)
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

/* Four 8 x 8 matrices: lane l gives the address of row l % 8 of matrix l / 8. */
static __device__ __forceinline__ void sk_load_matrices(uint32_t r[4], const void *shared)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(sk_shared_address(shared))
                 : "memory");
}

static __device__ __forceinline__ void sk_load_matrices_turned(uint32_t r[4], const void *shared)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(sk_shared_address(shared))
                 : "memory");
}

/* c += a b */
static __device__ __forceinline__ void sk_mma(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* 2^x: within two units in the last place; 2^-inf is 0. */
static __device__ __forceinline__ float sk_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

#endif
