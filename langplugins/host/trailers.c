/* Fields after a body: those of the request as the plugin sees them, those of the answer as the channel carries them.
 */
#include <stdlib.h>
#include <string.h>

#include "http.h"
#include "worker.h"

#define TRAILERS_MOST 65536 /* bytes of an answer's trailers */

void trailers_end(struct langplugin_call *call)
{
	struct trailers *trailers = &call->trailers;

	free(trailers->got);
	free(trailers->laid);
	free(trailers->names);
	memset(trailers, 0, sizeof(*trailers));
}

/* ---- the request's */

/* From a message's field table, which has been checked. One allocation: the fields, then their texts. */
static struct langplugin_field *read_fields(const char *message, uint32_t at, uint32_t count)
{
	size_t size = count * sizeof(struct langplugin_field);
	struct wire_field field;

	for (uint32_t i = 0; i < count; i++) {
		memcpy(&field, message + at + i * sizeof(field), sizeof(field));
		size += (size_t)field.name_size + field.value_size + 2;
	}
	struct langplugin_field *fields = malloc(size);
	if (!fields)
		return NULL;
	char *to = (char *)(fields + count);
	for (uint32_t i = 0; i < count; i++) {
		memcpy(&field, message + at + i * sizeof(field), sizeof(field));
		const struct wire_span texts[] = {{field.name, field.name_size}, {field.value, field.value_size}};
		struct langplugin_text *kept[] = {&fields[i].name, &fields[i].value};
		for (unsigned k = 0; k < 2; k++) {
			memcpy(to, message + texts[k].at, texts[k].size);
			to[texts[k].size] = 0;
			*kept[k] = (struct langplugin_text){to, texts[k].size};
			to += texts[k].size + 1;
		}
	}
	return fields;
}

const struct langplugin_field *request_trailers(struct langplugin_call *call, size_t *count)
{
	struct trailers *trailers = &call->trailers;
	const struct body *body = &call->body;

	*count = 0;
	if (!body->whole || body->left > 0 || body->first)
		return NULL;
	if (!trailers->got && call->block.trailer_count > 0) {
		trailers->got_count = call->block.trailer_count;
		trailers->got = read_fields(call->message->data, call->block.trailers, call->block.trailer_count);
	} else if (!trailers->got && body->tail) {
		trailers->got_count = body->tail->trailer_count;
		trailers->got = read_fields(body->tail->message->data, body->tail->trailers, body->tail->trailer_count);
	}
	*count = trailers->got ? trailers->got_count : 0;
	return trailers->got;
}

/* ---- the answer's */

/* As they stand in the last BODY, behind its head; the texts come after the table. */
static char *lay_out(const struct langplugin_field *fields, size_t count, size_t size)
{
	const size_t before = sizeof(struct wire_body), table = count * sizeof(struct wire_field);
	char *laid = malloc(table + size);
	size_t at = table;

	if (!laid)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		struct langplugin_text name = fields[i].name, value = fields[i].value;
		const struct wire_field field = {(uint32_t)(before + at), (uint16_t)name.size, 0,
			(uint32_t)(before + at + name.size), (uint32_t)value.size};
		memcpy(laid + i * sizeof(field), &field, sizeof(field));
		memcpy(laid + at, name.data, name.size);
		memcpy(laid + at + name.size, value.data, value.size);
		at += name.size + value.size;
	}
	return laid;
}

/* For the field Trailer. */
static char *list_names(const struct langplugin_field *fields, size_t count, size_t room, size_t *size)
{
	char *names = malloc(room), *to = names;

	for (size_t i = 0; names && i < count; i++) {
		if (i > 0) {
			memcpy(to, ", ", 2);
			to += 2;
		}
		memcpy(to, fields[i].name.data, fields[i].name.size);
		to += fields[i].name.size;
	}
	*size = names ? (size_t)(to - names) : 0;
	return names;
}

int answer_trailers(struct langplugin_call *call, const struct langplugin_field *fields, size_t count)
{
	const struct answer *answer = &call->answer;
	struct trailers *trailers = &call->trailers;
	size_t size = 0, names = 0;

	if ((answer->state != ANSWER_HELD && answer->state != ANSWER_SENT) || answer->tunnel || answer->aborted ||
		count > WIRE_FIELDS)
		return LP_INVALID;
	for (size_t i = 0; i < count; i++) {
		if (!head_field_ok(&fields[i]) || !wire_may_be_trailer(fields[i].name.data, fields[i].name.size))
			return LP_INVALID;
		size += fields[i].name.size + fields[i].value.size;
		names += fields[i].name.size + 2;
	}
	if (size + count * sizeof(struct wire_field) > TRAILERS_MOST)
		return LP_INVALID;
	free(trailers->laid);
	free(trailers->names);
	trailers->laid = trailers->names = NULL;
	trailers->laid_count = 0;
	/* Only chunks carry them, and only for who asked. */
	if (count == 0 || !call->block.request.takes_trailers || answer->no_body || answer->length >= 0)
		return call_over(call) ? LP_GONE : LP_OK;
	trailers->laid = lay_out(fields, count, size);
	trailers->names = list_names(fields, count, names, &trailers->names_size);
	if (!trailers->laid || !trailers->names)
		return LP_FAILED;
	trailers->laid_size = count * sizeof(struct wire_field) + size;
	trailers->laid_count = (uint16_t)count;
	return call_over(call) ? LP_GONE : LP_OK;
}
