/*
 * A body that the application has chunked itself (RFC 9112, section 7.1), as Rack::Chunked and Rails before 7.1 do: its
 * data is sent, and the server makes chunks of its own where the client's version has them. Ends of chunks may lie
 * anywhere in what each() yields. Trailer fields are left out.
 */
#include "plugin.h"

enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER };

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

RBIMPL_ATTR_NORETURN() static void malformed(void)
{
	rb_raise(rb_eArgError, "the body is not chunked, though its Transfer-Encoding says so");
}

static void take_size(struct thread *thread, char c)
{
	int value = digit(c);

	if (value >= 0 && thread->chunk.left < UINT64_C(1) << 58)
		thread->chunk.left = thread->chunk.left * 16 + (uint64_t)value;
	else if (c == ';')
		thread->chunk.state = EXTENSION;
	else if (c == '\r')
		thread->chunk.state = SIZE_LF;
	else
		malformed();
}

static void take_byte(struct thread *thread, char c)
{
	switch (thread->chunk.state) {
	case SIZE:
		take_size(thread, c);
		return;
	case EXTENSION:
		if (c == '\r')
			thread->chunk.state = SIZE_LF;
		return;
	case SIZE_LF:
		if (c != '\n')
			malformed();
		thread->chunk.state = thread->chunk.left ? DATA : TRAILER;
		return;
	case DATA_CR:
		if (c != '\r')
			malformed();
		thread->chunk.state = DATA_LF;
		return;
	case DATA_LF:
		if (c != '\n')
			malformed();
		thread->chunk.state = SIZE;
		return;
	default:
		return;
	}
}

bool chunks_write(struct thread *thread, VALUE part)
{
	VALUE owner = rb_str_new_frozen(part);
	const char *at = RSTRING_PTR(owner), *end = RSTRING_END(owner);

	while (at < end && thread->chunk.state < TRAILER) {
		if (thread->chunk.state != DATA) {
			take_byte(thread, *at++);
			continue;
		}
		size_t size = (size_t)(end - at) < thread->chunk.left ? (size_t)(end - at) : (size_t)thread->chunk.left;
		if (!body_put(thread, at, size, owner, true))
			return false;
		at += size;
		thread->chunk.left -= size;
		if (thread->chunk.left == 0)
			thread->chunk.state = DATA_CR;
	}
	return true;
}

void chunks_end(struct thread *thread)
{
	if (thread->chunk.state < TRAILER)
		rb_raise(rb_eArgError, "the body ended before its last chunk");
}
