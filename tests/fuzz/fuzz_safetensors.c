/* Any bytes as a .safetensors file: refused with a sentence, or every tensor's bytes can be read.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libformat/hf/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned char sink;

static void read_everything(const struct sf_safetensors *file)
{
    for (int64_t i = 0; i < sf_safetensors_count(file); i++) {
        const struct sf_named_tensor *t = sf_safetensors_at(file, i);
        const unsigned char *bytes = t->tensor.data;
        uint64_t want;
        if (!sf_shape_bytes(&want, &t->tensor.shape, t->tensor.dtype) || want != t->tensor.bytes)
            abort();
        for (uint64_t k = 0; k < t->tensor.bytes; k++)
            sink ^= bytes[k];
        if (sf_safetensors_find(file, t->name) != &t->tensor)
            abort();
    }
}

/* Its head alone, the file gone; and the names alone: the same tensors. */
static void remember(struct sf_safetensors *file, const char *path)
{
    struct sf_err err = {0};
    struct sf_safetensors *again;
    uint64_t bytes;
    const void *head = sf_safetensors_head(&bytes, file);
    if (sf_safetensors_open_remembered(&again, path, head, bytes, sf_safetensors_bytes(file),
                                       &err) != SF_OK ||
        sf_safetensors_count(again) != sf_safetensors_count(file) || sf_safetensors_is_there(again))
        abort();
    sf_safetensors_close(again);
    if (sf_safetensors_count(file) > 0) {
        const struct sf_named_tensor *first = sf_safetensors_at(file, 0);
        const char *name = first->name;
        if (sf_safetensors_open_expected(&again, sf_safetensors_path(file), &name, 1, &err) !=
                SF_OK ||
            !sf_safetensors_find(again, name))
            abort();
        sf_safetensors_close(again);
        sf_safetensors_prefetch(file, &first->tensor);
    }
    if (sf_safetensors_forget(file, &err) != SF_OK || sf_safetensors_forget(file, &err) != SF_OK)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sf_err err = {0};
    struct sf_safetensors *file;
    char path[64];
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (sf_safetensors_open(&file, path, &err) == SF_OK) {
        read_everything(file);
        remember(file, path);
        sf_safetensors_close(file);
    } else if (!err.message[0]) {
        abort();
    }
    close(fd);
    return 0;
}
