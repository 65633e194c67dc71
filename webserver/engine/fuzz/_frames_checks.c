/*
 * What must hold of the channel between any two things that happen: each exchange is in the one list that its state
 * says, counters are what they count, serials are what was sent to that slot, credit is kept, nothing stays pinned.
 * Linked to fuzz/frames.c.
 */
#include <string.h>

#include "_frames.h"

/* Which way the checks go is nothing that an input should be kept for. */
#pragma clang attribute push(__attribute__((no_sanitize("coverage"))), apply_to = function)

#define IN(state) (1u << EXCHANGE_##state)
#define AT_SLOT	  (IN(PLACED) | IN(RECALLED) | IN(STARTED) | IN(ANSWERING) | IN(ABANDONED))

struct sums {
	uint32_t placed, usable, tunnels;
};

static void placing_ok(const struct slot *s, const struct exchange *x)
{
	for (unsigned i = 0; i < PLACEMENTS && i < world.placements; i++) {
		const struct placement *p = &world.placed[i];
		if (p->serial != x->serial)
			continue;
		must(memcmp(&p->at, &s->identity, sizeof(p->at)) == 0 && p->request == x->index);
		must(x->request == NULL || x->request->life == p->life);
		must(x->answer.limit <= p->window || x->state < EXCHANGE_ANSWERING);
		return;
	}
	must(world.placements > PLACEMENTS);
}

static void exchange_ok(const struct exchange *x)
{
	must(x->pins == 0 && x->state > EXCHANGE_FREE && x->state < EXCHANGE_STATES);
	must((x->slot != NULL) == ((AT_SLOT >> x->state & 1) != 0));
	must((x->request == NULL) == (x->state == EXCHANGE_ABANDONED));
	if (x->request != NULL) {
		must(x->request->backend_data == x && strcmp(x->request->backend->name, "group") == 0);
		must(request_by_index(world.e, x->index) == x->request);
		must((x->state < EXCHANGE_ANSWERING) == !x->answered_head || x->state == EXCHANGE_ANSWERED);
	}
	must(x->body.sent <= x->body.received && x->body.size <= x->body.capacity);
	must(x->upload != UPLOAD_STREAM || x->body.sent <= x->body.limit || x->body.sent <= x->body.received);
	must(x->state != EXCHANGE_ANSWERING || x->answer.received <= x->answer.limit);
	must(x->answer.run_count <= sizeof(x->answer.runs) / sizeof(x->answer.runs[0]));
}

static void slot_ok(const struct slot *s, struct sums *sums)
{
	uint32_t placed = 0, recalls = 0;
	uint64_t serial = 0;

	for (const struct list *n = s->exchanges.next; n != &s->exchanges; n = n->next) {
		const struct exchange *x = list_entry(n, struct exchange, node);
		must(x->slot == s && x->serial > serial && n->next->previous == n);
		serial = x->serial;
		placed++;
		recalls += x->state == EXCHANGE_RECALLED;
		sums->tunnels += x->tunnel;
		must(x->tunnel == list_linked(&x->open));
		exchange_ok(x);
		placing_ok(s, x);
	}
	must(placed == s->placed && recalls == s->recalls && s->state < SLOT_STATES);
	must(list_linked(&s->free) == (s->state == SLOT_USABLE && placed == 0));
	must(list_linked(&s->owing) == (s->owes != 0));
	must(placed > 0 || !list_linked(&s->watched));
	sums->placed += placed;
	sums->usable += s->state == SLOT_USABLE;
}

static struct sums generation_ok(const struct generation *gen)
{
	struct sums sums = {0};
	uint32_t connections = gen->hello_count;

	for (const struct list *n = gen->workers.next; n != &gen->workers; n = n->next) {
		const struct worker *w = list_entry(n, struct worker, node);
		struct sums mine = {0};
		for (uint32_t i = 0; i < w->slots; i++) {
			slot_ok(&w->slot[i], &mine);
			connections += w->slot[i].state != SLOT_ABSENT;
		}
		must(mine.placed == w->running && worker_find(gen, w->number) == w);
		must(w->gone == list_linked(&w->ending));
		connections += w->keeper;
		sums.placed += mine.placed;
		sums.usable += mine.usable;
		sums.tunnels += mine.tunnels;
	}
	must(sums.placed == gen->in_flight && sums.usable == gen->usable && connections == gen->connections);
	must(!gen->broken || !list_linked(&gen->recheck));
	return sums;
}

/* How many wait there. */
static uint32_t lane_ok(const struct group *g, const struct list *waiting, unsigned number)
{
	uint32_t count = 0;

	for (const struct list *n = waiting->next; n != waiting; n = n->next, count++) {
		const struct exchange *x = list_entry(n, struct exchange, node);
		must(x->state == EXCHANGE_QUEUED && x->group == g && x->lane == number);
	}
	return count;
}

static uint32_t queue_ok(const struct group *g)
{
	uint32_t queued = lane_ok(g, &g->returned, QUEUE_RETURNED), turns = 0, lanes = 0;

	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		const struct lane *lane = &g->lane[i];
		must(lane_ok(g, &lane->waiting, i) == lane->count && list_linked(&lane->turn) == (lane->count > 0));
		queued += lane->count;
		lanes += lane->count > 0;
	}
	for (const struct list *n = g->turns.next; n != &g->turns; n = n->next)
		turns++;
	must(turns == lanes);
	return queued;
}

static void group_ok(const struct group *g)
{
	uint32_t queued = queue_ok(g), exchanges = 0, tunnels = 0;

	must(queued == g->queued && list_linked(&g->waiting) == (queued > 0));
	for (const struct list *n = g->generations.next; n != &g->generations; n = n->next) {
		struct sums sums = generation_ok(list_entry(n, struct generation, node));
		exchanges += sums.placed;
		tunnels += sums.tunnels;
	}
	must(tunnels == g->tunnels);
	/* And those that no slot has: one for each of their clients. */
	for (unsigned i = 0; i < CLIENTS; i++) {
		const struct request *r = world.client[i].c ? world.client[i].c->request : NULL;
		if (r == NULL || r->backend == NULL || strcmp(r->backend->name, "group") != 0)
			continue;
		const struct exchange *x = r->backend_data;
		must(x->request == r);
		exchange_ok(x);
		if (x->group == g && x->slot == NULL)
			exchanges++;
	}
	must(exchanges == g->exchanges);
}

void channel_ok(struct engine *e)
{
	struct channel *c = e->channel;

	for (const struct list *n = c->groups.next; n != &c->groups; n = n->next)
		group_ok(list_entry(n, struct group, node));
}

#pragma clang attribute pop
