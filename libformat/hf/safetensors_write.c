#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/base/mem.h"
#include "libformat/hf/safetensors.h"

/* Padded with spaces so that the data starts on 8 bytes. */
int sf_safetensors_header(char **out, uint64_t *bytes, struct sf_arena *arena,
                          const struct sf_named_tensor *tensors, int64_t count, struct sf_err *err)
{
    struct sf_json_writer w;
    uint64_t at = 0, padded = 0;
    char *text;
    sf_json_write_begin(&w, arena, 0);
    sf_json_write_object(&w, NULL);
    sf_json_write_object(&w, "__metadata__");
    sf_json_write_string(&w, "format", "pt");
    sf_json_write_end(&w, '}');
    for (int64_t i = 0; i < count; i++) {
        const struct sf_tensor *t = &tensors[i].tensor;
        uint64_t need;
        if (!sf_shape_bytes(&need, &t->shape, t->dtype) || need != t->bytes)
            return sf_fail(err, SF_EINVAL, "%s: %llu bytes do not fill its shape", tensors[i].name,
                           (unsigned long long)t->bytes);
        sf_json_write_object(&w, tensors[i].name);
        sf_json_write_string(&w, "dtype", sf_dtype_safetensors_name(t->dtype));
        sf_json_write_array(&w, "shape");
        for (int d = 0; d < t->shape.rank; d++)
            sf_json_write_int(&w, NULL, t->shape.dim[d]);
        sf_json_write_end(&w, ']');
        sf_json_write_array(&w, "data_offsets");
        sf_json_write_int(&w, NULL, (int64_t)at);
        sf_json_write_int(&w, NULL, (int64_t)(at += t->bytes));
        sf_json_write_end(&w, ']');
        sf_json_write_end(&w, '}');
    }
    sf_json_write_end(&w, '}');
    int code = sf_json_write_finish(&text, bytes, &w, err);
    if (code != SF_OK)
        return code;
    sf_align_up(&padded, *bytes, 8);
    if (!(*out = sf_arena_alloc(arena, 8 + padded)))
        return sf_fail(err, SF_ENOMEM, "no memory for a header of %llu bytes",
                       (unsigned long long)padded);
    sf_put_u64(*out, padded);
    memset(*out + 8, ' ', padded);
    memcpy(*out + 8, text, *bytes);
    *bytes = 8 + padded;
    return SF_OK;
}

int sf_safetensors_write(const char *path, const struct sf_named_tensor *tensors, int64_t count,
                         struct sf_err *err)
{
    struct sf_arena arena = {0};
    struct sf_out *out = NULL;
    char *header;
    uint64_t header_bytes;
    int code = sf_safetensors_header(&header, &header_bytes, &arena, tensors, count, err);
    if (code != SF_OK)
        sf_err_prefix(err, "%s", path);
    else
        code = sf_out_open(&out, path, err);
    if (code == SF_OK)
        code = sf_out_append(out, header, header_bytes, err);
    for (int64_t i = 0; i < count && code == SF_OK; i++)
        code = sf_out_append(out, tensors[i].tensor.data, tensors[i].tensor.bytes, err);
    sf_arena_free(&arena);
    if (code == SF_OK)
        return sf_out_commit(out, err);
    sf_out_abort(out);
    return code;
}
