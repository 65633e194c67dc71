/*
 * Answers by a green thread of Python, through the same reply path as all others.
 *
 * A request body is kept here in a window of GREEN_WINDOW bytes until Python has read it; an answer is taken until
 * GREEN_WINDOW bytes of it wait for the client. Python is told once that it may go on, after it has been told to wait.
 */
#include <string.h>

#include "connection.h"
#include "http1.h"
#include "loop.h"

#define GREEN_WINDOW 65536

struct green {
	char *window; /* NULL before the first byte */
	size_t room, at, end;
	bool reading;  /* engine_read said ENGINE_FULL */
	bool writing;  /* engine_write did */
	bool asked;    /* body has been asked for */
	bool finished; /* Python has said that the answer is whole */
};

static void green_body(struct request *r, const char *data, size_t size, bool last)
{
	struct green *g = r->backend_data;
	(void)last;
	if (g->window == NULL)
		g->window = buffer_take(&request_engine(r)->connections->buffers, GREEN_WINDOW, &g->room);
	if (g->window == NULL) {
		connection_fail(r->connection);
		return;
	}
	if (size > g->room - g->end) {
		memmove(g->window, g->window + g->at, g->end - g->at);
		g->end -= g->at;
		g->at = 0;
	}
	/* What may come is what request_want has said, so it fits. */
	memcpy(g->window + g->end, data, size);
	g->end += size;
	if (g->reading) {
		g->reading = false;
		event_push(request_engine(r), EVENT_BODY)->token = request_token(r);
	}
}

static void green_written(struct request *r, size_t queued)
{
	struct green *g = r->backend_data;
	if (!g->writing || queued > GREEN_WINDOW / 2)
		return;
	g->writing = false;
	event_push(request_engine(r), EVENT_WRITABLE)->token = request_token(r);
}

static void green_release(struct request *r, bool complete)
{
	struct green *g = r->backend_data;
	(void)complete;
	if (!g->finished)
		event_push(request_engine(r), EVENT_CLOSED)->token = request_token(r);
	buffer_give(&request_engine(r)->connections->buffers, g->window, g->room);
}

static const struct backend green_backend = {
	.name = "green",
	.body = green_body,
	.written = green_written,
	.release = green_release,
};

void green_start(struct request *r, uint32_t handler)
{
	struct green *g = request_alloc(r, sizeof(*g));
	if (g == NULL) {
		answer_status(r, 500, "no memory for a request", 0);
		return;
	}
	memset(g, 0, sizeof(*g));
	if (!request_take(r, &green_backend, g))
		return;
	struct engine_event *event = event_push(request_engine(r), EVENT_GREEN);
	event->token = request_token(r);
	event->number = handler;
}

static struct request *green_request(struct engine *e, uint64_t token)
{
	struct request *r = request_by_token(e, token);
	return r != NULL && r->backend == &green_backend ? r : NULL;
}

/* No name that frames the message or could end its line; no value with a line end. */
static bool field_valid(const struct engine_field *field)
{
	static const char *const ours[] = {
		"content-length", "transfer-encoding", "connection", "keep-alive", "upgrade"};
	for (size_t i = 0; i < field->name.size; i++)
		if (!token_characters[(unsigned char)field->name.data[i]])
			return false;
	for (size_t i = 0; i < field->value.size; i++) {
		unsigned char c = (unsigned char)field->value.data[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (field->name.size == strlen(ours[i]) &&
			strncasecmp(field->name.data, ours[i], field->name.size) == 0)
			return false;
	return field->name.size > 0;
}

int engine_respond(
	engine *e, uint64_t token, int status, const struct engine_field *fields, size_t count, int64_t content_length)
{
	struct request *r = green_request(e, token);
	if (r == NULL)
		return ENGINE_STALE;
	if (status < 100 || status > 999 || count > WIRE_FIELDS || r->state >= REQUEST_REPLYING)
		return ENGINE_INVALID;
	struct field *own = request_alloc(r, (count + 1) * sizeof(*own));
	if (own == NULL)
		return ENGINE_SYSTEM;
	for (size_t i = 0; i < count; i++) {
		if (!field_valid(&fields[i]))
			return ENGINE_INVALID;
		own[i] = (struct field){.name = fields[i].name, .value = fields[i].value};
	}
	engine_clock(e);
	uint64_t length = content_length < 0 ? UINT64_MAX : (uint64_t)content_length;
	return reply_begin(r, status, TEXT(""), own, count, length, 0) < 0 ? ENGINE_STALE : ENGINE_OK;
}

int engine_write(engine *e, uint64_t token, const char *data, size_t size)
{
	struct request *r = green_request(e, token);
	if (r == NULL)
		return ENGINE_STALE;
	if (r->state != REQUEST_REPLYING)
		return ENGINE_INVALID;
	uint64_t queued = reply_queued(r);
	engine_clock(e);
	/* Room that the socket has but was not offered yet is found by offering. */
	if (queued > 0 && queued + size > GREEN_WINDOW) {
		if (reply_flush(r) < 0)
			return ENGINE_STALE;
		queued = reply_queued(r);
	}
	if (queued > 0 && queued + size > GREEN_WINDOW) {
		((struct green *)r->backend_data)->writing = true;
		return ENGINE_FULL;
	}
	if (reply_data(r, data, size) < 0)
		return ENGINE_STALE;
	return reply_flush(r) < 0 ? ENGINE_STALE : ENGINE_OK;
}

int engine_finish(engine *e, uint64_t token)
{
	struct request *r = green_request(e, token);
	if (r == NULL)
		return ENGINE_STALE;
	if (r->state != REQUEST_REPLYING)
		return ENGINE_INVALID;
	engine_clock(e);
	((struct green *)r->backend_data)->finished = true;
	return reply_end(r) < 0 ? ENGINE_STALE : ENGINE_OK;
}

int engine_abort(engine *e, uint64_t token)
{
	struct request *r = green_request(e, token);
	if (r == NULL)
		return ENGINE_STALE;
	engine_clock(e);
	((struct green *)r->backend_data)->finished = true;
	if (r->state < REQUEST_REPLYING)
		answer_status(r, 500, "the green thread that had the request gave it up", 0);
	else
		reply_abort(r);
	return ENGINE_OK;
}

long engine_read(engine *e, uint64_t token, char *buffer, size_t size)
{
	struct request *r = green_request(e, token);
	if (r == NULL)
		return ENGINE_STALE;
	struct green *g = r->backend_data;
	if (size == 0)
		return ENGINE_INVALID;
	if (!r->body_done && !g->asked) {
		g->asked = true;
		engine_clock(e);
		request_want(r, GREEN_WINDOW);
	}
	size_t here = g->end - g->at;
	if (here == 0) {
		if (r->body_done)
			return 0;
		g->reading = true;
		return ENGINE_FULL;
	}
	if (size > here)
		size = here;
	memcpy(buffer, g->window + g->at, size);
	g->at += size;
	if (g->at == g->end)
		g->at = g->end = 0;
	if (!r->body_done) {
		engine_clock(e);
		request_want(r, size);
	}
	return (long)size;
}
