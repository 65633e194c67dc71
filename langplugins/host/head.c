/* An answer's head: checked as an application gave it, and laid out as the channel carries it. */
#include <stdlib.h>
#include <string.h>

#include "http.h"
#include "worker.h"

#define HEAD_MOST 262144 /* bytes of fields in one answer */

static bool named(struct langplugin_text name, const char *word)
{
	return wire_is_word(name.data, name.size, word);
}

bool head_field_ok(const struct langplugin_field *field)
{
	return field->name.size <= UINT16_MAX && wire_is_token(field->name.data, field->name.size) &&
	       wire_is_value(field->value.data, field->value.size);
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
	/* One more than there are: trailers may be announced in it. */
	size_t table = (count + 1) * sizeof(struct wire_field);
	size_t size = sizeof(struct wire_response) + table + reason.size;
	int64_t counted = -1; /* by a Content-Length, which comes before what the call says */

	if (count >= WIRE_FIELDS || !wire_is_value(reason.data, reason.size))
		return LP_INVALID;
	for (size_t i = 0; i < count; i++) {
		bool upgrade = status == 101 && named(fields[i].name, "upgrade");
		if (!head_field_ok(&fields[i]) ||
			(!upgrade && wire_is_connection_field(fields[i].name.data, fields[i].name.size)))
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
	size_t at = sizeof(*to) + table, made = 0;
	for (size_t i = 0; i < count; i++) {
		if (length && named(fields[i].name, "content-length")) {
			int64_t said = wire_length(fields[i].value.data, fields[i].value.size);
			if (said < 0 || (counted >= 0 && counted != said))
				return LP_INVALID;
			counted = said;
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
	if (counted >= 0)
		*length = counted;
	to->content_length = length && *length >= 0 ? (uint64_t)*length : UINT64_MAX;
	answer->head_size = at;
	return LP_OK;
}

int head_announce(struct answer *answer, const char *names, size_t size)
{
	static const char name[] = "Trailer";
	size_t at = answer->head_size;

	if (!reserve(answer, at + sizeof(name) - 1 + size))
		return LP_FAILED;
	struct wire_response *to = (struct wire_response *)(void *)answer->head;
	struct wire_field *field = (struct wire_field *)(void *)(answer->head + to->fields);
	field[to->field_count++] = (struct wire_field){
		(uint32_t)at, sizeof(name) - 1, 0, (uint32_t)(at + sizeof(name) - 1), (uint32_t)size};
	memcpy(answer->head + at, name, sizeof(name) - 1);
	memcpy(answer->head + at + sizeof(name) - 1, names, size);
	answer->head_size = at + sizeof(name) - 1 + size;
	return LP_OK;
}
