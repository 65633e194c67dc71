/* What goes to the front ends: written at once if the socket has room, else kept and written when it has. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "link.h"

#define ENOUGH 65536 /* bytes that may wait for a socket, and a message be added to them */
#define BARE   64    /* bytes of one that is a head: each is an answer to something, and must not be lost */

static struct peer *find(struct link *link, struct wire_frontend name)
{
	return link_knows(link, name) ? &link->peer[name.ordinal] : NULL;
}

bool link_writes(const struct peer *peer)
{
	return (peer->filled > 0 || peer->awaited) && peer->in.state == ZMTP_TALKS;
}

bool link_write(struct link *link, struct peer *peer)
{
	if (!link_writes(peer))
		return true;
	while (peer->sent < peer->filled) {
		ssize_t sent = send(
			peer->fd, peer->out + peer->sent, peer->filled - peer->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			return true;
		if (sent < 0) {
			link_lose(link, peer);
			return false;
		}
		peer->sent += (size_t)sent;
		peer->late = false;
	}
	peer->sent = peer->filled = 0;
	peer->awaited = false;
	if (peer->room > ENOUGH) {
		free(peer->out);
		peer->out = NULL;
		peer->room = 0;
	}
	link->changed = true; /* no POLLOUT any more */
	return true;
}

char *link_room(struct link *link, struct peer *peer, size_t size)
{
	if (peer->filled + size > peer->room) {
		size_t room = peer->filled + size + ENOUGH;
		char *grown = realloc(peer->out, room);
		if (!grown) {
			link_lose(link, peer); /* the stream would have a hole */
			return NULL;
		}
		peer->out = grown;
		peer->room = room;
	}
	link->changed = true; /* POLLOUT */
	return peer->out + peer->filled;
}

bool link_keep(
	struct link *link, struct peer *peer, const struct iovec *parts, unsigned count, size_t skip, size_t size)
{
	if (!link_room(link, peer, size - skip))
		return false;
	for (unsigned i = 0; i < count; i++) {
		size_t from = skip < parts[i].iov_len ? skip : parts[i].iov_len;
		skip -= from;
		if (from == parts[i].iov_len)
			continue; /* a part without bytes may have no pointer */
		memcpy(peer->out + peer->filled, (const char *)parts[i].iov_base + from, parts[i].iov_len - from);
		peer->filled += parts[i].iov_len - from;
	}
	return true;
}

int link_send(struct link *link, struct wire_frontend to, const struct iovec *parts, unsigned count)
{
	struct peer *peer = find(link, to);
	struct iovec all[1 + LINK_PARTS];
	char head[ZMTP_FRAME_HEAD];
	size_t size = 0;

	if (!peer || (peer->filled > 0 && !link_write(link, peer)))
		return LP_GONE;
	for (unsigned i = 0; i < count; i++) {
		all[1 + i] = parts[i];
		size += parts[i].iov_len;
	}
	if (peer->filled > 0 && size > BARE && peer->filled - peer->sent + size > ENOUGH)
		return LP_AGAIN;
	all[0] = (struct iovec){head, zmtp_frame_head(head, size)};
	size += all[0].iov_len;
	ssize_t sent = 0;
	if (peer->filled == 0 && peer->in.state == ZMTP_TALKS) {
		const struct msghdr message = {.msg_iov = all, .msg_iovlen = 1 + count};
		do
			sent = sendmsg(peer->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
		while (sent < 0 && errno == EINTR);
		if (sent < 0 && errno != EAGAIN) {
			link_lose(link, peer);
			return LP_GONE;
		}
		if (sent < 0)
			sent = 0;
	}
	return (size_t)sent == size || link_keep(link, peer, all, 1 + count, (size_t)sent, size) ? LP_OK : LP_GONE;
}

int link_say(struct link *link, struct wire_frontend to, const void *data, size_t size)
{
	return link_send(link, to, &(struct iovec){(void *)(uintptr_t)data, size}, 1);
}

int link_say_head(struct link *link, struct wire_frontend to, uint32_t kind, uint64_t serial, uint32_t request,
	unsigned slot, unsigned flags)
{
	struct wire_head head = {.kind = kind, .size = sizeof(head), .serial = serial, .request = request};

	head.slot = (uint16_t)slot;
	head.flags = (uint16_t)flags;
	return link_say(link, to, &head, sizeof(head));
}

/* ---- all of it */

void link_flush(struct link *link, int milliseconds, bool patient)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	int64_t end = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + milliseconds, left = milliseconds;

	while (left > 0) {
		struct pollfd waits[WIRE_FRONTENDS];
		struct peer *peers[WIRE_FRONTENDS];
		unsigned count = 0;
		for (unsigned i = 0; i < WIRE_FRONTENDS; i++) {
			if (link->peer[i].fd < 0 || !link_writes(&link->peer[i]) || (link->peer[i].late && !patient))
				continue;
			waits[count] = (struct pollfd){link->peer[i].fd, POLLOUT, 0};
			peers[count++] = &link->peer[i];
		}
		if (count == 0)
			return;
		if (poll(waits, count, (int)left) > 0)
			for (unsigned i = 0; i < count; i++)
				if (waits[i].revents)
					link_write(link, peers[i]);
		clock_gettime(CLOCK_MONOTONIC, &t);
		left = end - ((int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000);
		for (unsigned i = 0; i < count && left <= 0; i++)
			peers[i]->late = true;
	}
}
