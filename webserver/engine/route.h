/* What hangs on e->decisions: see route.c. */
#ifndef WEBSERVER_ENGINE_ROUTE_H
#define WEBSERVER_ENGINE_ROUTE_H

#include "engine.h"

struct decisions {
	struct decision_table *table; /* decisions.c */
	struct sites *sites;	      /* sites.c */
	struct fixed_answers *fixed;  /* fixed.c */
};

/* decide.c: whether the engine can carry the decision out for this request. */
bool decision_valid(const struct decisions *all, const struct request *r, const struct engine_decision *d);

#endif
