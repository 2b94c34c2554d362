/* Token by token with a cache: the logits that the whole text gives at once. */
#include "train/generator.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/support.h"
#include "tests/train/tiny.h"
#include "train/probe.h"

enum { LENGTH = 37, ROOM = 40 }; /* chunks are 8 tokens */

struct whole {
    struct sf_arena arena;
    int32_t ids[LENGTH];
    const float *logits; /* [LENGTH, vocabulary] */
    int64_t vocabulary;
};

/* Logits of the text in one piece, by the probe. */
static void read_whole(struct whole *w, struct tiny *t, struct sft_lora *lora)
{
    struct sft_probe probe;
    struct sf_err err = {0};
    struct scout_random random = {.state = 5};
    *w = (struct whole){.vocabulary = t->spec.vocabulary};
    for (int i = 0; i < LENGTH; i++)
        w->ids[i] = (int32_t)(scout_random_u64(&random) % (uint64_t)w->vocabulary);
    struct sft_probe_config config = {
        .spec = &t->spec, .image = t->image, .lora = lora, .ops = sk_ops_cpu(), .ctx = &t->ctx};
    assert_ok(sft_probe_run(&probe, &w->arena, &config, w->ids, w->ids, 1, LENGTH, &err), err);
    for (int64_t i = 0; i < probe.tensors; i++)
        if (strcmp(probe.tensor[i].name, "logits") == 0)
            w->logits = probe.tensor[i].tensor.data;
    ck_assert_ptr_nonnull(w->logits);
}

static struct sft_generator *open_generator(struct tiny *t, const struct sft_lora *lora,
                                            int64_t rows)
{
    struct sft_generator *g;
    struct sf_err err = {0};
    struct sft_generator_config config = {.spec = &t->spec,
                                          .lora = lora,
                                          .ops = sk_ops_cpu(),
                                          .ctx = &t->ctx,
                                          .room = ROOM,
                                          .rows = rows};
    assert_ok(sft_generator_open(&g, &config, &err), err);
    assert_ok(sft_generator_allocate(g, t->image, &err), err);
    return g;
}

/* Feeds tokens first .. end - 1; the logits must be those behind token end - 1. */
static void feed(struct sft_generator *g, struct whole *w, int64_t first, int64_t end)
{
    struct sf_err err = {0};
    char what[64];
    float *logits = sf_arena_array(&w->arena, (uint64_t)w->vocabulary, sizeof *logits);
    ck_assert_int_eq(sft_generator_count(g), first);
    scout_poison(logits, w->vocabulary);
    assert_ok(sft_generator_feed(logits, g, w->ids + first, end - first, &err), err);
    snprintf(what, sizeof what, "logits behind tokens %d to %d", (int)first, (int)end - 1);
    scout_assert_close(what, logits, w->logits + (end - 1) * w->vocabulary, w->vocabulary, 1e-5);
    ck_assert_int_eq(sft_generator_count(g), end);
}

static const int64_t rows_at_once[] = {1, 3, 8, 10, 64};

START_TEST(logits_are_those_of_the_whole_text)
{
    struct tiny t;
    struct whole w;
    tiny_open_all(&t, 2);
    struct sft_lora *lora = _i % 2 ? NULL : &t.lora;
    read_whole(&w, &t, lora);
    struct sft_generator *g = open_generator(&t, lora, rows_at_once[_i]);
    feed(g, &w, 0, 11);
    for (int64_t i = 11; i < 20; i++)
        feed(g, &w, i, i + 1);
    feed(g, &w, 20, LENGTH);
    sft_generator_close(g);
    sf_arena_free(&w.arena);
    tiny_close(&t);
}
END_TEST

START_TEST(what_was_taken_back_is_forgotten)
{
    struct tiny t;
    struct whole w;
    float logits[4096];
    int32_t other[20];
    struct sf_err err = {0};
    tiny_open(&t, 2);
    read_whole(&w, &t, NULL);
    ck_assert_int_le(w.vocabulary, 4096);
    struct sft_generator *g = open_generator(&t, NULL, 16);
    for (int i = 0; i < 20; i++)
        other[i] = w.ids[LENGTH - 1 - i];
    feed(g, &w, 0, 9);
    assert_ok(sft_generator_feed(logits, g, other, 20, &err), err);
    sft_generator_rewind(g, 9);
    feed(g, &w, 9, 10);
    feed(g, &w, 10, LENGTH);
    sft_generator_rewind(g, 0);
    feed(g, &w, 0, 1);
    sft_generator_close(g);
    sf_arena_free(&w.arena);
    tiny_close(&t);
}
END_TEST

START_TEST(bad_calls_are_refused_and_feed_nothing)
{
    struct tiny t;
    struct sft_generator *g;
    float logits[4096];
    int32_t ids[ROOM + 1] = {0};
    struct sf_err err = {0};
    tiny_open(&t, 1);
    g = open_generator(&t, NULL, 8);
    assert_fails(sft_generator_feed(logits, g, ids, 0, &err), SF_EINVAL, "no token to go on from",
                 err);
    assert_fails(sft_generator_feed(logits, g, ids, ROOM + 1, &err), SF_EINVAL,
                 "41 tokens behind 0, there is room for 40", err);
    ids[3] = (int32_t)t.spec.vocabulary;
    assert_fails(sft_generator_feed(logits, g, ids, 5, &err), SF_EINVAL, "token 3 is", err);
    ck_assert_int_eq(sft_generator_count(g), 0);
    ids[3] = 0;
    assert_ok(sft_generator_feed(logits, g, ids, ROOM, &err), err);
    assert_fails(sft_generator_feed(logits, g, ids, 1, &err), SF_EINVAL, "1 tokens behind 40", err);
    sft_generator_close(g);
    struct sft_generator_config config = {
        .spec = &t.spec, .ops = sk_ops_cpu(), .ctx = &t.ctx, .room = 0, .rows = 1};
    assert_fails(sft_generator_open(&g, &config, &err), SF_EINVAL, "room for 0 tokens", err);
    tiny_close(&t);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("generator");
    TCase *c = tcase_create("cpu");
    tcase_add_loop_test(c, logits_are_those_of_the_whole_text, 0,
                        sizeof rows_at_once / sizeof rows_at_once[0]);
    tcase_add_test(c, what_was_taken_back_is_forgotten);
    tcase_add_test(c, bad_calls_are_refused_and_feed_nothing);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
