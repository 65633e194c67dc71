/* A link's connections in somebody else's epoll set: see link.h. */
#include <sys/epoll.h>

#include "link.h"

static void watch(struct link *link, struct peer *peer, unsigned ordinal, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.u64 = link->mark + ordinal};

	if (peer->watched == events)
		return;
	/* No memory for it, or no more watches: the connection would be deaf, and its front end is told by its end. */
	if (epoll_ctl(link->set, peer->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, peer->fd, &event))
		link_lose(link, peer);
	else
		peer->watched = events;
}

void link_watch(struct link *link, bool read)
{
	for (unsigned i = 0; i < WIRE_FRONTENDS; i++) {
		struct peer *peer = &link->peer[i];
		if (peer->fd < 0)
			continue;
		watch(link, peer, i,
			WATCH_ALWAYS | (read ? (uint32_t)EPOLLIN : 0) | (link_writes(peer) ? (uint32_t)EPOLLOUT : 0));
	}
	link->changed = false;
}

void link_event(struct link *link, unsigned ordinal, uint32_t events)
{
	struct peer *peer = &link->peer[ordinal];

	if (peer->fd < 0)
		return;
	if (events & ~(uint32_t)EPOLLOUT)
		peer->readable = true;
	peer->ended |= (events & EPOLLHUP) != 0;
	if (events & EPOLLOUT)
		link_write(link, peer);
}
