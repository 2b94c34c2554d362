/* What merging keeps in memory does not grow with the model: two synthetic checkpoints, one of them
 * with six times the layers, each merged by a process of its own that is asked what it held. */
#include "tests/support/support.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libformat/base/file.h"
#include "libformat/convert/merge.h"
#include "libformat/hf/hf_config.h"
#include "tests/bench/synth.h"

enum { FEW = 1, MANY = 6, RANK = 2, PARTS = 3, MIB = 1 << 20 };

static struct sf_arena arena;
static struct sf_err err;
static float numbers[1 << 17]; /* any: every module of the adapter has a part of these */

static void teardown(void)
{
    sf_arena_free(&arena);
}

/* -> bytes of the checkpoint's weights. 53 MB a layer, nearly all of them routed experts. The
 * weights are holes in their files: zeros, which are read and written like others. */
static uint64_t write_base(const char *directory, int64_t layers)
{
    struct synth_geometry g = {layers, 512, 4, 1, 128, 1024, 16, 256, 1};
    int64_t count;
    uint64_t bytes = 0;
    struct synth_shard *shard = synth_shards(&count, &arena, &g);
    ck_assert_ptr_nonnull(shard);
    assert_ok(sf_make_directory(directory, &err), err);
    assert_ok(synth_write_config(directory, &g, &err), err);
    assert_ok(synth_write_index(directory, shard, count, &err), err);
    for (int64_t s = 0; s < count; s++) {
        assert_ok(synth_write_hollow_shard(directory, &shard[s], &err), err);
        bytes += shard[s].data_bytes;
    }
    return bytes;
}

static void write_adapter(const char *directory, const char *base, int64_t layers)
{
    static const enum sf_part part[PARTS] = {SF_PART_Q, SF_ADAPTER_GATE_UP, SF_PART_EXPERT_DOWN};
    static struct sf_adapter_module module[MANY * PARTS];
    struct sf_model_spec spec;
    char *text;
    uint64_t bytes;
    const char *config = sf_path_join(&arena, base, "config.json");
    assert_ok(sf_read_file(&text, &bytes, &arena, config, MIB, &err), err);
    assert_ok(sf_hf_config_parse(&spec, &arena, text, bytes, &err), err);
    for (int32_t i = 0; i < layers * PARTS; i++) {
        struct sf_shape shape = sf_adapter_shape(&spec, part[i % PARTS]);
        int64_t groups = sf_adapter_groups(&spec, part[i % PARTS]);
        ck_assert_int_le(groups * RANK * shape.dim[0], sizeof numbers / sizeof *numbers);
        ck_assert_int_le(groups * RANK * shape.dim[1], sizeof numbers / sizeof *numbers);
        module[i] = (struct sf_adapter_module){.role = {part[i % PARTS], i / PARTS, -1},
                                               .groups = groups,
                                               .rank = RANK,
                                               .in = shape.dim[1],
                                               .out = shape.dim[0],
                                               .alpha = 4,
                                               .scale = 2,
                                               .a = numbers,
                                               .b = numbers};
    }
    struct sf_adapter adapter = {.prefix = SF_ADAPTER_MULTIMODAL,
                                 .rank = RANK,
                                 .alpha = 4,
                                 .base_model = "synthetic",
                                 .modules = layers * PARTS,
                                 .module = module};
    assert_ok(sf_adapter_write(directory, &adapter, &spec, &err), err);
}

static int merge(int64_t layers, const char *base, const char *adapter, const char *directory)
{
    struct sf_merge_options options = {.threads = 2};
    struct sf_merge_result result;
    int code = sf_merge_run(&result, &arena, base, adapter, directory, &options, &err);
    return code == SF_OK && result.merged == layers * PARTS ? 0 : 1;
}

/* -> the most that a process held which did nothing but merge, bytes. */
static int64_t peak_of_merge(int64_t layers, const char *base, const char *adapter,
                             const char *directory)
{
    struct rusage usage;
    int status;
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        _exit(merge(layers, base, adapter, directory));
    ck_assert_int_eq(wait4(child, &status, 0, &usage), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the merge failed: status %d",
                  status);
    return (int64_t)usage.ru_maxrss * 1024;
}

static int64_t peak_of(uint64_t *bytes, const char *name, int64_t layers)
{
    const char *base = scout_scratch_path(sf_arena_printf(&arena, "%s_base", name));
    const char *adapter = scout_scratch_path(sf_arena_printf(&arena, "%s_adapter", name));
    *bytes = write_base(base, layers);
    write_adapter(adapter, base, layers);
    return peak_of_merge(layers, base, adapter,
                         scout_scratch_path(sf_arena_printf(&arena, "%s_merged", name)));
}

START_TEST(memory_does_not_grow_with_the_model)
{
    struct scout_random random = {3};
    uint64_t small_bytes, large_bytes;
    scout_random_fill(numbers, sizeof numbers / sizeof *numbers, 0.01f, &random);
    int64_t small = peak_of(&small_bytes, "small", FEW);
    int64_t large = peak_of(&large_bytes, "large", MANY);
    printf("%.0f MB of weights: %.1f MB held; %.0f MB: %.1f MB\n", (double)small_bytes / 1e6,
           (double)small / 1e6, (double)large_bytes / 1e6, (double)large / 1e6);
    ck_assert_uint_gt(large_bytes, small_bytes + 250u * MIB);
    ck_assert_msg(large < small + 32 * MIB, "%lld bytes held for one layer, %lld for six",
                  (long long)small, (long long)large);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("merge_memory");
    TCase *tc = tcase_create("merge_memory");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, memory_does_not_grow_with_the_model);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(make_suite)
