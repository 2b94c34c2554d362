/* Rows that are tokens already. */
#include "train/data/row_private.h"

/* Appends the whole numbers of an array, each at least `least`, but `also` is welcome too. */
static int add_numbers(struct sf_ids *out, const struct sf_json *array, const char *name,
                       int64_t least, int64_t also, struct sf_err *err)
{
    if (sf_json_type(array) != SF_JSON_ARRAY)
        return sf_fail(err, SF_EFORMAT, "%s is %s, not an array", name,
                       sf_json_type_name(sf_json_type(array)));
    const struct sf_json *item = sf_json_first(array);
    for (int64_t i = 0; item; item = sf_json_next(item), i++) {
        int64_t value;
        int code = sf_json_as_int(&value, item, name, err);
        if (code)
            return sf_err_prefix(err, "element %lld", (long long)i);
        if ((value < least && value != also) || value > INT32_MAX)
            return sf_fail(err, SF_EFORMAT, "%s[%lld] is %lld, no token id", name, (long long)i,
                           (long long)value);
        int32_t id = (int32_t)value;
        if ((code = sf_ids_append(out, &id, 1, err)))
            return code;
    }
    return SF_OK;
}

static int check_mask(const struct sf_json *mask, int64_t count, struct sf_err *err)
{
    struct sf_ids ones = {0};
    int code = SF_OK;
    if (mask)
        code = add_numbers(&ones, mask, "attention_mask", 0, 0, err);
    if (!code && mask && ones.count != count)
        code = sf_fail(err, SF_EFORMAT, "attention_mask has %lld numbers, input_ids %lld",
                       (long long)ones.count, (long long)count);
    for (int64_t i = 0; !code && i < ones.count; i++)
        if (ones.id[i] != 1)
            code = sf_fail(err, SF_EUNSUPPORTED,
                           "attention_mask[%lld] is %d: rows are taken whole, without padding",
                           (long long)i, (int)ones.id[i]);
    sf_ids_free(&ones);
    return code;
}

static int check_labels(const struct sft_row_tokens *out, int64_t vocabulary, struct sf_err *err)
{
    if (out->label.count != out->id.count)
        return sf_fail(err, SF_EFORMAT, "%lld labels for %lld input_ids",
                       (long long)out->label.count, (long long)out->id.count);
    for (int64_t i = 0; i < out->label.count; i++)
        if (out->label.id[i] >= vocabulary)
            return sf_fail(err, SF_EFORMAT,
                           "labels[%lld] is %d, outside the model's vocabulary of %lld",
                           (long long)i, (int)out->label.id[i], (long long)vocabulary);
    return SF_OK;
}

int sft_row_encode_ids(struct sft_row_tokens *out, const struct sft_row_encoder *encoder,
                       const struct sf_json *row, struct sf_err *err)
{
    const struct sf_json *labels = sf_json_get(row, "labels");
    int code = add_numbers(&out->id, sf_json_get(row, "input_ids"), "input_ids", 0, 0, err);
    if (!code)
        code = check_mask(sf_json_get(row, "attention_mask"), out->id.count, err);
    if (!code && labels)
        code = add_numbers(&out->label, labels, "labels", 0, SFT_NO_TARGET, err);
    if (!code && !labels && out->id.count)
        code = sf_ids_append(&out->label, out->id.id, out->id.count, err);
    return code || !labels ? code : check_labels(out, encoder->vocabulary, err);
}
