/* transfer.h -- activations to host memory and back, beside the stream of ops.
 *
 * begin starts a copy of `bytes` between SK_PLACE_OPS and SK_PLACE_HOST memory once everything before
 * it is done; end makes everything behind it wait for that copy. Between the two neither side may be
 * touched, and the tape keeps both alive. `slot` pairs the two: 0 .. SK_TRANSFER_SLOTS - 1, used again
 * only after its end. On the CPU begin copies and end does nothing. */
#ifndef SCOUT_KERNELS_TRANSFER_H
#define SCOUT_KERNELS_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>

enum { SK_TRANSFER_SLOTS = 4 };

struct sk_transfer_begin {
    void *to;
    const void *from;
    int64_t bytes;
    int32_t slot;
    bool out; /* to the host */
};

struct sk_transfer_end { /* the same transfer */
    void *to;
    const void *from;
    int64_t bytes;
    int32_t slot;
    bool out;
};

#endif
