/*
 * One request. Both directions are tried in turn, without waiting; when neither moves, the host sleeps until either
 * side has something: so an answer may come while the body is still on its way, and a body may be asked for by an
 * answer's interim head.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "exec.h"

#define FRESH_NS 500000000u /* see reusable() */
#define FIRST_MS 2	    /* between attempts to enter a full queue: no event says that there is room */
#define LAST_MS	 100
#define EARLY_NS 20000000u /* by which a front end's clock may be ahead of a deadline */

static void doing(struct exchange *x, const char *what)
{
	atomic_store_explicit(&x->lane->doing, what, memory_order_relaxed);
}

/* ---- what goes wrong */

static void answer_502(struct exchange *x)
{
	static const char text[] = "Bad Gateway\n";
	static const struct langplugin_field type = {{"Content-Type", 12}, {"text/plain", 10}};

	if (x->host->respond(x->call, 502, (struct langplugin_text){"", 0}, &type, 1, sizeof(text) - 1) == LP_OK)
		x->host->write(x->call, text, sizeof(text) - 1, 0);
}

enum step exchange_fail(struct exchange *x, const char *format, ...)
{
	char text[600] = "exec: ";
	va_list arguments;
	size_t at = strlen(text);

	va_start(arguments, format);
	vsnprintf(text + at, sizeof(text) - at, format, arguments);
	va_end(arguments);
	x->host->log(x->call, LP_ERROR, text, strlen(text));
	if (x->answer == ANSWER_NONE || x->host->unrespond(x->call) == LP_OK)
		answer_502(x);
	else
		x->host->abort(x->call);
	return STEP_BROKEN;
}

/* RFC 9110, section 9.2.2. */
static bool idempotent(const struct langplugin_request *request)
{
	static const char *const methods[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"};

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (strcmp(request->method.data, methods[i]) == 0)
			return true;
	return false;
}

enum step exchange_lost(struct exchange *x, int error)
{
	const char *when = x->answer == ANSWER_NONE ? "before it had answered" : "in the middle of its answer";

	/* A kept connection may be closed for its age just as it is used (RFC 9112, section 9.3.1). */
	if (x->reused && !x->answered && !x->taken && (idempotent(x->request) || !x->sent))
		return STEP_AGAIN;
	const char *cause = program_cause(&x->plugin->program, x->call);
	if (*cause)
		return exchange_fail(x, "%s %s", cause, when);
	return exchange_fail(
		x, "the program closed the connection %s%s%s", when, error ? ": " : "", error ? strerror(error) : "");
}

/* ---- the connection */

/*
 * A kept connection that nothing is known against. A request that must not be sent twice gets one that was used a
 * moment ago, or a new one: programs close connections that were idle for some seconds, and who is hit by that could
 * only be told that it is not known what has happened.
 */
static bool reusable(struct exchange *x)
{
	char byte;

	if (x->lane->fd < 0 || (!idempotent(x->request) && clock_now() - x->lane->idle_since > FRESH_NS))
		return false;
	return recv(x->lane->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/* Over TCP, the connection may be made only now. */
static enum step wait_for_connection(struct exchange *x)
{
	int error = 0, seen;
	socklen_t size = sizeof(error);

	while ((seen = x->host->wait(x->call, x->lane->fd, POLLOUT, -1)) == 0)
		;
	if (seen < 0)
		return STEP_GONE;
	getsockopt(x->lane->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error == 0)
		return STEP_MOVED;
	const char *cause = program_cause(&x->plugin->program, x->call);
	return *cause ? exchange_fail(x, "%s before it took the request", cause)
		      : exchange_fail(x, "cannot connect to the program: %s", strerror(error));
}

static enum step connect_anew(struct exchange *x)
{
	struct program *program = &x->plugin->program;
	int pause_ms = FIRST_MS;
	bool pending = false;

	lane_disconnect(x->lane);
	while ((x->lane->fd = address_connect(&program->address, &pending)) < 0 && errno == EAGAIN) {
		doing(x, "waits for the program to accept a connection");
		if (x->host->wait(x->call, program->dead, POLLIN, pause_ms) < 0)
			return STEP_GONE;
		pause_ms = pause_ms * 2 < LAST_MS ? pause_ms * 2 : LAST_MS;
	}
	if (x->lane->fd >= 0)
		return pending ? wait_for_connection(x) : STEP_MOVED;
	int error = errno;
	const char *cause = program_cause(program, x->call);
	return *cause ? exchange_fail(x, "%s before it took the request", cause)
		      : exchange_fail(x, "cannot connect to the program: %s", strerror(error));
}

/* ---- both directions */

static bool unsent(const struct lane *lane)
{
	return lane->head.begin < lane->head.end || lane->piece.begin < lane->piece.end;
}

/* How long to sleep at most: until the body is sent unasked, if it is. */
static int patience(struct exchange *x)
{
	if (x->body != BODY_WAITS || !x->continue_at)
		return -1;
	uint64_t now = clock_now();
	if (now < x->continue_at)
		return (int)((x->continue_at - now) / 1000000u) + 1;
	x->body = BODY_FLOWS;
	return 0;
}

static void tell_what(struct exchange *x)
{
	doing(x, x->tunnel		    ? "is a tunnel to the program"
		 : x->left.size		    ? "waits for the client to take the answer"
		 : unsent(x->lane)	    ? "waits for the program to take the request"
		 : x->body == BODY_FLOWS    ? "waits for the client's body, and for the program"
		 : x->body == BODY_WAITS    ? "waits for the program to ask for the body"
		 : x->answer == ANSWER_NONE ? "waits for the program to answer"
					    : "waits for the rest of the program's answer");
}

static enum step rest(struct exchange *x)
{
	short events = (short)((x->left.size || x->in_over ? 0 : POLLIN) | (unsent(x->lane) ? POLLOUT : 0));

	if (x->unflushed) {
		int result = x->host->flush(x->call, LP_NOWAIT);
		if (result == LP_GONE)
			return STEP_GONE;
		x->unflushed = result == LP_AGAIN;
	}
	tell_what(x);
	/* Without events, poll(2) would still say that the other side has hung up, again and again. */
	return x->host->wait(x->call, events ? x->lane->fd : -1, events, patience(x)) < 0 ? STEP_GONE : STEP_MOVED;
}

static bool goes_on(enum step step)
{
	return step == STEP_MOVED || step == STEP_RESTS;
}

static enum step attempt(struct exchange *x)
{
	struct lane *lane = x->lane;
	enum step step = STEP_MOVED;

	x->reused = reusable(x);
	doing(x, "connects to the program");
	if (!x->reused && (step = connect_anew(x)) != STEP_MOVED)
		return step;
	lane->head.begin = lane->piece.begin = lane->piece.end = lane->in.begin = lane->in.end = 0;
	x->deaf = x->sent = x->answered = x->in_over = false;
	x->body = x->body_at_first;
	reply_begin(&lane->reply, x->request->head != 0);
	while (goes_on(step)) {
		enum step up = upload_step(x);
		if (!goes_on(up))
			return up;
		enum step down = answer_step(x);
		if (!goes_on(down))
			return down;
		step = up == STEP_MOVED || down == STEP_MOVED ? STEP_MOVED : rest(x);
	}
	return step;
}

static bool may_keep(const struct exchange *x)
{
	const struct lane *lane = x->lane;

	return x->plugin->settings.keepalive && lane->reply.keep && !x->in_over && !x->deaf && !x->tunnel &&
	       x->body == BODY_OVER && !unsent(lane) && lane->in.begin == lane->in.end;
}

/* A client that goes away says nothing about the program. */
static bool was_silent(const struct exchange *x)
{
	uint64_t deadline = x->host->deadline(x->call);

	return !x->answered && deadline && clock_now() + EARLY_NS >= deadline;
}

int exchange_run(struct plugin *plugin, struct lane *lane, struct langplugin_call *call)
{
	const struct langplugin_request *request = plugin->host->request(call);
	struct exchange x = {.host = plugin->host, .call = call, .request = request, .plugin = plugin, .lane = lane};
	enum step step;

	x.left = (struct langplugin_text){"", 0};
	atomic_store_explicit(&lane->since, clock_now(), memory_order_relaxed);
	if (request_make(&lane->head, request, &plugin->settings, &x.framing)) {
		exchange_fail(&x, "no memory for a request's head");
		return LP_DONE;
	}
	bool has_body = x.framing == FRAMED_LENGTH || x.framing == FRAMED_CHUNKED;
	x.body_at_first = !has_body ? BODY_OVER : request->expects_continue ? BODY_WAITS : BODY_FLOWS;
	if (x.body_at_first == BODY_WAITS && plugin->settings.continue_ms >= 0)
		x.continue_at = clock_now() + (uint64_t)plugin->settings.continue_ms * 1000000u;
	while ((step = attempt(&x)) == STEP_AGAIN)
		lane_disconnect(lane);
	if (step == STEP_GONE && was_silent(&x))
		silence_add(plugin, lane);
	if (step == STEP_DONE && may_keep(&x))
		lane->idle_since = clock_now();
	else
		lane_disconnect(lane);
	doing(&x, NULL);
	return LP_DONE;
}
