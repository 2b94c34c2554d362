/* Any bytes as config.json: refused with a sentence, or a model whose sizes can be computed with.
 */
#include <stddef.h>
#include <stdlib.h>

#include "libformat/hf/hf_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct sf_model_spec *spec)
{
    if (spec->layers < 1 || spec->hidden < 1 || spec->head_size < 2)
        abort();
    for (int part = 0; part < SF_PART_UNUSED; part++) {
        struct sf_shape shape = sf_spec_shape(spec, (enum sf_part)part);
        for (int i = 0; i < shape.rank; i++)
            if (shape.dim[i] < 0)
                abort();
        sf_spec_has(spec, (enum sf_part)part, 0);
        sf_spec_has(spec, (enum sf_part)part, (int32_t)spec->layers - 1);
    }
    if (spec->head_size <= 1024) {
        float inv_freq[512];
        sf_rope_frequencies(inv_freq, &spec->rope, spec->head_size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sf_model_spec spec;
    if (sf_hf_config_parse(&spec, &arena, (const char *)data, size, &err) == SF_OK)
        use(&spec);
    else if (!err.message[0])
        abort();
    sf_arena_free(&arena);
    return 0;
}
