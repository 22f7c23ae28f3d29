/* What bench transport prints: a table for people, or an object for scripts. */
#include "bench/transport/bench_transport.h"

#include <jansson.h>
#include <math.h>

const char *const bt_op_names[BT_OPS] = {
    [BT_WRITE] = "write",       [BT_READ] = "read",     [BT_WRITE_LAT] = "write-lat",
    [BT_READ_LAT] = "read-lat", [BT_UPDATE] = "update",
};

void bt_head(const struct bt_options *o, const struct bt_client *client)
{
    (void)printf("%s, both sides %s%s%s\n\n", o->address, o->sleep ? "sleep" : "poll",
                 client->link[0] != '\0' ? "; " : "", client->link);
    (void)printf("%-10s %9s %9s %9s %9s %9s %9s %7s   %s\n", "", "bytes", "GB/s",
                 "mean us", "p50 us", "p99 us", "p99.9 us", "of copy",
                 "requests, doorbells, completions, wake-ups of each");
    (void)fflush(stdout);
}

static void print_size(uint64_t bytes)
{
    if (bytes >= (1u << 20))
        (void)printf(" %5.4g MiB", (double)bytes / (1 << 20));
    else if (bytes >= 1024)
        (void)printf(" %5.4g KiB", (double)bytes / 1024);
    else
        (void)printf(" %7llu B", (unsigned long long)bytes);
}

static void print_number(double value, int width, int digits)
{
    if (isnan(value))
        (void)printf(" %*s", width, "-");
    else
        (void)printf(" %*.*f", width, digits, value);
}

static void print_counts(const char *side, const struct bt_counts *counts)
{
    if (isnan(counts->requests))
        return;
    (void)printf("  %s%.3g, %.3g, %.3g, %.3g", side, counts->requests,
                 counts->doorbells, counts->completions, counts->wakeups);
}

void bt_row(const struct bt_figure *f)
{
    bool both = !isnan(f->server.requests);

    (void)printf("%-10s", bt_op_names[f->op]);
    print_size(f->bytes);
    if (isnan(f->gb_s))
        print_number(f->gb_s, 9, 0);
    else
        (void)printf(" %9.3g", f->gb_s);
    print_number(f->mean_us, 9, 2);
    print_number(f->p50_us, 9, 2);
    print_number(f->p99_us, 9, 2);
    print_number(f->p999_us, 9, 2);
    if (isnan(f->ceiling_gb_s))
        (void)printf(" %7s", "-");
    else
        (void)printf(" %5.0f %%", 100.0 * f->gb_s / f->ceiling_gb_s);
    print_counts(both ? "worker " : "", &f->client);
    print_counts("master ", &f->server);
    if (f->op == BT_UPDATE)
        (void)printf("  in %u range%s", f->ranges, f->ranges == 1 ? "" : "s");
    (void)printf("%s\n", f->stable ? "" : "  (unsteady)");
    (void)fflush(stdout);
}

/* NaN, which JSON has not, as null. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *counts_json(const struct bt_counts *counts)
{
    return json_pack("{s:o,s:o,s:o,s:o}", "requests", number(counts->requests),
                     "doorbells", number(counts->doorbells), "completions",
                     number(counts->completions), "wakeups", number(counts->wakeups));
}

struct json_t *bt_json(const struct bt_figure *f)
{
    json_t *ret = json_pack("{s:s,s:I,s:i,s:I,s:o,s:b,s:o,s:o,s:o,s:o,s:o,s:o}", "op",
                            bt_op_names[f->op], "bytes", (json_int_t)f->bytes, "ranges",
                            (int)f->ranges, "ops", (json_int_t)f->ops, "seconds",
                            number(f->seconds), "stable", f->stable, "gb_per_s",
                            number(f->gb_s), "gb_per_s_best", number(f->gb_s_best),
                            "mean_us", number(f->mean_us), "p50_us", number(f->p50_us),
                            "p99_us", number(f->p99_us), "p999_us", number(f->p999_us));

    (void)json_object_set_new(ret, "ceiling_gb_per_s", number(f->ceiling_gb_s));
    (void)json_object_set_new(ret, "share_of_ceiling",
                              number(f->gb_s / f->ceiling_gb_s));
    (void)json_object_set_new(ret, "client_per_op", counts_json(&f->client));
    (void)json_object_set_new(ret, "server_per_op", counts_json(&f->server));
    return ret;
}
