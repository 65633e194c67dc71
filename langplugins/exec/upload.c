/*
 * From the client to the program: head, then body as it comes, or a tunnel's bytes. One piece is on its way at a time,
 * so a program that does not read makes the client wait, and nothing here grows.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "exec.h"

#define BEFORE 20 /* bytes before a piece, for its chunk size */

static bool unsent(const struct stretch *stretch)
{
	return stretch->begin < stretch->end;
}

/* RFC 9112, section 7.1. The data is at BEFORE, and has room behind it. */
static void frame(struct exchange *x, size_t size)
{
	struct stretch *piece = &x->lane->piece;

	piece->begin = BEFORE;
	piece->end = BEFORE + size;
	if (x->framing != FRAMED_CHUNKED || x->tunnel)
		return;
	char text[BEFORE + 1];
	size_t count = (size_t)snprintf(text, sizeof(text), "%zx\r\n", size);
	piece->begin -= count;
	memcpy(piece->data + piece->begin, text, count);
	memcpy(piece->data + piece->end, "\r\n", 2);
	piece->end += 2;
}

/* RFC 9110, section 6.5.1: what frames, routes or authenticates is no trailer. A client's trailers are not checked as
   the fields of its head were. */
static bool may_trail(const struct langplugin_field *field)
{
	static const char *const never[] = {"content-length", "content-encoding", "content-type", "content-range",
		"host", "authorization", "cookie", "expect", "max-forwards", "cache-control", "range", "proxy",
		"forwarded", "x-real-ip", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
		"x-forwarded-prefix"};

	if (field->name.size == 0 || field_is_of_connection(field->name))
		return false;
	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		if (text_is(field->name, never[i]))
			return false;
	return true;
}

static bool add_last_chunk(struct exchange *x)
{
	struct stretch *piece = &x->lane->piece;
	const struct langplugin_field *fields = NULL;
	size_t count = 0;

	piece->begin = piece->end = 0;
	if (x->host->request_trailers)
		fields = x->host->request_trailers(x->call, &count);
	bool added = stretch_add(piece, "0\r\n", 3);
	for (size_t i = 0; fields && i < count; i++) {
		if (!may_trail(&fields[i]))
			continue;
		added = added && stretch_add(piece, fields[i].name.data, fields[i].name.size) &&
			stretch_add(piece, ": ", 2) && stretch_add(piece, fields[i].value.data, fields[i].value.size) &&
			stretch_add(piece, "\r\n", 2);
	}
	return added && stretch_add(piece, "\r\n", 2);
}

/* The next piece of the body, if the client has sent one. */
static enum step fetch(struct exchange *x)
{
	struct stretch *piece = &x->lane->piece;
	ssize_t got = x->host->read(x->call, piece->data + BEFORE, LANE_ROOM, LP_NOWAIT);

	if (got == LP_AGAIN)
		return STEP_RESTS;
	if (got < 0)
		return STEP_GONE;
	x->taken = true;
	if (got > 0) {
		frame(x, (size_t)got);
		return STEP_MOVED;
	}
	x->body = BODY_OVER;
	if (x->tunnel)
		shutdown(x->lane->fd, SHUT_WR);
	else if (x->framing == FRAMED_CHUNKED && !add_last_chunk(x))
		return exchange_fail(x, "no memory for a request's trailers");
	return STEP_MOVED;
}

static void advance(struct stretch *stretch, size_t *sent)
{
	size_t left = stretch->end - stretch->begin, part = *sent < left ? *sent : left;

	stretch->begin += part;
	*sent -= part;
}

/* It reads no more: what it has answered may be there all the same. */
static void give_up(struct exchange *x)
{
	x->deaf = true;
	x->lane->head.begin = x->lane->head.end;
	x->lane->piece.begin = x->lane->piece.end;
	if (x->body != BODY_OVER)
		x->body = BODY_DROPPED;
}

static enum step push(struct exchange *x)
{
	struct stretch *head = &x->lane->head, *piece = &x->lane->piece;
	struct iovec parts[] = {
		{head->data + head->begin, head->end - head->begin},
		{piece->data + piece->begin, piece->end - piece->begin},
	};
	const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
	ssize_t sent = sendmsg(x->lane->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (sent < 0 && errno == EINTR)
		return STEP_MOVED;
	if (sent < 0 && errno == EAGAIN)
		return STEP_RESTS;
	if (sent < 0) {
		give_up(x);
		return STEP_MOVED;
	}
	size_t left = (size_t)sent;
	x->sent |= sent > 0;
	advance(head, &left);
	advance(piece, &left);
	return STEP_MOVED;
}

enum step upload_step(struct exchange *x)
{
	enum step step = STEP_RESTS;

	if (!unsent(&x->lane->piece) && x->body == BODY_FLOWS)
		step = fetch(x);
	if (step == STEP_GONE || step == STEP_BROKEN)
		return step;
	return unsent(&x->lane->head) || unsent(&x->lane->piece) ? push(x) : step;
}
