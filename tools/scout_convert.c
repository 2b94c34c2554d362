/* scout-convert -- a Hugging Face Llama 4 folder becomes one .scout container, and back
 * (export); an adapter goes into its base (merge). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/jobs.h"
#include "libformat/base/json.h"
#include "libformat/base/utf8_check.h"
#include "libformat/codec/nf4.h"
#include "libformat/container/set_name.h"
#include "libformat/convert/convert.h"
#include "libformat/convert/expect.h"
#include "libformat/hf/hf_config.h"
#include "tools/convert_export.h"
#include "tools/convert_follow.h"
#include "tools/convert_merge.h"
#include "tools/convert_report.h"
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
    const char *source, *output, *model_id, *sha256, *report, *scale, *importance, *part_text;
    struct tool_list keep;
    bool keep_unknown, requantize, dry_run, restart, follow, delete_source, delete_blobs, table,
        help;
    int64_t threads;
    uint64_t part_bytes; /* at most in a file; 0: one file */
    enum sf_scale_choice scale_choice;
};

struct job {
    const struct command *command;
    struct sf_arena arena; /* of the whole */
    struct sf_arena round; /* of what is read anew when a shard has come; so is all of the rest: */
    struct sf_carried_file file[CARRIED_NAMES];
    int64_t files;
    struct sf_model_spec spec;
    struct sf_hf_index *index;
    struct sf_policy policy;
    struct sf_importance *importance; /* of the whole */
    struct sf_convert_plan plan;
    struct sf_journal *journal;   /* NULL in a dry run */
    struct sf_arrivals *arrivals; /* NULL unless it matters which shards are whole */
    const char *model_id;
    bool finished; /* nothing to do */
    struct tool_progress progress;
};

static int read_command(struct command *c, int argc, char **argv, struct sf_arena *arena)
{
    *c = (struct command){.threads = sf_cpu_count(), .scale = "absmax"};
    const struct tool_option options[] = {
        {"output", 'o', TOOL_STRING, &c->output, "FILE", "the container to write (needed)"},
        {"keep-bf16", 0, TOOL_LIST, &c->keep, "GLOB",
         "keep matrices whose name matches unquantized; repeatable, '*' keeps all"},
        {"keep-unknown", 0, TOOL_FLAG, &c->keep_unknown, "",
         "carry tensors of unknown name unused instead of refusing them"},
        {"scale", 0, TOOL_STRING, &c->scale, "HOW",
         "NF4 scales: absmax (as bitsandbytes, the default), search (least squared error, any "
         "reader decodes it) or search-signed (less error yet, some scales are negative)"},
        {"importance", 0, TOOL_STRING, &c->importance, "FILE",
         "with a search: safetensors with a vector per matrix, how much each input channel counts"},
        {"requantize", 0, TOOL_FLAG, &c->requantize, "",
         "of a 4-bit checkpoint: quantize matrices anew whose blocks run along the output axis "
         "(what is usable as it is stays as it is)"},
        {"model-id", 0, TOOL_STRING, &c->model_id, "ID",
         "the base model's id (default: _name_or_path of the config, or the folder's name)"},
        {"max-part-size", 0, TOOL_STRING, &c->part_text, "SIZE",
         "several files of at most this (4GB, 2GiB) instead of one: MODEL-00001-of-00003.scout and "
         "so on; the first, which has no tensors, is the one to name"},
        {"dry-run", 0, TOOL_FLAG, &c->dry_run, "", "print what would be written, tensor by tensor"},
        {"restart", 0, TOOL_FLAG, &c->restart, "",
         "forget what an interrupted conversion to FILE has done"},
        {"follow", 0, TOOL_FLAG, &c->follow, "",
         "convert shards while they are being downloaded; one counts when it is renamed into "
         "place, has NAME.done beside it, or has the SHA-256 of --sha256 or of the hub's cache"},
        {"sha256", 0, TOOL_STRING, &c->sha256, "FILE",
         "what sha256sum writes: a shard counts only when its hash is the one given there"},
        {"delete-source", 0, TOOL_FLAG, &c->delete_source, "",
         "delete each shard once all of it is safe in the container in the making"},
        {"delete-blobs", 0, TOOL_FLAG, &c->delete_blobs, "",
         "with --delete-source: where a shard is a link, delete what it leads to, too"},
        {"table", 0, TOOL_FLAG, &c->table, "",
         "print the error of every tensor, not of every part"},
        {"report", 0, TOOL_STRING, &c->report, "FILE",
         "write all of it as JSON, with time and rate"},
        {"threads", 0, TOOL_INT, &c->threads, "N", "worker threads (default: all processors)"},
    };
    struct tool_args args = {.program = PROGRAM,
                             .usage =
                                 "scout-convert HF_DIR -o MODEL.scout [options]\n"
                                 "       scout-convert export MODEL.scout --to FORMAT -o HF_DIR\n"
                                 "       scout-convert merge --base HF_DIR --adapter DIR -o HF_DIR",
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
    if (c->dry_run && (c->follow || c->delete_source))
        return tool_usage(PROGRAM, "--dry-run goes with neither --follow nor --delete-source");
    if (c->delete_blobs && !c->delete_source)
        return tool_usage(PROGRAM, "--delete-blobs says how --delete-source deletes: give both");
    if (!sf_scale_choice_parse(&c->scale_choice, c->scale))
        return tool_usage(PROGRAM, "--scale takes absmax, search or search-signed, not %s",
                          c->scale);
    if (c->importance && c->scale_choice == SF_SCALE_ABSMAX)
        return tool_usage(PROGRAM, "--importance weighs what --scale search or search-signed "
                                   "searches: give both");
    if (c->part_text && (!tool_size_from_text(&c->part_bytes, c->part_text) || !c->part_bytes))
        return tool_usage(PROGRAM, "--max-part-size \"%s\" is no size such as 4GB or 2GiB",
                          c->part_text);
    if (c->threads < 1 || c->threads > 1024)
        return tool_usage(PROGRAM, "--threads takes 1 to 1024");
    c->source = args.operand[0];
    return TOOL_DONE;
}

/* ---- inputs ---- */

/* While shards are still coming only config.json is read: the others may be coming, too. */
static int read_carried(struct job *job, int most, struct sf_err *err)
{
    job->files = 0;
    for (int i = 0; i < most; i++) {
        char *data, *path = sf_path_join(&job->round, job->command->source, carried_names[i]);
        uint64_t bytes;
        if (!path)
            return sf_fail(err, SF_ENOMEM, "no memory for file names");
        if (i > 0 && !sf_file_exists(path))
            continue;
        int code = sf_read_file(&data, &bytes, &job->round, path, LARGEST_CARRIED, err);
        if (code != SF_OK)
            return code;
        job->file[job->files++] = (struct sf_carried_file){carried_names[i], data, bytes};
    }
    return SF_OK;
}

static int read_spec(struct job *job, struct sf_err *err)
{
    int code = read_carried(job, 1, err);
    if (code != SF_OK)
        return code;
    const struct sf_carried_file *config = &job->file[0];
    code = sf_hf_config_parse(&job->spec, &job->round, config->data, config->bytes, err);
    return code == SF_OK ? code : sf_err_prefix(err, "%s/%s", job->command->source, config->name);
}

/* Beginning anew without a shard that is gone would lose what was made of it. */
static int check_restart(struct job *job, struct sf_err *err)
{
    const struct command *c = job->command;
    int64_t count;
    const struct sf_hf_memory *m = sf_journal_shards(&count, job->journal);
    for (int64_t i = 0; i < count; i++) {
        const char *path = sf_path_join(&job->round, c->source, m[i].name);
        if (!path)
            return sf_fail(err, SF_ENOMEM, "no memory for file names");
        if (!sf_file_exists(path))
            return sf_fail(err, SF_EINVAL,
                           "%s is gone, and --restart would lose what was converted of it; if that "
                           "is meant, delete %s.partial and %s.journal",
                           path, c->output, c->output);
    }
    int code = sf_journal_clear(job->journal, err);
    return code == SF_OK ? sf_writer_forget(c->output, err) : code;
}

/* The journal is the lock on the output, and it remembers shards that may be gone. */
static int open_journal(struct job *job, struct sf_err *err)
{
    const struct command *c = job->command;
    int code = sf_journal_open(&job->journal, c->output, err);
    return code == SF_OK && c->restart ? check_restart(job, err) : code;
}

static bool go_on_hashing(void *context)
{
    (void)context;
    return !tool_interrupted();
}

static int open_arrivals(struct job *job, struct sf_err *err)
{
    const struct command *c = job->command;
    struct sf_arrivals_options options = {.sha256_list = c->sha256, .go_on = go_on_hashing};
    if (!c->follow && !c->sha256)
        return SF_OK;
    tool_catch_signals();
    int code = sf_arrivals_open(&job->arrivals, c->source, &options, err);
    return code == SF_OK && c->follow ? follow_start(job->arrivals, c->source, err) : code;
}

static int open_index(struct job *job, struct sf_err *err)
{
    const struct command *c = job->command;
    struct sf_hf_open open = {.arrivals = job->arrivals, .expect = c->follow};
    if (job->journal)
        open.memory = sf_journal_shards(&open.memories, job->journal);
    int code = sf_hf_index_open_with(&job->index, c->source, &open, err);
    if (code == SF_OK && c->follow)
        code = sf_expect_suppose(job->index, &job->spec, err);
    return code;
}

/* Its scales and maps are read with every plan, so what is gone could not be gone on with. */
static int check_quantized(const struct job *job, struct sf_err *err)
{
    const struct command *c = job->command;
    const struct sf_convert_plan *plan = &job->plan;
    if (c->delete_source && plan->taken + plan->requantized > 0)
        return sf_fail(err, SF_EINVAL, "--delete-source does not go with a 4-bit checkpoint");
    if (c->requantize && plan->requantized == 0)
        return sf_fail(err, SF_EINVAL,
                       "--requantize: no matrix of this checkpoint has its blocks along the output "
                       "axis");
    return SF_OK;
}

static int build_plan(struct job *job, struct sf_err *err)
{
    const struct command *c = job->command;
    job->policy = (struct sf_policy){
        .keep = c->keep.item,
        .keep_count = c->keep.count,
        .keep_used = sf_arena_array(&job->round, (uint64_t)c->keep.count, sizeof(bool)),
        .scale = c->scale_choice,
        .importance = job->importance,
        .requantize = c->requantize};
    if (!job->policy.keep_used)
        return sf_fail(err, SF_ENOMEM, "no memory for patterns");
    int code = sf_convert_plan_build(&job->plan, &job->spec, job->index, &job->policy,
                                     c->keep_unknown, err);
    if (code == SF_OK && c->part_bytes)
        code = sf_layout_split(job->plan.layout, c->part_bytes, err);
    if (code == SF_OK)
        code = check_quantized(job, err);
    return code == SF_OK || code == SF_EINVAL ? code : sf_err_prefix(err, "%s", c->source);
}

static void close_round(struct job *job)
{
    sf_convert_plan_free(&job->plan);
    sf_hf_index_close(job->index);
    job->index = NULL;
    sf_arena_free(&job->round);
}

/* Reads what is there now; the first time, and when a shard has come. */
static int open_round(struct job *job, struct sf_err *err)
{
    const struct command *c = job->command;
    int code = read_spec(job, err);
    if (code == SF_OK)
        code = open_index(job, err);
    while (code == SF_OK && !follow_can_begin(job->index)) {
        code = follow_shard(job->arrivals, job->index, NULL, err);
        sf_hf_index_close(job->index);
        job->index = NULL;
        if (code == SF_OK)
            code = open_index(job, err);
    }
    if (code == SF_OK && follow_is_complete(job->index))
        code = read_carried(job, CARRIED_NAMES, err);
    for (int64_t i = 0; code == SF_OK && c->follow && i < job->files; i++) {
        if (follow_file_is_whole(&job->file[i]))
            continue;
        code = follow_file(job->arrivals, job->file[i].name, err);
        if (code == SF_OK)
            code = read_carried(job, CARRIED_NAMES, err);
        i = -1;
    }
    return code == SF_OK ? build_plan(job, err) : code;
}

static void close_job(struct job *job)
{
    close_round(job);
    sf_importance_close(job->importance);
    sf_journal_close(job->journal);
    sf_arrivals_close(job->arrivals);
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
    if (c->requantize)
        text = *text ? "keep-unknown requantize" : "requantize";
    for (int64_t i = 0; i < c->keep.count && text; i++)
        text = sf_arena_printf(&job->arena, "%s%skeep-bf16=%s", text, *text ? " " : "",
                               c->keep.item[i]);
    if (text && c->scale_choice != SF_SCALE_ABSMAX)
        text = sf_arena_printf(&job->arena, "%s%sscale=%s", text, *text ? " " : "", c->scale);
    if (text && job->importance) { /* what is in it, whatever it is called */
        struct sf_hash128 hash = sf_importance_hash(job->importance);
        text = sf_arena_printf(&job->arena, "%s importance=%016llx%016llx", text,
                               (unsigned long long)hash.high, (unsigned long long)hash.low);
    }
    return text ? text : "";
}

static int open_job(struct job *job, const struct command *c, struct sf_err *err)
{
    struct sf_file_stat stat;
    job->command = c;
    int code = sf_file_stat(&stat, c->source, err);
    if (code == SF_OK && !stat.is_directory)
        code = sf_fail(err, SF_EINVAL, "%s: not a directory", c->source);
    if (code == SF_OK)
        code = open_arrivals(job, err);
    if (code == SF_OK) /* before the journal is made: a folder without config.json leaves nothing */
        code = read_spec(job, err);
    if (code == SF_OK && c->importance)
        code = sf_importance_open(&job->importance, c->importance, err);
    if (code == SF_OK && !c->dry_run)
        code = open_journal(job, err);
    if (code != SF_OK)
        return code;
    job->model_id = model_id_of(job, c);
    job->finished = c->delete_source && sf_journal_count(job->journal) == 0 &&
                    follow_is_finished(c->output, c->part_bytes, c->source, &job->file[0],
                                       job->model_id, options_text(job, c));
    return job->finished ? SF_OK : open_round(job, err);
}

/* ---- the conversion ---- */

static bool show_progress(void *context, uint64_t done, uint64_t total)
{
    struct job *job = context;
    tool_progress_show(&job->progress, done, total);
    return !tool_interrupted();
}

static int delete_shard(void *context, const struct sf_hf_shard *shard, struct sf_err *err)
{
    struct job *job = context;
    tool_progress_pause(&job->progress);
    return follow_delete(sf_safetensors_path(shard->file), job->command->delete_blobs, err);
}

/* As far as the shards that are there allow. */
static int convert_round(struct sf_convert_result *result, struct job *job, struct sf_err *err)
{
    const struct command *c = job->command;
    struct sf_convert_options options = {.threads = (int)c->threads,
                                         .model_id = job->model_id,
                                         .converter = "scout-convert " SCOUT_VERSION,
                                         .options_text = options_text(job, c),
                                         .file = job->file,
                                         .files = job->files,
                                         .on_progress = show_progress,
                                         .on_source_done = c->delete_source ? delete_shard : NULL,
                                         .context = job,
                                         .may_wait = c->follow};
    return sf_convert_go_on(result, &job->plan, job->journal, c->output, &options, err);
}

static int next_round(struct job *job, const struct sf_convert_result *so_far, struct sf_err *err)
{
    tool_progress_pause(&job->progress);
    int code = follow_shard(job->arrivals, job->index, job->plan.needed, err);
    close_round(job);
    if (code == SF_OK)
        code = sf_journal_reload(job->journal, err);
    if (code == SF_OK)
        code = open_round(job, err);
    if (code == SF_EINTERRUPTED && so_far->done_bytes > 0)
        sf_fail(err, code,
                "interrupted while waiting for shards; what is done is kept, the same "
                "command goes on from there");
    return code;
}

/* The file to name from now on, and the bytes of all files. */
static int measure(const char **path, uint64_t *bytes, struct job *job, struct sf_err *err)
{
    const struct sf_layout *layout = job->plan.layout;
    struct sf_file_stat stat;
    *path = sf_set_name(&job->arena, job->command->output, 1, sf_layout_files(layout));
    int code = *path ? sf_file_stat(&stat, *path, err)
                     : sf_fail(err, SF_ENOMEM, "no memory for file names");
    *bytes = code == SF_OK ? stat.bytes : 0;
    for (int64_t file = 2; file <= sf_layout_files(layout); file++)
        *bytes += sf_layout_file_bytes(layout, file);
    return code;
}

static int report(struct job *job, const struct sf_convert_result *first, struct sf_err *err)
{
    const struct command *c = job->command;
    const char *path;
    uint64_t bytes;
    int measured = measure(&path, &bytes, job, err);
    if (measured != SF_OK)
        return measured;
    struct report_facts facts = {.source = c->source,
                                 .container = path,
                                 .container_files = sf_layout_files(job->plan.layout),
                                 .model_id = job->model_id,
                                 .converter = "scout-convert " SCOUT_VERSION,
                                 .options = options_text(job, c),
                                 .container_bytes = bytes,
                                 .kept_bytes = first->kept_bytes,
                                 .payload_bytes = sf_layout_payload_bytes(job->plan.layout),
                                 .threads = c->threads,
                                 .seconds = tool_now() - job->progress.started};
    int code = report_print(&job->plan, &facts, c->table, err);
    return code == SF_OK && c->report ? report_write(c->report, &job->plan, &facts, err) : code;
}

static int convert(struct job *job, struct sf_err *err)
{
    struct sf_convert_result first, result;
    int code = check_model_id(job->model_id, err);
    if (code != SF_OK)
        return code;
    tool_catch_signals();
    tool_progress_begin(&job->progress, "converting");
    code = convert_round(&first, job, err);
    for (result = first; code == SF_OK && result.waits;) {
        code = next_round(job, &result, err);
        if (code == SF_OK)
            code = convert_round(&result, job, err);
    }
    tool_progress_end(&job->progress);
    return code == SF_OK ? report(job, &first, err) : code;
}

int main(int argc, char **argv)
{
    struct sf_err err = {0};
    struct command command;
    struct job job = {0};
    tool_start();
    if (sf_nf4_check_choice(&err) != SF_OK)
        return tool_failed(PROGRAM, &err);
    if (argc > 1 && strcmp(argv[1], "export") == 0)
        return tool_finish(PROGRAM, convert_export(argc - 1, argv + 1));
    if (argc > 1 && strcmp(argv[1], "merge") == 0)
        return tool_finish(PROGRAM, convert_merge(argc - 1, argv + 1));
    int status = read_command(&command, argc, argv, &job.arena);
    if (status == TOOL_DONE && !command.help) {
        int code = open_job(&job, &command, &err);
        if (code == SF_OK && command.dry_run)
            report_plan(&job.plan);
        else if (code == SF_OK && job.finished)
            printf("%s: is finished already, of shards that are gone\n", command.output);
        else if (code == SF_OK)
            code = convert(&job, &err);
        if (code != SF_OK)
            status = tool_failed(PROGRAM, &err);
    }
    close_job(&job);
    return tool_finish(PROGRAM, status);
}
