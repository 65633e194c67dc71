/*
 * A worker's death, as control tells it. Its page says what application code had seen; what it had already sent counts
 * first. libzmq has given us all of that once a send to the worker fails as unroutable (it saw the end of file, and
 * puts a mark behind the last message) and the socket has been read to its end after that.
 *
 * A process that the application left behind may hold the connection open, so this waits LAST_WORDS_NS and no longer.
 */
#include <errno.h>

#include "channel.h"
#include "posts.h"
#include "quarantine.h"

/* Asked in each turn, a connection that is held open would keep the loop going for LAST_WORDS_NS by these alone. */
#define PROBE_AGAIN_NS 1000000ull

static void judge(struct exchange *x, const char *cause, bool may_start)
{
	struct slot *s = x->slot;
	struct worker *w = s->worker;
	struct generation *gen = w->generation;
	struct engine *e = gen->engine;
	bool begun = x->state == EXCHANGE_STARTED || x->state == EXCHANGE_ANSWERING ||
		     page_started(&w->page, s->number, e->options.ordinal) >= x->serial;

	int crashed = page_crashed(&w->page, s->number);

	exchange_pin(x);
	/* Who only ran beside the one in which it crashed has not ended it. */
	if (begun && !may_start && !w->excused && crashed >= 0)
		quarantine_died(x, cause);
	slot_detach(x);
	if (x->state == EXCHANGE_ABANDONED) {
		/* unpin frees it */
	} else if (!begun && !may_start && body_kept(x) && x->reruns < RERUNS) {
		x->reruns++;
		e->stats.returned++;
		queue_prepend(x);
	} else {
		exchange_move(x, EXCHANGE_ANSWERED);
		exchange_fail(x, 502, 0, "group \"%s\": worker %llu %s; %s", gen->group->name,
			(unsigned long long)w->number, cause,
			begun && crashed > 0  ? "it was running this request, in which it crashed"
			: begun && crashed    ? "it was running this request beside another, in which it crashed"
			: begun		      ? "it was running this request"
			: may_start	      ? "it may have begun this request"
			: x->reruns >= RERUNS ? "several workers ended before they began this request"
					      : "it had part of this request's body, which is not kept");
	}
	exchange_unpin(x);
}

void ending_judge_slot(struct slot *s, const char *cause, bool may_start)
{
	/* From the latest to the first: each that is run elsewhere goes to the head of the queue. */
	while (!list_empty(&s->exchanges))
		judge(list_entry(s->exchanges.previous, struct exchange, node), cause, may_start);
}

/* True once nothing more can come from any of its slots that has a request. */
static bool is_silent(struct worker *w)
{
	for (uint32_t i = 0; i < w->slots; i++) {
		struct slot *s = &w->slot[i];
		if (s->placed == 0 || s->state == SLOT_LOST || s->state == SLOT_GONE)
			continue;
		/* A connection that still stands takes this, and nobody reads it. */
		if (channel_send_head(w->generation, &s->identity, WIRE_PROBE, 0, 0, s->number) == 0 || errno == EAGAIN)
			return false;
		slot_lost(s);
	}
	return true;
}

/* True if w has been judged and freed. */
static bool look(struct worker *w)
{
	struct generation *gen = w->generation;
	struct engine *e = gen->engine;

	if (!w->silent && e->now_ns >= w->probe_ns) {
		w->probe_ns = e->now_ns + PROBE_AGAIN_NS;
		w->silent = is_silent(w);
		if (w->silent) {
			w->silent_at = gen->empties;
			generation_touch(gen);
		}
	}
	posts_take_worker(w);
	bool read = w->running == 0 || (w->silent && gen->empties > w->silent_at);
	if (!read && e->now_ns - w->gone_ns < LAST_WORDS_NS)
		return false;
	for (uint32_t i = 0; i < w->slots; i++)
		ending_judge_slot(&w->slot[i], w->cause, false);
	gen->group->look = true;
	worker_free(w);
	return true;
}

void ending_begin(struct worker *w)
{
	struct engine *e = w->generation->engine;

	w->gone = true;
	w->gone_ns = e->now_ns;
	for (uint32_t i = 0; i < w->slots; i++) {
		struct slot *s = &w->slot[i];
		if (s->state == SLOT_PROBED || s->state == SLOT_USABLE)
			slot_move(s, SLOT_LEAVING);
	}
	list_append(&e->channel->ending, &w->ending);
	generation_touch(w->generation);
	channel_look_later(e);
}

void ending_look(struct engine *e)
{
	struct list *ending = &e->channel->ending;
	bool left = false;

	for (struct list *n = ending->next, *next; n != ending; n = next) {
		next = n->next;
		left |= !look(list_entry(n, struct worker, ending));
	}
	if (left)
		channel_look_later(e);
}
