#include "tests/convert/conversion.h"

#include <stdio.h>

#include "libformat/base/file.h"
#include "libformat/convert/convert.h"
#include "libformat/hf/hf_config.h"
#include "tests/support/support.h"

static int delete_shard(void *context, const struct sf_hf_shard *shard, struct sf_err *err)
{
    (void)context;
    return sf_remove_file(sf_safetensors_path(shard->file), err);
}

int convert(const struct conversion *c, struct sf_err *err)
{
    struct sf_arena arena = {0};
    struct sf_model_spec spec;
    struct sf_hf_index *index = NULL;
    struct sf_convert_plan plan = {0};
    bool used[2] = {0};
    struct sf_policy policy = {c->keep, c->keep_count, used, .scale = c->scale,
                               .requantize = c->requantize};
    char *config = NULL, path[4096];
    uint64_t bytes = 0;
    snprintf(path, sizeof path, "%s/config.json",
             c->config ? scout_source_path(c->config) : c->source);
    int code = sf_read_file(&config, &bytes, &arena, path, 1 << 20, err);
    if (code == SF_OK)
        code = sf_hf_config_parse(&spec, &arena, config, bytes, err);
    if (code == SF_OK && c->importance)
        code = sf_importance_open(&policy.importance, c->importance, err);
    struct sf_journal *journal = NULL;
    struct sf_hf_open open = {0};
    if (code == SF_OK)
        code = sf_journal_open(&journal, c->output, err);
    if (code == SF_OK)
        open.memory = sf_journal_shards(&open.memories, journal);
    if (code == SF_OK)
        code = sf_hf_index_open_with(&index, c->source, &open, err);
    if (code == SF_OK)
        code = sf_convert_plan_build(&plan, &spec, index, &policy, c->keep_unknown, err);
    struct sf_carried_file file = {"config.json", config, bytes};
    struct sf_convert_options options = {.threads = c->threads ? c->threads : 1,
                                         .model_id = "tiny",
                                         .converter = "test",
                                         .options_text = c->options_text ? c->options_text : "",
                                         .wave_bytes = c->wave_bytes,
                                         .on_progress = c->on_progress,
                                         .on_source_done = c->delete_source ? delete_shard : NULL,
                                         .file = &file,
                                         .files = 1};
    if (code == SF_OK)
        code = sf_convert_go_on(NULL, &plan, journal, c->output, &options, err);
    sf_convert_plan_free(&plan);
    sf_importance_close(policy.importance);
    sf_hf_index_close(index);
    sf_journal_close(journal);
    sf_arena_free(&arena);
    return code;
}

struct sf_map *converted(struct conversion c)
{
    struct sf_err err = {0};
    struct sf_map *map;
    assert_ok(convert(&c, &err), err);
    assert_ok(sf_map_open(&map, c.output, &err), err);
    return map;
}
