/* libFuzzer's mutator for safetensors: it changes the header's text, then makes right what every
 * change breaks, so that what is tried lies behind the first checks: the length in front, in half of
 * the cases the ranges (each begins where the one before ends and is as long as it was), and the
 * bytes of data, which are zeros as many as the last range needs. One of eight stays as broken as
 * libFuzzer made it. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

enum { LENGTH_BYTES = 8, TEXT_MOST = 1 << 16, DATA_MOST = 4096 };

struct text {
    char at[TEXT_MOST + 1];
    size_t bytes;
};

static void add(struct text *out, const char *from, size_t bytes)
{
    size_t room = TEXT_MOST - out->bytes;
    bytes = bytes < room ? bytes : room;
    memcpy(out->at + out->bytes, from, bytes);
    out->bytes += bytes;
    out->at[out->bytes] = 0;
}

/* `from` with its ranges made to follow each other where `right`; *end: the end of the last. */
static void put_ranges(struct text *out, const char *from, bool right, unsigned long long *end)
{
    static const char key[] = "\"data_offsets\":[";
    const char *next;
    while ((next = strstr(from, key))) {
        unsigned long long begin, stop;
        int used = 0;
        char pair[64];
        next += sizeof key - 1;
        add(out, from, (size_t)(next - from));
        from = next;
        if (sscanf(from, "%llu,%llu%n", &begin, &stop, &used) != 2 || used == 0)
            continue;
        if (right && stop >= begin && stop - begin <= DATA_MOST && *end <= DATA_MOST) {
            int n = snprintf(pair, sizeof pair, "%llu,%llu", *end, *end + (stop - begin));
            *end += stop - begin;
            add(out, pair, (size_t)n);
        } else {
            *end = stop;
            add(out, from, (size_t)used);
        }
        from += used;
    }
    add(out, from, strlen(from));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    static struct text header, right;
    if (seed % 8 == 0 || most < 2 * LENGTH_BYTES)
        return LLVMFuzzerMutate(data, size, most);
    uint64_t length = size >= LENGTH_BYTES ? sf_get_u64(data) : 0;
    if (size < LENGTH_BYTES || length > size - LENGTH_BYTES)
        length = size < LENGTH_BYTES ? 0 : size - LENGTH_BYTES;
    header.bytes = length < TEXT_MOST / 2 ? (size_t)length : TEXT_MOST / 2;
    if (header.bytes)
        memcpy(header.at, data + LENGTH_BYTES, header.bytes);
    header.bytes = LLVMFuzzerMutate((uint8_t *)header.at, header.bytes, TEXT_MOST / 2);
    header.at[header.bytes] = 0;
    right.bytes = 0;
    unsigned long long end = 0;
    put_ranges(&right, header.at, seed % 2, &end);
    size_t room = most - LENGTH_BYTES;
    size_t text = right.bytes < room ? right.bytes : room;
    size_t zeros = end < room - text ? (size_t)end : room - text;
    sf_put_u64(data, text);
    memcpy(data + LENGTH_BYTES, right.at, text);
    memset(data + LENGTH_BYTES + text, 0, zeros);
    return LENGTH_BYTES + text + zeros;
}
