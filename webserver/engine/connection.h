/*
 * A client's connection: shared by connection.c (its life), reading.c (what comes in), output.c (what goes out),
 * listener.c (how it begins) and request.c.
 *
 * Input. `in` holds the head that is being read or, pinned, the head of the request that lives: its texts point there,
 * so it neither moves nor grows until the request has ended. Bytes behind the head (body, or the next request) stay in
 * it. Body bytes that come later go through one scratch buffer of the engine and are handed on at once; what turns out
 * to lie behind a chunked body is kept in `carry`, which becomes `in` for the next request.
 *
 * A closed connection stays in memory, in phase PHASE_CLOSED, until the turn is over, so a function may still look at
 * it after something it called has closed it.
 */
#ifndef WEBSERVER_ENGINE_CONNECTION_H
#define WEBSERVER_ENGINE_CONNECTION_H

#include <arpa/inet.h>
#include <llhttp.h>

#include "buffers.h"
#include "chunked.h"
#include "engine.h"
#include "output.h"

#define SCRATCH_SIZE 65536

/* Unread body up to this size is read and thrown away so that the connection can be kept; else it is closed. */
#define DISCARD_LIMIT 65536
/* After an answer that closes: what the client may still send before it has seen the answer. After one that does not,
   and whose backend has left so much of the body: the client was told that the connection is kept. */
#define LINGER_BYTES (16U << 20)

enum phase {
	PHASE_IDLE = 0,	   /* between requests, nothing of the next one is here */
	PHASE_HEAD = 1,	   /* part of a head is here */
	PHASE_REQUEST = 2, /* a request lives */
	PHASE_DISCARD = 3, /* the request has ended, its body has not */
	PHASE_LINGER =
		4, /* our side is shut; what still comes is thrown away so that the client gets to see the answer */
	PHASE_CLOSED = 5
};

enum body_kind { BODY_NONE = 0, BODY_LENGTH = 1, BODY_CHUNKED = 2, BODY_TUNNEL = 3 /* until the client's end */ };

/* How bytes move. One for sockets; tests have another. Results and errno as the system calls have them. */
struct transport {
	ssize_t (*receive)(struct connection *c, void *data, size_t size);
	ssize_t (*send)(struct connection *c, const struct msghdr *message, int flags);
	ssize_t (*send_file)(struct connection *c, int fd, off_t *offset, size_t size);
	void (*shut)(struct connection *c); /* no more is sent */
	void (*close)(struct connection *c);
};

struct input {
	char *data; /* NULL: no buffer is held */
	size_t room;
	size_t start; /* first byte of the head */
	size_t at;    /* first byte that nobody has taken */
	size_t end;
};

struct connection {
	struct pollable poll;
	struct engine *engine;
	const struct transport *transport;
	struct list node;	 /* connections.open, .idle or .closed */
	struct list due;	 /* connections.due */
	struct timer timer;	 /* for what comes in: head, idle, body, linger */
	struct timer send_timer; /* for what goes out */
	struct request *request;

	uint8_t phase;
	uint8_t body;	  /* enum body_kind */
	bool driving;	  /* connection_drive is on the stack */
	bool readable;	  /* a read may find something: do not wait for the descriptor first */
	bool peer_shut;	  /* it will send nothing more */
	bool ended;	  /* BODY_TUNNEL: the client's end of file has been read */
	bool hung;	  /* both sides are shut: out of the epoll set, which would tell of nothing else */
	bool probed;	  /* has been asked whether it is still there */
	bool keep;	  /* after the request: another may follow */
	bool broken;	  /* no memory, or an error was seen: to be closed as soon as nobody is on the stack */
	bool head_partly; /* parser has eaten part of this head, only to find errors early */
	uint8_t family;	  /* sa_family_t fits */
	uint16_t remote_port, server_port;
	uint64_t body_left;    /* BODY_LENGTH */
	uint64_t discard_left; /* PHASE_DISCARD, PHASE_LINGER: bytes that may still come */
	struct chunked chunked;

	struct input in, carry;
	llhttp_t parser;
	struct output out;

	uint8_t remote_address[16];
	char remote[INET6_ADDRSTRLEN], server[INET6_ADDRSTRLEN]; /* made when first asked for */
};

struct connections {
	struct buffers buffers;
	struct segments segments;
	struct list open, idle, closed, due, listeners;
	struct connection *free; /* linked through node.next */
	uint32_t free_count;
	char *scratch;
	int reserve_fd;	   /* given up for a moment when descriptors run out */
	int last_fd;	   /* of the connections that were accepted */
	uint64_t short_ns; /* since when descriptors are missing; 0: they are not */
	uint64_t complained_ns;
	bool accept_stopped; /* no listener is in the epoll set's interest */
	struct timer accept_timer;
	struct timer drain_timer;
	bool emptied; /* EVENT_EMPTY was told */
	struct http1 *http1;
	struct timer_queue *head_queue, *idle_queue, *body_queue, *linger_queue, *send_queue, *probe_queue,
		*accept_queue, *drain_queue;
};

/* ---- connection.c */
/* Takes fd, also on failure. NULL: it was closed. */
struct connection *connection_open(struct engine *e, int fd, const struct sockaddr *remote, uint16_t server_port);
/* Without a socket, for tests: fd is -1 and nothing is registered. */
struct connection *connection_make(struct engine *e, const struct transport *transport);
void connection_ready(struct engine *e, struct pollable *self, uint32_t events);
/* Take what is there and go on with it as far as that goes. */
void connection_drive(struct connection *c);
/* Have connection_drive called by the loop. */
void connection_later(struct connection *c);
/* Close now; a request that lives is released as cut off. */
void connection_close(struct connection *c);
/* Close now, and have the kernel drop what the client has not taken: megabytes that it would offer for minutes. */
void connection_reset(struct connection *c);
/* Close as soon as nobody is on the stack who may still use the request. */
void connection_fail(struct connection *c);
/* The request's answer is whole and written: end it, and go on or close. */
void connection_finish(struct connection *c);
/* The request has been answered with 101: what comes is its body, to the client's end. */
void connection_tunnel(struct connection *c);
/* Nothing of a request is left: what comes next is the next one. */
void connection_idle(struct connection *c);
/* Shut our side and wait a while for the client to see the answer. */
void connection_linger(struct connection *c);
/* Register interest in input or stop it. */
void connection_listen(struct connection *c, bool input);
void connection_expect_output(struct connection *c, bool output);

/* ---- connections.c */
/* After a connection has closed: EVENT_EMPTY, once, when engine_drain was asked and it was the last. */
void connections_tell_when_empty(struct engine *e);

/* ---- reading.c: each says whether connection_drive should go on */
bool head_step(struct connection *c);
bool body_step(struct connection *c);
bool discard_step(struct connection *c);
bool linger_step(struct connection *c);
/* Bytes behind the current head and body that are already here. */
size_t input_left(const struct connection *c);
void input_release(struct connection *c);
/* The current head, and the body behind it, have been taken: the next head begins here. */
void input_next(struct connection *c);

/* ---- listener.c */
void listeners_resume(struct engine *e);
void listeners_stop(struct engine *e);
void listeners_free(struct engine *e);

/* ---- request.c */
/* A new request of this connection; NULL: no memory. */
struct request *request_new(struct connection *c);
/* Record it, release the backend, free it. */
void request_end(struct request *r, bool complete);
/* The backend no longer has it, because the engine answers instead (413, 408). It hears release(incomplete). */
void request_withdraw(struct request *r);

#endif
