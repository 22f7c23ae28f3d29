/* A page about runs: curves, tables and the exact commands, in one HTML file that needs
 * no network and no script.
 *
 *     DIR: a run's folder,     +-----------+     report.html      the page
 *     a study's folder, or --> |  report   | --> report.csv       one row a run
 *     one that holds such      +-----------+     report-plots/    data for gnuplot
 *
 * The files that are read are not trusted: one that is cut off, wrong or too large is
 * named in the page, and its run is left out of the curves.
 */
#ifndef CLUSTER_REPORT_H
#define CLUSTER_REPORT_H

#include <gapless/gapless.h>

#include <stddef.h>

/* Writes the page about the runs in `dirs`, and beside it the CSV and the data for
 * gnuplot.
 *   out_path  a file, or a folder to put report.html into; NULL: report.html in the
 *             first DIR
 *   title     of the page; NULL: that of the study, or the folder's name
 *   target    the accuracy that time_to_target counts up to; 0: that of the study, or
 *             0.85
 * GAPLESS_MISSING: a DIR is not there, or holds no run. GAPLESS_IO: the page cannot be
 * written. Files that cannot be read are no failure as long as one run is found. */
int report_write(const char *const *dirs, size_t count, const char *out_path,
                 const char *title, double target, struct gapless_error *error);

#endif
