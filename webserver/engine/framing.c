/*
 * The bytes of an answer's body, wherever they lie, framed for the output (RFC 9112, sections 6.2 and 7.1). What is
 * more than the head has promised is cut off.
 */
#include <string.h>

#include "connection.h"
#include "loans.h"
#include "reply.h"

#define CRLF	   "\r\n"
#define CHUNK_HEAD 18 /* 16 hex digits and CRLF */

static char *put_chunk_head(char *at, uint64_t size)
{
	static const char hex[] = "0123456789abcdef";
	unsigned shift = 60;
	while (shift > 0 && (size >> shift) == 0)
		shift -= 4;
	for (;; shift -= 4) {
		*at++ = hex[(size >> shift) & 15];
		if (shift == 0)
			break;
	}
	memcpy(at, CRLF, 2);
	return at + 2;
}

/* How many of size more body bytes may be sent; counts them. The rest is cut off, with one line in the log. */
static size_t body_take(struct request *r, size_t size)
{
	uint64_t had = r->reply_body;
	r->reply_body += size;
	if (r->framing == FRAMING_NONE)
		return 0;
	if (r->framing != FRAMING_LENGTH || r->reply_body <= r->reply_length)
		return size;
	if (had <= r->reply_length)
		log_entry(request_engine(r), LOG_LEVEL_WARNING, r,
			"the answer has more bytes than its Content-Length of %llu; the rest is cut off",
			(unsigned long long)r->reply_length);
	return had < r->reply_length ? (size_t)(r->reply_length - had) : 0;
}

bool reply_goes_on(const struct request *r)
{
	return r->state == REQUEST_REPLYING && !r->connection->broken;
}

/* The chunk's head, if chunks there are. */
static int chunk_begin(struct request *r, uint64_t size)
{
	if (r->framing != FRAMING_CHUNKED)
		return 0;
	char *start = output_reserve(r->connection, CHUNK_HEAD);
	if (start == NULL)
		return reply_no_memory(r);
	output_commit(r->connection, (size_t)(put_chunk_head(start, size) - start));
	return 0;
}

static int chunk_end(struct request *r, int result)
{
	if (result == 0 && r->framing == FRAMING_CHUNKED)
		result = output_copy(r->connection, CRLF, 2);
	return result < 0 ? reply_no_memory(r) : 0;
}

/* 1: *size bytes of the piece are to be queued. 0: none of them. -1: it is over. */
static int piece_begin(struct request *r, size_t *size)
{
	if (!reply_goes_on(r))
		return -1;
	*size = body_take(r, *size);
	if (*size == 0)
		return 0;
	return chunk_begin(r, *size) < 0 ? -1 : 1;
}

int reply_data(struct request *r, const void *data, size_t size)
{
	int result = piece_begin(r, &size);
	return result <= 0 ? result : chunk_end(r, output_copy(r->connection, data, size));
}

int reply_static(struct request *r, const void *data, size_t size, struct file *owner)
{
	int result = piece_begin(r, &size);
	return result <= 0 ? result : chunk_end(r, output_borrow(r->connection, data, size, owner));
}

int reply_message(struct request *r, void *message, const char *data, size_t size)
{
	int result = piece_begin(r, &size);
	return result <= 0 ? result : chunk_end(r, output_message(r->connection, message, data, size));
}

int reply_lent(struct request *r, struct loans *loans, const char *data, size_t borrowed)
{
	size_t size = borrowed;
	int result = piece_begin(r, &size);
	if (result <= 0) {
		loans_return(loans, data, borrowed);
		return result;
	}
	return chunk_end(r, output_lent(r->connection, loans, data, borrowed, size));
}

int reply_file(struct request *r, struct file *file, uint64_t offset, uint64_t length)
{
	size_t size = length;
	int result = piece_begin(r, &size);
	return result <= 0 ? result : chunk_end(r, output_file(r->connection, file, offset, size));
}
