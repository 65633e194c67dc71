/*
 * What must hold of every request that is begun: its texts lie within the connection's input or its arena (the
 * sanitizer sees the rest), its path begins with "/" and holds no dot segment and no NUL, no field that was to be
 * hidden or that could break a line is in it, and its limits were kept. Linked to fuzz/http.c.
 */
#include <stdlib.h>
#include <string.h>

#include "_http_parts.h"

void must(bool condition)
{
	if (!condition)
		abort();
}

static void text_ok(const struct request *r, struct engine_text text)
{
	const struct connection *c = r->connection;
	must(text.data != NULL);
	if (text.size == 0)
		return;
	if (text.data >= c->in.data && text.data < c->in.data + c->in.room)
		must((size_t)(c->in.data + c->in.end - text.data) >= text.size);
	volatile char first = text.data[0], last = text.data[text.size - 1];
	(void)first;
	(void)last;
}

static void path_ok(struct engine_text path)
{
	must(path.size > 0 && path.data[0] == '/');
	must(memchr(path.data, '\0', path.size) == NULL);
	for (size_t i = 0; i < path.size; i++) {
		if (path.data[i] != '/')
			continue;
		struct engine_text segment = {path.data + i + 1, 0};
		while (i + 1 + segment.size < path.size && segment.data[segment.size] != '/')
			segment.size++;
		must(!text_is(segment, ".", 1) && !text_is(segment, "..", 2));
		must(segment.size > 0 || i + 1 == path.size);
	}
}

void request_ok(const struct request *r)
{
	const struct engine *e = request_engine(r);
	must(r->connection->request == r && r->connection->phase == PHASE_REQUEST);
	text_ok(r, r->method);
	text_ok(r, r->target);
	text_ok(r, r->path);
	text_ok(r, r->query);
	text_ok(r, r->host);
	text_ok(r, r->server_name);
	path_ok(r->path);
	must(r->method.size > 0 && r->target.size <= e->limits.max_line);
	must(r->field_count <= e->limits.max_fields);
	must(r->version == 10 || (r->version == 11 && r->host.size > 0));
	must(r->chunked == (r->content_length == UINT64_MAX));
	for (uint32_t i = 0; i < r->field_count; i++) {
		const struct field *f = &r->fields[i];
		text_ok(r, f->name);
		text_ok(r, f->value);
		must(f->name.size > 0 && memchr(f->name.data, '_', f->name.size) == NULL &&
			f->known < WIRE_KNOWN_COUNT);
		for (size_t k = 0; k < f->value.size; k++)
			must(f->value.data[k] != '\r' && f->value.data[k] != '\n' && f->value.data[k] != '\0');
	}
}
