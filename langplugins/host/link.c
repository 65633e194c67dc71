/* One ROUTER socket and the front ends it is connected to. See link.h. */
#include "link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

/*
 * Reconnecting is off: a front end's address is never used twice, so a connection that has broken is over, and a new
 * one made behind our back would not begin with a hello. ZMQ_IMMEDIATE stays off, so that the hello, sent right after
 * connect, is the first thing in the pipe. Mandatory routing makes a lost connection an error instead of silence.
 */
static const struct {
	int name;
	int value;
} integer_options[] = {
	{ZMQ_RECONNECT_IVL, -1}, {ZMQ_ROUTER_MANDATORY, 1},
	{ZMQ_LINGER, 10000}, /* ms: for goodbye and last answers when the front end is slow */
	{ZMQ_SNDHWM, 4096},  /* messages; bytes are bounded by credit */
	{ZMQ_RCVHWM, 1024},  /* messages; more than WIRE_PLACED requests and a window of full pieces */
};

int link_open(struct link *link, void *context, const struct wire_identity *identity, uint32_t slots)
{
	int64_t limit = WIRE_MESSAGE;
	size_t size = sizeof(link->descriptor);

	memset(link, 0, sizeof(*link));
	link->hello.head.kind = WIRE_HELLO;
	link->hello.head.size = sizeof(link->hello);
	link->hello.head.slot = identity->slot;
	link->hello.magic = WIRE_MAGIC;
	link->hello.version = WIRE_VERSION;
	link->hello.pid = (uint32_t)getpid();
	link->hello.slots = slots;
	link->socket = zmq_socket(context, ZMQ_ROUTER);
	if (!link->socket)
		return -1;
	for (size_t i = 0; i < sizeof(integer_options) / sizeof(integer_options[0]); i++)
		if (zmq_setsockopt(link->socket, integer_options[i].name, &integer_options[i].value, sizeof(int)))
			return -1;
	if (zmq_setsockopt(link->socket, ZMQ_MAXMSGSIZE, &limit, sizeof(limit)) ||
		zmq_setsockopt(link->socket, ZMQ_ROUTING_ID, identity, sizeof(*identity)) ||
		zmq_getsockopt(link->socket, ZMQ_FD, &link->descriptor, &size))
		return -1;
	return 0;
}

static void forget(struct link *link, struct peer *peer)
{
	/* Fails when the connection has ended by itself, which is the usual case. */
	zmq_disconnect(link->socket, peer->endpoint);
	memset(peer, 0, sizeof(*peer));
}

static void meet(struct link *link, struct peer *peer, const struct host_frontend *frontend)
{
	memset(peer, 0, sizeof(*peer));
	peer->name.role = 'F';
	peer->name.ordinal = (uint8_t)frontend->ordinal;
	peer->name.incarnation = frontend->incarnation;
	snprintf(peer->endpoint, sizeof(peer->endpoint), "ipc://%.*s", HOST_PATH - 1, frontend->path);
	if (zmq_setsockopt(link->socket, ZMQ_CONNECT_ROUTING_ID, &peer->name, sizeof(peer->name)) ||
		zmq_connect(link->socket, peer->endpoint)) {
		log_format(NULL, LP_ERROR, "cannot connect to front end %u at %s: %s", frontend->ordinal,
			frontend->path, zmq_strerror(zmq_errno()));
		memset(peer, 0, sizeof(*peer));
		return;
	}
	link_say(link, peer->name, &link->hello, sizeof(link->hello));
}

void link_update(struct link *link, const struct frontends *frontends)
{
	for (unsigned ordinal = 0; ordinal < WIRE_FRONTENDS; ordinal++) {
		struct peer *peer = &link->peer[ordinal];
		const struct host_frontend *wanted = NULL;

		for (unsigned i = 0; i < frontends->count; i++)
			if (frontends->item[i].ordinal == ordinal)
				wanted = &frontends->item[i];
		if (wanted && peer->name.role && peer->name.incarnation == wanted->incarnation)
			continue;
		if (peer->name.role)
			forget(link, peer);
		if (wanted)
			meet(link, peer, wanted);
	}
}

bool link_knows(const struct link *link, struct wire_frontend name)
{
	return name.ordinal < WIRE_FRONTENDS && link->peer[name.ordinal].name.role == 'F' &&
	       link->peer[name.ordinal].name.incarnation == name.incarnation;
}

/* Throws away the rest of a message of more frames than the channel has. */
static void discard_rest(struct link *link, zmq_msg_t *message)
{
	while (zmq_msg_more(message))
		if (zmq_msg_recv(message, link->socket, ZMQ_DONTWAIT) < 0)
			return;
}

enum link_got link_receive(struct link *link, struct wire_frontend *from, struct wire_head *head, zmq_msg_t *message)
{
	zmq_msg_t name;
	int rc;

	zmq_msg_init(&name);
	do
		rc = zmq_msg_recv(&name, link->socket, ZMQ_DONTWAIT);
	while (rc < 0 && errno == EINTR);
	if (rc < 0) {
		zmq_msg_close(&name);
		return LINK_NOTHING;
	}
	/* A ROUTER hands a message on whole, so the second frame is there if there is one. */
	bool named = zmq_msg_size(&name) == sizeof(*from) && zmq_msg_more(&name);
	if (!named) {
		discard_rest(link, &name);
		zmq_msg_close(&name);
		return LINK_BROKEN;
	}
	memcpy(from, zmq_msg_data(&name), sizeof(*from));
	zmq_msg_close(&name);
	zmq_msg_init(message);
	do
		rc = zmq_msg_recv(message, link->socket, ZMQ_DONTWAIT);
	while (rc < 0 && errno == EINTR);
	if (rc < 0) {
		zmq_msg_close(message);
		return LINK_BROKEN;
	}
	size_t size = zmq_msg_size(message);
	bool whole = !zmq_msg_more(message) && size >= sizeof(*head);
	discard_rest(link, message);
	if (whole) {
		memcpy(head, zmq_msg_data(message), sizeof(*head));
		if (head->size == size && link_knows(link, *from))
			return LINK_FRAME;
		whole = head->size == size;
	}
	zmq_msg_close(message);
	return whole ? LINK_STRAY : LINK_BROKEN;
}

int link_begin(struct link *link, struct wire_frontend to)
{
	int rc;

	if (!link_knows(link, to))
		return LP_GONE;
	do
		rc = zmq_send(link->socket, &to, sizeof(to), ZMQ_SNDMORE | ZMQ_DONTWAIT);
	while (rc < 0 && errno == EINTR);
	if (rc >= 0)
		return LP_OK;
	return errno == EAGAIN ? LP_AGAIN : LP_GONE;
}

void link_finish(struct link *link, zmq_msg_t *message)
{
	int rc;

	/* DONTWAIT is ignored inside a message: room has been found by link_begin. */
	do
		rc = zmq_msg_send(message, link->socket, ZMQ_DONTWAIT);
	while (rc < 0 && errno == EINTR);
	if (rc < 0)
		zmq_msg_close(message);
}

int link_say(struct link *link, struct wire_frontend to, const void *data, size_t size)
{
	zmq_msg_t message;

	/* Before link_begin, so that nothing can fail between the two frames. */
	if (zmq_msg_init_size(&message, size))
		return LP_GONE;
	memcpy(zmq_msg_data(&message), data, size);
	int rc = link_begin(link, to);
	if (rc == LP_OK)
		link_finish(link, &message);
	else
		zmq_msg_close(&message);
	return rc;
}

int link_say_head(struct link *link, struct wire_frontend to, uint32_t kind, uint64_t serial, uint32_t request,
	unsigned slot, unsigned flags)
{
	struct wire_head head = {.kind = kind, .size = sizeof(head), .serial = serial, .request = request};

	head.slot = (uint16_t)slot;
	head.flags = (uint16_t)flags;
	return link_say(link, to, &head, sizeof(head));
}

void link_close(struct link *link)
{
	if (link->socket)
		zmq_close(link->socket);
	link->socket = NULL;
}
