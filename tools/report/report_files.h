/* report_files.h -- the pages' parts as text, NUL behind it, embedded at build time. */
#ifndef SCOUT_TOOLS_REPORT_REPORT_FILES_H
#define SCOUT_TOOLS_REPORT_REPORT_FILES_H

extern const unsigned char report_css[]; /* of every page */
extern const unsigned char page_js[];    /* what their scripts share; goes before the others */

/* Frames, with @CSS@, @DATA@ and @JS@ where the others go, and scripts. */
extern const unsigned char report_html[], report_js[]; /* scout-inspect report */
extern const unsigned char run_html[], run_js[];       /* scout-ft train's report.html */

#endif
