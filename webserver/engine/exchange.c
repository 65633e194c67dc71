/*
 * One request on its way through a process group. Its states, the edges between them, and its memory.
 *
 * The table below is the whole of what may happen; exchange_move is the only door.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "channel.h"

#define SPARES	  1024
#define TO(state) (1u << EXCHANGE_##state)

static const struct {
	const char *name;
	unsigned to;
} states[EXCHANGE_STATES] = {
	/* To itself: refused, for its length, before anything was done with it. */
	[EXCHANGE_FREE] = {"free", TO(GATHERING) | TO(QUEUED) | TO(FREE)},
	[EXCHANGE_GATHERING] = {"gathering", TO(QUEUED) | TO(FREE)},
	[EXCHANGE_QUEUED] = {"queued", TO(PLACED) | TO(FREE)},
	/* Back to the queue: its worker died, or left, before it began. */
	[EXCHANGE_PLACED] = {"placed",
		TO(RECALLED) | TO(STARTED) | TO(ANSWERING) | TO(ANSWERED) | TO(ABANDONED) | TO(QUEUED)},
	/* Answers may overtake the verdict: they come on another connection. */
	[EXCHANGE_RECALLED] = {"recalled", TO(STARTED) | TO(ANSWERING) | TO(ANSWERED) | TO(ABANDONED) | TO(QUEUED)},
	[EXCHANGE_STARTED] = {"started", TO(ANSWERING) | TO(ANSWERED) | TO(ABANDONED)},
	[EXCHANGE_ANSWERING] = {"answering", TO(ANSWERED) | TO(ABANDONED)},
	[EXCHANGE_ANSWERED] = {"answered", TO(FREE)},
	[EXCHANGE_ABANDONED] = {"abandoned", TO(FREE)},
};

const char *exchange_state_name(unsigned state)
{
	return state < EXCHANGE_STATES ? states[state].name : "?";
}

bool exchange_may(unsigned from, unsigned to)
{
	return from < EXCHANGE_STATES && to < EXCHANGE_STATES && (states[from].to & (1u << to)) != 0;
}

struct engine *exchange_engine(const struct exchange *x)
{
	return x->group->engine;
}

void exchange_move(struct exchange *x, unsigned to)
{
	if (!exchange_may(x->state, to)) {
		/* A fault of this program. Going on is safer for every other request than stopping here. */
		log_entry(exchange_engine(x), LOG_LEVEL_ERROR, x->request, "engine: a request went from %s to %s",
			exchange_state_name(x->state), exchange_state_name(to));
#ifdef CHANNEL_STRICT
		abort();
#endif
	}
	/* While it has been asked back, nothing more is placed behind what runs there. */
	if (x->slot != NULL && x->state == EXCHANGE_RECALLED)
		x->slot->recalls--;
	if (x->slot != NULL && to == EXCHANGE_RECALLED)
		x->slot->recalls++;
	x->state = (uint8_t)to;
}

struct exchange *exchange_make(struct engine *e, struct group *g, struct request *r)
{
	struct channel *c = e->channel;
	struct exchange *x = c->spare;

	if (x != NULL) {
		c->spare = (struct exchange *)x->node.next;
		c->spares--;
		memset(x, 0, sizeof(*x));
	} else if ((x = calloc(1, sizeof(*x))) == NULL) {
		return NULL;
	}
	x->request = r;
	x->group = g;
	x->index = r->index;
	spool_init(&x->body.spool);
	spool_init(&x->answer.spool);
	x->answer.length = UINT64_MAX;
	g->exchanges++;
	g->requests++;
	return x;
}

void exchange_forget_body(struct exchange *x)
{
	free(x->body.buffer);
	x->body.buffer = NULL;
	x->body.size = x->body.capacity = 0;
	spool_close(&x->body.spool);
}

void exchange_settle(struct exchange *x)
{
	if (x->request != NULL || x->slot != NULL || x->pins != 0)
		return;
	struct channel *c = exchange_engine(x)->channel;
	exchange_move(x, EXCHANGE_FREE);
	list_remove(&x->node);
	list_remove(&x->due);
	timer_disarm(&x->deadline);
	timer_disarm(&x->answer.pressed);
	exchange_forget_body(x);
	spool_close(&x->answer.spool);
	free((char *)x->ran.data);
	x->group->exchanges--;
	if (c->spares >= SPARES) {
		free(x);
		return;
	}
	x->node.next = (struct list *)c->spare;
	c->spare = x;
	c->spares++;
}

void exchange_pin(struct exchange *x)
{
	x->pins++;
}

void exchange_unpin(struct exchange *x)
{
	x->pins--;
	exchange_settle(x);
}

void exchange_due(struct exchange *x)
{
	struct engine *e = exchange_engine(x);

	if (!list_linked(&x->due))
		list_append(&e->channel->due, &x->due);
	engine_again(e);
}

void exchange_fail(struct exchange *x, int status, unsigned retry_after, const char *format, ...)
{
	struct request *r = x->request;
	char why[400];
	va_list arguments;

	if (r == NULL)
		return;
	va_start(arguments, format);
	vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	/* First, so that nothing that a worker still says gets into the engine's own answer. */
	group_sever(x);
	answer_status(r, status, why, retry_after);
}

void exchanges_free(struct engine *e)
{
	for (struct exchange *x = e->channel->spare; x != NULL;) {
		struct exchange *next = (struct exchange *)x->node.next;
		free(x);
		x = next;
	}
	e->channel->spare = NULL;
}
