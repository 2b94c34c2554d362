#include "tools/inspect_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/json.h"
#include "libformat/base/mem.h"
#include "tools/columns.h"
#include "tools/inspect_verbs.h"

/* What cudaMemGetInfo calls the card's total. h100-80: measured (driver 580). The others: the least
 * that published error messages show, less what two decimals of GiB hide, since drivers differ by
 * some 100 MiB: 79.14 GiB (lianqi1008/Control-GIC issue 6; 79.25 in levihsu/OOTDiffusion issue 235);
 * an L40, of the same memory as the L40S, 44.40 GiB (QwenLM/Qwen3-VL issue 2097); 23.61 GiB
 * (pinokiofactory/flux-webui issue 11; 23.64 in ali-vilab/VGen issue 104). */
const struct inspect_card inspect_cards[] = {{"h100-80", 85017493504},
                                             {"a100-80", 84970559242},
                                             {"l40s", 47668768276},
                                             {"4090", 25345675755},
                                             {NULL, 0}};
enum { MOST_CARDS = 17 }; /* the last for --vram-limit */

/* ---- one card ---- */

static int keep(void *context, const struct sft_plan *plan, const struct ft_fit *fit,
                const struct sft_trainer *trainer, struct sf_err *err)
{
    struct inspect_card_plan *out = context;
    (void)trainer, (void)err;
    out->fit = *fit;
    out->step_bytes = plan->step_bytes;
    out->used_bytes = ft_fit_bytes(fit, plan);
    out->host_bytes = plan->host_bytes;
    return SF_OK;
}

int inspect_card_plan_make(struct inspect_card_plan *out, const struct ft_options *options,
                           const struct inspect_card *card, struct sf_err *err)
{
    struct ft_options o = *options;
    *out = (struct inspect_card_plan){.card = *card};
    o.device = SFT_DEVICE_CUDA;
    o.vram_limit = card->bytes;
    uint64_t failures = sf_alloc_failures();
    int code = ft_plan_make(&o, keep, out, &out->why);
    out->fits = code == SF_OK;
    if (code == SF_OK || (code == SF_ENOMEM && sf_alloc_failures() == failures))
        return SF_OK;
    *err = out->why;
    return code;
}

/* ---- the command line ---- */

struct request {
    struct sf_arena arena;
    struct ft_options options;
    struct inspect_card card[MOST_CARDS];
    int cards;
};

static int add_card(struct request *r, const char *name)
{
    struct inspect_card card = {.name = name};
    char *end;
    for (int i = 0; inspect_cards[i].name; i++)
        if (strcmp(inspect_cards[i].name, name) == 0)
            card.bytes = inspect_cards[i].bytes;
    if (!card.bytes) {
        card.bytes = strtoull(name, &end, 10);
        if (end == name || *end || *name == '-' || card.bytes == 0)
            return tool_usage(INSPECT_PROGRAM,
                              "--card is h100-80, a100-80, l40s, 4090 or a number of bytes, not "
                              "\"%s\"",
                              name);
    }
    if (r->cards == MOST_CARDS - 1)
        return tool_usage(INSPECT_PROGRAM, "more than %d cards", MOST_CARDS - 1);
    r->card[r->cards++] = card;
    return TOOL_DONE;
}

/* plan MODEL [--card C]... [options of scout-ft plan] */
static int read_request(struct request *r, int argc, char **argv)
{
    char **passed = sf_arena_array(&r->arena, (uint64_t)argc + 2, sizeof *passed);
    int n = 0, status = TOOL_DONE;
    if (!passed) {
        struct sf_err err = {0};
        sf_fail(&err, SF_ENOMEM, "no memory for the command line");
        return tool_failed(INSPECT_PROGRAM, &err);
    }
    passed[n++] = argv[0];
    for (int i = 1; i < argc && status == TOOL_DONE; i++) {
        if (strcmp(argv[i], "--card") == 0)
            status = i + 1 < argc ? add_card(r, argv[++i])
                                  : tool_usage(INSPECT_PROGRAM, "--card takes a name or bytes");
        else if (strncmp(argv[i], "--card=", 7) == 0)
            status = add_card(r, argv[i] + 7);
        else if (i == 1 && argv[i][0] != '-') {
            static char model[] = "--model";
            passed[n++] = model;
            passed[n++] = argv[i];
        } else
            passed[n++] = argv[i];
    }
    ft_program = INSPECT_PROGRAM;
    return status == TOOL_DONE ? ft_options_read(&r->options, n, passed, &r->arena) : status;
}

/* ---- several cards side by side ---- */

static void add_row(struct columns *c, const struct inspect_card_plan *p)
{
    char text[TOOL_SIZE_TEXT];
    columns_cell(c, "%s", p->card.name);
    columns_cell(c, "%s", tool_size(text, p->card.bytes));
    columns_cell(c, "%s", p->fits ? "fits" : "does not fit");
    uint64_t figures[] = {
        p->fit.weight_bytes, p->fit.adapter_bytes,
        p->step_bytes,       p->fit.library_bytes + p->fit.workspace_bytes + p->fit.reserve_bytes,
        p->used_bytes,       p->fits ? p->card.bytes - p->used_bytes : 0};
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++)
        columns_cell(c, "%s", p->fits ? tool_size(text, figures[i]) : "-");
}

static int print_table(const struct inspect_card_plan *plan, int count, struct sf_arena *arena,
                       struct sf_err *err)
{
    static const struct column heads[] = {
        {"card", false, false, 0},   {"memory", true, false, 1},  {"", false, false, 0},
        {"weights", true, false, 3}, {"adapter", true, false, 3}, {"a step", true, false, 2},
        {"CUDA", true, false, 4},    {"in all", true, false, 0},  {"left", true, false, 1}};
    struct columns c;
    columns_begin(&c, arena, heads, 9);
    for (int i = 0; i < count; i++)
        add_row(&c, &plan[i]);
    int code = columns_print(&c, stdout, 0, columns_terminal_width(stdout), err);
    for (int i = 0; i < count && code == SF_OK; i++)
        if (!plan[i].fits)
            printf("%s: %s\n", plan[i].card.name, plan[i].why.message);
    return code;
}

static void write_plan(struct sf_json_writer *w, const struct inspect_card_plan *p)
{
    sf_json_write_object(w, NULL);
    sf_json_write_string(w, "name", p->card.name);
    sf_json_write_int(w, "bytes", (int64_t)p->card.bytes);
    sf_json_write_bool(w, "fits", p->fits);
    if (p->fits) {
        sf_json_write_null(w, "why");
        sf_json_write_int(w, "library_bytes", (int64_t)p->fit.library_bytes);
        sf_json_write_int(w, "workspace_bytes", (int64_t)p->fit.workspace_bytes);
        sf_json_write_int(w, "weight_bytes", (int64_t)p->fit.weight_bytes);
        sf_json_write_int(w, "adapter_bytes", (int64_t)p->fit.adapter_bytes);
        sf_json_write_int(w, "step_bytes", (int64_t)p->step_bytes);
        sf_json_write_int(w, "reserve_bytes", (int64_t)p->fit.reserve_bytes);
        sf_json_write_int(w, "used_bytes", (int64_t)p->used_bytes);
        sf_json_write_int(w, "host_bytes", (int64_t)p->host_bytes);
    } else {
        sf_json_write_string(w, "why", p->why.message);
    }
    sf_json_write_end(w, '}');
}

static int print_json(const struct inspect_card_plan *plan, int count, const struct request *r,
                      struct sf_arena *arena, struct sf_err *err)
{
    struct sf_json_writer w;
    char *text;
    sf_json_write_begin(&w, arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_string(&w, "schema", "scout-inspect-plan/1");
    sf_json_write_string(&w, "path", r->options.model);
    sf_json_write_array(&w, "cards");
    for (int i = 0; i < count; i++)
        write_plan(&w, &plan[i]);
    sf_json_write_end(&w, ']');
    sf_json_write_end(&w, '}');
    int code = sf_json_write_finish(&text, NULL, &w, err);
    if (code == SF_OK)
        printf("%s\n", text);
    return code;
}

/* ---- the verb ---- */

/* One card, as text: all that scout-ft plan tells. */
static int plan_one(struct request *r, struct sf_err *err)
{
    struct ft_options o = r->options;
    o.device = SFT_DEVICE_CUDA;
    o.vram_limit = r->card[0].bytes;
    return ft_plan_make(&o, ft_plan_print, &o, err);
}

static int plan_all(struct request *r, struct sf_err *err)
{
    struct inspect_card_plan plan[MOST_CARDS];
    int fitting = 0, code = SF_OK;
    for (int i = 0; i < r->cards && code == SF_OK; i++) {
        code = inspect_card_plan_make(&plan[i], &r->options, &r->card[i], err);
        fitting += plan[i].fits;
    }
    if (code == SF_OK)
        code = r->options.json ? print_json(plan, r->cards, r, &r->arena, err)
                               : print_table(plan, r->cards, &r->arena, err);
    if (code == SF_OK && fitting == 0)
        code = sf_fail(err, SF_ENOMEM, "%s: it fits none of these cards", r->options.model);
    return code;
}

static int run(struct request *r, int argc, char **argv)
{
    struct sf_err err = {0};
    int status = read_request(r, argc, argv);
    if (status != TOOL_DONE || r->options.help)
        return status;
    if (r->options.device == SFT_DEVICE_CPU)
        return tool_usage(INSPECT_PROGRAM, "this plan is for cards; scout-ft plan --device cpu "
                                           "tells of the processor");
    bool named = r->cards > 0 || r->options.vram_limit;
    for (int i = 0; !named && inspect_cards[i].name; i++)
        add_card(r, inspect_cards[i].name);
    if (r->options.vram_limit)
        r->card[r->cards++] = (struct inspect_card){"--vram-limit", r->options.vram_limit};
    int code = r->cards == 1 && !r->options.json ? plan_one(r, &err) : plan_all(r, &err);
    code = tool_told_all(code, &err);
    return code == SF_OK ? TOOL_DONE : tool_failed(INSPECT_PROGRAM, &err);
}

int inspect_plan(int argc, char **argv)
{
    struct request request = {0};
    int status = run(&request, argc, argv);
    sf_arena_free(&request.arena);
    return status;
}
