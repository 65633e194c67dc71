/*
 * langplugin.h - what a language plugin and the worker host promise each other.
 *
 * A plugin is a shared object that exports one symbol, `langplugin`. The manager process of a group opens it after it
 * has dropped its privileges and has been exec'ed; the host then calls it. A plugin links against nothing of the
 * server: all it may call is in struct langplugin_host. It never learns how requests arrive.
 *
 * Order of calls:
 *
 *   manager    open -> preload -> (fork, any number of times)
 *   worker     after_fork -> thread_start on each thread -> handle ... -> thread_stop on each thread -> close
 *
 * A plugin whose language must make its threads itself (LANGPLUGIN_OWN_THREADS), or that has an event loop
 * (LANGPLUGIN_ASYNC), has run(): the host calls it where it would else start threads or wait.
 *
 * History:
 *   1.0  first version
 *   1.1  run(), ready(); slot(), descriptor(), turn(), place(), trailers(), request_trailers(), take_over();
 *        wait(), give_up(), interrupt(); respond() with 101; upgrade, expects_continue, takes_trailers of a request;
 *        choose(), fork()
 *   1.2  ask(), asked(), overdue(); fail(), variable(), mark(); dump() in processes that go on, and while they start;
 *        a Content-Length field comes before respond()'s content_length
 *
 * Additions go to the end of a struct and raise minor; a reader looks at `size` before it touches them.
 */
#ifndef LANGPLUGIN_H
#define LANGPLUGIN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LANGPLUGIN_MAGIC 0x4c504c47u
#define LANGPLUGIN_MAJOR 1
#define LANGPLUGIN_MINOR 2

#ifdef __cplusplus
extern "C" {
#endif

/* One request, from handle() until it returned LP_DONE or finish() was called. Owned by the host. */
struct langplugin_call;

struct langplugin_text {
	const char *data; /* always followed by a NUL that is not counted, and never NULL */
	size_t size;
};

/* A CGI variable made of a request field; fields of one name are joined (", "; Cookie: "; "). */
struct langplugin_variable {
	struct langplugin_text name; /* "HTTP_ACCEPT", "CONTENT_TYPE" */
	struct langplugin_text value;
	unsigned known; /* below host->known_count: name is host->known[known], the same for each request; else 0 */
};

struct langplugin_field {
	struct langplugin_text name;
	struct langplugin_text value;
};

/* What does not change while the call lives; all text lives as long. Paths are percent-decoded bytes. */
struct langplugin_request {
	struct langplugin_text method, target, path, query, script_name, path_info, script_filename, document_root;
	struct langplugin_text host, server_name, server_port, scheme, remote_addr, remote_port, server_addr;
	struct langplugin_text protocol;   /* "HTTP/1.1" */
	struct langplugin_text request_id; /* for log lines */
	struct langplugin_text site;
	const struct langplugin_variable *variables; /* HTTP_*, CONTENT_TYPE, CONTENT_LENGTH; nothing else */
	size_t variable_count;
	const struct langplugin_field *fields; /* as they came, in order */
	size_t field_count;
	int64_t content_length; /* -1: not known beforehand (chunked) */
	int head;		/* method is HEAD */
	int chunked;		/* content_length is -1 and a body follows */

	/* 1.1 */
	struct langplugin_text upgrade; /* what the client asks to change to: its Upgrade field; empty: nothing */
	int expects_continue;		/* it sends its body only after the first read() */
	int takes_trailers;		/* it said TE: trailers */
};

enum langplugin_result {
	LP_OK = 0,
	LP_AGAIN = -1, /* LP_NOWAIT was asked and it would wait */
	LP_GONE = -2,  /* the client is gone, or the deadline has passed: stop */
	LP_INVALID =
		-3, /* an argument breaks a rule of HTTP, or a call came in the wrong order: a bug in the application */
	LP_FAILED = -4 /* the system failed; errno says how */
};

enum langplugin_flags {
	LP_NOWAIT = 1 /* do not wait: return LP_AGAIN instead, so that the plugin can give its lock away first */
};

#define LANGPLUGIN_MARK 96 /* bytes */

enum langplugin_level { LP_ERROR = 0, LP_WARNING = 1, LP_NOTICE = 2 };

/*
 * The host's functions. All may be called from the thread that handle() runs on; log and cancelled from any thread.
 * None takes or needs a language's lock; those that may wait say so.
 */
struct langplugin_host {
	uint32_t size; /* of this struct, in bytes */
	uint32_t major, minor;
	unsigned known_count;
	const struct langplugin_text *known; /* CGI names by number; index 0 is empty */
	int threads;			     /* of this worker */
	int processes;			     /* of this group */

	const struct langplugin_request *(*request)(struct langplugin_call *call);

	/*
	 * Read request body. Returns bytes read (> 0), 0 at its end, or LP_AGAIN, LP_GONE. May wait. The first call
	 * lets a waiting client send (100 Continue).
	 */
	ssize_t (*read)(struct langplugin_call *call, void *buffer, size_t size, int flags);

	/*
	 * Begin the answer. Once for each call. Field names and values are checked (LP_INVALID); connection fields
	 * (Connection, Keep-Alive, Transfer-Encoding, Upgrade, Trailer, TE) are refused with LP_INVALID. content_length
	 * -1: not known. A Content-Length field comes before it, if there is one (until 1.2: only before -1). Nothing
	 * is sent before the first write, flush or the end. reason may be empty.
	 *
	 * Status 101 (1.1), only where the request has `upgrade` and with an Upgrade field that names one of those:
	 * the head is sent at once, and from then on read() and write() are the two directions of a tunnel. read() is 0
	 * when the client has ended its side; the end of the call ends ours. write() is followed by flush() where
	 * somebody waits for it.
	 */
	int (*respond)(struct langplugin_call *call, int status, struct langplugin_text reason,
		const struct langplugin_field *fields, size_t count, int64_t content_length);

	/* Take back a respond() of which nothing has been sent. LP_INVALID if it has. */
	int (*unrespond)(struct langplugin_call *call);

	/* Answer body. All of it is taken, or none (LP_AGAIN). May wait for the client. Small writes are gathered. */
	int (*write)(struct langplugin_call *call, const void *data, size_t size, int flags);

	/* Send what has been gathered. */
	int (*flush)(struct langplugin_call *call, int flags);

	/* Answer body from a file, from offset; length -1: to its end. The descriptor stays the caller's. May wait. */
	int (*send_file)(struct langplugin_call *call, int fd, int64_t offset, int64_t length);

	/* A 1xx answer before the real one. */
	int (*inform)(struct langplugin_call *call, int status, const struct langplugin_field *fields, size_t count);

	/* The answer cannot be finished: the client's connection is cut, so that it cannot look complete. */
	void (*abort)(struct langplugin_call *call);

	/* True once the client is gone or the deadline has passed. Costs one load. */
	int (*cancelled)(struct langplugin_call *call);

	/* CLOCK_MONOTONIC nanoseconds, 0 for none. */
	uint64_t (*deadline)(struct langplugin_call *call);

	/* Ends a call for which handle() returned LP_PENDING. From the thread that handle() ran on. */
	void (*finish)(struct langplugin_call *call);

	/*
	 * One entry of the group's error log, may hold newlines; with the request's id if call is not NULL. Never
	 * waits: what does not fit is dropped and counted.
	 */
	void (*log)(struct langplugin_call *call, int level, const char *text, size_t size);

	/*
	 * The answer is complete: it is sent to its end now, while handle() goes on with work that nobody waits for.
	 * Everything but cancelled, deadline and log returns LP_INVALID afterwards. LP_OK, or as write().
	 */
	int (*end)(struct langplugin_call *call);

	/* ---- 1.1 */

	/*
	 * Fields after the answer's body, between respond() and the end; a second call replaces the first. They are
	 * sent where the framing can carry them and the client takes them, else dropped. Checked as those of respond(),
	 * and none that frames a message, routes it or authenticates (RFC 9110, section 6.5.1).
	 */
	int (*trailers)(struct langplugin_call *call, const struct langplugin_field *fields, size_t count);

	/* Fields after the request's body: there once read() has returned 0, until the call is over. */
	const struct langplugin_field *(*request_trailers)(struct langplugin_call *call, size_t *count);

	/*
	 * Give the connection to the application, for interfaces that let it answer by hand: a connected stream socket,
	 * the caller's to close, or -1 and errno. What is written to it is an HTTP/1.1 answer: a head, which the host
	 * reads and checks (101 only where respond() would take it), then its body to the end of the stream. What is
	 * read from it is what is left of the request's body, or the tunnel. Before respond() only; afterwards
	 * everything but cancelled, deadline and log is LP_INVALID. It works at once: handle() may talk to the client
	 * before it returns. The slot is taken until both directions have ended, which may be long after handle() has
	 * returned LP_DONE, and until handle() has. Not with LANGPLUGIN_ASYNC (ENOTSUP).
	 */
	int (*take_over)(struct langplugin_call *call);

	/* A place for a pointer of the plugin's own in each call; NULL when handle() is called. */
	void **(*place)(struct langplugin_call *call);

	/*
	 * LANGPLUGIN_OWN_THREADS, from run(): serve slot `number`, below `threads`, on this thread until the orderly
	 * end. Calls thread_start, handle ..., thread_stop here. The thread must not hold a language's lock; each
	 * number once, 0 on the process's main thread. 0, or -1: it could not start.
	 */
	int (*slot)(unsigned number);

	/*
	 * LANGPLUGIN_ASYNC, from run(): the event loop watches descriptor() and, whenever it can be read, calls turn().
	 * turn() takes in what has come, calls handle() for each request that begins and ready() for each call for
	 * which something has changed. Never waits. 1; or 2, once the orderly end has been asked for: no request
	 * comes any more, and what would last for ever (a tunnel) is the plugin's to end; or 0: the orderly end is
	 * over, run() is to return.
	 */
	int (*descriptor)(void);
	int (*turn)(void);

	/*
	 * For a plugin that has two sides to listen to: sleep until fd (-1: none) is ready for `events` (poll(2)), or
	 * something of this call has changed: body has come, more of the answer may leave, the client is gone. Call it
	 * when read() and write() have said LP_AGAIN, and try them again afterwards. fd's events (above 0); 0, also
	 * once `milliseconds` are over (-1: no limit); or LP_GONE. Not with LANGPLUGIN_ASYNC.
	 */
	int (*wait)(struct langplugin_call *call, int fd, short events, int milliseconds);

	/*
	 * This process can do no more, and why, in one sentence without a name for itself. It takes nothing new, ends
	 * what it runs, and is replaced; what it has not begun is run elsewhere. From any thread, from after_fork()
	 * on; the first one counts.
	 */
	void (*give_up)(const char *why);

	/*
	 * From any thread, while the call lives: what waits in read, write, flush or inform, or the next that would,
	 * returns LP_AGAIN and has done nothing; one that has done a part of it goes on. For languages in which one
	 * thread can interrupt another.
	 */
	void (*interrupt)(struct langplugin_call *call);

	/* ---- 1.2 */

	/*
	 * For a plugin with ask(): does anybody want to know where this process's requests are? A descriptor, to which
	 * the stacks are written as text, file and line of each frame, the innermost first; who gets it closes it. Or
	 * -1. From any thread and from handlers of signals; does not wait.
	 */
	int (*asked)(void);

	/*
	 * True, once: this call has run past its deadline, and its process will be killed unless it ends. It is to be
	 * ended by the language's own means, as an exception that is raised in it. From any thread, while the call
	 * lives.
	 */
	int (*overdue)(struct langplugin_call *call);

	/*
	 * The application has failed: 500 with a line of text; or 403 or 404, where there is none. It takes the place
	 * of an answer of which nothing has been sent; one that has been is cut off, as by abort().
	 */
	void (*fail)(struct langplugin_call *call, int status);

	/*
	 * What CGI (RFC 3875) knows by this name: REQUEST_METHOD, SCRIPT_NAME, PATH_INFO, QUERY_STRING, REQUEST_URI,
	 * REQUEST_SCHEME, HTTPS, SERVER_..., REMOTE_..., DOCUMENT_ROOT, SCRIPT_FILENAME; also REQUEST_ID and UPGRADE;
	 * and the request's `variables`. NULL: there is none of that name. Lives as long as the request.
	 */
	const struct langplugin_text *(*variable)(struct langplugin_call *call, const char *name, size_t size);

	/*
	 * Of a script that may have changed since it was loaded: 0, and a text that is another one then; or what to
	 * fail() with: 404, 403, or 500 where the log says why. The file is not opened. call may be NULL.
	 */
	int (*mark)(struct langplugin_call *call, const char *path, char mark[LANGPLUGIN_MARK]);
};

enum langplugin_handled {
	LP_DONE = 0,   /* the answer is complete */
	LP_PENDING = 1 /* the plugin calls finish() later; only with LANGPLUGIN_ASYNC */
};

/* A setting of the group's file, by its name there: "application", "ini.memory_limit", "environment.HOME" ... */
struct langplugin_setting {
	const char *name;
	const char *value;
};

enum langplugin_traits {
	LANGPLUGIN_SINGLE_THREAD = 1, /* threads > 1 is refused */
	LANGPLUGIN_MAIN_THREAD = 2, /* handle() of slot 0 must be on the process's main thread; always so at present */
	/*
	 * One thread, which serves `threads` requests at a time: run() is the plugin's event loop. handle() may return
	 * LP_PENDING. No function waits: read, write and flush act as if LP_NOWAIT were given, inform() as well; what
	 * end() and finish() have not sent yet leaves by itself. A write of more than LANGPLUGIN_WRITE bytes would
	 * never be taken. send_file() is LP_INVALID.
	 */
	LANGPLUGIN_ASYNC = 4,
	LANGPLUGIN_OWN_THREADS = 8 /* run() makes the threads that slot() is called on */
};

#define LANGPLUGIN_WRITE 196608 /* bytes that one write with LP_NOWAIT takes at most */

struct langplugin {
	uint32_t magic; /* LANGPLUGIN_MAGIC */
	uint16_t major, minor;
	uint32_t size; /* sizeof(struct langplugin) */
	uint32_t traits;
	const char *name;    /* "python" */
	const char *version; /* of the language, for status: "3.11.2" */

	/*
	 * In the manager, once. Stores the plugin's state at *state, which each later call is given. host lives as long
	 * as the process. Returns 0, or -1 after writing a message that names what is wrong and where.
	 */
	int (*open)(const struct langplugin_host *host, const struct langplugin_setting *settings, size_t count,
		void **state, char *message, size_t message_size);

	/* In the manager, after open: load the modules or the application named by `preload`. May be NULL. As open. */
	int (*preload)(void *state, char *message, size_t message_size);

	/* In a new worker, on its main thread, before any other thread exists. Loads the application. As open. */
	int (*after_fork)(void *state, char *message, size_t message_size);

	/* On each thread that will call handle(), before the first; *thread is given to handle(). May be NULL. 0 or -1.
	 */
	int (*thread_start)(void *state, void **thread);
	void (*thread_stop)(void *state, void *thread);

	/* Run one request to its end. Never returns with the language's lock held. */
	int (*handle)(void *state, void *thread, struct langplugin_call *call);

	/*
	 * Write each thread's stack as text to fd: file and line, innermost first. Called from a thread of the host's
	 * own while handle() may hang; by one at a time, and from 1.2 on also in processes that go on, which it must
	 * not harm; with ask(), only where nobody has come by. Before thread_start() or run() it is called from a
	 * handler of a signal, on the thread that after_fork() or preload() hangs in. May be NULL.
	 */
	void (*dump)(void *state, int fd);

	/* In the worker, when no thread is left. May be NULL. */
	void (*close)(void *state);

	/* ---- 1.1; looked at only if a trait asks for them */

	/* In the worker, on its main thread: see LANGPLUGIN_OWN_THREADS and LANGPLUGIN_ASYNC. Returns at the end. */
	void (*run)(void *state);

	/*
	 * LANGPLUGIN_ASYNC, from turn(): what read, write or flush returned LP_AGAIN for may be there now, or the call
	 * was cancelled.
	 */
	void (*ready)(void *state, struct langplugin_call *call);

	/*
	 * In the manager, before open(): which plugin these settings ask for, where one object is several with
	 * different traits (Python: WSGI or ASGI). Never NULL. May be NULL: this one.
	 */
	const struct langplugin *(*choose)(const struct langplugin_setting *settings, size_t count);

	/*
	 * In the manager, for a language that must know of a fork before and after it: as fork(2). NULL: the manager
	 * forks by itself.
	 */
	pid_t (*fork)(void *state);

	/* ---- 1.2 */

	/*
	 * Have the language look, as soon as it can, at asked() and at overdue() of what it runs: from a hook that it
	 * calls between two instructions, say, or here, with its lock. On a thread of the host's own, one at a time;
	 * may wait for the lock for as long as that takes. 0; or -1: nobody will look at asked() (nothing runs, or it
	 * can be read from outside at any time), and dump() is called at once, else only when 0.2 s have brought
	 * nothing. May be NULL.
	 */
	int (*ask)(void *state);
};

/* The first members: which interface a plugin was built for. */
#define LANGPLUGIN_VERSION                                                                                             \
	.magic = LANGPLUGIN_MAGIC, .major = LANGPLUGIN_MAJOR, .minor = LANGPLUGIN_MINOR,                               \
	.size = sizeof(struct langplugin)

extern const struct langplugin langplugin;

#ifdef __cplusplus
}
#endif

#endif
