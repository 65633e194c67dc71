/*
 * The Ruby plugin's inside.
 *
 *   plugin.c      what langplugin.h asks for: open, preload, fork, close
 *   load.c        applications: loader.rb and streams.rb, which are compiled into the plugin, and what calls them
 *   protect.c     calls into Ruby that may raise
 *   threads.c     Ruby's threads: one for each slot, and the main one, which takes signals
 *   request.c     one request: call the application, clean up whatever happens
 *   environ.c     the Rack environment of a request
 *   answer.c      status and headers     body.c  the body     chunks.c  a body that is chunked already
 *   input.c       rack.input; lines.c its lines; store.c what of it is kept so that it can be rewound
 *   errors.c      rack.errors            stream.c  the stream of a Rack 3 body
 *   callables.c   rack.early_hints, webserver.cancelled      hijack.c  rack.hijack, full and partial
 *   stacks.c      where every thread is, and the end of a request whose time is over
 *
 * Ruby lives on the process's main thread from open() on and holds its lock (the GVL) there until run(). Slots are
 * threads that Ruby makes; they wait in the host without the lock and take it for each request. "SPEC" in comments is
 * Rack's, of versions 2.2 and 3.2.
 *
 * Ruby leaves C functions by longjmp: each function here that calls Ruby may not return, and whoever calls it keeps
 * nothing that somebody would have to free. protect() stands around all of them, in request.c and load.c.
 */
#ifndef WEBSERVER_RUBY_PLUGIN_H
#define WEBSERVER_RUBY_PLUGIN_H

#include <pthread.h>
#include <ruby.h>
#include <ruby/thread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "langplugin.h"

/* Values of the last request that are nearly always this one's too, and stand in the slot's own copy of what all
   requests have in common. */
enum remembered {
	REMEMBER_METHOD,
	REMEMBER_PROTOCOL,
	REMEMBER_SCHEME,
	REMEMBER_SERVER_NAME,
	REMEMBER_SERVER_PORT,
	REMEMBER_REMOTE_ADDR,
	REMEMBER_SCRIPT_NAME,
	REMEMBER_DOCUMENT_ROOT,
	REMEMBER_SERVER_ADDR,
	REMEMBER_SITE,
	REMEMBERED
};

struct thread;

struct plugin {
	const struct langplugin_host *host;
	char *application, *directory; /* application NULL: the requested file */
	VALUE self;		       /* marks what this struct and the threads hold */
	VALUE arguments, preload;      /* arrays of strings */
	VALUE loader;		       /* the module Webserver::Loader */
	VALUE callable;		       /* the application; Qnil before it is loaded, and in script mode */
	VALUE common;		       /* environment: what all requests have in common */
	VALUE *names;		       /* CGI names by the host's numbers */
	VALUE errors, no_input;	       /* rack.errors; rack.input of a request without a body */
	VALUE fork_error;	       /* what a hook raised in the child */
	bool rewinds;		       /* rack.input can be rewound: Rack before 3 */
	struct thread *threads;	       /* by slot */
	int watch;		       /* descriptor that names of loaded files are written to; -1: none */
	int wake;		       /* eventfd of the main thread: a thread has ended, or something is asked */
	atomic_uint finished;
	bool serves; /* run() has been called */
};
extern struct plugin *the_plugin; /* one in a process, as is its language; for what Ruby calls without a state */

/* ---- store.c: bytes [base, base + size) of a body, in memory or, if there are many, in a file without a name */
struct store {
	char *memory; /* kept from request to request unless it has become large */
	size_t room;
	uint64_t base, size;
	int fd; /* -1: in memory */
};
void store_begin(struct store *store);
void store_end(struct store *store);
/* Room for more behind what is there, which is lost unless `keep`. NULL and errno. */
char *store_room(struct store *store, bool keep, size_t *room);
/* That many bytes of the room have been filled. 0, or -1 and errno. */
int store_filled(struct store *store, size_t size);
/* Bytes that are not in the room: for a file. 0, or -1 and errno. */
int store_append(struct store *store, const char *data, size_t size);
/* Up to size bytes from position at. -1 and errno. */
ssize_t store_read(struct store *store, uint64_t at, char *to, size_t size);

struct input {
	int64_t length;	    /* -1: not known */
	uint64_t at, taken; /* the reader's position; bytes that the host has given */
	bool ended, closed, rewinds;
	bool lost;   /* what an interrupted read had has gone with it */
	VALUE whole; /* all of it as one string that the application has read; Qnil: see store */
	struct store store;
};

#define NAMES 64

/* One slot's thread, and the request that it runs. */
struct thread {
	struct plugin *plugin;
	const struct langplugin_host *host;
	unsigned number;
	VALUE ruby;			 /* the Thread */
	VALUE common;			 /* plugin->common and what is remembered */
	VALUE last[REMEMBERED];		 /* frozen strings */
	VALUE *seen;			 /* long values of known fields, frozen, by their number */
	VALUE names[NAMES];		 /* of fields without a number, frozen, by a sum of their bytes */
	struct langplugin_field *fields; /* room for an answer's */
	size_t field_room;
	pthread_t native;
	atomic_bool running; /* native is there */
	bool ended_well;     /* the slot's life is over */

	/* The request. */
	struct langplugin_call *call;	 /* NULL: none */
	uint64_t serial;		 /* tells it from those before and after it */
	VALUE env, body, kept, trailers; /* Qnil: not there; kept: strings made for the answer's head */
	VALUE status, headers;
	struct input input;
	VALUE partial; /* a line to rack.errors that has not ended */
	int64_t left;  /* of the answer's Content-Length; -1: not known, or no body follows */
	bool responded, no_body, gone, ended, hijacked, streaming, told_gone, chunked;
	struct {
		int state;
		uint64_t left;
	} chunk;

	/* An application may read or write from a thread of its own, while this one waits for that thread: the call is
	   one thread's at a time. waiting: one is in the host without the lock, and holds turn. */
	VALUE turn;
	bool waiting;
};

/* ---- request.c */
void request_define(void);
int request_run(struct thread *thread, struct langplugin_call *call);
/* Run a function of the host's that may wait, without Ruby's lock; its result. Raises nothing. */
typedef int waiting_function(struct thread *thread, void *argument);
int call_wait(struct thread *thread, waiting_function *function, void *argument);
/* Before anything that calls the host: wait for a thread that is in it. */
void call_turn(struct thread *thread);

/* Objects of a request hold no pointer to it, only a number that says which one it was: they cost one object and no
   memory beside it, and are worth nothing once the request is over. */
VALUE ticket_new(VALUE class, const rb_data_type_t *type, const struct thread *thread);
/* The thread that runs the request, or NULL: it is over. */
struct thread *ticket_thread(VALUE ticket, const rb_data_type_t *type);
#define TICKET_TYPE(name)                                                                                              \
	{                                                                                                              \
		name, {NULL, RUBY_NEVER_FREE, NULL, NULL, {NULL}}, NULL, NULL,                                         \
			RUBY_TYPED_FREE_IMMEDIATELY | RUBY_TYPED_WB_PROTECTED                                          \
	}

/* ---- threads.c */
void threads_run(void *state);
int threads_start(void *state, void **thread);
void threads_stop(void *state, void *thread);
void thread_mark(struct thread *thread);
extern _Thread_local struct thread *current_thread; /* the slot whose thread this is, or NULL */

/* ---- environ.c */
void environ_make(struct plugin *plugin);
VALUE environ_of(struct thread *thread);
VALUE environ_after_reply(VALUE env);
VALUE environ_response_finished(VALUE env);
VALUE environ_protocol(VALUE env);

/* ---- answer.c, body.c, chunks.c */
void answer_send(struct thread *thread, VALUE response);
int answer_status(VALUE status);
struct answer_special { /* headers that are for the server; Qnil: not there */
	VALUE hijack, protocol;
};
/* Lay out headers in thread->fields; returns their number. keep_connection: with the connection's own. */
size_t answer_fields(
	struct thread *thread, VALUE headers, bool keep_connection, struct answer_special *special, bool *has_length);
/* Give the head to the host; length -1: not known. */
void answer_head(struct thread *thread, int status, size_t count, bool has_length, int64_t length);
RBIMPL_ATTR_NORETURN() void answer_refused(struct thread *thread, int status, size_t count);
void body_send(struct thread *thread, int status, size_t count, bool has_length);
/* Bytes of the body; owner: the string that they lie in. False: nobody wants more. */
bool body_write(struct thread *thread, VALUE part, bool flush);
bool body_put(struct thread *thread, const char *data, size_t size, VALUE owner, bool flush);
bool body_flush(struct thread *thread);
/* End the answer, so that what follows keeps no client waiting. */
void body_end(struct thread *thread);
/* A part of a body that is chunked already. */
bool chunks_write(struct thread *thread, VALUE part);
void chunks_end(struct thread *thread);

/* ---- input.c, lines.c, errors.c, stream.c, callables.c, hijack.c */
void input_define(VALUE module);
VALUE input_of(struct thread *thread);
void input_end(struct thread *thread);
VALUE input_read(struct thread *thread, int argc, VALUE *argv);
VALUE input_read_partial(struct thread *thread, int argc, VALUE *argv);
/* The request that a rack.input is of, once nobody else is in the host for it. Raises where it is over, or closed. */
struct thread *input_thread(VALUE self);
/* limit -1: to the end. into: a string to fill, or Qnil. partial: what is there will do. */
VALUE input_bytes(struct thread *thread, int64_t limit, VALUE into, bool partial);
/* The next part, waited for without Ruby's lock, into what is kept. False: the end. */
bool input_hold(struct thread *thread);
/* The held bytes at the reader's position, in `block` or elsewhere; fetches some if there are none. 0: the end. */
size_t input_peek(struct thread *thread, char *block, size_t size, const char **at);
void lines_define(VALUE class);
void errors_define(struct plugin *plugin, VALUE module);
void errors_end(struct thread *thread);
void stream_define(VALUE module);
VALUE stream_of(struct thread *thread);
void callables_define(VALUE module);
VALUE callable_early_hints(const struct thread *thread);
VALUE callable_cancelled(const struct thread *thread);
VALUE callable_trailers(const struct thread *thread);
/* Tell the host of trailers that the application has set, once the answer has begun. */
void trailers_set(struct thread *thread);
void hijack_define(VALUE module);
VALUE callable_hijack(const struct thread *thread);
void hijack_answer(struct thread *thread, int status, VALUE hijack);

/* ---- load.c */
void load_begin(struct plugin *plugin);
void load_preload(struct plugin *plugin);
void load_application(struct plugin *plugin);
/* The application of the requested file, or an Integer: the status to answer with. */
VALUE load_requested(struct plugin *plugin, const struct langplugin_request *request);
/* An exception as text for the log; one line of it goes to message if that is not NULL. Raises nothing. */
void load_report(struct plugin *plugin, struct langplugin_call *call, VALUE error, char *message, size_t message_size);
VALUE load_call(struct plugin *plugin, const char *name, int argc, const VALUE *argv);
/* The exception that protect() has stopped, and forgotten by Ruby; Qnil: it was none (a thread's end, a throw). */
VALUE load_error(void);

/* ---- protect.c */
/* As rb_protect(), which nothing else calls. */
VALUE protect(VALUE (*function)(VALUE argument), VALUE argument, int *state);

/* ---- stacks.c */
void stacks_prepare(void);
void stacks_dump(void *state, int fd);
int stacks_ask(void *state);
void stacks_serve(struct plugin *plugin); /* on Ruby's main thread: what has been asked for */

static inline VALUE bytes(struct langplugin_text text)
{
	return rb_str_new(text.data, (long)text.size);
}

#endif
