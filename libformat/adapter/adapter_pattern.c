#include "libformat/adapter/adapter_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "libformat/base/arena.h"

enum { STEPS = 100000, DEPTH = 1000 }; /* a path has some fifty characters */

static int compile(pcre2_code **out, const char *key, struct sf_err *err)
{
    struct sf_arena arena = {0};
    char why[120];
    int number;
    PCRE2_SIZE place;
    char *whole = sf_arena_printf(&arena, "(.*\\.)?(%s)$", key);
    *out = whole ? pcre2_compile((PCRE2_SPTR)whole, PCRE2_ZERO_TERMINATED,
                                 PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &number,
                                 &place, NULL)
                 : NULL;
    sf_arena_free(&arena);
    if (!whole)
        return sf_fail(err, SF_ENOMEM, "no memory for a pattern");
    if (*out)
        return SF_OK;
    pcre2_get_error_message(number, (PCRE2_UCHAR *)why, sizeof why);
    return sf_fail(err, SF_EFORMAT, "\"%s\" is no regular expression: %s", key, why);
}

static int run(bool *out, const pcre2_code *code, const char *key, const char *path,
               struct sf_err *err)
{
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    int n = PCRE2_ERROR_NOMEMORY;
    if (match && limits) {
        pcre2_set_match_limit(limits, STEPS);
        pcre2_set_depth_limit(limits, DEPTH);
        n = pcre2_match(code, (PCRE2_SPTR)path, strlen(path), 0, 0, match, limits);
    }
    pcre2_match_data_free(match);
    pcre2_match_context_free(limits);
    *out = n >= 0;
    if (n >= 0 || n == PCRE2_ERROR_NOMATCH)
        return SF_OK;
    if (n == PCRE2_ERROR_NOMEMORY)
        return sf_fail(err, SF_ENOMEM, "no memory for a match");
    return sf_fail(err, SF_EFORMAT, "\"%s\" takes more than %d steps to match %s", key, STEPS,
                   path);
}

/* Most keys are names, in which only the dot means more than itself. */
static bool is_name(const char *key)
{
    for (; *key; key++)
        if (!(*key >= 'a' && *key <= 'z') && !(*key >= 'A' && *key <= 'Z') &&
            !(*key >= '0' && *key <= '9') && *key != '_' && *key != '.')
            return false;
    return true;
}

static bool name_ends(const char *key, const char *path)
{
    size_t length = strlen(key), before = strlen(path);
    if (length > before)
        return false;
    before -= length;
    for (size_t i = 0; i < length; i++)
        if (key[i] != '.' && key[i] != path[before + i])
            return false;
    return before == 0 || path[before - 1] == '.';
}

int sf_adapter_pattern_match(bool *out, const char *key, const char *path, struct sf_err *err)
{
    pcre2_code *code;
    if (is_name(key)) {
        *out = name_ends(key, path);
        return SF_OK;
    }
    int status = compile(&code, key, err);
    if (status)
        return status;
    status = run(out, code, key, path, err);
    pcre2_code_free(code);
    return status;
}

int sf_adapter_pattern_find(double *out, const struct sf_adapter_pattern *pattern, int64_t patterns,
                            const char *path, double otherwise, struct sf_err *err)
{
    bool matches = false;
    *out = otherwise;
    for (int64_t i = 0; i < patterns; i++) {
        int code = sf_adapter_pattern_match(&matches, pattern[i].key, path, err);
        if (code)
            return code;
        if (matches) {
            *out = pattern[i].value;
            return SF_OK;
        }
    }
    return SF_OK;
}
