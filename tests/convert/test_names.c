#include "tests/support/support.h"

#include <string.h>

#include "libformat/convert/names.h"

START_TEST(names_of_roles_parse_back)
{
    struct sf_arena arena = {0};
    for (int part = 0; part < SF_PART_UNUSED; part++) {
        bool expert = sf_part_is_expert(part);
        struct sf_role role = {part, sf_part_in_layer(part) ? 17 : -1, expert ? 3 : -1};
        for (int multimodal = 0; multimodal < 2; multimodal++) {
            const char *name = sf_name_of_role(&arena, multimodal, role);
            ck_assert_ptr_nonnull(name);
            ck_assert_int_eq(strncmp(name, "language_model.", 15) == 0, multimodal);
            struct sf_name parsed = sf_name_parse(name);
            ck_assert_msg(parsed.kind == SF_NAME_WEIGHT && (int)parsed.part == part, "%s", name);
            ck_assert_int_eq(parsed.layer, role.layer);
            ck_assert_int_eq(parsed.expert, role.expert);
        }
    }
    sf_arena_free(&arena);
}
END_TEST

static const struct {
    const char *name;
    enum sf_name_kind kind;
} cases[] = {
    {"model.layers.0.feed_forward.experts.gate_up_proj", SF_NAME_FUSED_GATE_UP},
    {"language_model.model.layers.47.feed_forward.experts.down_proj", SF_NAME_FUSED_DOWN},
    {"model.layers.0.feed_forward.experts.gate_proj.weight", SF_NAME_STACKED},
    {"model.layers.0.feed_forward.experts.15.down_proj.weight", SF_NAME_WEIGHT},
    {"model.layers.0.feed_forward.experts.up_projs.15.weight", SF_NAME_WEIGHT},
    {"model.layers.0.feed_forward.experts.up_projs.015.weight", SF_NAME_UNKNOWN},
    {"model.layers.0.feed_forward.experts.up_projs.weight", SF_NAME_UNKNOWN},
    {"model.layers.0.feed_forward.experts.1.gate_up_proj", SF_NAME_UNKNOWN},
    {"vision_model.class_embedding", SF_NAME_UNUSED},
    {"vision_model.model.layers.0.mlp.fc1.weight.absmax", SF_NAME_UNUSED},
    {"multi_modal_projector.linear_1.weight", SF_NAME_UNUSED},
    {"model.layers.0.self_attn.q_proj.weight.absmax", SF_NAME_BNB},
    {"model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4", SF_NAME_BNB},
    {"model.layers.0.feed_forward.experts.gate_up_proj_scale", SF_NAME_PACKED},
    {"model.layers.0.self_attn.q_proj.weight_packed", SF_NAME_PACKED},
    {"model.layers.0.self_attn.q_proj.bias", SF_NAME_UNKNOWN},
    {"model.layers.00.self_attn.q_proj.weight", SF_NAME_UNKNOWN},
    {"model.layers..self_attn.q_proj.weight", SF_NAME_UNKNOWN},
    {"model.layers.99999999999.self_attn.q_proj.weight", SF_NAME_UNKNOWN},
    {"model.layers.-1.self_attn.q_proj.weight", SF_NAME_UNKNOWN},
    {"model.layers.3.lm_head.weight", SF_NAME_UNKNOWN},
    {"self_attn.q_proj.weight", SF_NAME_UNKNOWN},
    {"language_model.vision_model.x", SF_NAME_UNKNOWN},
    {"", SF_NAME_UNKNOWN},
};

START_TEST(kinds)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_msg(sf_name_parse(cases[i].name).kind == cases[i].kind, "%s", cases[i].name);
}
END_TEST

static Suite *names_suite(void)
{
    Suite *suite = suite_create("names");
    TCase *tc = tcase_create("names");
    tcase_add_test(tc, names_of_roles_parse_back);
    tcase_add_test(tc, kinds);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(names_suite)
