/* pace.h - the engine's thread and the scheduler: see pace.c. */
#ifndef WEBSERVER_ENGINE_PACE_H
#define WEBSERVER_ENGINE_PACE_H

struct engine;

void pace_turn(struct engine *e); /* once in each turn, after engine_clock */
int pace_make(struct engine *e);  /* 0 or -1 with errno */
void pace_free(struct engine *e);

#endif
