/* Any bytes as a conversion's journal: what is whole is read, the rest is cut off, and what was
 * read then is read again next time. */
#include "libformat/convert/journal.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned char sink;

static int64_t read_all(void)
{
    struct sf_err err = {0};
    struct sf_journal *journal;
    if (sf_journal_open(&journal, fuzz_path("m.scout"), &err) != SF_OK)
        abort();
    int64_t count = sf_journal_count(journal);
    for (int64_t i = 0; i < count; i++) {
        const struct sf_journal_record *r = sf_journal_at(journal, i);
        for (uint64_t k = 0; k < r->bytes; k++)
            sink ^= r->data[k];
    }
    int64_t shards;
    const struct sf_hf_memory *memory = sf_journal_shards(&shards, journal);
    for (int64_t i = 0; i < shards; i++)
        for (uint64_t k = 0; k < memory[i].head_bytes; k++)
            sink ^= ((const unsigned char *)memory[i].head)[k];
    sf_journal_close(journal);
    return count;
}

/* A shard as a conversion meets it, with the input's first bytes as its tensor. */
static struct sf_hf_index *open_shard(const uint8_t *data, size_t size)
{
    unsigned char numbers[8] = {0};
    struct sf_err err = {0};
    struct sf_hf_index *index;
    for (size_t i = 0; i < size && i < sizeof numbers; i++)
        numbers[i] = data[i];
    struct sf_named_tensor t = {"t", {SF_F32, {1, {2}}, numbers, sizeof numbers}};
    if (sf_safetensors_write(fuzz_path("model.safetensors"), &t, 1, &err) != SF_OK ||
        sf_hf_index_open(&index, fuzz_folder(), &err) != SF_OK)
        abort();
    return index;
}

/* A shard is remembered as it was; a journal that is cleared holds nothing. */
static void add_shard(const uint8_t *data, size_t size)
{
    struct sf_err err = {0};
    struct sf_journal *journal;
    struct sf_hf_index *index = open_shard(data, size);
    const struct sf_hf_shard *shard = sf_hf_index_shard(index, 0);
    int64_t shards;
    if (sf_journal_open(&journal, fuzz_path("m.scout"), &err) != SF_OK ||
        sf_journal_add_shard(journal, 3, shard, &err) != SF_OK ||
        sf_journal_add_shard(journal, 3, shard, &err) != SF_OK ||
        sf_journal_sync(journal, &err) != SF_OK || sf_journal_reload(journal, &err) != SF_OK)
        abort();
    const struct sf_hf_memory *memory = sf_journal_shards(&shards, journal);
    if (shards < 1 || memory[shards - 1].file_bytes != shard->bytes ||
        memory[shards - 1].modified_ns != shard->modified_ns)
        abort();
    if (sf_journal_clear(journal, &err) != SF_OK || sf_journal_reload(journal, &err) != SF_OK ||
        sf_journal_count(journal) != 0)
        abort();
    sf_journal_close(journal);
    sf_hf_index_close(index);
    unlink(fuzz_path("model.safetensors"));
}

/* One more record behind what is there; how many there are then. */
static int64_t add(const uint8_t *data, size_t size)
{
    struct sf_err err = {0};
    struct sf_journal *journal;
    if (sf_journal_open(&journal, fuzz_path("m.scout"), &err) != SF_OK ||
        sf_journal_add(journal, SF_JOURNAL_PIECE, 7, data, size, &err) != SF_OK ||
        sf_journal_sync(journal, &err) != SF_OK || sf_journal_reload(journal, &err) != SF_OK ||
        !sf_journal_find(journal, SF_JOURNAL_PIECE))
        abort();
    int64_t count = sf_journal_count(journal);
    for (int64_t i = 0; i < count; i++)
        sf_journal_shard_modified_ns(sf_journal_at(journal, i));
    sf_journal_close(journal);
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_write("m.scout.journal", data, size);
    int64_t count = read_all();
    if (read_all() != count)
        abort();
    if (add(data, size) != count + 1 || read_all() != count + 1)
        abort();
    add_shard(data, size);
    unlink(fuzz_path("m.scout.journal"));
    return 0;
}
