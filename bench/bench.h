/* The benchmarks of the `gapless bench` command. Each takes its own arguments, argv[0]
 * being its name, prints a table and returns an exit status. */
#ifndef GAPLESS_BENCH_H
#define GAPLESS_BENCH_H

/* The update rules against a stream with the same traffic and against separate passes.
 */
int bench_rules(int argc, char **argv);
/* The round trip from push to pulled parameters over a transport. */
int bench_update(int argc, char **argv);

/* Adds to a JSON object (of jansson) what the figures were measured on: version, date,
 * CPU, compiler. */
struct json_t;
void bench_machine(struct json_t *root);

#endif
