/* A stranger's program: includes installed headers, links installed libraries. Encodes a block of
 * weights to NF4, decodes it, and reads a JSON value. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/json.h"
#include "libformat/codec/nf4.h"
#include "libformat/text/tokenizer.h"

static int nf4_round_trip(void)
{
    float weights[SF_NF4_BLOCK], back[SF_NF4_BLOCK], absmax[1];
    uint8_t codes[SF_NF4_BLOCK / 2];
    for (int i = 0; i < SF_NF4_BLOCK; i++)
        weights[i] = (float)(i - 32) / 32;
    sf_nf4_encode(codes, absmax, weights, SF_F32, SF_NF4_BLOCK, NULL);
    sf_nf4_decode(back, codes, absmax, sf_nf4_code_value, 0, SF_NF4_BLOCK);
    for (int i = 0; i < SF_NF4_BLOCK; i++)
        if (!(fabsf(back[i] - weights[i]) < 0.16f)) /* half the widest gap of the table is 0.152 */
            return fprintf(stderr, "nf4: %g came back as %g\n", weights[i], back[i]), 1;
    return 0;
}

static int json_value(void)
{
    struct sf_err err = {0};
    struct sf_json *json;
    const char *text = "{\"answer\": 42}";
    int64_t answer = 0;
    if (sf_json_parse(&json, text, strlen(text), &err) != SF_OK ||
        sf_json_as_int(&answer, sf_json_get(json, "answer"), "answer", &err) != SF_OK)
        return fprintf(stderr, "json: %s\n", err.message), 1;
    sf_json_free(json);
    return answer == 42 ? 0 : 1;
}

/* What is no tokenizer must be refused with a sentence: the library and PCRE2 are linked. */
static int tokenizer_refuses(void)
{
    struct sf_err err = {0};
    struct sf_tokenizer *tokenizer;
    if (sf_tokenizer_open(&tokenizer, "{}", 2, &err) == SF_OK || !err.message[0])
        return fprintf(stderr, "tokenizer: {} was taken for one\n"), 1;
    return 0;
}

int main(void)
{
    return nf4_round_trip() || json_value() || tokenizer_refuses();
}
