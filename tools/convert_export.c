#include "tools/convert_export.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/jobs.h"
#include "libformat/container/container_check.h"
#include "libformat/convert/base_copy.h"
#include "libformat/convert/export.h"
#include "libformat/hf/hf_config.h"
#include "tools/tool.h"

static const char PROGRAM[] = "scout-convert";

struct command {
    const char *model, *output, *format, *adapter;
    int64_t threads, shard_gb;
    bool help;
};

static int read_command(struct command *c, int argc, char **argv, struct sf_arena *arena)
{
    *c = (struct command){.threads = sf_cpu_count(), .shard_gb = 5};
    const struct tool_option options[] = {
        {"to", 0, TOOL_STRING, &c->format, "FORMAT", "hf-bf16 or hf-bnb4 (needed)"},
        {"output", 'o', TOOL_STRING, &c->output, "HF_DIR", "the folder to write (needed)"},
        {"adapter", 0, TOOL_STRING, &c->adapter, "DIR",
         "with hf-bf16: a LoRA adapter, merged into the weights on the way"},
        {"shard-size", 0, TOOL_INT, &c->shard_gb, "GB", "largest shard in GB (5)"},
        {"threads", 0, TOOL_INT, &c->threads, "N", "worker threads (default: all processors)"},
    };
    struct tool_args args = {
        .program = PROGRAM,
        .usage = "scout-convert export MODEL.scout --to hf-bf16|hf-bnb4 -o HF_DIR [options]",
        .about = "Writes a container as a Hugging Face checkpoint: bf16 numbers, or bitsandbytes' "
                 "4-bit tensors.",
        .option = options,
        .options = sizeof options / sizeof options[0]};
    int status = tool_parse(&args, argc, argv, arena);
    c->help = args.help;
    if (status != TOOL_DONE || args.help)
        return status;
    if (args.operands != 1)
        return tool_usage(PROGRAM, "export takes one container, not %d", args.operands);
    if (!c->output)
        return tool_usage(PROGRAM, "give the folder to write with -o HF_DIR");
    if (!c->format || (strcmp(c->format, "hf-bf16") != 0 && strcmp(c->format, "hf-bnb4") != 0))
        return tool_usage(PROGRAM, "--to takes hf-bf16 or hf-bnb4");
    if (c->adapter && strcmp(c->format, "hf-bf16") != 0)
        return tool_usage(PROGRAM, "--adapter goes with --to hf-bf16 only");
    if (c->threads < 1 || c->threads > 1024 || c->shard_gb < 1 || c->shard_gb > 1000)
        return tool_usage(PROGRAM, "--threads takes 1 to 1024, --shard-size 1 to 1000");
    c->model = args.operand[0];
    return TOOL_DONE;
}

static bool show_progress(void *context, uint64_t done, uint64_t total)
{
    tool_progress_show(context, done, total);
    return !tool_interrupted();
}

static int open_adapter(struct sf_adapter_source **out, struct sf_arena *arena,
                        const struct sf_map *map, const char *directory, struct sf_err *err)
{
    struct sf_model_spec spec;
    char *config;
    uint64_t bytes;
    *out = NULL;
    int code = sf_map_read_file(&config, &bytes, map, "config.json", arena, err);
    if (code == SF_OK)
        code = sf_hf_config_parse(&spec, arena, config, bytes, err);
    if (code == SF_OK)
        code = sf_adapter_open(out, directory, &spec, err);
    struct sf_adapter_base base = sf_base_in_container(map);
    return code == SF_OK ? sf_adapter_check_usable(*out, directory, &base, err) : code;
}

static void print_caveat(const struct sf_adapter *adapter)
{
    printf(
        "%lld modules of the adapter are merged; each sum is rounded to bf16, which small updates "
        "do not survive everywhere,\nand it was trained against the quantized weights: quantized "
        "again, the merged model is not the one that was trained\n",
        (long long)adapter->modules);
}

/* What is exported was checked first: damage must not travel on under a new name. */
static int run(const struct command *c, struct sf_err *err)
{
    struct sf_map *map;
    struct tool_progress progress;
    struct sf_arena arena = {0};
    struct sf_adapter_source *adapter = NULL;
    struct sf_check_options check = {.threads = (int)c->threads};
    struct sf_export_options options = {
        .format = strcmp(c->format, "hf-bnb4") == 0 ? SF_EXPORT_BNB4 : SF_EXPORT_BF16,
        .threads = (int)c->threads,
        .shard_bytes = (uint64_t)c->shard_gb * 1000000000u,
        .on_progress = show_progress,
        .context = &progress};
    int64_t damaged;
    int code = sf_map_open(&map, c->model, err);
    if (code != SF_OK)
        return code;
    if (c->adapter) {
        code = open_adapter(&adapter, &arena, map, c->adapter, err);
        options.adapter = adapter ? sf_adapter_about(adapter) : NULL;
        options.source = adapter;
    }
    tool_catch_signals();
    tool_progress_begin(&progress, "exporting");
    if (code == SF_OK)
        code = sf_check_run(&damaged, map, &check, err);
    if (code == SF_OK)
        code = sf_export_run(map, c->output, &options, err);
    tool_progress_end(&progress);
    if (code == SF_OK)
        printf("%s: %s of %s, written in %.1f s\n", c->output, c->format,
               sf_map_summary(map)->model_id, tool_now() - progress.started);
    if (code == SF_OK && c->adapter)
        print_caveat(sf_adapter_about(adapter));
    sf_adapter_close(adapter);
    sf_arena_free(&arena);
    sf_map_close(map);
    return code;
}

int convert_export(int argc, char **argv)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    struct command command;
    int status = read_command(&command, argc, argv, &arena);
    if (status == TOOL_DONE && !command.help && run(&command, &err) != SF_OK)
        status = tool_failed(PROGRAM, &err);
    sf_arena_free(&arena);
    return status;
}
