/* The man pages, from the tables of commands and options. */
#ifndef CLUSTER_PROGRAM_MANUAL_H
#define CLUSTER_PROGRAM_MANUAL_H

#include <stdbool.h>

/* Writes gapless.1, gapless-train.1 and so on into a folder that is there. False: what is wrong was printed. */
bool manual_write(const char *folder);

#endif
