/* report_files.h -- the page of scout-inspect report: text, NUL behind it, embedded at build time. */
#ifndef SCOUT_TOOLS_REPORT_REPORT_FILES_H
#define SCOUT_TOOLS_REPORT_REPORT_FILES_H

extern const unsigned char report_html[]; /* with @CSS@, @DATA@, @JS@ where the others go */
extern const unsigned char report_css[];
extern const unsigned char report_js[];

#endif
