/* Back-off with chance, within a limit. */
#include "cluster/run/reconnect.h"

#include <gapless/status.h>

#define PAUSE_FIRST_S 0.2
#define PAUSE_MOST_S 5.0
#define TRY_LEAST_S 0.1

struct reconnect reconnect_new(double limit)
{
    return (struct reconnect){.limit = limit, .since = -1.0};
}

void reconnect_lost(struct reconnect *reconnect, double now)
{
    if (reconnect->since < 0.0)
        reconnect->since = now;
}

double reconnect_pause(struct reconnect *reconnect, double now, double chance)
{
    double left = reconnect->since + reconnect->limit - now;
    double pause = PAUSE_FIRST_S;

    if (left <= 0.0)
        return -1.0;
    for (uint32_t i = 0; i < reconnect->tries && pause < PAUSE_MOST_S; i++)
        pause *= 2.0;
    reconnect->tries++;
    pause = (pause < PAUSE_MOST_S ? pause : PAUSE_MOST_S) * (0.75 + 0.5 * chance);
    return pause < left ? pause : left; /* the last try is at the very end */
}

double reconnect_left(const struct reconnect *reconnect, double now)
{
    double left = reconnect->since + reconnect->limit - now;

    return left > TRY_LEAST_S ? left : TRY_LEAST_S;
}

void reconnect_joined(struct reconnect *reconnect)
{
    reconnect->times++;
}

void reconnect_proven(struct reconnect *reconnect)
{
    reconnect->since = -1.0;
    reconnect->tries = 0;
}

bool reconnect_hopeful(int status)
{
    switch (status) {
    case GAPLESS_PEER_LOST: /* it is going down, or not yet quite up */
    case GAPLESS_TIMEOUT:   /* no master there, or not answering yet */
    case GAPLESS_SYSTEM:    /* no route while a link is down */
    case GAPLESS_CAPACITY:  /* the master may not yet know that our slot is free */
    case GAPLESS_MISSING:
    case GAPLESS_AGAIN:
        return true;
    default:
        return false;
    }
}
