/* fault_scenes.h -- what is run while a call fails: a tool, its arguments, what must come of it.
 * Paths are relative to a folder with in/ (in/model: the tiny checkpoint) and out/, emptied each time. */
#ifndef SCOUT_TESTS_FAULT_SCENES_H
#define SCOUT_TESTS_FAULT_SCENES_H

#include <stdbool.h>

struct scene {
    const char *name, *tool, *arguments;
    const char *prepare;   /* shell, once, before the reference run */
    const char *before;    /* shell, before each run but a second one */
    const char *says;      /* on stdout, on success; NULL: the reference's words, byte for byte */
    const char *again;     /* arguments that a second run needs as well; NULL: not run again */
    const char *finished;  /* NULL, or how a second run refuses when the first had ended its work */
    const char *reader;    /* NULL, or a shell command that takes what a run left, or fails */
    bool replaces;         /* in/old is what out/ holds beforehand */
    bool keeps_progress;   /* a run that fails leaves temporary files for the next one */
    bool leftovers_vanish; /* after the second run no temporary file is left */
};

/* One a line on stdout. */
void fault_scenes_list(void);
/* NULL: no such scene. */
const struct scene *fault_scene_find(const char *name);

#endif
