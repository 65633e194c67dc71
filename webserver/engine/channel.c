/* The channel's turn, its two clocks, and the one way out to workers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "channel.h"
#include "posts.h"
#include "quarantine.h"

#define ROUNDS 4 /* reading and placing again within one turn, since each send may have swallowed a wake-up */

/* ---- sending */

int channel_try(struct generation *gen, const struct wire_identity *to, zmq_msg_t *message)
{
	const struct zmqlib *zmq = gen->engine->zmq;
	int rc;

	if (gen->broken) {
		errno = EHOSTUNREACH;
		return -1;
	}
	generation_touch(gen);
	do
		rc = zmq->send(gen->socket, to, sizeof(*to), ZMQ_SNDMORE | ZMQ_DONTWAIT);
	while (rc < 0 && zmq->errno_() == EINTR);
	/* Room for the second frame is not asked for again, so that only a signal can come between. */
	while (rc >= 0 && (rc = zmq->msg_send(message, gen->socket, ZMQ_DONTWAIT)) < 0 && zmq->errno_() == EINTR)
		;
	if (rc >= 0)
		return 0;
	errno = zmq->errno_();
	return -1;
}

int channel_send(struct generation *gen, const struct wire_identity *to, zmq_msg_t *message)
{
	if (channel_try(gen, to, message) == 0)
		return 0;
	int number = errno;
	gen->engine->zmq->msg_close(message);
	errno = number;
	return -1;
}

int channel_send_head(struct generation *gen, const struct wire_identity *to, uint32_t kind, uint64_t serial,
	uint32_t request, uint16_t slot)
{
	struct wire_head head = {
		.kind = kind, .size = sizeof(head), .serial = serial, .request = request, .slot = slot};
	zmq_msg_t message;

	if (gen->engine->zmq->msg_init_size(&message, sizeof(head)) < 0) {
		errno = EAGAIN;
		return -1;
	}
	memcpy(gen->engine->zmq->msg_data(&message), &head, sizeof(head));
	return channel_send(gen, to, &message);
}

/* ---- what was left for the end of the turn */

static void due_run(struct exchange *x)
{
	exchange_pin(x);
	if (x->owes & (OWES_CANCEL | OWES_CANCEL_KEEPER))
		group_cancel(x);
	if (x->request != NULL && x->failed == BODY_TOO_LARGE)
		exchange_fail(x, 413, 0, "group \"%s\": the gathered body is larger than spool_limit", x->group->name);
	else if (x->request != NULL && x->failed)
		exchange_fail(x, 503, 1, "group \"%s\": no memory for the request's body", x->group->name);
	else if (x->request != NULL && x->state == EXCHANGE_GATHERING &&
		 (x->body.complete || x->upload == UPLOAD_STREAM))
		group_enqueue(x);
	if (x->request != NULL && x->slot != NULL)
		body_forward(x);
	if (x->request != NULL && x->flush) {
		x->flush = false;
		if (reply_flush(x->request) < 0)
			x->owes &= (uint8_t)~OWES_CREDIT;
	}
	if (x->request != NULL && x->state == EXCHANGE_ANSWERING)
		answer_credit(x, reply_queued(x->request));
	/* Last, since the body's next bytes may be here already. */
	if (x->request != NULL && !x->failed)
		body_want(x);
	exchange_unpin(x);
}

static bool due_all(struct engine *e)
{
	struct list *due = &e->channel->due;
	struct list end = {0};

	/* What is added from here on is for the next round. */
	list_append(due, &end);
	while (due->next != &end) {
		struct exchange *x = list_entry(due->next, struct exchange, due);
		list_remove(&x->due);
		due_run(x);
	}
	list_remove(&end);
	return !list_empty(due);
}

static void read_all(struct engine *e)
{
	struct list *recheck = &e->channel->recheck;
	struct list end = {0};

	list_append(recheck, &end);
	while (recheck->next != &end) {
		struct generation *gen = list_entry(recheck->next, struct generation, recheck);
		list_remove(&gen->recheck);
		if (frames_read(gen, FRAMES_A_TURN))
			generation_touch(gen);
	}
	list_remove(&end);
}

static void place_all(struct engine *e)
{
	struct list *waiting = &e->channel->waiting;
	struct list end = {0};

	/* As in queue_look: what is tried may leave the list and come back at its end. */
	list_append(waiting, &end);
	while (waiting->next != &end) {
		struct group *g = list_entry(waiting->next, struct group, waiting);
		list_remove(&g->waiting);
		list_append(waiting, &g->waiting);
		if (g->look)
			queue_place(g);
	}
	list_remove(&end);
}

bool channel_turn(struct engine *e)
{
	struct channel *c = e->channel;
	bool more = true;

	c->spooled = 0;
	for (unsigned round = 0; more && round < ROUNDS; round++) {
		posts_take(e);
		read_all(e);
		if (!list_empty(&c->ending))
			ending_look(e);
		place_all(e);
		more = due_all(e) || !list_empty(&c->recheck);
	}
	return more;
}

/* ---- clocks: armed only while there is something to look after */

static void watch_expired(struct engine *e, struct timer *timer)
{
	(void)timer;
	place_watch(e);
}

static void look_expired(struct engine *e, struct timer *timer)
{
	(void)timer;
	struct list *retry = &e->channel->retry;

	while (!list_empty(retry)) {
		struct exchange *x = list_entry(retry->next, struct exchange, due);
		list_remove(&x->due);
		exchange_due(x);
	}
	slots_pay(e);
	ending_look(e);
	queue_look(e);
	group_release_closed(e);
}

void channel_look_later(struct engine *e)
{
	struct channel *c = e->channel;

	if (!list_linked(&c->look.node))
		timer_arm(e, c->look_queue, &c->look);
}

void channel_watch_later(struct engine *e)
{
	struct channel *c = e->channel;

	if (!list_linked(&c->watch.node))
		timer_arm(e, c->watch_queue, &c->watch);
}

/* Not before the next look: its connection, or the spool directory, takes nothing at the moment. */
void channel_retry(struct exchange *x)
{
	struct engine *e = exchange_engine(x);

	if (!list_linked(&x->due))
		list_append(&e->channel->retry, &x->due);
	channel_look_later(e);
}

/* ---- made and freed */

int channel_make(struct engine *e)
{
	struct channel *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return -1;
	e->channel = c;
	c->engine = e;
	if (e->options.ordinal >= WIRE_FRONTENDS || e->options.frontends > WIRE_FRONTENDS ||
		e->options.incarnation == 0 || e->options.incarnation >> 24 != 0) {
		errno = EINVAL;
		return -1;
	}
	list_init(&c->groups);
	list_init(&c->closed_groups);
	list_init(&c->recheck);
	list_init(&c->due);
	list_init(&c->retry);
	list_init(&c->waiting);
	list_init(&c->watched);
	list_init(&c->owing);
	list_init(&c->ending);
	list_init(&c->tunnels);
	c->serial_base = (uint64_t)e->options.incarnation << 40;
	if (quarantine_make(c) < 0)
		return -1;
	c->share = WIRE_PLACED / (e->options.frontends ? e->options.frontends : 1);
	if (c->share == 0)
		c->share = 1;
	c->watch_queue = timer_queue(e, STUCK_NS, watch_expired);
	c->look_queue = timer_queue(e, LOOK_NS, look_expired);
	return c->watch_queue != NULL && c->look_queue != NULL && absorb_make(c) == 0 && posts_make(c) == 0
		       ? tunnels_limits(e)
		       : -1;
}

void channel_free(struct engine *e)
{
	struct channel *c = e->channel;

	if (c == NULL)
		return;
	if (c->groups.next != NULL)
		groups_free(e);
	timer_disarm(&c->watch);
	timer_disarm(&c->look);
	exchanges_free(e);
	quarantine_free(c);
	posts_free(c);
	free(c->table);
	free(c);
	e->channel = NULL;
}
