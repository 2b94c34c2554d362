/* synth -- writes a synthetic Llama 4 checkpoint, whole or one shard at a time.
 *   synth DIR                  all of Scout's geometry (217 GB)
 *   synth DIR --layers 2       the same, cut to two layers
 *   synth DIR --only 7         config, index and the seventh shard alone */
#include <stdio.h>

#include "libformat/base/file.h"
#include "libformat/base/jobs.h"
#include "tests/bench/synth.h"
#include "tools/tool.h"

static const char PROGRAM[] = "synth";

static int write_all(const char *directory, const struct synth_geometry *g, int64_t only,
                     int threads, struct sf_err *err)
{
    struct sf_arena arena = {0};
    int64_t count, written = 0;
    double began = tool_now(), bytes = 0;
    struct synth_shard *shards = synth_shards(&count, &arena, g);
    int code = shards ? sf_make_directory(directory, err)
                      : sf_fail(err, SF_EINVAL, "no memory for such a geometry, or it overflows");
    if (code == SF_OK)
        code = synth_write_config(directory, g, err);
    if (code == SF_OK)
        code = synth_write_index(directory, shards, count, err);
    if (code == SF_OK && (only < 0 || only > count))
        code = sf_fail(err, SF_EINVAL, "--only %lld of %lld shards", (long long)only,
                       (long long)count);
    for (int64_t s = 0; s < count && code == SF_OK; s++) {
        if (only && s != only - 1)
            continue;
        code = synth_write_shard(directory, &shards[s], g->seed, threads, err);
        bytes += (double)shards[s].data_bytes;
        written++;
    }
    if (code == SF_OK)
        printf("%s: %lld of %lld shards, %.2f GB in %.1f s\n", directory, (long long)written,
               (long long)count, bytes / 1e9, tool_now() - began);
    sf_arena_free(&arena);
    return code;
}

int main(int argc, char **argv)
{
    struct synth_geometry g = {48, 5120, 40, 8, 128, 8192, 16, 202048, 1};
    int64_t only = 0, threads = sf_cpu_count(), seed = 1;
    const struct tool_option options[] = {
        {"layers", 0, TOOL_INT, &g.layers, "N", "layers (48)"},
        {"hidden", 0, TOOL_INT, &g.hidden, "N", "hidden size (5120)"},
        {"heads", 0, TOOL_INT, &g.heads, "N", "query heads (40)"},
        {"kv-heads", 0, TOOL_INT, &g.kv_heads, "N", "key-value heads (8)"},
        {"head-size", 0, TOOL_INT, &g.head_size, "N", "width of a head (128)"},
        {"width", 0, TOOL_INT, &g.width, "N", "width of experts and shared expert (8192)"},
        {"experts", 0, TOOL_INT, &g.experts, "N", "routed experts (16)"},
        {"vocabulary", 0, TOOL_INT, &g.vocabulary, "N", "rows of embedding and head (202048)"},
        {"seed", 0, TOOL_INT, &seed, "N", "seed (1)"},
        {"only", 0, TOOL_INT, &only, "N", "write shard N alone, counted from 1"},
        {"threads", 0, TOOL_INT, &threads, "N", "threads (all processors)"},
    };
    struct tool_args args = {.program = PROGRAM,
                             .usage = "synth DIR [options]",
                             .about = "Writes a synthetic Llama 4 checkpoint of any geometry.",
                             .option = options,
                             .options = sizeof options / sizeof options[0]};
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    tool_start();
    int status = tool_parse(&args, argc, argv, &arena);
    if (status == TOOL_DONE && !args.help && args.operands != 1)
        status = tool_usage(PROGRAM, "give one folder");
    g.seed = (uint64_t)seed;
    if (status == TOOL_DONE && !args.help &&
        write_all(args.operand[0], &g, only, threads < 1 ? 1 : (int)threads, &err) != SF_OK)
        status = tool_failed(PROGRAM, &err);
    sf_arena_free(&arena);
    return tool_finish(PROGRAM, status);
}
