/*
 * Fields behind a request's chunked body. wire/chunked.c has checked their form; they never become one of the head's
 * fields, and reach an application apart from those.
 */
#include <string.h>

#include "http.h"
#include "http1.h"

#define FIRST_ROOM 256

static bool add(struct request *r, const char *data, size_t size)
{
	size_t have = r->trailer_bytes.size, need = have + size;

	/* By doubling: the arena keeps what was too small until the request ends. max_head bounds it. */
	if (need > r->trailer_bytes.room) {
		size_t room = r->trailer_bytes.room == 0 ? FIRST_ROOM : 2 * r->trailer_bytes.room;
		if (room < need)
			room = need;
		char *grown = request_alloc(r, room);
		if (grown == NULL)
			return false;
		if (have > 0)
			memcpy(grown, r->trailer_bytes.data, have);
		r->trailer_bytes.data = grown;
		r->trailer_bytes.room = room;
	}
	memcpy(r->trailer_bytes.data + have, data, size);
	r->trailer_bytes.size = need;
	return true;
}

static struct engine_text trimmed(const char *data, size_t size)
{
	while (size > 0 && (*data == ' ' || *data == '\t')) {
		data++;
		size--;
	}
	while (size > 0 && (data[size - 1] == ' ' || data[size - 1] == '\t'))
		size--;
	return (struct engine_text){data, size};
}

static size_t lines(const char *at, const char *end)
{
	size_t count = 0;

	for (; at < end; at++)
		count += *at == '\n';
	return count;
}

static bool fill(struct request *r)
{
	const struct names *names = request_engine(r)->connections->http1->names;
	const char *at = r->trailer_bytes.data, *end = at + r->trailer_bytes.size;
	size_t most = r->trailer_bytes.size > 2 ? lines(at, end) : 0;

	if (most == 0)
		return true;
	if (most - 1 > request_engine(r)->limits.max_fields || most - 1 + r->field_count > WIRE_FIELDS)
		return false;
	r->trailers = request_alloc(r, most * sizeof(*r->trailers));
	if (r->trailers == NULL)
		return false;
	while (end - at > 2) {
		const char *colon = memchr(at, ':', (size_t)(end - at)), *line = memchr(at, '\n', (size_t)(end - at));
		if (colon == NULL || line == NULL || colon > line)
			return false;
		size_t size = (size_t)(colon - at);
		int number = name_known(names, at, size);
		if (number >= 0 && wire_may_be_trailer(at, size))
			r->trailers[r->trailer_count++] = (struct field){.name = {at, size},
				.value = trimmed(colon + 1, (size_t)(line - 1 - (colon + 1))),
				.known = (uint16_t)number};
		at = line + 1;
	}
	return true;
}

bool trailers_keep(struct request *r, const char *data, const struct chunked_piece *piece)
{
	if (r == NULL || r->body_done || piece->trailers_size == 0)
		return true;
	if (r->trailer_bytes.size == 0 && piece->last && piece->trailers_size == 2)
		return true; /* the empty line alone */
	return add(r, data + piece->trailers, piece->trailers_size) && (!piece->last || fill(r));
}
