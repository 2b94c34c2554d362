/* convert_export.h -- the verb `scout-convert export`. */
#ifndef SCOUT_TOOLS_CONVERT_EXPORT_H
#define SCOUT_TOOLS_CONVERT_EXPORT_H

/* argv[0] is "export". Returns the exit status; everything is said already. */
int convert_export(int argc, char **argv);

#endif
