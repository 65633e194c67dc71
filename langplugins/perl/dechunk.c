/*
 * Bodies that an application has put into chunks itself, with a Transfer-Encoding of its own (Mojolicious's
 * write_chunk, Plack::Middleware::Chunked): RFC 9112, section 7.1. How an answer is framed is the front end's, which
 * frames it again. Trailers are dropped.
 */
#include "plugin.h"

enum { SIZE_FIRST, SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, LINE, TRAILER, TRAILER_LF, LAST_LF, OVER };

struct dechunk *dechunk_begin(struct dechunk *decoder)
{
	*decoder = (struct dechunk){.state = SIZE_FIRST};
	return decoder;
}

bool dechunk_over(const struct dechunk *decoder)
{
	return decoder->state == OVER;
}

/* The state after a byte of framing, or -1. */
static int step(struct dechunk *decoder, char byte)
{
	switch (decoder->state) {
	case SIZE_FIRST:
	case SIZE:
		if (isXDIGIT(byte)) {
			if (decoder->left >> 56)
				return -1;
			decoder->left = decoder->left << 4 |
					(uint64_t)(isDIGIT(byte) ? byte - '0' : (byte | 0x20) - 'a' + 10);
			return SIZE;
		}
		if (decoder->state == SIZE_FIRST)
			return -1;
		return byte == '\r' ? SIZE_LF : byte == ';' || byte == ' ' || byte == '\t' ? EXTENSION : -1;
	case EXTENSION:
		return byte == '\r' ? SIZE_LF : byte == '\n' ? -1 : EXTENSION;
	case SIZE_LF:
		return byte != '\n' ? -1 : decoder->left ? DATA : LINE;
	case DATA_CR:
		return byte == '\r' ? DATA_LF : -1;
	case DATA_LF:
		return byte == '\n' ? SIZE_FIRST : -1;
	case LINE:
		return byte == '\r' ? LAST_LF : byte == '\n' ? -1 : TRAILER;
	case TRAILER:
		return byte == '\r' ? TRAILER_LF : byte == '\n' ? -1 : TRAILER;
	case TRAILER_LF:
		return byte == '\n' ? LINE : -1;
	case LAST_LF:
		return byte == '\n' ? OVER : -1;
	default:
		return -1;
	}
}

ssize_t dechunk(struct dechunk *decoder, char *data, size_t size, bool *last)
{
	size_t at = 0, made = 0;

	while (at < size) {
		if (decoder->state == DATA) {
			size_t part = size - at < decoder->left ? size - at : (size_t)decoder->left;
			memmove(data + made, data + at, part);
			made += part;
			at += part;
			decoder->left -= part;
			if (!decoder->left)
				decoder->state = DATA_CR;
			continue;
		}
		int next = step(decoder, data[at++]);
		if (next < 0)
			return -1;
		decoder->state = (uint8_t)next;
	}
	*last = decoder->state == OVER;
	return (ssize_t)made;
}
