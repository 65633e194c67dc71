/*
 * reply.h - what a program answers, as a value: bytes in, events out. llhttp reads, this keeps the texts of heads
 * together and within limits. The caller takes a head's or a trailer section's texts before it goes on.
 */
#ifndef WEBSERVER_EXEC_REPLY_H
#define WEBSERVER_EXEC_REPLY_H

#include <llhttp.h>
#include <stdbool.h>
#include <stddef.h>

#define REPLY_TEXT   65536 /* bytes of one head, and of one trailer section */
#define REPLY_FIELDS 256

enum reply_event {
	REPLY_MORE,    /* all bytes were taken */
	REPLY_INTERIM, /* a 1xx head, not 101 */
	REPLY_SWITCH,  /* a head with 101: what follows is no HTTP */
	REPLY_HEAD,
	REPLY_BODY, /* data, size: in the bytes that were given */
	REPLY_END,  /* fields: the trailers */
	REPLY_BAD   /* wrong: says how */
};

struct reply_field {
	size_t name, name_size, value, value_size; /* in text */
};

struct reply {
	llhttp_t parser;
	llhttp_settings_t callbacks;
	enum reply_event event;
	bool to_head; /* the request was HEAD */
	bool in_body; /* a head has been read: fields that come are trailers */
	unsigned status;
	bool keep; /* another answer may follow on this connection */
	bool close_delimited;
	size_t reason_size; /* its text is the first */
	struct reply_field field[REPLY_FIELDS];
	unsigned count;
	char *text; /* REPLY_TEXT bytes */
	size_t text_size;
	size_t head_bytes; /* read since the last head, or body, ended: what is skipped counts too */
	const char *data;
	size_t size;
	const char *wrong;
};

int reply_open(struct reply *reply); /* once; 0 or -1 */
void reply_close(struct reply *reply);
void reply_begin(struct reply *reply, bool to_head);
enum reply_event reply_take(struct reply *reply, const char *data, size_t size, size_t *used);
/* The connection has ended: REPLY_END, or REPLY_BAD where the answer is not whole. */
enum reply_event reply_finish(struct reply *reply);

#endif
