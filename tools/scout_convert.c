/* scout-convert -- a Hugging Face Llama 4 folder becomes one .scout container, and back (export). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/jobs.h"
#include "libformat/base/json.h"
#include "libformat/base/utf8_check.h"
#include "libformat/convert/convert.h"
#include "libformat/hf/hf_config.h"
#include "tools/convert_export.h"
#include "tools/tool.h"

static const char PROGRAM[] = "scout-convert";
static const uint64_t LARGEST_CARRIED = 256u << 20;
enum { LONGEST_ID = 1024 };

/* What describes a model beside its weights; the first must be there. */
static const char *const carried_names[] = {
    "config.json",           "generation_config.json",   "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json",  "chat_template.jinja",
    "chat_template.json",    "preprocessor_config.json", "processor_config.json",
};
enum { CARRIED_NAMES = sizeof carried_names / sizeof carried_names[0] };

struct command {
    const char *source, *output, *model_id;
    struct tool_list keep;
    bool keep_unknown, dry_run, restart, help;
    int64_t threads;
};

struct job {
    struct sf_arena arena;
    struct sf_carried_file file[CARRIED_NAMES];
    int64_t files;
    struct sf_model_spec spec;
    struct sf_journal *journal; /* NULL in a dry run */
    struct sf_hf_index *index;
    struct sf_policy policy;
    struct sf_convert_plan plan;
};

static int read_command(struct command *c, int argc, char **argv, struct sf_arena *arena)
{
    *c = (struct command){.threads = sf_cpu_count()};
    const struct tool_option options[] = {
        {"output", 'o', TOOL_STRING, &c->output, "FILE", "the container to write (needed)"},
        {"keep-bf16", 0, TOOL_LIST, &c->keep, "GLOB",
         "keep matrices whose name matches unquantized; repeatable, '*' keeps all"},
        {"keep-unknown", 0, TOOL_FLAG, &c->keep_unknown, "",
         "carry tensors of unknown name unused instead of refusing them"},
        {"model-id", 0, TOOL_STRING, &c->model_id, "ID",
         "the base model's id (default: _name_or_path of the config, or the folder's name)"},
        {"dry-run", 0, TOOL_FLAG, &c->dry_run, "", "print what would be written, tensor by tensor"},
        {"restart", 0, TOOL_FLAG, &c->restart, "",
         "forget what an interrupted conversion to FILE has done"},
        {"threads", 0, TOOL_INT, &c->threads, "N", "worker threads (default: all processors)"},
    };
    struct tool_args args = {.program = PROGRAM,
                             .usage =
                                 "scout-convert HF_DIR -o MODEL.scout [options]\n"
                                 "       scout-convert export MODEL.scout --to FORMAT -o HF_DIR",
                             .about = "Converts a Hugging Face Llama 4 checkpoint into an NF4 "
                                      "container that maps straight into GPU memory.",
                             .option = options,
                             .options = sizeof options / sizeof options[0]};
    int status = tool_parse(&args, argc, argv, arena);
    c->help = args.help;
    if (status != TOOL_DONE || args.help)
        return status;
    if (args.operands != 1)
        return tool_usage(PROGRAM, "give one checkpoint folder, not %d", args.operands);
    if (!(c->output && *c->output) && !c->dry_run)
        return tool_usage(PROGRAM, "give the container to write with -o FILE");
    if (c->threads < 1 || c->threads > 1024)
        return tool_usage(PROGRAM, "--threads takes 1 to 1024");
    c->source = args.operand[0];
    return TOOL_DONE;
}

/* ---- inputs ---- */

static int read_carried(struct job *job, const char *directory, struct sf_err *err)
{
    for (int i = 0; i < CARRIED_NAMES; i++) {
        char *data, *path = sf_path_join(&job->arena, directory, carried_names[i]);
        uint64_t bytes;
        if (!path)
            return sf_fail(err, SF_ENOMEM, "no memory for file names");
        if (i > 0 && !sf_file_exists(path))
            continue;
        int code = sf_read_file(&data, &bytes, &job->arena, path, LARGEST_CARRIED, err);
        if (code != SF_OK)
            return code;
        job->file[job->files++] = (struct sf_carried_file){carried_names[i], data, bytes};
    }
    return SF_OK;
}

static int read_spec(struct job *job, const char *directory, struct sf_err *err)
{
    const struct sf_carried_file *config = &job->file[0];
    int code = sf_hf_config_parse(&job->spec, &job->arena, config->data, config->bytes, err);
    return code == SF_OK ? code : sf_err_prefix(err, "%s/%s", directory, config->name);
}

/* The journal is the lock on the output, and it remembers shards that may be gone. */
static int open_sources(struct job *job, const struct command *c, struct sf_err *err)
{
    const struct sf_hf_memory *memory = NULL;
    int64_t memories = 0;
    int code = c->dry_run ? SF_OK : sf_journal_open(&job->journal, c->output, err);
    if (code == SF_OK && job->journal && c->restart)
        code = sf_journal_clear(job->journal, err);
    if (code == SF_OK && job->journal)
        memory = sf_journal_shards(&memories, job->journal);
    if (code == SF_OK)
        code = sf_hf_index_open_remembering(&job->index, c->source, memory, memories, err);
    return code;
}

static int open_job(struct job *job, const struct command *c, struct sf_err *err)
{
    struct sf_file_stat stat;
    int code = sf_file_stat(&stat, c->source, err);
    if (code == SF_OK && !stat.is_directory)
        code = sf_fail(err, SF_EINVAL, "%s: not a directory", c->source);
    if (code == SF_OK)
        code = read_carried(job, c->source, err);
    if (code == SF_OK)
        code = read_spec(job, c->source, err);
    if (code == SF_OK)
        code = open_sources(job, c, err);
    if (code != SF_OK)
        return code;
    job->policy = (struct sf_policy){
        .keep = c->keep.item,
        .keep_count = c->keep.count,
        .keep_used = sf_arena_array(&job->arena, (uint64_t)c->keep.count, sizeof(bool))};
    if (!job->policy.keep_used)
        return sf_fail(err, SF_ENOMEM, "no memory for patterns");
    code = sf_convert_plan_build(&job->plan, &job->spec, job->index, &job->policy, c->keep_unknown,
                                 err);
    return code == SF_OK || code == SF_EINVAL ? code : sf_err_prefix(err, "%s", c->source);
}

static void close_job(struct job *job)
{
    sf_convert_plan_free(&job->plan);
    sf_hf_index_close(job->index);
    sf_journal_close(job->journal);
    sf_arena_free(&job->arena);
}

/* The id by which adapters will name their base. Folder names only: no path of this machine. */
static const char *model_id_of(struct job *job, const struct command *c)
{
    struct sf_json *root;
    const char *id = NULL;
    if (c->model_id)
        return c->model_id;
    if (sf_json_parse(&root, job->file[0].data, job->file[0].bytes, NULL) == SF_OK) {
        const struct sf_json *value = sf_json_get(root, "_name_or_path");
        if (value && sf_json_as_string(&id, value, "_name_or_path", NULL) == SF_OK)
            id = *id && id[0] != '/' && id[0] != '.' ? sf_arena_strdup(&job->arena, id) : NULL;
        sf_json_free(root);
    }
    if (id)
        return id;
    char *resolved = realpath(c->source, NULL);
    id = resolved ? sf_arena_strdup(&job->arena, sf_path_base(resolved)) : NULL;
    free(resolved);
    return id ? id : "";
}

/* Said now, not after hours of encoding, when the container's strings are written. */
static int check_model_id(const char *id, struct sf_err *err)
{
    bool good = strlen(id) <= LONGEST_ID && sf_utf8_valid(id, strlen(id), NULL);
    for (const char *at = id; *at && good; at++)
        good = (unsigned char)*at >= ' ' && *at != 0x7f;
    return good ? SF_OK
                : sf_fail(err, SF_EINVAL,
                          "the model id \"%s\" is not plain UTF-8 text; give one with --model-id",
                          id);
}

static const char *options_text(struct job *job, const struct command *c)
{
    const char *text = c->keep_unknown ? "keep-unknown" : "";
    for (int64_t i = 0; i < c->keep.count && text; i++)
        text = sf_arena_printf(&job->arena, "%s%skeep-bf16=%s", text, *text ? " " : "",
                               c->keep.item[i]);
    return text ? text : "";
}

/* ---- reports ---- */

struct total {
    const char *what;
    int64_t tensors;
    uint64_t bytes;
    double worst_error;
};

static uint64_t entry_bytes(const struct sf_entry *e)
{
    uint64_t bytes = 0;
    for (int p = 0; p < SF_PLANE_CODEBOOK; p++)
        bytes += e->plane[p].bytes;
    return bytes;
}

static struct total *total_of(struct total *totals, const struct sf_entry *e)
{
    if (e->role.part == SF_PART_UNUSED)
        return &totals[4];
    if (e->role.part == SF_PART_EMBEDDING || e->role.part == SF_PART_HEAD)
        return &totals[3];
    if (sf_part_is_expert(e->role.part))
        return &totals[0];
    return &totals[sf_part_is_matrix(e->role.part) ? 1 : 2];
}

static void print_totals(const struct sf_convert_plan *plan, bool errors)
{
    struct total totals[] = {{.what = "routed experts"},
                             {.what = "attention, shared and dense matrices"},
                             {.what = "routers and norms"},
                             {.what = "embedding and head"},
                             {.what = "unused by text training"}};
    char text[TOOL_SIZE_TEXT];
    for (int64_t i = 0; i < plan->rows; i++) {
        const struct sf_entry *e = plan->row[i].entry;
        struct total *t = total_of(totals, e);
        t->tensors++;
        t->bytes += entry_bytes(e);
        if (e->relative_rms_error > t->worst_error)
            t->worst_error = e->relative_rms_error;
    }
    for (size_t i = 0; i < sizeof totals / sizeof totals[0]; i++) {
        if (totals[i].tensors == 0)
            continue;
        printf("  %-38s %6lld tensors %10s", totals[i].what, (long long)totals[i].tensors,
               tool_size(text, totals[i].bytes));
        if (errors && totals[i].worst_error > 0)
            printf("   worst relative error %.4f", totals[i].worst_error);
        printf("\n");
    }
}

static void print_resident(const struct sf_convert_plan *plan)
{
    uint64_t resident = 0, host = 0, unused = 0;
    char a[TOOL_SIZE_TEXT], b[TOOL_SIZE_TEXT], c[TOOL_SIZE_TEXT], d[TOOL_SIZE_TEXT],
        e[TOOL_SIZE_TEXT];
    for (int64_t i = 0; i < sf_layout_extent_count(plan->layout); i++) {
        const struct sf_extent *x = sf_layout_extent_at(plan->layout, i);
        if (x->kind == SF_EXTENT_UNUSED)
            unused += x->bytes;
        else if (x->kind == SF_EXTENT_EMBEDDING)
            host += x->bytes;
        else
            resident += x->bytes;
    }
    printf("%lld parameters, %s of source weights\n"
           "payload %s: %s resident while training, %s of embedding on the host, %s unused\n",
           (long long)plan->parameters, tool_size(a, plan->source_bytes),
           tool_size(b, resident + host + unused), tool_size(c, resident), tool_size(d, host),
           tool_size(e, unused));
}

static void print_plan(const struct sf_convert_plan *plan)
{
    printf("%-28s %-5s %12s  %-18s %s\n", "role", "as", "bytes", "shape", "name");
    for (int64_t i = 0; i < plan->rows; i++) {
        const struct sf_entry *e = plan->row[i].entry;
        char role[SF_ROLE_TEXT], shape[SF_SHAPE_TEXT];
        printf("%-28s %-5s %12llu  %-18s %s\n", sf_role_format(role, e->role),
               e->encoding == SF_ENCODING_NF4 ? "nf4" : sf_dtype_name(e->dtype),
               (unsigned long long)entry_bytes(e), sf_shape_format(shape, &e->shape), e->name);
    }
    printf("\n");
    print_totals(plan, false);
    print_resident(plan);
}

/* ---- the conversion ---- */

static bool show_progress(void *context, uint64_t done, uint64_t total)
{
    tool_progress_show(context, done, total);
    return !tool_interrupted();
}

static int convert(struct job *job, const struct command *c, struct sf_err *err)
{
    struct tool_progress progress;
    struct sf_convert_options options = {.threads = (int)c->threads,
                                         .model_id = model_id_of(job, c),
                                         .converter = "scout-convert " SCOUT_VERSION,
                                         .options_text = options_text(job, c),
                                         .file = job->file,
                                         .files = job->files,
                                         .on_progress = show_progress,
                                         .context = &progress};
    struct sf_file_stat stat;
    int code = check_model_id(options.model_id, err);
    if (code != SF_OK)
        return code;
    tool_catch_signals();
    tool_progress_begin(&progress, "converting");
    struct sf_convert_result result;
    code = sf_convert_go_on(&result, &job->plan, job->journal, c->output, &options, err);
    tool_progress_end(&progress);
    if (code == SF_OK)
        code = sf_file_stat(&stat, c->output, err);
    if (code != SF_OK)
        return code;
    double seconds = tool_now() - progress.started;
    char size[TOOL_SIZE_TEXT], rate[TOOL_SIZE_TEXT];
    if (result.kept_bytes > 0)
        printf("went on from %s of payload that an earlier run had finished\n",
               tool_size(size, result.kept_bytes));
    print_totals(&job->plan, true);
    print_resident(&job->plan);
    printf("%s: %s, written and read back in %.1f s (%s/s of source)\n", c->output,
           tool_size(size, stat.bytes), seconds,
           tool_size(rate, (uint64_t)((double)job->plan.source_bytes / seconds)));
    return SF_OK;
}

int main(int argc, char **argv)
{
    struct sf_err err = {0};
    struct command command;
    struct job job = {0};
    tool_start();
    if (argc > 1 && strcmp(argv[1], "export") == 0)
        return tool_finish(PROGRAM, convert_export(argc - 1, argv + 1));
    int status = read_command(&command, argc, argv, &job.arena);
    if (status == TOOL_DONE && !command.help) {
        int code = open_job(&job, &command, &err);
        if (code == SF_OK && command.dry_run)
            print_plan(&job.plan);
        else if (code == SF_OK)
            code = convert(&job, &command, &err);
        if (code != SF_OK)
            status = tool_failed(PROGRAM, &err);
    }
    close_job(&job);
    return tool_finish(PROGRAM, status);
}
