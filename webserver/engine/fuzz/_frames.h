/* The harness of frames: an engine whose clients, libzmq, files and clock are made up, and a channel around it. */
#ifndef WEBSERVER_ENGINE_FUZZ_FRAMES_H
#define WEBSERVER_ENGINE_FUZZ_FRAMES_H

#include "channel.h"
#include "connection.h"

#define CLIENTS	    4
#define PLACEMENTS  64
#define WORKERS	    3 /* of one generation at one time */
#define SLOTS	    2
#define MARK	    8 /* bytes at the beginning of an answer's pieces that say whose it is */
#define MARK_BEGINS 0x5ac3

/* A request as a worker knows it, from the frame that brought it. */
struct placement {
	struct wire_identity at;
	uint64_t serial, client; /* client: never 0, never used twice */
	uint32_t request, life;
	uint64_t given;	       /* answer bytes that its worker has sent */
	uint64_t body, credit; /* of the request's body: seen, allowed */
	uint64_t window;       /* what the engine allows of the answer */
	bool closed, tunnel;
};

struct client {
	struct connection *c; /* NULL: not connected */
	uint64_t number;
	char in[8192]; /* to be received */
	size_t in_size;
	bool gone, deaf; /* gone: end of file; deaf: takes nothing */
	uint64_t seen;	 /* the latest bytes that it got, as a mark has them in memory */
};

/* What one socket has got from workers and nobody has read. */
struct fake_socket {
	struct {
		char identity[24], *data;
		size_t identity_size, size;
		unsigned parts;
	} queue[16];
	unsigned count, part;
};

struct world {
	struct engine *e;
	struct client client[CLIENTS];
	struct placement placed[PLACEMENTS]; /* the latest; at serial order */
	unsigned placements;
	uint64_t clients, now_ns, latest_serial;
	int zmq_errno;	      /* what the next sends fail with; 0: they do not */
	long messages, files; /* that live */
	struct wire_page *page;
	int page_fd;
};
extern struct world world;

void must(bool condition);
uint64_t mark_of(uint64_t serial);

/* _frames_zmq.c */
extern struct zmqlib fake_zmq;
bool socket_push(struct fake_socket *s, const void *identity, size_t identity_size, const void *data, size_t size,
	unsigned parts);
void socket_empty(struct fake_socket *s);
struct placement *placement_find(uint64_t serial); /* NULL: not one of the latest */

/* _frames_clients.c */
extern const struct transport fake_transport;
struct client *client_of(const struct connection *c);

/* _frames_checks.c */
void channel_ok(struct engine *e);

#endif
