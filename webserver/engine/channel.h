/*
 * The engine's half of the channel: which request is at which slot of which worker, and how far it has come.
 *
 *   group.c      a group's options; a request comes in, its body policy; stats
 *   exchange.c   struct exchange: its states and legal edges, its memory
 *   queue.c      requests that wait for a slot: first in, first out, bounded in length and time
 *   generation.c sockets, workers as control announces them, draining and closing
 *   slots.c      a slot's states, hello, probe, leaving; what is placed at it
 *   place.c      which slot; sending; looking after what does not start; recall
 *   posts.c      answers that are found in workers' loans (posts.h)
 *   frames.c     what workers say: checked against the engine's own record before anything is done
 *   answers.c    answer heads and bodies on their way to the client; credit for the worker (answers.h)
 *   tunnel.c     requests that were answered with 101: how they begin, and how long they may go on
 *   gather.c     request bodies that arrive before a worker is taken
 *   bodies.c     request bodies on their way to the worker, within its credit
 *   block.c      a request as one flat block
 *   absorb.c     what clients do not take yet of answers, and credit
 *   spool.c      unlinked files for what memory is too small for
 *   endings.c    a worker's death: reading the rest, judging its requests by the page
 *   quarantine.c requests that end the workers that run them
 *   pages.c      workers' pages, which are hostile input
 *   loans.c      pieces of answers where workers have written them; sealed.c maps both
 *   zmqlib.c     the functions of the libzmq that pyzmq loaded
 *
 * Ownership: channel -> groups -> generations -> workers -> slots. An exchange belongs to its request until
 * backend->release, and to the queue or slot that holds it; it is freed when neither does. A worker is freed when its
 * requests have been judged, a generation by engine_generation_close, a group when its last exchange is gone.
 *
 * What Python must set on a generation's ROUTER socket before it binds and hands it over:
 *   ZMQ_ROUTER_MANDATORY 1   a send to a worker that is gone must fail: that is how its end is seen
 *   ZMQ_ROUTER_HANDOVER 0    a second connection never takes an identity over
 *   ZMQ_MAXMSGSIZE WIRE_MESSAGE
 *   ZMQ_SNDHWM, ZMQ_RCVHWM CHANNEL_HIGH_WATER   per connection; what does not fit is tried again, never dropped
 *   ZMQ_LINGER 0, ZMQ_IMMEDIATE 0
 * and the peer's uid must be checked (SO_PEERCRED through the directory's mode and, where libzmq has it, a ZAP
 * handler). The engine counts connections that have spoken; how many were accepted is for Python's socket monitor to
 * watch.
 */
#ifndef WEBSERVER_ENGINE_CHANNEL_H
#define WEBSERVER_ENGINE_CHANNEL_H

#include "engine.h"
#include "loans.h"
#include "pages.h"
#include "sendfile.h"
#include "spool.h"
#include "wire.h"
#include "zmqlib.h"

#define CHANNEL_HIGH_WATER  256 /* messages; above 32 requests, their bodies' pieces, credits and cancels */
#define FRAMES_A_TURN	    64	/* read from one generation before something else gets its turn: some 0.3 ms */
#define DUE_A_TURN	    256
#define VIOLATIONS	    64 /* broken rules in VIOLATION_WINDOW_NS that one generation may have on its account */
#define VIOLATION_WINDOW_NS 60000000000ull
#define CONNECTION_SLACK    8		 /* connections beyond twice the slots and keepers: workers being replaced */
#define AHEAD_NS	    1000000ull	 /* work placed behind a running request, at most */
#define STUCK_NS	    2000000ull	 /* a placed request that has not started by then is recalled */
#define LOOK_NS		    10000000ull	 /* whoever has a queue looks again: a lost wake-up may cost this much */
#define LAST_WORDS_NS	    200000000ull /* how long a dead worker's connection may stay open (a child holds it) */
#define RERUNS		    3	       /* times that a request is run elsewhere because a worker died before it began */
#define SMALL_BODY	    2048       /* bytes that are copied beside the head rather than kept in their message */
#define SPOOL_A_TURN	    8388608ull /* bytes written to spool files in one turn */
#define WORKER_BUCKETS	    64

/* ---- exchange.c */
enum exchange_state {
	EXCHANGE_FREE = 0,
	EXCHANGE_GATHERING, /* its body is coming in; no worker is involved */
	EXCHANGE_QUEUED,    /* in its group's queue */
	EXCHANGE_PLACED,    /* sent to a slot; not known to have started */
	EXCHANGE_RECALLED,  /* asked back; the keeper's verdict is on its way */
	EXCHANGE_STARTED,   /* application code has it */
	EXCHANGE_ANSWERING, /* the answer's head has come */
	EXCHANGE_ANSWERED,  /* no worker has it any more; the client takes what is left */
	EXCHANGE_ABANDONED, /* no client; its slot is taken until the worker has said so */
	EXCHANGE_STATES
};

enum upload { UPLOAD_NONE = 0, UPLOAD_WHOLE, UPLOAD_FILE, UPLOAD_STREAM };
enum body_failure { BODY_NOT_KEPT = 1, BODY_TOO_LARGE };
enum owes { OWES_CANCEL = 1, OWES_CANCEL_KEEPER = 2, OWES_CREDIT = 4, OWES_PROBE = 8, OWES_CLOSED = 16 };

/* Before body bytes in memory, so that they can become a message where they are. */
struct body_head {
	uint64_t kept; /* the message was not sent: its end does not free the buffer */
	struct wire_body piece;
};

struct exchange {
	struct request *request; /* NULL: the client is gone */
	struct group *group;
	struct slot *slot; /* NULL: none has it */
	struct list node;  /* in its group's queue or its slot's exchanges */
	struct list due;   /* in channel->due: something to do at the end of this turn */
	struct timer deadline;
	uint64_t deadline_ns; /* 0: none, or not yet begun */
	uint64_t serial;      /* of the latest placing */
	uint64_t waits_ns;    /* when it was first queued */
	uint64_t sent_ns;
	uint64_t avoid; /* serial behind which it will not be placed again */
	uint32_t index; /* the request's, which is another's once the client is gone */
	uint8_t state, upload, owes, pins, reruns;
	uint8_t lane;	    /* of its group's queue, or QUEUE_RETURNED */
	bool answered_head; /* reply_begin was called */
	uint8_t failed;	    /* enum body_failure: its body was not kept, which is to be answered */
	bool flush;	    /* reply_* was called and nothing flushed yet */
	bool tunnel;	    /* it was answered with 101 */
	bool leaving;	    /* the tunnel is to end: its server or its generation does */
	struct list open;   /* in channel->tunnels, while a slot has it */

	struct engine_text script_name, path_info, script_filename;
	struct engine_text ran; /* what it is called, once its client is gone: quarantine.c */

	struct {
		uint64_t received, wanted, sent, limit; /* offsets in the body; limit: the worker's credit */
		char *buffer;				/* struct body_head, then body bytes; NULL: none */
		size_t size, capacity;			/* of body bytes in it */
		struct spool spool;
		bool complete; /* its last byte has come */
		bool closed;   /* WIRE_LAST has been sent */
	} body;

	struct {
		uint64_t received, given,
			limit;	 /* offsets in the answer's body; given: to reply_*; limit: our credit */
		uint64_t length; /* declared, or UINT64_MAX */
		struct spool spool;
		struct {
			uint64_t from, to;
		} runs[4]; /* parts of what was given that are in the spool file, in order */
		unsigned run_count;
		struct timer pressed;  /* armed: how much the client takes is being looked at */
		uint64_t pressed_from; /* what had left when that began */
		bool slow;	       /* the client is: what it does not take goes to the spool file */
		bool discard;	       /* HEAD, 204, 304: body bytes are not passed on */
		bool shut;	       /* a tunnel's worker says nothing more */
	} answer;
};

const char *exchange_state_name(unsigned state);
bool exchange_may(unsigned from, unsigned to);
struct exchange *exchange_make(struct engine *e, struct group *g, struct request *r); /* NULL: no memory */
void exchange_move(struct exchange *x, unsigned to);
/* Free it if nobody has it any more. */
void exchange_settle(struct exchange *x);
void exchange_pin(struct exchange *x); /* until exchange_unpin, which settles */
void exchange_unpin(struct exchange *x);
void exchange_due(struct exchange *x);
struct engine *exchange_engine(const struct exchange *x);
/* A worker will never be asked about it again, and its body is not needed. */
void exchange_forget_body(struct exchange *x);
/* Answer the client, if it is there, with status; the worker is told by release. x may be freed. */
void exchange_fail(struct exchange *x, int status, unsigned retry_after, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
void exchanges_free(struct engine *e);

/* ---- group.c, queue.c, generation.c, slots.c */
#define QUEUE_LANES    32
#define QUEUE_RETURNED QUEUE_LANES /* no lane: given back by a slot */

/* Requests of the sites whose number has the same rest: each lane has its turn. */
struct lane {
	struct list turn;    /* in group->turns while somebody waits here */
	struct list waiting; /* struct exchange.node, in the order in which they came */
	uint32_t count;
};

struct group {
	struct list node;
	struct engine *engine;
	uint32_t id;
	char *name;
	uint32_t queue_length;
	uint64_t queue_timeout_ns, request_timeout_ns;
	uint32_t quarantine;	       /* workers that a request may end in a row; 0: any number */
	struct timer_queue *deadlines; /* NULL: no request_timeout */
	struct list generations;       /* newest first */
	struct list returned;	       /* struct exchange.node: before all others in the queue */
	struct list turns;	       /* struct lane.turn */
	struct lane lane[QUEUE_LANES];
	struct list waiting; /* in channel->waiting while the queue is not empty */
	uint32_t queued, exchanges, tunnels;
	uint32_t fresh; /* of those queued: came in this turn of the engine */
	bool late;	/* overloaded: the newest come first */
	bool look;	/* something has changed since nothing could be placed */
	bool closed;
	bool elastic;
	uint64_t wanted_ns; /* when EVENT_WANTED was last told */
	uint64_t requests;
	uint64_t service_ns; /* running median of the time in application code; 0: not known yet */
};

struct hello_kept {
	struct wire_identity identity;
};

struct generation {
	struct list node;
	struct list recheck; /* in channel->recheck: the socket may hold frames, or swallowed its own wake-up */
	struct pollable poll;
	struct group *group;
	struct engine *engine;
	void *socket;
	uint32_t number, workers_expected, slots_per_worker;
	struct list workers;
	struct worker *buckets[WORKER_BUCKETS];
	struct hello_kept *hellos; /* of workers that control has not announced yet */
	uint32_t hello_count, hello_room;
	uint32_t connections; /* that have said hello and whose worker is not gone */
	uint32_t usable;      /* slots that new requests may go to */
	uint32_t in_flight;   /* exchanges at its slots */
	uint32_t cursor;      /* where the search for a busy slot begins */
	uint64_t empties;     /* how often the socket was read to its end */
	uint64_t violations_since;
	uint32_t violations;
	bool draining, drained, broken;
};

enum slot_state {
	SLOT_ABSENT = 0, /* no hello yet */
	SLOT_PROBED,	 /* hello was right; the probe is on its way */
	SLOT_USABLE,
	SLOT_LEAVING, /* finishes what it has */
	SLOT_GONE,    /* said goodbye */
	SLOT_LOST,    /* its connection is gone; its worker's end has not been told yet */
	SLOT_STATES
};

struct slot {
	struct worker *worker;
	struct wire_identity identity; /* as it stands before each of its frames */
	struct list free;	       /* in its worker's list while usable and nothing of ours is at it */
	struct list watched;	       /* in channel->watched while it has a placed exchange */
	struct list owing;	       /* in channel->owing while owes is not 0 */
	struct list busy;	       /* in channel->busy while something of ours is at it */
	struct list exchanges;	       /* in order of their serials */
	uint32_t placed;	       /* how many */
	uint32_t recalls;	       /* how many of them are recalled */
	uint16_t number;
	uint8_t state, owes;
	uint64_t full_until_ns;		      /* the connection took nothing more; not tried before */
	uint64_t done_ns;		      /* when its latest answer came */
	uint64_t seen_requests, seen_busy_ns; /* of its page, then */
};

struct worker {
	struct list node, ending;
	struct list told_asleep; /* in channel->told_asleep: it sends word of what it posts */
	struct worker *bucket_next;
	struct generation *generation;
	uint64_t number;
	uint32_t slots, running; /* running: exchanges at its slots */
	uint32_t gone_slots;
	struct page page;
	struct loans *loans;
	struct list free;
	struct wire_identity keeper_identity;
	bool keeper, gone, leaves, told_left, told_serving, told_silent, silent;
	bool excused;		     /* its end is no doing of what it runs */
	uint64_t gone_ns, silent_at; /* silent_at: generation->empties when the last connection was seen closed */
	uint64_t overdue_ns;	     /* when it was last told that a request's time is over; 0: never */
	uint64_t probe_ns;	     /* gone: not asked before whether its connections are closed */
	char cause[128];
	struct slot slot[];
};

struct channel {
	struct engine *engine;
	struct list groups, closed_groups;
	struct group **table; /* by id */
	uint32_t table_size;
	struct list recheck, due, waiting, watched, owing, busy, told_asleep, ending, tunnels;
	char *posted;	   /* WIRE_LOAN bytes: one answer that was posted */
	struct list retry; /* struct exchange.due: to be due at the next look */
	struct timer_queue *watch_queue, *look_queue;
	struct timer_queue *pressed;				      /* absorb.c */
	struct timer_queue *tunnel_idle, *tunnel_grace, *tunnel_last; /* the first two: NULL for no limit */
	struct timer watch, look;
	uint64_t serial_base, counter;
	uint32_t share; /* requests that this front end may have at one slot */
	struct exchange *spare;
	uint32_t spares;
	uint64_t spooled;	/* in this turn */
	uint64_t spool_told_ns; /* when a failing spool was last logged */
	struct field fields[WIRE_FIELDS + SENDFILE_FIELDS];
	struct sendfile sendfile; /* what the answer at hand names */
	struct quarantine *quarantine;
};

struct group *group_find(struct engine *e, uint32_t id); /* NULL: there is none */
void group_release_closed(struct engine *e);
void groups_free(struct engine *e);
void group_enqueue(struct exchange *x); /* its body is here, or will be streamed: it may be placed */
void group_sever(struct exchange *x);	/* its request is not its any more; x may be freed */
void group_cancel(struct exchange *x);	/* tell slot and keeper that nobody waits for the answer */

void queue_init(struct group *g);
struct exchange *queue_next(const struct group *g); /* NULL: nobody waits */
void queue_append(struct exchange *x);		    /* may refuse, and end the request */
void queue_prepend(struct exchange *x);
void queue_remove(struct exchange *x);
void queue_place(struct group *g);
void queue_look(struct engine *e);		   /* every LOOK_NS */
uint64_t queue_waits_since(const struct group *g); /* when who waits longest began to; 0: nobody waits */

struct generation *generation_find(const struct group *g, uint32_t number);
struct worker *worker_find(const struct generation *gen, uint64_t number);
void worker_free(struct worker *w);
void generation_close(struct generation *gen);
void generation_touch(struct generation *gen);
/* One more rule broken by this generation's workers. */
void generation_violation(struct generation *gen, const char *what);
void generation_settle(struct generation *gen); /* EVENT_DRAINED if that is due */
void generation_hello(struct generation *gen, const struct wire_identity *identity);
void generation_connected(struct generation *gen);

bool slot_may(unsigned from, unsigned to);
void slot_init(struct slot *s, struct worker *w, uint16_t number);
void slot_move(struct slot *s, unsigned to);
void slot_attach(struct slot *s, struct exchange *x);
void slot_detach(struct exchange *x);
struct exchange *slot_find(const struct slot *s, uint64_t serial);
void slot_hello(struct slot *s);
void slot_alive(struct slot *s);
void slot_leaving(struct slot *s);
void slot_goodbye(struct slot *s);
void slot_lost(struct slot *s);
void slot_owes(struct slot *s, unsigned what);
void slot_measure(struct slot *s, const struct exchange *x);
void slots_pay(struct engine *e);

/* ---- channel.c: sending. 0, or -1 with errno: EAGAIN, try later; EHOSTUNREACH, nobody is there. Takes the message. */
int channel_send(struct generation *gen, const struct wire_identity *to, zmq_msg_t *message);
/* The same, but what is not sent stays the caller's. */
int channel_try(struct generation *gen, const struct wire_identity *to, zmq_msg_t *message);
int channel_send_head(struct generation *gen, const struct wire_identity *to, uint32_t kind, uint64_t serial,
	uint32_t request, uint16_t slot);
void channel_look_later(struct engine *e);
void channel_retry(struct exchange *x);
void channel_watch_later(struct engine *e);

/* ---- place.c */
struct generation *place_target(const struct group *g); /* NULL: nowhere */
bool place(struct exchange *x);
void place_watch(struct engine *e);
void place_given_back(struct exchange *x);
uint32_t place_limit(const struct channel *c, const struct group *g);

/* ---- frames.c */
bool frames_read(struct generation *gen, unsigned most);	  /* true: there may be more */
void frame_posted(struct slot *s, const char *data, size_t size); /* from its worker's loans; 0: none */
void frame_take(struct generation *gen, const void *identity, size_t identity_size, zmq_msg_t *message, bool more);

/* ---- bodies.c */
static inline char *body_bytes(const struct exchange *x)
{
	return x->body.buffer + sizeof(struct body_head);
}
bool body_reserve(struct exchange *x, size_t size); /* room for size more bytes in the buffer; false: no memory */
char *body_space(struct exchange *x, size_t *size); /* NULL: give it to body_take from elsewhere */
void body_take(struct exchange *x, const char *data, size_t size, bool last);
void body_want(struct exchange *x);    /* ask the client for as much as may come; may end the request */
void body_forward(struct exchange *x); /* send what is there within the credit */
void body_placed(struct exchange *x);
bool body_credit(struct exchange *x, uint64_t limit);
bool body_kept(const struct exchange *x); /* nothing of it would be missing if it were sent again */

/* ---- gather.c */
bool body_gathers(struct exchange *x); /* the body arrives before a worker is taken; sets x->upload */
/* Keeps them. What the spool directory does not take makes it a streamed one, in x->upload. */
void body_gather(struct exchange *x, const char *data, size_t size);

/* ---- tunnel.c */
/* Whether a 101 with the fields in channel->fields is what the client asked for. */
bool tunnel_asked_for(const struct exchange *x, const struct wire_response *response, size_t count);
void tunnel_begin(struct exchange *x);
void tunnel_moved(struct exchange *x); /* bytes came, from either side */
void tunnel_over(struct exchange *x);  /* its slot is free */

/* ---- block.c */
/* Trailers of the request as they lie in a message, from an offset that is a multiple of 8; 0: none. */
size_t block_trailers_size(const struct request *r);
void block_put_trailers(const struct request *r, char *message, size_t at);
size_t block_head_size(const struct exchange *x);		    /* without body bytes */
size_t block_body_size(const struct exchange *x, size_t head_size); /* body bytes that ride along */
/* Writes the block at to, size bytes as head_size + body_size. 0, or -1 if the spool file could not be read. */
/* Whether a block with so many body bytes needs no BODY after it. */
bool block_is_whole(const struct exchange *x, size_t body_size);
int block_write(const struct exchange *x, char *to, size_t head_size, size_t body_size, uint16_t slot, uint64_t serial);

/* ---- endings.c */
void ending_begin(struct worker *w);
void ending_look(struct engine *e);
/* Nothing more will come from this slot: run elsewhere what had not begun, answer 502 to the rest. may_start: its
   worker lives and may still begin what it was sent, so that nothing may be run elsewhere. */
void ending_judge_slot(struct slot *s, const char *cause, bool may_start);

#endif
