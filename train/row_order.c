#include "train/row_order.h"

#include "kernels/philox.h"

void sft_row_order_plain(int64_t *order, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++)
        order[i] = i;
}

/* Uniform in 0..n-1: words below 2^64 mod n would favour small results, and are thrown away. */
static uint64_t below(uint64_t n, uint64_t seed, uint64_t epoch, uint64_t draw)
{
    for (uint64_t attempt = 0;; attempt++) {
        uint32_t word[4];
        sk_philox(word, seed, epoch, draw + (attempt << 48));
        uint64_t wide = (uint64_t)word[0] << 32 | word[1];
        if (wide >= (UINT64_MAX - n + 1) % n)
            return wide % n;
    }
}

void sft_row_order_shuffle(int64_t *order, int64_t rows, uint64_t seed, uint64_t epoch)
{
    sft_row_order_plain(order, rows);
    for (int64_t i = rows - 1; i > 0; i--) {
        int64_t j = (int64_t)below((uint64_t)i + 1, seed, epoch, (uint64_t)i);
        int64_t swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
}
