/* gapless rules: the table of the engine, for people or as JSON. */
#include "cluster/options/options.h"
#include "cluster/program/program_options.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static int print_json(void)
{
    json_t *rows = json_array();
    struct gapless_rule rule;
    char *text;

    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        (void)json_array_append_new(
            rows,
            json_pack("{s:s,s:s,s:s,s:i,s:i,s:i,s:b,s:b,s:b,s:b,s:b,s:b,s:b}", "name",
                      rule.name, "formula", rule.formula, "source", rule.source,
                      "vectors_shared", (int)rule.vectors_shared, "vectors_per_worker",
                      (int)rule.vectors_per_worker, "bytes_per_parameter",
                      (int)rule.bytes_per_parameter, "whole", rule.whole, "synchronous",
                      rule.synchronous, "elastic", rule.elastic, "matrices",
                      rule.matrices, "own_decay", rule.own_decay, "averages",
                      rule.averages, "slim", rule.slim));
    text = json_dumps(rows, JSON_INDENT(2));
    json_decref(rows);
    if (text == NULL) {
        report_failure("rules", "no memory");
        return EXIT_FAILED;
    }
    (void)printf("%s\n", text);
    free(text);
    return EXIT_DONE;
}

static void print_table(void)
{
    struct gapless_rule rule;

    (void)printf("%-15s %6s %6s %6s  %s\n", "rule", "shared", "worker", "bytes",
                 "formula");
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        (void)printf("%-15s %6u %6u %6u  %s\n%-15s %22s[%s]\n", rule.name,
                     rule.vectors_shared, rule.vectors_per_worker,
                     rule.bytes_per_parameter, rule.formula, "", "", rule.source);
    (void)printf("\n"
                 "shared   vectors the master keeps beside the parameters\n"
                 "worker   vectors it keeps for each worker, beside the gradient\n"
                 "bytes    read and written for one parameter in one update\n"
                 "g gradient; sent: what the worker was given and computed at; gap: "
                 "theta - sent;\n"
                 "lag: updates in between; own: a momentum for each worker; all: their "
                 "sum;\n"
                 "R, C: rows and columns of a matrix; NS: the matrix nearest to it "
                 "that is\n"
                 "orthogonal, nearly\n");
}

int cmd_rules(int argc, char **argv)
{
    struct settings settings;
    int code;

    if (!program_options(FOR_RULES, argc, argv, &settings, &code))
        return code;
    if (settings.json)
        code = print_json();
    else
        print_table();
    return code;
}
