/* fault_judge.h -- was what a run left right? Looks at out/, ../stdout and ../stderr, and at what the
 * reference run left: ../reference, ../reference.words, ../read.old and ../read.new. */
#ifndef SCOUT_TESTS_FAULT_JUDGE_H
#define SCOUT_TESTS_FAULT_JUDGE_H

#include <stdbool.h>

#include "tests/fault/fault_scenes.h"

struct outcome {
    int status; /* of waitpid */
    long calls;
    char hit[32]; /* "-": the call did not come */
    long temporary;
    char wrong[512]; /* empty: nothing wrong was left */
};

/* Fills temporary and wrong from status. */
void judge_run(struct outcome *o, const struct scene *scene, bool may_leave_temporary);
/* It refuses to write again what is there, and everything is. */
bool judge_finished(struct outcome *o, const struct scene *scene);
/* The whole file with a NUL behind it, for free(); NULL: none. */
char *judge_read(const char *path, long *bytes);

#endif
