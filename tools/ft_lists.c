#include "tools/ft_lists.h"

#include <stdlib.h>
#include <string.h>

#include "tools/ft_options.h"

/* "q_proj,v_proj" becomes two names. */
int ft_split_names(struct tool_list *list, const char *option, struct sf_arena *arena)
{
    struct tool_list out = {0};
    uint64_t most = (uint64_t)list->count;
    for (int64_t i = 0; i < list->count; i++)
        for (const char *c = list->item[i]; *c; c++)
            most += *c == ',';
    if (!(out.item = sf_arena_array(arena, most + 1, sizeof *out.item)))
        return tool_usage(FT_PROGRAM, "no memory for the names of --%s", option);
    for (int64_t i = 0; i < list->count; i++) {
        for (const char *at = list->item[i]; at;) {
            const char *comma = strchr(at, ',');
            size_t length = comma ? (size_t)(comma - at) : strlen(at);
            char *name = sf_arena_strndup(arena, at, length);
            if (!name || length == 0)
                return tool_usage(FT_PROGRAM, "--%s \"%s\" has an empty name", option,
                                  list->item[i]);
            out.item[out.count++] = name;
            at = comma ? comma + 1 : NULL;
        }
    }
    *list = out;
    return TOOL_DONE;
}

/* "self_attn.q_proj=32": the number stands behind the last '='. */
int ft_read_patterns(struct sf_adapter_pattern **out, const struct tool_list *list,
                     const char *option, struct sf_arena *arena)
{
    *out = sf_arena_array(arena, (uint64_t)list->count + 1, sizeof **out);
    if (!*out)
        return tool_usage(FT_PROGRAM, "no memory for --%s", option);
    for (int64_t i = 0; i < list->count; i++) {
        const char *text = list->item[i], *equals = strrchr(text, '=');
        char *end = NULL;
        double value = equals ? strtod(equals + 1, &end) : 0;
        if (!equals || equals == text || end == equals + 1 || *end || !(value > 0))
            return tool_usage(FT_PROGRAM, "--%s is PATTERN=NUMBER, as q_proj=32, not \"%s\"",
                              option, text);
        (*out)[i].key = sf_arena_strndup(arena, text, (uint64_t)(equals - text));
        (*out)[i].value = value;
        if (!(*out)[i].key)
            return tool_usage(FT_PROGRAM, "no memory for --%s", option);
    }
    return TOOL_DONE;
}

/* One for each data file. */
int ft_read_weights(double **out, struct tool_list *list, int64_t files, struct sf_arena *arena)
{
    *out = NULL;
    int status = ft_split_names(list, "data-weights", arena);
    if (status != TOOL_DONE || list->count == 0)
        return status;
    if (list->count != files)
        return tool_usage(FT_PROGRAM, "--data-weights has %lld numbers, --data %lld files",
                          (long long)list->count, (long long)files);
    *out = sf_arena_array(arena, (uint64_t)list->count, sizeof **out);
    if (!*out)
        return tool_usage(FT_PROGRAM, "no memory for --data-weights");
    for (int64_t i = 0; i < list->count; i++) {
        char *end;
        (*out)[i] = strtod(list->item[i], &end);
        if (*end || !((*out)[i] > 0))
            return tool_usage(FT_PROGRAM, "--data-weights \"%s\" is no number above 0",
                              list->item[i]);
    }
    return TOOL_DONE;
}
