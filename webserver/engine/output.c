/*
 * The chain of segments and its way into the socket; see output.h.
 *
 * Memory goes out with one sendmsg for up to GATHER segments, files with sendfile. MSG_MORE says that a file follows,
 * so that the head and the file's first bytes share a packet.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "connection.h"
#include "loans.h"
#include "zmqlib.h"

#define GATHER 16
/* One client may not keep the loop to itself: after so many bytes the others have their turn. */
#define OUTPUT_BURST (2U << 20)
/* What is smaller is copied: cheaper than one more segment, and a message can be closed at once. */
#define COPY_BELOW    2048
#define SEGMENTS_KEPT 4096
/* Framing between two files or messages lies in the segment itself: a buffer for each chunk of a spooled answer would
   be 64 MB for a gigabyte of it. */
#define SMALL 40

enum segment_kind { SEGMENT_COPY, SEGMENT_BORROWED, SEGMENT_MESSAGE, SEGMENT_LENT, SEGMENT_FILE };

struct segment {
	struct segment *next;
	enum segment_kind kind;
	const char *data; /* not for files */
	uint64_t size;	  /* left to be written */
	union {
		struct {
			char *buffer; /* NULL: small */
			size_t room, used;
			char small[SMALL];
		} copy;
		struct file *owner;
		zmq_msg_t message;
		struct {
			struct loans *of;
			const char *bytes;
			uint32_t size;
		} lent;
		struct {
			struct file *file;
			off_t offset;
		} file;
	};
};

static struct segment *segment_add(struct connection *c, enum segment_kind kind)
{
	struct segments *pool = &c->engine->connections->segments;
	struct segment *s = pool->free;
	if (s != NULL) {
		pool->free = s->next;
		pool->count--;
	} else {
		s = malloc(sizeof(*s));
		if (s == NULL)
			return NULL;
	}
	s->next = NULL;
	s->kind = kind;
	s->data = NULL;
	s->size = 0;
	if (c->out.last != NULL)
		c->out.last->next = s;
	else
		c->out.first = s;
	c->out.last = s;
	return s;
}

static void segment_drop_first(struct connection *c)
{
	struct connections *cs = c->engine->connections;
	struct segment *s = c->out.first;
	c->out.queued -= s->size;
	c->out.first = s->next;
	if (c->out.first == NULL)
		c->out.last = NULL;
	switch (s->kind) {
	case SEGMENT_COPY:
		buffer_give(&cs->buffers, s->copy.buffer, s->copy.room);
		break;
	case SEGMENT_BORROWED:
		if (s->owner != NULL)
			file_unref(s->owner);
		break;
	case SEGMENT_MESSAGE:
		c->engine->zmq->msg_close(&s->message);
		break;
	case SEGMENT_LENT:
		loans_return(s->lent.of, s->lent.bytes, s->lent.size);
		break;
	case SEGMENT_FILE:
		file_unref(s->file.file);
		break;
	}
	if (cs->segments.count >= SEGMENTS_KEPT) {
		free(s);
		return;
	}
	s->next = cs->segments.free;
	cs->segments.free = s;
	cs->segments.count++;
}

void output_drop(struct connection *c)
{
	while (c->out.first != NULL)
		segment_drop_first(c);
	c->out.queued = 0;
}

void segments_free(struct engine *e)
{
	struct segments *pool = &e->connections->segments;
	for (struct segment *s = pool->free, *next; s != NULL; s = next) {
		next = s->next;
		free(s);
	}
	pool->free = NULL;
	pool->count = 0;
}

char *output_reserve(struct connection *c, size_t size)
{
	struct segment *s = c->out.last;
	if (s != NULL && s->kind == SEGMENT_COPY && s->copy.room - s->copy.used >= size)
		return (s->copy.buffer != NULL ? s->copy.buffer : s->copy.small) + s->copy.used;
	if (s != NULL && s->kind != SEGMENT_COPY && size <= SMALL) {
		s = segment_add(c, SEGMENT_COPY);
		if (s == NULL)
			return NULL;
		s->copy.buffer = NULL;
		s->copy.room = SMALL;
		s->copy.used = 0;
		s->data = s->copy.small;
		return s->copy.small;
	}
	size_t room;
	char *buffer = buffer_take(&c->engine->connections->buffers, size, &room);
	if (buffer == NULL)
		return NULL;
	s = segment_add(c, SEGMENT_COPY);
	if (s == NULL) {
		buffer_give(&c->engine->connections->buffers, buffer, room);
		return NULL;
	}
	s->copy.buffer = buffer;
	s->copy.room = room;
	s->copy.used = 0;
	s->data = buffer;
	return buffer;
}

void output_commit(struct connection *c, size_t size)
{
	struct segment *s = c->out.last;
	s->copy.used += size;
	s->size += size;
	c->out.queued += size;
}

int output_copy(struct connection *c, const void *data, size_t size)
{
	if (size == 0)
		return 0;
	char *at = output_reserve(c, size);
	if (at == NULL)
		return -1;
	memcpy(at, data, size);
	output_commit(c, size);
	return 0;
}

int output_borrow(struct connection *c, const void *data, size_t size, struct file *owner)
{
	if (size < COPY_BELOW)
		return output_copy(c, data, size);
	struct segment *s = segment_add(c, SEGMENT_BORROWED);
	if (s == NULL)
		return -1;
	s->data = data;
	s->size = size;
	s->owner = owner != NULL ? file_ref(owner) : NULL;
	c->out.queued += size;
	return 0;
}

int output_message(struct connection *c, void *message, const char *data, size_t size)
{
	if (size < COPY_BELOW) {
		if (output_copy(c, data, size) < 0)
			return -1;
		/* Empty and valid afterwards, as after a move. */
		c->engine->zmq->msg_close(message);
		c->engine->zmq->msg_init(message);
		return 0;
	}
	/* Moving keeps large contents where they are; contents that libzmq keeps inside the message are smaller than
	   COPY_BELOW, so data stays valid. */
	struct segment *s = segment_add(c, SEGMENT_MESSAGE);
	if (s == NULL)
		return -1;
	c->engine->zmq->msg_init(&s->message);
	c->engine->zmq->msg_move(&s->message, message);
	s->data = data;
	s->size = size;
	c->out.queued += size;
	return 0;
}

int output_lent(struct connection *c, struct loans *loans, const char *data, size_t borrowed, size_t size)
{
	struct segment *s = segment_add(c, SEGMENT_LENT);
	if (s == NULL) {
		loans_return(loans, data, borrowed);
		return -1;
	}
	s->lent.of = loans;
	s->lent.bytes = s->data = data;
	s->lent.size = (uint32_t)borrowed;
	s->size = size;
	c->out.queued += size;
	return 0;
}

int output_file(struct connection *c, struct file *file, uint64_t offset, uint64_t size)
{
	if (size == 0)
		return 0;
	struct segment *s = segment_add(c, SEGMENT_FILE);
	if (s == NULL)
		return -1;
	s->file.file = file_ref(file);
	s->file.offset = (off_t)offset;
	s->size = size;
	c->out.queued += size;
	return 0;
}

/* Bytes have been taken by the socket. */
static void output_taken(struct connection *c, size_t size)
{
	if (c->request != NULL)
		c->request->bytes_out += size;
	c->engine->stats.bytes_out += size;
	c->out.queued -= size;
	c->out.moved = true;
	while (c->out.first != NULL) {
		struct segment *s = c->out.first;
		size_t part = size < s->size ? size : s->size;
		s->size -= part;
		size -= part;
		if (s->kind == SEGMENT_FILE)
			s->file.offset += (off_t)part;
		else
			s->data += part;
		if (s->size > 0)
			return;
		segment_drop_first(c);
	}
}

/* Whether sending failed for a reason of the client's side, which is no news. */
static bool of_the_socket(int error)
{
	static const int errors[] = {EAGAIN, EINTR, EPIPE, ECONNRESET, ECONNABORTED, ETIMEDOUT, ENOTCONN, EHOSTUNREACH,
		EHOSTDOWN, ENETUNREACH, ENETDOWN, ENETRESET};
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i] == error)
			return true;
	return false;
}

/* *asked: bytes offered to the socket. */
static ssize_t send_memory(struct connection *c, size_t *asked)
{
	struct iovec parts[GATHER];
	struct msghdr message = {.msg_iov = parts};
	const struct segment *s = c->out.first;
	int flags = MSG_NOSIGNAL;
	for (; s != NULL && s->kind != SEGMENT_FILE && message.msg_iovlen < GATHER; s = s->next) {
		parts[message.msg_iovlen].iov_base = (void *)s->data;
		parts[message.msg_iovlen++].iov_len = s->size;
		*asked += s->size;
	}
	if (s != NULL)
		flags |= MSG_MORE;
	return c->transport->send(c, &message, flags);
}

static ssize_t send_file(struct connection *c, size_t *asked)
{
	struct segment *s = c->out.first;
	off_t offset = s->file.offset;
	size_t size = s->size < OUTPUT_BURST ? s->size : OUTPUT_BURST;
	*asked = size;
	ssize_t sent = c->transport->send_file(c, file_fd(s->file.file), &offset, size);
	if (sent > 0 || (sent < 0 && of_the_socket(errno)))
		return sent;
	/* Cut off since it was opened, or the disk fails. The answer cannot be made whole. */
	struct engine_text path = file_path(s->file.file);
	log_entry(c->engine, LOG_LEVEL_ERROR, c->request, "%.*s: %s while it was sent; the connection is cut",
		path.size > 0 ? (int)path.size : 14, path.size > 0 ? path.data : "the spool file",
		sent == 0 ? "the file became shorter" : strerror(errno));
	errno = EIO;
	return -1;
}

enum output_result output_flush(struct connection *c)
{
	size_t burst = 0;
	while (c->out.first != NULL) {
		struct segment *s = c->out.first;
		if (s->size == 0) { /* reserved and never used */
			segment_drop_first(c);
			continue;
		}
		if (burst >= OUTPUT_BURST)
			return OUTPUT_MORE;
		size_t asked = 0;
		ssize_t sent = s->kind == SEGMENT_FILE ? send_file(c, &asked) : send_memory(c, &asked);
		if (sent < 0) {
			if (errno == EINTR)
				continue;
			return errno == EAGAIN || errno == EWOULDBLOCK ? OUTPUT_MORE : OUTPUT_FAILED;
		}
		output_taken(c, (size_t)sent);
		burst += (size_t)sent;
		if ((size_t)sent < asked)
			return OUTPUT_MORE; /* the socket is full: no need to hear it once more */
	}
	return OUTPUT_DONE;
}
