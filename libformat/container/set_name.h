/* set_name.h -- what the files of a container in several parts are called.
 *
 * "m.scout" in three files: m-00001-of-00003.scout, with no tensors, which is the one to name; then
 * m-00002-of-00003.scout and so on. On disk: spec/container.md, section 1. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_SET_NAME_H
#define SCOUT_LIBFORMAT_CONTAINER_SET_NAME_H

#include <stdint.h>

#include "libformat/base/arena.h"

enum { SF_FILES_MAX = 99999 }; /* of a container: five digits */

/* The name of file `file` of `files`, counted from 1, of what is called `path` as a whole; `path`
 * itself where there is one. In `arena`; NULL without memory. */
char *sf_set_name(struct sf_arena *arena, const char *path, int64_t file, int64_t files);
/* The name of another file of the set that `first` is the first of, in `arena`. NULL without memory,
 * or where `first` is not the name of the first of so many. */
char *sf_set_sibling(struct sf_arena *arena, const char *first, int64_t file, int64_t files);
/* The first file of a set of any number that stands at the names made of `path`. In `arena`; NULL if
 * none does, or without memory. */
char *sf_set_find_first(struct sf_arena *arena, const char *path);

#endif
