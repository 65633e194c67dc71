/*
 * Frames from workers. A worker is nobody's friend: whoever speaks here may have been taken over. A frame is acted on
 * only if the connection's identity is a worker's that control has announced, the size is what arrived, the kind may
 * come on such a connection, and serial, request and slot agree with the engine's own record of what it sent there.
 * All else is dropped and counted.
 */
#include <errno.h>
#include <string.h>

#include "answers.h"
#include "channel.h"
#include "posts.h"

struct frame {
	struct generation *gen;
	struct worker *worker;
	struct slot *slot;  /* the one the frame is about */
	struct exchange *x; /* NEEDS_EXCHANGE; pinned */
	struct wire_head head;
	zmq_msg_t *message;
	const char *data;
	size_t size;
};

enum { FROM_SLOT = 1, FROM_KEEPER = 2 };
enum { NEEDS_NOTHING = 0, NEEDS_SLOT = 1, NEEDS_EXCHANGE = 2 };
#define IN(state)     (1u << EXCHANGE_##state)
#define BEFORE_ANSWER (IN(PLACED) | IN(RECALLED) | IN(STARTED))

static void take_hello(struct frame *f)
{
	struct wire_hello hello;
	struct worker *w = f->worker;

	memcpy(&hello, f->data, sizeof(hello));
	if (hello.magic != WIRE_MAGIC || hello.version != WIRE_VERSION) {
		generation_violation(f->gen, "hello with another magic or version");
	} else if (f->slot == NULL) {
		if (w->keeper) {
			generation_violation(f->gen, "a keeper said hello twice");
			return;
		}
		w->keeper = true;
		generation_connected(f->gen);
	} else {
		bool known = f->slot->state != SLOT_ABSENT;
		slot_hello(f->slot);
		if (!known)
			generation_connected(f->gen);
	}
}

static void take_alive(struct frame *f)
{
	slot_alive(f->slot);
}

static void take_leaving(struct frame *f)
{
	slot_leaving(f->slot);
}

static void take_posted(struct frame *f)
{
	(void)f; /* to be woken was all; frame_take has looked already, as has the turn for the worker's other slots */
}

static void take_goodbye(struct frame *f)
{
	if (f->slot != NULL)
		slot_goodbye(f->slot);
}

/* The worker has begun; it may have been asked back meanwhile, and the verdict will say the same. */
static void note_started(struct exchange *x)
{
	if (x->state != EXCHANGE_PLACED && x->state != EXCHANGE_RECALLED)
		return;
	/* Its body was held back meanwhile, and nothing else may come that would send it. */
	if (x->state == EXCHANGE_RECALLED)
		exchange_due(x);
	exchange_move(x, EXCHANGE_STARTED);
}

/* The answer is wrong in itself. The client learns nothing of it; the slot stays taken until the worker is done. */
static void refuse(struct frame *f, const char *what)
{
	generation_violation(f->gen, what);
	exchange_fail(f->x, 502, 0, "group \"%s\": worker %llu broke the channel's rules: %s", f->gen->group->name,
		(unsigned long long)f->worker->number, what);
}

static void take_response(struct frame *f)
{
	bool last = f->head.flags & WIRE_LAST;

	if (f->x->state != EXCHANGE_ABANDONED) {
		note_started(f->x);
		if (!answer_response(f->x, f->message, f->data, f->size))
			refuse(f, "an answer that is not well formed");
	} else if (last) {
		answer_over(f->x);
	}
	if (last && f->x->slot != NULL)
		answer_over(f->x);
}

static void take_inform(struct frame *f)
{
	if (f->x->state == EXCHANGE_ABANDONED)
		return;
	note_started(f->x);
	if (!answer_inform(f->x, f->data, f->size))
		refuse(f, "an interim answer that is not well formed");
}

static void take_body(struct frame *f)
{
	bool last = f->head.flags & WIRE_LAST;

	if (f->x->state == EXCHANGE_ABANDONED)
		answer_unwanted(f->x, f->data, f->size);
	else if (!answer_body(f->x, f->message, f->data, f->size))
		refuse(f, "a piece of body out of order or beyond its credit");
	if (last && f->x->slot != NULL)
		answer_over(f->x);
}

static void take_credit(struct frame *f)
{
	struct wire_credit credit;

	memcpy(&credit, f->data, sizeof(credit));
	if (f->x->state == EXCHANGE_ABANDONED)
		return;
	note_started(f->x);
	if (!body_credit(f->x, credit.limit))
		generation_violation(f->gen, "credit that shrinks");
}

static void take_abort(struct frame *f)
{
	struct exchange *x = f->x;

	if (x->state == EXCHANGE_ABANDONED) {
		answer_over(x);
		return;
	}
	answer_over(x);
	exchange_fail(x, 502, 0, "group \"%s\": worker %llu ended its answer before it was whole", f->gen->group->name,
		(unsigned long long)f->worker->number);
}

static void take_verdict(struct frame *f)
{
	if (f->head.flags & WIRE_GIVEN_BACK) {
		if (f->x->state == EXCHANGE_RECALLED || f->x->state == EXCHANGE_ABANDONED)
			place_given_back(f->x);
		else
			generation_violation(f->gen, "a request given back that was not recalled");
	} else {
		note_started(f->x);
	}
}

/*
 * late: the frame may honestly arrive after its request is over, because it comes on the keeper's connection, crossed a
 * frame of ours, or both ends of a worker answered a cancel.
 */
static const struct rule {
	uint8_t from, needs;
	bool late;
	uint16_t size;	 /* at least */
	uint16_t states; /* of the exchange */
	void (*take)(struct frame *f);
} rules[] = {
	[WIRE_BODY] = {FROM_SLOT, NEEDS_EXCHANGE, false, sizeof(struct wire_body), IN(ANSWERING) | IN(ABANDONED),
		take_body},
	[WIRE_CREDIT] = {FROM_SLOT, NEEDS_EXCHANGE, true, sizeof(struct wire_credit),
		BEFORE_ANSWER | IN(ANSWERING) | IN(ABANDONED), take_credit},
	[WIRE_HELLO] = {FROM_SLOT | FROM_KEEPER, NEEDS_NOTHING, false, sizeof(struct wire_hello), 0, take_hello},
	[WIRE_RESPONSE] = {FROM_SLOT, NEEDS_EXCHANGE, false, sizeof(struct wire_response),
		BEFORE_ANSWER | IN(ABANDONED), take_response},
	[WIRE_INFORM] = {FROM_SLOT, NEEDS_EXCHANGE, false, sizeof(struct wire_response), BEFORE_ANSWER | IN(ABANDONED),
		take_inform},
	[WIRE_VERDICT] = {FROM_KEEPER, NEEDS_EXCHANGE, true, sizeof(struct wire_head),
		BEFORE_ANSWER | IN(ANSWERING) | IN(ABANDONED), take_verdict},
	[WIRE_ALIVE] = {FROM_SLOT, NEEDS_SLOT, false, sizeof(struct wire_head), 0, take_alive},
	[WIRE_LEAVING] = {FROM_SLOT, NEEDS_SLOT, false, sizeof(struct wire_head), 0, take_leaving},
	[WIRE_GOODBYE] = {FROM_SLOT | FROM_KEEPER, NEEDS_NOTHING, false, sizeof(struct wire_head), 0, take_goodbye},
	[WIRE_POSTED] = {FROM_SLOT, NEEDS_SLOT, false, sizeof(struct wire_head), 0, take_posted},
	[WIRE_ABORT] = {FROM_SLOT, NEEDS_EXCHANGE, true, sizeof(struct wire_head),
		BEFORE_ANSWER | IN(ANSWERING) | IN(ABANDONED), take_abort},
};

/* A serial that this front end has given out. */
static bool was_ours(const struct channel *c, uint64_t serial)
{
	uint64_t counter = serial & ((1ull << 40) - 1);

	return serial >> 40 == c->serial_base >> 40 && counter != 0 && counter <= c->counter;
}

static void take_about_exchange(struct frame *f, const struct rule *rule)
{
	struct engine *e = f->gen->engine;
	struct exchange *x = slot_find(f->slot, f->head.serial);

	if (x == NULL) {
		e->stats.stale_answers++;
		if (rule->late && was_ours(e->channel, f->head.serial))
			e->stats.frames_dropped++;
		else
			generation_violation(f->gen, "a frame about a request that is not at this slot");
		return;
	}
	if (f->head.request != x->index) {
		generation_violation(f->gen, "a frame whose serial and request do not agree");
		return;
	}
	if (!(rule->states & (1u << x->state))) {
		generation_violation(f->gen, "a frame that does not fit its request's state");
		return;
	}
	f->x = x;
	exchange_pin(x);
	rule->take(f);
	exchange_unpin(x);
}

/* Whose connection it is; NULL and counted if nobody's. A hello may come before its worker is announced. */
static struct worker *sender(struct generation *gen, const struct wire_identity *from, const struct frame *f)
{
	if ((from->role != WIRE_ROLE_SLOT && from->role != WIRE_ROLE_KEEPER) || from->version != WIRE_VERSION ||
		from->generation != gen->number || (from->role == WIRE_ROLE_KEEPER && from->slot != 0) ||
		from->slot >= gen->slots_per_worker) {
		generation_violation(gen, "a connection with an impossible identity");
		return NULL;
	}
	struct worker *w = worker_find(gen, from->worker);
	if (w == NULL && f->head.kind == WIRE_HELLO && f->size == sizeof(struct wire_hello)) {
		struct wire_hello hello;
		memcpy(&hello, f->data, sizeof(hello));
		if (hello.magic == WIRE_MAGIC && hello.version == WIRE_VERSION)
			generation_hello(gen, from);
		else
			generation_violation(gen, "hello with another magic or version");
	} else if (w == NULL) {
		generation_violation(gen, "a frame from a worker that is not there");
	} else if (from->slot >= w->slots) {
		generation_violation(gen, "a slot that its worker does not have");
		w = NULL;
	}
	return w;
}

void frame_take(struct generation *gen, const void *identity, size_t identity_size, zmq_msg_t *message, bool more)
{
	const struct zmqlib *zmq = gen->engine->zmq;
	struct wire_identity from;
	struct frame f = {
		.gen = gen, .message = message, .data = zmq->msg_data(message), .size = zmq->msg_size(message)};

	if (more || identity_size != sizeof(from) || f.size < sizeof(f.head) || f.size > WIRE_MESSAGE) {
		generation_violation(gen, "a message that is not one frame of the channel");
		return;
	}
	memcpy(&from, identity, sizeof(from));
	memcpy(&f.head, f.data, sizeof(f.head));
	if (f.head.size != f.size) {
		generation_violation(gen, "a frame whose size is not what arrived");
		return;
	}
	f.worker = sender(gen, &from, &f);
	if (f.worker == NULL)
		return;
	const struct rule *rule = f.head.kind < sizeof(rules) / sizeof(rules[0]) ? &rules[f.head.kind] : NULL;
	uint8_t role = from.role == WIRE_ROLE_KEEPER ? FROM_KEEPER : FROM_SLOT;
	if (rule == NULL || !(rule->from & role) || f.size < rule->size) {
		generation_violation(gen, "a frame of a kind or size that does not belong on its connection");
		return;
	}
	/* A slot speaks of itself; a keeper of any of its worker's. */
	if (role == FROM_SLOT)
		f.slot = &f.worker->slot[from.slot];
	else if (rule->needs != NEEDS_NOTHING && f.head.slot < f.worker->slots)
		f.slot = &f.worker->slot[f.head.slot];
	if (f.slot != NULL ? f.head.slot != f.slot->number : rule->needs != NEEDS_NOTHING) {
		generation_violation(gen, "a frame about another slot");
		return;
	}
	if (role == FROM_SLOT && f.slot->state == SLOT_ABSENT && f.head.kind != WIRE_HELLO) {
		generation_violation(gen, "a connection that did not say hello first");
		return;
	}
	/* What it has posted before it said this. */
	if (f.slot != NULL)
		posts_take_slot(f.slot);
	if (rule->needs == NEEDS_EXCHANGE)
		take_about_exchange(&f, rule);
	else
		rule->take(&f);
}

void frame_posted(struct slot *s, const char *data, size_t size)
{
	struct generation *gen = s->worker->generation;
	struct frame f = {.gen = gen, .worker = s->worker, .slot = s, .data = data, .size = size};

	if (size > 0)
		memcpy(&f.head, data, sizeof(f.head));
	if (size < rules[WIRE_RESPONSE].size || f.head.kind != WIRE_RESPONSE || !(f.head.flags & WIRE_LAST) ||
		f.head.slot != s->number)
		generation_violation(gen, "what is posted is no answer");
	else
		take_about_exchange(&f, &rules[WIRE_RESPONSE]);
}

/* ---- the socket */

/* The parts of one message after the identity; the first is what we want. 0, or -1 at the end of the socket. */
static int receive(struct generation *gen, zmq_msg_t *part)
{
	const struct zmqlib *zmq = gen->engine->zmq;
	int rc;

	do
		rc = zmq->msg_recv(part, gen->socket, ZMQ_DONTWAIT);
	while (rc < 0 && zmq->errno_() == EINTR);
	return rc < 0 ? -1 : 0;
}

static bool read_one(struct generation *gen)
{
	const struct zmqlib *zmq = gen->engine->zmq;
	zmq_msg_t identity, frame, rest;
	bool more;

	zmq->msg_init(&identity);
	if (receive(gen, &identity) < 0) {
		zmq->msg_close(&identity);
		return false;
	}
	zmq->msg_init(&frame);
	if (zmq->msg_more(&identity) && receive(gen, &frame) < 0) {
		zmq->msg_close(&frame);
		zmq->msg_close(&identity);
		return false;
	}
	more = zmq->msg_more(&frame);
	for (bool left = more; left;) {
		zmq->msg_init(&rest);
		left = receive(gen, &rest) == 0 && zmq->msg_more(&rest);
		zmq->msg_close(&rest);
	}
	frame_take(gen, zmq->msg_data(&identity), zmq->msg_size(&identity), &frame, more);
	zmq->msg_close(&frame);
	zmq->msg_close(&identity);
	return true;
}

bool frames_read(struct generation *gen, unsigned most)
{
	for (unsigned i = 0; i < most; i++) {
		if (gen->broken)
			return false;
		if (!read_one(gen)) {
			gen->empties++;
			return false;
		}
	}
	return true;
}
