/*
 * link.h - connections to the front ends, one to each. Used by each slot and by the keeper; belongs to the thread that
 * opened it.
 *
 * The front ends' end of a connection is a ROUTER of libzmq. This end speaks the same protocol (zmtp.h) on the bare
 * socket: it needs no thread beside the one that has the work anyway, which saves two context switches in a request,
 * and an application that brings a libzmq of its own is not in the same process with another one.
 */
#ifndef WEBSERVER_HOST_LINK_H
#define WEBSERVER_HOST_LINK_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "host.h"
#include "zmtp.h"

#define LINK_OTHERS  2				       /* descriptors that are waited for beside the front ends' */
#define LINK_PARTS   3				       /* of a message that is sent, at most */
#define WATCH_ALWAYS ((uint32_t)(EPOLLERR | EPOLLHUP)) /* what epoll(7) tells of unasked */

struct frontends {
	unsigned count;
	struct host_frontend item[WIRE_FRONTENDS];
};

struct peer {
	struct wire_frontend name; /* role 0: nobody has this ordinal */
	bool probed;		   /* has asked whether anybody is here: with the answer it knows the slot */
	bool closed;		   /* has sent WIRE_CLOSED, or is gone: no request follows */
	bool readable;		   /* there may be something to read */
	bool ended;		   /* the other side is closed; what it has sent before that may still be there */
	bool late;		   /* has been waited for in vain, and has taken nothing since */
	bool awaited;		   /* somebody waits for room in the socket, with nothing in out */
	int fd;			   /* -1: the connection has ended */
	uint32_t watched;	   /* events of epoll_ctl(2); 0: it is not in the set */
	struct zmtp in;
	/* What the socket had no room for: room bytes at out, of which [sent, filled) are to be written. */
	char *out;
	size_t sent, filled, room;
};

struct link {
	struct wire_hello hello;
	struct wire_identity identity;
	struct peer peer[WIRE_FRONTENDS]; /* by ordinal */
	/* Read and not yet looked at: [at, end) of buffer, from peer[reading]. */
	char *buffer;
	size_t at, end;
	unsigned reading, next;
	struct pollfd poll[LINK_OTHERS + WIRE_FRONTENDS]; /* the others first */
	uint8_t polled[WIRE_FRONTENDS];			  /* ordinals of the rest */
	unsigned polls;
	bool changed;  /* poll is to be made anew, or watched */
	bool meets;    /* some may not have probed yet; see link_meets */
	int set;       /* epoll(7), whoever waits there; -1: link_wait is used */
	uint64_t mark; /* of this link there, with the ordinal added */
};

/* What link_receive returns. */
enum link_got {
	LINK_NOTHING = 0,
	LINK_FRAME = 1, /* from, head and message are set; head.size is the message's size; message is the caller's */
	LINK_BROKEN = 2 /* something that breaks the rules: thrown away, to be counted */
};

/* others: LINK_OTHERS descriptors, -1 for none. 0 or -1. */
int link_open(struct link *link, const struct wire_identity *identity, uint32_t slots, const int *others);
/* Connects to new front ends, disconnects from those not in the list. */
void link_update(struct link *link, const struct frontends *frontends);
/* True while there is a front end that has not answered the hello with its probe. */
bool link_meets(struct link *link);
bool link_knows(const struct link *link, struct wire_frontend name);
/* Sleep until a front end has sent something, or can be sent what waits, or one of the others can be read. Returns a
   bit for each of those; 0 at the end of the time. */
unsigned link_wait(struct link *link, int milliseconds);
/* The next message of what link_wait has seen. */
enum link_got link_receive(
	struct link *link, struct wire_frontend *from, struct wire_head *head, struct message **message);

/* Instead of link_wait, watch.c: have `set` watch each connection, for what waits to be sent and, if `read`, for what
   comes. WATCH_ALWAYS is among a connection's events while it is in the set. */
void link_watch(struct link *link, bool read);
/* The set has told of one of them. */
void link_event(struct link *link, unsigned ordinal, uint32_t events);

/* A message of count parts: LP_OK, it is on its way; LP_AGAIN, nothing of it is, since older ones wait; LP_GONE. */
int link_send(struct link *link, struct wire_frontend to, const struct iovec *parts, unsigned count);
/*
 * The same, with size bytes of a regular file from offset behind the parts (sendfile.c). A message's size is said
 * before its bytes: what the file does not have any more is sent as zeros, and *torn says so; the answer must then be
 * aborted.
 */
int link_send_file(struct link *link, struct wire_frontend to, const struct iovec *parts, unsigned count, int fd,
	int64_t offset, size_t size, bool *torn);
int link_say(struct link *link, struct wire_frontend to, const void *data, size_t size);
/* A message that is a bare head. */
int link_say_head(struct link *link, struct wire_frontend to, uint32_t kind, uint64_t serial, uint32_t request,
	unsigned slot, unsigned flags);
/* Wait until everything has been written, or the time is over. patient: also for those that were waited for in vain. */
void link_flush(struct link *link, int milliseconds, bool patient);
void link_close(struct link *link);
/* Keep for later what is beyond the first `skip` of the parts' size bytes. False: no memory; the connection is lost. */
bool link_keep(
	struct link *link, struct peer *peer, const struct iovec *parts, unsigned count, size_t skip, size_t size);
/* Room for size bytes behind what is kept, which become part of it by adding to peer->filled. NULL: as link_keep. */
char *link_room(struct link *link, struct peer *peer, size_t size);
/* The connection is over. */
void link_lose(struct link *link, struct peer *peer);
/* True if something waits that may be written. */
bool link_writes(const struct peer *peer);
/* Write what waits for this one, as far as there is room. False: the connection is gone. */
bool link_write(struct link *link, struct peer *peer);
/* After a fork: only closes descriptors. */
void link_abandon(struct link *link);

#endif
