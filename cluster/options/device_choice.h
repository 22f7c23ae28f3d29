/* What --device and --worker-device ask for, settled before anything is started. */
#ifndef CLUSTER_DEVICE_H
#define CLUSTER_DEVICE_H

#include <gapless/gapless.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Is `text` a place to compute (cpu, auto, cuda...), and not the name of an RDMA
 * device?
 */
bool device_is_place(const char *text);
/* *ret_use: "cpu", or "cuda..." with GPUs that are there (and *ret_gpus how many: 0 for
 * cpu). "auto" without a GPU is "cpu", and ret_note (bytes) says why in a line; ""
 * else. GAPLESS_INVALID: no such text; GAPLESS_MISSING: exactly what is missing, and
 * what to do. */
int device_settle(const char *text, const char **ret_use, uint32_t *ret_gpus,
                  char *ret_note, size_t bytes, struct gapless_error *error);
/* The same for the passes of a master under `rule`: where the rule needs cuBLAS and there is
 * none, "auto" is the CPU, too, and "cuda..." is refused. *device is replaced by what is
 * used. */
int device_settle_passes(const char *rule, const char **device, char *ret_note,
                         size_t bytes, struct gapless_error *error);

#endif
