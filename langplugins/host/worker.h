/*
 * worker.h - what a worker is made of. Internal to the host.
 *
 *   load.c    host_open, host_preload; what host.h says about the plugin
 *   fork.c    host_fork: what a worker does not keep of its manager
 *   worker.c  the whole life of a worker: page, threads, orders, the orderly end
 *   slot.c    one request's place: receives, starts, runs
 *   async.c   many of them in one thread, for a plugin that has an event loop; watch.c their connections; pause.c
 *             memory that is not wanted
 *   queue.c   requests that have come and not begun
 *   recall.c  who starts what: the one thing that slot and keeper decide together
 *   keeper.c  the thread that answers whatever application code does
 *   stacks.c  where requests are, when they run for too long or somebody asks; frames.c their frames in C; crash.c
 *             where a process was that crashes
 *   answer.c  a call's answer; part.c the messages it leaves in; loan.c or the memory; sendfile.c its body from a file;
 *             head.c its head
 *   body.c    a call's request body; block.c its head; trailers.c what follows both bodies
 *   tunnel.c  what a 101 changes; takeover.c connections that an application has
 *   byhand.c  what it writes there; written.c the heads among that
 *   link.c    connections to the front ends; outgoing.c what is sent to them; zmtp.c the protocol; message.c its memory
 *   log.c     entries of the error log; title.c the process's title
 *
 * Owners: a slot is its own thread's, but for struct recall (its mutex) and call.cancelled (atomic). The list of front
 * ends is the keeper's to change (worker->mutex). The page is written by the slot for its own part.
 */
#ifndef WEBSERVER_HOST_WORKER_H
#define WEBSERVER_HOST_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "block.h"
#include "host.h"
#include "link.h"
#include "log.h"

#define QUEUE_ROOM  256 /* requests that have come and not begun; front ends place WIRE_PLACED at most */
#define RECALL_ROOM 256
#define GATHER	    65536   /* answer bytes that are gathered before they are sent */
#define LENT_FROM   16384   /* a write of so many is worth a loan */
#define GOES_ON	    0x10000 /* among enum langplugin_flags: a part has been taken, interrupt() comes too late */

struct host {
	void *library;
	const struct langplugin *plugin;
	void *state; /* the plugin's */
	struct langplugin_host functions;
};

struct slot;
struct takeover;

/* ---- queue.c */
struct piece {
	struct piece *next;
	struct message *message;
	struct wire_span data;
	bool last;
	uint32_t trailers; /* struct wire_field[trailer_count] in the message, checked */
	uint16_t trailer_count;
};

struct entry {
	struct wire_frontend from;
	struct wire_head head;
	struct message *request;
	struct piece *first, *final; /* body that came before the request began */
	bool cancelled;
};

struct queue {
	struct entry entry[QUEUE_ROOM];
	unsigned begin, count;
};
struct entry *queue_add(struct queue *queue); /* NULL: full */
struct entry *queue_find(struct queue *queue, uint64_t serial);
bool queue_take(struct queue *queue, struct entry *entry); /* moves the first out; false: empty */
void piece_add(struct piece **first, struct piece **final, struct piece *piece);
void pieces_free(struct piece *first);

/* ---- recall.c */
struct recall {
	pthread_mutex_t mutex;
	uint64_t started[WIRE_FRONTENDS]; /* what the page's started[] is a copy of */
	uint64_t set[RECALL_ROOM];	  /* serials that will not be begun: given back or cancelled */
	unsigned count;
	uint64_t running, since; /* as the page has it, which application code can write to */
};
void recall_open(struct recall *recall);
/* The keeper: true if the request will not be run here. */
bool recall_ask(struct recall *recall, unsigned ordinal, uint64_t serial);
/* The slot: it will not be begun, for a reason of its own. */
void recall_skip(struct recall *recall, struct wire_slot *page, unsigned ordinal, uint64_t serial);
/* The slot: begin it? Publishes on the page under the same lock, before application code can be called. */
enum begin { BEGIN, BEGIN_RECALLED, BEGIN_STALE /* a serial that was used before */ };
enum begin recall_begin(struct recall *recall, struct wire_slot *page, unsigned ordinal, uint64_t serial, uint64_t now,
	uint64_t deadline);
void recall_end(struct recall *recall, struct wire_slot *page, uint64_t now, bool failed);

/* ---- answer.c */
enum answer_state { ANSWER_NONE = 0, ANSWER_HELD, ANSWER_SENT, ANSWER_ENDED };

struct answer {
	uint8_t state; /* HELD: respond() was called, nothing sent yet */
	bool no_body;  /* HEAD, 204, 304 */
	bool gone;     /* client, deadline or front end */
	bool aborted, told_surplus;
	bool ending; /* end() was called, and something has not left yet: LANGPLUGIN_ASYNC only */
	bool tunnel; /* it is a 101: there is no end to what comes and goes */
	uint16_t status;
	int64_t length; /* declared; -1: not */
	uint64_t given; /* body bytes that the plugin has written */
	uint64_t sent;	/* body bytes that have left */
	uint64_t limit; /* credit */
	char *head;	/* struct wire_response, fields, texts; kept from request to request */
	size_t head_size, head_room;
	char *gathered; /* own, or in a loan */
	size_t gathered_size;
	char *own; /* GATHER bytes */
	int loan;  /* of the slot, that gathered begins; -1: none */
};

/* ---- body.c */
struct body {
	struct piece *first, *final;
	const char *data; /* what is left of the current part */
	size_t left;
	bool whole; /* the last piece has come */
	uint64_t received, consumed, granted;
	struct piece *spare;
	struct piece *tail; /* the last piece, kept because it has trailers */
};

/* ---- trailers.c */
struct trailers {
	struct langplugin_field *got; /* the request's; NULL: not asked for yet, or none */
	size_t got_count;
	char *laid; /* the answer's, as they stand behind the head of the last BODY */
	size_t laid_size;
	uint16_t laid_count;
	char *names; /* for Trailer */
	size_t names_size;
};

/* The host's side of one request; the plugin knows it by address only. */
struct langplugin_call {
	struct slot *slot;
	struct wire_frontend from;
	struct wire_head head;
	atomic_int cancelled;	 /* set by the keeper too */
	atomic_int interrupted;	 /* what waits is to come back */
	atomic_int overdue;	 /* its time is over, and the language has not been told yet */
	void *place;		 /* the plugin's */
	struct message *message; /* the block; its first body bytes are read from here */
	struct block block;
	struct body body;
	struct answer answer;
	struct trailers trailers;
	bool spoke;		/* something of it went through the socket: an interim answer, credit */
	struct takeover *taken; /* the application has the connection: nobody else answers */
};

struct slot {
	struct worker *worker;
	unsigned number;
	int wake; /* eventfd: something in struct worker has changed, or the call was cancelled */
	pthread_t thread;
	pthread_t native; /* that handle() runs on, whoever has made it */
	pid_t tid;
	uint64_t shown_slow; /* serial of the request whose stack has been shown last */
	void *plugin_thread;
	struct link link;
	struct queue queue;
	struct recall recall;
	struct wire_slot *page;
	unsigned frontends_seen, loans_seen; /* loans_seen: with which loans were last looked for that are nobody's */
	bool leaving;
	unsigned unlooked; /* requests run since the socket was looked at */
	bool wants_body;   /* it reads its body: the next piece is enough, the rest waits in the socket */
	bool news;	   /* something of the call was taken in since call_wait() returned: it must not sleep on it */
	struct langplugin_call call;
	/* async.c's */
	int nowait; /* LP_NOWAIT: the thread is an event loop's, nothing may wait; else 0 */
	enum stage { SLOT_IDLE = 0, SLOT_RUNNING, SLOT_FINISHING /* the plugin has done with it */, SLOT_GONE } stage;
	bool paused;	   /* its connections are not watched for more to read */
	bool wants_credit; /* a write has returned LP_AGAIN */
	bool told;	   /* that the call is over */
	bool listed;
	struct slot *next; /* of worker->async.first */
};

struct keeper {
	pthread_t thread;
	int wake;
	struct link link;
};

/* Slots of one thread, which is the plugin's event loop. */
struct async {
	int set;    /* epoll(7): wake and every slot's connections; what descriptor() returns */
	int wake;   /* eventfd: each slot's wake, and: something is in the list */
	int idle;   /* timerfd: whether memory that is kept is still wanted */
	bool timed; /* it runs */
	bool moved; /* something has come since it began to */
	bool turning;
	struct slot *first, *last; /* to be looked after, though no descriptor tells of it */
	unsigned frontends_seen;
	unsigned left; /* slots that have not said goodbye */
	bool leaving;
};

struct worker {
	struct host *host;
	uint32_t generation;
	uint64_t incarnation;
	int control;
	struct wire_page *page;
	struct wire_loans *loans; /* WIRE_LOANS_SIZE(slots) bytes; NULL: none */
	char *loans_bytes;
	unsigned slots;
	struct slot *slot;
	struct keeper keeper;
	struct async async;
	pthread_mutex_t mutex;
	struct frontends frontends;
	atomic_uint frontends_version;
	atomic_bool retiring;
	atomic_bool finished; /* every slot has said goodbye */
	atomic_bool serving;  /* slots may be woken */
	atomic_bool gave_up;
	uint64_t tell_after; /* requests; 0: nobody asks */
	atomic_ullong finished_requests;
	bool forked; /* this process is a child that application code made: it has no connection */
};

/* load.c */
bool has_fork(const struct langplugin *plugin);

/* worker.c */
uint64_t clock_ns(void);
void wake_up(int wake);
void wake_over(int wake);
int worker_run(struct host *host, const struct host_options *options); /* the whole life of one: enum host_exit */
int worker_report(const struct worker *worker, uint32_t kind, const char *text);
/* The list of front ends as it is now; returns its version. */
unsigned worker_frontends(struct worker *worker, struct frontends *frontends);
bool worker_has(struct worker *worker, struct wire_frontend name);
int worker_slot(unsigned number); /* one slot's whole life, on the thread that calls */
int worker_descriptor(void);
int worker_turn(void);
void worker_give_up(const char *why);
void worker_count(struct worker *worker); /* one more request is over */

/* slot.c */
int slot_open(struct slot *slot, struct worker *worker, unsigned number);
int slot_start(struct slot *slot); /* the plugin's part; on the slot's own thread */
void slot_run(struct slot *slot);  /* until the orderly end */
void slot_close(struct slot *slot);
void slot_drain(struct slot *slot);		      /* take in what has come */
void slot_sleep(struct slot *slot, int milliseconds); /* until something comes, and take it in */
void slot_meet(struct slot *slot);		      /* wait for front ends that do not know it yet, not for long */
bool call_over(struct langplugin_call *call);	      /* client or front end gone */
bool call_interrupted(struct langplugin_call *call);  /* once for each interrupt() */
/* The pieces of a slot's life, for async.c, which has no loop of its own. */
void slot_take_in(struct slot *slot); /* what its connections have */
/* True: entry is the slot's call now. False: it is not to be run, and has been thrown away. */
bool slot_begin(struct slot *slot, struct entry *entry, uint64_t now);
void slot_over(struct slot *slot, uint64_t now); /* the answer has ended */
void slot_update_frontends(struct slot *slot);
void slot_leave(struct slot *slot);
bool slot_all_closed(const struct slot *slot);
void slot_say_goodbye(struct slot *slot);

/* async.c */
int async_open(struct worker *worker);
/* The functions that wait, as a plugin with an event loop gets them: they do not. */
void async_functions(struct langplugin_host *functions);
int async_turn(struct worker *worker);
void async_close(struct worker *worker);   /* what is left to be sent is waited for */
void async_abandon(struct worker *worker); /* after a fork */
int call_wait(struct langplugin_call *call, int fd, short events, int milliseconds);

/* pause.c */
int pause_open(struct async *async);
void pause_begin(struct async *async); /* if it has not begun, and there is something to give back */
void pause_over(struct async *async);  /* the timer says so */

/* answer.c, body.c: the functions that plugins call */
/* head.c: struct wire_response, its fields, their texts into answer->head. length NULL: an interim answer, else what
   the call says and a Content-Length may change. LP_OK or LP_INVALID. */
int head_lay_out(struct langplugin_call *call, uint32_t kind, int status, struct langplugin_text reason,
	const struct langplugin_field *fields, size_t count, int64_t *length);
bool head_field_ok(const struct langplugin_field *field);
/* Add a Trailer field to the head that was laid out last. LP_OK or LP_FAILED. */
int head_announce(struct answer *answer, const char *names, size_t size);
int answer_open(struct answer *answer);
void answer_begin(struct langplugin_call *call);
void answer_conclude(struct langplugin_call *call);
void answer_close(struct answer *answer);
int answer_respond(struct langplugin_call *call, int status, struct langplugin_text reason,
	const struct langplugin_field *fields, size_t count, int64_t content_length);
int answer_unrespond(struct langplugin_call *call);
int answer_write(struct langplugin_call *call, const void *data, size_t size, int flags);
int answer_flush(struct langplugin_call *call, int flags);
/* part.c: 0, or what send functions return */
/* Bytes of a file at the end of a message. */
struct tail {
	int fd;
	int64_t offset;
	size_t size;
	bool *torn;
};
/* One message, once the front end has taken what was sent before. */
int part_message(
	struct langplugin_call *call, const struct iovec *parts, unsigned count, const struct tail *tail, int flags);
/* What is gathered and size bytes more, or those of a file, as one message; credit has been seen to. end: 0, WIRE_LAST,
   WIRE_SHUT. */
int part_send_with(
	struct langplugin_call *call, const char *data, size_t size, const struct tail *tail, unsigned end, int flags);
int part_send(struct langplugin_call *call, const char *data, size_t size, unsigned end, int flags);
int part_send_last(struct langplugin_call *call, int flags);
/* Wait until at least size more body bytes may leave. */
int part_wait(struct langplugin_call *call, size_t size, int flags);
int answer_ready(struct langplugin_call *call);				/* LP_OK: body bytes may be given */
size_t answer_within_length(struct langplugin_call *call, size_t size); /* of size bytes, those that may be given */
/* What is gathered and size bytes of a file as one message. May wait. torn: as link_send_file. */
int answer_send_piece(struct langplugin_call *call, int fd, int64_t offset, size_t size, bool *torn);
/* loan.c */
void loans_map(struct worker *worker, int fd); /* closes fd */
/* What is gathered lies in loans from now on, with room for size bytes more. False: it does not. */
bool loan_gather(struct langplugin_call *call, size_t size);
/* Around the sending of what is in it: it is the front end's; that has not got it after all; it has. */
void loan_lend(struct langplugin_call *call);
void loan_keep(struct langplugin_call *call);
void loan_gone(struct langplugin_call *call);
/* What is gathered lies in memory of our own again; needed too by a child that the application has forked. */
void loan_abandon(struct langplugin_call *call);
/* A message that is a whole answer: LP_OK, it is posted; LP_AGAIN, it is to go through the socket; LP_GONE. */
int loan_post(struct langplugin_call *call, const struct iovec *parts, unsigned count, size_t size);
void loan_forget(struct slot *slot, unsigned ordinal); /* what was posted to a front end that is gone */
/* sendfile.c */
int answer_send_file(struct langplugin_call *call, int fd, int64_t offset, int64_t length);
int answer_inform(struct langplugin_call *call, int status, const struct langplugin_field *fields, size_t count);
void answer_abort(struct langplugin_call *call);
void answer_fail(struct langplugin_call *call, int status);
int answer_end(struct langplugin_call *call);
void answer_go_on(struct langplugin_call *call);	  /* what end(), or a 101, had to leave behind */
int answer_shut(struct langplugin_call *call, int flags); /* a tunnel's last byte; what comes goes on */

int answer_trailers(struct langplugin_call *call, const struct langplugin_field *fields, size_t count);
const struct langplugin_field *request_trailers(struct langplugin_call *call, size_t *count);
/* variable.c, mark.c */
int script_mark(struct langplugin_call *call, const char *path, char mark[LANGPLUGIN_MARK]);
const struct langplugin_text *request_variable(struct langplugin_call *call, const char *name, size_t size);
void trailers_end(struct langplugin_call *call);

/* True if an answer with these fields may be a 101. */
bool tunnel_offered(const struct langplugin_call *call, const struct langplugin_field *fields, size_t count);
int tunnel_begin(struct langplugin_call *call); /* after respond(); as respond() */

/* The 101 itself has not left yet: LANGPLUGIN_ASYNC only. */
static inline bool tunnel_waits(const struct langplugin_call *call)
{
	return call->answer.tunnel && call->answer.state == ANSWER_HELD;
}

/* takeover.c */
int call_take_over(struct langplugin_call *call);
void takeover_end(struct langplugin_call *call);	   /* wait until it is over */
void takeover_abandon(const struct langplugin_call *call); /* after a fork: only closes a descriptor */

void body_begin(struct langplugin_call *call, struct entry *entry);
void body_take(struct langplugin_call *call, struct message *message);
ssize_t body_read(struct langplugin_call *call, void *buffer, size_t size, int flags);
void body_end(struct langplugin_call *call);
void body_tunnel(struct langplugin_call *call); /* its body was empty; now another begins */
/* A WIRE_BODY message as a piece, or NULL: it breaks a rule or there is no memory. Takes the message. */
struct piece *body_piece(struct message *message, uint64_t expected);

/* What the page says that a call does. */
static inline void call_phase(struct langplugin_call *call, uint32_t phase)
{
	__atomic_store_n(&call->slot->page->phase, call->answer.tunnel ? WIRE_TUNNEL : phase, __ATOMIC_RELAXED);
}

/* keeper.c */
int keeper_open(struct worker *worker);
void *keeper_run(void *worker);

#endif
