#include "train/run_state.h"

#include <math.h>
#include <stddef.h>

struct sft_run_state sft_run_state_new(void)
{
    return (struct sft_run_state){.first_loss = NAN,
                                  .last_loss = NAN,
                                  .evaluated = -1,
                                  .eval_before = NAN,
                                  .eval_last = NAN,
                                  .best_loss = NAN,
                                  .best_step = -1};
}

bool sft_run_state_evaluated(struct sft_run_state *state, double loss, double threshold)
{
    state->evaluated = state->step;
    state->eval_last = loss;
    if (state->step == 0) {
        state->eval_before = loss;
        return false;
    }
    bool first = state->best_step < 0, lower = first || loss < state->best_loss;
    if (first || (lower && state->best_loss - loss > threshold))
        state->worse = 0;
    else
        state->worse++;
    if (lower) {
        state->best_loss = loss;
        state->best_step = state->step;
    }
    return lower;
}

/* ---- as JSON ---- */

static const struct {
    const char *name;
    size_t offset;
    int64_t least;
} counts[] = {
    {"step", offsetof(struct sft_run_state, step), 0},
    {"tokens", offsetof(struct sft_run_state, tokens), 0},
    {"skipped", offsetof(struct sft_run_state, skipped), 0},
    {"skipped_last", offsetof(struct sft_run_state, skipped_last), 0},
    {"evaluated", offsetof(struct sft_run_state, evaluated), -1},
    {"best_step", offsetof(struct sft_run_state, best_step), -1},
    {"worse", offsetof(struct sft_run_state, worse), 0},
};
static const struct {
    const char *name;
    size_t offset;
} losses[] = {
    {"first_loss", offsetof(struct sft_run_state, first_loss)},
    {"last_loss", offsetof(struct sft_run_state, last_loss)},
    {"eval_before", offsetof(struct sft_run_state, eval_before)},
    {"eval_last", offsetof(struct sft_run_state, eval_last)},
    {"best_loss", offsetof(struct sft_run_state, best_loss)},
};
enum { COUNTS = sizeof counts / sizeof counts[0], LOSSES = sizeof losses / sizeof losses[0] };

void sft_run_state_write(struct sf_json_writer *w, const char *key,
                         const struct sft_run_state *state)
{
    const char *base = (const char *)state;
    sf_json_write_object(w, key);
    for (int i = 0; i < COUNTS; i++)
        sf_json_write_int(w, counts[i].name,
                          *(const int64_t *)(const void *)(base + counts[i].offset));
    for (int i = 0; i < LOSSES; i++) /* NAN becomes null */
        sf_json_write_double(w, losses[i].name,
                             *(const double *)(const void *)(base + losses[i].offset));
    sf_json_write_end(w, '}');
}

static int read_count(int64_t *out, const struct sf_json *object, int i, struct sf_err *err)
{
    int code = sf_json_as_int(out, sf_json_get(object, counts[i].name), counts[i].name, err);
    if (!code && *out < counts[i].least)
        code = sf_fail(err, SF_EFORMAT, "%s is %lld", counts[i].name, (long long)*out);
    return code;
}

static int read_loss(double *out, const struct sf_json *object, int i, struct sf_err *err)
{
    const struct sf_json *value = sf_json_get(object, losses[i].name);
    *out = NAN;
    if (value && sf_json_type(value) == SF_JSON_NULL)
        return SF_OK;
    return sf_json_as_double(out, value, losses[i].name, err);
}

int sft_run_state_read(struct sft_run_state *out, const struct sf_json *object, struct sf_err *err)
{
    char *base = (char *)out;
    int code = SF_OK;
    for (int i = 0; !code && i < COUNTS; i++)
        code = read_count((int64_t *)(void *)(base + counts[i].offset), object, i, err);
    for (int i = 0; !code && i < LOSSES; i++)
        code = read_loss((double *)(void *)(base + losses[i].offset), object, i, err);
    if (!code && (out->evaluated > out->step || out->best_step > out->step))
        code = sf_fail(err, SF_EFORMAT, "evaluated at step %lld, best at %lld, but %lld are done",
                       (long long)out->evaluated, (long long)out->best_step, (long long)out->step);
    return code;
}
