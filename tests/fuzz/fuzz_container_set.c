/* fuzz_container on a container of several files, which SCOUT_FUZZ_CONTAINER_SET names the first of. */
#define FUZZ_SET 1
#include "tests/fuzz/fuzz_container.c" /* the same program, but for that name */
