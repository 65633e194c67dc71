/*
 * Bodies that arrive whole before a worker is taken: small ones, and those of routes that gather.
 *
 * Memory takes what fits into a block, the spool file the rest. A spool directory that takes nothing, because its disk
 * is full or its descriptors are gone, is no reason to refuse a request that can be run: from there on the body is
 * streamed, what is in the file first. What is lost by that is only what gathering is for: the worker waits for this
 * client.
 */
#include <stdlib.h>
#include <string.h>

#include "channel.h"

/* A body up to this size fits into the block. */
static size_t gather_limit(const struct exchange *x)
{
	size_t head = block_head_size(x), room = head < WIRE_BLOCK ? WIRE_BLOCK - head : 0;
	size_t limit = exchange_engine(x)->limits.gather;

	return room < limit ? room : limit;
}

bool body_gathers(struct exchange *x)
{
	const struct request *r = x->request;

	if (!r->has_body || r->content_length == 0) {
		x->upload = UPLOAD_NONE;
		x->body.complete = true;
		return false;
	}
	bool route = r->decision != NULL && decision_gathers(r->decision);
	/* Who waits for 100 is only let go on when the application reads. */
	bool small = r->content_length != UINT64_MAX && !r->expect && r->content_length <= gather_limit(x);
	x->upload = small || route ? UPLOAD_WHOLE : UPLOAD_STREAM;
	if (route && !small && r->content_length != UINT64_MAX &&
		r->content_length > exchange_engine(x)->limits.spool_limit)
		x->failed = BODY_TOO_LARGE;
	return x->upload != UPLOAD_STREAM;
}

/* True: it is in the file. */
static bool to_file(struct exchange *x, const char *data, size_t size)
{
	/* max_body may be unlimited, and disks are not. */
	if (x->body.spool.end + size > exchange_engine(x)->limits.spool_limit) {
		x->failed = BODY_TOO_LARGE;
		return false;
	}
	if (spool_write(exchange_engine(x), &x->body.spool, data, size, UINT64_MAX))
		return true;
	x->upload = UPLOAD_STREAM;
	return false;
}

/* What is in memory is to go to the file from now on, with what follows. */
static void begin_file(struct exchange *x)
{
	x->upload = UPLOAD_FILE;
	if (x->body.size > 0 && !to_file(x, body_bytes(x), x->body.size))
		return;
	free(x->body.buffer);
	x->body.buffer = NULL;
	x->body.size = x->body.capacity = 0;
}

void body_gather(struct exchange *x, const char *data, size_t size)
{
	if (x->upload == UPLOAD_WHOLE && x->body.size + size > gather_limit(x))
		begin_file(x);
	if (size == 0 || x->failed || (x->upload == UPLOAD_FILE && to_file(x, data, size)) || x->failed)
		return;
	if (!body_reserve(x, size)) {
		x->failed = BODY_NOT_KEPT;
		return;
	}
	memcpy(body_bytes(x) + x->body.size, data, size);
	x->body.size += size;
}
