/*
 * Tunnels: requests that a worker has answered with 101, of which both bodies stay open.
 *
 * The deadline of the request ends with the 101. Instead a tunnel may be silent for tunnel_timeout. When its generation
 * or this process is to end it may go on for tunnel_grace; then the worker hears that the client has ended, as most
 * applications end when they hear that, and what is still open a little later is cut.
 */
#include "channel.h"
#include "connection.h"
#include "fields.h"
#include "http.h"

#define LAST_NS 2000000000ull /* that a worker has after it has heard of the end */

bool tunnel_asked_for(const struct exchange *x, const struct wire_response *response, size_t count)
{
	const struct field *fields = exchange_engine(x)->channel->fields, *protocol = NULL;
	const struct request *r = x->request;

	if (!r->upgrade || !(response->head.flags & WIRE_UPGRADE) || (response->head.flags & WIRE_LAST) ||
		response->content_length != UINT64_MAX)
		return false;
	for (size_t i = 0; i < count; i++) {
		if (!wire_is_word(fields[i].name.data, fields[i].name.size, "upgrade"))
			continue;
		if (protocol != NULL)
			return false;
		protocol = &fields[i];
	}
	for (uint32_t i = 0; protocol != NULL && i < r->field_count; i++)
		if (r->fields[i].known == WIRE_FIELD_UPGRADE &&
			wire_offers_protocol(r->fields[i].value.data, r->fields[i].value.size, protocol->value.data,
				protocol->value.size))
			return true;
	return false;
}

/* ---- how long it may go on */

static void idle_expired(struct engine *e, struct timer *timer)
{
	struct exchange *x = list_entry(timer, struct exchange, deadline);

	log_entry(e, LOG_LEVEL_NOTICE, x->request, "nothing came through the tunnel for tunnel_timeout; it is cut");
	reply_abort(x->request);
}

/* As if the client had ended its side. */
static void grace_expired(struct engine *e, struct timer *timer)
{
	struct exchange *x = list_entry(timer, struct exchange, deadline);
	struct request *r = x->request;

	timer_arm(e, e->channel->tunnel_last, &x->deadline);
	if (r->body_done)
		return;
	r->body_done = true;
	r->body_room = 0;
	connection_listen(r->connection, false);
	body_take(x, NULL, 0, true);
}

static void last_expired(struct engine *e, struct timer *timer)
{
	struct exchange *x = list_entry(timer, struct exchange, deadline);

	log_entry(e, LOG_LEVEL_NOTICE, x->request, "the tunnel did not end within tunnel_grace; it is cut");
	reply_abort(x->request);
}

int tunnels_limits(struct engine *e)
{
	struct channel *c = e->channel;
	const struct engine_limits *limits = &e->limits;
	struct timer_queue *idle = NULL, *grace = NULL;

	if (limits->tunnel_timeout_ns != 0 && (idle = timer_queue(e, limits->tunnel_timeout_ns, idle_expired)) == NULL)
		return -1;
	if (limits->tunnel_grace_ns != 0 && (grace = timer_queue(e, limits->tunnel_grace_ns, grace_expired)) == NULL)
		return -1;
	c->tunnel_idle = idle;
	c->tunnel_grace = grace;
	c->tunnel_last = timer_queue(e, LAST_NS, last_expired);
	return c->tunnel_last != NULL ? 0 : -1;
}

void tunnel_moved(struct exchange *x)
{
	struct engine *e = exchange_engine(x);

	if (!x->leaving && x->request != NULL && e->channel->tunnel_idle != NULL)
		timer_arm(e, e->channel->tunnel_idle, &x->deadline);
}

static void leave(struct exchange *x)
{
	struct engine *e = exchange_engine(x);

	if (x->leaving || x->request == NULL || e->channel->tunnel_grace == NULL)
		return;
	x->leaving = true;
	timer_arm(e, e->channel->tunnel_grace, &x->deadline);
}

void tunnels_leave(struct engine *e, const struct generation *gen, const struct worker *w)
{
	struct list *tunnels = &e->channel->tunnels;

	for (struct list *n = tunnels->next; n != tunnels; n = n->next) {
		struct exchange *x = list_entry(n, struct exchange, open);
		if ((gen == NULL || x->slot->worker->generation == gen) && (w == NULL || x->slot->worker == w))
			leave(x);
	}
}

/* ---- its beginning and end */

void tunnel_begin(struct exchange *x)
{
	struct engine *e = exchange_engine(x);
	struct request *r = x->request;

	x->tunnel = true;
	list_append(&e->channel->tunnels, &x->open);
	x->group->tunnels++;
	e->stats.tunnels++;
	timer_disarm(&x->deadline);
	exchange_forget_body(x);
	x->upload = UPLOAD_STREAM;
	x->body.received = x->body.wanted = x->body.sent = 0;
	x->body.limit = WIRE_BODY_WINDOW;
	x->body.complete = x->body.closed = false;
	r->content_length = UINT64_MAX;
	r->has_body = true;
	r->body_done = false;
	r->body_received = r->body_room = 0;
	connection_tunnel(r->connection);
	tunnel_moved(x);
	if (e->draining || x->slot->worker->generation->draining || x->slot->worker->leaves)
		leave(x);
	exchange_due(x);
}

void tunnel_over(struct exchange *x)
{
	list_remove(&x->open);
	x->group->tunnels--;
	exchange_engine(x)->stats.tunnels--;
}
