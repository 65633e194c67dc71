/*
 * Bodies of answers on their way to clients, and credit for the workers that they come from.
 *
 * Body bytes go to the output as the messages they came in. Where more than spool_memory of them wait, the worker waits
 * for the client, if that takes them quickly: to write all to a file first would cost more than the whole rest. A
 * client is slow that has not taken spool_memory in SLOW_NS. From then on what waits beyond it goes to an unlinked
 * file, and from there to the output with sendfile; so the worker is done long before the client is. Credit is what has
 * left or was absorbed so, plus the window: at most spool_memory and two windows of one answer are in memory, whatever
 * the client or the worker does.
 */
#include <string.h>

#include "answers.h"
#include "channel.h"

#define SLOW_NS 100000000ull /* 1 MB in it: 80 Mbit/s */

/* Of the bytes that wait in the output, those that lie in the spool file. */
static uint64_t in_file(const struct exchange *x, uint64_t queued)
{
	uint64_t left = x->answer.given > queued ? x->answer.given - queued : 0, sum = 0;

	for (unsigned i = 0; i < x->answer.run_count; i++) {
		uint64_t from = x->answer.runs[i].from > left ? x->answer.runs[i].from : left;
		if (x->answer.runs[i].to > from)
			sum += x->answer.runs[i].to - from;
	}
	return sum;
}

/* True if size more bytes at x->answer.given can be noted as being in the file. */
static bool note_run(struct exchange *x, uint64_t queued, uint64_t size)
{
	uint64_t given = x->answer.given, left = given > queued ? given - queued : 0;
	unsigned n = x->answer.run_count, kept = 0;

	for (unsigned i = 0; i < n; i++)
		if (x->answer.runs[i].to > left)
			x->answer.runs[kept++] = x->answer.runs[i];
	x->answer.run_count = kept;
	if (kept > 0 && x->answer.runs[kept - 1].to == given) {
		x->answer.runs[kept - 1].to = given + size;
		return true;
	}
	if (kept == sizeof(x->answer.runs) / sizeof(x->answer.runs[0]))
		return false;
	x->answer.runs[kept].from = given;
	x->answer.runs[kept].to = given + size;
	x->answer.run_count++;
	return true;
}

/* True: it is in the file and on its way from there. */
static bool give_file(struct exchange *x, const char *data, size_t size, uint64_t queued, int *result)
{
	struct engine *e = exchange_engine(x);
	struct spool *spool = &x->answer.spool;
	uint64_t waits = in_file(x, queued);

	spool_discard(spool, spool->end > waits ? spool->end - waits : 0);
	if (!spool_write(e, spool, data, size, e->limits.spool_limit))
		return false;
	struct file *file = spool_file(spool);
	if (file == NULL || !note_run(x, queued, size)) {
		spool->end -= size; /* not looked at: written over by the next */
		return false;
	}
	*result = reply_file(x->request, file, spool->end - size, size);
	return true;
}

static uint64_t has_left(const struct exchange *x, uint64_t queued)
{
	return x->answer.given > queued ? x->answer.given - queued : 0;
}

/* Look how much the client takes from now on. */
static void press(struct exchange *x, uint64_t queued)
{
	struct engine *e = exchange_engine(x);

	if (list_linked(&x->answer.pressed.node))
		return;
	x->answer.pressed_from = has_left(x, queued);
	timer_arm(e, e->channel->pressed, &x->answer.pressed);
}

static void pressed(struct engine *e, struct timer *timer)
{
	struct exchange *x = list_entry(timer, struct exchange, answer.pressed);

	if (x->request == NULL || x->state != EXCHANGE_ANSWERING)
		return;
	uint64_t queued = reply_queued(x->request), most = e->limits.spool_memory;
	if (queued <= most)
		return; /* it keeps up; looked at again when it does not */
	if (has_left(x, queued) - x->answer.pressed_from >= most) {
		press(x, queued);
		return;
	}
	x->answer.slow = true;
	answer_credit(x, queued);
}

int absorb_make(struct channel *c)
{
	c->pressed = timer_queue(c->engine, SLOW_NS, pressed);
	return c->pressed != NULL ? 0 : -1;
}

/* To the output or the file. False: the piece is still its owner's. */
static bool pass_on(struct exchange *x, const struct piece *piece, int *result)
{
	struct request *r = x->request;
	uint64_t most = exchange_engine(x)->limits.spool_memory;
	size_t size = piece->size;

	uint64_t queued = reply_queued(r);
	if (queued + size > most) {
		if ((*result = reply_flush(r)) < 0)
			return false;
		queued = reply_queued(r);
	}
	/* In a tunnel it is the worker that waits: what was said an hour ago is of no use. */
	bool over = !x->tunnel && queued + size > most;
	if (over && !x->answer.slow)
		press(x, queued);
	if (over && x->answer.slow && give_file(x, piece->data, size, queued, result))
		return false;
	if (size <= SMALL_BODY || (piece->message == NULL && piece->loans == NULL)) {
		*result = reply_data(r, piece->data, size);
		return false;
	}
	*result = piece->loans != NULL ? reply_lent(r, piece->loans, piece->data, size)
				       : reply_message(r, piece->message, piece->data, size);
	return true;
}

int absorb(struct exchange *x, const struct piece *piece)
{
	int result = 0;

	x->answer.received += piece->size;
	bool taken = piece->size > 0 && !x->answer.discard && pass_on(x, piece, &result);
	if (!taken && piece->loans != NULL)
		loans_return(piece->loans, piece->data, piece->size);
	x->answer.given += piece->size;
	return result;
}

void answer_credit(struct exchange *x, uint64_t queued)
{
	struct engine *e = exchange_engine(x);
	struct slot *s = x->slot;

	if (s == NULL || x->state != EXCHANGE_ANSWERING)
		return;
	uint64_t waits = in_file(x, queued), memory = queued > waits ? queued - waits : 0;
	uint64_t most = x->tunnel ? 0 : e->limits.spool_memory;
	if (x->answer.slow)
		most += WIRE_RESPONSE_WINDOW; /* came before that was known; what comes now goes to the file */
	uint64_t over = memory > most ? memory - most : 0;
	uint64_t limit = x->answer.received - (over < x->answer.received ? over : x->answer.received) +
			 WIRE_RESPONSE_WINDOW;
	if (limit < x->answer.limit + WIRE_RESPONSE_WINDOW / 2)
		return;
	struct wire_credit credit = {
		.head =
			{
				.kind = WIRE_CREDIT,
				.size = sizeof(credit),
				.serial = x->serial,
				.request = x->index,
				.slot = s->number,
			},
		.limit = limit,
	};
	zmq_msg_t message;
	if (e->zmq->msg_init_size(&message, sizeof(credit)) < 0) {
		channel_retry(x);
		return;
	}
	memcpy(e->zmq->msg_data(&message), &credit, sizeof(credit));
	/* What is not sent now is sent with the next: the limit is absolute. */
	if (channel_send(s->worker->generation, &s->identity, &message) == 0)
		x->answer.limit = limit;
	else
		channel_retry(x);
}
