/* steps.h -- how much work was done, counted and not timed: every basic block of what is compiled with
 * -fsanitize-coverage=trace-pc, and every byte that strcmp, strncmp, memcmp and memchr look at, whoever calls
 * them (cJSON's look-ups). Threads: all count together. */
#ifndef SCOUT_TESTS_BAD_STEPS_H
#define SCOUT_TESTS_BAD_STEPS_H

#include <stdint.h>

/* Since the program began. */
uint64_t steps_so_far(void);

#endif
