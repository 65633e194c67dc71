/* What the loop asks of the files it drives, and what only they may ask of it. */
#ifndef WEBSERVER_ENGINE_LOOP_H
#define WEBSERVER_ENGINE_LOOP_H

#include "engine.h"

/* timers.c: call back what has expired by e->now_ns. */
void timers_run(struct engine *e);

/* connections.c: connections that have something to do without a descriptor saying so. True: some are left. */
bool connections_turn(struct engine *e);
bool connections_due(const struct engine *e); /* there are connections to be driven */
/* connections.c: give the memory of closed connections back; nothing on the stack may point to one. */
void connections_sweep(struct engine *e);
/* deadlines.c: the limits have changed. */
void connections_limits(struct engine *e);
/* connections.c: stop keeping alive. */
void connections_drain(struct engine *e);
/* connections.c: engine_free begins: end every request, close every connection. */
void connections_close(struct engine *e);

/* loop.c: read the clocks. Calls from Python do this first, since the turn may be long over. */
void engine_clock(struct engine *e);
/*
 * An eighth of the descriptors is not for clients and spool files but for workers' connections, which libzmq accepts:
 * it aborts when it gets none. The limit is asked for each time, since somebody may lower it (prlimit(2)).
 */
bool descriptor_is_spare(const struct engine *e, int fd);
/* loop.c: as poll_remove, for a descriptor that is closed next, which takes it out of the set by itself. */
void poll_forget(struct engine *e, struct pollable *p);

#endif
