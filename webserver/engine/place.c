/*
 * Which slot gets a request, sending it there, and looking after what does not start.
 *
 * Free slots first, of the process with the fewest requests. When none is free, a request whose body is in its block
 * may be placed behind a busy slot: up to AHEAD_NS of work by the group's median service time, and at most the share
 * that this front end has of WIRE_PLACED. What has not started after STUCK_NS, because what runs there takes longer, is
 * asked back from the worker's keeper.
 *
 * Another front end's requests are seen on the pages only, as a hint that is old already: it costs time, never a
 * request.
 */
#include <errno.h>

#include "channel.h"

#define SEARCH	    64		  /* busy slots looked at for one request */
#define FREE_SEARCH 8		  /* of one worker's free slots */
#define PACK_NS	    50000ull	  /* requests this short are gathered at slots that are awake */
#define PACKED	    16		  /* at one of them */
#define STALLED_NS  10000000ull	  /* not started although nothing seems to run there */
#define SILENT_NS   5000000000ull /* a keeper that has not answered for so long does not run */

static bool takes(const struct generation *gen)
{
	return gen->usable > 0 && !gen->draining && !gen->broken;
}

/* While a group is restarted two generations take its requests: that with less to do for each of its slots goes first,
   the newer of equals. */
struct generation *place_target(const struct group *g)
{
	struct generation *best = NULL;

	for (struct list *n = g->generations.next; n != &g->generations; n = n->next) {
		struct generation *gen = list_entry(n, struct generation, node);
		if (takes(gen) && (best == NULL || (uint64_t)gen->in_flight * best->usable <
							   (uint64_t)best->in_flight * gen->usable))
			best = gen;
	}
	return best;
}

uint32_t place_limit(const struct channel *c, const struct group *g)
{
	/* Nothing is known yet: one at a time. */
	uint64_t fit = g->service_ns ? AHEAD_NS / g->service_ns : 1;

	return fit < 1 ? 1 : fit < c->share ? (uint32_t)fit : c->share;
}

/* What others have at this slot. Our own are counted, not read: the page is always a little late. */
static uint32_t foreign(const struct channel *c, const struct slot *s, const struct page_slot *page)
{
	bool runs = page->running != 0 && page->running >> 40 != c->serial_base >> 40;

	return (runs ? 1 : 0) + (page->queued > s->placed ? page->queued - s->placed : 0);
}

static bool refuses(const struct slot *s, uint64_t now_ns)
{
	return s->full_until_ns > now_ns;
}

static bool is_in_block(const struct exchange *x)
{
	return x->upload == UPLOAD_NONE || x->upload == UPLOAD_WHOLE;
}

static struct slot *free_slot(const struct channel *c, const struct generation *gen)
{
	const struct engine *e = c->engine;
	struct slot *best = NULL;
	uint32_t fewest = UINT32_MAX;

	for (struct list *n = gen->workers.next; n != &gen->workers; n = n->next) {
		const struct worker *w = list_entry(n, struct worker, node);
		uint32_t load = w->running, seen = 0;
		for (struct list *m = w->free.next; m != &w->free && load < fewest && seen < FREE_SEARCH;
			m = m->next, seen++) {
			struct slot *s = list_entry(m, struct slot, free);
			struct page_slot page;
			if (refuses(s, e->now_ns))
				continue;
			if (e->options.frontends > 1) {
				page_read(&w->page, s->number, e->options.ordinal, &page);
				if (foreign(c, s, &page) > 0) {
					load++;
					continue;
				}
			}
			best = s;
			fewest = load;
			break;
		}
		if (fewest == 0)
			break;
	}
	return best;
}

/* How much is before a new request at this slot; UINT32_MAX: do not. */
static uint32_t busy_load(const struct channel *c, const struct slot *s, const struct exchange *x)
{
	const struct engine *e = c->engine;
	struct page_slot page;

	if (s->state != SLOT_USABLE || s->recalls > 0 || s->placed >= c->share || refuses(s, e->now_ns))
		return UINT32_MAX;
	page_read(&s->worker->page, s->number, e->options.ordinal, &page);
	if (page_runs_since(&page, e->now_ns, STUCK_NS) || (x->avoid != 0 && page.running == x->avoid))
		return UINT32_MAX;
	if (s->placed > 0) {
		const struct exchange *first = list_entry(s->exchanges.next, struct exchange, node);
		/* Runs longer than it should, or was not even begun in that time. */
		if (e->now_ns - first->sent_ns > STUCK_NS && page.running != 0 && page.running == first->serial &&
			page_runs_since(&page, e->now_ns, STUCK_NS))
			return UINT32_MAX;
		if (first->state == EXCHANGE_PLACED && e->now_ns - first->sent_ns > STUCK_NS &&
			page.started < first->serial)
			return UINT32_MAX;
	}
	uint32_t others = foreign(c, s, &page);
	return others < WIRE_PLACED ? s->placed + others : UINT32_MAX;
}

static struct slot *busy_slot(const struct channel *c, struct generation *gen, const struct exchange *x)
{
	uint32_t limit = place_limit(c, gen->group), fewest = limit, seen = 0;
	struct slot *best = NULL;

	if (limit <= 1 && c->engine->options.frontends <= 1)
		return NULL;
	for (struct list *n = gen->workers.next; n != &gen->workers && seen < SEARCH; n = n->next) {
		struct worker *w = list_entry(n, struct worker, node);
		if (w->gone || !w->keeper)
			continue;
		/* From another slot each time, so that more slots than SEARCH are all found. */
		for (uint32_t i = 0; i < w->slots && seen < SEARCH; i++, seen++) {
			struct slot *s = &w->slot[(gen->cursor + i) % w->slots];
			uint32_t load = busy_load(c, s, x);
			if (load < fewest) {
				fewest = load;
				best = s;
			}
		}
	}
	if (seen == SEARCH)
		gen->cursor++;
	return best;
}

/*
 * Where requests are so short that waking a thread costs more than running one, those of a process are gathered at few
 * of its slots: of eight threads that share an interpreter's lock only one computes.
 */
static struct slot *awake_slot(const struct channel *c, const struct generation *gen, const struct exchange *x)
{
	struct worker *calm = NULL;

	if (gen->group->service_ns == 0 || gen->group->service_ns > PACK_NS || !is_in_block(x))
		return NULL;
	for (struct list *n = gen->workers.next; n != &gen->workers; n = n->next) {
		struct worker *w = list_entry(n, struct worker, node);
		if (!w->gone && w->keeper && (calm == NULL || w->running < calm->running))
			calm = w;
	}
	if (calm == NULL || calm->slots == 1 || calm->running == 0)
		return NULL;
	for (uint32_t i = 0; i < calm->slots && i < SEARCH; i++) {
		struct slot *s = &calm->slot[i];
		if (s->placed > 0 && s->placed < PACKED && busy_load(c, s, x) < PACKED)
			return s;
	}
	return NULL;
}

/* In the generation that has less to do, or in another one if that has no place. */
static struct slot *find_slot(const struct channel *c, const struct group *g, const struct exchange *x)
{
	struct generation *first = place_target(g);
	struct slot *s = first ? awake_slot(c, first, x) : NULL;

	if (first == NULL || s != NULL || (s = free_slot(c, first)) != NULL)
		return s;
	for (struct list *n = g->generations.next; n != &g->generations; n = n->next) {
		struct generation *gen = list_entry(n, struct generation, node);
		if (gen != first && takes(gen) && (s = free_slot(c, gen)) != NULL)
			return s;
	}
	if (!is_in_block(x) || (s = busy_slot(c, first, x)) != NULL)
		return s;
	for (struct list *n = g->generations.next; n != &g->generations; n = n->next) {
		struct generation *gen = list_entry(n, struct generation, node);
		if (gen != first && takes(gen) && (s = busy_slot(c, gen, x)) != NULL)
			return s;
	}
	return NULL;
}

/* 0, or -1 with errno. */
static int send_block(struct exchange *x, struct slot *s)
{
	struct generation *gen = s->worker->generation;
	struct engine *e = gen->engine;
	const struct zmqlib *zmq = e->zmq;
	size_t head_size = block_head_size(x), body_size = block_body_size(x, head_size);
	uint64_t serial = e->channel->serial_base | ++e->channel->counter;
	zmq_msg_t message;

	if (head_size + body_size > WIRE_MESSAGE) {
		errno = EMSGSIZE;
		return -1;
	}
	if (zmq->msg_init_size(&message, head_size + body_size) < 0) {
		errno = ENOMEM;
		return -1;
	}
	if (block_write(x, zmq->msg_data(&message), head_size, body_size, s->number, serial) < 0) {
		zmq->msg_close(&message);
		errno = EIO;
		return -1;
	}
	if (channel_send(gen, &s->identity, &message) < 0)
		return -1;
	x->serial = serial;
	x->sent_ns = e->now_ns;
	x->body.sent = body_size;
	x->body.closed = block_is_whole(x, body_size);
	return 0;
}

/* True if it needs no place any more: it was sent, or answered because it never can be. x may then be freed. */
bool place(struct exchange *x)
{
	struct group *g = x->group;
	struct channel *c = g->engine->channel;

	for (;;) {
		struct slot *s = find_slot(c, g, x);
		if (s == NULL)
			return false;
		if (send_block(x, s) == 0) {
			c->engine->stats.placed++;
			if (s->placed > 0)
				c->engine->stats.placed_ahead++;
			exchange_move(x, EXCHANGE_PLACED);
			slot_attach(s, x);
			channel_watch_later(c->engine);
			body_placed(x);
			return true;
		}
		if (errno == EAGAIN) {
			s->full_until_ns = c->engine->now_ns + LOOK_NS;
		} else if (errno == EHOSTUNREACH) {
			slot_lost(s);
		} else if (errno == EMSGSIZE) {
			exchange_fail(
				x, 431, 0, "group \"%s\": the request's head is larger than a message may be", g->name);
			return true;
		} else if (errno == EIO) {
			exchange_fail(x, 500, 0, "group \"%s\": the gathered body could not be read back", g->name);
			return true;
		} else {
			return false; /* no memory, or the socket is closing: looked at again */
		}
	}
}

/* ---- what does not start */

static bool is_stuck(const struct exchange *x, const struct page_slot *page, uint64_t now_ns)
{
	uint64_t age = now_ns - x->sent_ns;

	/* Behind requests that come and go it is not stuck, merely slow: the processors are busy. */
	return age >= STALLED_NS ||
	       (age >= STUCK_NS && page->running != x->serial && page_runs_since(page, now_ns, STUCK_NS / 2));
}

/* Whatever application code does, a keeper answers: the process is stopped, or worse. Told once. */
static void worker_is_silent(struct worker *w)
{
	if (w->told_silent)
		return;
	w->told_silent = true;
	struct engine_event *event = event_push(w->generation->engine, EVENT_SILENT);
	event->group = w->generation->group->id;
	event->generation = w->generation->number;
	event->worker = w->number;
}

/* True if something at the slot has still not started. */
static bool watch(struct engine *e, struct slot *s)
{
	struct worker *w = s->worker;
	struct page_slot page;
	bool waiting = false;

	page_read(&w->page, s->number, e->options.ordinal, &page);
	/* From the latest: verdicts then come in the order in which each can go to the head of the queue. */
	for (struct list *n = s->exchanges.previous; n != &s->exchanges; n = n->previous) {
		struct exchange *x = list_entry(n, struct exchange, node);
		if (x->state == EXCHANGE_RECALLED) {
			waiting = true;
			if (e->now_ns - x->sent_ns >= SILENT_NS && !w->gone)
				worker_is_silent(w);
		}
		if (x->state != EXCHANGE_PLACED)
			continue;
		if (page.started >= x->serial) {
			exchange_move(x, EXCHANGE_STARTED);
			continue;
		}
		waiting = true;
		if (!w->keeper || w->gone || !body_kept(x) || !is_stuck(x, &page, e->now_ns))
			continue;
		if (channel_send_head(w->generation, &w->keeper_identity, WIRE_RECALL, x->serial, x->index, s->number) <
			0)
			continue;
		e->stats.recalled++;
		exchange_move(x, EXCHANGE_RECALLED);
	}
	return waiting;
}

void place_watch(struct engine *e)
{
	struct list *watched = &e->channel->watched;

	for (struct list *n = watched->next, *next; n != watched; n = next) {
		struct slot *s = list_entry(n, struct slot, watched);
		next = n->next;
		if (!watch(e, s))
			list_remove(&s->watched);
	}
	if (!list_empty(watched))
		channel_watch_later(e);
}

/* The keeper's verdict: it will not be run there. */
void place_given_back(struct exchange *x)
{
	struct slot *s = x->slot;
	struct engine *e = s->worker->generation->engine;
	struct page_slot page;

	page_read(&s->worker->page, s->number, e->options.ordinal, &page);
	exchange_pin(x);
	slot_detach(x);
	if (x->state == EXCHANGE_ABANDONED) {
		/* unpin frees it */
	} else if (body_kept(x)) {
		e->stats.returned++;
		x->avoid = page.running;
		queue_prepend(x);
	} else {
		exchange_move(x, EXCHANGE_ANSWERED);
		exchange_fail(x, 502, 0,
			"group \"%s\": worker %llu gave the request back after part of its body had been sent",
			x->group->name, (unsigned long long)s->worker->number);
	}
	exchange_unpin(x);
}
