/* scout-inspect -- show a container, or check every byte of it. */
#include <string.h>

#include "libformat/codec/nf4.h"
#include "tools/columns.h"
#include "tools/inspect_plan.h"
#include "tools/inspect_verbs.h"
#include "tools/tool.h"

static const char PROGRAM[] = INSPECT_PROGRAM;

void inspect_show_progress(void *context, uint64_t done, uint64_t total)
{
    tool_progress_show(context, done, total);
}

static void clear_progress(void *context)
{
    tool_progress_end(context);
}

/* ---- the verbs that inspect.h has as functions of their own ---- */

static int summary(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    if (r->tensors)
        return inspect_tensors(in, r, err);
    return r->json ? inspect_print_json(in, NULL, err) : inspect_print_summary(in, err);
}

static int provenance(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    return r->json ? inspect_print_provenance_json(in, err) : inspect_print_provenance(in, err);
}

static int verify(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    struct tool_progress progress;
    if (r->against)
        return inspect_against(in, r, err);
    struct inspect_verify_options options = {.threads = (int)r->threads,
                                             .json = r->json,
                                             .progress = inspect_show_progress,
                                             .clear_progress = clear_progress,
                                             .context = &progress};
    tool_progress_begin(&progress, "verifying");
    return inspect_verify(in, &options, err);
}

/* A new verb is a function in inspect_verbs.h and a row here; the first row is the bare path's. */
struct verb {
    const char *name, *operands; /* as usage shows them */
    int count;                   /* of operands */
    const char *options;         /* those that go with it, a space around each */
    inspect_function *function;
    bool whole; /* needs every section's hash compared, not only a look */
    bool sums;  /* needs inspect.facts */
};

static const struct verb verbs[] = {
    {"summary", "MODEL", 1, " json tensors ", summary, false, true},
    {"tensors", "MODEL", 1, " json tensors name layer expert encoding sort tree depth ",
     inspect_tensors},
    {"verify", "MODEL", 1, " json threads against all ", verify, true, true},
    {"layout", "MODEL", 1, " json ", inspect_layout},
    {"experts", "MODEL", 1, " json norm threads ", inspect_experts},
    {"config", "MODEL", 1, " ", inspect_config},
    {"files", "MODEL", 1, " json ", inspect_files},
    {"file", "MODEL NAME", 2, " ", inspect_file},
    {"tokenizer", "MODEL", 1, " json id token find encode special ", inspect_tokenizer},
    {"provenance", "MODEL", 1, " json ", provenance},
    {"extract", "MODEL GLOB", 2, " output as plane rows layer expert encoding ", inspect_extract,
     true},
    {"report", "MODEL", 1, " output name no-verify threads ", inspect_report, true, true},
    {"diff", "A B", 2, " json threads all ", inspect_diff, true},
};
enum { VERBS = sizeof verbs / sizeof verbs[0] };

static const char USAGE[] =
    "scout-inspect MODEL | scout-inspect VERB MODEL [...]\n"
    "  summary MODEL      what it holds (as the bare path does)\n"
    "  tensors MODEL      every tensor in the order of the file, or those you choose\n"
    "  verify MODEL       compare every byte with its checksum, or with its source\n"
    "  layout MODEL       extents in the order of the file, and padding\n"
    "  experts MODEL      grid of layers and experts: error, size\n"
    "  config MODEL       the config.json it carries\n"
    "  files MODEL        the files it carries\n"
    "  file MODEL NAME    one of them, as it is\n"
    "  tokenizer MODEL    look up ids and tokens, encode a text\n"
    "  provenance MODEL   converter, options, source files\n"
    "  extract MODEL GLOB -o FILE   tensors as .npy or .safetensors\n"
    "  diff A B           two containers, or a container and a Hugging Face folder\n"
    "  report MODEL -o FILE         all of it as one page for a browser\n"
    "  plan MODEL [--card CARD]...  memory of a run; options as scout-ft plan";

static int run(const struct verb *verb, const struct inspect_request *r, struct sf_arena *arena,
               struct sf_err *err)
{
    struct inspect in = {.arena = arena, .out = stdout, .width = columns_terminal_width(stdout)};
    struct sf_map *map = NULL;
    if (verb->function == inspect_diff)
        return tool_told_all(inspect_diff(&in, r, err), err);
    int code = verb->whole ? sf_map_open(&map, r->operand[0], err)
                           : sf_map_open_glance(&map, r->operand[0], err);
    if (code != SF_OK) {
        struct sf_err ignored = {0};
        if (verb->function == verify && r->json)
            inspect_verify_json_unreadable(&in, r->operand[0], err, &ignored);
        return code;
    }
    in.map = map;
    if (verb->sums || r->json)
        code = inspect_facts_gather(&in.facts, map, err);
    if (code == SF_OK)
        code = verb->function(&in, r, err);
    sf_map_close(map);
    return tool_told_all(code, err);
}

int inspect_print_written(struct inspect *in, struct sf_json_writer *w, struct sf_err *err)
{
    char *text;
    int code = sf_json_write_finish(&text, NULL, w, err);
    if (code == SF_OK)
        fprintf(in->out, "%s\n", text);
    return code;
}

/* Every option that was given must be one of the verb's. */
static int check_options(const struct verb *verb, const struct tool_args *args)
{
    for (int i = 0; i < args->options; i++) {
        char word[32];
        snprintf(word, sizeof word, " %s ", args->option[i].name);
        if (tool_was_given(args, args->option[i].name) && !strstr(verb->options, word))
            return tool_usage(PROGRAM, "--%s does not go with %s", args->option[i].name,
                              verb->name);
    }
    return TOOL_DONE;
}

/* "MODEL", or a verb and its operands. */
static int read_operands(const struct verb **verb, struct inspect_request *r,
                         const struct tool_args *args)
{
    int named = 0;
    *verb = &verbs[0];
    for (int i = 0; i < VERBS && args->operands > 0; i++)
        if (strcmp(args->operand[0], verbs[i].name) == 0) {
            *verb = &verbs[i];
            named = 1;
        }
    r->operand = args->operand + named;
    r->operands = args->operands - named;
    if (r->operands == 0)
        return tool_usage(PROGRAM, "MODEL is missing");
    if (r->operands != (*verb)->count)
        return tool_usage(PROGRAM, "%s takes %s, not %d operands", (*verb)->name, (*verb)->operands,
                          r->operands);
    if (r->threads < 0 || r->threads > 1024)
        return tool_usage(PROGRAM, "--threads is %lld, not 0..1024", (long long)r->threads);
    return check_options(*verb, args);
}

int main(int argc, char **argv)
{
    struct inspect_request r = {0};
    const struct verb *verb = NULL;
    const struct tool_option options[] = {
        {"json", 0, TOOL_FLAG, &r.json, NULL, "the same as JSON (schema: spec/inspect-json.md)"},
        {"tensors", 0, TOOL_FLAG, &r.tensors, NULL, "summary: the same as the verb tensors"},
        {"name", 0, TOOL_STRING, &r.filter.name, "GLOB",
         "tensors, report's histograms: those named so; '*' matches '.'"},
        {"layer", 0, TOOL_STRING, &r.filter.layer, "N|N-M", "tensors: those of these layers"},
        {"expert", 0, TOOL_STRING, &r.filter.expert, "N|N-M", "tensors: those of these experts"},
        {"encoding", 0, TOOL_STRING, &r.filter.encoding, "AS", "tensors: nf4, bf16, ..."},
        {"sort", 0, TOOL_STRING, &r.filter.sort, "KEY",
         "tensors: address (default), name, size, error or role"},
        {"tree", 0, TOOL_FLAG, &r.tree, NULL, "tensors: names as a tree, with sums"},
        {"depth", 0, TOOL_INT, &r.depth, "N", "tensors --tree: only so many levels"},
        {"id", 0, TOOL_LIST, &r.id, "N", "tokenizer: the token of this id; repeatable"},
        {"token", 0, TOOL_LIST, &r.token, "TEXT", "tokenizer: the id of exactly this token"},
        {"find", 0, TOOL_LIST, &r.find, "TEXT", "tokenizer: every token whose text contains this"},
        {"encode", 0, TOOL_STRING, &r.encode, "TEXT", "tokenizer: the ids of this text"},
        {"special", 0, TOOL_FLAG, &r.add_special, NULL, "with --encode: begin-of-text too"},
        {"output", 'o', TOOL_STRING, &r.output, "FILE", "extract, report: the file to write"},
        {"as", 0, TOOL_STRING, &r.as, "FORM", "extract: f32 (default), bf16, or raw planes"},
        {"plane", 0, TOOL_STRING, &r.plane, "NAME", "extract --as raw: only this plane"},
        {"rows", 0, TOOL_STRING, &r.rows, "A:B", "extract: rows A to B - 1 of each tensor"},
        {"threads", 0, TOOL_INT, &r.threads, "N", "verify, diff: threads; 0 = all processors"},
        {"against", 0, TOOL_STRING, &r.against, "HF_DIR",
         "verify: derive every tensor again from this checkpoint"},
        {"norm", 0, TOOL_FLAG, &r.norm, NULL, "experts: also each one's norm (reads them all)"},
        {"no-verify", 0, TOOL_FLAG, &r.no_verify, NULL, "report: do not read the whole payload"},
        {"all", 0, TOOL_FLAG, &r.all, NULL, "diff, verify --against: list what agrees, too"}};
    struct tool_args args = {
        .program = PROGRAM,
        .usage = USAGE,
        .about = "Shows what a container holds; verify compares every byte with its checksums.",
        .option = options,
        .options = sizeof options / sizeof options[0]};
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    tool_start();
    if (sf_nf4_check_choice(&err) != SF_OK)
        return tool_failed(PROGRAM, &err);
    if (argc > 1 && strcmp(argv[1], "plan") == 0)
        return tool_finish(PROGRAM, inspect_plan(argc - 1, argv + 1));
    int status = tool_parse(&args, argc, argv, &arena);
    if (status == TOOL_DONE && !args.help) {
        status = read_operands(&verb, &r, &args);
        if (status == TOOL_DONE && run(verb, &r, &arena, &err) != SF_OK)
            status = tool_failed(PROGRAM, &err);
    }
    status = tool_finish(PROGRAM, status);
    sf_arena_free(&arena);
    return status;
}
