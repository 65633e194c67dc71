/* From the program to the client: interim heads, the answer's head, its body as it comes, trailers; or a tunnel. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "exec.h"

#define INTERIM_MOST 100 /* 1xx heads before one answer */

/* The fields of the last head, or trailers, that go on. */
static size_t take_fields(struct exchange *x, bool upgrade)
{
	const struct reply *reply = &x->lane->reply;
	struct langplugin_field *to = x->lane->fields;
	size_t count = 0;

	for (unsigned i = 0; i < reply->count; i++) {
		const struct reply_field *from = &reply->field[i];
		struct langplugin_field field = {
			{reply->text + from->name, from->name_size}, {reply->text + from->value, from->value_size}};
		if (from->value_size == 0)
			field.value = (struct langplugin_text){"", 0};
		if (text_is(field.name, "upgrade") ? !upgrade : field_is_of_connection(field.name))
			continue;
		bool named = false;
		for (unsigned k = 0; k < reply->count && !named; k++) {
			const struct reply_field *list = &reply->field[k];
			named = text_is((struct langplugin_text){reply->text + list->name, list->name_size},
					"connection") &&
				list_names((struct langplugin_text){reply->text + list->value, list->value_size},
					field.name);
		}
		if (!named || text_is(field.name, "upgrade"))
			to[count++] = field;
	}
	return count;
}

static enum step take_interim(struct exchange *x)
{
	const struct reply *reply = &x->lane->reply;

	if (++x->interim > INTERIM_MOST)
		return exchange_fail(x, "the program's answer is not valid: more than %d interim heads", INTERIM_MOST);
	if (reply->status == 100) {
		if (x->body == BODY_WAITS)
			x->body = BODY_FLOWS;
		return STEP_MOVED;
	}
	/* What HTTP does not allow in it, or what comes too late, is not worth an answer. */
	return x->host->inform(x->call, (int)reply->status, x->lane->fields, take_fields(x, false)) == LP_GONE
		       ? STEP_GONE
		       : STEP_MOVED;
}

static enum step take_head(struct exchange *x)
{
	const struct reply *reply = &x->lane->reply;
	size_t count = take_fields(x, false);
	int result = x->host->respond(x->call, (int)reply->status,
		(struct langplugin_text){reply->text, reply->reason_size}, x->lane->fields, count, -1);

	if (result == LP_GONE)
		return STEP_GONE;
	if (result != LP_OK)
		return exchange_fail(x, "the program's answer is not valid: it has a field that HTTP does not allow");
	x->answer = ANSWER_BEGUN;
	x->unflushed = true;
	/* It has decided without the body. */
	if (x->body == BODY_WAITS)
		x->body = BODY_DROPPED;
	return STEP_MOVED;
}

static enum step take_switch(struct exchange *x)
{
	const struct reply *reply = &x->lane->reply;

	if (x->framing != FRAMED_TUNNEL)
		return exchange_fail(
			x, "the program's answer is not valid: 101 to a request that asked for no upgrade");
	size_t count = take_fields(x, true);
	int result = x->host->respond(
		x->call, 101, (struct langplugin_text){reply->text, reply->reason_size}, x->lane->fields, count, -1);
	if (result == LP_GONE)
		return STEP_GONE;
	if (result != LP_OK)
		return exchange_fail(x, "the program's answer is not valid: 101 without an upgrade that was asked for");
	x->answer = ANSWER_BEGUN;
	x->unflushed = x->tunnel = true;
	x->body = BODY_FLOWS;
	return STEP_MOVED;
}

static enum step take_end(struct exchange *x)
{
	size_t count = x->lane->reply.in_body ? take_fields(x, false) : 0;

	x->answer = ANSWER_WHOLE;
	if (count && x->host->trailers)
		x->host->trailers(x->call, x->lane->fields, count); /* what may be none is only left out */
	return STEP_DONE;
}

/* What comes in chunks, and in more than one, is made while it is sent: so the client sees it, too. */
static enum step begin_stream(struct exchange *x)
{
	int result = x->host->flush(x->call, LP_NOWAIT);

	if (result == LP_GONE)
		return STEP_GONE;
	x->unflushed = result == LP_AGAIN;
	return STEP_MOVED;
}

static enum step take(struct exchange *x, enum reply_event event)
{
	const struct reply *reply = &x->lane->reply;

	switch (event) {
	case REPLY_MORE:
		return STEP_MOVED;
	case REPLY_INTERIM:
		return take_interim(x);
	case REPLY_SWITCH:
		return take_switch(x);
	case REPLY_HEAD:
		return take_head(x);
	case REPLY_BODY:
		x->left = (struct langplugin_text){reply->data, reply->size};
		return x->unflushed && ++x->pieces == 2 && (reply->parser.flags & F_CHUNKED) ? begin_stream(x)
											     : STEP_MOVED;
	case REPLY_END:
		return take_end(x);
	case REPLY_BAD:
		break;
	}
	return exchange_fail(x, "the program's answer is not valid: %s", reply->wrong);
}

/* The program has closed its side, or the connection is broken. */
static enum step at_end(struct exchange *x, int error)
{
	x->in_over = true;
	if (x->tunnel) {
		x->answer = ANSWER_WHOLE;
		return STEP_DONE;
	}
	/* A body without a length ends with the connection, but not by a signal. */
	if (error == 0 && x->answered && reply_finish(&x->lane->reply) == REPLY_END &&
		!program_was_killed(&x->plugin->program, x->call))
		return take_end(x);
	return exchange_lost(x, error);
}

static enum step deliver(struct exchange *x)
{
	int result = x->host->write(x->call, x->left.data, x->left.size, LP_NOWAIT);

	if (result == LP_AGAIN)
		return STEP_RESTS;
	if (result == LP_GONE)
		return STEP_GONE;
	if (result != LP_OK)
		return exchange_fail(x, "the answer could not be sent on");
	x->left = (struct langplugin_text){"", 0};
	x->unflushed = true;
	return STEP_MOVED;
}

enum step answer_step(struct exchange *x)
{
	struct stretch *in = &x->lane->in;
	size_t used = 0;

	if (x->left.size)
		return deliver(x);
	/* After an event, more may follow from bytes that were taken with it: the end, for one. */
	if (in->begin == in->end && (x->tunnel || x->lane->reply.event == REPLY_MORE)) {
		ssize_t got = recv(x->lane->fd, in->data, LANE_ROOM, MSG_DONTWAIT);
		if (got < 0 && errno == EINTR)
			return STEP_MOVED;
		if (got < 0 && errno == EAGAIN)
			return STEP_RESTS;
		if (got <= 0)
			return at_end(x, got ? errno : 0);
		in->begin = 0;
		in->end = (size_t)got;
		x->answered = true;
		silence_over(x->plugin);
	}
	if (x->tunnel) {
		x->left = (struct langplugin_text){in->data + in->begin, in->end - in->begin};
		in->begin = in->end;
		return STEP_MOVED;
	}
	enum reply_event event = reply_take(&x->lane->reply, in->data + in->begin, in->end - in->begin, &used);
	in->begin += used;
	return take(x, event);
}
