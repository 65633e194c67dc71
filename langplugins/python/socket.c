/*
 * A WebSocket of an ASGI application: its events over frames (websocket.h) over a tunnel (langplugin.h, respond() with
 * 101). Frames are read as far as one message that the application has not received; pings are answered and the end is
 * seen even if it receives nothing. websocket.py says yes to a handshake, pings, and ends what does not end.
 */
#include <stdlib.h>

#include "asgi.h"

#define BLOCK 65536 /* bytes that are read at once */

static PyObject *name_type, *name_text, *name_bytes, *name_code, *name_reason, *type_connect, *type_receive,
	*type_disconnect;

int socket_make(void)
{
	static const struct {
		PyObject **place;
		const char *text;
	} names[] = {{&name_type, "type"}, {&name_text, "text"}, {&name_bytes, "bytes"}, {&name_code, "code"},
		{&name_reason, "reason"}, {&type_connect, "websocket.connect"}, {&type_receive, "websocket.receive"},
		{&type_disconnect, "websocket.disconnect"}};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!*names[i].place && !(*names[i].place = PyUnicode_InternFromString(names[i].text)))
			return -1;
	return 0;
}

struct socket *socket_new(struct plugin *plugin)
{
	struct socket *socket = calloc(1, sizeof(*socket));

	if (!socket) {
		PyErr_NoMemory();
		return NULL;
	}
	websocket_open(&socket->frames, plugin->socket_limit);
	socket->code = WEBSOCKET_ABNORMAL;
	socket->answered = true;
	return socket;
}

void socket_free(struct socket *socket)
{
	if (!socket)
		return;
	websocket_close(&socket->frames);
	free(socket->rest);
	Py_CLEAR(socket->event);
	Py_CLEAR(socket->accept);
	free(socket);
}

/* ---- control frames: one waits at most, and the close frame is the last */

static void put_control(struct socket *socket, enum websocket_opcode opcode, const char *data, size_t size)
{
	if (socket->closing)
		return;
	socket->control_size = websocket_head(socket->control, opcode, size);
	if (size)
		memcpy(socket->control + socket->control_size, data, size);
	socket->control_size += size;
	socket->closing = opcode == WEBSOCKET_CLOSE;
}

static void put_close(struct socket *socket, unsigned code, const char *reason, size_t size)
{
	char payload[WEBSOCKET_CONTROL] = {(char)(code >> 8), (char)code};

	if (size > sizeof(payload) - 2)
		size = sizeof(payload) - 2;
	/* Not in the midst of a character. */
	while (size && size == sizeof(payload) - 2 && ((unsigned char)reason[size] & 0xc0) == 0x80)
		size--;
	if (size)
		memcpy(payload + 2, reason, size);
	put_control(socket, WEBSOCKET_CLOSE, payload, code == WEBSOCKET_NO_CODE ? 0 : size + 2);
}

static void disconnected(struct socket *socket, unsigned code, const char *reason, size_t size)
{
	if (socket->over)
		return;
	socket->over = true;
	socket->code = code;
	socket->reason_size = size < sizeof(socket->reason) ? size : sizeof(socket->reason);
	if (size)
		memcpy(socket->reason, reason, socket->reason_size);
}

/* The other side's close frame, or its end: there is nothing more to wait for. */
static void other_closed(struct exchange *exchange)
{
	exchange->socket->closed = true;
}

/* What waits to be sent: true when it is all with the host. */
static bool push(struct exchange *exchange)
{
	struct socket *socket = exchange->socket;
	const struct langplugin_host *host = exchange->host;

	if (!send_out(exchange))
		return false;
	if (socket->control_size && !exchange_gone(exchange)) {
		int result = host->write(exchange->call, socket->control, socket->control_size, LP_NOWAIT);
		if (result == LP_AGAIN)
			return false;
		socket->control_size = 0;
		socket->unflushed = true;
	}
	if (socket->unflushed && !exchange_gone(exchange)) {
		if (host->flush(exchange->call, LP_NOWAIT) == LP_AGAIN)
			return false;
		socket->unflushed = false;
	}
	/* Both have closed: section 7.1.1, the server ends the connection. */
	if (socket->closing && socket->closed && !socket->ended && !exchange_gone(exchange)) {
		socket->ended = true;
		host->end(exchange->call);
	}
	return true;
}

/* ---- frames that come */

static PyObject *message_of(struct websocket *frames, bool text)
{
	PyObject *event = PyDict_New();
	PyObject *data = text ? PyUnicode_DecodeUTF8(frames->data, (Py_ssize_t)frames->size, NULL)
			      : PyBytes_FromStringAndSize(frames->data, (Py_ssize_t)frames->size);

	if (!event || !data || PyDict_SetItem(event, name_type, type_receive) ||
		PyDict_SetItem(event, text ? name_text : name_bytes, data))
		Py_CLEAR(event);
	Py_XDECREF(data);
	return event;
}

static int take_found(struct exchange *exchange, unsigned found)
{
	struct socket *socket = exchange->socket;
	struct websocket *frames = &socket->frames;

	switch (found) {
	case WEBSOCKET_TEXT:
	case WEBSOCKET_BINARY:
		/* After our close frame nobody wants it. */
		if (!socket->closing && !(socket->event = message_of(frames, found == WEBSOCKET_TEXT)))
			return -1;
		break;
	case WEBSOCKET_PING:
		put_control(socket, WEBSOCKET_PONG, frames->control, frames->control_size);
		break;
	case WEBSOCKET_PONG:
		socket->answered = true;
		break;
	case WEBSOCKET_CLOSE:
		disconnected(socket, frames->code, frames->control, frames->control_size);
		put_close(socket, frames->code, NULL, 0);
		other_closed(exchange);
		break;
	case WEBSOCKET_MISTAKE:
		exchange->host->log(exchange->call, LP_NOTICE, frames->why, strlen(frames->why));
		disconnected(socket, frames->code, frames->why, strlen(frames->why));
		put_close(socket, frames->code, frames->why, strlen(frames->why));
		other_closed(exchange);
		break;
	default:
		break;
	}
	return 0;
}

/* From the bytes that are there; what is left is kept when there is a message. -1: an exception. */
static int take(struct exchange *exchange, const char *data, size_t size)
{
	struct socket *socket = exchange->socket;
	size_t used = 0;

	while (used < size && !socket->event && !socket->closed) {
		unsigned found;
		used += websocket_take(&socket->frames, data + used, size - used, &found);
		if (take_found(exchange, found))
			return -1;
	}
	if (data == socket->rest + socket->rest_at) {
		socket->rest_at += used;
	} else if (used < size && !socket->closed) {
		socket->rest = malloc(size - used);
		if (!socket->rest) {
			PyErr_NoMemory();
			return -1;
		}
		memcpy(socket->rest, data + used, size - used);
		socket->rest_at = 0;
		socket->rest_size = size - used;
	}
	if (socket->rest && (socket->rest_at == socket->rest_size || socket->closed)) {
		free(socket->rest);
		socket->rest = NULL;
	}
	return 0;
}

/* Everything that can be read until there is a message. */
static int pump(struct exchange *exchange)
{
	static char block[BLOCK];
	struct socket *socket = exchange->socket;

	while (socket->open && !socket->event && !socket->closed && !exchange_gone(exchange)) {
		ssize_t got = 0;
		if (socket->rest) {
			if (take(exchange, socket->rest + socket->rest_at, socket->rest_size - socket->rest_at))
				return -1;
			continue;
		}
		got = exchange->host->read(exchange->call, block, sizeof(block), LP_NOWAIT);
		if (got == LP_AGAIN)
			break;
		if (got > 0) {
			if (take(exchange, block, (size_t)got))
				return -1;
			continue;
		}
		/* Its side is over without a close frame: it is gone, or the front end says so when tunnel_grace is
		   over, and then it hears why. */
		disconnected(socket, WEBSOCKET_ABNORMAL, NULL, 0);
		put_close(socket, WEBSOCKET_GOING_AWAY, NULL, 0);
		other_closed(exchange);
	}
	push(exchange);
	return 0;
}

void socket_ready(struct exchange *exchange)
{
	if (pump(exchange))
		load_report(exchange->plugin, exchange->call, NULL, 0);
}

/* ---- receive() */

static enum tried simple(PyObject *type, PyObject **event)
{
	*event = PyDict_New();
	if (*event && PyDict_SetItem(*event, name_type, type))
		Py_CLEAR(*event);
	return *event ? TRIED_DONE : TRIED_ERROR;
}

static enum tried disconnect(struct socket *socket, PyObject **event)
{
	PyObject *code = PyLong_FromLong((long)socket->code);
	PyObject *reason = PyUnicode_DecodeUTF8(socket->reason, (Py_ssize_t)socket->reason_size, "replace");

	if (simple(type_disconnect, event) == TRIED_DONE &&
		(!code || !reason || PyDict_SetItem(*event, name_code, code) ||
			PyDict_SetItem(*event, name_reason, reason)))
		Py_CLEAR(*event);
	Py_XDECREF(code);
	Py_XDECREF(reason);
	return *event ? TRIED_DONE : TRIED_ERROR;
}

enum tried socket_receive(struct step *step, PyObject **event)
{
	struct exchange *exchange = step->exchange;
	struct socket *socket = exchange->socket;

	if (!socket->connected) {
		socket->connected = true;
		return simple(type_connect, event);
	}
	if (!socket->event && pump(exchange))
		return TRIED_ERROR;
	if (socket->event) {
		*event = socket->event;
		socket->event = NULL;
		/* One ahead: so that a ping behind it is seen. */
		if (pump(exchange)) {
			Py_CLEAR(*event);
			return TRIED_ERROR;
		}
		return TRIED_DONE;
	}
	if (socket->over || exchange_gone(exchange) || exchange->progress == SENDS_NOTHING)
		return disconnect(socket, event);
	step->waits = WAITS_BODY;
	return TRIED_WAIT;
}

/* ---- the end */

/* ours: the application hears of it, as the client will not tell it. */
void socket_close(struct exchange *exchange, unsigned code, const char *reason, size_t size)
{
	struct socket *socket = exchange->socket;

	if (!socket->open || socket->closing)
		return;
	socket->ours = true;
	put_close(socket, code, reason, size);
	disconnected(socket, code, reason, size);
	push(exchange);
	exchange_wake(exchange, WAITS_BODY);
}

bool socket_ping(struct exchange *exchange)
{
	struct socket *socket = exchange->socket;
	bool answered = socket->answered;

	if (answered && !socket->control_size) {
		socket->answered = false;
		put_control(socket, WEBSOCKET_PING, NULL, 0);
		push(exchange);
	}
	return answered;
}

bool socket_finish(struct exchange *exchange, bool failed)
{
	struct socket *socket = exchange->socket;

	if (!socket->open)
		return true;
	socket_close(exchange, failed ? 1011 : WEBSOCKET_NORMAL, "", 0);
	if (pump(exchange))
		PyErr_Clear();
	return exchange_gone(exchange) || socket->ended || (socket->closing && socket->closed);
}
