/*
 * Request bodies on their way to the worker.
 *
 *   whole    small: received before a worker is taken, and rides in the block
 *   file     a route that gathers: received before a worker is taken, in memory up to limits.gather, then in an
 *            unlinked file; streamed to the worker from there
 *   stream   goes to the worker as it comes, within the worker's credit; after what is in a file, where one could not
 *            be written to its end (gather.c)
 *
 * A worker that reads slowly gives no credit, so no room is given to the connection, which then stops reading: TCP does
 * the rest. A body that nobody asks for, because the answer came first, is not read.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel.h"

#define GATHER_ROOM 262144ull /* asked for at a time when a body goes to a file */

/* ---- from the client */

bool body_reserve(struct exchange *x, size_t size)
{
	size_t need = x->body.size + size, capacity = x->body.capacity;
	const struct request *r = x->request;

	if (need <= capacity)
		return true;
	if (x->upload == UPLOAD_WHOLE && r->content_length != UINT64_MAX && r->content_length <= WIRE_BLOCK)
		capacity = (size_t)r->content_length;
	else
		capacity = capacity == 0 ? 4096 : capacity * 2;
	/* As much as was asked for, and no more than one message takes: what fills it is sent as it is, without a copy.
	   A tunnel says little at a time. */
	if (x->upload == UPLOAD_STREAM && !x->tunnel) {
		uint64_t more = x->body.wanted - x->body.received + x->body.size;
		if (more > capacity)
			capacity = (size_t)more;
		if (capacity > WIRE_PIECE)
			capacity = WIRE_PIECE;
	}
	if (capacity < need)
		capacity = need;
	char *buffer = realloc(x->body.buffer, sizeof(struct body_head) + capacity);
	if (buffer == NULL)
		return false;
	x->body.buffer = buffer;
	x->body.capacity = capacity;
	return true;
}

char *body_space(struct exchange *x, size_t *size)
{
	if (x->upload != UPLOAD_STREAM || x->state == EXCHANGE_ANSWERED || x->failed)
		return NULL;
	if (x->body.size >= WIRE_PIECE)
		body_forward(x);
	/* What is there already has its place; the rest is as much as was asked for. */
	uint64_t more = x->body.wanted - x->body.received, room = WIRE_PIECE - x->body.size;
	if (x->body.size >= WIRE_PIECE || more == 0 || !body_reserve(x, (size_t)(more < room ? more : room)))
		return NULL;
	*size = x->body.capacity - x->body.size;
	return body_bytes(x) + x->body.size;
}

static bool is_in_place(const struct exchange *x, const char *data)
{
	return x->body.buffer != NULL && data == body_bytes(x) + x->body.size;
}

void body_take(struct exchange *x, const char *data, size_t size, bool last)
{
	if (x->state == EXCHANGE_ANSWERED || x->failed)
		return;
	if (x->state == EXCHANGE_GATHERING) {
		body_gather(x, data, size);
	} else if (is_in_place(x, data)) {
		x->body.size += size;
	} else if (size > 0) {
		if (x->body.size >= WIRE_PIECE)
			body_forward(x);
		if (!body_reserve(x, size)) {
			x->failed = BODY_NOT_KEPT;
		} else {
			memcpy(body_bytes(x) + x->body.size, data, size);
			x->body.size += size;
		}
	}
	x->body.received += size;
	x->body.complete |= last;
	if (x->tunnel)
		tunnel_moved(x);
	/* What follows from it is done at the end of the turn: the connection's reader is on the stack. */
	exchange_due(x);
}

/* Up to which offset the client may send. */
static uint64_t may_come(const struct exchange *x)
{
	uint64_t room;

	if (x->state == EXCHANGE_GATHERING) {
		/* A body that fits is asked for at once; what goes to a file by as much as one turn can write. */
		room = x->body.received + GATHER_ROOM;
		return exchange_engine(x)->channel->spooled >= SPOOL_A_TURN / 2 ? x->body.wanted : room;
	}
	if (x->upload != UPLOAD_STREAM || x->slot == NULL || x->state == EXCHANGE_ABANDONED)
		return 0;
	/* However much credit a worker gives, no more than a window of it is ever in our memory. */
	room = x->body.sent + WIRE_BODY_WINDOW;
	return room < x->body.limit ? room : x->body.limit;
}

void body_want(struct exchange *x)
{
	uint64_t to = may_come(x), length = x->request->content_length;

	if (x->body.complete)
		return;
	if (to > length)
		to = length;
	if (to <= x->body.wanted) {
		if (x->state == EXCHANGE_GATHERING && x->body.wanted == x->body.received)
			channel_retry(x);
		return;
	}
	uint64_t more = to - x->body.wanted;
	/* Small steps would only make small reads; the first byte is always asked for, since somebody may wait for 100.
	 */
	if (x->body.wanted > 0 && more < WIRE_BODY_WINDOW / 4 && to < length && x->body.wanted > x->body.received)
		return;
	x->body.wanted = to;
	request_want(x->request, more);
}

/* ---- to the worker */

/* What comes next lies in the file. */
static bool in_file(const struct exchange *x)
{
	return x->body.sent < x->body.spool.end;
}

/* Where a piece's trailers lie, behind size bytes of body. */
static size_t trailers_at(size_t size)
{
	return (sizeof(struct wire_body) + size + 7) & ~(size_t)7;
}

static void fill_head(const struct exchange *x, struct wire_body *piece, size_t size, bool last)
{
	memset(piece, 0, sizeof(*piece));
	piece->head.kind = WIRE_BODY;
	piece->head.size = (uint32_t)(sizeof(*piece) + size);
	piece->head.serial = x->serial;
	piece->head.request = x->index;
	piece->head.slot = x->slot->number;
	piece->head.flags = last ? WIRE_LAST : 0;
	piece->offset = x->body.sent;
	piece->data.at = sizeof(*piece);
	piece->data.size = (uint32_t)size;
	if (!last || x->request->trailer_count == 0)
		return;
	piece->fields = (uint32_t)trailers_at(size);
	piece->field_count = (uint16_t)x->request->trailer_count;
	piece->head.size = (uint32_t)(trailers_at(size) + block_trailers_size(x->request));
}

/* size bytes of what is to be sent, into a message of their own. 0, or -1 with errno. */
static int make_piece(struct exchange *x, zmq_msg_t *message, size_t size, bool last)
{
	const struct zmqlib *zmq = exchange_engine(x)->zmq;
	struct wire_body head;

	fill_head(x, &head, size, last);
	if (zmq->msg_init_size(message, head.head.size) < 0) {
		errno = EAGAIN;
		return -1;
	}
	char *to = zmq->msg_data(message);
	/* Only an empty piece is small enough to lie inside the message, at any address. */
	memcpy(to, &head, sizeof(head));
	if (head.field_count > 0)
		block_put_trailers(x->request, to, head.fields);
	to += sizeof(head);
	if (!in_file(x)) {
		if (size > 0)
			memcpy(to, body_bytes(x), size);
		return 0;
	}
	for (size_t done = 0; done < size;) {
		ssize_t n = pread(x->body.spool.fd, to + done, size - done, (off_t)(x->body.sent + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			zmq->msg_close(message);
			errno = EIO;
			return -1;
		}
		done += (size_t)n;
	}
	return 0;
}

/* On libzmq's thread, or on this one where the message was not sent. */
static void release_piece(void *data, void *buffer)
{
	(void)data;
	if (!((struct body_head *)buffer)->kept)
		free(buffer);
}

/*
 * The buffer itself becomes the message, if it is full enough: a message holds all of its buffer until it is written,
 * and a client that sends byte by byte must not make that a thousand times what it sends.
 */
static bool can_hand_over(const struct exchange *x, size_t size, bool last)
{
	return !(last && x->request->trailer_count > 0) && !in_file(x) && size == x->body.size && size >= SMALL_BODY &&
	       size >= x->body.capacity / 4;
}

/* 0, or -1 with errno: the buffer is still ours. */
static int hand_over(struct exchange *x, size_t size, bool last)
{
	struct body_head *head = (struct body_head *)(void *)x->body.buffer;
	const struct zmqlib *zmq = exchange_engine(x)->zmq;
	zmq_msg_t message;

	fill_head(x, &head->piece, size, last);
	head->kept = 0;
	if (zmq->msg_init_data(&message, &head->piece, sizeof(head->piece) + size, release_piece, head) < 0) {
		errno = EAGAIN;
		return -1;
	}
	if (channel_try(x->slot->worker->generation, &x->slot->identity, &message) < 0) {
		int number = errno;
		head->kept = 1;
		zmq->msg_close(&message);
		errno = number;
		return -1;
	}
	x->body.buffer = NULL;
	x->body.capacity = 0;
	return 0;
}

static int copy_over(struct exchange *x, size_t size, bool last)
{
	zmq_msg_t message;

	return make_piece(x, &message, size, last) < 0
		       ? -1
		       : channel_send(x->slot->worker->generation, &x->slot->identity, &message);
}

/* Body bytes that are here, have not been sent and lie in one place. */
static uint64_t waits(const struct exchange *x)
{
	return in_file(x) ? x->body.spool.end - x->body.sent : x->body.size;
}

/* 0, or -1 with errno. */
static int send_piece(struct exchange *x, size_t size, bool last)
{
	bool file = in_file(x);

	if ((can_hand_over(x, size, last) ? hand_over(x, size, last) : copy_over(x, size, last)) < 0)
		return -1;
	x->body.sent += size;
	x->body.closed = last;
	if (file) {
		spool_discard(&x->body.spool, x->body.sent);
	} else if (size == x->body.size) {
		x->body.size = 0;
		/* It may say nothing for hours. */
		if (x->tunnel)
			exchange_forget_body(x);
	} else {
		x->body.size -= size;
		memmove(body_bytes(x), body_bytes(x) + size, x->body.size);
	}
	return 0;
}

void body_forward(struct exchange *x)
{
	struct slot *s = x->slot;

	if (x->upload < UPLOAD_FILE || s == NULL || x->body.closed || x->state == EXCHANGE_RECALLED ||
		x->state == EXCHANGE_ABANDONED || s->full_until_ns > exchange_engine(x)->now_ns)
		return;
	while (!x->body.closed) {
		uint64_t size = waits(x), room = x->body.limit > x->body.sent ? x->body.limit - x->body.sent : 0;
		bool all = x->body.complete && x->body.received - x->body.sent == size && size <= room &&
			   size <= WIRE_PIECE;
		if (size > room)
			size = room;
		if (size > WIRE_PIECE)
			size = WIRE_PIECE;
		if (size == 0 && !all)
			return;
		if (send_piece(x, (size_t)size, all) == 0)
			continue;
		if (errno == EAGAIN) {
			s->full_until_ns = exchange_engine(x)->now_ns + LOOK_NS;
			channel_retry(x);
		} else if (errno == EIO) {
			exchange_fail(
				x, 500, 0, "group \"%s\": the gathered body could not be read back", x->group->name);
		}
		return; /* or the worker is gone: its end is judged when it has been told */
	}
}

void body_placed(struct exchange *x)
{
	const struct request *r = x->request;

	if (x->upload < UPLOAD_FILE)
		return;
	/* The worker counts the same: nothing before it asks where the client waits for its word. */
	x->body.limit = x->upload == UPLOAD_STREAM && r->expect && !r->continued ? 0 : WIRE_BODY_WINDOW;
	exchange_due(x);
}

bool body_credit(struct exchange *x, uint64_t limit)
{
	if (limit < x->body.limit)
		return false;
	x->body.limit = limit;
	exchange_due(x);
	return true;
}

bool body_kept(const struct exchange *x)
{
	return x->upload != UPLOAD_STREAM || x->body.sent == 0;
}
