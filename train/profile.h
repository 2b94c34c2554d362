/* profile.h -- where the time of a step goes: seconds by op and phase.
 *
 * A profile marks the stream of ops before each node and behind the last, and adds up what lies
 * between (kernels/ops.h, sk_stopwatch). Life: open, run tapes between begin and end, close; the sums
 * stay until then. Timing costs a little: the host waits for the device after every tape. */
#ifndef SCOUT_TRAIN_PROFILE_H
#define SCOUT_TRAIN_PROFILE_H

#include "train/plan/tape.h"

enum sft_phase { SFT_FORWARD, SFT_AGAIN, SFT_BACKWARD, SFT_PHASES };
const char *sft_phase_name(enum sft_phase phase); /* "forward", "again", "backward" */

struct sft_profile {
    double seconds[SFT_PHASES][SK_OP_COUNT];
    int64_t calls[SFT_PHASES][SK_OP_COUNT];
    const struct sk_ops *ops;
    struct sk_watch *watch;
    double *interval; /* [most nodes] */
};

/* For tapes of at most `nodes` nodes. `arena` outlives the profile. */
int sft_profile_open(struct sft_profile *out, struct sf_arena *arena, const struct sk_ops *ops,
                     struct sk_ctx *ctx, int64_t nodes, struct sf_err *err);
void sft_profile_close(struct sft_profile *profile); /* a zeroed one is welcome; sums stay */
/* Before `node`, number `index` of a run. */
int sft_profile_mark(struct sft_profile *profile, int64_t index, const struct sft_node *node,
                     struct sf_err *err);
/* Behind a run of nodes first .. first + count of the tape: adds its times. */
int sft_profile_add(struct sft_profile *profile, const struct sft_tape *tape, int32_t first,
                    int32_t count, struct sf_err *err);

#endif
