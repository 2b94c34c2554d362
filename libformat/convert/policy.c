#include "libformat/convert/policy.h"

#include <fnmatch.h>
#include <string.h>

bool sf_scale_choice_parse(enum sf_scale_choice *out, const char *name)
{
    static const char *const names[] = {"absmax", "search", "search-signed"};
    for (int i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum sf_scale_choice)i;
            return true;
        }
    return false;
}

enum sf_encoding sf_policy_encoding(struct sf_policy *policy, enum sf_part part, const char *name,
                                    const char *source_name)
{
    if (!sf_part_is_matrix(part))
        return SF_ENCODING_RAW;
    bool keep = false;
    for (int64_t i = 0; i < policy->keep_count; i++) {
        if (fnmatch(policy->keep[i], name, 0) != 0 && fnmatch(policy->keep[i], source_name, 0) != 0)
            continue;
        policy->keep_used[i] = true;
        keep = true;
    }
    return keep ? SF_ENCODING_RAW : SF_ENCODING_NF4;
}

int sf_policy_check_used(const struct sf_policy *policy, struct sf_err *err)
{
    for (int64_t i = 0; i < policy->keep_count; i++)
        if (!policy->keep_used[i])
            return sf_fail(err, SF_EINVAL, "--keep-bf16 %s: matches no matrix of this checkpoint",
                           policy->keep[i]);
    return policy->importance ? sf_importance_check_used(policy->importance, err) : SF_OK;
}
