/* Reading takes work and memory in proportion to what is read: both counted (steps.h and the allocator's
 * door), for n, 2n and 4n of what a file may hold many of. No clock is asked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libformat/adapter/adapter_file.h"
#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "libformat/container/container_map.h"
#include "libformat/container/container_write.h"
#include "libformat/hf/hf_config.h"
#include "libformat/hf/hf_index.h"
#include "libformat/hf/safetensors.h"
#include "libformat/text/tokenizer.h"
#include "tests/bad/steps.h"
#include "tests/format/hf_files.h"
#include "tests/support/support.h"
#include "train/data/dataset.h"
#include "train/metric_row.h"
#include "train/resume_record.h"

static struct sf_err err;

/* ---- text, made ---- */

struct text {
    FILE *to;
    char *data;
    size_t bytes;
};

static void begin(struct text *t)
{
    t->to = open_memstream(&t->data, &t->bytes);
    ck_assert_ptr_nonnull(t->to);
}

static void end(struct text *t)
{
    ck_assert_int_eq(fclose(t->to), 0);
    t->to = NULL;
}

static const char *comma(int i)
{
    return i ? "," : "";
}

/* The file in `folder`, which is made; borrowed as scout_scratch_path's. */
static const char *save(struct text *t, const char *folder, const char *name)
{
    char relative[256];
    if (t->to)
        end(t);
    snprintf(relative, sizeof relative, "%s/%s", folder, name);
    assert_ok(sf_make_directory(scout_scratch_path(folder), &err), err);
    assert_ok(sf_write_file(scout_scratch_path(relative), t->data, t->bytes, &err), err);
    free(t->data);
    return scout_scratch_path(relative);
}

/* A safetensors file: the header's text, `bytes` zeros. */
static void save_tensors(struct text *t, const char *folder, const char *name, uint64_t bytes)
{
    char relative[256];
    end(t);
    snprintf(relative, sizeof relative, "%s/%s", folder, name);
    assert_ok(sf_make_directory(scout_scratch_path(folder), &err), err);
    hf_write_safetensors(relative, t->data, -1, bytes);
    free(t->data);
}

/* ---- what is measured ---- */

struct cost {
    uint64_t steps, bytes;
};
static struct cost begun;

static void from_here(void)
{
    begun = (struct cost){steps_so_far(), sf_alloc_bytes()};
}

static struct cost to_here(void)
{
    return (struct cost){steps_so_far() - begun.steps, sf_alloc_bytes() - begun.bytes};
}

/* ---- containers and shards ---- */

static void add_tensors(struct text *t, int n)
{
    for (int i = 0; i < n; i++)
        fprintf(t->to, "%s\"t%08d\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                comma(i), i, 4 * i, 4 * i + 4);
}

static struct cost safetensors(int n)
{
    struct text t;
    struct sf_safetensors *file;
    begin(&t);
    fprintf(t.to, "{");
    add_tensors(&t, n);
    fprintf(t.to, "}");
    save_tensors(&t, "shard", "model.safetensors", 4 * (uint64_t)n);
    from_here();
    assert_ok(sf_safetensors_open(&file, scout_scratch_path("shard/model.safetensors"), &err), err);
    struct cost cost = to_here();
    sf_safetensors_close(file);
    return cost;
}

/* n tensors in `shards` files, and an index of all. */
static struct cost index_of(const char *folder, int n, int shards)
{
    struct text index;
    struct sf_hf_index *opened;
    char name[64];
    begin(&index);
    fprintf(index.to, "{\"weight_map\":{");
    for (int s = 0; s < shards; s++) {
        struct text t;
        begin(&t);
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", s + 1, shards);
        fprintf(t.to, "{");
        for (int i = s; i < n; i += shards) {
            fprintf(t.to, "%s\"t%08d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                    comma(i - s), i, i / shards, i / shards + 1);
            fprintf(index.to, "%s\"t%08d\":\"%s\"", comma(s + i), i, name);
        }
        fprintf(t.to, "}");
        save_tensors(&t, folder, name, (uint64_t)(n / shards));
    }
    fprintf(index.to, "}}");
    save(&index, folder, "model.safetensors.index.json");
    from_here();
    assert_ok(sf_hf_index_open(&opened, scout_scratch_path(folder), &err), err);
    struct cost cost = to_here();
    sf_hf_index_close(opened);
    return cost;
}

static struct cost index_tensors(int n)
{
    char folder[32];
    snprintf(folder, sizeof folder, "tensors-%d", n);
    return index_of(folder, n, 2);
}

static struct cost index_shards(int n)
{
    char folder[32];
    snprintf(folder, sizeof folder, "shards-%d", n);
    return index_of(folder, n, n);
}

static struct cost container(int n)
{
    static const struct sf_summary summary = {
        .family = "f", .architecture = "a", .model_id = "m", .converter = "c", .options = ""};
    struct sf_arena arena = {0};
    struct sf_layout *layout = sf_layout_begin(&arena);
    struct sf_writer *writer;
    struct sf_map *map;
    char name[32];
    const char *path = scout_scratch_path("many.scout");
    ck_assert_int_ge(sf_layout_extent(layout, SF_EXTENT_UNUSED, -1, -1, &err), 0);
    for (int i = 0; i < n; i++) {
        int64_t index;
        snprintf(name, sizeof name, "t%08d", i);
        struct sf_entry entry = {.name = name,
                                 .source_name = name,
                                 .role = {SF_PART_UNUSED, -1, -1},
                                 .shape = {1, {1}},
                                 .encoding = SF_ENCODING_RAW,
                                 .dtype = SF_U8,
                                 .block_axis = -1};
        assert_ok(sf_layout_tensor(&index, layout, &entry, &err), err);
    }
    assert_ok(sf_layout_finish(layout, &err), err);
    assert_ok(sf_writer_open(&writer, path, layout, &err), err);
    uint64_t bytes = sf_layout_extent_at(layout, 0)->bytes;
    void *zeros = sf_arena_alloc(&arena, bytes);
    assert_ok(sf_writer_put(writer, 0, 0, zeros, bytes, &err), err);
    assert_ok(sf_writer_commit(writer, &summary, &err), err);
    from_here();
    assert_ok(sf_map_open(&map, path, &err), err);
    struct cost cost = to_here();
    sf_map_close(map);
    sf_arena_free(&arena);
    return cost;
}

/* ---- what describes a model ---- */

static void add_list(struct text *t, const char *key, const char *item, int n)
{
    fprintf(t->to, ",\"%s\":[", key);
    for (int i = 0; i < n; i++)
        fprintf(t->to, "%s%s", comma(i), item);
    fprintf(t->to, "]");
}

/* n layers with lists of n, n members that nobody knows. */
static struct cost config(int n)
{
    struct text t;
    struct sf_model_spec spec;
    struct sf_arena arena = {0};
    begin(&t);
    fprintf(t.to,
            "{\"model_type\":\"llama4_text\",\"hidden_size\":8,\"num_attention_heads\":2,"
            "\"num_key_value_heads\":1,\"head_dim\":4,\"vocab_size\":16,\"intermediate_size\":8,"
            "\"intermediate_size_mlp\":8,\"num_local_experts\":2,\"num_experts_per_tok\":1,"
            "\"attention_chunk_size\":8,\"rms_norm_eps\":1e-5,\"rope_theta\":5e5,"
            "\"num_hidden_layers\":%d",
            n);
    add_list(&t, "layer_types", "\"full_attention\"", n);
    add_list(&t, "no_rope_layers", "0", n);
    fprintf(t.to, ",\"moe_layers\":[");
    for (int i = 0; i < n; i++)
        fprintf(t.to, "%s%d", comma(i), i);
    fprintf(t.to, "]");
    for (int i = 0; i < 8 * n; i++)
        fprintf(t.to, ",\"unknown_%d\":%d", i, i);
    fprintf(t.to, "}");
    end(&t);
    from_here();
    assert_ok(sf_hf_config_parse(&spec, &arena, t.data, t.bytes, &err), err);
    struct cost cost = to_here();
    ck_assert_int_eq(spec.layers, n);
    free(t.data);
    sf_arena_free(&arena);
    return cost;
}

static void put_code_point(FILE *to, int c)
{
    if (c < 0x80)
        fprintf(to, c == '"' || c == '\\' ? "\\%c" : "%c", c);
    else
        fprintf(to, "%c%c", 0xc0 | c >> 6, 0x80 | (c & 0x3f));
}

/* GPT-2's alphabet of 256 characters. */
static void add_bytes(struct text *t)
{
    for (int b = 0, other = 256; b < 256; b++) {
        bool itself = (b > 32 && b < 127) || (b > 160 && b != 173);
        fprintf(t->to, "%s\"", comma(b));
        put_code_point(t->to, itself ? b : other++);
        fprintf(t->to, "\":%d", b);
    }
}

/* The i-th pair of characters that need no escape, or only its first or second. */
enum part_of_pair { FIRST, SECOND, BOTH };
static const char *pair(char text[3], int i, enum part_of_pair part)
{
    enum { FROM = '#', COUNT = '[' - '#' };
    char both[3] = {(char)(FROM + i / COUNT), (char)(FROM + i % COUNT), 0};
    memcpy(text, both + (part == SECOND), 3 - (part == SECOND));
    text[part == FIRST ? 1 : 2] = 0;
    return text;
}

/* n tokens, n merges, n added tokens. */
static struct cost tokenizer(int n)
{
    struct text t;
    struct sf_tokenizer *opened;
    char text[3], more[3];
    begin(&t);
    fprintf(t.to, "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                  "\"trim_offsets\":true,\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},"
                  "\"added_tokens\":[");
    for (int i = 0; i < n; i++)
        fprintf(t.to,
                "%s{\"id\":%d,\"content\":\"<|%06d|>\",\"single_word\":false,\"lstrip\":false,"
                "\"rstrip\":false,\"normalized\":false,\"special\":true}",
                comma(i), 256 + n + i, i);
    fprintf(t.to, "],\"model\":{\"type\":\"BPE\",\"vocab\":{");
    add_bytes(&t);
    for (int i = 0; i < n; i++)
        fprintf(t.to, ",\"%s\":%d", pair(text, i, BOTH), 256 + i);
    fprintf(t.to, "},\"merges\":[");
    for (int i = 0; i < n; i++)
        fprintf(t.to, "%s[\"%s\",\"%s\"]", comma(i), pair(text, i, FIRST), pair(more, i, SECOND));
    fprintf(t.to, "]}}");
    end(&t);
    from_here();
    assert_ok(sf_tokenizer_open(&opened, t.data, t.bytes, &err), err);
    struct cost cost = to_here();
    sf_tokenizer_close(opened);
    free(t.data);
    return cost;
}

/* ---- adapters ---- */

static struct cost adapter_of(const char *folder, int layers, int patterns)
{
    struct text t, config;
    struct sf_adapter adapter;
    struct sf_arena arena = {0};
    struct sf_layer_spec *layer = calloc((size_t)layers, sizeof *layer);
    struct sf_model_spec spec = {.layers = layers,
                                 .hidden = 8,
                                 .heads = 2,
                                 .kv_heads = 1,
                                 .head_size = 4,
                                 .vocabulary = 16,
                                 .dense_width = 8,
                                 .expert_width = 6,
                                 .experts = 2,
                                 .layer = layer};
    begin(&t);
    begin(&config);
    fprintf(t.to, "{");
    for (int i = 0, at = 0; i < 2 * layers; i++, at += 32)
        fprintf(t.to,
                "%s\"base_model.model.model.layers.%d.self_attn.q_proj.lora_%c.weight\":"
                "{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%d,%d]}",
                comma(i), i / 2, i % 2 ? 'B' : 'A', i % 2 ? "8,1" : "1,8", at, at + 32);
    fprintf(t.to, "}");
    save_tensors(&t, folder, "adapter_model.safetensors", 64 * (uint64_t)layers);
    fprintf(config.to, "{\"peft_type\":\"LORA\",\"r\":1,\"lora_alpha\":1,\"bias\":\"none\","
                       "\"target_modules\":[\"q_proj\"],\"alpha_pattern\":{");
    for (int i = 0; i < patterns; i++)
        fprintf(config.to, "%s\"layers.%d.self_attn.k_proj\":2", comma(i), i);
    fprintf(config.to, "}}");
    save(&config, folder, "adapter_config.json");
    from_here();
    assert_ok(sf_adapter_read(&adapter, &arena, scout_scratch_path(folder), &spec, &err), err);
    struct cost cost = to_here();
    ck_assert_int_eq(adapter.modules, layers);
    sf_arena_free(&arena);
    free(layer);
    return cost;
}

static struct cost adapter_modules(int n)
{
    return adapter_of("adapter", n, 0);
}

static struct cost adapter_patterns(int n)
{
    return adapter_of("patterns", 4, n);
}

/* ---- runs ---- */

static struct cost resume_record(int n)
{
    struct sf_arena arena = {0};
    struct sft_resume_record out, record = {.state = sft_run_state_new()};
    char name[32], *text;
    uint64_t bytes;
    record.state.first_loss = record.state.last_loss = 1;
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "fact-%d", i);
        sft_facts_add(&record.run, &arena, name, "%d", i);
        sft_facts_add(&record.place, &arena, name, "%d", i);
    }
    assert_ok(sft_resume_record_write(&text, &bytes, &arena, &record, &err), err);
    from_here();
    assert_ok(sft_resume_record_read(&out, &arena, text, bytes, &err), err);
    struct cost cost = to_here();
    ck_assert_int_eq(out.run.count, n);
    sf_arena_free(&arena);
    return cost;
}

static struct cost dataset_of(const char *path, const struct sf_tokenizer *tokenizer)
{
    struct sft_dataset data = {0};
    struct sft_dataset_config c = {
        .file = &path,
        .files = 1,
        .encoder = {.tokenizer = tokenizer,
                    .vocabulary = tokenizer ? sf_tokenizer_vocabulary(tokenizer) : 100,
                    .chat = SF_CHAT_LLAMA4,
                    .end_of_text = -1},
        .max_length = 1 << 20,
        .mode = SFT_TEXT_DOCUMENTS,
        .threads = 1};
    from_here();
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    struct cost cost = to_here();
    ck_assert_int_gt(data.rows, 0);
    sft_dataset_free(&data);
    return cost;
}

static struct cost rows_of_ids(int n)
{
    struct text t;
    begin(&t);
    for (int i = 0; i < n; i++)
        fprintf(t.to, "{\"input_ids\": [1, %d, 3]}\n", i % 100);
    return dataset_of(save(&t, "rows", "rows.jsonl"), NULL);
}

static struct cost ids_of_a_row(int n)
{
    struct text t;
    begin(&t);
    fprintf(t.to, "{\"input_ids\": [1");
    for (int i = 0; i < n; i++)
        fprintf(t.to, ", %d", i % 100);
    fprintf(t.to, "]}\n");
    return dataset_of(save(&t, "rows", "row.jsonl"), NULL);
}

static struct sf_tokenizer *tiny_tokenizer(void)
{
    struct sf_arena arena = {0};
    struct sf_tokenizer *opened;
    char *text;
    uint64_t bytes;
    assert_ok(sf_read_file(&text, &bytes, &arena,
                           scout_source_path("examples/tiny-scout/tokenizer.json"), 1 << 20, &err),
              err);
    assert_ok(sf_tokenizer_open(&opened, text, bytes, &err), err);
    sf_arena_free(&arena);
    return opened;
}

static struct cost messages_of_a_row(int n)
{
    struct text t;
    struct sf_tokenizer *opened = tiny_tokenizer();
    begin(&t);
    fprintf(t.to, "{\"messages\":[");
    for (int i = 0; i < 2 * n; i++)
        fprintf(t.to, "%s{\"role\":\"%s\",\"content\":\"The sea %d.\"}", comma(i),
                i % 2 ? "assistant" : "user", i);
    fprintf(t.to, "]}\n");
    struct cost cost = dataset_of(save(&t, "rows", "chat.jsonl"), opened);
    sf_tokenizer_close(opened);
    return cost;
}

static struct cost rows_of_text(int n)
{
    struct text t;
    struct sf_tokenizer *opened = tiny_tokenizer();
    begin(&t);
    for (int i = 0; i < n; i++)
        fprintf(t.to, "{\"text\": \"Some years ago, never mind how long: %d.\"}\n", i);
    struct cost cost = dataset_of(save(&t, "rows", "text.jsonl"), opened);
    sf_tokenizer_close(opened);
    return cost;
}

/* ---- the measure itself ---- */

/* It sees loops of ours, and comparisons of others'. */
static struct cost every_pair(int n)
{
    volatile int sum = 0;
    from_here();
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            sum += i ^ j;
    struct cost cost = to_here();
    ck_assert_int_ge(sum, 0);
    return cost;
}

static struct cost look_up_each(int n)
{
    struct text t;
    struct sf_json *root;
    char key[16];
    begin(&t);
    fprintf(t.to, "{");
    for (int i = 0; i < n; i++)
        fprintf(t.to, "%s\"k%d\":1", comma(i), i);
    fprintf(t.to, "}");
    end(&t);
    assert_ok(sf_json_parse(&root, t.data, t.bytes, &err), err);
    from_here();
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof key, "k%d", i);
        ck_assert_ptr_nonnull(sf_json_get(root, key));
    }
    struct cost cost = to_here();
    sf_json_free(root);
    free(t.data);
    return cost;
}

START_TEST(the_measure_sees_squares)
{
    ck_assert_uint_gt(every_pair(512).steps, 7 * every_pair(256).steps / 2);
    ck_assert_uint_gt(look_up_each(1024).steps, 3 * look_up_each(512).steps);
}
END_TEST

/* ---- the table ---- */

static const struct {
    const char *what;
    struct cost (*read)(int n);
    int n;
} kinds[] = {{"tensors of a safetensors file", safetensors, 512},
             {"tensors of an index.json", index_tensors, 512},
             {"shards of an index.json", index_shards, 32},
             {"tensors of a container", container, 512},
             {"layers of a config.json", config, 64},
             {"tokens of a tokenizer.json", tokenizer, 512},
             {"modules of an adapter", adapter_modules, 128},
             {"patterns of an adapter", adapter_patterns, 128},
             {"facts of a resume record", resume_record, 256},
             {"rows of input_ids", rows_of_ids, 512},
             {"ids of a row", ids_of_a_row, 2048},
             {"messages of a row", messages_of_a_row, 128},
             {"rows of text", rows_of_text, 256}};

/* A sort's logarithm, and blocks of memory that double, have a quarter; powers of two fill them alike. */
START_TEST(reading_is_linear)
{
    enum { BLOCK = 64 << 10 };
    struct cost cost[3];
    for (int k = 0; k < 3; k++)
        cost[k] = kinds[_i].read(kinds[_i].n << k);
    printf("%-30s %6d %10llu steps, x %.3f, x %.3f; %9llu bytes, x %.3f, x %.3f\n", kinds[_i].what,
           kinds[_i].n, (unsigned long long)cost[0].steps,
           (double)cost[1].steps / (double)cost[0].steps,
           (double)cost[2].steps / (double)cost[1].steps, (unsigned long long)cost[0].bytes,
           (double)cost[1].bytes / (double)cost[0].bytes,
           (double)cost[2].bytes / (double)cost[1].bytes);
    ck_assert_uint_gt(cost[0].steps, (uint64_t)kinds[_i].n);
    for (int k = 0; k < 2; k++) {
        ck_assert_msg(cost[k + 1].steps <= 2 * cost[k].steps + cost[k].steps / 4,
                      "%s: twice as many take %.2f times the steps", kinds[_i].what,
                      (double)cost[k + 1].steps / (double)cost[k].steps);
        ck_assert_msg(cost[k + 1].bytes <= 2 * cost[k].bytes + cost[k].bytes / 4 + BLOCK,
                      "%s: twice as many take %.2f times the memory", kinds[_i].what,
                      (double)cost[k + 1].bytes / (double)cost[k].bytes);
    }
}
END_TEST

static Suite *proportion_suite(void)
{
    Suite *suite = suite_create("proportion");
    TCase *tc = tcase_create("proportion");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, the_measure_sees_squares);
    tcase_add_loop_test(tc, reading_is_linear, 0, sizeof kinds / sizeof kinds[0]);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(proportion_suite)
