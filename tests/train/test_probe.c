#include "train/probe.h"

#include <string.h>

#include "kernels/head_loss.h"
#include "tests/support/support.h"
#include "tests/train/tiny.h"

enum { SEQUENCES = 2, LENGTH = 12 };

static struct tiny t;
static int32_t ids[SEQUENCES * LENGTH], labels[SEQUENCES * LENGTH];

static void setup(void)
{
    tiny_open(&t, 2);
    for (int i = 0; i < SEQUENCES * LENGTH; i++) {
        ids[i] = (i * 37 + 11) % 96;
        labels[i] = i % 5 == 2 ? SK_IGNORE_INDEX : ids[i];
    }
}

static void teardown(void)
{
    tiny_close(&t);
}

static struct sft_probe_config config_of(bool gradients)
{
    return (struct sft_probe_config){.spec = &t.spec,
                                     .image = t.image,
                                     .lora = &t.lora,
                                     .prefix = SF_ADAPTER_MULTIMODAL,
                                     .ops = sk_ops_cpu(),
                                     .ctx = &t.ctx,
                                     .gradients = gradients};
}

static const struct sf_tensor *find(const struct sft_probe *probe, const char *name)
{
    for (int64_t i = 0; i < probe->tensors; i++)
        if (strcmp(probe->tensor[i].name, name) == 0)
            return &probe->tensor[i].tensor;
    return NULL;
}

START_TEST(everything_has_its_name_and_shape)
{
    struct sf_err err = {0};
    struct sft_probe probe;
    struct sft_probe_config config = config_of(true);
    static const struct {
        const char *name;
        struct sf_shape shape;
    } want[] = {
        {"input_ids", {2, {2, 12}}},
        {"labels", {2, {2, 12}}},
        {"hidden.3", {3, {2, 12, 64}}},
        {"router.1", {2, {24, 4}}},
        {"logits", {3, {2, 12, 96}}},
        {"token_loss", {2, {2, 11}}},
        {"loss", {1, {1}}},
        {"grad.base_model.model.language_model.model.layers.2.feed_forward.up_proj.lora_A.weight",
         {2, {4, 64}}},
        {"grad.base_model.model.language_model.model.layers.0.self_attn.k_proj.lora_B.weight",
         {2, {32, 4}}},
    };
    assert_ok(sft_probe_run(&probe, &t.arena, &config, ids, labels, SEQUENCES, LENGTH, &err), err);
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        const struct sf_tensor *got = find(&probe, want[i].name);
        ck_assert_msg(got && sf_shape_equal(&got->shape, &want[i].shape), "%s", want[i].name);
    }
    ck_assert_ptr_null(find(&probe, "router.2")); /* a dense layer */
    ck_assert_int_eq(probe.tensors, 2 + 4 + 2 + 3 + 2 * t.lora.modules);
}
END_TEST

START_TEST(losses_agree_with_each_other)
{
    struct sf_err err = {0};
    struct sft_probe probe;
    struct sft_probe_config config = config_of(false);
    assert_ok(sft_probe_run(&probe, &t.arena, &config, ids, labels, SEQUENCES, LENGTH, &err), err);
    const float *token_loss = find(&probe, "token_loss")->data;
    double sum = 0;
    int64_t targets = 0;
    for (int b = 0; b < SEQUENCES; b++) {
        for (int i = 0; i < LENGTH - 1; i++) {
            bool counts = labels[b * LENGTH + i + 1] != SK_IGNORE_INDEX;
            ck_assert_int_eq(token_loss[b * (LENGTH - 1) + i] != 0, counts);
            sum += token_loss[b * (LENGTH - 1) + i];
            targets += counts;
        }
    }
    ck_assert_double_eq_tol(probe.loss, sum / (double)targets, 1e-6);
    ck_assert_float_eq(*(const float *)find(&probe, "loss")->data, (float)probe.loss);
}
END_TEST

START_TEST(senseless_probes_are_refused)
{
    struct sf_err err = {0};
    struct sft_probe probe;
    struct sft_probe_config config = config_of(true);
    assert_fails(sft_probe_run(&probe, &t.arena, &config, ids, labels, 2, 1, &err), SF_EINVAL,
                 "[2, 1] tokens", err);
    config.lora = NULL;
    assert_fails(sft_probe_run(&probe, &t.arena, &config, ids, labels, 2, 12, &err), SF_EINVAL,
                 "no adapter", err);
    config.gradients = false;
    ids[3] = -1;
    assert_fails(sft_probe_run(&probe, &t.arena, &config, ids, labels, 2, 12, &err), SF_EINVAL,
                 "embed_forward", err);
}
END_TEST

static Suite *probe_suite(void)
{
    Suite *suite = suite_create("probe");
    TCase *tc = tcase_create("probe");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, everything_has_its_name_and_shape);
    tcase_add_test(tc, losses_agree_with_each_other);
    tcase_add_test(tc, senseless_probes_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(probe_suite)
