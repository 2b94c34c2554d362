/* scout-inspect -- show a container, or check every byte of it. */
#include <string.h>

#include "tools/columns.h"
#include "tools/inspect.h"
#include "tools/tool.h"

static const char PROGRAM[] = "scout-inspect";

struct request {
    bool tensors, json;
    int64_t threads;
    const char *verb, *path;
};

static void show_progress(void *context, uint64_t done, uint64_t total)
{
    tool_progress_show(context, done, total);
}

static void clear_progress(void *context)
{
    tool_progress_end(context);
}

static int show(struct inspect *in, const struct request *r, struct sf_err *err)
{
    if (r->json)
        return inspect_print_json(in, r->tensors, err);
    return r->tensors ? inspect_print_tensors(in, err) : inspect_print_summary(in, err);
}

static int verify(struct inspect *in, const struct request *r, struct sf_err *err)
{
    struct tool_progress progress;
    struct inspect_verify_options options = {.threads = (int)r->threads,
                                             .json = r->json,
                                             .progress = show_progress,
                                             .clear_progress = clear_progress,
                                             .context = &progress};
    tool_progress_begin(&progress, "verifying");
    return inspect_verify(in, &options, err);
}

static int run(const struct request *r, struct sf_arena *arena, struct sf_err *err)
{
    struct inspect in = {.arena = arena, .out = stdout, .width = columns_terminal_width(stdout)};
    bool verifying = strcmp(r->verb, "verify") == 0;
    struct sf_map *map = NULL;
    int code = sf_map_open(&map, r->path, err);
    if (code != SF_OK) {
        struct sf_err ignored = {0};
        if (verifying && r->json)
            inspect_verify_json_unreadable(&in, r->path, err, &ignored);
        return code;
    }
    in.map = map;
    code = inspect_facts_gather(&in.facts, map, err);
    if (code == SF_OK)
        code = verifying ? verify(&in, r, err) : show(&in, r, err);
    sf_map_close(map);
    return code;
}

/* "MODEL", or a verb and MODEL. */
static int read_operands(struct request *r, const struct tool_args *args)
{
    static const char *const verbs[] = {"summary", "tensors", "verify"};
    bool verb = false;
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0] && args->operands > 0; i++)
        verb = verb || strcmp(args->operand[0], verbs[i]) == 0;
    if (args->operands != 1 + verb)
        return tool_usage(PROGRAM, args->operands > 1 ? "one MODEL at a time" : "MODEL is missing");
    r->verb = verb ? args->operand[0] : "summary";
    r->path = args->operand[verb];
    r->tensors = r->tensors || strcmp(r->verb, "tensors") == 0;
    if (strcmp(r->verb, "verify") == 0 && r->tensors)
        return tool_usage(PROGRAM, "--tensors does not go with verify");
    if (r->threads < 0 || r->threads > 1024)
        return tool_usage(PROGRAM, "--threads is %lld, not 0..1024", (long long)r->threads);
    return TOOL_DONE;
}

int main(int argc, char **argv)
{
    struct request r = {0};
    const struct tool_option options[] = {
        {"tensors", 0, TOOL_FLAG, &r.tensors, NULL,
         "the layout: offset, bytes, role, shape, encoding, error"},
        {"json", 0, TOOL_FLAG, &r.json, NULL, "the same as JSON (schema: tools/inspect_json.md)"},
        {"threads", 0, TOOL_INT, &r.threads, "N", "verify: threads; 0 = all processors"}};
    struct tool_args args = {
        .program = PROGRAM,
        .usage = "scout-inspect [summary|tensors|verify] MODEL.scout [--tensors] [--json]",
        .about = "Shows what a container holds; verify compares every byte with its checksums.",
        .option = options,
        .options = sizeof options / sizeof options[0]};
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    tool_start();
    int status = tool_parse(&args, argc, argv, &arena);
    if (status == TOOL_DONE && !args.help) {
        status = read_operands(&r, &args);
        if (status == TOOL_DONE && run(&r, &arena, &err) != SF_OK)
            status = tool_failed(PROGRAM, &err);
    }
    status = tool_finish(PROGRAM, status);
    sf_arena_free(&arena);
    return status;
}
