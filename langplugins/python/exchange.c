/* One request of an ASGI application, from handle() until its answer is over and the application has returned. */
#include "asgi.h"

static PyObject *exchange_receive(PyObject *self, PyObject *unused)
{
	(void)unused;
	return step_make((struct exchange *)self, NULL);
}

PyObject *exchange_send(PyObject *self, PyObject *event)
{
	return step_make((struct exchange *)self, event);
}

/* An entry of the error log, with the request's id. */
static PyObject *exchange_line(PyObject *self, PyObject *text)
{
	struct exchange *exchange = (struct exchange *)self;

	if (!PyUnicode_Check(text))
		return PyErr_Format(PyExc_TypeError, "log: a str is expected, not %.100s", Py_TYPE(text)->tp_name);
	return load_log(exchange->plugin, exchange->call, LP_NOTICE, text);
}

static PyMethodDef log_method = {"log", exchange_line, METH_O, "log(text): an entry of the error log"};
static PyMethodDef receive_method = {"receive", exchange_receive, METH_NOARGS, "receive() -> event"};
static PyMethodDef send_method = {"send", exchange_send, METH_O, "send(event)"};

/* The client asks for a WebSocket: 1, and scope is changed to one; 0: it has been answered; -1: an exception. */
static int shake_hands(struct plugin *plugin, struct exchange *exchange, PyObject *scope)
{
	exchange->socket = socket_new(plugin);
	PyObject *yes = exchange->socket ? PyObject_CallFunctionObjArgs(
						   plugin->asgi.handshake, (PyObject *)exchange, scope, NULL)
					 : NULL;
	int result = yes ? PyObject_IsTrue(yes) : -1;

	Py_XDECREF(yes);
	return result;
}

static bool is_websocket(struct langplugin_text upgrade)
{
	return upgrade.size == 9 && PyOS_strnicmp(upgrade.data, "websocket", 9) == 0;
}

/* asgi.py's serve(exchange, scope, receive, send), as a task. 0 and no task: it has been answered. */
static int begin(struct plugin *plugin, struct exchange *exchange)
{
	struct asgi *asgi = &plugin->asgi;
	PyObject *log = PyCFunction_New(&log_method, (PyObject *)exchange);
	PyObject *scope = log ? scope_of(plugin, exchange->call, log) : NULL;
	int shaken = 1;

	Py_XDECREF(log);
	if (scope && is_websocket(plugin->host->request(exchange->call)->upgrade))
		shaken = shake_hands(plugin, exchange, scope);
	if (!scope || shaken != 1) {
		Py_XDECREF(scope);
		return scope ? shaken : -1;
	}
	PyObject *receive = PyCFunction_New(&receive_method, (PyObject *)exchange);
	PyObject *send = PyCFunction_New(&send_method, (PyObject *)exchange);
	PyObject *coroutine = NULL;

	if (receive && send) {
		PyObject *arguments[] = {NULL, (PyObject *)exchange, scope, receive, send};
		coroutine = PyObject_Vectorcall(asgi->serve, arguments + 1, 4 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
	}
	if (coroutine)
		exchange->task = PyObject_CallOneArg(asgi->create_task, coroutine);
	Py_XDECREF(coroutine);
	Py_XDECREF(send);
	Py_XDECREF(receive);
	Py_DECREF(scope);
	return exchange->task ? 0 : -1;
}

int exchange_begin(struct plugin *plugin, struct langplugin_call *call)
{
	const struct langplugin_host *host = plugin->host;
	struct exchange *exchange = PyObject_New(struct exchange, &exchange_type);

	if (!exchange)
		return -1;
	memset((char *)exchange + offsetof(struct exchange, plugin), 0,
		sizeof(*exchange) - offsetof(struct exchange, plugin));
	exchange->plugin = plugin;
	exchange->host = host;
	exchange->call = call;
	exchange->length = host->request(call)->content_length;
	int result = begin(plugin, exchange);
	if (result || !exchange->task) {
		exchange->call = NULL;
		Py_DECREF(exchange);
		return result ? -1 : LP_DONE;
	}
	*host->place(call) = exchange;
	return LP_PENDING;
}

bool exchange_gone(struct exchange *exchange)
{
	if (!exchange->gone && (!exchange->call || exchange->host->cancelled(exchange->call)))
		exchange->gone = true;
	return exchange->gone;
}

void exchange_wake(struct exchange *exchange, enum waits waits)
{
	static PyObject *name;

	if (!name && !(name = PyUnicode_InternFromString("set_result"))) {
		PyErr_Clear();
		return;
	}
	for (struct step *step = exchange->waiters, *next; step; step = next) {
		next = step->next;
		if (step->waits != waits)
			continue;
		*step->link = next;
		if (next)
			next->link = step->link;
		step->link = NULL;
		step->next = NULL;
		PyObject *done = PyObject_CallMethodOneArg(step->future, name, Py_None);
		/* It has been cancelled, and its task not run since. */
		if (!done)
			PyErr_Clear();
		Py_XDECREF(done);
	}
}

void exchange_wake_all(struct exchange *exchange)
{
	exchange_wake(exchange, WAITS_BODY);
	exchange_wake(exchange, WAITS_ROOM);
	exchange_wake(exchange, WAITS_END);
}

void exchange_part(struct exchange *exchange)
{
	struct langplugin_call *call = exchange->call;

	*exchange->host->place(call) = NULL;
	if (exchange->socket && exchange->socket->open) {
		PyObject *result = PyObject_CallOneArg(exchange->plugin->asgi.socket_over, (PyObject *)exchange);
		if (!result)
			load_report(exchange->plugin, call, NULL, 0);
		Py_XDECREF(result);
	}
	exchange->call = NULL;
	exchange->gone = true;
	Py_CLEAR(exchange->task);
	Py_CLEAR(exchange->out);
	Py_CLEAR(exchange->fields);
	exchange_wake_all(exchange);
	exchange->host->finish(call);
	Py_DECREF(exchange);
}

void exchange_ready(struct exchange *exchange)
{
	if (!exchange->gone && exchange_gone(exchange)) {
		PyObject *result = PyObject_CallOneArg(exchange->plugin->asgi.gone, (PyObject *)exchange);
		if (!result)
			load_report(exchange->plugin, exchange->call, NULL, 0);
		Py_XDECREF(result);
		exchange_wake(exchange, WAITS_END);
	}
	if (exchange->socket)
		socket_ready(exchange);
	if (send_out(exchange)) {
		if (exchange->closing && (!exchange->socket || socket_finish(exchange, false))) {
			exchange_part(exchange);
			return;
		}
		exchange_wake(exchange, WAITS_ROOM);
	}
	exchange_wake(exchange, WAITS_BODY);
}
