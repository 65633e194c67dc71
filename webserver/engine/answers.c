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
#include <strings.h>

#include "channel.h"

/* RFC 9110, section 5.6.2: bit 0, may be in a token. Section 5.5: bit 1, may be in a field value. */
static const uint8_t characters[256] = {
	['\t'] = 2,
	[' '] = 2,
	['!'] = 3,
	['"'] = 2,
	['#'] = 3,
	['$'] = 3,
	['%'] = 3,
	['&'] = 3,
	['\''] = 3,
	['('] = 2,
	[')'] = 2,
	['*'] = 3,
	['+'] = 3,
	[','] = 2,
	['-'] = 3,
	['.'] = 3,
	['/'] = 2,
	['0' ... '9'] = 3,
	[':'] = 2,
	[';'] = 2,
	['<'] = 2,
	['='] = 2,
	['>'] = 2,
	['?'] = 2,
	['@'] = 2,
	['A' ... 'Z'] = 3,
	['['] = 2,
	['\\'] = 2,
	[']'] = 2,
	['^'] = 3,
	['_'] = 3,
	['`'] = 3,
	['a' ... 'z'] = 3,
	['{'] = 2,
	['|'] = 3,
	['}'] = 2,
	['~'] = 3,
	[0x80 ... 0xff] = 2,
};

static bool all(const char *data, size_t size, uint8_t bit)
{
	uint8_t seen = 0xff;

	for (size_t i = 0; i < size; i++)
		seen &= characters[(uint8_t)data[i]];
	return (seen & bit) != 0;
}

/* Fields that are the engine's, whoever writes them. */
static const struct engine_text framing[] = {
	TEXT("te"),
	TEXT("trailer"),
	TEXT("upgrade"),
	TEXT("connection"),
	TEXT("keep-alive"),
	TEXT("content-length"),
	TEXT("proxy-connection"),
	TEXT("transfer-encoding"),
};

static bool is_framing(struct engine_text name)
{
	for (size_t i = 0; i < sizeof(framing) / sizeof(framing[0]); i++)
		if (name.size == framing[i].size && strncasecmp(name.data, framing[i].data, name.size) == 0)
			return true;
	return false;
}

/* How many fields were put into channel->fields, or -1: one is not well formed. */
static int take_fields(struct channel *c, const char *data, size_t size, const struct wire_response *response)
{
	int count = 0;

	if (!wire_fields_ok(data, size, response->fields, response->field_count))
		return -1;
	c->sendfile.kind = SENDFILE_NONE;
	for (uint32_t i = 0; i < response->field_count; i++) {
		struct wire_field field;
		memcpy(&field, data + response->fields + i * sizeof(field), sizeof(field));
		struct engine_text name = {data + field.name, field.name_size};
		struct engine_text value = {data + field.value, field.value_size};
		if (name.size == 0 || !all(name.data, name.size, 1) || !all(value.data, value.size, 2))
			return -1;
		if (is_framing(name))
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
	       all(data + response->reason.at, response->reason.size, 2);
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
	if (queued + size > most && give_file(x, data, size, queued, &result))
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
	uint64_t over = memory > e->limits.spool_memory ? memory - e->limits.spool_memory : 0;
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
	bool last = response.head.flags & WIRE_LAST;
	if (!head_ok(&response, data, size) || response.status < 200 || response.status > 999 ||
		response.body.size > WIRE_RESPONSE_WINDOW || (count = take_fields(c, data, size, &response)) < 0)
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
	if (c->sendfile.kind != SENDFILE_NONE && !bodiless) {
		group_sever(x); /* what it still says goes nowhere, and its slot is free */
		sendfile_answer(r, &c->sendfile, response.status, reason, c->fields, (size_t)count);
		return true;
	}
	int result = reply_begin(r, response.status, reason, c->fields, (size_t)count, x->answer.length, 0);
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
		(count = take_fields(c, data, size, &response)) < 0)
		return false;
	if (reply_inform(x->request, response.status, c->fields, (size_t)count) == 0) {
		x->flush = true;
		exchange_due(x);
	}
	return true;
}

bool answer_body(struct exchange *x, zmq_msg_t *message, const char *data, size_t size)
{
	struct wire_body piece;

	memcpy(&piece, data, sizeof(piece));
	bool last = piece.head.flags & WIRE_LAST;
	if (!wire_span_ok(piece.data, size) || piece.offset != x->answer.received ||
		piece.data.size > x->answer.limit || piece.offset > x->answer.limit - piece.data.size)
		return false;
	if (last)
		answer_over(x);
	conclude(x, give(x, message, data + piece.data.at, piece.data.size), last);
	return true;
}
