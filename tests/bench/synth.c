#include "tests/bench/synth.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/jobs.h"
#include "libformat/base/json.h"
#include "libformat/codec/frame.h"
#include "libformat/codec/halves.h"

enum { CHUNK_ELEMENTS = 4 << 20, LEVELS = 1 << 15, ONE = 0x3f80, EIGHT_TIMES = 3 << 7 };

/* ---- weights ---- */

static uint64_t mix(uint64_t z) /* splitmix64's output function */
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* bf16 normals by quantile, standard deviation 0.02: 15 random bits pick one. The inverse of the
 * normal distribution by bisection, once a process. */
static const uint16_t *quantiles(void)
{
    static uint16_t table[LEVELS];
    if (table[0])
        return table;
    for (int i = LEVELS - 1; i >= 0; i--) {
        double p = (i + 0.5) / LEVELS, low = -6, high = 6;
        for (int k = 0; k < 40; k++) {
            double middle = (low + high) / 2;
            if (0.5 * erfc(-middle / sqrt(2)) < p)
                low = middle;
            else
                high = middle;
        }
        table[i] = sf_bf16_from_f32((float)(0.02 * low));
    }
    return table;
}

/* Four weights from each 64-bit draw; its spare bits pick outliers. The position decides, not the
 * call, so pieces may start anywhere. */
void synth_fill(uint16_t *weights, const char *name, int64_t first, int64_t count, uint64_t seed)
{
    const uint16_t *normal = quantiles();
    uint64_t key = sf_hash64(name, strlen(name), seed);
    bool norm = strstr(name, "norm") != NULL;
    for (int64_t i = first; i < first + count; i++) {
        uint64_t draw = mix(key + (uint64_t)(i / 4) * 0x9e3779b97f4a7c15u);
        uint16_t w = normal[(draw >> 16 * (i % 4)) & (LEVELS - 1)];
        bool outlier = (draw * 0x9fb21c651e98df25u >> 54) == (uint64_t)(i % 4);
        weights[i - first] = norm ? ONE : outlier ? (uint16_t)(w + EIGHT_TIMES) : w;
    }
}

/* ---- what is where ---- */

struct builder {
    struct sf_arena *arena;
    struct synth_shard *shard;
    const struct synth_geometry *g;
    bool failed;
};

static void add(struct builder *b, const char *name, int64_t d0, int64_t d1, int64_t d2)
{
    struct sf_named_tensor *t = &b->shard->tensor[b->shard->tensors++];
    int rank = d2 ? 3 : d1 ? 2 : 1;
    t->name = name;
    t->tensor = (struct sf_tensor){.dtype = SF_BF16, .shape = {rank, {d0, d1, d2}}};
    b->failed = b->failed || !name || !sf_shape_bytes(&t->tensor.bytes, &t->tensor.shape, SF_BF16);
    b->shard->data_bytes += t->tensor.bytes;
}

static void add_in_layer(struct builder *b, int64_t layer, const char *name, int64_t d0, int64_t d1,
                         int64_t d2)
{
    add(b, sf_arena_printf(b->arena, "language_model.model.layers.%lld.%s", (long long)layer, name),
        d0, d1, d2);
}

static void add_layer(struct builder *b, int64_t l)
{
    const struct synth_geometry *g = b->g;
    int64_t q = g->heads * g->head_size, kv = g->kv_heads * g->head_size;
    add_in_layer(b, l, "input_layernorm.weight", g->hidden, 0, 0);
    add_in_layer(b, l, "self_attn.q_proj.weight", q, g->hidden, 0);
    add_in_layer(b, l, "self_attn.k_proj.weight", kv, g->hidden, 0);
    add_in_layer(b, l, "self_attn.v_proj.weight", kv, g->hidden, 0);
    add_in_layer(b, l, "self_attn.o_proj.weight", g->hidden, q, 0);
    add_in_layer(b, l, "post_attention_layernorm.weight", g->hidden, 0, 0);
    add_in_layer(b, l, "feed_forward.router.weight", g->experts, g->hidden, 0);
    add_in_layer(b, l, "feed_forward.experts.gate_up_proj", g->experts, g->hidden, 2 * g->width);
    add_in_layer(b, l, "feed_forward.experts.down_proj", g->experts, g->width, g->hidden);
    add_in_layer(b, l, "feed_forward.shared_expert.gate_proj.weight", g->width, g->hidden, 0);
    add_in_layer(b, l, "feed_forward.shared_expert.up_proj.weight", g->width, g->hidden, 0);
    add_in_layer(b, l, "feed_forward.shared_expert.down_proj.weight", g->hidden, g->width, 0);
}

static void add_ends(struct builder *b)
{
    const struct synth_geometry *g = b->g;
    add(b, "language_model.model.embed_tokens.weight", g->vocabulary, g->hidden, 0);
    add(b, "language_model.model.norm.weight", g->hidden, 0, 0);
    add(b, "language_model.lm_head.weight", g->vocabulary, g->hidden, 0);
}

struct synth_shard *synth_shards(int64_t *count, struct sf_arena *arena,
                                 const struct synth_geometry *geometry)
{
    enum { MOST = 16 };
    *count = geometry->layers + 1;
    struct synth_shard *shards = sf_arena_array(arena, (uint64_t)*count, sizeof *shards);
    struct builder b = {.arena = arena, .g = geometry, .failed = !shards};
    for (int64_t s = 0; s < *count && !b.failed; s++) {
        b.shard = &shards[s];
        snprintf(b.shard->name, sizeof b.shard->name, "model-%05lld-of-%05lld.safetensors",
                 (long long)s + 1, (long long)*count);
        b.shard->tensor = sf_arena_array(arena, MOST, sizeof *b.shard->tensor);
        if (!b.shard->tensor)
            return NULL;
        if (s < geometry->layers)
            add_layer(&b, s);
        else
            add_ends(&b);
    }
    return b.failed ? NULL : shards;
}

/* ---- files ---- */

int synth_write_config(const char *directory, const struct synth_geometry *g, struct sf_err *err)
{
    struct sf_arena arena = {0};
    const char *path = sf_path_join(&arena, directory, "config.json");
    const char *text = sf_arena_printf(
        &arena,
        "{\n  \"architectures\": [\"Llama4ForConditionalGeneration\"],\n"
        "  \"model_type\": \"llama4\",\n  \"torch_dtype\": \"bfloat16\",\n  \"text_config\": {\n"
        "    \"model_type\": \"llama4_text\",\n    \"num_hidden_layers\": %lld,\n"
        "    \"hidden_size\": %lld,\n    \"num_attention_heads\": %lld,\n"
        "    \"num_key_value_heads\": %lld,\n    \"head_dim\": %lld,\n"
        "    \"intermediate_size\": %lld,\n    \"num_local_experts\": %lld,\n"
        "    \"vocab_size\": %lld,\n    \"rope_theta\": 500000.0,\n"
        "    \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 16.0, "
        "\"low_freq_factor\": 1.0, \"high_freq_factor\": 1.0, "
        "\"original_max_position_embeddings\": 8192}\n  }\n}\n",
        (long long)g->layers, (long long)g->hidden, (long long)g->heads, (long long)g->kv_heads,
        (long long)g->head_size, (long long)g->width, (long long)g->experts,
        (long long)g->vocabulary);
    int code = path && text ? sf_write_file(path, text, strlen(text), err)
                            : sf_fail(err, SF_ENOMEM, "no memory for config.json");
    sf_arena_free(&arena);
    return code;
}

int synth_write_index(const char *directory, const struct synth_shard *shards, int64_t count,
                      struct sf_err *err)
{
    struct sf_arena arena = {0};
    struct sf_json_writer w;
    char *text;
    uint64_t bytes, total = 0;
    const char *path = sf_path_join(&arena, directory, "model.safetensors.index.json");
    for (int64_t s = 0; s < count; s++)
        total += shards[s].data_bytes;
    sf_json_write_begin(&w, &arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_object(&w, "metadata");
    sf_json_write_int(&w, "total_size", (int64_t)total);
    sf_json_write_end(&w, '}');
    sf_json_write_object(&w, "weight_map");
    for (int64_t s = 0; s < count; s++)
        for (int64_t t = 0; t < shards[s].tensors; t++)
            sf_json_write_string(&w, shards[s].tensor[t].name, shards[s].name);
    sf_json_write_end(&w, '}');
    sf_json_write_end(&w, '}');
    int code = sf_json_write_finish(&text, &bytes, &w, err);
    if (code == SF_OK)
        code = path ? sf_write_file(path, text, bytes, err)
                    : sf_fail(err, SF_ENOMEM, "no memory for the index");
    sf_arena_free(&arena);
    return code;
}

/* A run of elements of one tensor and where it goes. */
struct piece {
    const char *tensor;
    int64_t first, count;
    uint64_t offset;
};

struct shard_run {
    struct sf_out *out;
    struct piece *piece;
    uint16_t **buffer; /* one per worker */
    uint64_t seed;
};

static int write_piece(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct shard_run *run = context;
    const struct piece *p = &run->piece[index];
    synth_fill(run->buffer[worker], p->tensor, p->first, p->count, run->seed);
    return sf_out_write_at(run->out, run->buffer[worker], 2 * (uint64_t)p->count, p->offset, err);
}

static struct piece *cut_shard(int64_t *count, struct sf_arena *arena, uint64_t offset,
                               const struct synth_shard *shard)
{
    uint64_t most = shard->data_bytes / 2 / CHUNK_ELEMENTS + (uint64_t)shard->tensors + 1;
    struct piece *piece = sf_arena_array(arena, most, sizeof *piece);
    *count = 0;
    for (int64_t t = 0; piece && t < shard->tensors; t++) {
        int64_t n = (int64_t)(shard->tensor[t].tensor.bytes / 2);
        for (int64_t first = 0; first < n; first += CHUNK_ELEMENTS) {
            int64_t some = n - first < CHUNK_ELEMENTS ? n - first : CHUNK_ELEMENTS;
            piece[(*count)++] = (struct piece){shard->tensor[t].name, first, some, offset};
            offset += 2 * (uint64_t)some;
        }
    }
    return piece;
}

static int fill_shard(struct sf_out *out, struct sf_arena *arena, const struct synth_shard *shard,
                      uint64_t seed, int threads, struct sf_err *err)
{
    char *header;
    uint64_t bytes;
    int64_t pieces;
    struct shard_run run = {.out = out, .seed = seed};
    quantiles(); /* filled before threads read it */
    int code = sf_safetensors_header(&header, &bytes, arena, shard->tensor, shard->tensors, err);
    if (code == SF_OK)
        code = sf_out_append(out, header, bytes, err);
    if (code != SF_OK)
        return code;
    run.piece = cut_shard(&pieces, arena, bytes, shard);
    run.buffer = sf_arena_array(arena, (uint64_t)threads, sizeof *run.buffer);
    bool memory = run.piece && run.buffer;
    for (int i = 0; memory && i < threads; i++)
        memory = (run.buffer[i] = sf_arena_alloc(arena, 2 * CHUNK_ELEMENTS)) != NULL;
    if (!memory)
        return sf_fail(err, SF_ENOMEM, "no memory for %d buffers", threads);
    return sf_jobs_run(write_piece, &run, pieces, threads, err);
}

static int hollow_shard(struct sf_out *out, struct sf_arena *arena, const struct synth_shard *shard,
                        struct sf_err *err)
{
    static const uint16_t last = 0;
    char *header;
    uint64_t bytes;
    int code = sf_safetensors_header(&header, &bytes, arena, shard->tensor, shard->tensors, err);
    if (code == SF_OK)
        code = sf_out_append(out, header, bytes, err);
    if (code == SF_OK)
        code =
            sf_out_write_at(out, &last, sizeof last, bytes + shard->data_bytes - sizeof last, err);
    return code;
}

int synth_write_hollow_shard(const char *directory, const struct synth_shard *shard,
                             struct sf_err *err)
{
    struct sf_arena arena = {0};
    struct sf_out *out = NULL;
    const char *path = sf_path_join(&arena, directory, shard->name);
    int code =
        path ? sf_out_open(&out, path, err) : sf_fail(err, SF_ENOMEM, "no memory for a path");
    if (code == SF_OK)
        code = hollow_shard(out, &arena, shard, err);
    sf_arena_free(&arena);
    if (code == SF_OK)
        return sf_out_commit(out, err);
    sf_out_abort(out);
    return code;
}

int synth_write_shard(const char *directory, const struct synth_shard *shard, uint64_t seed,
                      int threads, struct sf_err *err)
{
    struct sf_arena arena = {0};
    struct sf_out *out = NULL;
    const char *path = sf_path_join(&arena, directory, shard->name);
    int code =
        path ? sf_out_open(&out, path, err) : sf_fail(err, SF_ENOMEM, "no memory for a path");
    if (code == SF_OK)
        code = fill_shard(out, &arena, shard, seed, threads, err);
    sf_arena_free(&arena);
    if (code == SF_OK)
        return sf_out_commit(out, err);
    sf_out_abort(out);
    return code;
}
