#include "libformat/convert/export_config.h"

#include <stdlib.h>
#include <string.h>

#include "libformat/base/json.h"

/* What transformers writes for its own 4-bit checkpoints. */
static const char BNB_CONFIG[] =
    "\n  \"quantization_config\": {\"_load_in_4bit\": true, \"_load_in_8bit\": false,\n"
    "    \"bnb_4bit_compute_dtype\": \"bfloat16\", \"bnb_4bit_quant_storage\": \"uint8\",\n"
    "    \"bnb_4bit_quant_type\": \"nf4\", \"bnb_4bit_use_double_quant\": true,\n"
    "    \"llm_int8_enable_fp32_cpu_offload\": false, \"llm_int8_has_fp16_weight\": false,\n"
    "    \"llm_int8_skip_modules\": [\"lm_head\", \"router\", \"vision_model\", "
    "\"multi_modal_projector\"],\n"
    "    \"llm_int8_threshold\": 6.0, \"load_in_4bit\": true, \"load_in_8bit\": false,\n"
    "    \"quant_method\": \"bitsandbytes\"},";

static const char SPACE[] = " \t\r\n";

/* The number behind `"attn_temperature_tuning":`, NULL where there is none. A quote inside a string
 * would stand behind a backslash, so the quoted name can only be a key or a whole string. */
static char *find_number(char *text)
{
    static const char key[] = "\"attn_temperature_tuning\"";
    for (char *at = text; (at = strstr(at, key)) != NULL; at++) {
        char *value = at + sizeof key - 1;
        value += strspn(value, SPACE);
        if ((at > text && at[-1] == '\\') || *value != ':')
            continue;
        value += 1 + strspn(value + 1, SPACE);
        if ((*value >= '0' && *value <= '9') || *value == '-')
            return value;
    }
    return NULL;
}

static int check_config(bool *quantized, const char *text, uint64_t bytes, struct sf_err *err)
{
    struct sf_json *root;
    const char *method;
    int code = sf_json_parse(&root, text, bytes, err);
    if (code != SF_OK)
        return sf_err_prefix(err, "config.json");
    const struct sf_json *config = sf_json_get(root, "quantization_config");
    *quantized = config != NULL;
    if (sf_json_type(root) != SF_JSON_OBJECT)
        code = sf_fail(err, SF_EFORMAT, "config.json: not a JSON object");
    else if (config && (sf_json_as_string(&method, sf_json_get(config, "quant_method"), "", NULL) ||
                        strcmp(method, "bitsandbytes") != 0))
        code = sf_fail(err, SF_EUNSUPPORTED,
                       "config.json: describes a quantization that is not bitsandbytes'");
    sf_json_free(root);
    return code;
}

/* Behind the string that begins at `at`. The text is known to be JSON. */
static char *skip_string(char *at)
{
    for (at++; *at != '"'; at++)
        if (*at == '\\')
            at++;
    return at + 1;
}

/* The comma or brace behind the value that begins at or behind `at`. */
static char *skip_value(char *at)
{
    for (int depth = 0;;) {
        if (*at == '"') {
            at = skip_string(at);
            continue;
        }
        if (depth == 0 && (*at == ',' || *at == '}'))
            return at;
        depth += *at == '{' || *at == '[';
        depth -= *at == '}' || *at == ']';
        at++;
    }
}

/* Takes the member "quantization_config" of the outermost object out of the text. The parser found it
 * by the name that its key means; here it is found as written, which escapes may keep from being. */
static int cut_quantization(char *text, struct sf_err *err)
{
    static const char key[] = "\"quantization_config\"";
    char *member = strchr(text, '{') + 1;
    member += strspn(member, SPACE);
    while (strncmp(member, key, sizeof key - 1) != 0) {
        member = skip_value(strchr(skip_string(member), ':') + 1);
        if (*member == '}')
            return sf_fail(err, SF_EUNSUPPORTED,
                           "config.json: the key quantization_config is written with escapes");
        member++;
        member += strspn(member, SPACE);
    }
    char *end = skip_value(strchr(member + sizeof key - 1, ':') + 1);
    if (*end == ',') {
        end++;
        end += strspn(end, SPACE);
    } else {
        while (member[-1] != ',' && member[-1] != '{')
            member--;
        member -= member[-1] == ',';
    }
    memmove(member, end, strlen(end) + 1);
    return SF_OK;
}

int sf_export_config(char **text, uint64_t *bytes, struct sf_arena *arena,
                     enum sf_export_format format, struct sf_err *err)
{
    bool quantized = false;
    int code = check_config(&quantized, *text, *bytes, err);
    char *number, *out = *text;
    while (code == SF_OK && quantized && format == SF_EXPORT_BF16) { /* a key may be there twice */
        code = cut_quantization(out, err);
        if (code == SF_OK)
            code = check_config(&quantized, out, strlen(out), err);
    }
    while (code == SF_OK && out && (number = find_number(out)) != NULL) {
        char *end;
        const char *flag = strtod(number, &end) != 0 ? "true" : "false";
        *number = 0;
        out = sf_arena_printf(arena, "%s%s%s", out, flag, end);
    }
    if (code == SF_OK && out && format == SF_EXPORT_BNB4 && !quantized) {
        char *inside = strchr(out, '{') + 1;
        bool empty = inside[strspn(inside, SPACE)] == '}';
        int bare = (int)sizeof BNB_CONFIG - 1 - (empty ? 1 : 0); /* no comma before the brace */
        out = sf_arena_printf(arena, "%.*s%.*s%s", (int)(inside - out), out, bare, BNB_CONFIG,
                              inside);
    }
    if (code == SF_OK && !out)
        code = sf_fail(err, SF_ENOMEM, "no memory for config.json");
    if (code != SF_OK)
        return code;
    *text = out;
    *bytes = strlen(out);
    return SF_OK;
}
