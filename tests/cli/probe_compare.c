/* Two safetensors files: every float32 tensor of the reference must be in the other one, with the
 * same shape, within a relative distance (norm of the difference over norm of the reference).
 *
 *     probe_compare OURS REFERENCE BAR [LEFT_OUT...]     exit status 0 only if all of them are */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/hf/safetensors.h"

static struct sf_err err;

static double distance(const struct sf_tensor *got, const struct sf_tensor *want)
{
    double difference = 0, norm = 0;
    for (uint64_t at = 0; at < want->bytes; at += sizeof(float)) {
        float a, b; /* views of files may lie on any byte */
        memcpy(&a, (const char *)got->data + at, sizeof a);
        memcpy(&b, (const char *)want->data + at, sizeof b);
        difference += ((double)a - b) * ((double)a - b);
        norm += (double)b * b;
    }
    return sqrt(difference) / sqrt(norm);
}

static int compare(const struct sf_safetensors *ours, const struct sf_named_tensor *want,
                   double bar, double *worst)
{
    const struct sf_tensor *got = sf_safetensors_find(ours, want->name);
    if (!got || got->dtype != SF_F32 || !sf_shape_equal(&got->shape, &want->tensor.shape))
        return fprintf(stderr, "%s: missing, or of another type or shape\n", want->name), 1;
    double off = distance(got, &want->tensor);
    if (!(off <= *worst))
        *worst = off;
    return off <= bar ? 0 : (fprintf(stderr, "%s: off by %.3g\n", want->name, off), 1);
}

static bool left_out(const char *name, char **list, int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(name, list[i]) == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    struct sf_safetensors *ours, *reference;
    if (argc < 4)
        return 2;
    double bar = atof(argv[3]), worst = 0;
    int wrong = 0, compared = 0;
    if (sf_safetensors_open(&ours, argv[1], &err) || sf_safetensors_open(&reference, argv[2], &err))
        return fprintf(stderr, "%s\n", err.message), 1;
    for (int64_t i = 0; i < sf_safetensors_count(reference); i++) {
        const struct sf_named_tensor *want = sf_safetensors_at(reference, i);
        if (want->tensor.dtype != SF_F32 || left_out(want->name, argv + 4, argc - 4))
            continue;
        wrong += compare(ours, want, bar, &worst);
        compared++;
    }
    printf("%d tensors, worst %.3g of %.3g\n", compared, worst, bar);
    sf_safetensors_close(ours);
    sf_safetensors_close(reference);
    return wrong || !compared;
}
