/*
 * websocket.h - frames of the WebSocket protocol, RFC 6455, as a server reads and writes them. Pure: bytes in, events
 * out; no descriptor and no Python. Section numbers in comments are that RFC's.
 */
#ifndef WEBSERVER_PYTHON_WEBSOCKET_H
#define WEBSERVER_PYTHON_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEBSOCKET_HEAD	  10  /* bytes of a head that a server writes, at most */
#define WEBSOCKET_CONTROL 125 /* payload of a control frame, at most (5.5) */

/* 5.2 */
enum websocket_opcode {
	WEBSOCKET_CONTINUATION = 0,
	WEBSOCKET_TEXT = 1,
	WEBSOCKET_BINARY = 2,
	WEBSOCKET_CLOSE = 8,
	WEBSOCKET_PING = 9,
	WEBSOCKET_PONG = 10
};

/* 7.4.1 */
enum websocket_code {
	WEBSOCKET_NORMAL = 1000,
	WEBSOCKET_GOING_AWAY = 1001,
	WEBSOCKET_PROTOCOL_ERROR = 1002,
	WEBSOCKET_NO_CODE = 1005,  /* never sent: the close frame had none */
	WEBSOCKET_ABNORMAL = 1006, /* never sent: there was no close frame */
	WEBSOCKET_NOT_UTF8 = 1007,
	WEBSOCKET_TOO_LARGE = 1009
};

/* What websocket_take has found; enum websocket_opcode for what is whole. */
enum websocket_found {
	WEBSOCKET_NOTHING = 0,	/* more bytes are needed */
	WEBSOCKET_MISTAKE = 100 /* `code` and `why` say which; nothing more is to be taken */
};

/* UTF-8 as it comes, RFC 3629: between characters, or so many bytes before the end of one. */
struct utf8 {
	uint8_t left, least, most; /* the next byte is from least to most */
};
/* False: it is none. */
bool utf8_take(struct utf8 *utf8, const char *data, size_t size);

struct websocket {
	size_t limit; /* bytes of a message, at most */
	/* The frame that is being read. */
	uint8_t head[14], have;
	uint8_t opcode;
	bool final, in_payload;
	uint8_t mask[4];
	unsigned masked; /* bytes of the payload that have been unmasked, modulo 4 */
	uint64_t left;
	/* The message, of one frame or of many. */
	uint8_t message; /* its opcode; 0: none has begun */
	struct utf8 utf8;
	char *data;
	size_t size, room;
	char control[WEBSOCKET_CONTROL];
	size_t control_size;
	unsigned code; /* of a close frame, or of a mistake */
	const char *why;
};

void websocket_open(struct websocket *websocket, size_t limit);
void websocket_close(struct websocket *websocket);
/*
 * Take bytes in, up to the end of what is found: data and size for a message, until the next call; control and
 * control_size for ping, pong and close, whose code is in `code` and not in `control`. Returns how many bytes were
 * used.
 */
size_t websocket_take(struct websocket *websocket, const char *data, size_t size, unsigned *found);
/* The head of a frame that is whole in itself. Returns its size. */
size_t websocket_head(char to[WEBSOCKET_HEAD], enum websocket_opcode opcode, size_t size);
/* True: an endpoint may send it (7.4). */
bool websocket_code_ok(unsigned code);

#endif
