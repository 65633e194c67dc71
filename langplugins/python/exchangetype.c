/* An exchange as asgi.py and websocket.py see it. */
#include "asgi.h"

/* The application of a WebSocket has returned: the slot is free when the closing is over. */
static void leave_socket(struct exchange *exchange, bool failed)
{
	if (socket_finish(exchange, failed)) {
		exchange_part(exchange);
		return;
	}
	exchange->closing = true;
	PyObject *result = PyObject_CallOneArg(exchange->plugin->asgi.close_later, (PyObject *)exchange);
	if (!result)
		load_report(exchange->plugin, exchange->call, NULL, 0);
	Py_XDECREF(result);
}

/* finish(): the application has returned. */
static PyObject *exchange_finish(PyObject *self, PyObject *unused)
{
	static const char cut[] = "the application returned before its response was complete: no http.response.body"
				  " without more_body";
	struct exchange *exchange = (struct exchange *)self;

	(void)unused;
	if (!exchange->call || exchange->closing)
		Py_RETURN_NONE;
	if (exchange->socket && exchange->socket->open) {
		leave_socket(exchange, false);
		Py_RETURN_NONE;
	}
	if (exchange->progress != SENDS_START && exchange->progress != SENDS_NOTHING && !exchange_gone(exchange)) {
		exchange->host->log(exchange->call, LP_ERROR, cut, sizeof(cut) - 1);
		exchange->host->abort(exchange->call);
	}
	if (send_out(exchange))
		exchange_part(exchange);
	else
		exchange->closing = true;
	Py_RETURN_NONE;
}

/* fail(): it raised. Nothing has been sent: 500; else the client must not take the answer for a whole one. */
static PyObject *exchange_fail(PyObject *self, PyObject *unused)
{
	struct exchange *exchange = (struct exchange *)self;
	struct langplugin_call *call = exchange->call;

	(void)unused;
	if (!call || exchange->closing)
		Py_RETURN_NONE;
	if (exchange->socket && exchange->socket->open) {
		leave_socket(exchange, true);
		Py_RETURN_NONE;
	}
	/* What came after the answer is no matter of the client's. */
	if (exchange->progress != SENDS_NOTHING || exchange->out)
		exchange->host->fail(call, 500);
	exchange_part(exchange);
	Py_RETURN_NONE;
}

/* refuse(status, body, fields): instead of the application. */
static PyObject *exchange_refuse(PyObject *self, PyObject *args)
{
	static const struct langplugin_text none = {"", 0};
	struct exchange *exchange = (struct exchange *)self;
	struct langplugin_field small[FIELDS];
	PyObject *pairs;
	const char *body;
	Py_ssize_t size;
	int status;

	if (!PyArg_ParseTuple(args, "iy#O!", &status, &body, &size, &PyList_Type, &pairs))
		return NULL;
	struct langplugin_field *fields = fields_of(pairs, small, FIELDS);
	if (!fields)
		return NULL;
	exchange->host->respond(exchange->call, status, none, fields, (size_t)PyList_GET_SIZE(pairs), size);
	exchange->host->write(exchange->call, body, (size_t)size, LP_NOWAIT);
	if (fields != small)
		PyMem_Free(fields);
	Py_RETURN_NONE;
}

/* close(code, reason): a WebSocket. */
static PyObject *exchange_close(PyObject *self, PyObject *args)
{
	struct exchange *exchange = (struct exchange *)self;
	const char *reason;
	Py_ssize_t size;
	int code;

	if (!PyArg_ParseTuple(args, "is#", &code, &reason, &size))
		return NULL;
	if (exchange->call && exchange->socket)
		socket_close(exchange, (unsigned)code, reason, (size_t)size);
	Py_RETURN_NONE;
}

/* ping() -> False: the last one has not been answered. */
static PyObject *exchange_ping(PyObject *self, PyObject *unused)
{
	struct exchange *exchange = (struct exchange *)self;

	(void)unused;
	return PyBool_FromLong(!exchange->call || !exchange->socket || socket_ping(exchange));
}

/* cut(): the other side is not waited for any more. */
static PyObject *exchange_cut(PyObject *self, PyObject *unused)
{
	struct exchange *exchange = (struct exchange *)self;

	(void)unused;
	if (!exchange->call)
		Py_RETURN_NONE;
	exchange->gone = true;
	exchange->host->end(exchange->call);
	if (exchange->closing)
		exchange_part(exchange);
	else
		exchange_wake_all(exchange);
	Py_RETURN_NONE;
}

static int set_accept(PyObject *self, PyObject *value, void *unused)
{
	struct exchange *exchange = (struct exchange *)self;

	(void)unused;
	if (exchange->socket)
		Py_XSETREF(exchange->socket->accept, Py_XNewRef(value));
	return 0;
}

/* log(level, text) */
static PyObject *exchange_log(PyObject *self, PyObject *args)
{
	struct exchange *exchange = (struct exchange *)self;
	PyObject *text;
	int level;

	if (!PyArg_ParseTuple(args, "iU", &level, &text))
		return NULL;
	return load_log(exchange->plugin, exchange->call, level, text);
}

static PyObject *get_gone(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(exchange_gone((struct exchange *)self));
}

static PyObject *get_over(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(!((struct exchange *)self)->call || ((struct exchange *)self)->closing);
}

/* Seconds of time.monotonic(), or None. */
static PyObject *get_deadline(PyObject *self, void *unused)
{
	struct exchange *exchange = (struct exchange *)self;
	uint64_t deadline = exchange->call ? exchange->host->deadline(exchange->call) : 0;

	(void)unused;
	if (!deadline)
		Py_RETURN_NONE;
	return PyFloat_FromDouble((double)deadline / 1e9);
}

static PyObject *get_timer(PyObject *self, void *unused)
{
	struct exchange *exchange = (struct exchange *)self;

	(void)unused;
	return Py_NewRef(exchange->timer ? exchange->timer : Py_None);
}

static int set_timer(PyObject *self, PyObject *value, void *unused)
{
	(void)unused;
	Py_XSETREF(((struct exchange *)self)->timer, Py_XNewRef(value == Py_None ? NULL : value));
	return 0;
}

static PyObject *get_task(PyObject *self, void *unused)
{
	struct exchange *exchange = (struct exchange *)self;

	(void)unused;
	return Py_NewRef(exchange->task ? exchange->task : Py_None);
}

static void exchange_dealloc(PyObject *self)
{
	struct exchange *exchange = (struct exchange *)self;

	Py_CLEAR(exchange->task);
	Py_CLEAR(exchange->timer);
	Py_CLEAR(exchange->out);
	Py_CLEAR(exchange->fields);
	socket_free(exchange->socket);
	PyObject_Free(self);
}

static PyMethodDef methods[] = {
	{"finish", exchange_finish, METH_NOARGS, "finish(): the application has returned"},
	{"fail", exchange_fail, METH_NOARGS, "fail(): the application has raised"},
	{"send", exchange_send, METH_O, "send(event)"},
	{"log", exchange_log, METH_VARARGS, "log(level, text)"},
	{"refuse", exchange_refuse, METH_VARARGS, "refuse(status, body, fields): instead of the application"},
	{"close", exchange_close, METH_VARARGS, "close(code, reason): a WebSocket"},
	{"ping", exchange_ping, METH_NOARGS, "ping() -> False: the last one has not been answered"},
	{"cut", exchange_cut, METH_NOARGS, "cut(): the other side is not waited for any more"},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
	{"gone", get_gone, NULL, "the client is gone, or the deadline has passed", NULL},
	{"over", get_over, NULL, "the application has returned", NULL},
	{"deadline", get_deadline, NULL, "seconds of time.monotonic(), or None", NULL},
	{"timer", get_timer, set_timer, "asgi.py's", NULL},
	{"accept", NULL, set_accept, "a WebSocket's answer to the client's key", NULL},
	{"task", get_task, NULL, "that the application runs in", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject exchange_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "webserver.Exchange",
	.tp_basicsize = sizeof(struct exchange),
	.tp_dealloc = exchange_dealloc,
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_doc = "One request of an ASGI application.",
	.tp_methods = methods,
	.tp_getset = getset,
};
