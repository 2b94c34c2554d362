#include "train/generator.h"

#include <assert.h>
#include <string.h>

#include "kernels/head_loss.h"
#include "libformat/base/mem.h"
#include "train/model.h"
#include "train/tape_run.h"

struct program {
    int64_t rows;
    struct sft_tape tape;
    struct sft_ports ports;
};

enum { NARROW, WIDE, PROGRAMS };

struct sft_generator {
    struct sf_arena arena;
    struct sft_generator_config config;
    struct program program[PROGRAMS];
    struct sft_places places;
    uint64_t step_bytes, host_bytes, cache_bytes;
    int64_t count;
    float *inv_freq;
    int32_t *line; /* [rows]: positions, targets, for a moment */
};

static int open_program(struct sft_generator *g, struct program *p, int64_t rows,
                        struct sf_err *err)
{
    const struct sft_generator_config *c = &g->config;
    struct sft_shape shape = {rows, 1, c->room};
    p->rows = rows;
    sft_tape_begin(&p->tape, &g->arena);
    int code =
        sft_model_emit(&p->tape, &p->ports, c->ops, c->spec, c->lora, shape, SFT_GENERATE, err);
    if (!code)
        code = sft_tape_finish(&p->tape, c->ops, c->ctx->threads, err);
    if (g->step_bytes < p->tape.step_bytes)
        g->step_bytes = p->tape.step_bytes;
    if (g->host_bytes < p->tape.host_bytes)
        g->host_bytes = p->tape.host_bytes;
    g->cache_bytes = sft_model_cache_bytes(c->ops, c->spec, shape);
    return code;
}

static int open_programs(struct sft_generator *g, struct sf_err *err)
{
    struct sft_generator_config *c = &g->config;
    if (c->room < 1 || c->rows < 1)
        return sf_fail(err, SF_EINVAL, "room for %lld tokens, %lld at once: both start at 1",
                       (long long)c->room, (long long)c->rows);
    if (c->rows > c->room)
        c->rows = c->room;
    g->inv_freq =
        sf_arena_array(&g->arena, (uint64_t)c->spec->head_size / 2 + 1, sizeof *g->inv_freq);
    g->line = sf_arena_array(&g->arena, (uint64_t)c->rows, sizeof *g->line);
    if (!g->inv_freq || !g->line)
        return sf_fail(err, SF_ENOMEM, "no memory for a text of %lld tokens", (long long)c->room);
    sf_rope_frequencies(g->inv_freq, &c->spec->rope, c->spec->head_size);
    int code = open_program(g, &g->program[NARROW], 1, err);
    return code ? code : open_program(g, &g->program[WIDE], c->rows, err);
}

int sft_generator_open(struct sft_generator **out, const struct sft_generator_config *config,
                       struct sf_err *err)
{
    void *memory;
    *out = NULL;
    int code = sf_alloc_for(&memory, sizeof(struct sft_generator), "a generator", err);
    if (code)
        return code;
    struct sft_generator *g = memory;
    g->config = *config;
    code = open_programs(g, err);
    if (code)
        sft_generator_close(g);
    else
        *out = g;
    return code;
}

void sft_generator_close(struct sft_generator *generator)
{
    if (!generator)
        return;
    const struct sft_generator_config *c = &generator->config;
    const struct sft_places *p = &generator->places;
    c->ops->memory->release(c->ctx, SK_PLACE_OPS, p->step);
    c->ops->memory->release(c->ctx, SK_PLACE_OPS, p->cache);
    c->ops->memory->release(c->ctx, SK_PLACE_HOST, p->host);
    sf_arena_free(&generator->arena);
    sf_free(generator);
}

uint64_t sft_generator_bytes(const struct sft_generator *generator)
{
    return generator->cache_bytes > UINT64_MAX - generator->step_bytes
               ? UINT64_MAX
               : generator->cache_bytes + generator->step_bytes;
}

uint64_t sft_generator_cache_bytes(const struct sft_generator *generator)
{
    return generator->cache_bytes;
}

int sft_generator_allocate(struct sft_generator *generator, const struct sft_image *image,
                           struct sf_err *err)
{
    const struct sft_generator_config *c = &generator->config;
    const struct sk_memory *memory = c->ops->memory;
    struct sft_places *p = &generator->places;
    p->image = image;
    int code = memory->allocate(&p->step, c->ctx, SK_PLACE_OPS, generator->step_bytes,
                                "the step block", err);
    if (!code)
        code = memory->allocate(&p->cache, c->ctx, SK_PLACE_OPS, generator->cache_bytes,
                                "the cache of keys and values", err);
    return code ? code
                : memory->allocate(&p->host, c->ctx, SK_PLACE_HOST, generator->host_bytes,
                                   "the host block", err);
}

/* ---- running ---- */

static int fill(const struct sft_generator *g, const struct program *p, int32_t port,
                const void *data, uint64_t bytes, struct sf_err *err)
{
    const struct sft_buffer *b = &p->tape.buffer[port];
    if (b->birth < 0)
        return SF_OK; /* a port that this tape does not touch */
    void *to = sft_place_of(&g->places, &p->tape, sft_at(port, 0));
    if (b->class == SFT_HOST) {
        memcpy(to, data, bytes);
        return SF_OK;
    }
    return g->config.ops->memory->write(g->config.ctx, to, data, bytes, err);
}

/* Nothing is a target. */
static int fill_targets(struct sft_generator *g, const struct program *p, struct sf_err *err)
{
    uint64_t bytes = (uint64_t)p->rows * sizeof *g->line;
    float scale = 1;
    for (int64_t i = 0; i < p->rows; i++)
        g->line[i] = SK_IGNORE_INDEX;
    int code = fill(g, p, p->ports.targets, g->line, bytes, err);
    if (!code)
        code = fill(g, p, p->ports.host_targets, g->line, bytes, err);
    return code ? code : fill(g, p, p->ports.gradient_scale, &scale, sizeof scale, err);
}

/* The rows behind the last token are filled up with id 0, at the positions that follow: what comes
 * next overwrites what they leave in the cache before anybody sees it. */
static int fill_ports(struct sft_generator *g, const struct program *p, const int32_t *ids,
                      int64_t count, struct sf_err *err)
{
    uint64_t bytes = (uint64_t)p->rows * sizeof *g->line;
    int code = fill_targets(g, p, err);
    if (code)
        return code;
    memset(g->line, 0, bytes);
    memcpy(g->line, ids, (size_t)count * sizeof *ids);
    code = fill(g, p, p->ports.ids, g->line, bytes, err);
    for (int64_t i = 0; i < p->rows; i++)
        g->line[i] = (int32_t)(g->count + i);
    if (!code)
        code = fill(g, p, p->ports.positions, g->line, bytes, err);
    return code ? code
                : fill(g, p, p->ports.inv_freq, g->inv_freq,
                       (uint64_t)g->config.spec->head_size / 2 * sizeof(float), err);
}

static int run_program(struct sft_generator *g, const struct program *p, const int32_t *ids,
                       int64_t count, struct sf_err *err)
{
    const struct sft_generator_config *c = &g->config;
    g->places.adapter = c->lora ? c->lora->block : NULL;
    assert(g->places.step && (!c->lora || c->lora->block));
    int code = fill_ports(g, p, ids, count, err);
    for (int32_t i = 0; !code && i < p->tape.nodes; i++)
        code = sft_node_run(&g->places, &p->tape, &p->tape.node[i], c->ops, c->ctx, err);
    if (!code)
        g->count += count;
    return code;
}

static int check(const struct sft_generator *g, const int32_t *ids, int64_t count,
                 struct sf_err *err)
{
    if (count < 1)
        return sf_fail(err, SF_EINVAL, "no token to go on from");
    if (count > g->config.room - g->count)
        return sf_fail(err, SF_EINVAL, "%lld tokens behind %lld, there is room for %lld",
                       (long long)count, (long long)g->count, (long long)g->config.room);
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= g->config.spec->vocabulary)
            return sf_fail(err, SF_EINVAL, "token %lld is %d, outside the vocabulary of %lld",
                           (long long)i, ids[i], (long long)g->config.spec->vocabulary);
    return SF_OK;
}

int sft_generator_feed(float *logits, struct sft_generator *generator, const int32_t *ids,
                       int64_t count, struct sf_err *err)
{
    const struct sft_generator_config *c = &generator->config;
    uint64_t bytes = (uint64_t)c->spec->vocabulary * sizeof *logits;
    const struct program *p = NULL;
    int64_t last = 0, before = generator->count;
    int code = check(generator, ids, count, err);
    for (int64_t done = 0; !code && done < count; done += last) {
        p = &generator->program[count - done > 1 ? WIDE : NARROW];
        last = count - done < p->rows ? count - done : p->rows;
        code = run_program(generator, p, ids + done, last, err);
    }
    if (!code) {
        assert(p); /* no tokens: check() */
        const unsigned char *all =
            sft_place_of(&generator->places, &p->tape, sft_at(p->ports.logits, 0));
        code = c->ops->memory->read(c->ctx, logits, all + (uint64_t)(last - 1) * bytes, bytes, err);
    }
    if (code)
        generator->count = before;
    return code;
}

int64_t sft_generator_count(const struct sft_generator *generator)
{
    return generator->count;
}

void sft_generator_rewind(struct sft_generator *generator, int64_t count)
{
    assert(count >= 0 && count <= generator->count);
    generator->count = count;
}
