/*
 * A group's queue: requests that wait for a slot, bounded in length and time.
 *
 * Each site has its turn, so that one which sends very many keeps no other waiting; sites share lanes where there are
 * more of them. Within a lane first in, first out, until the longest wait is LATE: then more comes in than can be done,
 * and who is served after seconds has given up, mostly. So the newest come first until the queue is empty: most are
 * served quickly and the rest late, instead of all late.
 *
 * What is next is strictly so: what needs a free slot would never get one if others were placed past it.
 */
#include "channel.h"

#define WANTED_NS	20000000ull   /* between two times that the same group asks for workers */
#define WANTED_AFTER_NS 10000000ull   /* a slot that is busy may be free before a worker could be there */
#define RETRY_AFTER	1	      /* seconds */
#define LATE_NS		1000000000ull /* or a quarter of queue_timeout, if that is less */

void queue_init(struct group *g)
{
	list_init(&g->returned);
	list_init(&g->turns);
	for (unsigned i = 0; i < QUEUE_LANES; i++)
		list_init(&g->lane[i].waiting);
}

struct exchange *queue_next(const struct group *g)
{
	if (!list_empty(&g->returned))
		return list_entry(g->returned.next, struct exchange, node);
	if (list_empty(&g->turns))
		return NULL;
	const struct lane *lane = list_entry(g->turns.next, struct lane, turn);
	return list_entry(g->late ? lane->waiting.previous : lane->waiting.next, struct exchange, node);
}

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
	x->lane = x->request->site != NULL ? (uint8_t)(x->request->site->id % QUEUE_LANES) : 0;
	struct lane *lane = &g->lane[x->lane];
	list_append(&lane->waiting, &x->node);
	if (lane->count++ == 0)
		list_append(&g->turns, &lane->turn);
	g->fresh++;
	queued(x);
	engine_again(e);
}

/* It was in the queue or at a slot before and has waited longest: its place is not refused. */
void queue_prepend(struct exchange *x)
{
	exchange_move(x, EXCHANGE_QUEUED);
	x->lane = QUEUE_RETURNED;
	list_prepend(&x->group->returned, &x->node);
	queued(x);
	engine_again(x->group->engine);
}

void queue_remove(struct exchange *x)
{
	struct group *g = x->group;

	if (!list_linked(&x->node))
		return;
	list_remove(&x->node);
	if (x->lane != QUEUE_RETURNED && --g->lane[x->lane].count == 0)
		list_remove(&g->lane[x->lane].turn);
	if (--g->queued == 0) {
		list_remove(&g->waiting);
		g->late = false;
	}
}

/* There was no place for it: where queue_next has found it. */
static void put_back(struct exchange *x, bool late)
{
	struct group *g = x->group;

	queued(x);
	g->late = late;
	if (x->lane == QUEUE_RETURNED) {
		list_prepend(&g->returned, &x->node);
		return;
	}
	struct lane *lane = &g->lane[x->lane];
	if (late)
		list_append(&lane->waiting, &x->node);
	else
		list_prepend(&lane->waiting, &x->node);
	if (lane->count++ == 0)
		list_prepend(&g->turns, &lane->turn);
}

static void end_turn(struct group *g, unsigned number)
{
	if (number == QUEUE_RETURNED || g->lane[number].count == 0)
		return;
	list_remove(&g->lane[number].turn);
	list_append(&g->turns, &g->lane[number].turn);
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

static bool somebody_waited(const struct group *g, uint64_t duration_ns)
{
	if (!list_empty(&g->returned))
		return true;
	for (const struct list *n = g->turns.next; n != &g->turns; n = n->next) {
		const struct lane *lane = list_entry(n, struct lane, turn);
		const struct exchange *first = list_entry(lane->waiting.next, struct exchange, node);
		if (g->engine->now_ns - first->waits_ns >= duration_ns)
			return true;
	}
	return false;
}

uint64_t queue_waits_since(const struct group *g)
{
	uint64_t since = 0;

	for (const struct list *n = g->returned.next; n != &g->returned; n = n->next) {
		const struct exchange *x = list_entry(n, struct exchange, node);
		if (since == 0 || x->waits_ns < since)
			since = x->waits_ns;
	}
	for (const struct list *n = g->turns.next; n != &g->turns; n = n->next) {
		const struct lane *lane = list_entry(n, struct lane, turn);
		const struct exchange *first = list_entry(lane->waiting.next, struct exchange, node);
		if (since == 0 || first->waits_ns < since)
			since = first->waits_ns;
	}
	return since;
}

/* Said again for as long as requests wait. */
static void queue_wanted(struct group *g)
{
	struct engine *e = g->engine;

	if (!may_grow(g) || (g->wanted_ns != 0 && e->now_ns - g->wanted_ns < WANTED_NS))
		return;
	if (has_slots(g) && !somebody_waited(g, WANTED_AFTER_NS))
		return;
	g->wanted_ns = e->now_ns;
	struct engine_event *event = event_push(e, EVENT_WANTED);
	event->group = g->id;
	event->number = g->queued;
}

/* Who has to go where more wait than may: of the lane with the most. */
static struct exchange *superfluous(const struct group *g)
{
	const struct lane *most = NULL;

	for (const struct list *n = g->turns.next; n != &g->turns; n = n->next) {
		const struct lane *lane = list_entry(n, struct lane, turn);
		if (most == NULL || lane->count > most->count)
			most = lane;
	}
	if (most == NULL)
		return NULL;
	return list_entry(g->late ? most->waiting.next : most->waiting.previous, struct exchange, node);
}

/* For each that came in this turn and does not fit one is refused: the last to come, or who waits longest, if late. */
static void queue_bound(struct group *g)
{
	struct engine *e = g->engine;

	for (; g->fresh > 0 && g->queued > g->queue_length; g->fresh--) {
		struct exchange *x = superfluous(g);
		if (x == NULL)
			break;
		bool late = g->late;
		queue_remove(x);
		e->stats.queue_refused++;
		/* Its state stays: release finds it in no list. */
		exchange_fail(x, 503, RETRY_AFTER,
			"group \"%s\": %u requests wait for a free worker already, which is its queue_length%s; raise "
			"that, or processes or threads",
			g->name, g->queued, late ? ", and this one has waited longest" : "");
	}
	g->fresh = 0;
}

void queue_place(struct group *g)
{
	for (struct exchange *x; (x = queue_next(g)) != NULL;) {
		unsigned lane = x->lane;
		bool late = g->late;
		queue_remove(x);
		if (!place(x)) {
			put_back(x, late);
			break;
		}
		end_turn(g, lane);
	}
	g->look = false;
	queue_bound(g);
	if (g->queued == 0)
		return;
	queue_wanted(g);
	channel_look_later(g->engine);
}

static bool expire(struct exchange *x)
{
	struct group *g = x->group;
	struct engine *e = g->engine;

	if (e->now_ns - x->waits_ns < g->queue_timeout_ns)
		return false;
	queue_remove(x);
	e->stats.queue_expired++;
	/* Its state stays: release finds it in no list. */
	exchange_fail(x, 503, RETRY_AFTER,
		"group \"%s\": no worker was free for %.1f s, which is its queue_timeout; raise that, or processes or "
		"threads%s",
		g->name, (double)g->queue_timeout_ns / 1e9, has_slots(g) ? "" : " (no worker is there at all)");
	return true;
}

/* What has waited too long; and whether somebody has waited so long that the newest shall come first. */
static void queue_expire(struct group *g)
{
	uint64_t late_ns = g->queue_timeout_ns / 4 < LATE_NS ? g->queue_timeout_ns / 4 : LATE_NS;
	bool late = false;

	for (struct list *n = g->returned.next, *next; n != &g->returned; n = next) {
		next = n->next;
		expire(list_entry(n, struct exchange, node));
	}
	for (struct list *n = g->turns.next, *next; n != &g->turns; n = next) {
		struct lane *lane = list_entry(n, struct lane, turn);
		next = n->next;
		while (lane->count > 0 && expire(list_entry(lane->waiting.next, struct exchange, node)))
			;
		if (lane->count == 0)
			continue;
		const struct exchange *first = list_entry(lane->waiting.next, struct exchange, node);
		late |= g->engine->now_ns - first->waits_ns >= late_ns;
	}
	/* It ends with the queue. */
	g->late |= late;
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
