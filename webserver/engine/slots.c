/*
 * Slots: one request's place each. Their states, what is placed at them, and the frames that are about the slot and
 * not about a request (hello, alive, leaving, goodbye).
 *
 * A slot takes work when its worker was announced by control, its identity agrees with that, magic and version are
 * right, and it has answered a probe.
 */
#include <errno.h>
#include <stdlib.h>

#include "channel.h"

#define TO(state) (1u << SLOT_##state)

static const unsigned edges[SLOT_STATES] = {
	[SLOT_ABSENT] = TO(PROBED),
	[SLOT_PROBED] = TO(USABLE) | TO(LEAVING) | TO(GONE) | TO(LOST),
	[SLOT_USABLE] = TO(LEAVING) | TO(GONE) | TO(LOST),
	[SLOT_LEAVING] = TO(GONE) | TO(LOST),
	[SLOT_GONE] = 0,
	/* It came back on a new connection, in the same life: what was sent on the old one is lost, or will be
	   answered. */
	[SLOT_LOST] = TO(PROBED),
};

bool slot_may(unsigned from, unsigned to)
{
	return from < SLOT_STATES && to < SLOT_STATES && (edges[from] & (1u << to)) != 0;
}

void slot_init(struct slot *s, struct worker *w, uint16_t number)
{
	s->worker = w;
	s->number = number;
	s->identity = (struct wire_identity){
		.role = WIRE_ROLE_SLOT,
		.version = WIRE_VERSION,
		.slot = number,
		.generation = w->generation->number,
		.worker = w->number,
	};
	list_init(&s->exchanges);
}

/* In its worker's list of free slots exactly while it is usable and has nothing of ours. The warmest goes first. */
static void slot_refile(struct slot *s)
{
	bool free_now = s->state == SLOT_USABLE && s->placed == 0;

	if (free_now && !list_linked(&s->free))
		list_prepend(&s->worker->free, &s->free);
	else if (!free_now)
		list_remove(&s->free);
}

void slot_move(struct slot *s, unsigned to)
{
	struct generation *gen = s->worker->generation;
	bool was = s->state == SLOT_USABLE;

	s->state = (uint8_t)to;
	if (was)
		gen->usable--;
	if (to == SLOT_USABLE)
		gen->usable++;
	slot_refile(s);
}

void slot_attach(struct slot *s, struct exchange *x)
{
	x->slot = s;
	list_append(&s->exchanges, &x->node);
	s->placed++;
	s->worker->running++;
	s->worker->generation->in_flight++;
	slot_refile(s);
	if (!list_linked(&s->watched))
		list_append(&s->worker->generation->engine->channel->watched, &s->watched);
	if (!list_linked(&s->busy))
		list_append(&s->worker->generation->engine->channel->busy, &s->busy);
}

void slot_detach(struct exchange *x)
{
	struct slot *s = x->slot;
	struct generation *gen = s->worker->generation;

	if (x->state == EXCHANGE_RECALLED)
		s->recalls--;
	if (x->tunnel)
		tunnel_over(x);
	list_remove(&x->node);
	x->slot = NULL;
	x->owes = 0;
	s->placed--;
	s->worker->running--;
	gen->in_flight--;
	if (s->placed == 0) {
		list_remove(&s->watched);
		list_remove(&s->busy);
	}
	slot_refile(s);
	gen->group->look = true;
	generation_settle(gen);
}

struct exchange *slot_find(const struct slot *s, uint64_t serial)
{
	/* Answers come in the order of serials, so it is nearly always the first. */
	for (struct list *n = s->exchanges.next; n != &s->exchanges; n = n->next) {
		struct exchange *x = list_entry(n, struct exchange, node);
		if (x->serial == serial)
			return x;
	}
	return NULL;
}

/* ---- what is owed to a slot because its connection was full */

static const struct {
	unsigned owes;
	uint32_t kind;
} notes[] = {{OWES_PROBE, WIRE_PROBE}, {OWES_CLOSED, WIRE_CLOSED}};

static void slot_pay(struct slot *s)
{
	struct generation *gen = s->worker->generation;

	for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++) {
		if (!(s->owes & notes[i].owes))
			continue;
		if (channel_send_head(gen, &s->identity, notes[i].kind, 0, 0, s->number) == 0)
			s->owes &= (uint8_t)~notes[i].owes;
		else if (errno != EAGAIN)
			s->owes = 0;
	}
	if (s->owes == 0)
		list_remove(&s->owing);
}

void slot_owes(struct slot *s, unsigned what)
{
	struct engine *e = s->worker->generation->engine;

	s->owes |= (uint8_t)what;
	if (!list_linked(&s->owing))
		list_append(&e->channel->owing, &s->owing);
	slot_pay(s);
	if (s->owes != 0)
		channel_look_later(e);
}

void slots_pay(struct engine *e)
{
	struct list *owing = &e->channel->owing;

	for (struct list *n = owing->next, *next; n != owing; n = next) {
		next = n->next;
		slot_pay(list_entry(n, struct slot, owing));
	}
	if (!list_empty(owing))
		channel_look_later(e);
}

/* ---- frames about the slot itself */

void slot_hello(struct slot *s)
{
	if (!slot_may(s->state, SLOT_PROBED)) {
		generation_violation(s->worker->generation, "a slot said hello twice");
		return;
	}
	slot_move(s, SLOT_PROBED);
	slot_owes(s, OWES_PROBE);
}

void slot_alive(struct slot *s)
{
	struct worker *w = s->worker;
	struct generation *gen = w->generation;

	if (s->state != SLOT_PROBED)
		return;
	slot_move(s, SLOT_USABLE);
	gen->group->look = true;
	if (w->told_serving)
		return;
	w->told_serving = true;
	struct engine_event *event = event_push(gen->engine, EVENT_SERVING);
	event->group = gen->group->id;
	event->generation = gen->number;
	event->worker = w->number;
}

void slot_leaving(struct slot *s)
{
	if (slot_may(s->state, SLOT_LEAVING))
		slot_move(s, SLOT_LEAVING);
	/* Said again, it is answered again: the answer is what the slot waits for. */
	slot_owes(s, OWES_CLOSED);
}

void slot_goodbye(struct slot *s)
{
	struct worker *w = s->worker;
	struct generation *gen = w->generation;

	if (!slot_may(s->state, SLOT_GONE)) {
		if (s->state != SLOT_LOST)
			generation_violation(gen, "a slot that was not there said goodbye");
		return;
	}
	slot_move(s, SLOT_GONE);
	s->owes = 0;
	list_remove(&s->owing);
	w->gone_slots++;
	ending_judge_slot(s, "left without having answered it", false);
	if (w->gone_slots != w->slots || w->told_left)
		return;
	w->told_left = true;
	struct engine_event *event = event_push(gen->engine, EVENT_LEFT);
	event->group = gen->group->id;
	event->generation = gen->number;
	event->worker = w->number;
}

void slot_lost(struct slot *s)
{
	if (slot_may(s->state, SLOT_LOST))
		slot_move(s, SLOT_LOST);
	s->owes = 0;
	list_remove(&s->owing);
}

/*
 * The time that application code took, as the slot's page counts it; where the page has not moved, the time between
 * two answers of the slot. The median is followed by steps of its own thirty-second: a running estimate without a list.
 */
void slot_measure(struct slot *s, const struct exchange *x)
{
	struct generation *gen = s->worker->generation;
	struct group *g = gen->group;
	uint64_t now = gen->engine->now_ns, sample;
	struct page_slot page;

	page_read(&s->worker->page, s->number, gen->engine->options.ordinal, &page);
	uint64_t requests = page.requests - s->seen_requests, busy = page.busy_ns - s->seen_busy_ns;
	if (page.requests > s->seen_requests && page.busy_ns >= s->seen_busy_ns && requests < UINT32_MAX) {
		sample = busy / requests;
	} else {
		uint64_t from = x->sent_ns > s->done_ns ? x->sent_ns : s->done_ns;
		sample = now > from ? now - from : 0;
	}
	s->seen_requests = page.requests;
	s->seen_busy_ns = page.busy_ns;
	s->done_ns = now;
	if (x->tunnel)
		return; /* how long it lasted says nothing of the others */
	uint64_t step = g->service_ns / 32 + 1;
	if (g->service_ns == 0)
		g->service_ns = sample < UINT32_MAX ? sample + 1 : UINT32_MAX;
	else if (sample > g->service_ns && g->service_ns < UINT64_MAX / 2)
		g->service_ns += step;
	else if (sample < g->service_ns)
		g->service_ns -= step < g->service_ns ? step : g->service_ns - 1;
}
