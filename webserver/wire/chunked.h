/*
 * Decoding of chunked bodies (RFC 9112, section 7.1), strictly: CR LF ends every line, a size is 1 to 16 hexadecimal
 * digits, nothing but an extension may follow it. llhttp can do this too, but takes a bare LF, and whatever stands
 * between a CR and the next line, for a line's end, which is how two servers come to see two different requests.
 *
 * Used on what clients send, and on what applications write by hand.
 */
#ifndef WEBSERVER_WIRE_CHUNKED_H
#define WEBSERVER_WIRE_CHUNKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chunked {
	uint8_t state;	   /* enum in chunked.c; 0: at the body's first byte */
	uint8_t digits;	   /* of the size that is being read */
	uint32_t overhead; /* bytes of framing since the last byte of body */
	uint64_t left;	   /* of the chunk that is being read, or its size so far */
};

/* What a call has made of its bytes; offsets are in data as it was given. */
struct chunked_piece {
	size_t size;			/* bytes of body, now together at the beginning of data */
	size_t consumed;		/* less than all only with last */
	size_t trailers, trailers_size; /* bytes of trailers, each with its line's end, up to the empty line's */
	bool last;
};

/* Decode in place. False: not framed as it must be, or more than most bytes of framing (extensions, trailers) without
   one of body. */
bool chunked_decode(struct chunked *c, char *data, size_t size, uint32_t most, struct chunked_piece *piece);

#endif
