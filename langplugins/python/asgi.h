/*
 * ASGI 3 in the Python plugin: one thread, an asyncio event loop, `threads` requests at a time.
 *
 *   asgi.c        the plugin with LANGPLUGIN_ASYNC: load, run, begin a request, what is ready
 *   asgi.py       what decides: the loop, lifespan, errors, deadlines, the end; compiled into the plugin
 *   scope.c       the scope of a request
 *   exchange.c    one request: its beginning, what wakes it, its end; exchangetype.c what asgi.py sees of it
 *   step.c        what receive() and send() return: a coroutine that tries, and waits for ready()
 *   receive.c     the events of receive(); send.c those of send(); fields.c their headers
 *   socket.c      a WebSocket's events; socketsend.c what it is sent; websocket.c its frames
 *   websocket.py  its handshake and its end
 *
 * All of it runs on the event loop's thread with the interpreter's lock: turn() never waits. "Spec" in comments is
 * the ASGI specification, https://asgi.readthedocs.io/.
 */
#ifndef WEBSERVER_PYTHON_ASGI_H
#define WEBSERVER_PYTHON_ASGI_H

#include "plugin.h"
#include "websocket.h"

#define CHUNK 65536 /* bytes of a request's body in one event */

struct exchange;

/* ---- step.c */
enum waits { WAITS_NOT = 0, WAITS_BODY, WAITS_END /* of the answer, or of the client */, WAITS_ROOM };

struct step {
	PyObject_HEAD struct exchange *exchange;
	PyObject *event;  /* to be sent; NULL: to be received */
	PyObject *inner;  /* iterator of what is waited for */
	PyObject *future; /* which it waits for while it is in the list of its exchange */
	struct step *next, **link;
	enum waits waits;
	bool delegated; /* inner does the rest */
	bool taken;	/* the event is the exchange's */
	bool over;
};
extern PyTypeObject step_type;
/* Takes no reference; event NULL: receive. */
PyObject *step_make(struct exchange *exchange, PyObject *event);

/* What one try comes to. */
enum tried { TRIED_ERROR = -1, TRIED_WAIT = 0 /* step->waits says for what */, TRIED_DONE = 1, TRIED_DELEGATED };

/* ---- exchange.c */
enum progress {
	SENDS_START = 0, /* http.response.start, or websocket.accept */
	SENDS_BODY,
	SENDS_TRAILERS,
	SENDS_NOTHING /* it is complete */
};

struct exchange {
	PyObject_HEAD struct plugin *plugin;
	const struct langplugin_host *host;
	struct langplugin_call *call; /* NULL: over */
	PyObject *task, *timer;	      /* asgi.py's */
	struct step *waiters;
	enum progress progress;
	bool gone;	/* the client is, or the deadline has passed */
	bool whole;	/* http.request with more_body False has been received */
	bool trailers;	/* announced by http.response.start */
	bool closing;	/* the application has returned, and `out` is to be sent yet */
	int64_t length; /* of the request's body; -1: not known */
	int64_t taken;	/* of it */
	PyObject *out;	/* bytes that the host is to take, from `at` on */
	size_t at;
	bool more;	  /* http.response.body: more_body */
	PyObject *fields; /* trailers so far: list of pairs */
	/* A WebSocket's; NULL: it is none. */
	struct socket *socket;
	char head[WEBSOCKET_HEAD]; /* of the frame that `out` is the payload of */
	uint8_t head_size;
};
extern PyTypeObject exchange_type;
int exchange_begin(struct plugin *plugin, struct langplugin_call *call);
/* ready() was called. */
void exchange_ready(struct exchange *exchange);
/* Those who wait for this go on. */
void exchange_wake(struct exchange *exchange, enum waits waits);
void exchange_wake_all(struct exchange *exchange);
/* The host is asked whether the client is still there. */
bool exchange_gone(struct exchange *exchange);
PyObject *exchange_send(PyObject *self, PyObject *event);
/* The slot is free after this, and the exchange not the host's any more. */
void exchange_part(struct exchange *exchange);

/* ---- socket.c */
struct socket {
	struct websocket frames;
	PyObject *accept; /* value of Sec-WebSocket-Accept */
	PyObject *event;  /* a message that has not been received */
	char *rest;	  /* bytes behind it */
	size_t rest_at, rest_size;
	char control[WEBSOCKET_HEAD + WEBSOCKET_CONTROL]; /* a frame that is to be sent */
	size_t control_size;
	char reason[WEBSOCKET_CONTROL]; /* of websocket.disconnect */
	size_t reason_size;
	unsigned code;
	bool connected; /* websocket.connect has been received */
	bool open;	/* accepted */
	bool over;	/* code and reason are known: websocket.disconnect comes next */
	bool ours;	/* we have closed it */
	bool closing;	/* our close frame is on its way */
	bool closed;	/* the other side's has come, or its end */
	bool ended;	/* so has the tunnel */
	bool unflushed;
	bool answered; /* the last ping */
};
struct socket *socket_new(struct plugin *plugin);
void socket_free(struct socket *socket);
void socket_ready(struct exchange *exchange);
enum tried socket_receive(struct step *step, PyObject **event);
/* The events of send(), by name. */
enum tried socket_accept(struct exchange *exchange, PyObject *event);
enum tried socket_message(struct exchange *exchange, PyObject *event);
enum tried socket_end(struct exchange *exchange, PyObject *event);
void socket_close(struct exchange *exchange, unsigned code, const char *reason, size_t size);
/* False: the last one has not been answered. */
bool socket_ping(struct exchange *exchange);
/* The application has returned: true when the closing is over as well. */
bool socket_finish(struct exchange *exchange, bool failed);
int socket_make(void);
int socket_send_make(void);

/* ---- receive.c, send.c */
enum tried receive_try(struct step *step, PyObject **event);
enum tried send_try(struct step *step);
int events_make(void);
int send_make(void);
/* Push `out`: true when it is all with the host. */
bool send_out(struct exchange *exchange);
/* ---- fields.c */
/* The headers of an event (`what` names it): a list of tuples of two bytes. New reference, or an exception. */
PyObject *pairs_of(PyObject *headers, const char *what);
/* A list of pairs of bytes as the host wants it: in `small` if there is room, else PyMem's. NULL: an exception. */
#define FIELDS 32
struct langplugin_field *fields_of(PyObject *pairs, struct langplugin_field *small, Py_ssize_t room);

/* ---- scope.c */
int scope_make(struct plugin *plugin);
/* log: what the application gets for its own lines of the error log. */
PyObject *scope_of(struct plugin *plugin, struct langplugin_call *call, PyObject *log);

/* ---- asgi.c */
const struct langplugin *asgi_plugin(void);
int asgi_begin(struct plugin *plugin);

#endif
