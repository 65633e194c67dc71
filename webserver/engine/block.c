/*
 * A request as one flat block: struct wire_request, the fields, the texts, then what of the body rides along. Built
 * straight into the ZeroMQ message, from the pinned head, each time that the request is placed: a block that was sent
 * belongs to libzmq.
 *
 * A NUL follows each text. It is not counted and nobody may rely on it without looking; it spares the worker a copy.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "channel.h"

/* Trailers that ride in the block: of a body that does, and is all here. */
static uint32_t riding(const struct exchange *x)
{
	return x->upload == UPLOAD_WHOLE ? x->request->trailer_count : 0;
}

static size_t first_text(const struct exchange *x)
{
	return sizeof(struct wire_request) + (size_t)(x->request->field_count + riding(x)) * sizeof(struct wire_field);
}

struct texts {
	struct engine_text of[WIRE_TEXTS];
	char id[16];
};

static struct engine_text text_of(const char *string)
{
	return (struct engine_text){string ? string : "", string ? strlen(string) : 0};
}

static void collect(const struct exchange *x, struct texts *t)
{
	const struct request *r = x->request;
	const struct connection *c = r->connection;
	static const char digits[] = "0123456789abcdef";

	for (unsigned i = 0; i < 16; i++)
		t->id[i] = digits[(r->id >> (60 - 4 * i)) & 15];
	t->of[WIRE_METHOD] = r->method;
	t->of[WIRE_TARGET] = r->target;
	t->of[WIRE_PATH] = r->path;
	t->of[WIRE_QUERY] = r->query;
	t->of[WIRE_SCRIPT_NAME] = x->script_name;
	t->of[WIRE_PATH_INFO] = x->path_info;
	t->of[WIRE_SCRIPT_FILENAME] = x->script_filename;
	t->of[WIRE_DOCUMENT_ROOT] = text_of(r->site ? r->site->document_root : NULL);
	t->of[WIRE_HOST] = r->host;
	t->of[WIRE_SERVER_NAME] = r->server_name;
	t->of[WIRE_SCHEME] = TEXT("http");
	t->of[WIRE_REMOTE_ADDR] = text_of(connection_remote(c));
	t->of[WIRE_SERVER_ADDR] = text_of(connection_server(c));
	t->of[WIRE_SITE] = text_of(r->site ? r->site->name : NULL);
	t->of[WIRE_REQUEST_ID] = (struct engine_text){t->id, sizeof(t->id)};
	t->of[WIRE_FIRST_BODY] = (struct engine_text){"", 0};
}

size_t block_head_size(const struct exchange *x)
{
	const struct request *r = x->request;
	struct texts t;
	size_t size = first_text(x);

	collect(x, &t);
	for (unsigned i = 0; i < WIRE_FIRST_BODY; i++)
		size += t.of[i].size + 1;
	for (uint32_t i = 0; i < r->field_count; i++)
		size += r->fields[i].name.size + r->fields[i].value.size + 2;
	for (uint32_t i = 0; i < riding(x); i++)
		size += r->trailers[i].name.size + r->trailers[i].value.size + 2;
	return size;
}

size_t block_body_size(const struct exchange *x, size_t head_size)
{
	size_t room = head_size < WIRE_BLOCK ? WIRE_BLOCK - head_size : 0;

	switch (x->upload) {
	case UPLOAD_WHOLE:
		/* Gathered by the size of this block's head. */
		return x->body.size;
	case UPLOAD_FILE:
		if (room > WIRE_BODY_WINDOW)
			room = WIRE_BODY_WINDOW;
		return x->body.received < room ? (size_t)x->body.received : room;
	default:
		return 0;
	}
}

/* Puts size bytes at *at and moves it on. */
static uint32_t put(char *block, size_t *at, const char *data, size_t size)
{
	uint32_t where = (uint32_t)*at;

	if (size > 0)
		memcpy(block + *at, data, size);
	block[*at + size] = 0;
	*at += size + 1;
	return where;
}

static int put_body(const struct exchange *x, char *to, size_t size)
{
	if (x->upload != UPLOAD_FILE) {
		if (size > 0)
			memcpy(to, body_bytes(x), size);
		return 0;
	}
	for (size_t done = 0; done < size;) {
		ssize_t n = pread(x->body.spool.fd, to + done, size - done, (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

bool block_is_whole(const struct exchange *x, size_t body_size)
{
	return x->upload == UPLOAD_NONE || x->upload == UPLOAD_WHOLE ||
	       (x->upload == UPLOAD_FILE && body_size == x->body.received && x->request->trailer_count == 0);
}

static void put_field(char *to, size_t *at, struct wire_field *field, const struct field *f)
{
	field->name_size = (uint16_t)f->name.size;
	field->known = f->known;
	field->value_size = (uint32_t)f->value.size;
	field->name = put(to, at, f->name.data, f->name.size);
	field->value = put(to, at, f->value.data, f->value.size);
}

size_t block_trailers_size(const struct request *r)
{
	size_t size = r->trailer_count * sizeof(struct wire_field);

	for (uint32_t i = 0; i < r->trailer_count; i++)
		size += r->trailers[i].name.size + r->trailers[i].value.size + 2;
	return size;
}

void block_put_trailers(const struct request *r, char *message, size_t at)
{
	size_t text = at + r->trailer_count * sizeof(struct wire_field);

	for (uint32_t i = 0; i < r->trailer_count; i++) {
		struct wire_field field;
		put_field(message, &text, &field, &r->trailers[i]);
		memcpy(message + at + i * sizeof(field), &field, sizeof(field));
	}
}

static uint16_t flags_of(const struct exchange *x, size_t body_size)
{
	const struct request *r = x->request;
	bool whole = block_is_whole(x, body_size);

	return (uint16_t)((whole ? WIRE_LAST : 0) | (r->is_head ? WIRE_HEAD : 0) | (r->upgrade ? WIRE_UPGRADE : 0) |
			  (r->te_trailers ? WIRE_TRAILERS : 0) |
			  (x->upload == UPLOAD_STREAM && r->expect && !r->continued ? WIRE_EXPECT : 0));
}

int block_write(const struct exchange *x, char *to, size_t head_size, size_t body_size, uint16_t slot, uint64_t serial)
{
	const struct request *r = x->request;
	struct wire_request *block = (struct wire_request *)to; /* libzmq's own allocation: aligned for anything */
	struct wire_field *field = (struct wire_field *)(to + sizeof(*block));
	struct texts t;
	size_t at = first_text(x);

	collect(x, &t);
	memset(block, 0, sizeof(*block));
	block->head.kind = WIRE_REQUEST;
	block->head.size = (uint32_t)(head_size + body_size);
	block->head.serial = serial;
	block->head.request = x->index;
	block->head.slot = slot;
	block->head.flags = flags_of(x, body_size);
	/* A body that was gathered has a length, also if the client did not say it. */
	block->content_length = x->upload == UPLOAD_NONE     ? 0
				: x->upload == UPLOAD_STREAM ? r->content_length
							     : x->body.received;
	block->response_window = WIRE_RESPONSE_WINDOW;
	block->arrived_ns = r->arrived_ns;
	block->deadline_ns = x->deadline_ns;
	block->version = r->version;
	block->field_count = (uint16_t)r->field_count;
	block->trailer_count = (uint16_t)riding(x);
	block->fields = sizeof(*block);
	block->remote_port = connection_remote_port(r->connection);
	block->server_port = connection_server_port(r->connection);
	for (unsigned i = 0; i < WIRE_FIRST_BODY; i++) {
		block->text[i].size = (uint32_t)t.of[i].size;
		block->text[i].at = put(to, &at, t.of[i].data, t.of[i].size);
	}
	for (uint32_t i = 0; i < r->field_count; i++)
		put_field(to, &at, &field[i], &r->fields[i]);
	for (uint32_t i = 0; i < riding(x); i++)
		put_field(to, &at, &field[r->field_count + i], &r->trailers[i]);
	block->text[WIRE_FIRST_BODY].at = (uint32_t)head_size;
	block->text[WIRE_FIRST_BODY].size = (uint32_t)body_size;
	return body_size > 0 ? put_body(x, to + head_size, body_size) : 0;
}
