/*
 * What comes in: heads, bodies, and what nobody wants. The steps of connection_drive; each returns whether to go on.
 *
 * One read per step. A read that found less than it had room for has emptied the socket, so the next wait is for the
 * descriptor and not for another EAGAIN.
 */
#include <errno.h>
#include <string.h>

#include "connection.h"
#include "http1.h"

size_t input_left(const struct connection *c)
{
	return c->in.end - c->in.at + (c->carry.end - c->carry.at);
}

static void input_drop(struct connection *c, struct input *in)
{
	buffer_give(&c->engine->connections->buffers, in->data, in->room);
	*in = (struct input){0};
}

void input_release(struct connection *c)
{
	input_drop(c, &c->in);
	input_drop(c, &c->carry);
}

void input_next(struct connection *c)
{
	c->in.start = c->in.at;
	c->head_partly = false;
	if (c->in.at < c->in.end)
		return;
	if (c->carry.data != NULL) {
		input_drop(c, &c->in);
		c->in = c->carry;
		c->carry = (struct input){0};
	} else {
		c->in.start = c->in.at = c->in.end = 0;
	}
}

/* Bytes read; 0 when there is nothing now (readable is off), when it has ended or failed (the connection is closed). */
static size_t receive(struct connection *c, void *data, size_t size)
{
	ssize_t n;
	do
		n = c->transport->receive(c, data, size);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		c->readable = false;
		return 0;
	}
	if (n == 0 && c->body == BODY_TUNNEL && c->phase == PHASE_REQUEST) {
		c->ended = true;
		return 0;
	}
	if (n <= 0) {
		connection_close(c);
		return 0;
	}
	/* Nothing would announce the rest where both sides are shut. */
	c->readable = (size_t)n == size || c->hung;
	c->engine->stats.bytes_in += (uint64_t)n;
	return (size_t)n;
}

/* ---- heads */

static void head_begun(struct connection *c)
{
	if (c->phase != PHASE_IDLE)
		return;
	struct connections *cs = c->engine->connections;
	c->engine->stats.idle--;
	c->phase = PHASE_HEAD;
	list_remove(&c->node);
	list_append(&cs->open, &c->node);
}

static void head_wait(struct connection *c)
{
	struct engine *e = c->engine;
	struct connections *cs = e->connections;
	if (c->in.end > c->in.start) {
		head_begun(c);
		if (!list_linked(&c->timer.node) || c->timer.queue != cs->head_queue)
			timer_arm(e, cs->head_queue, &c->timer);
	} else {
		input_release(c); /* an idle connection holds no buffer */
		if (!list_linked(&c->timer.node))
			timer_arm(e, cs->idle_queue, &c->timer);
	}
	connection_listen(c, true);
}

static struct request *head_request(struct connection *c)
{
	head_begun(c);
	struct request *r = request_new(c);
	if (r == NULL) {
		connection_close(c);
		return NULL;
	}
	timer_disarm(&c->timer);
	c->phase = PHASE_REQUEST;
	c->engine->stats.requests++;
	return r;
}

/* For the access log, what has come of the request line: what an attacker sends is what an operator looks for. */
static struct engine_text line_came(const struct connection *c)
{
	const char *data = c->in.data + c->in.start;
	size_t size = c->in.end - c->in.start;
	const char *end = size > 0 ? memchr(data, '\n', size) : NULL;
	if (end != NULL)
		size = (size_t)(end - data);
	if (size > 0 && data[size - 1] == '\r')
		size--;
	return size > 0 ? (struct engine_text){data, size} : TEXT("");
}

/* Answer what could not be made a request. Where its body would end is not known, so nothing follows it. */
static void refuse_request(struct request *r, int status, const char *why)
{
	r->keep_alive = false;
	r->body_done = false;
	r->content_length = UINT64_MAX;
	r->expect = false;
	if (r->version == 0) {
		r->version = 11;
		r->line = line_came(r->connection);
	}
	answer_status(r, status, why, 0);
}

void head_refuse(struct connection *c, int status, const char *why)
{
	struct request *r = head_request(c);
	if (r != NULL)
		refuse_request(r, status, why);
}

static void head_whole(struct connection *c, struct head *head)
{
	const char *why = NULL;
	struct request *r = head_request(c);
	if (r == NULL)
		return;
	int status = head_fill(c->engine, head, r, &why);
	if (status != 0) {
		refuse_request(r, status, why);
		return;
	}
	c->body = r->chunked ? BODY_CHUNKED : r->has_body ? BODY_LENGTH : BODY_NONE;
	c->body_left = r->content_length;
	c->chunked = (struct chunked){0};
	request_begin(r);
}

/* Make room for more of the head. False: no memory. */
static bool head_room(struct connection *c)
{
	struct buffers *buffers = &c->engine->connections->buffers;
	struct input *in = &c->in;
	if (in->end < in->room)
		return true;
	if (in->start > 0) {
		memmove(in->data, in->data + in->start, in->end - in->start);
		in->at -= in->start;
		in->end -= in->start;
		in->start = 0;
		return true;
	}
	size_t room;
	char *data = buffer_take(buffers, 2 * in->room, &room);
	if (data == NULL)
		return false;
	if (in->end > 0)
		memcpy(data, in->data, in->end);
	buffer_give(buffers, in->data, in->room);
	in->data = data;
	in->room = room;
	return true;
}

bool head_step(struct connection *c)
{
	struct input *in = &c->in;
	if (in->end > in->at) {
		struct head *head;
		int result = http1_head(c, &head);
		if (result == HEAD_WHOLE) {
			head_whole(c, head);
			return true;
		}
		if (result != HEAD_PARTLY) {
			struct request *r = head_request(c);
			if (r == NULL)
				return true;
			refuse_request(r, result, head->why);
			return true;
		}
		if (in->start == in->end)
			in->start = in->at = in->end = 0; /* empty lines only */
	}
	if (!c->readable) {
		head_wait(c);
		return false;
	}
	if (!head_room(c)) {
		log_entry(c->engine, LOG_LEVEL_ERROR, NULL, "no memory for a request's head; a connection is closed");
		connection_close(c);
		return true;
	}
	in->end += receive(c, in->data + in->end, in->room - in->end);
	return true;
}

/* ---- bodies */

/* Keep what was read beyond the body's end. */
static void carry(struct connection *c, const char *data, size_t size)
{
	struct input *in = &c->carry;
	in->data = buffer_take(&c->engine->connections->buffers, size, &in->room);
	if (in->data == NULL) {
		*in = (struct input){0};
		connection_fail(c);
		return;
	}
	memcpy(in->data, data, size);
	in->start = in->at = 0;
	in->end = size;
}

struct piece {
	const char *data;
	size_t size;
	bool last;
};

enum taken { TAKEN_NOTHING, TAKEN_SOME, TAKEN_BROKEN };

/* Take what is chunked out of data. */
static enum taken unchunk(struct connection *c, char *data, size_t size, size_t *consumed, struct piece *piece)
{
	struct chunked_piece found;
	if (!chunked_decode(&c->chunked, data, size, c->engine->limits.max_head, &found) ||
		!trailers_keep(c->request, data, &found))
		return TAKEN_BROKEN;
	*consumed = found.consumed;
	*piece = (struct piece){data, found.size, found.last};
	return TAKEN_SOME;
}

/* Take up to limit bytes of the body: from behind the head, or from the socket. */
static enum taken body_take(struct connection *c, uint64_t limit, struct piece *piece)
{
	struct input *in = &c->in;
	size_t here = in->end - in->at, take, consumed;
	char *data = in->data + in->at;
	if (c->body == BODY_LENGTH && limit > c->body_left)
		limit = c->body_left;
	if (here == 0) {
		if (!c->readable)
			return TAKEN_NOTHING;
		size_t room = SCRATCH_SIZE;
		const struct backend *backend = c->request != NULL ? c->request->backend : NULL;
		data = NULL;
		if (c->body == BODY_LENGTH && backend != NULL && backend->space != NULL)
			data = backend->space(c->request, &room);
		if (data == NULL) {
			data = c->engine->connections->scratch;
			room = SCRATCH_SIZE;
		}
		take = receive(c, data, limit < room ? (size_t)limit : room);
		if (take == 0 && !c->ended)
			return TAKEN_NOTHING;
	} else {
		take = here < limit ? here : (size_t)limit;
	}
	*piece = (struct piece){.data = data, .size = take, .last = c->ended};
	consumed = take;
	if (c->body == BODY_LENGTH) {
		c->body_left -= take;
		piece->last = c->body_left == 0;
	} else if (c->body == BODY_CHUNKED && unchunk(c, data, take, &consumed, piece) == TAKEN_BROKEN) {
		return TAKEN_BROKEN;
	}
	if (here > 0)
		in->at += consumed;
	else if (consumed < take)
		carry(c, data + consumed, take - consumed);
	return TAKEN_SOME;
}

static void body_refuse(struct connection *c, int status, const char *why)
{
	struct request *r = c->request;
	if (r->state >= REQUEST_REPLYING) {
		log_entry(c->engine, LOG_LEVEL_WARNING, r, "%s; an answer has begun, the connection is cut", why);
		connection_close(c);
		return;
	}
	request_withdraw(r);
	refuse_request(r, status, why);
}

bool body_step(struct connection *c)
{
	struct request *r = c->request;
	struct piece piece;
	if (r->body_done)
		return false;
	if (r->body_room == 0) {
		timer_disarm(&c->timer); /* it is not the client who keeps us waiting */
		return false;
	}
	switch (body_take(c, r->body_room, &piece)) {
	case TAKEN_NOTHING:
		if (c->phase == PHASE_CLOSED)
			return false;
		/* In a tunnel nobody owes anything. */
		if (c->body != BODY_TUNNEL)
			timer_arm(c->engine, c->engine->connections->body_queue, &c->timer);
		connection_listen(c, true);
		return false;
	case TAKEN_BROKEN:
		body_refuse(c, 400, "the body's chunks are not framed as they should be");
		return true;
	case TAKEN_SOME:
		break;
	}
	r->continued = true; /* the client did not wait */
	r->body_received += piece.size;
	r->body_room -= piece.size;
	if (r->chunked && r->site != NULL && r->body_received > r->site->max_body) {
		body_refuse(c, 413, "the chunked body is larger than max_body");
		return true;
	}
	r->body_done = piece.last;
	if (piece.last)
		timer_disarm(&c->timer);
	if ((piece.size > 0 || piece.last) && r->backend != NULL && r->backend->body != NULL)
		r->backend->body(r, piece.data, piece.size, piece.last);
	return true;
}

/* ---- what nobody wants */

bool discard_step(struct connection *c)
{
	struct piece piece;
	size_t before = input_left(c);
	switch (body_take(c, SCRATCH_SIZE, &piece)) {
	case TAKEN_NOTHING:
		if (c->phase != PHASE_CLOSED)
			connection_listen(c, true);
		return false;
	case TAKEN_BROKEN:
		connection_linger(c);
		return true;
	case TAKEN_SOME:
		break;
	}
	/* Framing counts as much as content: a body of nothing but chunk extensions ends as well. */
	size_t after = input_left(c), moved = before > after ? before - after : piece.size + 16;
	if (piece.last) {
		timer_disarm(&c->timer);
		connection_idle(c);
		return true;
	}
	if (moved > c->discard_left) {
		connection_linger(c);
		return true;
	}
	c->discard_left -= moved;
	return true;
}

bool linger_step(struct connection *c)
{
	while (c->phase == PHASE_LINGER && c->readable) {
		size_t n = receive(c, c->engine->connections->scratch, SCRATCH_SIZE);
		if (n >= c->discard_left)
			connection_close(c);
		else
			c->discard_left -= n;
	}
	if (c->phase == PHASE_LINGER)
		connection_listen(c, true);
	return false;
}
