/* ZMTP 3.0: see zmtp.h. */
#include "zmtp.h"

#include <stdbool.h>
#include <string.h>

enum flag { MORE = 1, LONG = 2, COMMAND = 4, RESERVED = 0xf8 };

/* ---- out */

/* A command's property: name and value, each after its length. */
static char *property(char *to, const char *name, const void *value, size_t size)
{
	size_t length = strlen(name);

	*to++ = (char)length;
	memcpy(to, name, length);
	to += length;
	memset(to, 0, 3); /* four bytes, most significant first */
	to[3] = (char)size;
	memcpy(to + 4, value, size);
	return to + 4 + size;
}

size_t zmtp_opening(char to[ZMTP_OPENING], const void *identity, size_t size)
{
	char *at = to + ZMTP_GREETING;

	memset(to, 0, ZMTP_GREETING);
	to[0] = (char)0xff; /* signature: ff, eight bytes, 7f */
	to[8] = 1;
	to[9] = 0x7f;
	to[10] = 3; /* version 3.0 */
	memcpy(to + 12, "NULL", 4);
	*at++ = COMMAND;
	char *length = at++;
	memcpy(at, "\5READY", 6);
	at = property(at + 6, "Socket-Type", "ROUTER", 6);
	at = property(at, "Identity", identity, size);
	*length = (char)(at - length - 1);
	return (size_t)(at - to);
}

size_t zmtp_frame_head(char to[ZMTP_FRAME_HEAD], size_t size)
{
	if (size < 256) {
		to[0] = 0;
		to[1] = (char)size;
		return 2;
	}
	to[0] = LONG;
	for (unsigned i = 0; i < 8; i++)
		to[1 + i] = (char)((uint64_t)size >> (56 - 8 * i));
	return 9;
}

/* ---- in */

void zmtp_init(struct zmtp *zmtp, size_t limit)
{
	memset(zmtp, 0, sizeof(*zmtp));
	zmtp->limit = limit;
}

void zmtp_close(struct zmtp *zmtp)
{
	message_free(zmtp->message);
	zmtp->message = NULL;
	zmtp->state = ZMTP_BROKEN;
}

/* How many bytes the part must have before it can be looked at. */
static size_t part_needs(const struct zmtp *zmtp)
{
	if (zmtp->state == ZMTP_GREETS)
		return ZMTP_GREETING;
	if (zmtp->have == 0)
		return 1;
	return zmtp->part[0] & LONG ? 9 : 2;
}

static bool greeting_ok(const uint8_t *greeting)
{
	static const uint8_t mechanism[20] = "NULL";

	/* Versions after 3 greet alike, and speak 3 with whoever does. */
	return greeting[0] == 0xff && (greeting[9] & 1) && greeting[10] >= 3 &&
	       memcmp(greeting + 12, mechanism, sizeof(mechanism)) == 0;
}

/* The frame's head is in the part: make room for its body. False: it breaks a rule, or there is no memory. */
static bool begin_frame(struct zmtp *zmtp)
{
	uint8_t flags = zmtp->part[0];
	uint64_t size = 0;

	for (unsigned i = 1; i < zmtp->have; i++)
		size = size << 8 | zmtp->part[i];
	bool command = flags & COMMAND;
	/* A message of the channel is one frame; before READY there is none at all. */
	if (flags & (RESERVED | MORE) || size > (command ? ZMTP_COMMAND : zmtp->limit) ||
		(zmtp->state == ZMTP_READIES && !command))
		return false;
	zmtp->message = message_new((size_t)size);
	zmtp->filled = 0;
	return zmtp->message != NULL;
}

/* Its body is whole. Returns the message, or NULL for a command, which was for this file. */
static struct message *end_frame(struct zmtp *zmtp)
{
	struct message *message = zmtp->message;

	zmtp->message = NULL;
	zmtp->have = 0;
	if (!(zmtp->part[0] & COMMAND))
		return message;
	if (zmtp->state == ZMTP_READIES) {
		bool ready = message->size >= 6 && memcmp(message->data, "\5READY", 6) == 0;
		zmtp->state = ready ? ZMTP_TALKS : ZMTP_BROKEN;
	}
	message_free(message);
	return NULL;
}

/* One byte of greeting or frame head. */
static void take_part(struct zmtp *zmtp, uint8_t byte)
{
	zmtp->part[zmtp->have++] = byte;
	if (zmtp->have < part_needs(zmtp))
		return;
	if (zmtp->state == ZMTP_GREETS) {
		zmtp->state = greeting_ok(zmtp->part) ? ZMTP_READIES : ZMTP_BROKEN;
		zmtp->have = 0;
	} else if (!begin_frame(zmtp)) {
		zmtp->state = ZMTP_BROKEN;
	}
}

size_t zmtp_take(struct zmtp *zmtp, const char *data, size_t size, struct message **message)
{
	size_t used = 0;

	*message = NULL;
	while (!*message && zmtp->state != ZMTP_BROKEN) {
		if (!zmtp->message) {
			if (used == size)
				break;
			take_part(zmtp, (uint8_t)data[used++]);
			continue;
		}
		size_t left = zmtp->message->size - zmtp->filled;
		size_t part = left < size - used ? left : size - used;
		memcpy(zmtp->message->data + zmtp->filled, data + used, part);
		used += part;
		*message = zmtp_filled(zmtp, part);
		if (part < left)
			break;
	}
	return used;
}

size_t zmtp_room(const struct zmtp *zmtp, char **to)
{
	if (!zmtp->message)
		return 0;
	*to = zmtp->message->data + zmtp->filled;
	return zmtp->message->size - zmtp->filled;
}

struct message *zmtp_filled(struct zmtp *zmtp, size_t size)
{
	zmtp->filled += size;
	return zmtp->filled == zmtp->message->size ? end_frame(zmtp) : NULL;
}
