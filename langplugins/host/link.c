/* Connections to the front ends. See link.h. */
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

#define BUFFER	    16384   /* bytes: some thirty requests; of a larger message no more than this is copied */
#define DIRECT	    4096    /* bytes that are missing of a message, to be read straight into it */
#define SEND_BUFFER 1048576 /* bytes in the kernel: pieces of WIRE_PIECE go in whole */
_Static_assert(MESSAGE_ROOM == WIRE_PIECE + 64, "a piece and its head fit");
#define CONNECT_S 2 /* a front end that hangs, with a full backlog, is not waited for longer */

int link_open(struct link *link, const struct wire_identity *identity, uint32_t slots, const int *others)
{
	memset(link, 0, sizeof(*link));
	link->identity = *identity;
	link->hello.head.kind = WIRE_HELLO;
	link->hello.head.size = sizeof(link->hello);
	link->hello.head.slot = identity->slot;
	link->hello.magic = WIRE_MAGIC;
	link->hello.version = WIRE_VERSION;
	link->hello.pid = (uint32_t)getpid();
	link->hello.slots = slots;
	for (unsigned i = 0; i < WIRE_FRONTENDS; i++)
		link->peer[i].fd = -1;
	for (unsigned i = 0; i < LINK_OTHERS; i++)
		link->poll[i] = (struct pollfd){others[i], POLLIN, 0};
	link->changed = true;
	link->set = -1;
	link->buffer = malloc(BUFFER);
	return link->buffer ? 0 : -1;
}

/* ---- front ends come and go */

/* The connection is over. Its place is kept, so that nobody connects again: an address is never used twice. */
void link_lose(struct link *link, struct peer *peer)
{
	/* By hand: a child that is about to exec may have another copy of the descriptor. */
	if (peer->watched)
		epoll_ctl(link->set, EPOLL_CTL_DEL, peer->fd, NULL);
	peer->watched = 0;
	if (peer->fd >= 0)
		close(peer->fd);
	peer->fd = -1;
	peer->closed = true;
	peer->readable = false;
	zmtp_close(&peer->in);
	free(peer->out);
	peer->out = NULL;
	peer->sent = peer->filled = peer->room = 0;
	link->changed = true;
}

static void forget(struct link *link, struct peer *peer)
{
	link_lose(link, peer);
	if (peer == &link->peer[link->reading])
		link->at = link->end;
	memset(peer, 0, sizeof(*peer));
	peer->fd = -1;
}

/* Greeting and READY at once: nothing of what the other side has to say would change them. The hello is kept, though,
 * until its READY has come: libzmq takes no message before it has sent that. */
static bool introduce(const struct link *link, int fd)
{
	char opening[ZMTP_OPENING];
	size_t size = zmtp_opening(opening, &link->identity, sizeof(link->identity));

	return send(fd, opening, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size;
}

static int connect_to(const char *path)
{
	const struct timeval limit = {CONNECT_S, 0};
	const int room = SEND_BUFFER;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t size = strnlen(path, HOST_PATH);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (size >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
	} else {
		memcpy(address.sun_path, path, size);
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
		/* Waiting is for the connection alone; sendfile(2) has no flag for not waiting. */
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
			fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0)
			return fd;
	}
	int number = errno;
	close(fd);
	errno = number;
	return -1;
}

static void meet(struct link *link, struct peer *peer, const struct host_frontend *frontend)
{
	memset(peer, 0, sizeof(*peer));
	peer->name.role = 'F';
	peer->name.ordinal = (uint8_t)frontend->ordinal;
	peer->name.incarnation = frontend->incarnation;
	zmtp_init(&peer->in, WIRE_MESSAGE);
	peer->fd = connect_to(frontend->path);
	link->changed = link->meets = true;
	if (peer->fd >= 0 && introduce(link, peer->fd)) {
		link_say(link, peer->name, &link->hello, sizeof(link->hello));
		return;
	}
	/* It may have died since the manager heard of it; then the next list has another in its place. */
	if (errno != ENOENT && errno != ECONNREFUSED && errno != EPIPE)
		log_format(NULL, LP_ERROR, "cannot connect to front end %u at %.*s: %s", frontend->ordinal, HOST_PATH,
			frontend->path, strerror(errno));
	link_lose(link, peer);
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

bool link_meets(struct link *link)
{
	if (!link->meets)
		return false;
	link->meets = false;
	for (unsigned i = 0; i < WIRE_FRONTENDS; i++)
		link->meets |= link->peer[i].fd >= 0 && !link->peer[i].probed;
	return link->meets;
}

bool link_knows(const struct link *link, struct wire_frontend name)
{
	return name.ordinal < WIRE_FRONTENDS && link->peer[name.ordinal].fd >= 0 &&
	       link->peer[name.ordinal].name.incarnation == name.incarnation;
}

/* ---- waiting */

static void poll_anew(struct link *link)
{
	link->polls = 0;
	for (unsigned i = 0; i < WIRE_FRONTENDS; i++) {
		const struct peer *peer = &link->peer[i];
		if (peer->fd < 0)
			continue;
		link->poll[LINK_OTHERS + link->polls] = (struct pollfd){
			peer->fd, (short)(link_writes(peer) ? POLLIN | POLLOUT : POLLIN), 0};
		link->polled[link->polls++] = (uint8_t)i;
	}
	link->changed = false;
}

/* Whoever may wait for ever gives back first what it has kept, once nothing has happened for a while. */
static int wait_long(struct link *link)
{
	if (messages_kept()) {
		int ready = poll(link->poll, LINK_OTHERS + link->polls, MESSAGES_MS);
		if (ready)
			return ready;
		messages_forget();
	}
	return poll(link->poll, LINK_OTHERS + link->polls, -1);
}

unsigned link_wait(struct link *link, int milliseconds)
{
	unsigned others = 0;

	if (link->changed)
		poll_anew(link);
	/* What was read and not taken is announced by nobody. */
	if (link->at < link->end)
		milliseconds = 0;
	if ((milliseconds < 0 ? wait_long(link) : poll(link->poll, LINK_OTHERS + link->polls, milliseconds)) <= 0)
		return 0;
	for (unsigned i = 0; i < LINK_OTHERS; i++)
		others |= link->poll[i].revents ? 1u << i : 0;
	for (unsigned i = 0; i < link->polls; i++) {
		struct peer *peer = &link->peer[link->polled[i]];
		short events = link->poll[LINK_OTHERS + i].revents;
		if (events & ~POLLOUT)
			peer->readable = true;
		peer->ended |= (events & POLLHUP) != 0;
		if (events & POLLOUT)
			link_write(link, peer);
	}
	return others;
}

/* ---- receiving */

/* Read from one peer that may have something. False: none has. */
static bool read_some(struct link *link, struct message **message)
{
	for (unsigned i = 0; i < WIRE_FRONTENDS; i++) {
		unsigned ordinal = (link->next + i) % WIRE_FRONTENDS;
		struct peer *peer = &link->peer[ordinal];
		if (!peer->readable)
			continue;
		/* A large body goes where it belongs, a small one is copied there. */
		char *to = NULL;
		size_t room = zmtp_room(&peer->in, &to);
		bool direct = room >= DIRECT;
		if (!direct) {
			to = link->buffer;
			room = BUFFER;
		}
		ssize_t got = recv(peer->fd, to, room, MSG_DONTWAIT);
		if (got < 0 && errno == EINTR)
			return true;
		if (got == 0 || (got < 0 && errno != EAGAIN)) {
			link_lose(link, peer);
			continue;
		}
		/* Less than was asked for is all there was, but for its end: what comes from who is gone is not begun.
		 */
		if (got < (ssize_t)room && !(peer->ended && got > 0))
			peer->readable = false;
		if (got < 0)
			continue;
		link->reading = ordinal;
		link->next = ordinal + 1;
		if (direct)
			*message = zmtp_filled(&peer->in, (size_t)got);
		else
			link->end = (size_t)got;
		return true;
	}
	return false;
}

/* A whole message, or NULL: nothing more is there, or (broken) its peer does not speak the protocol and is closed. */
static struct message *next_message(struct link *link, bool *broken)
{
	struct message *message = NULL;

	*broken = false;
	while (!message) {
		if (link->at == link->end) {
			link->at = link->end = 0;
			if (!read_some(link, &message))
				return NULL;
			continue;
		}
		struct peer *peer = &link->peer[link->reading];
		bool talks = peer->in.state == ZMTP_TALKS;
		/* It may have been lost while something was sent to it. */
		if (peer->in.state != ZMTP_BROKEN)
			link->at += zmtp_take(&peer->in, link->buffer + link->at, link->end - link->at, &message);
		if (!talks && peer->in.state == ZMTP_TALKS)
			link_write(link, peer);
		if (peer->in.state == ZMTP_BROKEN && !message) {
			*broken = peer->fd >= 0;
			if (*broken)
				link_lose(link, peer);
			link->at = link->end;
			if (*broken)
				return NULL;
		}
	}
	return message;
}

enum link_got link_receive(
	struct link *link, struct wire_frontend *from, struct wire_head *head, struct message **message)
{
	bool broken;
	struct message *found = next_message(link, &broken);

	if (!found)
		return broken ? LINK_BROKEN : LINK_NOTHING;
	if (found->size >= sizeof(*head)) {
		memcpy(head, found->data, sizeof(*head));
		*from = link->peer[link->reading].name;
		*message = found;
		if (head->size == found->size)
			return LINK_FRAME;
	}
	message_free(found);
	return LINK_BROKEN;
}

/* ---- the end */

void link_close(struct link *link)
{
	for (unsigned i = 0; i < WIRE_FRONTENDS; i++)
		forget(link, &link->peer[i]);
	free(link->buffer);
	link->buffer = NULL;
	link->at = link->end = 0;
	messages_forget();
}

void link_abandon(struct link *link)
{
	for (unsigned i = 0; i < WIRE_FRONTENDS; i++) {
		if (link->peer[i].fd >= 0)
			close(link->peer[i].fd);
		link->peer[i].fd = -1;
		link->peer[i].readable = false;
	}
}
