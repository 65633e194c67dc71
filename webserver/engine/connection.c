/*
 * A connection's life: opened, driven from phase to phase, closed. See connection.h.
 *
 * Whatever happens to a connection happens in connection_drive or in a call of somebody else's (a worker's answer,
 * Python). The second kind never parses or reads: it leaves that to connection_drive by connection_later, so that a
 * chain of pipelined requests is a loop and not a recursion.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "connection.h"
#include "deadlines.h"
#include "loop.h"
#include "reply.h"
#include "transport.h"

/* Heads and pieces of body that one connection gets done before the next connection's turn. */
#define STEPS 32
/* A tunnel in which nothing moves: after so many seconds the client is asked whether it is there, and gone after two
   such times without an answer. */
#define TUNNEL_ALIVE_S 60

struct connection *connection_make(struct engine *e, const struct transport *transport)
{
	struct connections *cs = e->connections;
	struct connection *c = cs->free;
	if (c != NULL) {
		cs->free = (struct connection *)c->node.next;
		cs->free_count--;
	} else {
		c = malloc(sizeof(*c));
		if (c == NULL)
			return NULL;
	}
	memset(c, 0, sizeof(*c));
	c->engine = e;
	c->transport = transport;
	c->poll.fd = -1;
	c->poll.ready = connection_ready;
	list_append(&cs->idle, &c->node);
	e->stats.connections++;
	e->stats.idle++;
	timer_arm(e, cs->head_queue, &c->timer);
	return c;
}

struct connection *connection_open(struct engine *e, int fd, const struct sockaddr *remote, uint16_t server_port)
{
	struct connection *c = connection_make(e, &socket_transport);
	if (c == NULL) {
		close(fd);
		return NULL;
	}
	c->poll.fd = fd;
	c->family = (uint8_t)remote->sa_family;
	c->server_port = server_port;
	if (remote->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)remote;
		memcpy(c->remote_address, &in->sin_addr, 4);
		c->remote_port = ntohs(in->sin_port);
	} else if (remote->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)remote;
		memcpy(c->remote_address, &in6->sin6_addr, 16);
		c->remote_port = ntohs(in6->sin6_port);
	}
	if (poll_add(e, &c->poll, EPOLLIN | EPOLLRDHUP) < 0) {
		log_entry(e, LOG_LEVEL_ERROR, NULL, "cannot watch a new connection: %s", strerror(errno));
		connection_close(c);
		return NULL;
	}
	e->stats.accepted++;
	return c;
}

/* ---- what is waited for */

static void connection_watch(struct connection *c, bool input, bool output)
{
	if (c->poll.fd < 0 || c->phase == PHASE_CLOSED || c->hung) {
		c->poll.events = (input ? EPOLLIN : 0U) | (output ? EPOLLOUT : 0U);
		return;
	}
	uint32_t events = (input ? EPOLLIN : 0U) | (output ? EPOLLOUT : 0U) | (c->peer_shut ? 0U : EPOLLRDHUP);
	if (poll_change(c->engine, &c->poll, events) < 0)
		connection_fail(c);
}

void connection_listen(struct connection *c, bool input)
{
	connection_watch(c, input, (c->poll.events & EPOLLOUT) != 0);
}

void connection_expect_output(struct connection *c, bool output)
{
	struct engine *e = c->engine;
	if (!output) {
		timer_disarm(&c->send_timer);
	} else if (c->out.moved || !list_linked(&c->send_timer.node)) {
		/* Not for each piece that a worker adds while the client takes nothing: it would never end. */
		timer_arm(e, e->connections->send_queue, &c->send_timer);
		c->out.moved = false;
	}
	connection_watch(c, (c->poll.events & EPOLLIN) != 0, output);
}

void connection_later(struct connection *c)
{
	if (c->phase == PHASE_CLOSED || list_linked(&c->due))
		return;
	list_append(&c->engine->connections->due, &c->due);
	engine_again(c->engine);
}

/* ---- the ways a connection goes */

void connection_fail(struct connection *c)
{
	c->broken = true;
	connection_later(c);
}

static void reset_when_closed(struct connection *c)
{
	struct linger linger = {.l_onoff = 1, .l_linger = 0};
	if (c->poll.fd >= 0)
		setsockopt(c->poll.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* The end of the connection is the end of such an answer, so an orderly close would make it look whole. */
static void reset_if_it_would_look_whole(struct connection *c)
{
	const struct request *r = c->request;
	if (r != NULL && r->state >= REQUEST_REPLYING && (r->framing == FRAMING_CLOSE || r->framing == FRAMING_TUNNEL))
		reset_when_closed(c);
}

void connection_reset(struct connection *c)
{
	reset_when_closed(c);
	connection_close(c);
}

void connection_close(struct connection *c)
{
	struct engine *e = c->engine;
	struct connections *cs = e->connections;
	if (c->phase == PHASE_CLOSED)
		return;
	reset_if_it_would_look_whole(c);
	if (c->phase == PHASE_IDLE)
		e->stats.idle--;
	c->phase = PHASE_CLOSED;
	c->broken = true;
	timer_disarm(&c->timer);
	timer_disarm(&c->send_timer);
	list_remove(&c->due);
	list_remove(&c->node);
	list_append(&cs->closed, &c->node);
	if (c->request != NULL)
		request_end(c->request, false);
	output_drop(c);
	buffer_give(&cs->buffers, c->in.data, c->in.room);
	buffer_give(&cs->buffers, c->carry.data, c->carry.room);
	c->in = c->carry = (struct input){0};
	c->transport->close(c);
	e->stats.connections--;
	if (cs->accept_stopped)
		listeners_resume(e);
	connections_tell_when_empty(e);
}

/* Our side is shut; the client may have more on the way, and closing now would answer that with a reset, which can
   take the answer away from it before it has read it (RFC 9112, section 9.6). */
void connection_linger(struct connection *c)
{
	if (c->phase == PHASE_IDLE)
		c->engine->stats.idle--;
	c->phase = PHASE_LINGER;
	c->discard_left = LINGER_BYTES;
	c->transport->shut(c);
	input_release(c);
	timer_arm(c->engine, c->engine->connections->linger_queue, &c->timer);
	c->readable = true;
	if (!c->driving)
		connection_later(c);
}

void connection_idle(struct connection *c)
{
	struct engine *e = c->engine;
	input_next(c);
	c->phase = PHASE_IDLE;
	e->stats.idle++;
	list_remove(&c->node);
	list_append(&e->connections->idle, &c->node);
}

void connection_finish(struct connection *c)
{
	struct request *r = c->request;
	/* Of a tunnel that we ended, more may be on its way. */
	bool body_done = r->body_done && (c->body != BODY_TUNNEL || c->ended), keep = c->keep;
	timer_disarm(&c->timer);
	request_end(r, true);
	if (!keep) {
		if (body_done && input_left(c) == 0 && !c->peer_shut)
			connection_close(c);
		else
			connection_linger(c);
		return;
	}
	if (!body_done) {
		if (c->body == BODY_LENGTH && c->body_left > LINGER_BYTES) {
			connection_linger(c);
			return;
		}
		c->phase = PHASE_DISCARD;
		c->discard_left = LINGER_BYTES;
		timer_arm(c->engine, c->engine->connections->body_queue, &c->timer);
	} else {
		connection_idle(c);
	}
	if (c->driving)
		return;
	/* The usual end of a request whose answer came from elsewhere: nothing is here, nothing was seen to come. */
	if (c->phase == PHASE_IDLE && !c->readable && input_left(c) == 0) {
		input_release(c);
		timer_arm(c->engine, c->engine->connections->idle_queue, &c->timer);
		connection_listen(c, true);
		return;
	}
	connection_later(c);
}

/* ---- driving */

void connection_drive(struct connection *c)
{
	static bool (*const step[])(struct connection * c) = {
		[PHASE_IDLE] = head_step,
		[PHASE_HEAD] = head_step,
		[PHASE_REQUEST] = body_step,
		[PHASE_DISCARD] = discard_step,
		[PHASE_LINGER] = linger_step,
	};
	if (c->driving)
		return;
	list_remove(&c->due);
	c->driving = true;
	unsigned steps = 0;
	while (c->phase != PHASE_CLOSED && !c->broken && step[c->phase](c)) {
		if (++steps < STEPS)
			continue;
		connection_later(c); /* others have their turn before a client that never stops */
		break;
	}
	c->driving = false;
	if (c->broken)
		connection_close(c);
}

static void output_ready(struct connection *c)
{
	uint64_t before = c->out.queued;
	enum output_result result = output_flush(c);
	if (result == OUTPUT_FAILED) {
		connection_close(c);
		return;
	}
	bool progress = c->out.queued < before;
	if (result == OUTPUT_DONE || progress)
		connection_expect_output(c, result == OUTPUT_MORE);
	struct request *r = c->request;
	if (r == NULL)
		return;
	if (result == OUTPUT_DONE)
		reply_drained(r);
	if (r->reply_complete) {
		if (result == OUTPUT_DONE)
			connection_finish(c);
	} else if (progress && r->backend != NULL && r->backend->written != NULL) {
		r->backend->written(r, c->out.queued);
	}
}

/* The client has sent its last byte while its request runs. It may have closed, or only have shut its side and wait
   for the answer: over TCP both look the same. It gets its answer; but if none has begun after a while it is sent an
   interim one, which any client of version 1.1 must accept (RFC 9110, section 15.2) and to which a closed one responds
   with a reset, so that a request nobody waits for can be cancelled. */
static void peer_has_shut(struct connection *c)
{
	if (c->peer_shut)
		return;
	c->peer_shut = true;
	if (c->request->body_done && c->request->version >= 11 && (c->family == AF_INET || c->family == AF_INET6))
		timer_arm(c->engine, c->engine->connections->probe_queue, &c->timer);
}

/* It has been waiting to be asked for its body, of which nothing is here, and will not send it any more. */
static bool waits_no_more(struct connection *c)
{
	const struct request *r = c->request;
	int unread = 1;

	return r->expect && !r->continued && input_left(c) == 0 && ioctl(c->poll.fd, FIONREAD, &unread) == 0 &&
	       unread == 0;
}

/*
 * A tunnel of which both sides are shut hangs up (EPOLLHUP), though the client's last bytes may still be here, for a
 * worker that is slow to take them. epoll would tell of nothing but that any more, again and again.
 */
static bool tunnel_has_hung_up(struct connection *c, uint32_t events)
{
	if (c->phase != PHASE_REQUEST || !c->request->shut_done || (events & EPOLLERR) != 0)
		return false;
	poll_remove(c->engine, &c->poll);
	c->hung = c->peer_shut = c->readable = true;
	connection_later(c);
	return true;
}

void connection_tunnel(struct connection *c)
{
	const int on = 1, idle = TUNNEL_ALIVE_S, between = TUNNEL_ALIVE_S / 4, probes = 4;
	c->body = BODY_TUNNEL;
	c->ended = false;
	timer_disarm(&c->timer);
	if (c->poll.fd < 0 || (c->family != AF_INET && c->family != AF_INET6))
		return;
	/* A client that is gone without a word would keep a slot for ever. */
	setsockopt(c->poll.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(c->poll.fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(c->poll.fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof(between));
	setsockopt(c->poll.fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

void connection_ready(struct engine *e, struct pollable *self, uint32_t events)
{
	struct connection *c = list_entry(self, struct connection, poll);
	(void)e;
	if (c->phase == PHASE_CLOSED)
		return;
	if ((events & (EPOLLERR | EPOLLHUP)) && c->phase != PHASE_LINGER) {
		if (!tunnel_has_hung_up(c, events))
			connection_close(c);
		return;
	}
	if (events & EPOLLOUT) {
		output_ready(c);
		if (c->phase == PHASE_CLOSED)
			return;
	}
	if (!(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)))
		return;
	c->readable = true;
	const struct request *r = c->request;
	if (c->phase == PHASE_REQUEST && (r->body_done || r->body_room == 0)) {
		/* Nobody wants it now; level-triggered, so stop listening, or the loop would spin. */
		if ((events & EPOLLRDHUP) && waits_no_more(c)) {
			connection_close(c);
			return;
		}
		if (events & EPOLLRDHUP)
			peer_has_shut(c);
		connection_listen(c, false);
		return;
	}
	connection_drive(c);
}
