/* Any bytes as model.safetensors.index.json beside two small shards, with a third that is gone but
 * remembered, and once more with all that is missing expected: refused with a sentence, or every tensor
 * that it names can be found. Shard names cannot lead out of the folder. */
#include <string.h>

#include "libformat/hf/arrival.h"
#include "libformat/hf/hf_index.h"
#include "libformat/hf/safetensors.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_shards(void)
{
    static const float numbers[4] = {1, 2, 3, 4};
    struct sf_err err = {0};
    struct sf_named_tensor a = {"a", {SF_F32, {1, {4}}, numbers, 16}};
    struct sf_named_tensor b = {"b", {SF_F32, {1, {4}}, numbers, 16}};
    if (sf_safetensors_write(fuzz_path("one.safetensors"), &a, 1, &err) != SF_OK ||
        sf_safetensors_write(fuzz_path("two.safetensors"), &b, 1, &err) != SF_OK)
        abort();
}

/* What is remembered of gone.safetensors: the head that the file at `path` has. */
static struct sf_hf_memory remember(const char *path)
{
    struct sf_err err = {0};
    static struct sf_safetensors *file; /* stays open: its head is borrowed */
    struct sf_hf_memory m = {.name = "gone.safetensors", .modified_ns = 1};
    if (sf_safetensors_open(&file, path, &err) != SF_OK)
        abort();
    m.head = sf_safetensors_head(&m.head_bytes, file);
    m.file_bytes = sf_safetensors_bytes(file);
    return m;
}

/* Every other name tells nothing of its tensor. */
static int guess(void *context, struct sf_tensor *tensor, const char *name, struct sf_err *err)
{
    (void)context, (void)err;
    uint64_t length = (uint64_t)strlen(name) << ((unsigned char)name[0] % 64);
    if (name[0] % 2)
        tensor->dtype = SF_F32;
    tensor->shape = (struct sf_shape){1, {(int64_t)(length & INT64_MAX)}};
    return SF_OK;
}

static void read_tensors(const struct sf_hf_index *index)
{
    for (int64_t i = 0; i < sf_hf_index_count(index); i++) {
        int64_t shard;
        const struct sf_named_tensor *t = sf_hf_index_at(index, i, &shard);
        const struct sf_tensor *found = sf_hf_index_find(index, t->name);
        if (found != &t->tensor || sf_hf_index_shard_of(found) != shard)
            abort();
    }
    if (sf_hf_index_find(index, "no such tensor"))
        abort();
}

static void open_index(const struct sf_hf_open *options)
{
    struct sf_err err = {0};
    struct sf_hf_index *index;
    if (sf_hf_index_open_with(&index, fuzz_folder(), options, &err) != SF_OK) {
        if (!err.message[0])
            abort();
        return;
    }
    for (int64_t i = 0; i < sf_hf_index_shard_count(index); i++)
        if (strchr(sf_hf_index_shard(index, i)->name, '/'))
            abort();
    read_tensors(index);
    if (options->expect && sf_hf_index_suppose(index, guess, NULL, &err) == SF_OK)
        read_tensors(index);
    if (sf_hf_index_shard_count(index) && !sf_hf_index_shard(index, 0)->expected &&
        sf_hf_index_forget(index, 0, &err) != SF_OK)
        abort();
    read_tensors(index);
    sf_hf_index_close(index);
}

/* Without an index.json: nothing, then one file. */
static void try_single(void)
{
    struct sf_err err = {0};
    struct sf_hf_index *index;
    unlink(fuzz_path("model.safetensors.index.json"));
    if (sf_hf_index_open(&index, fuzz_folder(), &err) != SF_ENOENT ||
        sf_hf_index_open(&index, fuzz_path("one.safetensors"), &err) != SF_EINVAL ||
        sf_hf_index_open(&index, fuzz_path("none"), &err) != SF_ENOENT)
        abort();
    if (link(fuzz_path("one.safetensors"), fuzz_path("model.safetensors")) != 0 ||
        sf_hf_index_open(&index, fuzz_folder(), &err) != SF_OK)
        abort();
    sf_hf_index_close(index);
    unlink(fuzz_path("model.safetensors"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct sf_hf_memory memory;
    struct sf_arrivals *arrivals;
    struct sf_err err = {0};
    if (!memory.name) {
        write_shards();
        try_single();
        memory = remember(fuzz_path("one.safetensors"));
    }
    fuzz_write("model.safetensors.index.json", data, size);
    open_index(&(struct sf_hf_open){0});
    open_index(&(struct sf_hf_open){.memory = &memory, .memories = 1});
    open_index(&(struct sf_hf_open){.memory = &memory, .memories = 1, .expect = true});
    if (size % 8 == 0) { /* slower: watches the folder */
        if (sf_arrivals_open(&arrivals, fuzz_folder(), &(struct sf_arrivals_options){0}, &err) !=
            SF_OK)
            abort();
        open_index(&(struct sf_hf_open){.arrivals = arrivals});
        open_index(&(struct sf_hf_open){.arrivals = arrivals, .expect = true});
        sf_arrivals_close(arrivals);
    }
    return 0;
}
