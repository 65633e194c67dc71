/* Requests that end workers: see quarantine.c. */
#ifndef WEBSERVER_ENGINE_QUARANTINE_H
#define WEBSERVER_ENGINE_QUARANTINE_H

#include "channel.h"

int quarantine_make(struct channel *c);
void quarantine_free(struct channel *c);
bool quarantine_is_empty(const struct channel *c);
/* Its client is about to go while a worker may run it: keep what it is called. */
void quarantine_keep(struct exchange *x);
void quarantine_died(struct exchange *x, const char *cause); /* application code had it when its worker died */
void quarantine_ended(struct exchange *x);		     /* its worker is done with it, and lives */
/* True: it is not run now; it has been answered, and r is dead. */
bool quarantine_refuses(struct request *r, const struct group *g);

#endif
