/* inspect_plan.h -- what training takes on named cards, by the code of scout-ft plan. */
#ifndef SCOUT_TOOLS_INSPECT_PLAN_H
#define SCOUT_TOOLS_INSPECT_PLAN_H

#include "tools/ft_plan.h"

struct inspect_card {
    const char *name; /* "h100-80", or as it was given */
    uint64_t bytes;   /* as CUDA tells it */
};
/* The cards that are known by name; a name of NULL ends. */
extern const struct inspect_card inspect_cards[];

/* A run on one card. */
struct inspect_card_plan {
    struct inspect_card card;
    bool fits;
    struct sf_err why; /* where it does not: the figures and what would */
    struct ft_fit fit;
    uint64_t step_bytes, used_bytes, host_bytes;
};
/* Everything but not fitting is an error. */
int inspect_card_plan_make(struct inspect_card_plan *out, const struct ft_options *options,
                           const struct inspect_card *card, struct sf_err *err);

/* scout-inspect plan: argv[0] is the verb. Returns a tool_status. */
int inspect_plan(int argc, char **argv);

#endif
