/*
 * written.h - the head of an answer as an application writes it by hand (RFC 9112, section 4). Pure.
 *
 * Strict: CR LF ends each line, nothing is folded, no white space stands before a colon. What says how the message is
 * framed must be said once and in one way.
 */
#ifndef WEBSERVER_HOST_WRITTEN_H
#define WEBSERVER_HOST_WRITTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "langplugin.h"

#define WRITTEN_MOST   65536 /* bytes of a head */
#define WRITTEN_FIELDS 200

/* Texts lie in the bytes that were given, and have no NUL behind them. */
struct written {
	int status;
	struct langplugin_text reason;
	struct langplugin_field field[WRITTEN_FIELDS]; /* without those of the connection; a 101's Upgrade is there */
	size_t count;
	int64_t length; /* Content-Length; -1: none */
	bool chunked;
	size_t size; /* bytes of the head, its empty line included */
};

enum written_got { WRITTEN_PARTLY = 0, WRITTEN_WHOLE = 1, WRITTEN_WRONG = -1 };
/* why: a sentence, with WRITTEN_WRONG. */
enum written_got written_head(struct written *head, const char *data, size_t size, const char **why);
/* Fields alone, each with its line's end, up to an empty line or the end: an answer's trailers. False: not well formed,
   or too many. */
bool written_fields(struct written *head, const char *data, size_t size);

#endif
