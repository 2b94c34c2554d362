#include "tools/convert_merge.h"

#include <stdio.h>

#include "libformat/base/jobs.h"
#include "libformat/convert/merge.h"
#include "tools/tool.h"

static const char PROGRAM[] = "scout-convert";

struct command {
    const char *base, *adapter, *output;
    int64_t threads;
    bool help;
};

static int read_command(struct command *c, int argc, char **argv, struct sf_arena *arena)
{
    *c = (struct command){.threads = sf_cpu_count()};
    const struct tool_option options[] = {
        {"base", 0, TOOL_STRING, &c->base, "HF_DIR",
         "the checkpoint that the adapter was trained on, in bf16 (needed)"},
        {"adapter", 0, TOOL_STRING, &c->adapter, "DIR", "the PEFT adapter (needed)"},
        {"output", 'o', TOOL_STRING, &c->output, "HF_DIR", "the folder to write (needed)"},
        {"threads", 0, TOOL_INT, &c->threads, "N", "worker threads (default: all processors)"},
    };
    struct tool_args args = {
        .program = PROGRAM,
        .usage = "scout-convert merge --base HF_DIR --adapter DIR -o HF_DIR [options]",
        .about =
            "Adds a LoRA adapter to the checkpoint that it was trained on, shard by shard; the "
            "new folder has the same files.",
        .option = options,
        .options = sizeof options / sizeof options[0]};
    int status = tool_parse(&args, argc, argv, arena);
    c->help = args.help;
    if (status != TOOL_DONE || args.help)
        return status;
    if (args.operands)
        return tool_usage(PROGRAM, "merge takes options only, not \"%s\"", args.operand[0]);
    if (!c->base || !c->adapter || !c->output)
        return tool_usage(PROGRAM, "merge needs --base, --adapter and -o");
    if (c->threads < 1 || c->threads > 1024)
        return tool_usage(PROGRAM, "--threads takes 1 to 1024");
    return TOOL_DONE;
}

static bool show_progress(void *context, uint64_t done, uint64_t total)
{
    tool_progress_show(context, done, total);
    return !tool_interrupted();
}

static void print_result(const struct command *c, const struct sf_merge_result *r, double seconds)
{
    char size[TOOL_SIZE_TEXT];
    printf("%s: %lld modules of the adapter merged into %lld of %lld tensors; %lld shard%s, %s, "
           "written in %.1f s\n",
           c->output, (long long)r->modules, (long long)r->merged, (long long)r->tensors,
           (long long)r->shards, r->shards == 1 ? "" : "s", tool_size(size, r->bytes), seconds);
    for (int64_t i = 0; i < r->left_outs; i++)
        printf("%s %s", i ? "," : "not copied (folders, weights in other files):", r->left_out[i]);
    if (r->left_outs)
        printf("\n");
    printf("the adapter learnt beside the quantized weights; here it meets the original ones, to "
           "whose bf16 each sum is rounded\n");
}

static int run(const struct command *c, struct sf_arena *arena, struct sf_err *err)
{
    struct tool_progress progress;
    struct sf_merge_result result;
    struct sf_merge_options options = {
        .threads = (int)c->threads, .on_progress = show_progress, .context = &progress};
    tool_catch_signals();
    tool_progress_begin(&progress, "merging");
    int code = sf_merge_run(&result, arena, c->base, c->adapter, c->output, &options, err);
    tool_progress_end(&progress);
    if (code == SF_OK)
        print_result(c, &result, tool_now() - progress.started);
    return code;
}

int convert_merge(int argc, char **argv)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    struct command command;
    int status = read_command(&command, argc, argv, &arena);
    if (status == TOOL_DONE && !command.help && run(&command, &arena, &err) != SF_OK)
        status = tool_failed(PROGRAM, &err);
    sf_arena_free(&arena);
    return status;
}
