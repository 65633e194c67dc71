/*
 * Arbitrary bytes on their way into a log line.
 *
 * sources: webserver/engine/escape.c
 *
 * Invariants: never more than the room; printable ASCII without a bare quote in combined; in JSON no control character,
 * no bare quote, only well-formed UTF-8 (escaping the output's own bytes changes nothing but quotes and backslashes).
 */
#include <stdlib.h>
#include <string.h>

#include "escape.h"

static void must(int ok)
{
	if (!ok)
		abort();
}

static void check_line(const char *out, const char *end, int ascii)
{
	for (const char *p = out; p < end; p++) {
		unsigned char c = (unsigned char)*p;
		must(c >= 0x20 && c != 0x7f && (c < 0x80 || !ascii));
		if (c == '\\') {
			must(end - p >= 2);
			p++;
		} else {
			must(c != '"');
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > 2048)
		return 0;
	for (int whole = 0; whole < 2; whole++) {
		size_t room = whole || size == 0 ? ESCAPE_MOST * size + 1 : data[0];
		char *out = malloc(room + 1), *in = malloc(size + 1);
		if (out == NULL || in == NULL)
			abort();
		memcpy(in, data, size);
		char *end = escape_combined(out, room, in, size);
		must(end >= out && end <= out + room);
		check_line(out, end, 1);
		end = escape_json(out, room, in, size);
		must(end >= out && end <= out + room);
		check_line(out, end, 0);
		size_t made = (size_t)(end - out);
		char *again = malloc(ESCAPE_MOST * made + 1);
		if (again == NULL)
			abort();
		char *again_end = escape_json(again, ESCAPE_MOST * made, out, made);
		for (char *p = again; p + 6 <= again_end; p++)
			must(memcmp(p, "\\ufffd", 6) != 0 || (p > again && p[-1] == '\\'));
		free(again);
		free(in);
		free(out);
	}
	return 0;
}
