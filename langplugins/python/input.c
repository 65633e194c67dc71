/* wsgi.input: the request's body, read as it comes. Never waits with the interpreter's lock held. */
#include "plugin.h"

#define LINE_BLOCK 8192

static struct input *check(PyObject *self)
{
	struct input *input = (struct input *)self;

	if (input->call)
		return input;
	PyErr_SetString(PyExc_ValueError, "wsgi.input of a request that is over");
	return NULL;
}

/* Bytes from the host: > 0, 0 at the end, -1 with an exception. */
static ssize_t fetch(struct input *input, char *to, size_t size)
{
	call_turn(input->thread);
	if (input->ended)
		return 0;
	if (!check((PyObject *)input))
		return -1;
	ssize_t got = input->host->read(input->call, to, size, LP_NOWAIT);
	if (got == LP_AGAIN) {
		PyThreadState *state = call_enter(input->thread);
		got = input->host->read(input->call, to, size, 0);
		call_leave(input->thread, state);
	}
	/* LP_INVALID: the answer is complete, and what is left of the body is nobody's. */
	if (got == 0 || got == LP_INVALID) {
		input->ended = true;
		return 0;
	}
	if (got < 0) {
		PyErr_SetString(PyExc_ConnectionResetError, "the client went away before its request was complete");
		return -1;
	}
	input->taken += got;
	return got;
}

/* What readline has left, then the host. */
static ssize_t take(struct input *input, char *to, size_t size)
{
	size_t left = input->size - input->at;

	if (!left)
		return fetch(input, to, size);
	if (size > left)
		size = left;
	memcpy(to, input->buffer + input->at, size);
	input->at += size;
	return (ssize_t)size;
}

/* limit -1: to the end. */
static PyObject *read_bytes(struct input *input, Py_ssize_t limit)
{
	size_t known = input->length >= 0 ? (size_t)input->length : 65536;
	size_t room = limit >= 0 ? (size_t)limit : known, have = 0;

	/* A size that the client never said is not believed before the bytes are there. */
	if (limit >= 0 && input->length >= 0 && room > known)
		room = known;
	if (room > 1 << 20)
		room = 1 << 20;
	PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
	while (bytes) {
		if (have == room) {
			if (limit >= 0 && have == (size_t)limit)
				return bytes;
			/* All that was announced is there: no need to ask for more, nor for room for it. */
			if (input->length >= 0 && input->taken == input->length && input->at == input->size)
				return bytes;
			room *= 2;
			if (limit >= 0 && room > (size_t)limit)
				room = (size_t)limit;
			if (input->length >= 0 && room > known)
				room = known;
			if (_PyBytes_Resize(&bytes, (Py_ssize_t)room))
				return NULL;
		}
		ssize_t got = take(input, PyBytes_AS_STRING(bytes) + have, room - have);
		if (got < 0) {
			Py_DECREF(bytes);
			return NULL;
		}
		have += (size_t)got;
		if (got == 0)
			break;
	}
	if (bytes && have != room)
		_PyBytes_Resize(&bytes, (Py_ssize_t)have);
	return bytes;
}

static int parse_size(PyObject *const *args, Py_ssize_t count, const char *name, Py_ssize_t *size)
{
	*size = -1;
	if (count > 1) {
		PyErr_Format(PyExc_TypeError, "%s() takes at most 1 argument (%zd given)", name, count);
		return -1;
	}
	if (count == 1 && args[0] != Py_None) {
		*size = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
		if (*size == -1 && PyErr_Occurred())
			return -1;
		if (*size < 0)
			*size = -1;
	}
	return 0;
}

static PyObject *input_read(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct input *input = check(self);
	Py_ssize_t size;

	if (!input || parse_size(args, count, "read", &size))
		return NULL;
	return read_bytes(input, size);
}

/* Takes the reference to bytes. One of a single byte is everybody's, and cannot be made longer in place. */
static PyObject *longer(PyObject *bytes, const char *from, size_t size)
{
	size_t have = (size_t)PyBytes_GET_SIZE(bytes);

	if (have == 1) {
		PyObject *own = PyBytes_FromStringAndSize(NULL, 1);
		if (own)
			*PyBytes_AS_STRING(own) = *PyBytes_AS_STRING(bytes);
		Py_SETREF(bytes, own);
	}
	if (!bytes || _PyBytes_Resize(&bytes, (Py_ssize_t)(have + size)))
		return NULL;
	memcpy(PyBytes_AS_STRING(bytes) + have, from, size);
	return bytes;
}

static PyObject *line(struct input *input, Py_ssize_t limit)
{
	PyObject *result = NULL;

	for (;;) {
		if (input->at == input->size) {
			if (!input->buffer && !(input->buffer = PyMem_Malloc(LINE_BLOCK)))
				return PyErr_NoMemory();
			ssize_t got = fetch(input, input->buffer, LINE_BLOCK);
			if (got < 0) {
				Py_XDECREF(result);
				return NULL;
			}
			input->at = 0;
			input->size = (size_t)got;
			if (got == 0)
				return result ? result : PyBytes_FromStringAndSize("", 0);
		}
		const char *from = input->buffer + input->at;
		size_t size = input->size - input->at;
		size_t have = result ? (size_t)PyBytes_GET_SIZE(result) : 0;
		if (limit >= 0 && have + size > (size_t)limit)
			size = (size_t)limit - have;
		const char *end = memchr(from, '\n', size);
		if (end)
			size = (size_t)(end - from) + 1;
		input->at += size;
		if (!result) {
			result = PyBytes_FromStringAndSize(from, (Py_ssize_t)size);
		} else {
			result = longer(result, from, size);
		}
		if (!result || end || (limit >= 0 && have + size == (size_t)limit))
			return result;
	}
}

static PyObject *input_readline(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct input *input = check(self);
	Py_ssize_t size;

	if (!input || parse_size(args, count, "readline", &size))
		return NULL;
	return size == 0 ? PyBytes_FromStringAndSize("", 0) : line(input, size);
}

static PyObject *input_readlines(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct input *input = check(self);
	Py_ssize_t hint, total = 0;

	if (!input || parse_size(args, count, "readlines", &hint))
		return NULL;
	PyObject *lines = PyList_New(0);
	while (lines) {
		PyObject *one = line(input, -1);
		if (!one || PyList_Append(lines, one)) {
			Py_XDECREF(one);
			Py_CLEAR(lines);
			break;
		}
		Py_ssize_t size = PyBytes_GET_SIZE(one);
		Py_DECREF(one);
		total += size;
		if (size == 0) {
			PyList_SetSlice(lines, PyList_GET_SIZE(lines) - 1, PyList_GET_SIZE(lines), NULL);
			break;
		}
		if (hint > 0 && total >= hint)
			break;
	}
	return lines;
}

static PyObject *input_next(PyObject *self)
{
	struct input *input = check(self);
	PyObject *one = input ? line(input, -1) : NULL;

	if (one && PyBytes_GET_SIZE(one) == 0)
		Py_CLEAR(one);
	return one;
}

static void input_dealloc(PyObject *self)
{
	PyMem_Free(((struct input *)self)->buffer);
	Py_TYPE(self)->tp_free(self);
}

static PyMethodDef input_methods[] = {
	{"read", (PyCFunction)(void (*)(void))input_read, METH_FASTCALL, "read(size=-1) -> bytes"},
	{"readline", (PyCFunction)(void (*)(void))input_readline, METH_FASTCALL, "readline(size=-1) -> bytes"},
	{"readlines", (PyCFunction)(void (*)(void))input_readlines, METH_FASTCALL,
		"readlines(hint=-1) -> list of bytes"},
	{NULL, NULL, 0, NULL},
};

PyTypeObject input_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "webserver.Input",
	.tp_basicsize = sizeof(struct input),
	.tp_dealloc = input_dealloc,
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_doc = "The request's body (wsgi.input).",
	.tp_iter = PyObject_SelfIter,
	.tp_iternext = input_next,
	.tp_methods = input_methods,
};

PyObject *input_take(struct thread *thread, struct langplugin_call *call, int64_t length)
{
	/* The last request's, if the application has let go of it. */
	if (!thread->input || Py_REFCNT(thread->input) != 1) {
		Py_XDECREF(thread->input);
		struct input *made = PyObject_New(struct input, &input_type);
		thread->input = (PyObject *)made;
		if (!made)
			return NULL;
		made->buffer = NULL;
	}
	struct input *input = (struct input *)thread->input;
	input->host = thread->plugin->host;
	input->call = call;
	input->thread = thread;
	input->length = length;
	input->taken = 0;
	input->at = input->size = 0;
	input->ended = false;
	return Py_NewRef(thread->input);
}

void input_detach(PyObject *input)
{
	((struct input *)input)->call = NULL;
}
