/* Any bytes as model.safetensors.index.json beside two small shards: refused with a sentence, or
 * every tensor that it names can be found. Shard names cannot lead out of the folder. */
#include <string.h>

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int ready;
    struct sf_err err = {0};
    struct sf_hf_index *index;
    if (!ready++)
        write_shards();
    fuzz_write("model.safetensors.index.json", data, size);
    if (sf_hf_index_open(&index, fuzz_folder(), &err) != SF_OK) {
        if (!err.message[0])
            abort();
        return 0;
    }
    for (int64_t i = 0; i < sf_hf_index_shard_count(index); i++)
        if (strchr(sf_hf_index_shard(index, i)->name, '/'))
            abort();
    sf_hf_index_close(index);
    return 0;
}
