/* report_page.h -- writes a page for a browser that loads nothing: frame, style, data and script in one file.
 *
 * The parts lie in report/ and are embedded at build time (report/report_files.h). */
#ifndef SCOUT_TOOLS_REPORT_PAGE_H
#define SCOUT_TOOLS_REPORT_PAGE_H

#include "libformat/base/arena.h"

/* `html` with the marks @CSS@, @DATA@, @JS@ in this order; `data`: a JSON object, safe inside a
 * <script> element; the shared script goes before `js`. Appears whole, or not at all. */
int report_page_write(const char *path, const unsigned char *html, const unsigned char *js,
                      const char *data, struct sf_err *err);
/* JSON text safe inside a <script> element, in `arena`. NULL: no memory. */
char *report_page_safe(struct sf_arena *arena, const char *text, uint64_t bytes);

#endif
