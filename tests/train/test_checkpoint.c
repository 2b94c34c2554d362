/* The folders of checkpoints: whole or not seen, newest first, the oldest go. */
#include "tests/support/support.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/folders.h"
#include "tests/train/tiny.h"
#include "train/checkpoint_list.h"

static struct tiny t;
static struct sf_err err;
static struct sft_checkpoint where;
static char notes[2048];

static void setup(void)
{
    tiny_open(&t, 1);
    notes[0] = 0;
    where =
        (struct sft_checkpoint){.directory = sf_arena_strdup(&t.arena, scout_scratch_path("run")),
                                .base_model = "tiny",
                                .prefix = SF_ADAPTER_TEXT,
                                .spec = &t.spec};
    assert_ok(sf_folder_remove(where.directory, &err), err);
    assert_ok(sft_checkpoint_prepare(where.directory, SFT_OUTPUT_NEW, &err), err);
}

static void teardown(void)
{
    assert_ok(sft_checkpoint_clear(where.directory, -1, &err), err);
    tiny_close(&t);
}

static const char *inside(const char *name)
{
    return sf_path_join(&t.arena, where.directory, name);
}

static void save(int64_t step)
{
    struct sft_resume_record record = {.state = sft_run_state_new()};
    const char *metrics = scout_scratch_path("rows");
    record.state.step = step;
    assert_ok(sf_write_file(metrics, "{}\n", 3, &err), err);
    assert_ok(sft_checkpoint_write(&where, &t.lora, &record, metrics, &err), err);
}

static void note(void *context, const char *text)
{
    (void)context;
    strncat(notes, text, sizeof notes - strlen(notes) - 1);
}

static int64_t newest(void)
{
    struct sft_resume_record record;
    const char *folder;
    notes[0] = 0;
    assert_ok(sft_checkpoint_newest(&record, &folder, &t.arena, where.directory, note, NULL, &err),
              err);
    return folder ? record.state.step : 0;
}

START_TEST(arrays_come_back_bit_for_bit)
{
    uint64_t bytes = sft_lora_bytes(&t.lora, true);
    float *all = sft_lora_state(&t.lora, SFT_LORA_PARAMETERS);
    struct scout_random random = {9};
    scout_random_fill(sft_lora_state(&t.lora, SFT_LORA_M), 2 * t.lora.count, 1, &random);
    unsigned char *kept = sf_arena_alloc(&t.arena, bytes);
    memcpy(kept, all, bytes);
    save(5);
    memset(all, 0, bytes);
    assert_ok(sft_checkpoint_load(&t.lora, &where, inside("checkpoint-5"), &err), err);
    uint64_t part = (uint64_t)t.lora.count * sizeof(float);
    ck_assert(memcmp(kept, all, part) == 0);
    ck_assert(memcmp(kept + 2 * part, (unsigned char *)all + 2 * part, 2 * part) == 0);
    ck_assert(!sf_file_exists(inside("checkpoint-5.partial")));
}
END_TEST

START_TEST(names_that_are_not_ours_are_left_alone)
{
    struct sft_checkpoint_list list;
    static const char *const other[] = {"checkpoint-07", "checkpoint-",
                                        "checkpoint-7a", "checkpoint--7",
                                        "checkpoint-0",  "checkpoint-99999999999999999"};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        assert_ok(sf_make_directory(inside(other[i]), &err), err);
    save(10);
    save(9);
    assert_ok(sft_checkpoint_list(&list, &t.arena, where.directory, &err), err);
    ck_assert_int_eq(list.count, 2);
    ck_assert_int_eq(list.step[0], 9);
    ck_assert_int_eq(list.step[1], 10);
    assert_ok(sft_checkpoint_clear(where.directory, -1, &err), err);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        ck_assert(sf_file_exists(inside(other[i])));
        assert_ok(sf_folder_remove(inside(other[i]), &err), err);
    }
}
END_TEST

/* Any file of the newest changed, cut or gone: it is named, the one before is taken. */
START_TEST(damage_is_named_and_passed_over)
{
    static const char *const file[] = {"resume.json", "optimizer.bin", "metrics.jsonl",
                                       "adapter_config.json", "adapter_model.safetensors"};
    for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
        for (int way = 0; way < 3; way++) {
            char *text;
            uint64_t bytes;
            save(1);
            save(2);
            ck_assert_int_eq(newest(), 2);
            ck_assert_str_eq(notes, "");
            const char *path = inside(sf_arena_printf(&t.arena, "checkpoint-2/%s", file[i]));
            assert_ok(sf_read_file(&text, &bytes, &t.arena, path, 1 << 24, &err), err);
            text[bytes / 2] ^= 1;
            if (way == 2)
                assert_ok(sf_remove_file(path, &err), err);
            else
                assert_ok(sf_write_file(path, text, way ? bytes - 1 : bytes, &err), err);
            ck_assert_int_eq(newest(), 1);
            ck_assert_msg(strstr(notes, "checkpoint-2 is not whole") && strstr(notes, file[i]),
                          "%s", notes);
        }
    }
}
END_TEST

START_TEST(without_a_whole_one_nothing_is_begun)
{
    struct sft_resume_record record;
    const char *folder;
    ck_assert_int_eq(newest(), 0);
    assert_ok(sf_make_directory(inside("checkpoint-3"), &err), err);
    assert_fails(
        sft_checkpoint_newest(&record, &folder, &t.arena, where.directory, note, NULL, &err),
        SF_EDAMAGED, "none of its 1 checkpoints is whole", err);
    save(2);
    assert_ok(sf_folder_rename(inside("checkpoint-2"), inside("checkpoint-4"), &err), err);
    assert_fails(
        sft_checkpoint_newest(&record, &folder, &t.arena, where.directory, note, NULL, &err),
        SF_EDAMAGED, "none of its 2 checkpoints is whole", err);
    ck_assert_ptr_nonnull(strstr(notes, "its record is of step 2"));
}
END_TEST

START_TEST(the_oldest_go_but_not_the_best)
{
    for (int64_t step = 1; step <= 5; step++)
        save(step);
    assert_ok(sft_checkpoint_rotate(where.directory, 0, 5, -1, &err), err);
    ck_assert(sf_file_exists(inside("checkpoint-1")));
    assert_ok(sft_checkpoint_rotate(where.directory, 3, 5, 1, &err), err);
    ck_assert(sf_file_exists(inside("checkpoint-1")));
    ck_assert(!sf_file_exists(inside("checkpoint-2")) && !sf_file_exists(inside("checkpoint-3")));
    ck_assert(sf_file_exists(inside("checkpoint-4")));
    assert_ok(sft_checkpoint_rotate(where.directory, 1, 5, 1, &err), err);
    ck_assert(!sf_file_exists(inside("checkpoint-4")));
    ck_assert(sf_file_exists(inside("checkpoint-1")) && sf_file_exists(inside("checkpoint-5")));
}
END_TEST

START_TEST(leftovers_go_and_damage_is_kept_aside)
{
    for (int64_t step = 1; step <= 3; step++)
        save(step);
    assert_ok(sf_make_directory(inside("checkpoint-4.partial"), &err), err);
    assert_ok(sf_make_directory(inside("checkpoint-1.removed"), &err), err);
    assert_ok(sft_checkpoint_clear(where.directory, 2, &err), err);
    ck_assert(!sf_file_exists(inside("checkpoint-4.partial")));
    ck_assert(!sf_file_exists(inside("checkpoint-1.removed")));
    ck_assert(!sf_file_exists(inside("checkpoint-3")));
    ck_assert(sf_file_exists(inside("checkpoint-3.damaged/resume.json")));
    ck_assert_int_eq(newest(), 2);
    assert_ok(sf_folder_remove(inside("checkpoint-3.damaged"), &err), err);
}
END_TEST

START_TEST(a_folder_in_use_is_not_begun_anew)
{
    save(3);
    assert_fails(sft_checkpoint_prepare(where.directory, SFT_OUTPUT_NEW, &err), SF_EINVAL,
                 "checkpoint-3 of an earlier run", err);
    assert_ok(sft_checkpoint_prepare(where.directory, SFT_OUTPUT_RESUME, &err), err);
    assert_ok(sft_checkpoint_prepare(where.directory, SFT_OUTPUT_OVERWRITE, &err), err);
    assert_ok(sft_checkpoint_clear(where.directory, -1, &err), err);
    assert_ok(sft_checkpoint_write_adapter(&where, where.directory, &t.lora, &err), err);
    assert_fails(sft_checkpoint_prepare(where.directory, SFT_OUTPUT_RESUME, &err), SF_EINVAL,
                 "no checkpoint to resume from", err);
    assert_fails(sft_checkpoint_prepare(where.directory, SFT_OUTPUT_NEW, &err), SF_EINVAL,
                 "there is an adapter already", err);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("checkpoint");
    TCase *tc = tcase_create("checkpoint");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, arrays_come_back_bit_for_bit);
    tcase_add_test(tc, names_that_are_not_ours_are_left_alone);
    tcase_add_test(tc, damage_is_named_and_passed_over);
    tcase_add_test(tc, without_a_whole_one_nothing_is_begun);
    tcase_add_test(tc, the_oldest_go_but_not_the_best);
    tcase_add_test(tc, leftovers_go_and_damage_is_kept_aside);
    tcase_add_test(tc, a_folder_in_use_is_not_begun_anew);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
