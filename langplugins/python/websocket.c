/* Frames of RFC 6455. See websocket.h. */
#include "websocket.h"

#include <stdlib.h>
#include <string.h>

#define SPARE 65536 /* room that is kept from one message to the next */

/* ---- UTF-8, RFC 3629, section 4 */

static bool is_ascii(const char *data)
{
	uint64_t word;

	memcpy(&word, data, sizeof(word));
	return (word & 0x8080808080808080u) == 0;
}

static bool begin_character(struct utf8 *utf8, uint8_t byte)
{
	utf8->least = 0x80;
	utf8->most = 0xbf;
	if (byte < 0x80)
		return true;
	if (byte >= 0xc2 && byte <= 0xdf) {
		utf8->left = 1;
	} else if (byte >= 0xe0 && byte <= 0xef) {
		utf8->left = 2;
		if (byte == 0xe0)
			utf8->least = 0xa0; /* shorter forms of the same */
		if (byte == 0xed)
			utf8->most = 0x9f; /* surrogates */
	} else if (byte >= 0xf0 && byte <= 0xf4) {
		utf8->left = 3;
		if (byte == 0xf0)
			utf8->least = 0x90;
		if (byte == 0xf4)
			utf8->most = 0x8f; /* above U+10FFFF */
	} else {
		return false;
	}
	return true;
}

bool utf8_take(struct utf8 *utf8, const char *data, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		uint8_t byte = (uint8_t)data[i];
		if (utf8->left == 0) {
			while (size - i >= 8 && is_ascii(data + i))
				i += 8;
			if (i == size)
				break;
			if (!begin_character(utf8, (uint8_t)data[i]))
				return false;
			continue;
		}
		if (byte < utf8->least || byte > utf8->most)
			return false;
		utf8->least = 0x80;
		utf8->most = 0xbf;
		utf8->left--;
	}
	return true;
}

/* ---- reading */

void websocket_open(struct websocket *websocket, size_t limit)
{
	memset(websocket, 0, sizeof(*websocket));
	websocket->limit = limit;
}

void websocket_close(struct websocket *websocket)
{
	free(websocket->data);
	websocket->data = NULL;
	websocket->size = websocket->room = 0;
}

bool websocket_code_ok(unsigned code)
{
	/* Those of 7.4.1 and of IANA's registry that may stand in a frame, then libraries' and applications' own. */
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

static unsigned mistake(struct websocket *websocket, enum websocket_code code, const char *why)
{
	websocket->code = code;
	websocket->why = why;
	return WEBSOCKET_MISTAKE;
}

static bool is_control(const struct websocket *websocket)
{
	return (websocket->opcode & 8) != 0;
}

/* Bytes of the head, as far as its first two tell. */
static size_t head_size(const struct websocket *websocket)
{
	unsigned length = websocket->have < 2 ? 0 : websocket->head[1] & 0x7f;

	return 2 + (length == 126 ? 2 : length == 127 ? 8 : 0) + 4;
}

/* What its first two bytes say already: no more is taken of a frame that is wrong. */
static unsigned check_start(struct websocket *websocket)
{
	uint8_t first = websocket->head[0], second = websocket->head[1];

	websocket->final = (first & 0x80) != 0;
	websocket->opcode = first & 0x0f;
	if (first & 0x70)
		return mistake(websocket, WEBSOCKET_PROTOCOL_ERROR, "a reserved bit is set");
	if (!(second & 0x80))
		return mistake(websocket, WEBSOCKET_PROTOCOL_ERROR, "a frame of a client is not masked");
	switch (websocket->opcode) {
	case WEBSOCKET_CONTINUATION:
		if (!websocket->message)
			return mistake(websocket, WEBSOCKET_PROTOCOL_ERROR, "a continuation of nothing");
		break;
	case WEBSOCKET_TEXT:
	case WEBSOCKET_BINARY:
		if (websocket->message)
			return mistake(websocket, WEBSOCKET_PROTOCOL_ERROR, "a message begins within another");
		break;
	case WEBSOCKET_CLOSE:
	case WEBSOCKET_PING:
	case WEBSOCKET_PONG:
		if (!websocket->final || (second & 0x7f) > WEBSOCKET_CONTROL)
			return mistake(
				websocket, WEBSOCKET_PROTOCOL_ERROR, "a control frame is too long, or in fragments");
		break;
	default:
		return mistake(websocket, WEBSOCKET_PROTOCOL_ERROR, "a frame of an unknown kind");
	}
	return WEBSOCKET_NOTHING;
}

static unsigned begin_payload(struct websocket *websocket)
{
	unsigned length = websocket->head[1] & 0x7f, bytes = length == 126 ? 2 : length == 127 ? 8 : 0;
	uint64_t size = bytes ? 0 : length;

	for (unsigned i = 0; i < bytes; i++)
		size = size << 8 | websocket->head[2 + i];
	/* The shortest form is a must (5.2). */
	if ((bytes == 2 && size < 126) || (bytes == 8 && (size < 65536 || size >> 63)))
		return mistake(websocket, WEBSOCKET_PROTOCOL_ERROR, "a frame's length is not in its shortest form");
	memcpy(websocket->mask, websocket->head + 2 + bytes, 4);
	websocket->masked = 0;
	websocket->left = size;
	websocket->in_payload = true;
	if (is_control(websocket)) {
		websocket->control_size = 0;
		return WEBSOCKET_NOTHING;
	}
	if (websocket->opcode != WEBSOCKET_CONTINUATION) {
		websocket->message = websocket->opcode;
		websocket->size = 0;
		websocket->utf8 = (struct utf8){0};
	}
	if (size > websocket->limit - websocket->size)
		return mistake(websocket, WEBSOCKET_TOO_LARGE, "a message is too large");
	return WEBSOCKET_NOTHING;
}

/* Room for size more bytes. What a head announces is not believed before its bytes are there. */
static bool reserve(struct websocket *websocket, size_t size)
{
	size_t needed = websocket->size + size;

	if (needed <= websocket->room)
		return true;
	size_t room = needed + needed / 2;
	if (room > websocket->limit)
		room = websocket->limit > needed ? websocket->limit : needed;
	char *data = realloc(websocket->data, room);
	if (!data)
		return false;
	websocket->data = data;
	websocket->room = room;
	return true;
}

/* 5.3 */
static void unmask(struct websocket *websocket, char *to, const char *from, size_t size)
{
	uint8_t mask[8];
	uint64_t wide, word;

	for (unsigned i = 0; i < 8; i++)
		mask[i] = websocket->mask[(websocket->masked + i) & 3];
	memcpy(&wide, mask, sizeof(wide));
	size_t i = 0;
	for (; size - i >= 8; i += 8) {
		memcpy(&word, from + i, sizeof(word));
		word ^= wide;
		memcpy(to + i, &word, sizeof(word));
	}
	for (; i < size; i++)
		to[i] = (char)((uint8_t)from[i] ^ mask[i & 7]);
	websocket->masked = (unsigned)((websocket->masked + size) & 3);
}

static unsigned close_found(struct websocket *websocket)
{
	const uint8_t *payload = (const uint8_t *)websocket->control;
	struct utf8 utf8 = {0};

	if (websocket->control_size == 0) {
		websocket->code = WEBSOCKET_NO_CODE;
		return WEBSOCKET_CLOSE;
	}
	unsigned code = websocket->control_size < 2 ? 0 : (unsigned)payload[0] << 8 | payload[1];
	if (!websocket_code_ok(code))
		return mistake(websocket, WEBSOCKET_PROTOCOL_ERROR, "a close frame has no valid code");
	websocket->code = code;
	websocket->control_size -= 2;
	memmove(websocket->control, websocket->control + 2, websocket->control_size);
	if (!utf8_take(&utf8, websocket->control, websocket->control_size) || utf8.left)
		return mistake(websocket, WEBSOCKET_NOT_UTF8, "the reason of a close frame is not UTF-8");
	return WEBSOCKET_CLOSE;
}

static unsigned frame_found(struct websocket *websocket)
{
	websocket->in_payload = false;
	websocket->have = 0;
	if (websocket->opcode == WEBSOCKET_CLOSE)
		return close_found(websocket);
	if (is_control(websocket))
		return websocket->opcode;
	if (!websocket->final)
		return WEBSOCKET_NOTHING;
	if (websocket->message == WEBSOCKET_TEXT && websocket->utf8.left)
		return mistake(websocket, WEBSOCKET_NOT_UTF8, "a text message is not UTF-8");
	unsigned found = websocket->message;
	websocket->message = 0;
	return found;
}

/* Some of the payload, all that is there. */
static unsigned take_payload(struct websocket *websocket, const char *data, size_t size)
{
	if (is_control(websocket)) {
		unmask(websocket, websocket->control + websocket->control_size, data, size);
		websocket->control_size += size;
		return WEBSOCKET_NOTHING;
	}
	if (!reserve(websocket, size))
		return mistake(websocket, WEBSOCKET_TOO_LARGE, "there is no memory for a message");
	char *to = websocket->data + websocket->size;
	unmask(websocket, to, data, size);
	websocket->size += size;
	/* At the first byte that is wrong, not at the message's end. */
	if (websocket->message == WEBSOCKET_TEXT && !utf8_take(&websocket->utf8, to, size))
		return mistake(websocket, WEBSOCKET_NOT_UTF8, "a text message is not UTF-8");
	return WEBSOCKET_NOTHING;
}

/* Of the head; found says what is wrong with it. */
static size_t take_head(struct websocket *websocket, const char *data, size_t size, unsigned *found)
{
	size_t used = 0;

	while (used < size && !websocket->in_payload && *found == WEBSOCKET_NOTHING) {
		websocket->head[websocket->have++] = (uint8_t)data[used++];
		if (websocket->have == 2)
			*found = check_start(websocket);
		else if (websocket->have > 2 && websocket->have == head_size(websocket))
			*found = begin_payload(websocket);
	}
	return used;
}

size_t websocket_take(struct websocket *websocket, const char *data, size_t size, unsigned *found)
{
	size_t used = 0;

	*found = WEBSOCKET_NOTHING;
	/* The last message has been looked at. */
	if (!websocket->message) {
		websocket->size = 0;
		if (websocket->room > SPARE)
			websocket_close(websocket);
	}
	while (*found == WEBSOCKET_NOTHING) {
		if (!websocket->in_payload) {
			used += take_head(websocket, data + used, size - used, found);
			if (!websocket->in_payload || *found != WEBSOCKET_NOTHING)
				return used;
		}
		size_t part = websocket->left < size - used ? (size_t)websocket->left : size - used;
		if (part > 0)
			*found = take_payload(websocket, data + used, part);
		used += part;
		websocket->left -= part;
		if (*found != WEBSOCKET_NOTHING)
			return used;
		if (websocket->left > 0)
			return used;
		*found = frame_found(websocket);
	}
	return used;
}

/* ---- writing */

size_t websocket_head(char to[WEBSOCKET_HEAD], enum websocket_opcode opcode, size_t size)
{
	size_t at = 0;
	unsigned bytes = size < 126 ? 0 : size < 65536 ? 2 : 8;

	to[at++] = (char)(0x80 | opcode);
	to[at++] = (char)(bytes == 0 ? size : bytes == 2 ? 126 : 127);
	for (unsigned i = 0; i < bytes; i++)
		to[at++] = (char)(uint8_t)((uint64_t)size >> (8 * (bytes - 1 - i)));
	return at;
}
