/*
 * zmtp.h - ZeroMQ's wire protocol, ZMTP 3.0 (RFC 23/ZMTP) with the NULL mechanism, as far as a worker's end of the
 * channel needs it: a ROUTER that tells its identity, and messages of one frame. Pure: bytes in, messages out.
 */
#ifndef WEBSERVER_HOST_ZMTP_H
#define WEBSERVER_HOST_ZMTP_H

#include <stdint.h>

#include "message.h"

#define ZMTP_GREETING	64
#define ZMTP_FRAME_HEAD 9	      /* flags and an eight-byte size, at most */
#define ZMTP_OPENING	(64 + 2 + 64) /* what zmtp_opening writes, at most */
#define ZMTP_COMMAND	512	      /* bytes of a command, at most */

enum zmtp_state {
	ZMTP_GREETS = 0, /* the peer's greeting is coming in */
	ZMTP_READIES,	 /* its READY is */
	ZMTP_TALKS,
	ZMTP_BROKEN /* it does not speak the protocol: close the connection */
};

struct zmtp {
	uint8_t state; /* enum zmtp_state */
	uint8_t have;  /* bytes in part */
	uint8_t part[ZMTP_GREETING];
	size_t limit;		 /* bytes of a message, at most */
	struct message *message; /* the frame's body, being filled */
	size_t filled;
};

/* Greeting and READY of a ROUTER with this identity (32 bytes at most), to be sent first. Returns how many bytes. */
size_t zmtp_opening(char to[ZMTP_OPENING], const void *identity, size_t size);
/* The head of a message's one frame. Returns how many bytes. */
size_t zmtp_frame_head(char to[ZMTP_FRAME_HEAD], size_t size);

void zmtp_init(struct zmtp *zmtp, size_t limit);
void zmtp_close(struct zmtp *zmtp);
/* Take bytes in: returns how many were used, all of them or up to the end of a message, which is then the caller's. */
size_t zmtp_take(struct zmtp *zmtp, const char *data, size_t size, struct message **message);
/* Where the body's next bytes may be read to at once, and how many; then zmtp_filled. 0: nowhere. */
size_t zmtp_room(const struct zmtp *zmtp, char **to);
struct message *zmtp_filled(struct zmtp *zmtp, size_t size); /* the message if that made it whole */

#endif
