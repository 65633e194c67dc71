/*
 * Decoding of chunked bodies (RFC 9112, section 7.1), strictly: CR LF ends every line, a size is 1 to 16 hexadecimal
 * digits, nothing but an extension may follow it. llhttp can do this too, but takes a bare LF, and whatever stands
 * between a CR and the next line, for a line's end, which is how two servers come to see two different requests.
 */
#ifndef WEBSERVER_ENGINE_CHUNKED_H
#define WEBSERVER_ENGINE_CHUNKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chunked {
	uint8_t state;	   /* enum in chunked.c; 0: at the body's first byte */
	uint8_t digits;	   /* of the size that is being read */
	uint32_t overhead; /* bytes of framing since the last byte of body */
	uint64_t left;	   /* of the chunk that is being read, or its size so far */
};

/* Decode in place: body bytes move together at the beginning of data. consumed < size only with last. False: not
   framed as it must be, or more than most bytes of framing (extensions, trailers) without one of body. */
bool chunked_decode(
	struct chunked *c, char *data, size_t size, uint32_t most, size_t *decoded, size_t *consumed, bool *last);

#endif
