/* Bytes up to the first NUL as adapter_config.json, the rest as the header of
 * adapter_model.safetensors with the length in front and zeros behind, as many as the header's
 * greatest number below 4097 (where the last tensor ends): refused with a sentence, or
 * every number of every module can be read. */
#include <string.h>

#include "libformat/adapter/adapter_file.h"
#include "libformat/base/bytes.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_DATA = 4096 };

static struct sf_layer_spec layer[2] = {{.rope = true}, {.moe = true}};
static const struct sf_model_spec spec = {.layers = 2,
                                          .hidden = 8,
                                          .heads = 2,
                                          .kv_heads = 1,
                                          .head_size = 4,
                                          .vocabulary = 16,
                                          .dense_width = 8,
                                          .expert_width = 6,
                                          .experts = 2,
                                          .layer = layer};

static volatile float sink;

static size_t data_bytes(const uint8_t *header, size_t size)
{
    size_t most = 0, number = 0;
    for (size_t i = 0; i < size; i++) {
        bool digit = header[i] >= '0' && header[i] <= '9';
        number = digit && number <= MOST_DATA ? 10 * number + (header[i] - '0') : 0;
        most = number > most && number <= MOST_DATA ? number : most;
    }
    return most;
}

static void write_tensors(const uint8_t *header, size_t size)
{
    size_t bytes = 8 + size + data_bytes(header, size);
    unsigned char *file = calloc(1, bytes);
    if (!file)
        abort();
    sf_put_u64(file, size);
    if (size)
        memcpy(file + 8, header, size);
    fuzz_write("adapter_model.safetensors", file, bytes);
    free(file);
}

static void touch(const struct sf_adapter *adapter)
{
    for (int64_t i = 0; i < adapter->modules; i++) {
        const struct sf_adapter_module *m = &adapter->module[i];
        for (int64_t j = 0; j < m->groups * m->rank * m->in; j++)
            sink += m->a[j];
        for (int64_t j = 0; j < m->groups * m->rank * m->out; j++)
            sink += m->b[j];
    }
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
    for (int guess = 0; guess < 2; guess++) { /* with a model, and with the sizes in the tensors */
        err = (struct sf_err){0};
        if (sf_adapter_read(&adapter, &arena, fuzz_folder(), guess ? NULL : &spec, &err) == SF_OK)
            touch(&adapter);
        else if (!err.message[0])
            abort();
    }
    sf_arena_free(&arena);
    return 0;
}
