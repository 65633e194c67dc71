/*
 * What the environment of a request has beyond PEP 3333:
 *
 *   wsgi.early_hints     callable: a list of header tuples is sent as 103 Early Hints; as gunicorn has it
 *   webserver.cancelled  callable: whether nobody waits for the answer any more; from any thread
 *   webserver.deadline   when the request will be given up, on time.monotonic()'s clock; None: never (environ.c)
 *   webserver.trailers   callable: a list of header tuples is sent behind the body, where the client takes them
 */
#include "plugin.h"

static struct response *check(PyObject *self, const char *what)
{
	struct response *response = (struct response *)self;

	if (response->call)
		return response;
	PyErr_Format(PyExc_RuntimeError, "%s of a request that is over", what);
	return NULL;
}

static PyObject *outcome(int result, const char *what, PyObject *fields)
{
	if (result == LP_INVALID)
		return PyErr_Format(PyExc_ValueError, "%s: not valid here: %R", what, fields);
	/* Who is gone is told by what is written. */
	Py_RETURN_NONE;
}

/* One of the host's functions that take fields. It may wait. */
static PyObject *give(struct response *response, PyObject *list, const char *what,
	int (*function)(struct response *response, const struct langplugin_field *fields, size_t count))
{
	if (response_check_fields(list))
		return NULL;
	struct langplugin_field *fields = response_fields(list);
	if (!fields)
		return NULL;
	/* The texts lie in the list's own strings, and another thread may change the list. */
	PyObject *held = PySequence_Tuple(list);
	if (!held) {
		PyMem_Free(fields);
		return NULL;
	}
	size_t count = (size_t)PyTuple_GET_SIZE(held);
	call_turn(response->thread);
	int result = LP_OK;
	if (response->call) {
		PyThreadState *state = call_enter(response->thread);
		result = function(response, fields, count);
		call_leave(response->thread, state);
	}
	PyMem_Free(fields);
	Py_DECREF(held);
	return outcome(result, what, list);
}

static int inform(struct response *response, const struct langplugin_field *fields, size_t count)
{
	return response->host->inform(response->call, 103, fields, count);
}

static int trail(struct response *response, const struct langplugin_field *fields, size_t count)
{
	return response->host->trailers(response->call, fields, count);
}

static PyObject *early_hints(PyObject *self, PyObject *list)
{
	struct response *response = check(self, "wsgi.early_hints");

	if (!response)
		return NULL;
	if (response->sent)
		Py_RETURN_NONE; /* too late to be early */
	return give(response, list, "wsgi.early_hints", inform);
}

static PyObject *trailers(PyObject *self, PyObject *list)
{
	struct response *response = check(self, "webserver.trailers");

	if (!response)
		return NULL;
	if (!response->fields)
		return PyErr_Format(PyExc_RuntimeError, "webserver.trailers before start_response");
	if (response->ended)
		return PyErr_Format(PyExc_RuntimeError, "webserver.trailers: the answer is complete");
	/* The host wants the head first. */
	if (!response->sent && response_send_head(response, -1))
		return NULL;
	return give(response, list, "webserver.trailers", trail);
}

static PyObject *cancelled(PyObject *self, PyObject *nothing)
{
	struct response *response = (struct response *)self;

	(void)nothing;
	if (!response->call)
		Py_RETURN_TRUE; /* its request is over: nobody waits */
	return PyBool_FromLong(response->gone || response->host->cancelled(response->call));
}

static PyMethodDef hints_method = {"early_hints", early_hints, METH_O, "early_hints(headers): send 103 Early Hints"};
static PyMethodDef trailers_method = {"trailers", trailers, METH_O, "trailers(headers): fields behind the body"};
static PyMethodDef cancelled_method = {
	"cancelled", cancelled, METH_NOARGS, "cancelled() -> whether nobody waits for the answer any more"};

int extras_make(struct response *response)
{
	const struct langplugin_host *host = response->host;
	bool can_trail = host->size > offsetof(struct langplugin_host, trailers) && host->trailers;

	response->hints = PyCFunction_New(&hints_method, (PyObject *)response);
	response->cancelled = PyCFunction_New(&cancelled_method, (PyObject *)response);
	response->trailers = can_trail ? PyCFunction_New(&trailers_method, (PyObject *)response) : NULL;
	return response->hints && response->cancelled && (response->trailers || !can_trail) ? 0 : -1;
}

void extras_clear(struct response *response)
{
	Py_CLEAR(response->hints);
	Py_CLEAR(response->cancelled);
	Py_CLEAR(response->trailers);
}

int extras_count(const struct response *response)
{
	return response->trailers ? 3 : 2;
}

bool extras_unused(const struct response *response)
{
	return Py_REFCNT(response->hints) == 1 && Py_REFCNT(response->cancelled) == 1 &&
	       (!response->trailers || Py_REFCNT(response->trailers) == 1);
}
