/*
 * A connection that an application has taken over: what it writes to its end of a socketpair is an answer, head and
 * all, and what comes from the client goes there.
 *
 * The bytes are moved by a thread that is there for just this, from take_over() on: the application may well talk to
 * its client before handle() returns. That thread has the slot's link and its call meanwhile; the slot's own thread is
 * in application code, where all but cancelled(), deadline() and log() are refused, and then waits for its end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "chunked.h"
#include "worker.h"
#include "written.h"

#define ROUNDS 16 /* pieces in one direction before the other's turn */

enum says { SAYS_HEAD = 0, SAYS_BODY, SAYS_CHUNKS, SAYS_LAST, /* all is here, some is not sent */ SAYS_NOTHING };

struct takeover {
	struct langplugin_call *call;
	pthread_t thread;
	int fd;
	uint8_t says;	/* the application */
	bool shutting;	/* it has ended its side of a tunnel, which is not told yet */
	bool hung;	/* its end is closed, or both sides are */
	bool in_over;	/* nothing more goes to it */
	bool over;	/* the answer has ended */
	bool unflushed; /* something was written that the client is not sent yet */
	struct chunked chunked;
	size_t at, end;	      /* in out: what it has said that is not taken */
	size_t in_at, in_end; /* in in: what it has not taken */
	char *trailers;
	size_t trailers_size;
	struct written head;
	char out[WRITTEN_MOST];
	char in[WRITTEN_MOST];
};

/* ---- what the application says */

static int give_up(struct takeover *t, const char *why)
{
	static const char text[] = "Internal Server Error\n";
	static const struct langplugin_field type = {{"Content-Type", 12}, {"text/plain", 10}};
	struct langplugin_call *call = t->call;

	log_format(call, LP_ERROR, "the application's answer on the connection that it took over: %s", why);
	if (call->answer.state == ANSWER_NONE) {
		answer_respond(call, 500, (struct langplugin_text){"", 0}, &type, 1, (int64_t)sizeof(text) - 1);
		answer_write(call, text, sizeof(text) - 1, 0);
		answer_end(call);
	} else {
		answer_abort(call);
	}
	t->over = true;
	return LP_OK;
}

static int conclude(struct takeover *t)
{
	struct langplugin_call *call = t->call;

	if (t->trailers && written_fields(&t->head, t->trailers, t->trailers_size) &&
		answer_trailers(call, t->head.field, t->head.count) == LP_INVALID)
		log_format(call, LP_WARNING, "trailers that may not be sent as such are left out");
	answer_end(call);
	t->over = true;
	return LP_OK;
}

/* What is in out is chunked: make it content. */
static int unchunk(struct takeover *t)
{
	struct chunked_piece piece;
	char *data = t->out + t->at;

	if (!chunked_decode(&t->chunked, data, t->end - t->at, WRITTEN_MOST, &piece))
		return give_up(t, "its chunks are not framed as they should be");
	if (piece.trailers_size > 0) {
		char *grown = realloc(t->trailers, t->trailers_size + piece.trailers_size);
		if (!grown)
			return give_up(t, "no memory");
		memcpy(grown + t->trailers_size, data + piece.trailers, piece.trailers_size);
		t->trailers = grown;
		t->trailers_size += piece.trailers_size;
	}
	t->end = t->at + piece.size;
	if (piece.last)
		t->says = SAYS_LAST;
	return LP_OK;
}

static int take_answer(struct takeover *t, const struct written *head)
{
	struct langplugin_call *call = t->call;
	int result = answer_respond(call, head->status, head->reason, head->field, head->count, head->length);

	if (result == LP_INVALID)
		return give_up(t, head->status == 101 ? "its 101 is not to what the client asked for"
						      : "its head breaks a rule of HTTP");
	t->unflushed = true;
	t->says = head->chunked ? SAYS_CHUNKS : SAYS_BODY;
	if (call->answer.no_body || head->length == 0)
		t->says = SAYS_LAST;
	else if (head->chunked)
		return unchunk(t);
	return result;
}

static int take_head(struct takeover *t)
{
	struct written *head = &t->head;
	const char *why;

	switch (written_head(head, t->out + t->at, t->end - t->at, &why)) {
	case WRITTEN_WRONG:
		return give_up(t, why);
	case WRITTEN_PARTLY:
		if (t->at > 0)
			memmove(t->out, t->out + t->at, t->end - t->at);
		t->end -= t->at;
		t->at = 0;
		return LP_AGAIN;
	case WRITTEN_WHOLE:
		break;
	}
	t->at += head->size;
	if (head->status >= 200 || head->status == 101)
		return take_answer(t, head);
	/* 100 is said by the front end when it is due. */
	if (head->status != 100 && answer_inform(t->call, head->status, head->field, head->count) == LP_INVALID)
		return give_up(t, "an interim answer breaks a rule of HTTP");
	return LP_OK;
}

/* Of content, as much as is here. */
static int take_content(struct takeover *t)
{
	struct answer *answer = &t->call->answer;
	size_t size = t->end - t->at;

	if (size > 0) {
		int result = answer_write(t->call, t->out + t->at, size, LP_NOWAIT);
		if (result == LP_AGAIN)
			return answer_flush(t->call, LP_NOWAIT) == LP_OK ? LP_OK : LP_AGAIN;
		if (result != LP_OK)
			return result;
	}
	t->at = t->end = 0;
	t->unflushed = true;
	if (t->says == SAYS_LAST || (answer->length >= 0 && answer->given >= (uint64_t)answer->length))
		return conclude(t);
	return LP_OK;
}

/* The end of what it says. */
static int take_end(struct takeover *t)
{
	if (t->says == SAYS_HEAD)
		return give_up(t, t->end > 0 ? "it ended before its head did" : "it was closed before there was any");
	if (t->says == SAYS_CHUNKS)
		return give_up(t, "it ended before its last chunk");
	if (!t->call->answer.tunnel)
		return conclude(t);
	t->says = SAYS_NOTHING;
	t->shutting = true;
	return LP_OK;
}

/* A closed end tells of itself, also where only one side was read to its end. */
static bool has_hung_up(const struct takeover *t)
{
	struct pollfd look = {t->fd, 0, 0};

	return poll(&look, 1, 0) > 0 && (look.revents & (POLLHUP | POLLERR));
}

/* Its side of a tunnel is over; what goes to it may not be. LP_AGAIN: told later. */
static int tell_shut(struct takeover *t)
{
	t->hung = t->hung || has_hung_up(t);
	if (t->hung)
		t->in_over = true;
	int result = t->in_over ? LP_OK : answer_shut(t->call, LP_NOWAIT);
	if (result != LP_AGAIN)
		t->shutting = t->unflushed = false;
	return result;
}

/* Read more of it: LP_OK; LP_AGAIN: nothing is there. */
static int hear(struct takeover *t)
{
	if (t->at == t->end)
		t->at = t->end = 0;
	ssize_t got = recv(t->fd, t->out + t->end, sizeof(t->out) - t->end, MSG_DONTWAIT);

	if (got < 0)
		return errno == EINTR ? LP_OK : errno == EAGAIN ? LP_AGAIN : take_end(t);
	if (got == 0)
		return take_end(t);
	t->end += (size_t)got;
	return t->says == SAYS_CHUNKS ? unchunk(t) : LP_OK;
}

/* True if anything has moved. */
static bool move_out(struct takeover *t)
{
	bool moved = false;

	for (unsigned round = 0; round < ROUNDS && !t->over && t->says != SAYS_NOTHING; round++) {
		int result = LP_AGAIN;
		if (t->says == SAYS_HEAD && t->end > t->at)
			result = take_head(t);
		else if (t->says == SAYS_LAST || t->end > t->at)
			result = take_content(t);
		bool wants = t->says == SAYS_HEAD || t->end == t->at;
		if (result == LP_AGAIN && wants && !t->over)
			result = hear(t);
		if (result == LP_AGAIN)
			break;
		moved = true;
		if (result == LP_GONE)
			break;
	}
	if (t->shutting && !t->over && tell_shut(t) != LP_AGAIN)
		moved = true;
	if (!t->over && t->unflushed) {
		int result = answer_flush(t->call, LP_NOWAIT);
		if (result == LP_FAILED)
			give_up(t, "no memory");
		t->unflushed = result == LP_AGAIN;
	}
	return moved;
}

/* ---- what the client says */

static bool has_body(const struct langplugin_call *call)
{
	return call->answer.tunnel || call->block.request.content_length != 0;
}

/* The client has ended, and the application has all of it. It sees an end where it knows of no length. */
static void end_in(struct takeover *t)
{
	if (t->call->answer.tunnel || t->call->block.request.content_length < 0)
		shutdown(t->fd, SHUT_WR);
	t->in_over = true;
}

static bool move_in(struct takeover *t)
{
	bool moved = false;

	for (unsigned round = 0; round < ROUNDS && !t->over && !t->in_over && has_body(t->call); round++) {
		if (t->in_at == t->in_end) {
			ssize_t got = body_read(t->call, t->in, sizeof(t->in), LP_NOWAIT);
			t->in_at = 0;
			t->in_end = got > 0 ? (size_t)got : 0;
			if (got == 0)
				end_in(t);
			if (got < 0)
				break;
			moved = true;
			continue;
		}
		ssize_t sent = send(t->fd, t->in + t->in_at, t->in_end - t->in_at, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			break;
		moved = true;
		if (sent < 0)
			t->in_over = true;
		else
			t->in_at += (size_t)sent;
	}
	return moved;
}

/* ---- the thread */

static void wait_for_something(struct takeover *t)
{
	struct slot *slot = t->call->slot;
	struct pollfd *own = &slot->link.poll[1];
	bool hears = t->says != SAYS_NOTHING && (t->says == SAYS_HEAD || t->end == t->at);
	bool tells = t->in_at < t->in_end && !t->in_over;
	short events = (short)((hears ? POLLIN : 0) | (tells ? POLLOUT : 0));

	/* That it has hung up is told again and again. */
	*own = (struct pollfd){events || !t->hung ? t->fd : -1, events, 0};
	slot_sleep(slot, -1);
	if (own->revents & (POLLHUP | POLLERR))
		t->hung = true;
	if (t->hung && t->says == SAYS_NOTHING)
		t->in_over = true;
	*own = (struct pollfd){-1, 0, 0};
}

static void *run(void *argument)
{
	struct takeover *t = argument;
	struct langplugin_call *call = t->call;

	while (!t->over) {
		bool moved = move_out(t);
		moved |= move_in(t);
		if (t->over)
			break;
		if (call_over(call) || (t->says == SAYS_NOTHING && !t->shutting && t->in_over)) {
			answer_end(call);
			break;
		}
		if (!moved)
			wait_for_something(t);
	}
	close(t->fd);
	t->fd = -1;
	messages_forget();
	return NULL;
}

static int start(struct takeover *t)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int result = pthread_create(&t->thread, NULL, run, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return result;
}

static int refuse(int number)
{
	errno = number;
	return -1;
}

int call_take_over(struct langplugin_call *call)
{
	int ends[2];

	if (call->slot->worker->host->plugin->traits & LANGPLUGIN_ASYNC)
		return refuse(ENOTSUP);
	if (call->taken || call->answer.state != ANSWER_NONE)
		return refuse(EINVAL);
	if (call_over(call))
		return refuse(ECONNRESET);
	struct takeover *t = malloc(sizeof(*t));
	if (!t)
		return -1;
	memset(t, 0, offsetof(struct takeover, head));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		free(t);
		return -1;
	}
	t->call = call;
	t->fd = ends[0];
	fcntl(t->fd, F_SETFL, O_NONBLOCK);
	call->taken = t;
	int number = start(t);
	if (number == 0)
		return ends[1];
	call->taken = NULL;
	close(ends[0]);
	close(ends[1]);
	free(t);
	return refuse(number);
}

void takeover_end(struct langplugin_call *call)
{
	pthread_join(call->taken->thread, NULL);
	free(call->taken->trailers);
	free(call->taken);
	call->taken = NULL;
}

void takeover_abandon(const struct langplugin_call *call)
{
	if (call->taken && call->taken->fd >= 0)
		close(call->taken->fd);
}
