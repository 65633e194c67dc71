/*
 * What Python may call and see of the engine. cffi reads the part between the marks as it is, so only plain
 * declarations stand there. Everything runs on the front end's one thread; nothing here blocks.
 *
 * A request is named to Python by a token that is never used twice; a call with the token of a request that has ended
 * does nothing and returns ENGINE_STALE.
 */
#ifndef WEBSERVER_ENGINE_API_H
#define WEBSERVER_ENGINE_API_H

#include <stddef.h>
#include <stdint.h>

/* api: begin */
typedef struct engine engine;

struct engine_text {
	const char *data;
	size_t size;
};

struct engine_field {
	struct engine_text name;
	struct engine_text value;
};

enum engine_result { ENGINE_OK = 0, ENGINE_STALE = -1, ENGINE_INVALID = -2, ENGINE_FULL = -3, ENGINE_SYSTEM = -4 };

struct engine_limits {
	uint64_t head_timeout_ns, body_timeout_ns, idle_timeout_ns, send_timeout_ns;
	uint64_t tunnel_timeout_ns, tunnel_grace_ns; /* 0: none */
	uint32_t connections;			     /* held at once by this front end */
	uint32_t max_head;			     /* bytes of request line and fields together */
	uint32_t max_line;			     /* bytes of the request target, and of one field */
	uint32_t max_fields;
	uint32_t decisions;    /* entries of the decision table */
	uint32_t files;	       /* entries of the open-file cache */
	uint64_t spool_memory; /* bytes of one answer kept in memory */
	uint64_t spool_limit;  /* bytes of one answer kept in its file */
	uint32_t gather;       /* a body up to this many bytes arrives whole before a worker is taken */
};

struct engine_options {
	uint32_t ordinal, incarnation, frontends;
	int access_fd;	      /* -1: no access log; non-blocking */
	uint32_t access_json; /* else combined */
	const char *spool_directory;
	const char *server; /* value of the Server field; "" for none */
	struct engine_limits limits;
};

enum engine_event_kind {
	EVENT_NONE = 0,
	EVENT_DECIDE = 1,   /* token: no decision is known; answer with engine_decide */
	EVENT_GREEN = 2,    /* token, number: this request is for green handler `number` */
	EVENT_BODY = 3,	    /* token: engine_read has something, or the end */
	EVENT_WRITABLE = 4, /* token: engine_write takes more */
	EVENT_CLOSED = 5,   /* token: a request given to Python has ended (client gone, timed out) */
	EVENT_SERVING = 6,  /* group, generation, worker: answered the probe */
	EVENT_DRAINED = 7,  /* group, generation: asked for with engine_generation_drain, nothing is in flight */
	EVENT_WANTED = 8,   /* group, number: so many requests wait, no slot is free, and there may be more slots */
	EVENT_BROKEN = 9,   /* group, generation, text: broke the protocol; its connections must be closed */
	EVENT_EMPTY = 10,   /* engine_drain was asked and the last connection is gone */
	EVENT_LEFT = 11,    /* group, generation, worker: said goodbye on every slot */
	EVENT_SILENT = 12,  /* group, generation, worker: its keeper does not answer, so the process does not run */
	EVENT_SUSPECT = 13, /* group, token (of engine_suspect): this request was running when its worker died */
	EVENT_CLEARED = 14, /* the same: such a request has ended well */
	EVENT_OVERDUE = 15  /* group, generation, worker: it runs a request whose time is over */
};

struct engine_event {
	uint32_t kind;
	uint32_t group;
	uint32_t generation;
	uint32_t number;
	uint64_t token;
	uint64_t worker;
	char text[160];
};

enum engine_choice_kind {
	CHOICE_FILE = 1,   /* target: root id; the path after `strip` bytes below that root; next choice if not there */
	CHOICE_GROUP = 2,  /* target: group id; script name is the path's first `strip` bytes without the last "/" */
	CHOICE_SCRIPT = 3, /* target: group id; `script` is the root's path; the script ends with the first segment that
			      ends in the decision's extension; next choice if strip is beyond the path */
	CHOICE_INTERNAL = 4, /* `script` is a path: route again with it (query kept) */
	CHOICE_STATUS = 5,   /* target: a status; the engine's own page for it; `script` is why, for the error log */
	CHOICE_FIXED = 6,    /* target: a response registered with engine_fixed */
	CHOICE_GREEN = 7,    /* target: number of a green handler; told by EVENT_GREEN */
	CHOICE_RUN = 8	     /* as CHOICE_GROUP, and `script` is the file to run */
};

enum engine_choice_flags {
	CHOICE_DOTFILES = 1 /* CHOICE_SCRIPT: names on the script's path may begin with "." */
};

struct engine_choice {
	uint32_t kind;
	uint32_t target;
	uint32_t strip;
	uint32_t flags; /* enum engine_choice_flags */
	struct engine_text script;
};

enum engine_scope {
	SCOPE_ONCE = 0,	 /* for this request only */
	SCOPE_EXACT = 1, /* this host and path */
	SCOPE_PREFIX = 2 /* this host and each path that begins with `prefix`, but for the exceptions */
};

struct engine_decision {
	uint32_t site;
	uint32_t scope;
	uint32_t method_only;	      /* nonzero: only for this request's method */
	uint32_t gather;	      /* nonzero: the whole body is received before a worker is taken */
	struct engine_text prefix;    /* ends with "/"; a prefix of this request's path */
	struct engine_text extension; /* "" or ".php": holds for paths with a segment that ends so (SCOPE_PREFIX) */
	const struct engine_text *except_prefixes; /* longer prefixes that have decisions of their own */
	size_t except_prefix_count;
	const struct engine_text *except_extensions; /* extensions that have decisions of their own */
	size_t except_extension_count;
	const struct engine_choice *choices; /* 1 to 8 */
	size_t choice_count;
};

enum engine_request_text {
	REQUEST_METHOD = 0,
	REQUEST_TARGET = 1,
	REQUEST_PATH = 2, /* decoded */
	REQUEST_QUERY = 3,
	REQUEST_HOST = 4, /* lower case, no port */
	REQUEST_REMOTE = 5,
	REQUEST_ID = 6
};

enum engine_root_flags {
	ROOT_SYMLINKS_DENY = 0,
	ROOT_SYMLINKS_OWNER = 1,
	ROOT_SYMLINKS_ALLOW = 2,
	ROOT_SYMLINKS = 3, /* mask */
	ROOT_DOTFILES = 4  /* names that begin with "." may be served */
};

engine *engine_new(const struct engine_options *options, char *message, size_t message_size);
void engine_free(engine *e);
int engine_fd(const engine *e);
/* One turn, about 1 ms at most. Returns the number of events stored. */
int engine_run(engine *e, struct engine_event *events, int max);
void engine_limits(engine *e, const struct engine_limits *limits);
/* library: handle path of the shared object whose dependencies hold the libzmq in use ("" for the program itself). */
int engine_zmq(engine *e, const char *library, char *message, size_t message_size);
/* Stop keeping connections alive and close what is idle, gently; EVENT_EMPTY follows. */
void engine_drain(engine *e);

/* The descriptor stays the caller's. kind: AF_INET, AF_INET6, AF_UNIX. */
int engine_listen(engine *e, uint32_t id, int fd, int kind, int port);
/* Its socket will refuse packets that came over a router, SYNs among them; connections from it must not. */
int engine_vacate(engine *e, uint32_t id);
/* Takes first what waits in the queue of connections. */
int engine_unlisten(engine *e, uint32_t id);

/* Sites, roots, fixed answers, MIME types: tables that decisions refer to by number. Setting one again replaces it. */
int engine_site(engine *e, uint32_t id, const char *name, const char *document_root, uint64_t max_body);
/* Forget every decision of the site. */
void engine_site_forget(engine *e, uint32_t id);
void engine_forget_all(engine *e);
/* scripts: extensions of programs. An index file that ends in one is routed as if it had been asked for; no other file
   that does is ever sent. */
int engine_root(engine *e, uint32_t id, const char *path, uint32_t flags, const struct engine_text *index,
	size_t index_count, const struct engine_text *scripts, size_t script_count);
/* The roots whose files a group that answers for the site may name in X-Sendfile and X-Accel-Redirect. */
int engine_sendfile(engine *e, uint32_t site, const uint32_t *roots, size_t count);
int engine_fixed(
	engine *e, uint32_t id, int status, const struct engine_field *fields, size_t count, struct engine_text body);
int engine_mime(engine *e, const char *extension, const char *type);

/* Decisions. */
struct engine_text engine_request(engine *e, uint64_t token, uint32_t which);
struct engine_text engine_request_field(engine *e, uint64_t token, const char *name);
int engine_decide(engine *e, uint64_t token, const struct engine_decision *decision);

/* Green-thread answers. */
int engine_respond(
	engine *e, uint64_t token, int status, const struct engine_field *fields, size_t count, int64_t content_length);
/* Takes all (ENGINE_OK) or nothing (ENGINE_FULL: wait for EVENT_WRITABLE). */
int engine_write(engine *e, uint64_t token, const char *data, size_t size);
int engine_finish(engine *e, uint64_t token);
int engine_abort(engine *e, uint64_t token);
/* Bytes read, 0 at the end of the body, ENGINE_FULL: nothing yet, wait for EVENT_BODY. */
long engine_read(engine *e, uint64_t token, char *buffer, size_t size);

/* Groups and their generations. */
struct engine_group_options {
	const char *name;
	uint32_t queue_length;
	uint64_t queue_timeout_ns;
	uint64_t request_timeout_ns; /* 0: none */
	uint32_t elastic;	     /* nonzero: EVENT_WANTED is told */
	uint32_t quarantine;	     /* workers that a request may end in a row; 0: any number */
};
int engine_group(engine *e, uint32_t group, const struct engine_group_options *options);
int engine_group_close(engine *e, uint32_t group);
/* zmq_socket: a bound ROUTER of the caller's, already configured; fd: its ZMQ_FD. The caller closes it after
   engine_generation_close. */
int engine_generation(engine *e, uint32_t group, uint32_t generation, void *zmq_socket, int fd, uint32_t workers,
	uint32_t slots_per_worker);
int engine_generation_drain(engine *e, uint32_t group, uint32_t generation);
int engine_generation_close(engine *e, uint32_t group, uint32_t generation);
/* Takes the descriptor. */
int engine_worker(
	engine *e, uint32_t group, uint32_t generation, uint64_t worker, uint32_t slots, int page_fd, int loans_fd);
/* It finishes what it has. Its tunnels end after tunnel_grace; its slots say themselves when they take no more. */
int engine_worker_leaves(engine *e, uint32_t group, uint32_t generation, uint64_t worker);
/* Before engine_worker_gone: what it was running has not ended it. */
int engine_worker_excused(engine *e, uint32_t group, uint32_t generation, uint64_t worker);
int engine_worker_gone(engine *e, uint32_t group, uint32_t generation, uint64_t worker, const char *cause);
/* Site, method and target of a suspected request, with a NUL after the first two; empty: forgotten. */
struct engine_text engine_suspect(engine *e, uint64_t token);
/* Another front end's events. */
int engine_suspected(engine *e, uint32_t group, struct engine_text name);
int engine_cleared(engine *e, uint32_t group, struct engine_text name);

struct engine_stats {
	uint64_t accepted, requests, connections, idle, answers_2xx, answers_3xx, answers_4xx, answers_5xx;
	uint64_t bytes_in, bytes_out, decisions_asked, decisions_hit, files_hit, files_missed;
	uint64_t placed, placed_ahead, recalled, returned, cancelled, frames_dropped, queue_refused, queue_expired;
	uint64_t access_dropped, errors_logged, turns, stale_answers;
	uint64_t tunnels; /* open now */
};
void engine_stats(const engine *e, struct engine_stats *stats);
struct engine_group_stats {
	uint32_t queued, running, slots, free_slots;
	uint32_t exchanges;	       /* requests that it has, wherever they are */
	uint32_t tunnels;	       /* of these, so many have become tunnels */
	uint64_t requests, service_ns; /* service_ns: median service time */
	uint64_t waits_since_ns;       /* CLOCK_MONOTONIC: of those queued, who has waited longest; 0: nobody waits */
};
int engine_group_stats(const engine *e, uint32_t group, struct engine_group_stats *stats);
/* api: end */

#endif
