/* Chunked bodies; see chunked.h. Extensions are skipped, trailers are checked for their form. */
#include "chunked.h"

#include <string.h>

#include "http.h"

enum state {
	SIZE = 0,  /* first digit of a size, or a further one */
	EXTENSION, /* behind ";" */
	SIZE_LF,   /* the line's CR has been seen */
	DATA,
	DATA_CR, /* behind the chunk's last byte */
	DATA_LF,
	LINE, /* at the beginning of a trailer, or of the empty line */
	TRAILER_NAME,
	TRAILER_VALUE,
	TRAILER_LF,
	END_LF, /* the empty line's CR has been seen */
	DONE,
	BROKEN
};

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_text(char c)
{
	return ((unsigned char)c >= 0x20 && c != 0x7f) || c == '\t';
}

static enum state size_character(struct chunked *c, char byte)
{
	int value = digit(byte);
	if (value >= 0) {
		if (c->digits == 16 || c->left >> 59 != 0)
			return BROKEN;
		c->digits++;
		c->left = c->left << 4 | (unsigned)value;
		return SIZE;
	}
	if (c->digits == 0)
		return BROKEN;
	return byte == ';' ? EXTENSION : byte == '\r' ? SIZE_LF : BROKEN;
}

static enum state after_size(struct chunked *c)
{
	c->digits = 0;
	return c->left > 0 ? DATA : LINE;
}

/* What follows state when byte is read; not for DATA. */
static enum state framing(struct chunked *c, char byte)
{
	switch ((enum state)c->state) {
	case SIZE:
		return size_character(c, byte);
	case EXTENSION:
		return byte == '\r' ? SIZE_LF : is_text(byte) ? EXTENSION : BROKEN;
	case SIZE_LF:
		return byte == '\n' ? after_size(c) : BROKEN;
	case DATA_CR:
		return byte == '\r' ? DATA_LF : BROKEN;
	case DATA_LF:
		return byte == '\n' ? SIZE : BROKEN;
	case LINE:
		return byte == '\r' ? END_LF : wire_is_token(&byte, 1) ? TRAILER_NAME : BROKEN;
	case TRAILER_NAME:
		return byte == ':' ? TRAILER_VALUE : wire_is_token(&byte, 1) ? TRAILER_NAME : BROKEN;
	case TRAILER_VALUE:
		return byte == '\r' ? TRAILER_LF : is_text(byte) ? TRAILER_VALUE : BROKEN;
	case TRAILER_LF:
		return byte == '\n' ? LINE : BROKEN;
	case END_LF:
		return byte == '\n' ? DONE : BROKEN;
	case DATA:
	case DONE:
	case BROKEN:
		break;
	}
	return BROKEN;
}

static bool in_trailers(const struct chunked *c)
{
	return c->state >= LINE && c->state <= END_LF;
}

bool chunked_decode(struct chunked *c, char *data, size_t size, uint32_t most, struct chunked_piece *piece)
{
	size_t in = 0, out = 0;

	*piece = (struct chunked_piece){0};
	while (in < size && c->state != DONE) {
		if (c->state == DATA) {
			size_t part = c->left < size - in ? (size_t)c->left : size - in;
			memmove(data + out, data + in, part);
			in += part;
			out += part;
			c->left -= part;
			c->overhead = 0;
			if (c->left == 0)
				c->state = DATA_CR;
			continue;
		}
		if (in_trailers(c) && piece->trailers_size++ == 0)
			piece->trailers = in;
		c->state = framing(c, data[in++]);
		if (c->state == BROKEN || ++c->overhead > most)
			return false;
	}
	piece->size = out;
	piece->consumed = in;
	piece->last = c->state == DONE;
	return true;
}
