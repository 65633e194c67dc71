/*
 * The Perl plugin's inside.
 *
 *   plugin.c       what langplugin.h asks for: open, preload, fork, one request, close
 *   interpreter.c  the one interpreter: start, end, exit(), signals
 *   load.c         applications: loader.pl, which is compiled into the plugin, and what calls it
 *   environ.c      the PSGI environment of a request
 *   request.c      one request: call the application, see its answer out, clean up
 *   answer.c       status, headers and array bodies      body.c    bodies that are read
 *   writer.c       delayed answers and streams           dechunk.c bodies that the application has chunked
 *   handle.c       the handles that a request is given, and their layers: input.c and spool.c, errors.c, connection.c
 *   functions.c    code references in the environment
 *   trace.c        where a request is, and its end when its time is over
 *
 * Debian's perl is built with MULTIPLICITY: the interpreter is plugin->perl, and every call that needs one is given it
 * as aTHX. There is one in the process and one thread in it. "PSGI" in comments is PSGI 1.102 (PSGI.pod,
 * PSGI::Extensions).
 *
 * Perl leaves a function by longjmp(3), at die() and at exit(): what a function must give back lies on perl's stacks
 * (mortal values, SAVEDESTRUCTOR_X), never in its own variables.
 */
#ifndef WEBSERVER_PERL_PLUGIN_H
#define WEBSERVER_PERL_PLUGIN_H

#define PERL_NO_GET_CONTEXT
#include <EXTERN.h>
#include <perl.h>
#include <XSUB.h>
#include <perliol.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "langplugin.h"

/* clang-format off */
#define PERL_KEYS(X) \
	X(REQUEST_METHOD, "REQUEST_METHOD") X(REQUEST_URI, "REQUEST_URI") X(SCRIPT_NAME, "SCRIPT_NAME") \
	X(PATH_INFO, "PATH_INFO") X(QUERY_STRING, "QUERY_STRING") X(SERVER_NAME, "SERVER_NAME") \
	X(SERVER_PORT, "SERVER_PORT") X(SERVER_PROTOCOL, "SERVER_PROTOCOL") X(SERVER_ADDR, "SERVER_ADDR") \
	X(SERVER_SOFTWARE, "SERVER_SOFTWARE") X(REMOTE_ADDR, "REMOTE_ADDR") X(REMOTE_PORT, "REMOTE_PORT") \
	X(DOCUMENT_ROOT, "DOCUMENT_ROOT") X(SCRIPT_FILENAME, "SCRIPT_FILENAME") X(HTTPS, "HTTPS") \
	X(CONTENT_LENGTH, "CONTENT_LENGTH") \
	X(VERSION, "psgi.version") X(URL_SCHEME, "psgi.url_scheme") X(INPUT, "psgi.input") X(ERRORS, "psgi.errors") \
	X(MULTITHREAD, "psgi.multithread") X(MULTIPROCESS, "psgi.multiprocess") X(RUN_ONCE, "psgi.run_once") \
	X(NONBLOCKING, "psgi.nonblocking") X(STREAMING, "psgi.streaming") \
	X(BUFFERED, "psgix.input.buffered") X(IO, "psgix.io") X(LOGGER, "psgix.logger") \
	X(INFORMATIONAL, "psgix.informational") X(HARAKIRI, "psgix.harakiri") \
	X(HARAKIRI_COMMIT, "psgix.harakiri.commit") X(CLEANUP, "psgix.cleanup") \
	X(CLEANUP_HANDLERS, "psgix.cleanup.handlers") \
	X(REQUEST_ID, "webserver.request_id") X(DEADLINE, "webserver.deadline") X(CANCELLED, "webserver.cancelled")
/* clang-format on */

enum key {
#define X(name, text) KEY_##name,
	PERL_KEYS(X)
#undef X
		KEY_COUNT
};

/* Values that many requests in a row have: the last one's is kept. Known fields follow, by the host's numbers. */
enum remembered {
	REMEMBER_METHOD,
	REMEMBER_PROTOCOL,
	REMEMBER_SCHEME,
	REMEMBER_SERVER_NAME,
	REMEMBER_SERVER_PORT,
	REMEMBER_SERVER_ADDR,
	REMEMBER_REMOTE_ADDR,
	REMEMBER_SCRIPT_NAME,
	REMEMBER_DOCUMENT_ROOT,
	REMEMBER_FIELDS
};

/* How a known field becomes a value of the environment. */
enum manner { MANNER_PLAIN, MANNER_STEADY, MANNER_DROPPED };

struct request;

struct plugin {
	const struct langplugin_host *host;
	const struct langplugin_setting *settings; /* the host keeps them */
	size_t setting_count;
	PerlInterpreter *perl;
	const char *application; /* the setting; NULL: the requested file */
	SV *callable;		 /* the application's code reference; NULL: the requested file's */
	HV *scripts;		 /* requested files: path -> [mark, code reference] */
	CV *serve;		 /* request.c's function, as perl calls it */
	pid_t pid;		 /* the worker's: a child that application code forks is another process */
	SV *keys[KEY_COUNT];	 /* with their hashes */
	SV **names;		 /* CGI names by the host's numbers, with their hashes */
	unsigned char *manner;	 /* enum manner, by the same numbers */
	SV **last;		 /* by enum remembered */
	SV *software, *empty;
	AV *version; /* psgi.version */
	CV *logger, *informational, *cancelled;
	SV *word_getline, *word_close, *word_path;
	GV *input, *errors, *connection; /* the last request's handles; each is used again if nobody has kept it */
	PerlIO *standard_error;
	struct request *request;	     /* that runs now; NULL: none */
	uint64_t serial;		     /* of the request: what belongs to an older one is dead */
	struct sigaction term;		     /* the host's handler */
	uint64_t term_seen_ns;		     /* 0: never */
	despatch_signals_proc_t signal_hook; /* perl's own */
};

/* Of a body that the application has chunked itself. */
struct dechunk {
	uint64_t left; /* of the chunk */
	uint8_t state;
};

enum phase { PHASE_SERVE, PHASE_END, PHASE_FREE, PHASE_CLEAN, PHASE_DROP, PHASE_OVER };

/* On handle()'s stack. */
struct request {
	struct plugin *plugin;
	struct langplugin_call *call;
	const struct langplugin_request *about;
	SV *application; /* a code reference; borrowed */
	const COP *cop;	 /* what perl takes for the running line while none of the application's is */
	HV *environ;	 /* referenced here from PHASE_SERVE to PHASE_DROP */
	AV *handlers;	 /* psgix.cleanup.handlers, the same */
	enum phase phase;
	int64_t left;			   /* of the answer's Content-Length; -1: not known, or no body follows */
	struct dechunk *decoder, decoding; /* NULL, or the application has chunked its answer itself */
	bool answered;			   /* an answer has been taken from the application */
	bool begun;			   /* the host has its head */
	bool bodiless;			   /* HEAD, 204, 304: nothing follows the head */
	bool ended;			   /* the host has all of it */
	bool gone;			   /* nobody waits for it any more */
	bool surplus;			   /* the application has been told that it said too much */
	bool streams;			   /* a writer has been given out and not been closed */
	bool taken;			   /* the application has the connection itself (psgix.io) */
	bool failed;			   /* with an exception or by exit() */
};

/* ---- interpreter.c */
int interpreter_start(struct plugin *plugin, char *message, size_t size);
void interpreter_end(struct plugin *plugin);
/* Run what may die or exit. 0; 1: it called exit(), and perl's stacks are as before. */
int interpreter_run(pTHX_ void (*what)(pTHX_ void *argument), void *argument);
/* The status that exit() was called with. In a child that application code has forked it does not return. */
int interpreter_exited(struct plugin *plugin);
void interpreter_forked(struct plugin *plugin);
/* SIGTERM is the host's, whatever `local $SIG{TERM}` has left behind. */
void interpreter_keep_signals(struct plugin *plugin);
/* After a call with G_EVAL: the exception, or NULL. */
SV *interpreter_exception(pTHX);

/* ---- load.c: 0, or -1 and a message */
int load_begin(struct plugin *plugin, char *message, size_t size);
int load_preload(struct plugin *plugin, char *message, size_t size);
int load_application(struct plugin *plugin, char *message, size_t size);
/* The application of the requested file, or NULL and the status of the answer that says why not. */
SV *load_requested(struct plugin *plugin, struct langplugin_call *call, int *status);
/* An exception, or any value, as text; mortal. */
SV *load_text(pTHX_ SV *value);

/* ---- environ.c */
int environ_make(struct plugin *plugin);
HV *environ_of(pTHX_ struct request *request);

/* ---- request.c */
int request_run(struct plugin *plugin, struct langplugin_call *call);
XS(request_serve);

/* ---- answer.c: these die */
/* An answer that the application returned, or, delayed, gave to the responder. A writer, mortal, if it has no body. */
SV *answer_send(pTHX_ struct request *request, SV *answer, bool delayed);
/* What begins an answer, and a 1xx one: an array of names and values as fields, in mortal memory if they are many. */
#define ANSWER_FIELDS 32
size_t answer_fields(pTHX_ const struct request *request, AV *array, struct langplugin_field small[ANSWER_FIELDS],
	struct langplugin_field **fields);
/* Which of them the host does not take, and why, as the end of a sentence. */
const char *answer_objection(const struct langplugin_field *fields, size_t count, const struct langplugin_field **bad);
/* The bytes of a value; dies if it has wide characters: `what` says where. */
struct langplugin_text answer_bytes(pTHX_ const struct request *request, SV *value, const char *what);
/* Bytes of the body; false: nobody wants more. */
bool answer_write(pTHX_ struct request *request, struct langplugin_text bytes, bool flush);
/* The application has nothing more to say. */
void answer_end(pTHX_ struct request *request);
/* Die with a text; in application code perl adds where. */
void answer_die(pTHX_ const struct request *request, const char *format, ...)
	__attribute__((noreturn, format(printf, pTHX_2, pTHX_3)));

/* ---- body.c */
void body_send(pTHX_ struct request *request, SV *body);

/* ---- writer.c */
int writer_make(struct plugin *plugin);
void writer_delay(pTHX_ struct request *request, SV *callback);
SV *writer_new(pTHX_ struct request *request);

/* ---- dechunk.c */
struct dechunk *dechunk_begin(struct dechunk *decoder);
bool dechunk_over(const struct dechunk *decoder);
/* Decode in place. Bytes of content, or -1: not chunked. *last: the last chunk has come. */
ssize_t dechunk(struct dechunk *decoder, char *data, size_t size, bool *last);

/* ---- handle.c */
/* A glob with one layer on it: the one of before, or a new one if somebody has kept or changed that. */
GV *handle_take(pTHX_ GV **kept, const char *name, PerlIO_funcs *layer, const char *mode, char type);
PerlIO *handle_file(GV *handle);
void handle_release(pTHX_ GV **kept);

/* ---- input.c, spool.c, errors.c, connection.c */
extern PerlIO_funcs input_layer, errors_layer, connection_layer;
/* A second handle to the same request is refused (EBADF). */
PerlIO *layer_dup(pTHX_ PerlIO *file, PerlIO *of, CLONE_PARAMS *parameters, int flags);
#define INPUT_KEPT 65536 /* a body of up to so many bytes stays in memory while its request lives: seek() */
SV *input_take(pTHX_ struct request *request);
void input_release(pTHX_ struct plugin *plugin);
/* A body of unknown length: its CONTENT_LENGTH, known once it has been asked for. */
SV *input_length(pTHX_ struct request *request);
SV *errors_take(pTHX_ struct plugin *plugin);
void errors_release(pTHX_ struct plugin *plugin);
/* Standard error's lines become entries of the log, with the request's id. */
int errors_standard(pTHX_ struct plugin *plugin);
void errors_forked(struct plugin *plugin);
bool connection_offered(const struct plugin *plugin);
SV *connection_take(pTHX_ struct plugin *plugin);
void connection_release(pTHX_ struct plugin *plugin);

/* ---- functions.c */
int functions_make(struct plugin *plugin);
/* A function in C as perl sees it; its CvXSUBANY is the plugin. */
CV *function_new(pTHX_ struct plugin *plugin, const char *name, XSUBADDR_t function);
static inline struct plugin *function_plugin(CV *cv)
{
	return (struct plugin *)CvXSUBANY(cv).any_ptr;
}

/* ---- trace.c */
void trace_prepare(struct plugin *plugin);
void trace_dump(void *state, int fd);
int trace_ask(void *state);

/* Functions that a host of an older minor version does not have. */
#define HOST_HAS(host, member)                                                                                         \
	((host)->size >= offsetof(struct langplugin_host, member) + sizeof((host)->member) && (host)->member != NULL)

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
