/*
 * The engine's inside: the structures that its files share, and who owns which.
 *
 *   loop.c timers.c pace.c   one turn; deadlines; the scheduler      struct engine, struct timer_queue
 *   listener.c connection.c  accept; read, parse, write, end         struct connection
 *   http1.c head.c target.c fields.c  llhttp's callbacks; the checks llhttp leaves to its user; paths; known names
 *   reply.c framing.c        the answer's head and end; its body, framed
 *   output.c                 bytes on their way to the client
 *   request.c green.c errors.c        the request's life; answers by Python; the engine's own answers
 *   route.c decisions.c      the decision table                      struct decision, struct site
 *   static.c files.c paths.c sources.c roots.c mime.c                struct file, struct root
 *   represent.c parts.c ranges.c conditions.c sendfile.c             a file as an answer; files that groups name
 *   group.c queue.c slots.c place.c channel.c frames.c bodies.c spool.c pages.c zmqlib.c    struct group and below
 *   access.c log.c           access log in batches; error log lines
 *
 * One thread. No file keeps state of its own: everything hangs on struct engine. A function that may end a request says
 * so; after that the pointer is dead.
 */
#ifndef WEBSERVER_ENGINE_H
#define WEBSERVER_ENGINE_H

#include <stdbool.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "api.h"
#include "list.h"

struct connection;
struct request;
struct group;
struct file;
struct loans;
struct decision;
struct site;
struct engine_parts; /* channel's state, static's state ...: each made and freed by its own file */

/* ---- loop.c: anything with a descriptor in the epoll set begins with this */
struct pollable {
	int fd;
	uint32_t events; /* as registered */
	void (*ready)(struct engine *e, struct pollable *self, uint32_t events);
};
int poll_add(struct engine *e, struct pollable *p, uint32_t events); /* 0 or -1, errno */
int poll_change(struct engine *e, struct pollable *p, uint32_t events);
void poll_remove(struct engine *e, struct pollable *p); /* safe while its event waits in the current batch */
/* Ask for a turn soon: for work that was made outside of one (a call from Python) and that no descriptor announces. */
void engine_again(struct engine *e);

/* ---- timers.c: all timers of one queue have one duration, so each queue is in order of time */
struct timer {
	struct list node; /* unlinked: not armed */
	uint64_t deadline_ns;
	struct timer_queue *queue;
};
typedef void timer_expired(struct engine *e, struct timer *timer); /* already disarmed when called */
/* The engine's one queue for this duration and callback; made when it does not exist. */
struct timer_queue *timer_queue(struct engine *e, uint64_t duration_ns, timer_expired *expired);
void timer_arm(struct engine *e, struct timer_queue *queue, struct timer *timer); /* again: moves it */
void timer_disarm(struct timer *timer);

/* ---- zmqlib.c: the functions of the libzmq that pyzmq loaded */
struct zmqlib;

struct engine {
	int epoll_fd, timer_fd, again_fd;
	uint64_t now_ns;  /* CLOCK_MONOTONIC, read at the start of each turn and after each batch */
	int64_t now_wall; /* seconds */
	uint64_t now_wall_ns;
	char date[32]; /* value of the Date field, 29 bytes and a NUL */
	bool draining;
	int spare;		       /* descriptors that are kept: see descriptor_is_spare */
	struct engine_options options; /* strings are the engine's own copies */
	struct engine_limits limits;
	struct engine_stats stats;
	struct zmqlib *zmq;

	struct timers *timers;		 /* timers.c */
	struct pace *pace;		 /* pace.c */
	struct connections *connections; /* connection.c: pools, listeners, lists */
	struct requests *requests;	 /* request.c: the table by index */
	struct events *events;		 /* loop.c: what Python must be told */
	struct decisions *decisions;	 /* decisions.c */
	struct statics *statics;	 /* files.c: roots, open-file cache, MIME types */
	struct channel *channel;	 /* channel.c: groups, generations, workers, slots */
	struct access_log *access;	 /* access.c */
	struct error_log *errors;	 /* log.c */
};
/* Room for one more event for Python; never fails (grows), zeroed but for kind. */
struct engine_event *event_push(struct engine *e, uint32_t kind);

/* ---- request.c */
struct field {
	struct engine_text name, value;
	uint16_t known; /* enum wire_known */
};

enum request_state {
	REQUEST_FREE = 0,
	REQUEST_DECIDING, /* Python has been asked */
	REQUEST_RUNNING,  /* a backend has it */
	REQUEST_REPLYING, /* reply_begin was called */
	REQUEST_ENDING	  /* reply_end was called; bytes are on their way */
};

/* Who makes the answer. All calls come from the engine's thread. */
struct backend {
	const char *name;
	/* Request body; never more than the room given with request_want. size may be 0 with last. data is the
	 * caller's. */
	void (*body)(struct request *r, const char *data, size_t size, bool last);
	/* Where the body's next bytes may be read to at once, and how many; body then has this very pointer. May be
	   NULL, and may return it: they are read elsewhere. */
	char *(*space)(struct request *r, size_t *size);
	/* Bytes have left for the client; queued are still here. May call reply_*. Comes from the loop only, never from
	   inside a reply_* call, and not after reply_end. */
	void (*written)(struct request *r, size_t queued);
	/* The request is over: complete, or cut off (client gone, timeout, abort). Called once; no pointer may be kept.
	 */
	void (*release)(struct request *r, bool complete);
};

struct request {
	uint32_t index;	 /* in the request table */
	uint32_t life;	 /* token = life << 32 | index; changes with each use of the entry */
	uint8_t state;	 /* enum request_state */
	uint8_t version; /* 10, 11 */
	bool is_head, keep_alive, expect, chunked, has_body, upgrade, te_trailers;
	struct connection *connection; /* never NULL while the request lives */
	uint64_t id;		       /* 16 hex digits in logs */
	uint64_t arrived_ns;

	/* The head. All texts point into the connection's pinned head or the request's arena, and live as long as it.
	 */
	struct engine_text method, target, path, query, host, server_name;
	struct engine_text line; /* the request line as it came, of what was refused before it was understood */
	struct field *fields;
	uint32_t field_count;
	uint64_t content_length; /* UINT64_MAX: chunked */
	struct field *trailers;	 /* once the body is done; in the arena */
	uint32_t trailer_count;
	struct {
		char *data;
		size_t size, room;
	} trailer_bytes; /* as they came */

	/* Routing: route.c */
	struct site *site;	   /* NULL before it is decided */
	struct decision *decision; /* a reference */
	uint32_t choice;	   /* the one being tried */
	uint32_t script_end;	   /* CHOICE_SCRIPT: length of the path up to the script's end */
	uint8_t internals;	   /* CHOICE_INTERNAL and index files so far; at most 8 */

	/* Backend */
	const struct backend *backend;
	void *backend_data;

	/* Request body: connection.c delivers while room > 0 */
	uint64_t body_received;
	uint64_t body_room;
	bool body_done; /* last was delivered */
	bool continued; /* 100 Continue was sent, or need not be */

	/* Answer: reply.c */
	uint16_t status;
	uint8_t framing;     /* enum in reply.c */
	bool reply_complete; /* reply_end was called */
	bool trailers_sent;
	bool shut_wanted, shut_done; /* reply_shut was called; our side of the connection is shut */
	uint64_t reply_length;	     /* declared, or UINT64_MAX */
	uint64_t reply_body;	     /* body bytes given to reply_* so far */
	uint64_t bytes_out;	     /* heads and body written to the socket */
	uint64_t heads_size;	     /* of that, heads: the answer's and interim ones */

	const char *group_name; /* for the access log; NULL if no group had it */
	void *arena;		/* request_alloc; freed with the request */
};

/* Memory that lives as long as the request; NULL when there is none. */
void *request_alloc(struct request *r, size_t size);
struct request *request_by_token(struct engine *e, uint64_t token); /* NULL: stale */
struct request *request_by_index(struct engine *e, uint32_t index); /* NULL: out of range or free */
uint64_t request_token(const struct request *r);
struct engine *request_engine(const struct request *r);
const struct field *request_field(const struct request *r, unsigned known); /* first, or NULL */
/* The head is complete (http1.c calls): body limits, then route_start. */
void request_begin(struct request *r);
/* Let room more body bytes come; reads resume; sends 100 Continue once if the client waits for it. backend->body is
   never called from in here. The end of a chunked body is seen only while there is room: keep some open until last. */
void request_want(struct request *r, uint64_t room);
/* Set who answers. False: the declared body is larger than the site allows; 413 has been answered, the request is
   dead and the backend will hear nothing of it. A chunked body is cut off with 413 when it passes the limit. */
bool request_take(struct request *r, const struct backend *backend, void *data) __attribute__((warn_unused_result));

/* ---- reply.c, framing.c. Return 0, or -1: the client is gone and the request will be released; stop.
   reply_begin, _inform, _data, _static, _message and _file only queue and never end the request. reply_end,
   reply_flush, reply_abort and answer_* may: then backend->release has been called when they return, and r must not be
   touched. */
enum reply_flags {
	REPLY_CLOSE = 1, /* close the connection after this answer */
	REPLY_TUNNEL = 2 /* status 101: what follows is no HTTP any more, to the end of the connection */
};
/* Fields are checked by whoever made them; Date, Server, Connection and framing fields are added here. length
   UINT64_MAX: not known. status 1xx: sends an interim answer at once, but with REPLY_TUNNEL. */
int reply_begin(struct request *r, int status, struct engine_text reason, const struct field *fields, size_t count,
	uint64_t length, unsigned flags);
int reply_inform(struct request *r, int status, const struct field *fields, size_t count);
int reply_data(struct request *r, const void *data, size_t size);			/* copies */
int reply_static(struct request *r, const void *data, size_t size, struct file *owner); /* borrows; holds a reference */
/* message: a zmq_msg_t that is moved from (the caller's becomes empty); data points into it. */
int reply_message(struct request *r, void *message, const char *data, size_t size);
/* A loan, which is returned when it has been written, or cannot be. */
int reply_lent(struct request *r, struct loans *loans, const char *data, size_t borrowed);
int reply_file(struct request *r, struct file *file, uint64_t offset, uint64_t size); /* holds a reference */
/* After the body, and before reply_end: sent if the framing has room for them. */
int reply_trailers(struct request *r, const struct field *fields, size_t count);
/* A tunnel's last byte has been given; its other direction goes on. */
void reply_shut(struct request *r);
/* The answer is whole. Flushes. May end the request. If fewer bytes came than declared: the connection is cut. */
int reply_end(struct request *r);
/* Bytes given but not yet written (files count in full). */
uint64_t reply_queued(const struct request *r);
/* Write what can be written now (reply_* only queue). May end the request. */
int reply_flush(struct request *r);
/* Cut the connection so that the answer cannot look whole. Ends the request. */
void reply_abort(struct request *r);

/* ---- errors.c: the engine's own answer; one error-log line with why (NULL: the caller has said it). Ends or
   finishes the request. Falls back to reply_abort when an answer has begun. retry_after in seconds, 0: none. */
void answer_status(struct request *r, int status, const char *why, unsigned retry_after);
/* 301 or 308 to a path (encoded here), keeping the query. */
void answer_redirect(struct request *r, int status, struct engine_text path);
const char *status_phrase(int status); /* "" if it has none */

/* ---- green.c */
void green_start(struct request *r, uint32_t handler);

/* ---- route.c, decisions.c */
struct site {
	uint32_t id;
	uint64_t generation; /* a decision with another one is forgotten */
	char *name, *document_root;
	uint64_t max_body;
	uint32_t *sendfile; /* roots whose files its groups may have sent */
	size_t sendfile_count;
};
struct choice {
	uint32_t kind, target, strip, flags;
	struct engine_text script;
};
/* Look the request up in the table; ask Python when it is not there. */
void route_start(struct request *r);
/* The current choice did not fit (no such file): try the next; 404 after the last. why: a sentence for the error log,
   which counts if this was the last. */
void route_next(struct request *r, const char *why);
/* Whether there is no other choice after the current one, so that it is worth while to make a sentence. */
bool route_is_last(const struct request *r);
/* Route again with this path (must live as long as the request). */
void route_internal(struct request *r, struct engine_text path);
const struct choice *route_choice(const struct request *r);
void decision_release(struct decision *d);
bool decision_gathers(const struct decision *d);
struct engine_text decision_extension(const struct decision *d);

/* ---- static.c, files.c */
/* An open file with its state; counted references; shared by the cache and by answers. */
struct file *file_ref(struct file *f);
void file_unref(struct file *f);
int file_fd(const struct file *f);
struct engine_text file_path(const struct file *f); /* static.c: below its root; "" if it has no name */
/* A file that nobody caches, for spooling: takes the descriptor. NULL: no memory. */
struct file *file_wrap(int fd);
/* Answer from a file, or call route_next. rest is the path below the root, without a leading "/". */
void static_start(struct request *r, uint32_t root, struct engine_text rest);

/* ---- group.c: answer from a process group. script_* as the choice says */
void group_start(struct request *r, uint32_t group, struct engine_text script_name, struct engine_text path_info,
	struct engine_text script_filename);
/* ---- tunnel.c, for loop.c: to end after tunnel_grace, in one generation, worker or (NULL) all; new limits, 0 or -1 */
struct generation;
struct worker;
void tunnels_leave(struct engine *e, const struct generation *gen, const struct worker *w);
int tunnels_limits(struct engine *e);
/* Called by loop.c in every turn: read sockets that are due, place, recall. True: there is more to do now. */
bool channel_turn(struct engine *e);

/* ---- access.c, log.c */
void access_record(struct request *r); /* when its answer is over; may be called for a request that was cut off */
void access_flush(struct engine *e);   /* at the end of a turn */
enum log_level { LOG_LEVEL_ERROR = 0, LOG_LEVEL_WARNING = 1, LOG_LEVEL_NOTICE = 2 };
/* One entry in the front end's error log; r may be NULL. Never blocks; what does not fit is counted. */
void log_entry(struct engine *e, int level, const struct request *r, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* ---- makers, called by engine_new in this order and undone by engine_free in the reverse; 0 or -1 with errno */
int timers_make(struct engine *e);
void timers_free(struct engine *e);
int connections_make(struct engine *e);
void connections_free(struct engine *e);
int requests_make(struct engine *e);
void requests_free(struct engine *e);
int decisions_make(struct engine *e);
void decisions_free(struct engine *e);
int statics_make(struct engine *e);
void statics_free(struct engine *e);
int channel_make(struct engine *e);
void channel_free(struct engine *e);
int access_make(struct engine *e);
void access_free(struct engine *e);
int errors_make(struct engine *e);
void errors_free(struct engine *e);

/* ---- connection.c, what others may ask */
const char *connection_remote(const struct connection *c); /* numeric address, "" for a unix socket */
uint16_t connection_remote_port(const struct connection *c);
const char *connection_server(const struct connection *c);
uint16_t connection_server_port(const struct connection *c);

#define TEXT(literal) ((struct engine_text){literal, sizeof(literal) - 1})

static inline bool text_is(struct engine_text t, const char *data, size_t size)
{
	return t.size == size && __builtin_memcmp(t.data, data, size) == 0;
}

#endif
