/*
 * link.h - one ROUTER socket and the front ends it is connected to. Used by each slot and by the keeper; belongs to the
 * thread that opened it.
 */
#ifndef WEBSERVER_HOST_LINK_H
#define WEBSERVER_HOST_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <zmq.h>

#include "host.h"

struct frontends {
	unsigned count;
	struct host_frontend item[WIRE_FRONTENDS];
};

struct peer {
	struct wire_frontend name; /* role 0: nobody has this ordinal */
	bool closed;		   /* has sent WIRE_CLOSED: no request follows */
	char endpoint[HOST_PATH + 8];
};

struct link {
	void *socket;
	int descriptor; /* ZMQ_FD: edge-triggered, so sleep on it only after a receive that said there is nothing */
	struct wire_hello hello;
	struct peer peer[WIRE_FRONTENDS]; /* by ordinal */
};

/* What link_receive returns. */
enum link_got {
	LINK_NOTHING = 0,
	LINK_FRAME = 1,	 /* from and head are set, message is the caller's; head.size is the message's size */
	LINK_BROKEN = 2, /* one message that breaks the rules: thrown away, to be counted */
	LINK_STRAY = 3	 /* from a front end that is no longer in the list: thrown away */
};

int link_open(struct link *link, void *context, const struct wire_identity *identity, uint32_t slots);
/* Connects to new front ends, disconnects from those not in the list. */
void link_update(struct link *link, const struct frontends *frontends);
enum link_got link_receive(struct link *link, struct wire_frontend *from, struct wire_head *head, zmq_msg_t *message);
bool link_knows(const struct link *link, struct wire_frontend name);

/*
 * Begin a message to a front end: LP_OK, LP_AGAIN when its queue is full, LP_GONE when the connection is. After LP_OK
 * link_finish must follow; it takes the message in any case and cannot fail for want of room.
 */
int link_begin(struct link *link, struct wire_frontend to);
void link_finish(struct link *link, zmq_msg_t *message);

/* A message that is a bare head (or a larger struct that begins with one): LP_OK, LP_AGAIN, LP_GONE. */
int link_say(struct link *link, struct wire_frontend to, const void *data, size_t size);
int link_say_head(struct link *link, struct wire_frontend to, uint32_t kind, uint64_t serial, uint32_t request,
	unsigned slot, unsigned flags);
void link_close(struct link *link);

#endif
