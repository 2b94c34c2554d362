/* The verb adapters: what an adapter holds and what serves it; the same adapter in another form. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/adapter/adapter_source.h"
#include "libformat/adapter/adapter_vllm.h"
#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/convert/base_copy.h"
#include "tools/columns.h"
#include "tools/ft_verbs.h"

/* Modules of one name, rank and alpha. */
struct group {
    enum sf_part part;
    int64_t rank, groups, modules, parameters, untrained;
    double alpha, scale, norm_a, norm_b; /* Frobenius, over all of them */
    int32_t first, last;                 /* layers; -1: outside */
};

struct adapters {
    const struct ft_options *options;
    struct sf_arena arena;
    struct ft_model model;            /* --model; else empty */
    const struct sf_model_spec *spec; /* its; else NULL */
    struct sf_adapter_source *source;
    const struct sf_adapter *about;
    struct group *group;
    int64_t groups;
    int64_t modules, parameters, untrained;
};

/* ---- what is in it ---- */

static double sum_of_squares(const float *x, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

static struct group *group_of(struct adapters *a, const struct sf_adapter_module *m)
{
    for (int64_t i = 0; i < a->groups; i++) {
        struct group *g = &a->group[i];
        if (g->part == m->role.part && g->rank == m->rank && g->alpha == m->alpha)
            return g;
    }
    struct group *g = &a->group[a->groups++];
    *g = (struct group){.part = m->role.part,
                        .rank = m->rank,
                        .groups = m->groups,
                        .alpha = m->alpha,
                        .scale = m->scale,
                        .first = m->role.layer};
    return g;
}

/* A module whose B is zero changes nothing: that is how training starts. */
static void count_module(struct adapters *a, const struct sf_adapter_module *m)
{
    struct group *g = group_of(a, m);
    int64_t in_a = m->groups * m->rank * m->in, in_b = m->groups * m->out * m->rank;
    double b = sum_of_squares(m->b, in_b);
    g->modules++;
    g->parameters += in_a + in_b;
    g->norm_a += sum_of_squares(m->a, in_a);
    g->norm_b += b;
    g->untrained += b == 0;
    g->last = m->role.layer;
    a->modules++;
    a->parameters += in_a + in_b;
    a->untrained += b == 0;
}

/* Module by module: experts of rank 16 are 1.8 GB for Scout. */
static int look(struct adapters *a, struct sf_err *err)
{
    struct sf_arena arena = {0};
    int code = SF_OK;
    a->group = sf_arena_array(&a->arena, (uint64_t)a->about->modules + 1, sizeof *a->group);
    if (!a->group)
        return sf_fail(err, SF_ENOMEM, "no memory for a list of modules");
    for (int64_t i = 0; i < a->about->modules && !code; i++) {
        struct sf_adapter_module module;
        code = sf_adapter_load(&module, &arena, a->source, i, err);
        if (!code)
            count_module(a, &module);
        sf_arena_reset(&arena);
    }
    sf_arena_free(&arena);
    for (int64_t i = 0; i < a->groups; i++) {
        a->group[i].norm_a = sqrt(a->group[i].norm_a);
        a->group[i].norm_b = sqrt(a->group[i].norm_b);
    }
    return code;
}

/* ---- what serves it ---- */

enum { SERVERS = 3 };
struct served {
    const char *by;
    bool as_it_is;
    const char *how; /* what else is to be done or known; "" */
};

static bool has_experts(const struct sf_adapter *about)
{
    for (int64_t i = 0; i < about->modules; i++)
        if (about->module[i].groups > 1 || sf_part_is_expert(about->module[i].role.part))
            return true;
    return false;
}

static struct served by_peft(const struct adapters *a)
{
    struct served s = {"transformers + PEFT", true, ""};
    if (a->about->for_vllm)
        return (struct served){s.by, false, "the rows of q and k are in vLLM's order"};
    if (has_experts(a->about))
        s.how = a->about->layout == SF_ADAPTER_SWAPPED
                    ? "PEFT 0.19.1 or newer; for an older one --peft-layout natural"
                    : "PEFT 0.17.0 to 0.19.0, and Unsloth; for a newer one --peft-layout swapped";
    return s;
}

static struct served by_vllm(struct adapters *a)
{
    struct served s = {"vLLM", true, ""};
    const char *why = sf_adapter_vllm_refusal(&a->arena, a->about);
    if (why)
        return (struct served){s.by, false, why};
    if (!a->about->for_vllm &&
        (a->about->prefix != SF_ADAPTER_MULTIMODAL || sf_adapter_vllm_permutes(a->about)))
        return (struct served){s.by, false, "write it with --for vllm, which it can serve"};
    return s;
}

/* Copies of the base's weights need the base. */
static int check_usable(const struct adapters *a, struct sf_err *err)
{
    struct sf_adapter_base base = sf_base_in_container(a->model.map);
    return sf_adapter_check_usable(a->source, a->options->adapter, a->spec ? &base : NULL, err);
}

static void servers(struct served out[SERVERS], struct adapters *a)
{
    struct sf_err err = {0};
    out[0] = (struct served){"scout-ft, scout-convert merge", true, ""};
    if (check_usable(a, &err) != SF_OK) {
        const char *why = sf_arena_strdup(&a->arena, err.message);
        out[0] = (struct served){out[0].by, false, why ? why : "?"};
    }
    out[1] = by_peft(a);
    out[2] = by_vllm(a);
}

/* ---- as text ---- */

static const char *shown(struct adapters *a, const char *text)
{
    const char *escaped = text && *text ? columns_escape(&a->arena, text) : NULL;
    return escaped ? escaped : "not recorded";
}

static int print_modules(struct adapters *a, struct sf_err *err)
{
    static const struct column heads[] = {
        {"module", false, false, 0},  {"layers", false, false, 3},    {"modules", true, false, 0},
        {"experts", true, false, 4},  {"rank", true, false, 0},       {"alpha", true, false, 1},
        {"scale", true, false, 5},    {"parameters", true, false, 0}, {"norm of A", true, false, 2},
        {"norm of B", true, false, 0}};
    struct columns c;
    columns_begin(&c, &a->arena, heads, 10);
    for (int64_t i = 0; i < a->groups; i++) {
        const struct group *g = &a->group[i];
        columns_kept(&c, sf_adapter_module_name(g->part));
        if (g->first < 0)
            columns_kept(&c, "-");
        else
            columns_cell(&c, g->first == g->last ? "%d" : "%d..%d", g->first, g->last);
        columns_cell(&c, "%lld", (long long)g->modules);
        columns_cell(&c, "%lld", (long long)g->groups);
        columns_cell(&c, "%lld", (long long)g->rank);
        columns_cell(&c, "%g", g->alpha);
        columns_cell(&c, "%g", g->scale);
        columns_cell(&c, "%s", columns_number(&a->arena, (uint64_t)g->parameters));
        columns_cell(&c, "%.4g", g->norm_a);
        columns_cell(&c, "%.4g", g->norm_b);
    }
    return columns_print(&c, stdout, 0, columns_terminal_width(stdout), err);
}

static int print_text(struct adapters *a, struct sf_err *err)
{
    const struct sf_adapter *about = a->about;
    struct served server[SERVERS];
    char size[TOOL_SIZE_TEXT];
    printf("%s: LoRA adapter, %s of %s, %s parameters in %lld modules\n",
           shown(a, a->options->adapter), tool_size(size, sf_adapter_file_bytes(a->source)),
           about->modules ? sf_dtype_name(sf_adapter_dtype(a->source, 0)) : "nothing",
           columns_number(&a->arena, (uint64_t)a->parameters), (long long)a->modules);
    printf("  base model  %s\n", shown(a, about->base_model));
    printf("  keys        of the %s class\n", about->prefix == SF_ADAPTER_TEXT
                                                  ? "text (Llama4ForCausalLM)"
                                                  : "multimodal (Llama4ForConditionalGeneration)");
    if (has_experts(about))
        printf("  experts     %s layout\n",
               about->layout == SF_ADAPTER_SWAPPED ? "swapped" : "natural");
    printf("  LoRA        rank %lld, alpha %g, %s, dropout %g\n\n", (long long)about->rank,
           about->alpha, about->rslora ? "scale alpha / sqrt(rank)" : "scale alpha / rank",
           about->dropout);
    int code = print_modules(a, err);
    if (code)
        return code;
    if (a->untrained)
        printf("\nB is zero in %lld of %lld modules: %s changes nothing, as before training\n",
               (long long)a->untrained, (long long)a->modules,
               a->untrained == a->modules ? "the adapter" : "what they adapt");
    printf("\n");
    servers(server, a);
    for (int i = 0; i < SERVERS; i++)
        printf("%s: %s%s%s\n", server[i].by, server[i].as_it_is ? "yes" : "no",
               *server[i].how ? ", " : "", server[i].how);
    return SF_OK;
}

/* ---- as JSON ---- */

static void write_group(struct sf_json_writer *w, const struct group *g)
{
    sf_json_write_object(w, NULL);
    sf_json_write_string(w, "module", sf_adapter_module_name(g->part));
    sf_json_write_int(w, "first_layer", g->first);
    sf_json_write_int(w, "last_layer", g->last);
    sf_json_write_int(w, "modules", g->modules);
    sf_json_write_int(w, "experts", g->groups);
    sf_json_write_int(w, "rank", g->rank);
    sf_json_write_double(w, "alpha", g->alpha);
    sf_json_write_double(w, "scale", g->scale);
    sf_json_write_int(w, "parameters", g->parameters);
    sf_json_write_double(w, "norm_a", g->norm_a);
    sf_json_write_double(w, "norm_b", g->norm_b);
    sf_json_write_int(w, "untrained", g->untrained);
    sf_json_write_end(w, '}');
}

static int print_json(struct adapters *a, struct sf_err *err)
{
    const struct sf_adapter *about = a->about;
    struct served server[SERVERS];
    struct sf_json_writer w;
    char *text;
    sf_json_write_begin(&w, &a->arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_string(&w, "schema", "scout-ft-adapters/1");
    sf_json_write_string(&w, "path", a->options->adapter);
    sf_json_write_string(&w, "base_model", about->base_model ? about->base_model : "");
    sf_json_write_string(&w, "class", about->prefix == SF_ADAPTER_TEXT ? "text" : "multimodal");
    if (has_experts(about))
        sf_json_write_string(&w, "layout",
                             about->layout == SF_ADAPTER_SWAPPED ? "swapped" : "natural");
    else
        sf_json_write_null(&w, "layout");
    sf_json_write_int(&w, "bytes", (int64_t)sf_adapter_file_bytes(a->source));
    sf_json_write_int(&w, "rank", about->rank);
    sf_json_write_double(&w, "alpha", about->alpha);
    sf_json_write_bool(&w, "rslora", about->rslora);
    sf_json_write_double(&w, "dropout", about->dropout);
    sf_json_write_int(&w, "modules", a->modules);
    sf_json_write_int(&w, "parameters", a->parameters);
    sf_json_write_int(&w, "untrained", a->untrained);
    sf_json_write_array(&w, "groups");
    for (int64_t i = 0; i < a->groups; i++)
        write_group(&w, &a->group[i]);
    sf_json_write_end(&w, ']');
    sf_json_write_array(&w, "serves");
    servers(server, a);
    for (int i = 0; i < SERVERS; i++) {
        sf_json_write_object(&w, NULL);
        sf_json_write_string(&w, "by", server[i].by);
        sf_json_write_bool(&w, "as_it_is", server[i].as_it_is);
        sf_json_write_string(&w, "how", server[i].how);
        sf_json_write_end(&w, '}');
    }
    sf_json_write_end(&w, ']');
    sf_json_write_end(&w, '}');
    int code = sf_json_write_finish(&text, NULL, &w, err);
    if (!code)
        printf("%s\n", text);
    return code;
}

/* ---- in another form ---- */

/* Rows of q and k in vLLM's order; the size of a head is the model's. */
static int turn_for_vllm(struct sf_adapter *out, struct adapters *a, struct sf_err *err)
{
    const char *why = sf_adapter_vllm_refusal(&a->arena, out);
    if (why)
        return sf_fail(err, SF_EUNSUPPORTED, "vLLM cannot serve it: %s", why);
    out->prefix = SF_ADAPTER_MULTIMODAL;
    if (!sf_adapter_vllm_permutes(out))
        return SF_OK;
    if (!a->spec)
        return sf_fail(err, SF_EINVAL,
                       "q or k is adapted, and an adapter does not say how large a "
                       "head is: give --model M.scout");
    int code = SF_OK;
    for (int64_t i = 0; i < out->modules && !code; i++)
        code = sf_adapter_vllm_permute(&out->module[i], &a->arena, a->spec->head_size, err);
    out->for_vllm = true;
    return code;
}

static int read_whole(struct sf_adapter *out, struct adapters *a, struct sf_err *err)
{
    *out = *a->about;
    out->module = sf_arena_array(&a->arena, (uint64_t)out->modules + 1, sizeof *out->module);
    int code = out->module ? check_usable(a, err)
                           : sf_fail(err, SF_ENOMEM, "no memory for a list of modules");
    for (int64_t i = 0; i < out->modules && !code; i++)
        code = sf_adapter_load(&out->module[i], &a->arena, a->source, i, err);
    return code;
}

static int convert(struct adapters *a, struct sf_err *err)
{
    const struct ft_options *o = a->options;
    struct sf_adapter adapter;
    const char *file = sf_path_join(&a->arena, o->output, "adapter_model.safetensors");
    if (!file)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    if (sf_file_exists(file) && !o->overwrite_output_dir)
        return sf_fail(err, SF_EINVAL, "%s is there; --overwrite-output-dir replaces it", file);
    int code = read_whole(&adapter, a, err);
    if (code)
        return code;
    if (o->adapter_class)
        adapter.prefix =
            strcmp(o->adapter_class, "text") == 0 ? SF_ADAPTER_TEXT : SF_ADAPTER_MULTIMODAL;
    if (o->peft_layout_name)
        adapter.layout = o->peft_layout;
    if (o->serve)
        code = turn_for_vllm(&adapter, a, err);
    return code ? code : sf_adapter_write(o->output, &adapter, a->spec, err);
}

int ft_adapters(const struct ft_options *options, struct sf_err *err)
{
    struct adapters a = {.options = options};
    int code = options->model ? ft_model_open_text(&a.model, options, err) : SF_OK;
    if (!code && options->model)
        a.spec = &a.model.spec;
    if (!code)
        code = sf_adapter_open(&a.source, options->adapter, a.spec, err);
    if (!code) {
        a.about = sf_adapter_about(a.source);
        code = look(&a, err);
    }
    if (!code && options->output)
        code = convert(&a, err);
    if (!code && options->output)
        printf("adapter in %s\n", options->output);
    else if (!code)
        code = options->json ? print_json(&a, err) : print_text(&a, err);
    sf_adapter_close(a.source);
    ft_model_close(&a.model);
    sf_arena_free(&a.arena);
    return code;
}
