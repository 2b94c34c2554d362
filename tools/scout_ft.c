/* scout-ft -- plan, train, evaluate and probe a container. */
#include <stdio.h>
#include <string.h>

#include "libformat/codec/nf4.h"
#include "tools/ft_verbs.h"

static int run_verb(const struct ft_options *options, struct sf_err *err)
{
    switch (options->verb) {
    case FT_PLAN:
        return ft_plan(options, err);
    case FT_TRAIN:
        return ft_train(options, err);
    case FT_EVAL:
        return ft_eval(options, err);
    case FT_PROBE:
        return ft_probe(options, err);
    case FT_PREVIEW:
        return ft_preview(options, err);
    case FT_GENERATE:
        return ft_generate(options, err);
    case FT_ADAPTERS:
        return ft_adapters(options, err);
    }
    return SF_OK;
}

static int run(int argc, char **argv, struct sf_arena *arena)
{
    struct ft_options options;
    struct sf_err err = {0};
    if (argc < 2)
        return tool_usage(FT_PROGRAM,
                          "a verb is missing: plan, train, eval, probe, preview, generate or "
                          "adapters");
    if (strcmp(argv[1], "--help") == 0) {
        ft_options_overview();
        return TOOL_DONE;
    }
    int status = ft_options_read(&options, argc - 1, argv + 1, arena);
    if (status != TOOL_DONE || options.help)
        return status;
    int code = run_verb(&options, &err);
    if (options.verb != FT_TRAIN) /* which goes on without what it can do without */
        code = tool_told_all(code, &err);
    return code == SF_OK ? TOOL_DONE : tool_failed(FT_PROGRAM, &err);
}

int main(int argc, char **argv)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    tool_start();
    int status = sf_nf4_check_choice(&err) == SF_OK ? run(argc, argv, &arena)
                                                    : tool_failed(FT_PROGRAM, &err);
    status = tool_finish(FT_PROGRAM, status);
    sf_arena_free(&arena);
    return status;
}
