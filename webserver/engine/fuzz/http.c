/*
 * Arbitrary bytes, in arbitrary pieces, into a connection without a socket; arbitrary backends; a client that takes
 * arbitrary amounts.
 *
 * sources: webserver/engine/sealed.c
 * sources: webserver/engine/loop.c webserver/engine/pace.c webserver/engine/timers.c webserver/engine/listener.c
 * sources: webserver/engine/connection.c webserver/engine/connections.c webserver/engine/deadlines.c
 * sources: webserver/engine/transport.c webserver/engine/buffers.c webserver/engine/reading.c
 * sources: webserver/engine/http1.c webserver/engine/head.c webserver/wire/chunked.c
 * sources: webserver/engine/trailers.c
 * sources: webserver/engine/target.c webserver/engine/fields.c webserver/engine/request.c
 * sources: webserver/engine/framing.c webserver/engine/loans.c
 * sources: webserver/engine/reply.c webserver/engine/output.c webserver/engine/errors.c
 * sources: webserver/engine/green.c webserver/engine/fuzz/_http_parts.c webserver/engine/fuzz/_http_checks.c
 * sources: /usr/share/llhttp/api.c /usr/share/llhttp/http.c /usr/share/llhttp/llhttp.c
 *
 * Invariants: one request at a time on a connection; what _http_checks.c asks of it; a body as long as was declared;
 * release once and last; nothing left at the end. And the requests seen do not depend on how the bytes were cut: the
 * same bytes in one piece and in many give the same requests with the same bodies.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "_http_parts.h"
#include "loop.h"

static struct engine *e;

/* What both runs must agree on: requests begun, and each body that was read to its end. */
struct seen {
	uint64_t requests, hash;
};

static struct {
	uint64_t random;
	const uint8_t *data;
	size_t size, at, piece_end;
	bool whole, plain, closed;
	struct request *pending;
	uint64_t pending_token;
	struct seen seen;
} run;

static unsigned pick(unsigned below)
{
	run.random ^= run.random << 13;
	run.random ^= run.random >> 7;
	run.random ^= run.random << 17;
	return (unsigned)((run.random >> 11) % below);
}

static void hash(const void *data, size_t size)
{
	const unsigned char *bytes = data;
	for (size_t i = 0; i < size; i++)
		run.seen.hash = (run.seen.hash ^ bytes[i]) * 0x100000001b3;
	run.seen.hash = (run.seen.hash ^ size) * 0x100000001b3;
}

/* ---- the other end */

static ssize_t fake_receive(struct connection *c, void *data, size_t size)
{
	must(size > 0 && !run.closed);
	(void)c;
	size_t here = run.piece_end - run.at;
	if (here == 0) {
		if (run.at == run.size && !run.whole)
			return 0;
		errno = EAGAIN;
		return -1;
	}
	if (size > here)
		size = here;
	memcpy(data, run.data + run.at, size);
	run.at += size;
	return (ssize_t)size;
}

static ssize_t take(size_t size)
{
	must(!run.closed);
	if (run.plain || pick(4) != 0)
		return (ssize_t)size;
	unsigned what = pick(16);
	errno = what == 0 ? ECONNRESET : EAGAIN;
	return what < 6 || size == 0 ? -1 : (ssize_t)(1 + pick((unsigned)size));
}

static ssize_t fake_send(struct connection *c, const struct msghdr *message, int flags)
{
	size_t size = 0;
	(void)c;
	(void)flags;
	for (size_t i = 0; i < message->msg_iovlen; i++) {
		must(message->msg_iov[i].iov_len > 0);
		volatile char last = ((const char *)message->msg_iov[i].iov_base)[message->msg_iov[i].iov_len - 1];
		(void)last;
		size += message->msg_iov[i].iov_len;
	}
	must(size > 0);
	return take(size);
}

static ssize_t fake_send_file(struct connection *c, int fd, off_t *offset, size_t size)
{
	(void)c;
	(void)fd;
	(void)offset;
	return take(size);
}

static void fake_shut(struct connection *c)
{
	(void)c;
}

static void fake_close(struct connection *c)
{
	(void)c;
	must(!run.closed);
	run.closed = true;
}

static const struct transport fake = {fake_receive, fake_send, fake_send_file, fake_shut, fake_close};

static void request_seen(const struct request *r)
{
	request_ok(r);
	hash(r->method.data, r->method.size);
	hash(r->path.data, r->path.size);
	for (uint32_t i = 0; i < r->field_count; i++) {
		hash(r->fields[i].name.data, r->fields[i].name.size);
		hash(r->fields[i].value.data, r->fields[i].value.size);
	}
	run.seen.requests++;
}

/* ---- backends */

struct watch {
	uint64_t received, room, hash;
	bool last, released;
};

static void answer(struct request *r)
{
	static const char text[] = "0123456789abcdef";
	static const struct field field = {.name = {"X-A", 3}, .value = {"b", 1}};
	uint64_t length = run.plain ? 16 : pick(3) == 0 ? UINT64_MAX : pick(20);
	unsigned pieces = run.plain ? 1 : pick(3);
	if (!run.plain && pick(8) == 0) {
		answer_status(r, (int)(400 + pick(120)), "why", pick(3));
		return;
	}
	if (!run.plain && pick(16) == 0) {
		answer_redirect(r, 301, r->path);
		return;
	}
	if (reply_begin(r, run.plain ? 200 : (int)(200 + pick(300)), TEXT(""), &field, 1, length, 0) < 0)
		return;
	for (unsigned i = 0; i < pieces; i++) {
		if (reply_data(r, text, 16) < 0)
			return;
		if (!run.plain && pick(4) == 0 && reply_flush(r) < 0)
			return;
	}
	if (!run.plain && pick(8) == 0)
		reply_abort(r);
	else
		reply_end(r);
}

static void fuzz_body(struct request *r, const char *data, size_t size, bool last)
{
	struct watch *w = r->backend_data;
	must(!w->last && !w->released && size <= w->room);
	must(size > 0 || last);
	w->received += size;
	w->room -= size;
	w->last = last;
	if (!r->chunked)
		must(w->received <= r->content_length && last == (w->received == r->content_length));
	if (run.plain) {
		for (size_t i = 0; i < size; i++)
			w->hash = (w->hash ^ (unsigned char)data[i]) * 0x100000001b3;
		if (last) {
			hash(&w->hash, sizeof(w->hash));
			answer(r);
		} else {
			w->room += size;
			request_want(r, size);
		}
		return;
	}
	switch (last ? 0 : pick(8)) {
	case 0:
		if (r->state < REQUEST_REPLYING)
			answer(r);
		break;
	case 1:
		break; /* later */
	default:
		if (w->room < 100) {
			unsigned more = 1 + pick(2000);
			w->room += more;
			request_want(r, more);
		}
	}
}

static void fuzz_written(struct request *r, size_t queued)
{
	must(r->state == REQUEST_REPLYING || queued > 0 || !r->reply_complete);
}

static void fuzz_release(struct request *r, bool complete)
{
	struct watch *w = r->backend_data;
	(void)complete;
	must(!w->released);
	w->released = true;
	if (run.pending == r)
		run.pending = NULL;
}

static const struct backend backend = {
	.name = "fuzz", .body = fuzz_body, .written = fuzz_written, .release = fuzz_release};
static struct site site = {.id = 1, .name = "site", .max_body = 3000};

void route_start(struct request *r)
{
	request_seen(r);
	r->site = &site;
	if (!run.plain && pick(4) == 0) {
		green_start(r, 1);
		run.pending = r;
		run.pending_token = request_token(r);
		return;
	}
	struct watch *w = request_alloc(r, sizeof(*w));
	must(w != NULL);
	*w = (struct watch){0};
	if (!request_take(r, &backend, w))
		return;
	if (r->has_body && (run.plain || pick(3) != 0)) {
		w->room = run.plain ? 1000 : 1 + pick(5000);
		request_want(r, w->room);
		return;
	}
	if (run.plain || pick(3) != 0) {
		answer(r);
		return;
	}
	run.pending = r;
	run.pending_token = request_token(r);
}

/* What a green thread, a worker or time may do between two reads. */
static void something_happens(struct connection *c)
{
	char buffer[512];
	struct request *r = request_by_token(e, run.pending_token);
	struct engine_event events[16];
	if (r == NULL || run.plain)
		return;
	switch (pick(8)) {
	case 0:
		engine_read(e, run.pending_token, buffer, 1 + pick(sizeof(buffer)));
		break;
	case 1:
		engine_respond(e, run.pending_token, 200, NULL, 0, pick(2) ? -1 : 100);
		break;
	case 2:
		engine_write(e, run.pending_token, buffer, pick(100));
		break;
	case 3:
		engine_finish(e, run.pending_token);
		break;
	case 4:
		engine_abort(e, run.pending_token);
		break;
	case 5:
		if (r->backend == &backend && r->state < REQUEST_REPLYING)
			answer(r);
		break;
	case 6:
		e->now_ns += 1000000000ULL * pick(40);
		timers_run(e);
		break;
	case 7:
		engine_run(e, events, 16);
		break;
	}
	(void)c;
}

static struct seen feed(const uint8_t *data, size_t size, bool whole, bool plain)
{
	run.data = data;
	run.size = size;
	run.at = run.piece_end = 0;
	run.whole = whole;
	run.plain = plain;
	run.closed = false;
	run.pending = NULL;
	run.seen = (struct seen){0, 0xcbf29ce484222325};
	engine_clock(e);
	struct connection *c = connection_make(e, &fake);
	must(c != NULL);
	while (!run.closed) {
		if (run.at == run.piece_end && run.at < size)
			run.piece_end = whole ? size
					      : run.at + 1 + pick((unsigned)(size - run.at < 40 ? size - run.at : 40));
		else if (run.at == size && run.whole)
			run.whole = false; /* now the end may be seen */
		size_t before = run.at;
		connection_ready(e, &c->poll, EPOLLIN | (c->poll.events & EPOLLOUT));
		something_happens(c);
		while (connections_turn(e))
			continue;
		if (!run.closed && run.at == before && (run.at == size || !(c->poll.events & EPOLLIN)) && pick(4) == 0)
			connection_ready(e, &c->poll, EPOLLHUP); /* nobody moves any more */
		if (!run.closed && run.at == before && c->phase == PHASE_LINGER && run.at == size)
			connection_close(c);
	}
	must(c->request == NULL && c->out.first == NULL && c->out.queued == 0 && c->in.data == NULL);
	connections_sweep(e);
	must(e->stats.connections == 0 && e->stats.idle == 0 && list_empty(&e->connections->due));
	struct engine_event events[64];
	while (engine_run(e, events, 64) == 64)
		continue;
	return run.seen;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const uint64_t second = 1000000000;
	const struct engine_options options = {
		.incarnation = 1,
		.access_fd = -1,
		.server = "fuzz",
		.limits = {.head_timeout_ns = 10 * second,
			.body_timeout_ns = 11 * second,
			.idle_timeout_ns = 12 * second,
			.send_timeout_ns = 13 * second,
			.connections = 10,
			.max_head = 6000,
			.max_line = 1000,
			.max_fields = 20},
	};
	char message[100];
	(void)argc;
	(void)argv;
	e = engine_new(&options, message, sizeof(message));
	return e != NULL ? 0 : 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* The bytes themselves decide how they are cut, so that a plain request is a case as it is. */
	run.seen.hash = 0xcbf29ce484222325;
	hash(data, size);
	run.random = run.seen.hash | 1;
	const uint64_t seed = run.random;
	struct seen in_one = feed(data, size, true, true);
	struct seen in_many = feed(data, size, false, true);
	must(in_one.requests == in_many.requests && in_one.hash == in_many.hash);
	run.random = seed;
	feed(data, size, false, false);
	return 0;
}
