/* What this process may use of the machine: processors and memory, by the affinity mask,
 * the limits of its control groups (versions 1 and 2, those above it too) and what is
 * free. Asked for before threads and processes are started and memory is taken. */
#ifndef ENGINE_BASE_MACHINE_H
#define ENGINE_BASE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

struct gapless_error;

/* Processors that this process may keep busy, 1 or more: those of its affinity mask, and
 * no more than its control groups' quota of time, rounded up. */
uint32_t machine_processors(void);
/* Bytes that can be taken without swapping or the end of a process: MemAvailable, and what
 * its control groups leave, files that can be dropped counted as free. UINT64_MAX: not
 * known. */
uint64_t machine_memory(void);
/* GAPLESS_NO_MEMORY where `bytes` is more than that: says how much `what` ("this run")
 * needs, how much there is, and to give --force. */
int machine_memory_check(uint64_t bytes, const char *what, struct gapless_error *error);
/* Has the kernel ended a process of this one's control groups for want of memory, or is
 * less free than a sixteenth of what there is? */
bool machine_memory_short(void);

/* The same with /proc and /sys below `root`, and without the affinity mask: for tests. */
uint32_t machine_quota_at(const char *root); /* processors; UINT32_MAX: no limit */
uint64_t machine_memory_at(const char *root);
bool machine_memory_short_at(const char *root);

#endif
