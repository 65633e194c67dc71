/*
 * Process groups: their options, requests that come in for them, and how a request ends on the client's side.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "channel.h"
#include "loop.h"
#include "quarantine.h"

#define GROUPS	   65536	/* ids are small numbers of the supervisor's */
#define OVERDUE_NS 100000000ull /* between two words about one worker */

struct group *group_find(struct engine *e, uint32_t id)
{
	struct channel *c = e->channel;

	return id < c->table_size ? c->table[id] : NULL;
}

/* ---- the backend of struct request */

static void backend_body(struct request *r, const char *data, size_t size, bool last)
{
	body_take(r->backend_data, data, size, last);
}

static char *backend_space(struct request *r, size_t *size)
{
	return body_space(r->backend_data, size);
}

static void backend_written(struct request *r, size_t queued)
{
	struct exchange *x = r->backend_data;

	if (x->state == EXCHANGE_ANSWERING)
		answer_credit(x, queued);
}

void group_cancel(struct exchange *x)
{
	static const struct {
		unsigned owes;
		bool keeper;
	} to[] = {{OWES_CANCEL, false}, {OWES_CANCEL_KEEPER, true}};
	struct slot *s = x->slot;

	for (unsigned i = 0; i < 2 && s != NULL; i++) {
		struct worker *w = s->worker;
		if (!(x->owes & to[i].owes))
			continue;
		x->owes &= (uint8_t)~to[i].owes;
		if (to[i].keeper && !w->keeper)
			continue;
		if (channel_send_head(w->generation, to[i].keeper ? &w->keeper_identity : &s->identity, WIRE_CANCEL,
			    x->serial, x->index, s->number) < 0 &&
			errno == EAGAIN)
			x->owes |= (uint8_t)to[i].owes;
	}
	if (x->owes != 0)
		channel_retry(x);
}

/* The client's side is over: gone, or answered by the engine itself. x may be freed. */
static void part(struct exchange *x)
{
	struct engine *e = exchange_engine(x);

	exchange_pin(x);
	timer_disarm(&x->deadline);
	if (x->slot != NULL)
		quarantine_keep(x);
	timer_disarm(&x->answer.pressed);
	x->request = NULL;
	list_remove(&x->due);
	if (x->slot != NULL) {
		e->stats.cancelled++;
		exchange_move(x, EXCHANGE_ABANDONED);
		exchange_forget_body(x);
		x->owes = OWES_CANCEL | OWES_CANCEL_KEEPER;
		group_cancel(x);
	} else if (x->state == EXCHANGE_QUEUED && list_linked(&x->node)) {
		queue_remove(x);
		e->stats.cancelled++;
	}
	exchange_unpin(x);
}

static void backend_release(struct request *r, bool complete)
{
	(void)complete;
	part(r->backend_data);
}

static const struct backend group_backend = {
	.name = "group",
	.body = backend_body,
	.space = backend_space,
	.written = backend_written,
	.release = backend_release,
};

/* For a request that the engine answers itself after all. */
static void spent_body(struct request *r, const char *data, size_t size, bool last)
{
	(void)r;
	(void)data;
	(void)size;
	(void)last;
}

static void spent_written(struct request *r, size_t queued)
{
	(void)r;
	(void)queued;
}

static void spent_release(struct request *r, bool complete)
{
	(void)r;
	(void)complete;
}

static const struct backend spent_backend = {
	.name = "none",
	.body = spent_body,
	.written = spent_written,
	.release = spent_release,
};

void group_sever(struct exchange *x)
{
	struct request *r = x->request;

	part(x);
	/* Nobody reads its body any more: a connection that has too much of it to come does not stay. */
	r->body_room = 0;
	r->backend = &spent_backend;
	r->backend_data = NULL;
}

/* ---- a request comes in */

/* Whoever looks after workers looks at this one now. Many requests may end at once: it looks at all that run there. */
static void tell_overdue(struct engine *e, const struct exchange *x)
{
	struct worker *w = x->slot != NULL ? x->slot->worker : NULL;

	if (w == NULL || w->gone || (w->overdue_ns != 0 && e->now_ns - w->overdue_ns < OVERDUE_NS))
		return;
	w->overdue_ns = e->now_ns;
	struct engine_event *event = event_push(e, EVENT_OVERDUE);
	event->group = x->group->id;
	event->generation = w->generation->number;
	event->worker = w->number;
}

static void deadline_expired(struct engine *e, struct timer *timer)
{
	struct exchange *x = list_entry(timer, struct exchange, deadline);
	struct group *g = x->group;

	tell_overdue(e, x);
	exchange_pin(x);
	exchange_fail(x, 504, 0, "group \"%s\": not answered within %.1f s, which is its request_timeout; it was %s",
		g->name, (double)g->request_timeout_ns / 1e9, exchange_state_name(x->state));
	exchange_unpin(x);
}

void group_enqueue(struct exchange *x)
{
	struct group *g = x->group;
	struct engine *e = g->engine;

	/* The time that a client takes for its body is body_timeout's. */
	if (g->deadlines != NULL && x->deadline_ns == 0) {
		x->deadline_ns = e->now_ns + g->request_timeout_ns;
		timer_arm(e, g->deadlines, &x->deadline);
	}
	queue_append(x);
}

void group_start(struct request *r, uint32_t group, struct engine_text script_name, struct engine_text path_info,
	struct engine_text script_filename)
{
	struct engine *e = request_engine(r);
	struct group *g = group_find(e, group);

	if (g != NULL && !quarantine_is_empty(e->channel) && quarantine_refuses(r, g))
		return;
	struct exchange *x = g ? exchange_make(e, g, r) : NULL;

	if (x == NULL) {
		answer_status(r, 503,
			g ? "no memory for one more request" : "the request's process group is not there any more", 1);
		return;
	}
	x->script_name = script_name;
	x->path_info = path_info;
	x->script_filename = script_filename;
	r->group_name = g->name;
	if (!request_take(r, &group_backend, x)) {
		x->request = NULL; /* answered, and over */
		exchange_settle(x);
		return;
	}
	exchange_pin(x);
	if (!body_gathers(x)) {
		group_enqueue(x);
	} else {
		exchange_move(x, EXCHANGE_GATHERING);
		if (x->failed)
			exchange_due(x); /* it will not be asked for */
		else
			body_want(x);
	}
	exchange_unpin(x);
}

/* ---- called from Python */

static int group_table(struct channel *c, uint32_t id)
{
	if (id < c->table_size)
		return 0;
	uint32_t size = c->table_size ? c->table_size : 16;
	while (size <= id)
		size *= 2;
	struct group **table = realloc(c->table, size * sizeof(struct group *));
	if (table == NULL)
		return -1;
	memset(table + c->table_size, 0, (size - c->table_size) * sizeof(struct group *));
	c->table = table;
	c->table_size = size;
	return 0;
}

int engine_group(engine *e, uint32_t group, const struct engine_group_options *options)
{
	struct channel *c = e->channel;
	struct group *g = group_find(e, group);

	if (group >= GROUPS || options->name == NULL)
		return ENGINE_INVALID;
	struct timer_queue *deadlines = NULL;
	if (options->request_timeout_ns != 0) {
		deadlines = timer_queue(e, options->request_timeout_ns, deadline_expired);
		if (deadlines == NULL)
			return ENGINE_SYSTEM;
	}
	if (g == NULL) {
		g = calloc(1, sizeof(*g));
		if (g == NULL || group_table(c, group) < 0 || (g->name = strdup(options->name)) == NULL) {
			free(g);
			return ENGINE_SYSTEM;
		}
		g->engine = e;
		g->id = group;
		list_init(&g->generations);
		queue_init(g);
		list_append(&c->groups, &g->node);
		c->table[group] = g;
	} else if (strcmp(g->name, options->name) != 0) {
		return ENGINE_INVALID; /* ids are not used twice: requests and log lines refer to them */
	}
	g->queue_length = options->queue_length;
	g->queue_timeout_ns = options->queue_timeout_ns;
	g->request_timeout_ns = options->request_timeout_ns;
	g->quarantine = options->quarantine;
	g->deadlines = deadlines;
	g->elastic = options->elastic != 0;
	g->look = true;
	return ENGINE_OK;
}

int engine_group_close(engine *e, uint32_t group)
{
	struct channel *c = e->channel;
	struct group *g = group_find(e, group);

	if (g == NULL)
		return ENGINE_INVALID;
	engine_clock(e);
	g->closed = true;
	c->table[group] = NULL;
	while (!list_empty(&g->generations))
		generation_close(list_entry(g->generations.next, struct generation, node));
	for (struct exchange *x; (x = queue_next(g)) != NULL;) {
		queue_remove(x);
		exchange_fail(x, 503, 1, "group \"%s\" has been removed", g->name);
	}
	list_remove(&g->node);
	list_append(&c->closed_groups, &g->node);
	channel_look_later(e);
	return ENGINE_OK;
}

/* Requests name their group until they have been logged. */
void group_release_closed(struct engine *e)
{
	struct list *closed = &e->channel->closed_groups;

	for (struct list *n = closed->next, *next; n != closed; n = next) {
		struct group *g = list_entry(n, struct group, node);
		next = n->next;
		if (g->exchanges > 0)
			continue;
		list_remove(&g->node);
		free(g->name);
		free(g);
	}
	if (!list_empty(closed))
		channel_look_later(e);
}

void groups_free(struct engine *e)
{
	struct channel *c = e->channel;

	while (!list_empty(&c->groups))
		engine_group_close(e, list_entry(c->groups.next, struct group, node)->id);
	group_release_closed(e);
}

int engine_group_stats(const engine *e, uint32_t group, struct engine_group_stats *stats)
{
	const struct group *g = group_find((engine *)e, group);

	memset(stats, 0, sizeof(*stats));
	if (g == NULL)
		return ENGINE_INVALID;
	stats->queued = g->queued;
	stats->exchanges = g->exchanges;
	stats->tunnels = g->tunnels;
	stats->requests = g->requests;
	stats->service_ns = g->service_ns;
	stats->waits_since_ns = queue_waits_since(g);
	for (struct list *n = g->generations.next; n != &g->generations; n = n->next) {
		const struct generation *gen = list_entry(n, struct generation, node);
		stats->running += gen->in_flight;
		stats->slots += gen->usable;
		for (struct list *m = gen->workers.next; m != &gen->workers; m = m->next) {
			const struct worker *w = list_entry(m, struct worker, node);
			for (struct list *f = w->free.next; f != &w->free; f = f->next)
				stats->free_slots++;
		}
	}
	return ENGINE_OK;
}
