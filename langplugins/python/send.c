/*
 * The events of send(). The bytes of an http.response.body belong to the exchange from then on: they go out even if the
 * task that awaits send() is cancelled meanwhile, or the answer would have a hole.
 */
#include "asgi.h"

enum event {
	EVENT_START,
	EVENT_BODY,
	EVENT_TRAILERS,
	EVENT_EARLY_HINT,
	EVENT_PATHSEND,
	EVENT_ZEROCOPYSEND,
	EVENT_SOCKET, /* the first of those of a WebSocket */
	EVENT_ACCEPT = EVENT_SOCKET,
	EVENT_MESSAGE,
	EVENT_CLOSE,
	EVENT_DENY_START,
	EVENT_DENY_BODY,
	EVENTS
};
static PyObject *types[EVENTS];
static PyObject *name_type, *name_status, *name_headers, *name_body, *name_more, *name_trailers, *name_more_trailers,
	*name_links;

int send_make(void)
{
	static const char *const words[EVENTS] = {"http.response.start", "http.response.body", "http.response.trailers",
		"http.response.early_hint", "http.response.pathsend", "http.response.zerocopysend", "websocket.accept",
		"websocket.send", "websocket.close", "websocket.http.response.start", "websocket.http.response.body"};
	static const struct {
		PyObject **place;
		const char *text;
	} names[] = {{&name_type, "type"}, {&name_status, "status"}, {&name_headers, "headers"}, {&name_body, "body"},
		{&name_more, "more_body"}, {&name_trailers, "trailers"}, {&name_more_trailers, "more_trailers"},
		{&name_links, "links"}};

	for (int i = 0; i < EVENTS; i++)
		if (!types[i] && !(types[i] = PyUnicode_InternFromString(words[i])))
			return -1;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!*names[i].place && !(*names[i].place = PyUnicode_InternFromString(names[i].text)))
			return -1;
	return 0;
}

/* A value of the event, borrowed; NULL if it is not there, or with an exception. */
static PyObject *value_of(PyObject *event, PyObject *name)
{
	return PyDict_GetItemWithError(event, name);
}

static int truth_of(PyObject *event, PyObject *name)
{
	PyObject *value = value_of(event, name);

	return value ? PyObject_IsTrue(value) : PyErr_Occurred() ? -1 : 0;
}

static enum tried refuse(PyObject *type, struct exchange *exchange)
{
	static const char *const expected[] = {"http.response.start", "http.response.body", "http.response.trailers",
		"nothing, as the response is complete"};
	const char *what = expected[exchange->progress];

	if (exchange->socket && exchange->progress == SENDS_START)
		what = "websocket.accept, websocket.close or websocket.http.response.start";
	else if (exchange->socket && exchange->progress == SENDS_BODY)
		what = exchange->socket->open ? "websocket.send or websocket.close" : "websocket.http.response.body";
	PyErr_Format(PyExc_RuntimeError, "send: found the event %R, expected %s", type, what);
	return TRIED_ERROR;
}

static enum tried client_is_gone(struct exchange *exchange)
{
	PyErr_SetString(exchange->plugin->asgi.disconnected, "the client went away before its response was complete");
	return TRIED_ERROR;
}

static enum tried start(struct exchange *exchange, PyObject *event)
{
	static const struct langplugin_text none = {"", 0};
	struct langplugin_field small[FIELDS];
	PyObject *status = value_of(event, name_status);
	int trailers = truth_of(event, name_trailers);

	if (trailers < 0)
		return TRIED_ERROR;
	long number = status && PyLong_Check(status) ? PyLong_AsLong(status) : -1;
	if (number < 200 || number > 999) {
		if (!PyErr_Occurred())
			PyErr_Format(PyExc_ValueError,
				"http.response.start: status must be a number from 200 to 999, not %R",
				status ? status : Py_None);
		return TRIED_ERROR;
	}
	PyObject *headers = value_of(event, name_headers);
	PyObject *pairs = headers || !PyErr_Occurred() ? pairs_of(headers, "http.response.start: headers") : NULL;
	struct langplugin_field *fields = pairs ? fields_of(pairs, small, FIELDS) : NULL;
	if (!fields) {
		Py_XDECREF(pairs);
		return TRIED_ERROR;
	}
	int result = exchange->host->respond(
		exchange->call, (int)number, none, fields, (size_t)PyList_GET_SIZE(pairs), -1);
	if (result == LP_INVALID)
		PyErr_Format(PyExc_ValueError, "http.response.start: HTTP does not allow these headers: %R", pairs);
	if (fields != small)
		PyMem_Free(fields);
	Py_DECREF(pairs);
	if (result == LP_INVALID)
		return TRIED_ERROR;
	exchange->progress = SENDS_BODY;
	exchange->trailers = trailers;
	return TRIED_DONE;
}

/* ---- body */

static void complete(struct exchange *exchange)
{
	exchange->progress = SENDS_NOTHING;
	exchange->host->end(exchange->call);
	/* Who waits for the client's going away hears of the end. */
	exchange_wake(exchange, WAITS_END);
}

bool send_out(struct exchange *exchange)
{
	const struct langplugin_host *host = exchange->host;

	if (!exchange->out)
		return true;
	if (exchange_gone(exchange)) {
		Py_CLEAR(exchange->out);
		return true;
	}
	const char *data = PyBytes_AS_STRING(exchange->out);
	size_t size = (size_t)PyBytes_GET_SIZE(exchange->out);
	int result = LP_OK;
	if (exchange->head_size &&
		(result = host->write(exchange->call, exchange->head, exchange->head_size, LP_NOWAIT)) == LP_OK)
		exchange->head_size = 0;
	while (exchange->at < size && result == LP_OK) {
		size_t part = size - exchange->at;
		if (part > LANGPLUGIN_WRITE)
			part = LANGPLUGIN_WRITE;
		result = host->write(exchange->call, data + exchange->at, part, LP_NOWAIT);
		if (result == LP_OK)
			exchange->at += part;
	}
	/* What an application sends it wants to be there; the last goes with the end. */
	if (result == LP_OK && exchange->more)
		result = host->flush(exchange->call, LP_NOWAIT);
	if (result == LP_AGAIN)
		return false;
	exchange->gone |= result == LP_GONE;
	Py_CLEAR(exchange->out);
	if (!exchange->more && exchange->trailers)
		exchange->progress = SENDS_TRAILERS;
	else if (!exchange->more)
		complete(exchange);
	return true;
}

static enum tried body(struct exchange *exchange, struct step *step)
{
	PyObject *data = value_of(step->event, name_body);
	int more = truth_of(step->event, name_more);

	if (more < 0 || (!data && PyErr_Occurred()))
		return TRIED_ERROR;
	if (!data)
		exchange->out = PyBytes_FromStringAndSize(NULL, 0);
	else if (PyBytes_CheckExact(data))
		exchange->out = Py_NewRef(data);
	else if (PyObject_CheckBuffer(data))
		exchange->out = PyBytes_FromObject(data);
	else
		PyErr_Format(
			PyExc_TypeError, "http.response.body: body must be bytes, not %.100s", Py_TYPE(data)->tp_name);
	if (!exchange->out)
		return TRIED_ERROR;
	exchange->at = 0;
	exchange->more = more;
	return TRIED_DONE;
}

/* ---- the rest */

static enum tried trailers(struct exchange *exchange, PyObject *event)
{
	struct langplugin_field small[FIELDS];
	PyObject *headers = value_of(event, name_headers);
	int more = truth_of(event, name_more_trailers);

	if (more < 0 || (!headers && PyErr_Occurred()))
		return TRIED_ERROR;
	PyObject *pairs = pairs_of(headers, "http.response.trailers: headers");
	if (pairs && exchange->fields) {
		PyObject *both = PySequence_InPlaceConcat(exchange->fields, pairs);
		Py_SETREF(pairs, both);
	}
	if (!pairs)
		return TRIED_ERROR;
	Py_XSETREF(exchange->fields, pairs);
	if (more)
		return TRIED_DONE;
	struct langplugin_field *fields = fields_of(pairs, small, FIELDS);
	if (!fields)
		return TRIED_ERROR;
	size_t count = (size_t)PyList_GET_SIZE(pairs);
	int result = exchange->host->trailers ? exchange->host->trailers(exchange->call, fields, count) : LP_OK;
	if (fields != small)
		PyMem_Free(fields);
	if (result == LP_INVALID) {
		PyErr_Format(PyExc_ValueError, "http.response.trailers: HTTP does not allow these headers: %R", pairs);
		return TRIED_ERROR;
	}
	complete(exchange);
	return TRIED_DONE;
}

/* RFC 8297 */
static enum tried early_hint(struct exchange *exchange, struct step *step)
{
	struct langplugin_field fields[FIELDS];
	PyObject *links = value_of(step->event, name_links);
	PyObject *all = links ? PySequence_Fast(links, "http.response.early_hint: links must be iterable") : NULL;
	Py_ssize_t count = all ? PySequence_Fast_GET_SIZE(all) : 0;
	int result = LP_INVALID;

	if (!links && !PyErr_Occurred())
		PyErr_SetString(PyExc_ValueError, "http.response.early_hint: there are no links");
	for (Py_ssize_t i = 0; i < count && i < FIELDS; i++) {
		PyObject *link = PySequence_Fast_GET_ITEM(all, i);
		if (!PyBytes_Check(link)) {
			PyErr_Format(PyExc_TypeError, "http.response.early_hint: a link must be bytes, not %R", link);
			break;
		}
		fields[i] = (struct langplugin_field){
			{"Link", 4}, {PyBytes_AS_STRING(link), (size_t)PyBytes_GET_SIZE(link)}};
	}
	if (all && !PyErr_Occurred()) {
		result = count <= FIELDS ? exchange->host->inform(exchange->call, 103, fields, (size_t)count)
					 : LP_INVALID;
		if (result == LP_INVALID)
			PyErr_Format(PyExc_ValueError, "http.response.early_hint: HTTP does not allow these links: %R",
				links);
	}
	Py_XDECREF(all);
	if (result == LP_AGAIN) {
		step->waits = WAITS_ROOM;
		return TRIED_WAIT;
	}
	return result == LP_INVALID ? TRIED_ERROR : TRIED_DONE;
}

/* A file, which asgi.py sends as body after body. */
static enum tried file(struct exchange *exchange, struct step *step)
{
	PyObject *coroutine = PyObject_CallFunctionObjArgs(
		exchange->plugin->asgi.send_file, (PyObject *)exchange, step->event, NULL);
	const PyAsyncMethods *async = coroutine ? Py_TYPE(coroutine)->tp_as_async : NULL;

	step->inner = async && async->am_await ? async->am_await(coroutine) : NULL;
	Py_XDECREF(coroutine);
	return step->inner ? TRIED_DELEGATED : TRIED_ERROR;
}

static enum tried deny(struct exchange *exchange)
{
	static const struct langplugin_text none = {"", 0};

	exchange->host->respond(exchange->call, 403, none, NULL, 0, 0);
	complete(exchange);
	return TRIED_DONE;
}

static enum tried of_socket(struct exchange *exchange, struct step *step, enum event event, PyObject *type)
{
	bool open = exchange->socket->open;

	if (event == EVENT_MESSAGE && open)
		return socket_message(exchange, step->event);
	if (event == EVENT_CLOSE && open)
		return socket_end(exchange, step->event);
	if (exchange_gone(exchange))
		return client_is_gone(exchange);
	if (exchange->progress == SENDS_START) {
		if (event == EVENT_ACCEPT)
			return socket_accept(exchange, step->event);
		if (event == EVENT_CLOSE)
			return deny(exchange);
		if (event == EVENT_DENY_START)
			return start(exchange, step->event);
	}
	if (exchange->progress == SENDS_BODY && !open && event == EVENT_DENY_BODY)
		return body(exchange, step);
	return refuse(type, exchange);
}

static enum tried begin(struct exchange *exchange, struct step *step)
{
	PyObject *type;

	if (!PyDict_Check(step->event)) {
		PyErr_Format(
			PyExc_TypeError, "send: an event must be a dict, not %.100s", Py_TYPE(step->event)->tp_name);
		return TRIED_ERROR;
	}
	type = value_of(step->event, name_type);
	if (!type) {
		if (!PyErr_Occurred())
			PyErr_SetString(PyExc_KeyError, "send: the event has no type");
		return TRIED_ERROR;
	}
	int found = 0;
	for (; found < EVENTS; found++) {
		int same = type == types[found] ? 1 : PyObject_RichCompareBool(type, types[found], Py_EQ);
		if (same < 0)
			return TRIED_ERROR;
		if (same)
			break;
	}
	if (found == EVENTS || exchange->progress == SENDS_NOTHING ||
		(found >= EVENT_SOCKET) != (exchange->socket != NULL))
		return refuse(type, exchange);
	if (exchange->socket)
		return of_socket(exchange, step, (enum event)found, type);
	/* Spec 2.4: an OSError. */
	if (exchange_gone(exchange))
		return client_is_gone(exchange);
	if ((exchange->progress == SENDS_START) != (found == EVENT_START || found == EVENT_EARLY_HINT) ||
		(exchange->progress == SENDS_TRAILERS) != (found == EVENT_TRAILERS))
		return refuse(type, exchange);
	if (found == EVENT_START)
		return start(exchange, step->event);
	if (found == EVENT_BODY)
		return body(exchange, step);
	if (found == EVENT_TRAILERS)
		return trailers(exchange, step->event);
	return found == EVENT_EARLY_HINT ? early_hint(exchange, step) : file(exchange, step);
}

enum tried send_try(struct step *step)
{
	struct exchange *exchange = step->exchange;

	/* One that is not through yet goes first. */
	if (!send_out(exchange)) {
		step->waits = WAITS_ROOM;
		return TRIED_WAIT;
	}
	if (!step->taken) {
		enum tried tried = begin(exchange, step);
		if (tried != TRIED_DONE)
			return tried;
		step->taken = true;
		if (!send_out(exchange)) {
			step->waits = WAITS_ROOM;
			return TRIED_WAIT;
		}
	}
	return exchange->gone && exchange->progress != SENDS_NOTHING ? client_is_gone(exchange) : TRIED_DONE;
}
