/*
 * Answers: their heads checked, and what their frames bring. What becomes of their bodies is absorb.c's.
 */
#include <stddef.h>
#include <string.h>

#include "answers.h"
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
		timer_disarm(&x->answer.pressed);
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
		result = absorb(x, &(struct piece){data + response.body.at, response.body.size, message, NULL});
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

/* A piece's bytes, where they lie; NULL: the frame is not right. */
static const char *bytes_of(const struct exchange *x, const struct wire_body *piece, const char *data, size_t size)
{
	if (!(piece->head.flags & WIRE_LENT))
		return wire_span_ok(piece->data, size) ? data + piece->data.at : NULL;
	return size == sizeof(*piece) && piece->field_count == 0
		       ? loans_borrow(x->slot->worker->loans, x->slot->number, piece->data.at, piece->data.size)
		       : NULL;
}

void answer_unwanted(struct exchange *x, const char *data, size_t size)
{
	struct wire_body piece;

	memcpy(&piece, data, sizeof(piece));
	const char *lent = piece.head.flags & WIRE_LENT ? bytes_of(x, &piece, data, size) : NULL;
	if (lent != NULL)
		loans_return(x->slot->worker->loans, lent, piece.data.size);
}

bool answer_body(struct exchange *x, zmq_msg_t *message, const char *data, size_t size)
{
	struct channel *c = exchange_engine(x)->channel;
	struct wire_body piece;
	const char *bytes;
	int count = 0;

	memcpy(&piece, data, sizeof(piece));
	bool last = piece.head.flags & WIRE_LAST;
	if (piece.offset != x->answer.received || piece.data.size > x->answer.limit ||
		piece.offset > x->answer.limit - piece.data.size || !end_ok(x, &piece))
		return false;
	if (piece.field_count > 0 &&
		(!last || x->tunnel ||
			(count = take_fields(c, data, size, piece.fields, piece.field_count, ONLY_TRAILERS)) < 0))
		return false;
	if ((bytes = bytes_of(x, &piece, data, size)) == NULL)
		return false;
	struct loans *loans = piece.head.flags & WIRE_LENT ? x->slot->worker->loans : NULL;
	if (x->tunnel)
		tunnel_moved(x);
	if (last)
		answer_over(x);
	int result = absorb(x, &(struct piece){bytes, piece.data.size, message, loans});
	if (result == 0 && count > 0)
		result = reply_trailers(x->request, c->fields, (size_t)count);
	if (result == 0 && piece.head.flags & WIRE_SHUT) {
		x->answer.shut = true;
		reply_shut(x->request);
	}
	conclude(x, result, last);
	return true;
}
