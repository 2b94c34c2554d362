/* ft_lists.h -- options of scout-ft whose values are lists. Each returns a tool_status; a wrong list has
 * been told about. What they make is in `arena`. */
#ifndef SCOUT_TOOLS_FT_LISTS_H
#define SCOUT_TOOLS_FT_LISTS_H

#include "libformat/adapter/adapter_pattern.h"
#include "tools/tool.h"

/* "q_proj,v_proj" becomes two names. */
int ft_split_names(struct tool_list *list, const char *option, struct sf_arena *arena);
/* "self_attn.q_proj=32": a pattern and a number above 0, for each item. */
int ft_read_patterns(struct sf_adapter_pattern **out, const struct tool_list *list,
                     const char *option, struct sf_arena *arena);
/* --data-weights "2,0.5": a number above 0 for each of `files`; *out NULL where none is given. */
int ft_read_weights(double **out, struct tool_list *list, int64_t files, struct sf_arena *arena);

#endif
