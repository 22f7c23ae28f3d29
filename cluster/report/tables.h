/* Private to the report: tables, in HTML, CSV and for a terminal. */
#ifndef CLUSTER_REPORT_TABLES_H
#define CLUSTER_REPORT_TABLES_H

#include "cluster/report/data.h"

#include <jansson.h>

/* The panels of a chart: a table each. */
void tables_chart(FILE *out, const json_t *chart);
/* The runs that are shown over time: a folded table each, with all their quantities. */
void tables_runs(FILE *out, const json_t *runs);
/* Every run as in the CSV. `suffix`: of the id, "" or "-2" where a page has several
 * sets. */
void tables_all_runs(FILE *out, const struct set *set, const char *suffix);
/* How to repeat it: commands, study.ini, versions and hosts. */
void tables_commands(FILE *out, const struct set *set, const char *suffix);

#endif
