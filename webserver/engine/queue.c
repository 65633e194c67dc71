/*
 * A group's queue: requests that wait for a slot. First in, first out and strictly so: what needs a free slot would
 * never get one if others were placed past it. Bounded in length and time; who waits longest is at its head.
 */
#include "channel.h"

#define WANTED_NS	20000000ull /* between two times that the same group asks for workers */
#define WANTED_AFTER_NS 10000000ull /* a slot that is busy may be free before a worker could be there */
#define RETRY_AFTER	1	    /* seconds */

static void queued(struct exchange *x)
{
	struct group *g = x->group;

	g->queued++;
	if (!list_linked(&g->waiting))
		list_append(&g->engine->channel->waiting, &g->waiting);
	g->look = true;
}

/*
 * Placed at the end of the turn, with all that the turn brings: requests that are sent one after another wake the
 * worker's end of the channel once, where each by itself would wake it each time. Only what then finds no slot waits,
 * and counts for queue_length.
 */
void queue_append(struct exchange *x)
{
	struct group *g = x->group;
	struct engine *e = g->engine;

	exchange_move(x, EXCHANGE_QUEUED);
	if (x->waits_ns == 0)
		x->waits_ns = e->now_ns;
	if (g->closed) {
		/* Its body was still coming in. */
		exchange_fail(x, 503, RETRY_AFTER, "group \"%s\" has been removed", g->name);
		return;
	}
	list_append(&g->queue, &x->node);
	g->fresh++;
	queued(x);
	engine_again(e);
}

/* It was in the queue or at a slot before and has waited longest: its place is not refused. */
void queue_prepend(struct exchange *x)
{
	exchange_move(x, EXCHANGE_QUEUED);
	list_prepend(&x->group->queue, &x->node);
	queued(x);
	engine_again(x->group->engine);
}

void queue_remove(struct exchange *x)
{
	struct group *g = x->group;

	if (!list_linked(&x->node))
		return;
	list_remove(&x->node);
	if (--g->queued == 0)
		list_remove(&g->waiting);
}

static bool has_slots(const struct group *g)
{
	return place_target(g) != NULL;
}

/* Whether whoever gets the group's next requests has fewer slots than it may have. */
static bool may_grow(const struct group *g)
{
	for (struct list *n = g->generations.next; g->elastic && n != &g->generations; n = n->next) {
		const struct generation *gen = list_entry(n, struct generation, node);
		if (!gen->draining && !gen->broken)
			return gen->usable < (uint64_t)gen->workers_expected * gen->slots_per_worker;
	}
	return false;
}

/* Said again for as long as requests wait. */
static void queue_wanted(struct group *g)
{
	struct engine *e = g->engine;

	if (!may_grow(g) || (g->wanted_ns != 0 && e->now_ns - g->wanted_ns < WANTED_NS))
		return;
	const struct exchange *first = list_entry(g->queue.next, struct exchange, node);
	if (has_slots(g) && e->now_ns - first->waits_ns < WANTED_AFTER_NS)
		return;
	g->wanted_ns = e->now_ns;
	struct engine_event *event = event_push(e, EVENT_WANTED);
	event->group = g->id;
	event->number = g->queued;
}

/* Of those that came in this turn the last are refused, if more wait than may. */
static void queue_bound(struct group *g)
{
	for (g->fresh = g->fresh < g->queued ? g->fresh : g->queued; g->fresh > 0 && g->queued > g->queue_length;
		g->fresh--) {
		struct exchange *x = list_entry(g->queue.previous, struct exchange, node);
		queue_remove(x);
		g->engine->stats.queue_refused++;
		/* Its state stays: release finds it in no list. */
		exchange_fail(x, 503, RETRY_AFTER,
			"group \"%s\": %u requests wait for a free worker already, which is its queue_length; raise "
			"that, or processes or threads",
			g->name, g->queued);
	}
	g->fresh = 0;
}

void queue_place(struct group *g)
{
	while (g->queued > 0) {
		struct exchange *x = list_entry(g->queue.next, struct exchange, node);
		queue_remove(x);
		if (place(x))
			continue;
		list_prepend(&g->queue, &x->node);
		queued(x);
		break;
	}
	g->look = false;
	queue_bound(g);
	if (g->queued == 0)
		return;
	queue_wanted(g);
	channel_look_later(g->engine);
}

static void queue_expire(struct group *g)
{
	struct engine *e = g->engine;

	while (g->queued > 0) {
		struct exchange *x = list_entry(g->queue.next, struct exchange, node);
		if (e->now_ns - x->waits_ns < g->queue_timeout_ns)
			return;
		queue_remove(x);
		e->stats.queue_expired++;
		/* Its state stays: release finds it in no list. */
		exchange_fail(x, 503, RETRY_AFTER,
			"group \"%s\": no worker was free for %.1f s, which is its queue_timeout; raise that, or "
			"processes or "
			"threads%s",
			g->name, (double)g->queue_timeout_ns / 1e9, has_slots(g) ? "" : " (no worker is there at all)");
	}
}

void queue_look(struct engine *e)
{
	struct list *waiting = &e->channel->waiting;
	struct list end = {0};

	/* A group whose only request is tried leaves the list and comes back at its end: each is looked at once. */
	list_append(waiting, &end);
	while (waiting->next != &end) {
		struct group *g = list_entry(waiting->next, struct group, waiting);
		list_remove(&g->waiting);
		list_append(waiting, &g->waiting);
		queue_expire(g);
		if (g->queued == 0)
			continue;
		queue_place(g);
	}
	list_remove(&end);
	if (!list_empty(waiting))
		channel_look_later(e);
}
