/*
 * The Python plugin's inside.
 *
 *   plugin.c      what langplugin.h asks for: open, preload, fork, threads, close
 *   asgi.h        ASGI, which is a plugin of its own in the same object
 *   load.c        applications: loader.py, which is compiled into the plugin, and what calls it
 *   environ.c     the WSGI environment of a request
 *   request.c     one request: call the application, send what it returns, clean up
 *   response.c    start_response and write; extras.c  early hints, trailers, cancelled
 *   input.c       wsgi.input        errors.c  wsgi.errors        filewrapper.c  wsgi.file_wrapper
 *   stacks.c      where every thread is, and the end of a request whose time is over
 *   compat.h      one text for every CPython from 3.9 on
 *
 * The manager is a CPython process, and this is loaded into it: there is one interpreter, the group's own. Calls from
 * the host come without the interpreter's lock; each of them takes it and gives it back, and gives it away around
 * everything that may wait. PEP 3333 is what "PEP" means in comments here.
 */
#ifndef WEBSERVER_PYTHON_PLUGIN_H
#define WEBSERVER_PYTHON_PLUGIN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdbool.h>

#include "compat.h"
#include "langplugin.h"

/* A str of the last request's value: most requests of a client, or of a host, have the same. */
struct remembered {
	PyObject *text;
};

enum remembered_as {
	REMEMBER_METHOD,
	REMEMBER_PROTOCOL,
	REMEMBER_SCHEME,
	REMEMBER_SERVER_NAME,
	REMEMBER_SERVER_PORT,
	REMEMBER_REMOTE_ADDR,
	REMEMBER_SCRIPT_NAME,
	REMEMBER_DOCUMENT_ROOT,
	REMEMBERED
};

/* ASGI: see asgi.h. */
struct asgi {
	PyObject *serve, *gone, *send_file;			  /* of asgi.py */
	PyObject *handshake, *accept, *close_later, *socket_over; /* of websocket.py */
	PyObject *create_task, *create_future;			  /* of the loop */
	PyObject *state;					  /* of lifespan */
	PyObject *disconnected;					  /* exception: send() to a client that is gone */
	PyObject *extensions, *version;				  /* of scopes */
};

struct plugin {
	const struct langplugin_host *host;
	bool is_asgi;
	size_t socket_limit; /* bytes of a WebSocket message */
	double socket_ping;  /* seconds; 0: none */
	int watch;	     /* descriptor that names of loaded files are written to; -1: none */
	struct asgi asgi;
	char *application, *directory;		     /* application NULL: the requested file */
	PyObject *python_path, *arguments, *preload; /* lists of str */
	PyObject *loader;			     /* loader.py's names */
	struct thread *threads;			     /* with the lock */
	PyObject *callable;			     /* the application; NULL before it is loaded, and in script mode */
	PyObject *environ;			     /* what all requests have in common */
	PyObject **names;			     /* CGI names by the host's numbers */
	PyObject *empty;			     /* "" */
	struct remembered last[REMEMBERED];	     /* under the interpreter's lock */
};

/* One slot's thread. */
struct thread {
	struct plugin *plugin;
	struct thread *next; /* of all that there are */
	PyGILState_STATE state;
	PyThreadState *python;
	unsigned long identity;	      /* Python's word for the thread */
	struct langplugin_call *call; /* that it runs; NULL: none. These two change with the lock */
	bool stopped;		      /* it has been told to end it */
	PyObject *response;	      /* kept for the next request unless the application has kept it */
	PyObject *input;
	PyObject *errors;
	/* An application may read or write from a thread of its own, while this one waits for that thread: the call is
	   one thread's at a time. waiting: one is in the host without the interpreter's lock, and holds turn. */
	pthread_mutex_t turn;
	bool waiting;
};
/* request.c: between these the interpreter's lock is not held and the call is nobody else's. */
PyThreadState *call_enter(struct thread *thread);
void call_leave(struct thread *thread, PyThreadState *state);
/* Before anything that calls the host: wait for a thread that is in it. */
void call_turn(struct thread *thread);

/* ---- response.c */
struct response {
	PyObject_HEAD const struct langplugin_host *host;
	struct thread *thread;	      /* outlives call */
	struct langplugin_call *call; /* NULL: the request is over */
	PyObject *status, *fields;    /* as start_response was given them; NULL: not called yet */
	PyObject *start, *write;      /* start_response and write, bound to this */
	PyObject *hints, *cancelled;  /* wsgi.early_hints, webserver.cancelled */
	PyObject *trailers;	      /* webserver.trailers; NULL: the host has none */
	int64_t left;		      /* of the answer's Content-Length; -1: not known, or no body follows */
	bool sent;		      /* the head has been given to the host */
	bool gone;		      /* the client is */
	bool ended;		      /* every byte of the Content-Length has been sent */
};
extern PyTypeObject response_type;
struct response *response_take(struct thread *thread, struct langplugin_call *call);
/* length -1: not known. 0, or -1 with an exception. */
int response_send_head(struct response *response, int64_t length);
/* Bytes of the body; sends the head first. 0, 1: the client is gone, -1: exception. */
int response_write(struct response *response, const char *data, size_t size, bool flush);

/* A list of header tuples, as start_response takes it: 0, or -1 with an exception. */
int response_check_fields(PyObject *fields);
/* The list's fields, which must have been checked; freed with PyMem_Free. NULL with an exception. */
struct langplugin_field *response_fields(PyObject *fields);

/* ---- extras.c */
/* The callables beyond PEP 3333, bound to the response. 0, or -1 with an exception. */
int extras_make(struct response *response);
void extras_clear(struct response *response);
/* No reference to one of them is anywhere but in the response. */
bool extras_unused(const struct response *response);
int extras_count(const struct response *response);

/* ---- input.c, errors.c, filewrapper.c */
struct input {
	PyObject_HEAD const struct langplugin_host *host;
	struct thread *thread; /* outlives call */
	struct langplugin_call *call;
	int64_t length; /* -1: not known */
	int64_t taken;	/* bytes that the host has given */
	char *buffer;	/* what readline has read too much */
	size_t at, size;
	bool ended;
};
extern PyTypeObject input_type;
PyObject *input_take(struct thread *thread, struct langplugin_call *call, int64_t length);
void input_detach(PyObject *input);

struct errors {
	PyObject_HEAD const struct langplugin_host *host;
	struct langplugin_call *call;
	PyObject *partial; /* a line that has not ended; str or NULL */
};
extern PyTypeObject errors_type;
PyObject *errors_take(struct thread *thread, struct langplugin_call *call);
void errors_detach(PyObject *errors);

struct file_wrapper {
	PyObject_HEAD PyObject *file;
	Py_ssize_t block;
};
extern PyTypeObject file_wrapper_type;
int file_wrapper_make(void);
/* The descriptor behind it and the position in it, or -1: to be read in blocks. Clears exceptions. */
int file_wrapper_descriptor(struct file_wrapper *wrapper, int64_t *offset);

/* ---- environ.c */
int environ_make(struct plugin *plugin);
void environ_forget(struct plugin *plugin);
PyObject *environ_of(struct thread *thread, struct langplugin_call *call);

/* ---- load.c: -1 with an exception */
int load_begin(struct plugin *plugin);
int load_preload(struct plugin *plugin);
void load_forked(struct plugin *plugin); /* in the child, at once */
int load_after_fork(struct plugin *plugin);
int load_application(struct plugin *plugin);
/* The application of the requested file. New reference; NULL with an exception. */
PyObject *load_requested(struct plugin *plugin, const struct langplugin_request *request);
/* The current exception as text for the log, and cleared. One line of it goes to message if that is not NULL. */
void load_report(struct plugin *plugin, struct langplugin_call *call, char *message, size_t message_size);
/* An entry of the log: None, or NULL with an exception. */
PyObject *load_log(struct plugin *plugin, struct langplugin_call *call, int level, PyObject *text);
void load_end(struct plugin *plugin);

/* ---- plugin.c */
int plugin_open(const struct langplugin_host *host, const struct langplugin_setting *settings, size_t count,
	void **state, char *message, size_t message_size);
int plugin_preload(void *state, char *message, size_t message_size);
/* In a new worker, before the application is loaded. 0, or -1 with an exception. */
int plugin_forked(struct plugin *plugin);
pid_t plugin_fork(void *state);
void plugin_close(void *state);
/* Call what may leave an exception, with the interpreter's lock; the exception goes to the log and the message. */
int plugin_guarded(struct plugin *plugin, int (*what)(struct plugin *plugin), char *message, size_t message_size);

/* ---- stacks.c */
int stacks_prepare(void); /* 0, or -1 with an exception */
void stacks_dump(void *state, int fd);
int stacks_ask(void *state);
/* With the lock, around each request. */
void stacks_begin(struct thread *thread, struct langplugin_call *call);
void stacks_end(struct thread *thread);

/* ---- request.c */
int request_run(struct thread *thread, struct langplugin_call *call);

#endif
