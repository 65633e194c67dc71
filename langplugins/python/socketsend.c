/* What the application of a WebSocket sends. */
#include "asgi.h"

static PyObject *name_type, *name_text, *name_bytes, *name_code, *name_reason;

int socket_send_make(void)
{
	static const struct {
		PyObject **place;
		const char *text;
	} names[] = {{&name_type, "type"}, {&name_text, "text"}, {&name_bytes, "bytes"}, {&name_code, "code"},
		{&name_reason, "reason"}};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!*names[i].place && !(*names[i].place = PyUnicode_InternFromString(names[i].text)))
			return -1;
	return 0;
}

static enum tried no_more(struct exchange *exchange, PyObject *type)
{
	struct socket *socket = exchange->socket;

	if (exchange_gone(exchange) || (socket->over && !socket->ours))
		PyErr_SetString(exchange->plugin->asgi.disconnected, "the WebSocket has been closed by the client");
	else
		PyErr_Format(PyExc_RuntimeError, "send: found the event %R after websocket.close", type);
	return TRIED_ERROR;
}

/* The answer to the handshake: asgi.py makes its fields. */
enum tried socket_accept(struct exchange *exchange, PyObject *event)
{
	static const struct langplugin_text none = {"", 0};
	struct langplugin_field small[FIELDS];
	PyObject *pairs = PyObject_CallFunctionObjArgs(
		exchange->plugin->asgi.accept, (PyObject *)exchange, event, exchange->socket->accept, NULL);
	struct langplugin_field *fields = pairs ? fields_of(pairs, small, FIELDS) : NULL;

	if (!fields) {
		Py_XDECREF(pairs);
		return TRIED_ERROR;
	}
	int result = exchange->host->respond(exchange->call, 101, none, fields, (size_t)PyList_GET_SIZE(pairs), -1);
	if (result == LP_INVALID)
		PyErr_Format(PyExc_ValueError, "websocket.accept: HTTP does not allow these headers: %R", pairs);
	if (fields != small)
		PyMem_Free(fields);
	Py_DECREF(pairs);
	if (result == LP_INVALID)
		return TRIED_ERROR;
	exchange->socket->open = true;
	exchange->socket->unflushed = true; /* if there was no room for it */
	exchange->progress = SENDS_BODY;
	return TRIED_DONE;
}

/* Exactly one of text and bytes is not None. */
enum tried socket_message(struct exchange *exchange, PyObject *event)
{
	struct socket *socket = exchange->socket;
	PyObject *text = PyDict_GetItemWithError(event, name_text);
	PyObject *data = text || !PyErr_Occurred() ? PyDict_GetItemWithError(event, name_bytes) : NULL;
	bool is_text = text && text != Py_None;

	if (PyErr_Occurred())
		return TRIED_ERROR;
	if (socket->closing || socket->over || exchange_gone(exchange))
		return no_more(exchange, PyDict_GetItem(event, name_type));
	if (is_text && PyUnicode_Check(text))
		exchange->out = PyUnicode_AsUTF8String(text);
	else if (!is_text && data && PyBytes_CheckExact(data))
		exchange->out = Py_NewRef(data);
	else if (!is_text && data && PyObject_CheckBuffer(data))
		exchange->out = PyBytes_FromObject(data);
	else
		PyErr_SetString(PyExc_TypeError, "websocket.send: text must be str, or bytes must be bytes");
	if (!exchange->out)
		return TRIED_ERROR;
	exchange->head_size = (uint8_t)websocket_head(
		exchange->head, is_text ? WEBSOCKET_TEXT : WEBSOCKET_BINARY, (size_t)PyBytes_GET_SIZE(exchange->out));
	exchange->at = 0;
	exchange->more = true;
	return TRIED_DONE;
}

enum tried socket_end(struct exchange *exchange, PyObject *event)
{
	PyObject *code = PyDict_GetItemWithError(event, name_code);
	PyObject *reason = code || !PyErr_Occurred() ? PyDict_GetItemWithError(event, name_reason) : NULL;
	long number = code && code != Py_None ? PyLong_AsLong(code) : WEBSOCKET_NORMAL;
	const char *text = "";
	Py_ssize_t size = 0;

	if (PyErr_Occurred() || (reason && reason != Py_None && !(text = PyUnicode_AsUTF8AndSize(reason, &size))))
		return TRIED_ERROR;
	if (!websocket_code_ok((unsigned)number)) {
		PyErr_Format(PyExc_ValueError, "websocket.close: %ld is no code that may be sent", number);
		return TRIED_ERROR;
	}
	if (exchange->socket->closing || exchange->socket->over || exchange_gone(exchange))
		return no_more(exchange, PyDict_GetItem(event, name_type));
	socket_close(exchange, (unsigned)number, text, (size_t)size);
	return TRIED_DONE;
}
