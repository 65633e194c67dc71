/*
 * Any bytes as frames of a WebSocket's client, in pieces of any size. What is found does not depend on the pieces; a
 * message is no larger than the limit, a text is UTF-8, a close frame's code may be sent, and after a mistake nothing
 * is taken.
 *
 * sources: langplugins/python/websocket.c
 * flags: -Ilangplugins/python
 *
 * The first byte says how large pieces are; the second, the limit; the rest are frames.
 */
#include <stdlib.h>
#include <string.h>

#include "websocket.h"

#define FOUND 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct found {
	unsigned what, code;
	uint64_t mark; /* of its bytes */
};

static void must(bool condition)
{
	if (!condition)
		abort();
}

static uint64_t mark(const char *data, size_t size)
{
	uint64_t hash = 1469598103934665603u + size;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ (uint8_t)data[i]) * 1099511628211u;
	return hash;
}

/* UTF-8 by its definition, from whole characters. */
static bool is_utf8(const uint8_t *at, size_t size)
{
	static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};

	while (size > 0) {
		unsigned more = at[0] < 0x80 ? 0 : (at[0] & 0xe0) == 0xc0 ? 1 : (at[0] & 0xf0) == 0xe0 ? 2 : 3;
		if (more >= size || (more == 3 && (at[0] & 0xf8) != 0xf0))
			return false;
		uint32_t point = more == 0 ? at[0] : at[0] & (0x3fu >> more);
		for (unsigned i = 1; i <= more; i++) {
			if ((at[i] & 0xc0) != 0x80)
				return false;
			point = point << 6 | (at[i] & 0x3fu);
		}
		if (point < least[more] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
			return false;
		at += more + 1;
		size -= more + 1;
	}
	return true;
}

static struct found look(const struct websocket *websocket, unsigned what)
{
	struct found found = {what, 0, 0};

	switch (what) {
	case WEBSOCKET_TEXT:
		must(is_utf8((const uint8_t *)websocket->data, websocket->size));
		/* fall through */
	case WEBSOCKET_BINARY:
		must(websocket->size <= websocket->limit);
		found.mark = mark(websocket->data, websocket->size);
		break;
	case WEBSOCKET_CLOSE:
		must(websocket->code == WEBSOCKET_NO_CODE || websocket_code_ok(websocket->code));
		must(is_utf8((const uint8_t *)websocket->control, websocket->control_size));
		/* fall through */
	case WEBSOCKET_PING:
	case WEBSOCKET_PONG:
		must(websocket->control_size <= WEBSOCKET_CONTROL);
		found.mark = mark(websocket->control, websocket->control_size);
		found.code = what == WEBSOCKET_CLOSE ? websocket->code : 0;
		break;
	default:
		must(what == WEBSOCKET_MISTAKE && websocket->why != NULL && websocket_code_ok(websocket->code));
		found.code = websocket->code;
	}
	return found;
}

static size_t take_all(const char *data, size_t size, size_t piece, size_t limit, struct found *found)
{
	struct websocket websocket;
	size_t count = 0;
	bool over = false;

	websocket_open(&websocket, limit);
	while (size > 0 && !over && count < FOUND) {
		/* Of its own size, so that a byte too many is seen. */
		size_t part = size < piece ? size : piece, used = 0;
		char *copy = malloc(part);
		memcpy(copy, data, part);
		while (used < part && !over && count < FOUND) {
			unsigned what;
			size_t took = websocket_take(&websocket, copy + used, part - used, &what);
			must(took <= part - used && (what != WEBSOCKET_NOTHING || took == part - used));
			used += took;
			if (what != WEBSOCKET_NOTHING)
				found[count++] = look(&websocket, what);
			over = what == WEBSOCKET_MISTAKE || what == WEBSOCKET_CLOSE;
		}
		free(copy);
		data += part;
		size -= part;
	}
	websocket_close(&websocket);
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct found whole[FOUND], pieces[FOUND];

	if (size < 2)
		return 0;
	size_t limit = (size_t)data[1] * 16;
	size_t one = take_all((const char *)data + 2, size - 2, size, limit, whole);
	size_t other = take_all((const char *)data + 2, size - 2, 1u + data[0] % 16, limit, pieces);
	must(one == other);
	for (size_t i = 0; i < one; i++)
		must(whole[i].what == pieces[i].what && whole[i].code == pieces[i].code &&
			whole[i].mark == pieces[i].mark);
	return 0;
}
