/* Bytes up to the first NUL as adapter_config.json, the rest as the header of
 * adapter_model.safetensors with the length in front and zeros behind: refused with a sentence, or
 * every number of every module can be read. */
#include <string.h>

#include "libformat/adapter/adapter_file.h"
#include "libformat/base/bytes.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DATA_BYTES = 4 * 2 * (8 + 8) };

static struct sf_layer_spec layer = {.rope = true};
static const struct sf_model_spec spec = {.layers = 1,
                                          .hidden = 8,
                                          .heads = 2,
                                          .kv_heads = 1,
                                          .head_size = 4,
                                          .vocabulary = 16,
                                          .dense_width = 8,
                                          .expert_width = 8,
                                          .layer = &layer};

static volatile float sink;

static void write_tensors(const uint8_t *header, size_t size)
{
    unsigned char *file = calloc(1, 8 + size + DATA_BYTES);
    if (!file)
        abort();
    sf_put_u64(file, size);
    if (size)
        memcpy(file + 8, header, size);
    fuzz_write("adapter_model.safetensors", file, 8 + size + DATA_BYTES);
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sf_adapter adapter;
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t config = nul ? (size_t)(nul - data) : size, rest = nul ? config + 1 : size;
    fuzz_write("adapter_config.json", data, config);
    write_tensors(data + rest, size - rest);
    if (sf_adapter_read(&adapter, &arena, fuzz_folder(), &spec, &err) == SF_OK)
        sink += (float)adapter.alpha;
    else if (!err.message[0])
        abort();
    sf_arena_free(&arena);
    return 0;
}
