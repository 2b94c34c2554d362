/* schedule.h -- the learning rate of each step, as transformers' schedulers give it.
 *
 * Step s counts from 0: step 0 of a schedule with warm-up has rate 0. */
#ifndef SCOUT_TRAIN_SCHEDULE_H
#define SCOUT_TRAIN_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

enum sft_schedule_kind {
    SFT_SCHEDULE_LINEAR,   /* up over the warm-up, then down to 0 at `steps` */
    SFT_SCHEDULE_COSINE,   /* the same, down along half a cosine */
    SFT_SCHEDULE_CONSTANT, /* no warm-up */
    SFT_SCHEDULE_CONSTANT_WITH_WARMUP,
    SFT_SCHEDULE_COSINE_WITH_MIN_LR /* like cosine, down to `least` of the rate */
};
/* "linear", "cosine", "constant", "constant_with_warmup", "cosine_with_min_lr" */
const char *sft_schedule_name(enum sft_schedule_kind kind);
bool sft_schedule_from_name(enum sft_schedule_kind *out, const char *name);

struct sft_schedule {
    enum sft_schedule_kind kind;
    double rate; /* the highest */
    int64_t steps, warmup;
    double least; /* COSINE_WITH_MIN_LR: the lowest rate, as a share of the highest */
};
double sft_schedule_rate(const struct sft_schedule *schedule, int64_t step);
/* Warm-up of `ratio` of all steps, rounded up. */
int64_t sft_schedule_warmup(double ratio, int64_t steps);

#endif
