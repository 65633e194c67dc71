/* An answer's head: checked as an application gave it, and laid out as the channel carries it. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "worker.h"

#define HEAD_MOST 262144 /* bytes of fields in one answer */

/* RFC 9110, sections 5.6.2 and 5.5: bit 0, may be in a token; bit 1, may be in a field value. */
static const uint8_t characters[256] = {
	['\t'] = 2,
	[' '] = 2,
	['!'] = 3,
	['"'] = 2,
	['#' ... '\''] = 3,
	['('] = 2,
	[')'] = 2,
	['*' ... '+'] = 3,
	[','] = 2,
	['-' ... '.'] = 3,
	['/'] = 2,
	['0' ... '9'] = 3,
	[':' ... '@'] = 2,
	['A' ... 'Z'] = 3,
	['[' ... ']'] = 2,
	['^' ... 'z'] = 3,
	['{'] = 2,
	['|'] = 3,
	['}'] = 2,
	['~'] = 3,
	[0x80 ... 0xff] = 2,
};

static bool all(struct langplugin_text text, uint8_t bit)
{
	uint8_t seen = 0xff;

	for (size_t i = 0; i < text.size; i++)
		seen &= characters[(uint8_t)text.data[i]];
	return (seen & bit) != 0;
}

static bool named(struct langplugin_text name, const char *word)
{
	return strlen(word) == name.size && strncasecmp(name.data, word, name.size) == 0;
}

/* The connection is the front end's. */
static bool is_connection_field(struct langplugin_text name)
{
	static const char *const words[] = {
		"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "proxy-connection"};
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (named(name, words[i]))
			return true;
	return false;
}

/* -1: not a length. */
static int64_t length_of(struct langplugin_text text)
{
	int64_t length = 0;

	if (text.size == 0 || text.size > 18)
		return -1;
	for (size_t i = 0; i < text.size; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return -1;
		length = length * 10 + (text.data[i] - '0');
	}
	return length;
}

static bool reserve(struct answer *answer, size_t size)
{
	if (size <= answer->head_room)
		return true;
	if (size > HEAD_MOST)
		return false;
	char *head = realloc(answer->head, size);
	if (!head)
		return false;
	answer->head = head;
	answer->head_room = size;
	return true;
}

int head_lay_out(struct langplugin_call *call, uint32_t kind, int status, struct langplugin_text reason,
	const struct langplugin_field *fields, size_t count, int64_t *length)
{
	struct answer *answer = &call->answer;
	size_t size = sizeof(struct wire_response) + count * sizeof(struct wire_field) + reason.size;

	if (count > WIRE_FIELDS || !all(reason, 2))
		return LP_INVALID;
	for (size_t i = 0; i < count; i++) {
		if (fields[i].name.size == 0 || fields[i].name.size > UINT16_MAX || !all(fields[i].name, 1) ||
			!all(fields[i].value, 2) || is_connection_field(fields[i].name))
			return LP_INVALID;
		size += fields[i].name.size + fields[i].value.size;
		if (size > HEAD_MOST)
			return LP_INVALID;
	}
	if (!reserve(answer, size))
		return LP_INVALID;
	struct wire_response *to = (struct wire_response *)(void *)answer->head;
	memset(to, 0, sizeof(*to));
	to->head.kind = kind;
	to->head.serial = call->head.serial;
	to->head.request = call->head.request;
	to->head.slot = (uint16_t)call->slot->number;
	to->status = (uint16_t)status;
	to->fields = sizeof(*to);
	struct wire_field *field = (struct wire_field *)(void *)(answer->head + sizeof(*to));
	size_t at = sizeof(*to) + count * sizeof(*field), made = 0;
	for (size_t i = 0; i < count; i++) {
		if (length && named(fields[i].name, "content-length")) {
			int64_t said = length_of(fields[i].value);
			if (said < 0 || (*length >= 0 && *length != said))
				return LP_INVALID;
			*length = said;
			continue;
		}
		field[made] = (struct wire_field){(uint32_t)at, (uint16_t)fields[i].name.size, 0,
			(uint32_t)(at + fields[i].name.size), (uint32_t)fields[i].value.size};
		made++;
		memcpy(answer->head + at, fields[i].name.data, fields[i].name.size);
		at += fields[i].name.size;
		memcpy(answer->head + at, fields[i].value.data, fields[i].value.size);
		at += fields[i].value.size;
	}
	to->reason = (struct wire_span){(uint32_t)at, (uint32_t)reason.size};
	memcpy(answer->head + at, reason.data, reason.size);
	at += reason.size;
	to->field_count = (uint16_t)made;
	to->content_length = length && *length >= 0 ? (uint64_t)*length : UINT64_MAX;
	answer->head_size = at;
	return LP_OK;
}
