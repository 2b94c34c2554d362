/* Packing: what goes where, that nothing is lost, and that a document's loss is what it is alone. */
#include "train/data/packing.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/mem.h"
#include "tests/support/support.h"
#include "tests/train/flat_rows.h"
#include "tests/train/tiny.h"
#include "train/batches.h"
#include "train/trainer.h"

static struct sf_err err;

/* Rows of these lengths; token i of row r is 1000 r + i. */
static void make_rows(struct sft_dataset *out, const int64_t *length, int64_t rows)
{
    static const struct sft_token_counts none;
    static const struct sf_hash128 key;
    int32_t id[1000];
    struct sft_token_writer *writer;
    struct sft_tokens *source;
    assert_ok(sft_token_writer_open(&writer, NULL, &err), err);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < length[i]; j++)
            id[j] = (int32_t)(i * 1000 + j);
        assert_ok(sft_token_writer_row(writer, id, id, (int32_t)length[i], -1, 0, &err), err);
    }
    assert_ok(sft_token_writer_finish(&source, writer, &none, key, &err), err);
    assert_ok(sft_dataset_over(out, source, &err), err);
}

/* Every document once, whole, in order, in a pack that holds it. */
static void check_packed(const struct sft_dataset *d, const int64_t *length, int64_t rows,
                         int64_t capacity)
{
    static struct flat_rows flat;
    char seen[4096] = {0};
    ck_assert_int_le(rows, (int64_t)sizeof seen);
    ck_assert_int_eq(d->documents, rows);
    ck_assert_int_eq(d->first[0], 0);
    ck_assert_int_eq(d->first[d->rows], rows);
    flatten(&flat, d);
    for (int64_t row = 0, last = -1; row < d->rows; row++) {
        int64_t at = flat.start[row];
        ck_assert_int_le(sft_dataset_length(d, row), capacity);
        ck_assert_int_le(sft_dataset_length(d, row), d->longest);
        ck_assert_int_ge(sft_dataset_documents(d, row), 1);
        ck_assert_int_gt(d->document[d->first[row]], last);
        last = d->document[d->first[row]];
        for (int64_t i = d->first[row]; i < d->first[row + 1]; i++) {
            int64_t origin = d->document[i];
            ck_assert_int_eq(seen[origin]++, 0);
            ck_assert_int_eq(sft_dataset_document(d, i)->length, length[origin]);
            if (i > d->first[row])
                ck_assert_int_gt(origin, d->document[i - 1]);
            for (int64_t j = 0; j < length[origin]; j++, at++) {
                ck_assert_int_eq(flat.id[at], origin * 1000 + j);
                ck_assert_int_eq(flat.target[at],
                                 j + 1 < length[origin] ? origin * 1000 + j + 1 : SFT_NO_TARGET);
            }
        }
    }
}

START_TEST(the_fullest_pack_with_room_takes_it)
{
    /* 7, 6 and 5 begin packs; 4 fills that of 6, 3 that of 7; 2 and 1 go behind 5 */
    static const int64_t length[] = {1, 5, 3, 7, 2, 6, 4};
    static const int64_t first[] = {0, 3, 5, 7}, origin[] = {0, 1, 4, 2, 3, 5, 6};
    struct sft_dataset d;
    make_rows(&d, length, 7);
    assert_ok(sft_packing_apply(&d, 10, &err), err);
    check_packed(&d, length, 7, 10);
    ck_assert_int_eq(d.rows, 3);
    ck_assert_mem_eq(d.first, first, sizeof first);
    ck_assert_mem_eq(d.document, origin, sizeof origin);
    ck_assert_double_eq_tol(sft_packing_efficiency(&d, 10), 28.0 / 30, 1e-15);
    sft_dataset_free(&d);
}
END_TEST

/* The same rule, looking at every pack: how many there are. */
static int64_t plain_best_fit(const int64_t *length, int64_t rows, int64_t capacity)
{
    static int64_t room[4096];
    int64_t packs = 0;
    for (int64_t size = capacity; size > 0; size--) {
        for (int64_t i = 0; i < rows; i++) {
            int64_t best = -1;
            for (int64_t p = 0; length[i] == size && p < packs; p++)
                if (room[p] >= size && (best < 0 || room[p] < room[best]))
                    best = p;
            if (length[i] == size && best < 0)
                room[best = packs++] = capacity;
            if (length[i] == size)
                room[best] -= size;
        }
    }
    return packs;
}

START_TEST(random_rows_are_packed_as_the_plain_rule_does)
{
    static const int64_t capacity[] = {2, 63, 64, 65, 127, 128, 200, 300};
    struct scout_random random = {7};
    static int64_t length[300];
    for (int round = 0; round < 40; round++) {
        int64_t most = capacity[round % 8], rows = 1 + (int64_t)(scout_random_u64(&random) % 300);
        struct sft_dataset d;
        for (int64_t i = 0; i < rows; i++)
            length[i] = 2 + (int64_t)(scout_random_u64(&random) % (uint64_t)(most - 1));
        make_rows(&d, length, rows);
        assert_ok(sft_packing_apply(&d, most, &err), err);
        check_packed(&d, length, rows, most);
        ck_assert_int_eq(d.rows, plain_best_fit(length, rows, most));
        sft_dataset_free(&d);
    }
}
END_TEST

START_TEST(a_row_that_fits_no_pack_is_refused)
{
    static const int64_t length[] = {4, 9};
    struct sft_dataset d;
    make_rows(&d, length, 2);
    assert_fails(sft_packing_apply(&d, 8, &err), SF_EINVAL, "9 tokens fits no pack of 8", err);
    ck_assert_ptr_null(d.first);
    ck_assert_int_eq(d.rows, 2);
    sft_dataset_free(&d);
}
END_TEST

START_TEST(without_memory_the_rows_stay)
{
    static const int64_t length[] = {4, 9, 3};
    struct sft_dataset d;
    int code = SF_ENOMEM, failures = 0;
    make_rows(&d, length, 3);
    while (code) {
        sf_alloc_fail_after(failures + 1);
        code = sft_packing_apply(&d, 16, &err);
        sf_alloc_fail_after(0);
        ck_assert(code == SF_OK || code == SF_ENOMEM);
        ck_assert(code == SF_OK || (!d.first && d.rows == 3 && d.document[2] == 2));
        failures += code != SF_OK;
    }
    ck_assert_int_ge(failures, 3);
    check_packed(&d, length, 3, 16);
    sft_dataset_free(&d);
}
END_TEST

/* ---- the model on packs ---- */

enum { ROWS = 10, CAPACITY = 24 };
static struct tiny t;
static struct sft_dataset alone, packed;

static void setup(void)
{
    tiny_open(&t, 1);
    tiny_rows(&alone, &t, "alone.jsonl", ROWS, 3);
    tiny_rows(&packed, &t, "packed.jsonl", ROWS, 3);
    assert_ok(sft_packing_apply(&packed, CAPACITY, &err), err);
    ck_assert_int_lt(packed.rows, ROWS / 2);
}

static void teardown(void)
{
    sft_dataset_free(&alone);
    sft_dataset_free(&packed);
    tiny_close(&t);
}

static struct sft_step *open_step(struct sft_batches *batches, const struct sft_dataset *data,
                                  int64_t rows)
{
    struct sft_program program[SFT_FORM_PROGRAMS];
    struct sft_batch_form form;
    struct sft_step *step;
    assert_ok(sft_batch_form_of(&form, data, rows, &err), err);
    struct sft_step_config config = {.spec = &t.spec,
                                     .lora = &t.lora,
                                     .ops = sk_ops_cpu(),
                                     .ctx = &t.ctx,
                                     .program = program,
                                     .programs = sft_batch_form_programs(program, &form, SFT_EVAL)};
    assert_ok(sft_step_open(&step, &config, &err), err);
    assert_ok(sft_step_allocate(step, t.image, &err), err);
    assert_ok(sft_batches_open(batches, data, &form, 1, &err), err);
    return step;
}

/* The loss of rows first .. end of a batch: all other targets are ignored. */
static double loss_of(struct sft_step *step, const struct sft_batch *batch, int32_t first,
                      int32_t end)
{
    int32_t targets[256];
    struct sft_batch one = *batch;
    struct sft_loss loss = {0};
    ck_assert_int_le(batch->rows, 256);
    for (int32_t i = 0; i < batch->rows; i++)
        targets[i] = i >= first && i < end ? batch->targets[i] : SFT_NO_TARGET;
    one.targets = targets;
    assert_ok(sft_step_eval(&loss, step, &one, &err), err);
    return loss.sum / (double)loss.targets;
}

/* By how much the losses of documents in packs are off from those alone, the worst of them. */
static double worst_document(const struct sft_dataset *packs)
{
    struct sft_batches one, all, borders;
    struct sft_step *single = open_step(&one, &alone, 1);
    struct sft_step *several = open_step(&all, packs, packs->rows);
    struct sft_step *unused = open_step(&borders, &packed, packed.rows);
    double worst = 0;
    sft_batches_fill(&all, 0, NULL, 0, packs->rows);
    sft_batches_fill(&borders, 0, NULL, 0, packed.rows);
    for (int64_t d = 0; d < ROWS; d++) {
        const int32_t *at = borders.batch[0].document + d;
        sft_batches_fill(&one, 0, NULL, sft_batches_origin(&borders, 0)[d], 1);
        double want = loss_of(single, &one.batch[0], 0, (int32_t)one.batch[0].rows);
        worst = fmax(worst, fabs(loss_of(several, &all.batch[0], at[0], at[1]) / want - 1));
    }
    sft_step_close(unused);
    sft_step_close(several);
    sft_step_close(single);
    sft_batches_free(&borders);
    sft_batches_free(&all);
    sft_batches_free(&one);
    return worst;
}

/* Each pack one document, with the same targets. */
static void merge_packs(struct sft_dataset *out)
{
    static const struct sft_token_counts none;
    static const struct sf_hash128 key;
    struct sft_token_writer *writer;
    struct sft_tokens *source;
    int32_t id[CAPACITY], label[CAPACITY + 1] = {SFT_NO_TARGET};
    assert_ok(sft_token_writer_open(&writer, NULL, &err), err);
    for (int64_t row = 0; row < packed.rows; row++) {
        sft_dataset_read(id, label + 1, &packed, row);
        assert_ok(sft_token_writer_row(writer, id, label, (int32_t)sft_dataset_length(&packed, row),
                                       -1, 0, &err),
                  err);
    }
    assert_ok(sft_token_writer_finish(&source, writer, &none, key, &err), err);
    assert_ok(sft_dataset_over(out, source, &err), err);
}

START_TEST(a_documents_loss_is_what_it_is_alone)
{
    struct sft_dataset merged; /* this must be seen */
    merge_packs(&merged);
    ck_assert_int_eq(merged.rows, packed.rows);
    ck_assert_int_eq(merged.tokens, packed.tokens);
    double apart = worst_document(&packed), together = worst_document(&merged);
    sft_dataset_free(&merged);
    printf("packing: worst document off by %.3g; by %.3g were packs one document each\n", apart,
           together);
    ck_assert_msg(apart < 1e-6, "off by %.3g", apart);
    ck_assert_double_gt(together, 1e-3);
}
END_TEST

static struct sft_loss whole(const struct sft_dataset *data, int64_t rows)
{
    struct sft_batches batches;
    struct sft_loss loss;
    struct sft_step *step = open_step(&batches, data, rows);
    assert_ok(sft_evaluate(&loss, step, &batches, NULL, &err), err);
    sft_step_close(step);
    sft_batches_free(&batches);
    return loss;
}

START_TEST(a_whole_dataset_has_one_loss)
{
    struct sft_loss want = whole(&alone, 1);
    for (int64_t rows = 1; rows <= packed.rows; rows++) {
        struct sft_loss got = whole(&packed, rows);
        ck_assert_int_eq(got.targets, want.targets);
        ck_assert_double_lt(fabs(got.sum / want.sum - 1), 1e-6);
    }
}
END_TEST

/* Whatever packs come together, a tape holds them; the steps of an epoch are those of its packs. */
START_TEST(a_run_takes_packs)
{
    struct sft_trainer_config c = {.spec = &t.spec,
                                   .lora = &t.lora,
                                   .ops = sk_ops_cpu(),
                                   .ctx = &t.ctx,
                                   .data = &packed,
                                   .eval = &packed,
                                   .train_batch = 2,
                                   .eval_batch = 3,
                                   .accumulation = 1,
                                   .epochs = 1,
                                   .shuffle = true,
                                   .schedule = SFT_SCHEDULE_CONSTANT,
                                   .learning_rate = 1e-3,
                                   .beta1 = 0.9,
                                   .beta2 = 0.999,
                                   .epsilon = 1e-8,
                                   .max_grad_norm = 1,
                                   .output = {.directory = scout_scratch_path("run"),
                                              .base_model = "tiny",
                                              .prefix = SF_ADAPTER_TEXT}};
    for (c.seed = 0; c.seed < 3; c.seed++) {
        struct sft_trainer *trainer;
        struct sft_trainer_result result;
        assert_ok(sft_checkpoint_prepare(c.output.directory, SFT_OUTPUT_OVERWRITE, &err), err);
        assert_ok(sft_trainer_open(&trainer, &c, &err), err);
        assert_ok(sft_trainer_run(&result, trainer, t.image, &err), err);
        ck_assert_int_eq(result.state.step, (packed.rows + 1) / 2);
        sft_trainer_close(trainer);
    }
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("packing");
    TCase *rows = tcase_create("rows"), *model = tcase_create("model");
    tcase_add_test(rows, the_fullest_pack_with_room_takes_it);
    tcase_add_test(rows, random_rows_are_packed_as_the_plain_rule_does);
    tcase_add_test(rows, a_row_that_fits_no_pack_is_refused);
    tcase_add_test(rows, without_memory_the_rows_stay);
    tcase_add_checked_fixture(model, setup, teardown);
    tcase_set_timeout(model, 120);
    tcase_add_test(model, a_documents_loss_is_what_it_is_alone);
    tcase_add_test(model, a_whole_dataset_has_one_loss);
    tcase_add_test(model, a_run_takes_packs);
    suite_add_tcase(suite, rows);
    suite_add_tcase(suite, model);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
