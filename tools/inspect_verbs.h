/* inspect_verbs.h -- what scout-inspect's verbs get, and the functions behind them. A verb is a
 * function here and a row in scout_inspect.c's table. */
#ifndef SCOUT_TOOLS_INSPECT_VERBS_H
#define SCOUT_TOOLS_INSPECT_VERBS_H

#include "libformat/base/json.h"
#include "tools/inspect_select.h"
#include "tools/tool.h"

#define INSPECT_PROGRAM "scout-inspect"

/* The command line: operands behind the verb (the first is the MODEL), and the options. */
struct inspect_request {
    bool json, tensors, tree;
    int64_t threads, depth;
    struct inspect_filter filter;
    struct tool_list id, token, find; /* tokenizer */
    const char *encode;
    bool add_special;
    bool all;                               /* diff, verify --against: what agrees, too */
    bool norm;                              /* experts */
    const char *against;                    /* verify */
    bool no_verify;                         /* report */
    const char *output, *as, *plane, *rows; /* extract */
    const char *const *operand;
    int operands;
};

/* Prints to in->out. `in` is an open map with its facts, and an arena for the run. */
typedef int inspect_function(struct inspect *in, const struct inspect_request *r,
                             struct sf_err *err);
inspect_function inspect_tensors, inspect_layout, inspect_experts, inspect_config, inspect_files,
    inspect_file, inspect_tokenizer, inspect_extract, inspect_against, inspect_report;
/* diff opens its operands itself: no map, no facts. */
inspect_function inspect_diff;

/* For tool_progress: context is the struct. */
void inspect_show_progress(void *context, uint64_t done, uint64_t total);

/* What lies in each extent: how many planes, how many bytes between and behind them; in the arena. */
struct inspect_fill {
    int64_t planes, holes;
    uint64_t padding;
};
int inspect_fill_gather(struct inspect_fill **out, struct inspect *in, struct sf_err *err);

/* Finishes the text of `w` and prints it with a newline. */
int inspect_print_written(struct inspect *in, struct sf_json_writer *w, struct sf_err *err);

#endif
