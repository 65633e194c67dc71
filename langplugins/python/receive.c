/* The events of receive(): http.request, http.disconnect. */
#include "asgi.h"

static PyObject *name_type, *name_body, *name_more, *type_request, *type_disconnect, *no_bytes;

static int intern(PyObject **place, const char *text)
{
	return *place || (*place = PyUnicode_InternFromString(text)) ? 0 : -1;
}

static int receive_make(void)
{
	if (!no_bytes && !(no_bytes = PyBytes_FromStringAndSize(NULL, 0)))
		return -1;
	return intern(&name_type, "type") || intern(&name_body, "body") || intern(&name_more, "more_body") ||
	       intern(&type_request, "http.request") || intern(&type_disconnect, "http.disconnect");
}

int events_make(void)
{
	return receive_make() || send_make() || socket_make() || socket_send_make();
}

static enum tried disconnect(PyObject **event)
{
	*event = PyDict_New();
	if (*event && PyDict_SetItem(*event, name_type, type_disconnect))
		Py_CLEAR(*event);
	return *event ? TRIED_DONE : TRIED_ERROR;
}

/* Takes the reference to body. */
static enum tried request(PyObject *body, bool more, PyObject **event)
{
	*event = PyDict_New();
	if (*event && (PyDict_SetItem(*event, name_type, type_request) || PyDict_SetItem(*event, name_body, body) ||
			      PyDict_SetItem(*event, name_more, more ? Py_True : Py_False)))
		Py_CLEAR(*event);
	Py_DECREF(body);
	return *event ? TRIED_DONE : TRIED_ERROR;
}

/* What is there of the body, at most CHUNK bytes. Nothing has been asked for before the first call. */
static enum tried read_body(struct step *step, PyObject **event)
{
	struct exchange *exchange = step->exchange;
	int64_t left = exchange->length < 0 ? CHUNK : exchange->length - exchange->taken;
	size_t room = left < CHUNK ? (size_t)left : CHUNK, have = 0;
	ssize_t got = 0;

	if (room == 0) {
		exchange->whole = true;
		return request(Py_NewRef(no_bytes), false, event);
	}
	PyObject *body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
	if (!body)
		return TRIED_ERROR;
	while (have < room) {
		got = exchange->host->read(exchange->call, PyBytes_AS_STRING(body) + have, room - have, LP_NOWAIT);
		if (got <= 0)
			break;
		have += (size_t)got;
	}
	exchange->taken += (int64_t)have;
	exchange->whole = got == 0 || exchange->taken == exchange->length;
	if (have == 0 && got < 0) {
		Py_DECREF(body);
		if (got == LP_AGAIN) {
			step->waits = WAITS_BODY;
			return TRIED_WAIT;
		}
		/* The client is gone, or the answer is over and the rest of the body is nobody's. */
		exchange->gone |= got == LP_GONE;
		return disconnect(event);
	}
	if (have < room && _PyBytes_Resize(&body, (Py_ssize_t)have))
		return TRIED_ERROR;
	return request(body, !exchange->whole, event);
}

enum tried receive_try(struct step *step, PyObject **event)
{
	struct exchange *exchange = step->exchange;

	if (exchange->socket)
		return socket_receive(step, event);
	if (exchange_gone(exchange) || (exchange->progress == SENDS_NOTHING && !exchange->out))
		return disconnect(event);
	if (!exchange->whole)
		return read_body(step, event);
	step->waits = WAITS_END;
	return TRIED_WAIT;
}
