/*
 * exec.h - a program that is itself an HTTP server, as a language.
 *
 *   plugin.c    what langplugin.h asks for
 *   settings.c  the group's settings
 *   address.c   where the program listens: directory, socket, port; connecting to it
 *   launch.c    the program's arguments, environment, descriptors; exec
 *   warden.c    the process between worker and program: whoever dies, nobody is left behind
 *   program.c   the worker's side of it: start, wait until the program accepts, its end
 *   cause.c     why it does not answer
 *   target.c    the request target, and what of it the program sees
 *   request.c   a request's head as the program gets it; fields.c what goes on and what is said anew
 *   reply.c     the program's answer, read by llhttp. No I/O in it
 *   exchange.c  one request, both directions at once; answer.c what comes back, upload.c what goes there
 *
 * One worker owns one program, and each slot one connection to it. Between worker and program stands the warden, a
 * child of the worker: worker, warden and program hold a chain of death signals and of ends of file, so that the death
 * of any of them, by whatever signal, ends those below it.
 */
#ifndef WEBSERVER_EXEC_EXEC_H
#define WEBSERVER_EXEC_EXEC_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/un.h>

#include "langplugin.h"
#include "reply.h"
#include "target.h"

/* ---- settings.c */
enum listens_on { LISTENS_SOCKET, LISTENS_DESCRIPTOR, LISTENS_PORT };

struct settings {
	char **argv;	  /* the program and its arguments, NULL at the end; placeholders as written */
	char **variables; /* NAME=value of those in the group's environment that hold placeholders */
	size_t arguments, variable_count;
	enum listens_on listens_on;
	bool strip_prefix, append, keepalive;
	int start_ms, stop_ms, continue_ms; /* -1: no limit */
};
int settings_read(
	struct settings *settings, const struct langplugin_setting *list, size_t count, char *message, size_t size);
void settings_free(struct settings *settings);

/* ---- address.c */
struct address {
	enum listens_on listens_on;
	char directory[128]; /* of the socket, "" with LISTENS_PORT */
	struct sockaddr_un path;
	unsigned port;
	int listener; /* LISTENS_DESCRIPTOR, until the program has it; else -1 */
};
/* 0, or -1 and a message. */
int address_make(struct address *address, enum listens_on listens_on, char *message, size_t size);
void address_remove(const struct address *address);
/* A connection that does not wait: a descriptor, or -1 and errno. EAGAIN: its queue is full. *pending: over TCP it may
   not be made yet, and can be written to when it is. */
int address_connect(const struct address *address, bool *pending);

/* ---- launch.c */
#define DESCRIPTOR_NUMBER 3 /* sd_listen_fds(3): SD_LISTEN_FDS_START */

struct launch {
	char **argv, **environment; /* placeholders filled in; LISTEN_PID= is written to by the program's process */
	char *listen_pid;	    /* its place, or NULL */
};
int launch_make(struct launch *launch, const struct settings *settings, const struct address *address);
void launch_free(struct launch *launch);
/* In a fresh child: never returns. What goes wrong is written to `report`, an int: errno. */
_Noreturn void launch_run(const struct launch *launch, const struct address *address, int report);

/* ---- warden.c */
enum warden_kind { WARDEN_STARTED = 1, WARDEN_REFUSED = 2, WARDEN_ENDED = 3 };

struct warden_report {
	int kind;
	int value; /* the program's pid; errno; its wait status */
};
/* Worker to warden: end it in order; or soon, since it hangs. End of file: at once. */
enum warden_order { WARDEN_END = 'T', WARDEN_HANGS = 'H' };

/* In a fresh child: never returns. */
_Noreturn void warden_run(const struct launch *launch, const struct address *address, int line, int stop_ms);

/* ---- program.c */
struct program {
	const struct langplugin_host *host;
	const struct settings *settings;
	struct address address;
	int line; /* to the warden */
	pid_t warden, pid;
	pthread_t thread;
	bool watched; /* thread runs */
	int dead;     /* eventfd: readable for ever once the program has ended */
	atomic_bool ending;
	atomic_uint hung; /* requests that it has left unanswered, when that was too much; 0: it does not hang */
	char cause[256];  /* this and killed: valid once dead is readable */
	bool killed;	  /* by a signal */
};
/* 0, or -1 and a message: started and seen to accept. */
int program_start(struct program *program, const struct langplugin_host *host, const struct settings *settings,
	char *message, size_t size);
void program_end(struct program *program);
/* It has answered none of so many requests in time: it is asked to end, killed a second later, and its worker with it.
 */
void program_hangs(struct program *program, unsigned requests);
/* Why a connection to it has ended, if it is by its death, whose news are waited for; else "". */
const char *program_cause(struct program *program, struct langplugin_call *call);
/* Whether it is being killed, or was: then what ended with its connection may not be whole. */
bool program_was_killed(struct program *program, struct langplugin_call *call);

/* ---- silence.c */
#define SILENCE_MOST 256 /* slots of a worker */

/* A request whose time was over before a byte of an answer had come. */
struct ended {
	int fd;		/* its connection, of which our side is shut; -1: there was none */
	uint64_t until; /* CLOCK_MONOTONIC, ns: when the program should have seen that */
};
struct silence {
	atomic_uint count; /* of them in a row */
	pthread_mutex_t mutex;
	struct ended ended[SILENCE_MOST];
	unsigned ended_count;
	unsigned blind; /* how many more in this row the program has not seen the end of */
	bool answered;	/* something, meanwhile */
	bool looks;	/* the thread does */
	bool begun;	/* it is to be joined */
	pthread_t thread;
};
struct lane;
struct plugin;
void silence_begin(struct silence *silence);
void silence_end(struct silence *silence);
/* One more. Its connection is the silence's from now on. */
void silence_add(struct plugin *plugin, struct lane *lane);
void silence_over(struct plugin *plugin); /* the program has answered something */

/* ---- plugin.c */
struct plugin {
	const struct langplugin_host *host;
	struct settings settings;
	struct program program;
	struct lane *lane; /* one for each slot */
	atomic_uint lanes;
	struct silence silence;
};

#define LANE_ROOM 65536 /* bytes read from the program at once, and of a request's body */

/* Bytes on their way: [begin, end) of data. */
struct stretch {
	char *data;
	size_t begin, end, room;
};

/* One slot's: its connection, kept from request to request, and its buffers. */
struct lane {
	struct plugin *plugin;
	int fd; /* -1: none */
	uint64_t idle_since;
	struct stretch in, head, piece;
	struct reply reply;
	struct langplugin_field *fields; /* REPLY_FIELDS: the answer's as the host gets them */
	/* For plugin_dump; a race there costs a wrong word. */
	_Atomic(const char *) doing;
	_Atomic uint64_t since;
};
int lane_open(struct lane *lane, struct plugin *plugin);
void lane_close(struct lane *lane);
void lane_disconnect(struct lane *lane);
uint64_t clock_now(void); /* CLOCK_MONOTONIC nanoseconds */

/* ---- fields.c */
bool text_is(struct langplugin_text text, const char *lower);
/* Whether a field belongs to one connection: by its name, or since `connection`, a Connection field's value, names it.
 */
bool field_is_of_connection(struct langplugin_text name);
bool list_names(struct langplugin_text list, struct langplugin_text name);

/* ---- request.c */
/* The head of the request, into head. -1: no memory. *framed: how its body is. */
enum framing { FRAMED_NOT, FRAMED_LENGTH, FRAMED_CHUNKED, FRAMED_TUNNEL };
int request_make(struct stretch *head, const struct langplugin_request *request, const struct settings *settings,
	enum framing *framing);
bool stretch_add(struct stretch *stretch, const char *data, size_t size);

/* ---- exchange.c */
enum body_state { BODY_WAITS, BODY_FLOWS, BODY_OVER, BODY_DROPPED };
enum answer_state { ANSWER_NONE, ANSWER_BEGUN, ANSWER_WHOLE };

struct exchange {
	const struct langplugin_host *host;
	struct langplugin_call *call;
	const struct langplugin_request *request;
	struct plugin *plugin;
	struct lane *lane;
	enum framing framing;
	enum body_state body, body_at_first;
	enum answer_state answer;
	bool reused, sent, answered; /* a kept connection; a byte was sent on it; a byte has come back */
	bool taken;		     /* of the client's body, something has been read */
	bool deaf;		     /* the program takes nothing more */
	bool unflushed, tunnel;
	bool in_over;		     /* the program has closed its side */
	unsigned interim, pieces;    /* heads before the answer's; pieces of its body, so far */
	struct langplugin_text left; /* of the answer's body: read, and not taken by the host yet */
	uint64_t continue_at;	     /* when the body is sent without having been asked for; 0: never */
};

/* What a step came to. */
enum step {
	STEP_MOVED,
	STEP_RESTS, /* nothing to do before something happens */
	STEP_DONE,
	STEP_GONE,   /* nobody wants the answer */
	STEP_BROKEN, /* exchange_fail has been called */
	STEP_AGAIN   /* the kept connection had ended before the request reached the program */
};
int exchange_run(struct plugin *plugin, struct lane *lane, struct langplugin_call *call);
/* 502, or the end of an answer that has begun; one line that says why. */
enum step exchange_fail(struct exchange *x, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The connection has ended, with errno or 0 for end of file, while the answer is not whole. */
enum step exchange_lost(struct exchange *x, int error);

/* ---- upload.c, answer.c */
enum step upload_step(struct exchange *x);
enum step answer_step(struct exchange *x);

#endif
