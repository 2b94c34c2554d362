#include "train/schedule.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {
    [SFT_SCHEDULE_LINEAR] = "linear",
    [SFT_SCHEDULE_COSINE] = "cosine",
    [SFT_SCHEDULE_CONSTANT] = "constant",
    [SFT_SCHEDULE_CONSTANT_WITH_WARMUP] = "constant_with_warmup",
    [SFT_SCHEDULE_COSINE_WITH_MIN_LR] = "cosine_with_min_lr",
};
enum { KINDS = sizeof names / sizeof names[0] };

const char *sft_schedule_name(enum sft_schedule_kind kind)
{
    return names[kind];
}

bool sft_schedule_from_name(enum sft_schedule_kind *out, const char *name)
{
    for (int i = 0; i < KINDS; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (enum sft_schedule_kind)i;
            return true;
        }
    }
    return false;
}

/* a / max(1, b), as transformers guards its divisions. */
static double share(int64_t a, int64_t b)
{
    return (double)a / (double)(b > 1 ? b : 1);
}

static double half_cosine(const struct sft_schedule *s, int64_t step)
{
    const double pi = 3.14159265358979323846;
    return 0.5 * (1 + cos(pi * share(step - s->warmup, s->steps - s->warmup)));
}

static double factor(const struct sft_schedule *s, int64_t step)
{
    if (s->kind == SFT_SCHEDULE_CONSTANT)
        return 1;
    if (step < s->warmup)
        return share(step, s->warmup);
    if (s->kind == SFT_SCHEDULE_CONSTANT_WITH_WARMUP)
        return 1;
    if (s->kind == SFT_SCHEDULE_COSINE)
        return fmax(0, half_cosine(s, step));
    if (s->kind == SFT_SCHEDULE_COSINE_WITH_MIN_LR)
        return fmax(0, half_cosine(s, step) * (1 - s->least) + s->least);
    return fmax(0, share(s->steps - step, s->steps - s->warmup));
}

double sft_schedule_rate(const struct sft_schedule *schedule, int64_t step)
{
    return schedule->rate * factor(schedule, step);
}

int64_t sft_schedule_warmup(double ratio, int64_t steps)
{
    return (int64_t)ceil(ratio * (double)steps);
}
