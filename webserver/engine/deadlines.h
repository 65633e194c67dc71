/* What happens to a connection when its time is up, and the queues that say how long each wait is. */
#ifndef WEBSERVER_ENGINE_DEADLINES_H
#define WEBSERVER_ENGINE_DEADLINES_H

#include "connection.h"
#include "http1.h"

/* Make the queues for the limits as they are now. 0 or -1. */
int deadlines_make(struct engine *e);
/* connections.c: the grace of engine_drain is over. */
void connections_drain_idle(struct engine *e);
/* listener.c */
int reserve_open(void);

#endif
