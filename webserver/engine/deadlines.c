/*
 * Time limits of connections.
 *
 *   head    from the connection's start, or a later request's first byte, to the end of the head   408 if a byte came
 *   idle    between requests                                                                       closed
 *   body    the backend wants body and none comes                                                  408, or cut
 *   send    the client takes nothing of what is ready for it                                       cut
 *   linger  the answer has been given, and we wait for the client to see it                        closed
 *   probe   see peer_has_shut in connection.c
 *   accept  descriptors or memory ran out; accept again
 *   drain   idle connections have had time for one more request
 */
#include "deadlines.h"
#include "loop.h"

#define SECOND	  1000000000U
#define LINGER_NS (5ULL * SECOND)
#define PROBE_NS  (SECOND / 2)
#define ACCEPT_NS (SECOND / 10)
#define DRAIN_NS  SECOND

static struct connection *by_timer(struct timer *timer)
{
	return list_entry(timer, struct connection, timer);
}

static void head_expired(struct engine *e, struct timer *timer)
{
	struct connection *c = by_timer(timer);
	(void)e;
	if (c->phase == PHASE_HEAD)
		head_refuse(c, 408, "the request's head did not arrive within head_timeout");
	else
		connection_close(c);
}

static void idle_expired(struct engine *e, struct timer *timer)
{
	(void)e;
	connection_close(by_timer(timer));
}

static void body_expired(struct engine *e, struct timer *timer)
{
	static const char why[] = "no byte of the request's body came within body_timeout";
	struct connection *c = by_timer(timer);
	struct request *r = c->request;
	if (r == NULL) {
		connection_close(c);
		return;
	}
	if (r->state >= REQUEST_REPLYING) {
		log_entry(e, LOG_LEVEL_NOTICE, r, "%s; an answer has begun, the connection is cut", why);
		connection_close(c);
		return;
	}
	request_withdraw(r);
	r->keep_alive = false;
	answer_status(r, 408, why, 0);
}

static void send_expired(struct engine *e, struct timer *timer)
{
	struct connection *c = list_entry(timer, struct connection, send_timer);
	if (c->request != NULL)
		log_entry(e, LOG_LEVEL_NOTICE, c->request,
			"the client took no byte of the answer within send_timeout; cut");
	connection_reset(c);
}

static void linger_expired(struct engine *e, struct timer *timer)
{
	(void)e;
	connection_close(by_timer(timer));
}

static void probe_expired(struct engine *e, struct timer *timer)
{
	struct connection *c = by_timer(timer);
	(void)e;
	if (c->request == NULL || c->request->state >= REQUEST_REPLYING || c->probed)
		return;
	c->probed = true;
	if (reply_inform(c->request, 100, NULL, 0) == 0)
		reply_flush(c->request);
}

static void accept_expired(struct engine *e, struct timer *timer)
{
	(void)timer;
	listeners_resume(e);
}

static void drain_expired(struct engine *e, struct timer *timer)
{
	(void)timer;
	connections_drain_idle(e);
}

int deadlines_make(struct engine *e)
{
	struct connections *cs = e->connections;
	const struct engine_limits *limits = &e->limits;
	const struct {
		struct timer_queue **queue;
		uint64_t duration_ns;
		timer_expired *expired;
	} waits[] = {
		{&cs->head_queue, limits->head_timeout_ns, head_expired},
		{&cs->idle_queue, limits->idle_timeout_ns, idle_expired},
		{&cs->body_queue, limits->body_timeout_ns, body_expired},
		{&cs->send_queue, limits->send_timeout_ns, send_expired},
		{&cs->linger_queue, LINGER_NS, linger_expired},
		{&cs->probe_queue, PROBE_NS, probe_expired},
		{&cs->accept_queue, ACCEPT_NS, accept_expired},
		{&cs->drain_queue, DRAIN_NS, drain_expired},
	};
	for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
		struct timer_queue *queue = timer_queue(e, waits[i].duration_ns, waits[i].expired);
		if (queue == NULL && *waits[i].queue == NULL)
			return -1;
		if (queue != NULL)
			*waits[i].queue = queue;
	}
	return 0;
}

void connections_limits(struct engine *e)
{
	deadlines_make(e);
	if (e->connections->accept_stopped)
		listeners_resume(e);
}
