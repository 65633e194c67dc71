/*
 * Accepting: from listening sockets that the caller made and keeps.
 *
 * A full house is quiet: at the connection limit the listeners leave the epoll set, and come back when a connection
 * closes. When descriptors run out the listeners rest for a moment, with one line a minute; if that lasts, the one in
 * reserve is given up to accept and close what waits: a client that is refused beats one that hangs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "connection.h"
#include "deadlines.h"
#include "loop.h"

/* Connections taken from one listener in one turn: the others, and the requests, have theirs. */
#define ACCEPT_BATCH 32
#define COMPLAIN_NS  60000000000U
#define SHORT_NS     2000000000U
#define NEAR_SPARE   64
#define QUEUE_MOST   4096 /* as long as the supervisor makes it */

struct listener {
	struct pollable poll;
	struct list node;
	uint32_t id;
	uint16_t port;
	bool watched;
	bool vacated; /* see engine_vacate */
};

int reserve_open(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void complain(struct engine *e, const char *what)
{
	struct connections *cs = e->connections;
	if (cs->complained_ns != 0 && e->now_ns - cs->complained_ns < COMPLAIN_NS)
		return;
	cs->complained_ns = e->now_ns;
	log_entry(e, LOG_LEVEL_ERROR, NULL, "%s (said once a minute at most)", what);
}

static void listener_watch(struct engine *e, struct listener *l, bool watch)
{
	if (l->watched == watch)
		return;
	if (!watch)
		poll_remove(e, &l->poll);
	else if (poll_add(e, &l->poll, EPOLLIN) < 0) {
		log_entry(e, LOG_LEVEL_ERROR, NULL, "cannot watch listener %u: %s", l->id, strerror(errno));
		return;
	}
	l->watched = watch;
}

static void listeners_watch(struct engine *e, bool watch)
{
	struct connections *cs = e->connections;
	cs->accept_stopped = !watch;
	for (struct list *at = cs->listeners.next; at != &cs->listeners; at = at->next)
		listener_watch(e, list_entry(at, struct listener, node), watch);
}

static bool full(const struct engine *e)
{
	return e->stats.connections >= e->limits.connections;
}

void listeners_stop(struct engine *e)
{
	listeners_watch(e, false);
}

void listeners_resume(struct engine *e)
{
	/* While the timer runs it is descriptors that are missing, not room. */
	if (!e->draining && !full(e) && !list_linked(&e->connections->accept_timer.node))
		listeners_watch(e, true);
}

static void out_of_descriptors(struct engine *e, int fd)
{
	struct connections *cs = e->connections;
	if (cs->short_ns == 0)
		cs->short_ns = e->now_ns;
	bool lasts = e->now_ns - cs->short_ns >= SHORT_NS;
	complain(e,
		"no descriptor is left for new connections, which wait, and are refused if that lasts; raise open_files"
		" or lower connections");
	if (lasts && cs->reserve_fd >= 0) {
		close(cs->reserve_fd);
		int refused = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (refused >= 0)
			close(refused);
	}
	if (lasts || cs->reserve_fd < 0)
		cs->reserve_fd = reserve_open();
	listeners_watch(e, false);
	timer_arm(e, cs->accept_queue, &cs->accept_timer);
}

/* The next descriptor would be one of those that are kept. Each is the lowest that is free, so mostly the last one
 * tells. */
static bool is_short(const struct engine *e)
{
	const struct connections *cs = e->connections;

	if (!descriptor_is_spare(e, cs->last_fd + NEAR_SPARE))
		return false;
	int next = fcntl(cs->reserve_fd, F_DUPFD_CLOEXEC, 0);
	if (next < 0)
		return errno == EMFILE;
	close(next);
	return descriptor_is_spare(e, next);
}

/* Whether to go on accepting after this error. */
static bool accept_failed(struct engine *e, int fd, int error)
{
	switch (error) {
	case EAGAIN:
		return false;
	/* It ended before it was accepted, or the network had an error of its own for it (accept(2)). */
	case EINTR:
	case ECONNABORTED:
	case EPROTO:
	case ENETDOWN:
	case ENOPROTOOPT:
	case EHOSTDOWN:
	case ENONET:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EPERM:
		return true;
	case EMFILE:
	case ENFILE:
		out_of_descriptors(e, fd);
		return false;
	default: /* no memory, or the descriptor is not what was said */
		complain(e, strerror(error));
		listeners_watch(e, false);
		timer_arm(e, e->connections->accept_queue, &e->connections->accept_timer);
		return false;
	}
}

/* A connection inherits its listener's least number of hops; see engine_vacate. */
static void any_hops(int fd)
{
	int none = 0;
	setsockopt(fd, IPPROTO_IP, IP_MINTTL, &none, sizeof(none));
	setsockopt(fd, IPPROTO_IPV6, IPV6_MINHOPCOUNT, &none, sizeof(none));
}

/* Takes one connection; false when there is none, or none can be taken now. */
static bool accept_one(struct engine *e, struct listener *l)
{
	union {
		struct sockaddr any;
		struct sockaddr_storage storage;
	} remote;
	socklen_t size = sizeof(remote);
	int fd = accept4(l->poll.fd, &remote.any, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return accept_failed(e, l->poll.fd, errno);
	e->connections->last_fd = fd;
	e->connections->short_ns = 0;
	if (l->vacated)
		any_hops(fd);
	connection_open(e, fd, &remote.any, l->port);
	return true;
}

static void listener_ready(struct engine *e, struct pollable *self, uint32_t events)
{
	struct listener *l = list_entry(self, struct listener, poll);
	(void)events;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		if (full(e)) {
			complain(e, "the limit of connections is reached; new ones wait");
			listeners_watch(e, false);
			return;
		}
		if (is_short(e)) {
			out_of_descriptors(e, l->poll.fd);
			return;
		}
		if (!accept_one(e, l))
			return;
	}
}

static struct listener *listener_find(struct engine *e, uint32_t id)
{
	struct list *head = &e->connections->listeners;
	for (struct list *at = head->next; at != head; at = at->next) {
		struct listener *l = list_entry(at, struct listener, node);
		if (l->id == id)
			return l;
	}
	return NULL;
}

static void listener_free(struct engine *e, struct listener *l)
{
	listener_watch(e, l, false);
	list_remove(&l->node);
	free(l);
}

int engine_listen(engine *e, uint32_t id, int fd, int kind, int port)
{
	if (fd < 0 || listener_find(e, id) != NULL || port < 0 || port > 65535)
		return ENGINE_INVALID;
	if (kind != AF_INET && kind != AF_INET6 && kind != AF_UNIX)
		return ENGINE_INVALID;
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return ENGINE_SYSTEM;
	if (kind != AF_UNIX) {
		/* Connections inherit it from the listener, so none needs a call of its own. */
		int on = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	}
	struct listener *l = calloc(1, sizeof(*l));
	if (l == NULL)
		return ENGINE_SYSTEM;
	l->poll.fd = fd;
	l->poll.ready = listener_ready;
	l->id = id;
	l->port = (uint16_t)port;
	list_append(&e->connections->listeners, &l->node);
	if (e->draining || e->connections->accept_stopped)
		return ENGINE_OK; /* watched when accepting goes on */
	listener_watch(e, l, true);
	if (l->watched)
		return ENGINE_OK;
	listener_free(e, l);
	return ENGINE_SYSTEM;
}

int engine_vacate(engine *e, uint32_t id)
{
	struct listener *l = listener_find(e, id);
	if (l == NULL)
		return ENGINE_STALE;
	l->vacated = true;
	return ENGINE_OK;
}

int engine_unlisten(engine *e, uint32_t id)
{
	struct listener *l = listener_find(e, id);
	if (l == NULL)
		return ENGINE_STALE;
	engine_clock(e);
	l->vacated = true;
	/* The kernel has accepted what waits in the queue: closing the socket would reset it. The queue's length is the
	   bound, not the limit of connections, which is there against those that go on coming. */
	for (int i = 0; i < QUEUE_MOST && accept_one(e, l); i++)
		;
	listener_free(e, l);
	return ENGINE_OK;
}

void listeners_free(struct engine *e)
{
	struct connections *cs = e->connections;
	while (!list_empty(&cs->listeners))
		listener_free(e, list_entry(cs->listeners.next, struct listener, node));
}
