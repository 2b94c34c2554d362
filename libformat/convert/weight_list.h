/* weight_list.h -- the weights of a container, or of a Hugging Face folder, under the same roles and
 * names, each [out, in], read as float32: what diff and source_check compare.
 *
 * A folder's routed experts come one by one and turned, as in a container. Read-only once open; any
 * number of threads. Life: a list borrows the map it was made from. */
#ifndef SCOUT_LIBFORMAT_CONVERT_WEIGHT_LIST_H
#define SCOUT_LIBFORMAT_CONVERT_WEIGHT_LIST_H

#include "libformat/container/container_map.h"
#include "libformat/convert/convert_plan.h"

struct sf_weight {
    const char *name, *source_name;
    struct sf_role role;
    struct sf_shape shape;
    enum sf_dtype dtype;          /* of the source's elements */
    const struct sf_entry *entry; /* of a container; of a folder what a conversion would make */
    struct sf_source source;      /* of a folder */
};

struct sf_weight_list {
    struct sf_arena arena;
    const char *path;
    const struct sf_map *map; /* NULL: a folder */
    struct sf_hf_index *index;
    struct sf_model_spec spec;
    struct sf_convert_plan plan;
    int64_t count;
    struct sf_weight *weight; /* by role, unused ones by name */
};

int sf_weight_list_from_map(struct sf_weight_list *out, const struct sf_map *map,
                            struct sf_err *err);
/* Config, index and every tensor's name and shape are checked as for a conversion. Tensors of
 * unknown name count as unused. */
int sf_weight_list_from_folder(struct sf_weight_list *out, const char *directory,
                               struct sf_err *err);
void sf_weight_list_close(struct sf_weight_list *list); /* a zeroed one is welcome */

/* -1, 0, 1: the order of lists. Weights of one role are the same weight, whatever their names. */
int sf_weight_compare(const struct sf_weight *a, const struct sf_weight *b);
/* NULL if there is none like it. */
const struct sf_weight *sf_weight_list_find(const struct sf_weight_list *list,
                                            const struct sf_weight *like);

/* How many elements to read at once: a multiple of 64; whole rows where the source is turned. */
int64_t sf_weight_step(const struct sf_weight *weight);
/* out[count] = elements first .. first + count of [out, in]; first is a multiple of the step.
 * SF_EUNSUPPORTED: no floats. */
int sf_weight_read(float *out, const struct sf_weight_list *list, const struct sf_weight *weight,
                   int64_t first, int64_t count, struct sf_err *err);

#endif
