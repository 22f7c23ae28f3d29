/* Private to the report: the page, and what is put into the program at build time.
 *
 *     page.html  a template: {{title}}, {{intro}}, {{main}}, {{data}}, {{style}},
 *                {{chart.js}}, {{script}}
 *     page.css, page.js           the style; what draws the charts, with Chart.js
 *     chart.min.js of Debian      libjs-chart.js; without it a page has its tables only
 *
 * cmake/page.cmake writes the four into one C file.
 */
#ifndef CLUSTER_REPORT_PAGE_H
#define CLUSTER_REPORT_PAGE_H

#include "cluster/report/report.h"

#include <stdio.h>

struct page_assets {
    const char *html, *css, *js;
    const char *chart_js; /* NULL: it was not found when the program was built */
};
extern const struct page_assets page_assets;

/* Writes the page. What fails shows in ferror(out) or report->arena.failed. */
void page_write(FILE *out, struct report *report, const char *title,
                const struct page_assets *assets);

#endif
