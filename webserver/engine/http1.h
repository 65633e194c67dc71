/*
 * HTTP/1.1 requests: from bytes to struct request, strictly.
 *
 *   http1.c   llhttp: where the texts of a head lie
 *   head.c    what llhttp leaves to its user: line ends, Host, framing conflicts, Expect, which fields anybody sees
 *   trailers.c what follows a chunked body (wire/chunked.c)
 *   target.c  the request target: its forms, percent-decoding, dot segments; pure functions
 *   fields.c  field names: token check and number of a known one in one pass
 *
 * A head is parsed in one piece when it is whole, so that nothing about its fields is kept between reads. While it is
 * not, a second parser runs along only to find errors early.
 */
#ifndef WEBSERVER_ENGINE_HTTP1_H
#define WEBSERVER_ENGINE_HTTP1_H

#include "connection.h"
#include "wire.h"

#define METHOD_LONGEST 32

struct names; /* fields.c */

/* A whole head, as llhttp found it. Texts point into the connection's input. */
struct head {
	const char *begin, *end; /* end: first byte behind the empty line */
	struct engine_text method, target;
	struct field *fields; /* of struct http1; values still with white space at their end */
	uint32_t count, limit;
	uint16_t flags; /* enum llhttp_flags */
	int status;	/* set when something is wrong */
	const char *why;
};

struct http1 {
	llhttp_t fresh; /* has eaten "POST ": see http1.c */
	llhttp_settings_t whole, partly;
	struct names *names;
	struct head head;
	struct field fields[WIRE_FIELDS];
};

struct http1 *http1_make(void);
void http1_free(struct http1 *h);

enum { HEAD_PARTLY = 0, HEAD_WHOLE = 1 };
/* Parse c->in from start; HEAD_WHOLE: *head is filled and in.at stands behind it. A status: the head is refused. */
int http1_head(struct connection *c, struct head **head);

/* ---- reading.c */
/* Refuse what is not a request, and close. */
void head_refuse(struct connection *c, int status, const char *why);

/* ---- head.c */
/* Check the head and fill the request. 0, or a status and *why. */
int head_fill(struct engine *e, const struct head *head, struct request *r, const char **why);

/* ---- trailers.c */
/* What a piece has of trailers, if the request lives (NULL: it does not). With the last, r->trailers is filled; those
   that nobody may see, or that belong before a body, are left out. False: no memory, or more than may be. */
bool trailers_keep(struct request *r, const char *data, const struct chunked_piece *piece);

/* ---- target.c. All answer 0 or a status; *why is set with a status. */
struct target {
	struct engine_text authority; /* absolute form only */
	struct engine_text path;      /* as it came, "*" in asterisk form */
	struct engine_text query;     /* without "?" */
};
int target_split(struct engine_text target, struct target *parts, const char **why);
/* Percent-decoded, without dot segments. Points into raw when nothing is to be done, else to room, which must hold
   raw.size bytes. */
int target_path(struct engine_text raw, char *room, struct engine_text *path, const char **why);
bool target_path_is_plain(struct engine_text raw);
/* host [":" port] of RFC 3986, section 3.2.2; *name gets the host alone, without a dot at its end. */
bool authority_valid(struct engine_text authority, struct engine_text *name);

/* ---- fields.c */
struct names *names_make(void);
void names_free(struct names *names);
/* Number of a known field, 0 for others, negative when name is not a token or is one nobody may see ("Proxy", "X_Y"):
   FIELD_BAD, FIELD_HIDDEN. */
enum { FIELD_BAD = -1, FIELD_HIDDEN = -2 };
int name_known(const struct names *names, const char *name, size_t size);
extern const unsigned char token_characters[256]; /* nonzero: tchar of RFC 9110, section 5.6.2 */

#endif
