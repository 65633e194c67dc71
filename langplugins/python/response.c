/* start_response and write: the head is checked when it is given and sent with the first bytes of the body. */
#include "plugin.h"

/* A native string's bytes; false with an exception. PEP: code points up to 255. */
static bool bytes_of(PyObject *text, struct langplugin_text *to, const char *what)
{
	if (!PyUnicode_Check(text)) {
		PyErr_Format(
			PyExc_TypeError, "start_response: %s must be str, not %.100s", what, Py_TYPE(text)->tp_name);
		return false;
	}
	if (PyUnicode_READY(text))
		return false;
	if (PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND) {
		PyErr_Format(PyExc_ValueError, "start_response: %s holds characters beyond latin-1: %R", what, text);
		return false;
	}
	*to = (struct langplugin_text){(const char *)PyUnicode_1BYTE_DATA(text), (size_t)PyUnicode_GET_LENGTH(text)};
	return true;
}

static int status_of(PyObject *status, struct langplugin_text *reason)
{
	struct langplugin_text text;

	if (!bytes_of(status, &text, "the status"))
		return -1;
	if (text.size < 3 || text.data[0] < '1' || text.data[0] > '9' || !Py_ISDIGIT(text.data[1]) ||
		!Py_ISDIGIT(text.data[2]) || (text.size > 3 && text.data[3] != ' ')) {
		PyErr_Format(PyExc_ValueError, "start_response: the status must be like '200 OK', not %R", status);
		return -1;
	}
	*reason = text.size > 4 ? (struct langplugin_text){text.data + 4, text.size - 4}
				: (struct langplugin_text){"", 0};
	return (text.data[0] - '0') * 100 + (text.data[1] - '0') * 10 + (text.data[2] - '0');
}

int response_check_fields(PyObject *fields)
{
	if (!PyList_Check(fields)) {
		PyErr_Format(PyExc_TypeError, "start_response: the headers must be a list, not %.100s",
			Py_TYPE(fields)->tp_name);
		return -1;
	}
	for (Py_ssize_t i = 0; i < PyList_GET_SIZE(fields); i++) {
		PyObject *field = PyList_GET_ITEM(fields, i);
		struct langplugin_text unused;
		if (!PyTuple_Check(field) || PyTuple_GET_SIZE(field) != 2) {
			PyErr_Format(PyExc_TypeError, "start_response: a header must be a tuple of two, not %R", field);
			return -1;
		}
		if (!bytes_of(PyTuple_GET_ITEM(field, 0), &unused, "a header's name") ||
			!bytes_of(PyTuple_GET_ITEM(field, 1), &unused, "a header's value"))
			return -1;
	}
	return 0;
}

struct langplugin_field *response_fields(PyObject *list)
{
	Py_ssize_t count = PyList_GET_SIZE(list);
	struct langplugin_field *fields = PyMem_Calloc((size_t)count + 1, sizeof(*fields));

	if (!fields) {
		PyErr_NoMemory();
		return NULL;
	}
	for (Py_ssize_t i = 0; i < count; i++) {
		PyObject *field = PyList_GET_ITEM(list, i);
		bytes_of(PyTuple_GET_ITEM(field, 0), &fields[i].name, "a header's name");
		bytes_of(PyTuple_GET_ITEM(field, 1), &fields[i].value, "a header's value");
	}
	return fields;
}

/* What sys.exc_info() gave, or at least something that looks like it. */
static void raise_again(PyObject *information)
{
	PyObject *type = NULL, *value = NULL, *trace = NULL;

	if (PyTuple_Check(information) && PyTuple_GET_SIZE(information) == 3) {
		type = PyTuple_GET_ITEM(information, 0);
		value = PyTuple_GET_ITEM(information, 1);
		trace = PyTuple_GET_ITEM(information, 2);
	}
	if (!type || !PyExceptionClass_Check(type) || !PyExceptionInstance_Check(value) ||
		(trace != Py_None && !PyTraceBack_Check(trace))) {
		PyErr_SetString(PyExc_TypeError, "start_response: exc_info must be what sys.exc_info() returns");
		return;
	}
	PyException_SetTraceback(value, trace);
	exception_give(Py_NewRef(value));
}

static PyObject *start_response(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
	struct response *response = (struct response *)self;
	struct langplugin_text reason;
	PyObject *information = count > 2 ? args[2] : NULL;
	Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;

	if (named == 1 && count == 2 &&
		PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "exc_info") == 0)
		information = args[2];
	else if (named || count < 2 || count > 3)
		return PyErr_Format(PyExc_TypeError,
			"start_response(status, headers, exc_info=None) was called with %zd arguments", count + named);
	if (!response->call)
		return PyErr_Format(PyExc_RuntimeError, "start_response of a request that is over");
	if (information && information != Py_None) {
		if (response->sent) {
			/* PEP: too late for an error page; the error itself goes on. */
			raise_again(information);
			return NULL;
		}
	} else if (response->fields) {
		return PyErr_Format(PyExc_AssertionError, "start_response was called a second time without exc_info");
	}
	int status = status_of(args[0], &reason);
	if (status < 0 || response_check_fields(args[1]))
		return NULL;
	if (status < 200)
		return PyErr_Format(PyExc_ValueError, "start_response: %d is not a final status", status);
	Py_XSETREF(response->status, Py_NewRef(args[0]));
	Py_XSETREF(response->fields, Py_NewRef(args[1]));
	return Py_NewRef(response->write);
}

static PyObject *response_write_method(PyObject *self, PyObject *data)
{
	struct response *response = (struct response *)self;

	if (!PyBytes_Check(data))
		return PyErr_Format(PyExc_TypeError, "write: bytes are expected, not %.100s", Py_TYPE(data)->tp_name);
	if (!response->call)
		return PyErr_Format(PyExc_RuntimeError, "write to a request that is over");
	int result = response_write(response, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data), true);
	if (result > 0)
		PyErr_SetString(PyExc_ConnectionResetError,
			response->ended ? "the answer's Content-Length has been written"
					: "the client went away before its answer was complete");
	if (result)
		return NULL;
	Py_RETURN_NONE;
}

/* Which of the fields the host did not take, and why, for the author of the application. */
static void explain(struct response *response, const struct langplugin_field *fields, Py_ssize_t count)
{
	static const char *const connection[] = {
		"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "proxy-connection"};

	for (Py_ssize_t i = 0; i < count; i++) {
		PyObject *field = PyList_GET_ITEM(response->fields, i);
		for (size_t k = 0; k < sizeof(connection) / sizeof(connection[0]); k++)
			if (strlen(connection[k]) == fields[i].name.size &&
				PyOS_strnicmp(connection[k], fields[i].name.data, (Py_ssize_t)fields[i].name.size) ==
					0) {
				PyErr_Format(PyExc_AssertionError,
					"start_response: %R belongs to the connection, which is the server's", field);
				return;
			}
		for (size_t k = 0; k < fields[i].value.size; k++)
			if ((unsigned char)fields[i].value.data[k] < 0x20 && fields[i].value.data[k] != '\t') {
				PyErr_Format(PyExc_ValueError, "start_response: a control character in %R", field);
				return;
			}
	}
	PyErr_Format(PyExc_ValueError, "start_response: not a valid answer: %R %R", response->status, response->fields);
}

/* -1: not a length, which is for the host to say. */
static int64_t number_of(struct langplugin_text text)
{
	int64_t number = 0;

	for (size_t i = 0; i < text.size; i++) {
		if (!Py_ISDIGIT(text.data[i]) || i > 17)
			return -1;
		number = number * 10 + (text.data[i] - '0');
	}
	return text.size ? number : -1;
}

/* The last byte of the Content-Length goes out with the end of the answer, in one message, and before the application
   is asked for more: what it does then, in its close() say, keeps no client waiting. */
static int write_last(struct response *response, const char *data, size_t size)
{
	const struct langplugin_host *host = response->host;
	PyThreadState *state = call_enter(response->thread);
	int result = host->write(response->call, data, size, 0);

	if (result == LP_OK)
		result = host->end(response->call);
	call_leave(response->thread, state);
	response->left = 0;
	response->ended = true;
	response->gone = result != LP_OK;
	return response->gone;
}

static int surplus(struct response *response)
{
	static const char text[] = "the application's answer is longer than its Content-Length; the rest is cut off";

	if (!response->gone)
		response->host->log(response->call, LP_ERROR, text, sizeof(text) - 1);
	response->gone = true;
	return 1;
}

int response_send_head(struct response *response, int64_t length)
{
	struct langplugin_field small[32], *fields = small;
	struct langplugin_text reason;

	if (!response->fields) {
		PyErr_SetString(PyExc_AssertionError, "the application returned without calling start_response");
		return -1;
	}
	int status = status_of(response->status, &reason);
	/* The list is the application's: it may have been changed since it was checked. */
	if (status < 0 || response_check_fields(response->fields))
		return -1;
	Py_ssize_t count = PyList_GET_SIZE(response->fields);
	if (count > 32 && !(fields = PyMem_Calloc((size_t)count, sizeof(*fields)))) {
		PyErr_NoMemory();
		return -1;
	}
	for (Py_ssize_t i = 0; i < count; i++) {
		PyObject *field = PyList_GET_ITEM(response->fields, i);
		bytes_of(PyTuple_GET_ITEM(field, 0), &fields[i].name, "a header's name");
		bytes_of(PyTuple_GET_ITEM(field, 1), &fields[i].value, "a header's value");
		/* Its own word counts more than our sum. */
		if (fields[i].name.size == 14 && PyOS_strnicmp(fields[i].name.data, "content-length", 14) == 0) {
			length = -1;
			response->left = number_of(fields[i].value);
		}
	}
	int result = response->host->respond(response->call, status, reason, fields, (size_t)count, length);
	if (status == 204 || status == 304 || response->host->request(response->call)->head)
		response->left = -1;
	if (result == LP_INVALID)
		explain(response, fields, count);
	if (fields != small)
		PyMem_Free(fields);
	response->sent = result != LP_INVALID;
	if (result == LP_GONE)
		response->gone = true;
	return result == LP_INVALID ? -1 : 0;
}

int response_write(struct response *response, const char *data, size_t size, bool flush)
{
	const struct langplugin_host *host = response->host;

	call_turn(response->thread);
	if (!response->call) {
		PyErr_SetString(PyExc_RuntimeError, "write to a request that is over");
		return -1;
	}
	if (!response->sent && response_send_head(response, -1))
		return -1;
	if (response->gone)
		return 1;
	if (response->ended)
		return size ? surplus(response) : 0;
	if (flush && size && response->left == (int64_t)size)
		return write_last(response, data, size);
	int result = size ? host->write(response->call, data, size, LP_NOWAIT) : LP_OK;
	if (result == LP_AGAIN) {
		PyThreadState *state = call_enter(response->thread);
		result = host->write(response->call, data, size, 0);
		call_leave(response->thread, state);
	}
	if (response->left >= 0)
		response->left = response->left > (int64_t)size ? response->left - (int64_t)size : 0;
	if (result == LP_OK && flush) {
		result = host->flush(response->call, LP_NOWAIT);
		if (result == LP_AGAIN) {
			PyThreadState *state = call_enter(response->thread);
			result = host->flush(response->call, 0);
			call_leave(response->thread, state);
		}
	}
	response->gone = result != LP_OK;
	return response->gone;
}

static PyMethodDef start_method = {"start_response", (PyCFunction)(void (*)(void))start_response,
	METH_FASTCALL | METH_KEYWORDS, "start_response(status, headers, exc_info=None) -> write"};
static PyMethodDef write_method = {"write", response_write_method, METH_O, "write(data)"};

static int response_traverse(PyObject *self, visitproc visit, void *arg)
{
	struct response *response = (struct response *)self;

	Py_VISIT(response->status);
	Py_VISIT(response->fields);
	Py_VISIT(response->start);
	Py_VISIT(response->write);
	Py_VISIT(response->hints);
	Py_VISIT(response->cancelled);
	Py_VISIT(response->trailers);
	return 0;
}

static int response_clear(PyObject *self)
{
	struct response *response = (struct response *)self;

	Py_CLEAR(response->status);
	Py_CLEAR(response->fields);
	Py_CLEAR(response->start);
	Py_CLEAR(response->write);
	extras_clear(response);
	return 0;
}

static void response_dealloc(PyObject *self)
{
	PyObject_GC_UnTrack(self);
	response_clear(self);
	Py_TYPE(self)->tp_free(self);
}

PyTypeObject response_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "webserver.Response",
	.tp_basicsize = sizeof(struct response),
	.tp_dealloc = response_dealloc,
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_doc = "One request's answer.",
	.tp_traverse = response_traverse,
	.tp_clear = response_clear,
};

static struct response *make(const struct langplugin_host *host)
{
	struct response *response = PyObject_GC_New(struct response, &response_type);

	if (!response)
		return NULL;
	response->call = NULL;
	response->status = response->fields = NULL;
	response->start = response->write = NULL;
	response->hints = response->cancelled = response->trailers = NULL;
	response->host = host;
	PyObject_GC_Track(response);
	response->start = PyCFunction_New(&start_method, (PyObject *)response);
	response->write = PyCFunction_New(&write_method, (PyObject *)response);
	if (!response->start || !response->write || extras_make(response))
		Py_CLEAR(response);
	return response;
}

struct response *response_take(struct thread *thread, struct langplugin_call *call)
{
	struct response *response = (struct response *)thread->response;

	/* References of its own: the thread's and the bound methods'. More, or a method that is known elsewhere: kept.
	 */
	if (!response || Py_REFCNT(response) != 3 + extras_count(response) || Py_REFCNT(response->start) != 1 ||
		Py_REFCNT(response->write) != 1 || !extras_unused(response)) {
		Py_XDECREF(response);
		response = make(thread->plugin->host);
		thread->response = (PyObject *)response;
		if (!response)
			return NULL;
	}
	Py_CLEAR(response->status);
	Py_CLEAR(response->fields);
	response->host = thread->plugin->host;
	response->thread = thread;
	response->call = call;
	response->left = -1;
	response->sent = response->gone = response->ended = false;
	return response;
}
