/* convert_merge.h -- `scout-convert merge`: an adapter goes into its base's checkpoint. */
#ifndef SCOUT_TOOLS_CONVERT_MERGE_H
#define SCOUT_TOOLS_CONVERT_MERGE_H

/* argv[0] is "merge". Returns the exit status. */
int convert_merge(int argc, char **argv);

#endif
