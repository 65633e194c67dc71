/*
 * Answers: their heads checked, their bodies on the way to the client, and credit for the worker.
 *
 * Body bytes go to the output as the messages they came in. When more than spool_memory of them wait for a slow client
 * they go to an unlinked file, and from there to the output with sendfile; so the worker is done long before the client
 * is. Credit is what has left or was absorbed so, plus the window: at most spool_memory + WIRE_RESPONSE_WINDOW bytes of
 * one answer are in memory, whatever the client or the worker does.
 */
#include <stddef.h>
#include <string.h>

#include "channel.h"
#include "http.h"
#include "quarantine.h"

/* A field of this name is let through, though it is the connection's. */
enum allow { ALLOW_NONE, ALLOW_UPGRADE, ALLOW_TRAILER, ONLY_TRAILERS /* fields behind a body */ };

static bool allowed(struct engine_text name, enum allow allow)
{
	if (allow == ALLOW_UPGRADE && wire_is_word(name.data, name.size, "upgrade"))
		return true;
	if (allow == ALLOW_TRAILER && wire_is_word(name.data, name.size, "trailer"))
		return true;
	return !wire_is_connection_field(name.data, name.size) && !wire_is_word(name.data, name.size, "content-length");
}

/* How many fields were put into channel->fields, or -1: one is not well formed. */
static int take_fields(struct channel *c, const char *data, size_t size, uint32_t at, uint32_t of, enum allow allow)
{
	int count = 0;

	if (!wire_fields_ok(data, size, at, of))
		return -1;
	c->sendfile.kind = SENDFILE_NONE;
	for (uint32_t i = 0; i < of; i++) {
		struct wire_field field;
		memcpy(&field, data + at + i * sizeof(field), sizeof(field));
		struct engine_text name = {data + field.name, field.name_size};
		struct engine_text value = {data + field.value, field.value_size};
		if (!wire_is_token(name.data, name.size) || !wire_is_value(value.data, value.size) ||
			(allow == ONLY_TRAILERS && !wire_may_be_trailer(name.data, name.size)))
			return -1;
		if (!allowed(name, allow))
			continue;
		/* Not by the worker's number for it, which is only the worker's word. */
		c->fields[count] = (struct field){.name = name, .value = value};
		if (!sendfile_take(&c->sendfile, &c->fields[count]))
			count++;
	}
	return count;
}

static bool head_ok(const struct wire_response *response, const char *data, size_t size)
{
	return wire_span_ok(response->reason, size) && wire_span_ok(response->body, size) &&
	       wire_is_value(data + response->reason.at, response->reason.size);
}

/* ---- the body */

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

/* 0, or -1: the client is gone. */
static int give(struct exchange *x, zmq_msg_t *message, const char *data, size_t size)
{
	struct request *r = x->request;
	uint64_t most = exchange_engine(x)->limits.spool_memory;
	int result = 0;

	x->answer.received += size;
	if (size == 0 || x->answer.discard) {
		x->answer.given += size;
		return 0;
	}
	uint64_t queued = reply_queued(r);
	if (queued + size > most) {
		if (reply_flush(r) < 0)
			return -1;
		queued = reply_queued(r);
	}
	/* In a tunnel it is the worker that waits: what was said an hour ago is of no use. */
	if (!x->tunnel && queued + size > most && give_file(x, data, size, queued, &result))
		;
	else if (size <= SMALL_BODY)
		result = reply_data(r, data, size);
	else
		result = reply_message(r, message, data, size);
	x->answer.given += size;
	return result;
}

void answer_credit(struct exchange *x, uint64_t queued)
{
	struct engine *e = exchange_engine(x);
	struct slot *s = x->slot;

	if (s == NULL || x->state != EXCHANGE_ANSWERING)
		return;
	uint64_t waits = in_file(x, queued), memory = queued > waits ? queued - waits : 0;
	uint64_t most = x->tunnel ? 0 : e->limits.spool_memory, over = memory > most ? memory - most : 0;
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

void answer_over(struct exchange *x)
{
	struct slot *s = x->slot;

	if (s == NULL)
		return;
	if (!quarantine_is_empty(exchange_engine(x)->channel))
		quarantine_ended(x);
	slot_measure(s, x);
	slot_detach(x);
	if (x->state != EXCHANGE_ABANDONED) {
		exchange_move(x, EXCHANGE_ANSWERED);
		timer_disarm(&x->deadline);
		exchange_forget_body(x);
	}
}

/* The end of what a frame brought. */
static void conclude(struct exchange *x, int result, bool last)
{
	if (result < 0 || x->request == NULL)
		return; /* the client is gone: its end is told by release */
	if (last) {
		reply_end(x->request);
		return;
	}
	x->flush = true;
	exchange_due(x);
}

bool answer_response(struct exchange *x, zmq_msg_t *message, const char *data, size_t size)
{
	struct channel *c = exchange_engine(x)->channel;
	struct request *r = x->request;
	struct wire_response response;
	int count;

	memcpy(&response, data, sizeof(response));
	bool last = response.head.flags & WIRE_LAST, tunnel = response.status == 101;
	bool trailers = response.head.flags & WIRE_TRAILERS && r->te_trailers && !r->is_head &&
			response.content_length == UINT64_MAX && !last;
	enum allow allow = tunnel ? ALLOW_UPGRADE : trailers ? ALLOW_TRAILER : ALLOW_NONE;
	if (!head_ok(&response, data, size) || (response.status < 200 && !tunnel) || response.status > 999 ||
		response.body.size > WIRE_RESPONSE_WINDOW ||
		(count = take_fields(c, data, size, response.fields, response.field_count, allow)) < 0 ||
		(tunnel && !tunnel_asked_for(x, &response, (size_t)count)))
		return false;
	/* Free at once: what waits is placed in this turn. */
	if (last)
		answer_over(x);
	else
		exchange_move(x, EXCHANGE_ANSWERING);
	x->answer.limit = WIRE_RESPONSE_WINDOW;
	x->answer.length = response.content_length;
	if (last && x->answer.length == UINT64_MAX && !r->is_head)
		x->answer.length = response.body.size;
	x->answer.discard = r->is_head || response.status == 204 || response.status == 304;
	x->answered_head = true;
	bool bodiless = response.status == 204 || response.status == 304;
	struct engine_text reason = {data + response.reason.at, response.reason.size};
	if (c->sendfile.kind != SENDFILE_NONE && !bodiless && !tunnel) {
		group_sever(x); /* what it still says goes nowhere, and its slot is free */
		sendfile_answer(r, &c->sendfile, response.status, reason, c->fields, (size_t)count);
		return true;
	}
	if (tunnel)
		tunnel_begin(x);
	int result = reply_begin(
		r, response.status, reason, c->fields, (size_t)count, x->answer.length, tunnel ? REPLY_TUNNEL : 0);
	if (result == 0)
		result = give(x, message, data + response.body.at, response.body.size);
	conclude(x, result, last);
	return true;
}

bool answer_inform(struct exchange *x, const char *data, size_t size)
{
	struct channel *c = exchange_engine(x)->channel;
	struct wire_response response;
	int count;

	memcpy(&response, data, sizeof(response));
	/* 100 is ours to say, and 101 is no interim answer. */
	if (!head_ok(&response, data, size) || response.status < 102 || response.status > 199 ||
		(count = take_fields(c, data, size, response.fields, response.field_count, ALLOW_NONE)) < 0)
		return false;
	if (reply_inform(x->request, response.status, c->fields, (size_t)count) == 0) {
		x->flush = true;
		exchange_due(x);
	}
	return true;
}

/* Whether a piece may end so, as it says. */
static bool end_ok(const struct exchange *x, const struct wire_body *piece)
{
	bool last = piece->head.flags & WIRE_LAST, shut = piece->head.flags & WIRE_SHUT;

	if (shut && (!x->tunnel || last))
		return false;
	return !x->answer.shut || (piece->data.size == 0 && !shut);
}

bool answer_body(struct exchange *x, zmq_msg_t *message, const char *data, size_t size)
{
	struct channel *c = exchange_engine(x)->channel;
	struct wire_body piece;
	int count = 0;

	memcpy(&piece, data, sizeof(piece));
	bool last = piece.head.flags & WIRE_LAST;
	if (!wire_span_ok(piece.data, size) || piece.offset != x->answer.received ||
		piece.data.size > x->answer.limit || piece.offset > x->answer.limit - piece.data.size ||
		!end_ok(x, &piece))
		return false;
	if (piece.field_count > 0 &&
		(!last || x->tunnel ||
			(count = take_fields(c, data, size, piece.fields, piece.field_count, ONLY_TRAILERS)) < 0))
		return false;
	if (x->tunnel)
		tunnel_moved(x);
	if (last)
		answer_over(x);
	int result = give(x, message, data + piece.data.at, piece.data.size);
	if (result == 0 && count > 0)
		result = reply_trailers(x->request, c->fields, (size_t)count);
	if (result == 0 && piece.head.flags & WIRE_SHUT) {
		x->answer.shut = true;
		reply_shut(x->request);
	}
	conclude(x, result, last);
	return true;
}
