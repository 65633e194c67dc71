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

#include "takeover.h"

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

/* Something is to leave that could not. */
static bool waits_to_leave(const struct takeover *t)
{
	return t->unflushed || t->shutting || t->says == SAYS_LAST || (t->says != SAYS_HEAD && t->end > t->at);
}

/* A part of the body is here that the application could be given. */
static bool has_more_for_it(const struct takeover *t)
{
	return !t->in_over && t->in_at == t->in_end && t->call->body.first && has_body(t->call);
}

static void *run(void *argument)
{
	struct takeover *t = argument;
	struct langplugin_call *call = t->call;

	while (!t->over) {
		bool moved = takeover_out(t);
		moved |= move_in(t);
		/* Each takes in what has come: it may be what the other waits for, and nothing would end the sleep. */
		if (!moved && !t->over && waits_to_leave(t))
			moved = takeover_out(t);
		if (t->over)
			break;
		if (call_over(call) || (t->says == SAYS_NOTHING && !t->shutting && t->in_over)) {
			answer_end(call);
			break;
		}
		if (!moved && !has_more_for_it(t))
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
