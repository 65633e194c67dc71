/*
 * A request's life, and the table that names it.
 *
 * Entries are made in slabs and used again; each use has another `life`, so a token that somebody kept (Python, a
 * frame from a worker) is recognised as stale. Memory that lives as long as the request comes from its arena: first
 * from a piece within the entry, then from pooled buffers.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>

#include "connection.h"
#include "http1.h"

#define SLAB	    16
#define ARENA_FIRST 1024
#define ARENA_ALIGN 16

struct piece {
	struct piece *next;
	size_t size; /* as buffer_take said */
};

struct entry {
	struct request request;
	char *at, *end; /* free memory of the arena's newest piece */
	struct piece *pieces;
	struct entry *next_free;
	_Alignas(ARENA_ALIGN) char first[ARENA_FIRST];
};

struct requests {
	struct entry **slabs;
	uint32_t slab_count;
	struct entry *free;
	uint64_t serial; /* of the last request's id */
};

int requests_make(struct engine *e)
{
	e->requests = calloc(1, sizeof(*e->requests));
	if (e->requests == NULL)
		return -1;
	e->requests->serial = (uint64_t)e->options.incarnation << 40;
	return 0;
}

void requests_free(struct engine *e)
{
	struct requests *rs = e->requests;
	if (rs == NULL)
		return;
	for (uint32_t i = 0; i < rs->slab_count; i++)
		free(rs->slabs[i]);
	free(rs->slabs);
	free(rs);
	e->requests = NULL;
}

static bool requests_grow(struct requests *rs)
{
	struct entry **slabs = realloc(rs->slabs, (rs->slab_count + 1) * sizeof(struct entry *));
	if (slabs == NULL)
		return false;
	rs->slabs = slabs;
	struct entry *slab = aligned_alloc(_Alignof(struct entry), SLAB * sizeof(*slab));
	if (slab == NULL)
		return false;
	memset(slab, 0, SLAB * sizeof(*slab));
	slabs[rs->slab_count] = slab;
	for (uint32_t i = SLAB; i-- > 0;) {
		slab[i].request.index = rs->slab_count * SLAB + i;
		slab[i].next_free = rs->free;
		rs->free = &slab[i];
	}
	rs->slab_count++;
	return true;
}

struct request *request_new(struct connection *c)
{
	struct engine *e = c->engine;
	struct requests *rs = e->requests;
	if (rs->free == NULL && !requests_grow(rs)) {
		log_entry(e, LOG_LEVEL_ERROR, NULL, "no memory for a request; its connection is closed");
		return NULL;
	}
	struct entry *entry = rs->free;
	struct request *r = &entry->request;
	rs->free = entry->next_free;
	uint32_t index = r->index, life = r->life + 1;
	*r = (struct request){
		.index = index,
		.life = life != 0 ? life : 1, /* no token is 0 */
		.state = REQUEST_DECIDING,
		.connection = c,
		.id = ++rs->serial,
		.arrived_ns = e->now_ns,
		.method = {"", 0},
		.target = {"", 0},
		.path = {"", 0},
		.query = {"", 0},
		.host = {"", 0},
		.server_name = {"", 0},
		.line = {"", 0},
		.reply_length = UINT64_MAX,
		.arena = entry,
	};
	entry->at = entry->first;
	entry->end = entry->first + ARENA_FIRST;
	entry->pieces = NULL;
	c->request = r;
	c->keep = c->probed = false;
	return r;
}

void *request_alloc(struct request *r, size_t size)
{
	struct entry *entry = r->arena;
	if (size > SIZE_MAX / 2)
		return NULL;
	size = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
	if ((size_t)(entry->end - entry->at) < size) {
		const size_t head = (sizeof(struct piece) + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
		size_t room;
		struct piece *piece = (void *)buffer_take(&request_engine(r)->connections->buffers, head + size, &room);
		if (piece == NULL)
			return NULL;
		piece->next = entry->pieces;
		piece->size = room;
		entry->pieces = piece;
		entry->at = (char *)piece + head;
		entry->end = (char *)piece + room;
	}
	void *memory = entry->at;
	entry->at += size;
	return memory;
}

struct request *request_by_index(struct engine *e, uint32_t index)
{
	const struct requests *rs = e->requests;
	if (index / SLAB >= rs->slab_count)
		return NULL;
	struct request *r = &rs->slabs[index / SLAB][index % SLAB].request;
	return r->state != REQUEST_FREE ? r : NULL;
}

struct request *request_by_token(struct engine *e, uint64_t token)
{
	struct request *r = request_by_index(e, (uint32_t)token);
	return r != NULL && r->life == token >> 32 ? r : NULL;
}

uint64_t request_token(const struct request *r)
{
	return (uint64_t)r->life << 32 | r->index;
}

struct engine *request_engine(const struct request *r)
{
	return r->connection->engine;
}

const struct field *request_field(const struct request *r, unsigned known)
{
	for (uint32_t i = 0; i < r->field_count; i++)
		if (r->fields[i].known == known)
			return &r->fields[i];
	return NULL;
}

/* ---- from the head to the end */

static bool body_too_large(const struct request *r)
{
	return r->site != NULL && r->has_body && !r->chunked && r->content_length > r->site->max_body;
}

bool request_take(struct request *r, const struct backend *backend, void *data)
{
	if (body_too_large(r)) {
		answer_status(r, 413, "the request's Content-Length is larger than max_body", 0);
		return false;
	}
	r->backend = backend;
	r->backend_data = data;
	if (r->state == REQUEST_DECIDING)
		r->state = REQUEST_RUNNING;
	return true;
}

void request_begin(struct request *r)
{
	if (text_is(r->path, "*", 1)) {
		static const struct field allow = {
			.name = {"Allow", 5}, .value = {"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS", 44}};
		if (reply_begin(r, 204, TEXT(""), &allow, 1, UINT64_MAX, 0) == 0)
			reply_end(r);
		return;
	}
	/* It would show an attacker's script the fields that the browser keeps from it (RFC 9110, section 9.3.8). */
	if (text_is(r->method, "TRACE", 5)) {
		answer_status(r, 405, "TRACE is not answered", 0);
		return;
	}
	route_start(r);
}

void request_want(struct request *r, uint64_t room)
{
	struct connection *c = r->connection;
	if (r->body_done || c->broken)
		return;
	r->body_room = room < UINT64_MAX - r->body_room ? r->body_room + room : UINT64_MAX;
	if (room == 0)
		return;
	if (!r->continued && c->in.at < c->in.end)
		r->continued = true; /* it did not wait for our leave */
	if (!r->continued && r->state < REQUEST_REPLYING) {
		if (reply_inform(r, 100, NULL, 0) < 0)
			return;
		switch (output_flush(c)) {
		case OUTPUT_FAILED:
			connection_fail(c);
			return;
		case OUTPUT_MORE:
			connection_expect_output(c, true);
			break;
		case OUTPUT_DONE:
			break;
		}
	}
	if (!c->driving)
		connection_later(c);
}

void request_withdraw(struct request *r)
{
	const struct backend *backend = r->backend;
	r->backend = NULL;
	r->body_room = 0;
	if (backend != NULL && backend->release != NULL)
		backend->release(r, false);
	r->backend_data = NULL;
}

static void count_answer(struct engine_stats *stats, int status)
{
	switch (status / 100) {
	case 2:
		stats->answers_2xx++;
		break;
	case 3:
		stats->answers_3xx++;
		break;
	case 4:
		stats->answers_4xx++;
		break;
	case 5:
		stats->answers_5xx++;
		break;
	}
}

void request_end(struct request *r, bool complete)
{
	struct engine *e = request_engine(r);
	struct entry *entry = r->arena;
	count_answer(&e->stats, r->status);
	access_record(r);
	const struct backend *backend = r->backend;
	r->backend = NULL;
	if (backend != NULL && backend->release != NULL)
		backend->release(r, complete);
	if (r->decision != NULL)
		decision_release(r->decision);
	r->connection->request = NULL;
	r->state = REQUEST_FREE;
	for (struct piece *piece = entry->pieces, *next; piece != NULL; piece = next) {
		next = piece->next;
		buffer_give(&e->connections->buffers, (char *)piece, piece->size);
	}
	entry->pieces = NULL;
	entry->next_free = e->requests->free;
	e->requests->free = entry;
}

/* ---- what Python may ask */

struct engine_text engine_request(engine *e, uint64_t token, uint32_t which)
{
	static const char hex[] = "0123456789abcdef";
	const struct engine_text none = {"", 0};
	struct request *r = request_by_token(e, token);
	if (r == NULL)
		return none;
	switch (which) {
	case REQUEST_METHOD:
		return r->method;
	case REQUEST_TARGET:
		return r->target;
	case REQUEST_PATH:
		return r->path;
	case REQUEST_QUERY:
		return r->query;
	case REQUEST_HOST:
		return r->server_name;
	case REQUEST_REMOTE: {
		const char *remote = connection_remote(r->connection);
		return (struct engine_text){remote, strlen(remote)};
	}
	case REQUEST_ID: {
		char *id = request_alloc(r, 16);
		if (id == NULL)
			return none;
		for (unsigned i = 0; i < 16; i++)
			id[i] = hex[r->id >> (60 - 4 * i) & 15];
		return (struct engine_text){id, 16};
	}
	default:
		return none;
	}
}

struct engine_text engine_request_field(engine *e, uint64_t token, const char *name)
{
	const struct request *r = request_by_token(e, token);
	size_t size = strlen(name);
	for (uint32_t i = 0; r != NULL && i < r->field_count; i++)
		if (r->fields[i].name.size == size && strncasecmp(r->fields[i].name.data, name, size) == 0)
			return r->fields[i].value;
	return (struct engine_text){"", 0};
}
